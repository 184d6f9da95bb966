import subprocess
import sys

import pytest

from dogs_accel.runtime import memory
from dogs_accel.runtime.memory import available_bytes, obtainable_bytes
from tests.pipelines.test_cores import write

# In a process of its own: the setting stays for the life of a process.
SCRIPT = """
import platform, resource, sys
import torch
from dogs_accel.runtime.memory import keep_freed_memory

def faults_of_large_allocations():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(64 << 20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if platform.libc_ver()[0] != "glibc":
    sys.exit(3)
given_back = faults_of_large_allocations()
assert keep_freed_memory()
for _ in range(4):
    faults_of_large_allocations()
print(given_back, faults_of_large_allocations())
"""


def test_large_blocks_are_not_mapped_anew():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("this system's C library is not glibc")
    given_back, kept = map(int, done.stdout.split())
    assert kept < given_back / 10


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        # What is kept of files is taken back where memory is wanted.
        ({"memory__max": 1000, "memory__current": 700, "memory__stat": "active_file 40\ninactive_file 60"}, 400),
        ({"memory__max": 1000, "memory__current": 1000, "memory__stat": "active_file 0"}, 0),
        ({"memory__max": "max", "memory__current": 700, "memory__stat": "active_file 40"}, 9 << 10),
        ({"memory__limit_in_bytes": 1000, "memory__usage_in_bytes": 700,
          "memory__stat": "inactive_file 7\ntotal_inactive_file 100\ntotal_active_file 1"}, 401),
        ({"memory__limit_in_bytes": 2**63 - 4096, "memory__usage_in_bytes": 1, "memory__stat": ""}, 9 << 10),
        ({"memory__max": 1 << 20, "memory__current": 1, "memory__stat": ""}, 9 << 10),
        ({}, 9 << 10),
    ],
)  # fmt: skip
def test_a_control_group_may_leave_less_than_the_machine_has(tmp_path, monkeypatch, files, expected):
    write(tmp_path / "group", **files)
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:   9 kB\nSwapFree: 2 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    assert available_bytes([tmp_path / "group"]) == expected
    monkeypatch.setattr(memory, "control_groups", lambda controller: [tmp_path / "group"])
    assert obtainable_bytes() == expected + (2 << 10) + memory._own_pages(1)
    (tmp_path / "meminfo").unlink()
    assert obtainable_bytes() is available_bytes() is None
