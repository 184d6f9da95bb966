import os
import subprocess
import sys
import time

import numpy as np
import pytest

from dogs_accel.throughput.candidates import Candidate, Workload
from dogs_accel.throughput.cold_start import measure_cold_start, tree_memory_bytes
from pipelines import EVAL

HOLD = "data = bytearray(64_000_000); data[::4096] = b'x' * len(data[::4096]); print('held', flush=True); input()"
WORKLOAD = Workload(paths=("photo.jpg",) * 2, recipe=EVAL, batch_size=1, num_threads=1)


class Heavy:
    """Takes 0.3 s to make and 0.2 s a batch, and holds 100 MB."""

    def __init__(self, workload):
        time.sleep(0.3)

    def __iter__(self):
        for _ in range(2):
            time.sleep(0.2)
            self.held = np.ones(100_000_000, dtype=np.uint8)
            yield (self.held[:1],)

    def close(self):
        del self.held


class Broken:
    def __init__(self, workload):
        raise ValueError("paths: broken")


def end_at_once(workload):
    os._exit(3)


def test_memory_counts_what_a_child_process_holds():
    before = tree_memory_bytes(os.getpid())
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        held = tree_memory_bytes(os.getpid()) - before
        alone = tree_memory_bytes(child.pid)
        child.communicate(b"\n")
    assert 64e6 < held < 90e6
    assert 64e6 < alone < 90e6
    assert tree_memory_bytes(child.pid) == 0


def test_the_first_batch_and_the_peak_are_those_of_a_known_loader():
    cold = measure_cold_start(Candidate("heavy", Heavy), WORKLOAD)
    assert 0.5 <= cold.first_batch_seconds < 1.5
    assert 95 < cold.peak_memory_mb < 230
    assert cold.peak_gpu_memory_mb is None


def test_a_process_that_fails_is_named(capfd):
    for make in (Broken, end_at_once):
        with pytest.raises(RuntimeError, match=r"doomed: its process ended with exit code (1|3)"):
            measure_cold_start(Candidate("doomed", make), WORKLOAD)
    assert "paths: broken" in capfd.readouterr().err
