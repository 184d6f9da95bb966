import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dogs_accel.throughput.candidates import Candidate, Workload
from dogs_accel.throughput.cold_start import measure_cold_start, tree_memory_bytes
from pipelines import EVAL

HOLD = "data = bytearray(64_000_000); data[::4096] = b'x' * len(data[::4096]); print('held', flush=True); input()"
WORKLOAD = Workload(paths=("photo.jpg",) * 2, recipe=EVAL, batch_size=1, num_threads=1)


class Heavy:
    """Holds 100 MB, and notes in a file how long after it was asked for it gave its first batch, and its last."""

    def __init__(self, workload):
        self.start = time.perf_counter()
        self.notes = Path(workload.paths[0])

    def __iter__(self):
        for _ in range(2):
            time.sleep(0.2)
            self.held = np.ones(100_000_000, dtype=np.uint8)
            with self.notes.open("a") as file:
                file.write(f"{time.perf_counter() - self.start!r}\n")
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


def test_the_first_batch_and_the_peak_are_those_of_a_known_loader(tmp_path):
    workload = replace(WORKLOAD, paths=(str(tmp_path / "notes"),) * 2)
    cold = measure_cold_start(Candidate("heavy", Heavy), workload)
    first, last = map(float, (tmp_path / "notes").read_text().split())
    assert first <= cold.first_batch_seconds < last
    assert 95 < cold.peak_memory_mb < 230
    assert cold.peak_gpu_memory_mb is None


def test_a_process_that_fails_says_why_and_leaves_no_traceback(capfd):
    with pytest.raises(ValueError, match=r"^paths: broken$"):
        measure_cold_start(Candidate("doomed", Broken), WORKLOAD)
    with pytest.raises(RuntimeError, match=r"doomed: its process ended with exit code 3"):
        measure_cold_start(Candidate("doomed", end_at_once), WORKLOAD)
    assert capfd.readouterr().err == ""


class Stopped:
    """Says in a file which process it is in, ends the one that measures it by a signal, and would go on for long."""

    def __init__(self, workload):
        Path(workload.paths[0]).write_text(str(os.getpid()))
        os.kill(os.getppid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)


@pytest.mark.fault("Signals and processes", "Ctrl-C while a loader is measured in a process of its own", "both end")
def test_an_interruption_ends_the_process_that_is_measured_too(tmp_path, capfd):
    workload = replace(WORKLOAD, paths=(str(tmp_path / "pid"),) * 2)
    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        measure_cold_start(Candidate("long", Stopped), workload)
    assert time.perf_counter() - start < 50
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert capfd.readouterr().err == ""
