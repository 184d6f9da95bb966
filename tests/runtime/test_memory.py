import subprocess
import sys

import pytest

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
