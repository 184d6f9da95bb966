"""What a process reads of the others, and what they send each other; commands/test_distributed.py starts them."""

import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from dogs_accel.runtime import processes
from dogs_accel.runtime.processes import ALONE, World, all_reduce_bytes, joined, world_from_environment


def test_without_torchrun_a_process_is_alone():
    assert world_from_environment({"LOCAL_RANK": "1", "MASTER_ADDR": "there"}) == ALONE
    given = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert world_from_environment(given) == World(rank=3, size=4, local_rank=1, local_size=2)


@pytest.mark.fault("Machine and environment", "half of torchrun's variables", "one line with those that are missing")
def test_half_an_environment_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^distributed: LOCAL_RANK, LOCAL_WORLD_SIZE not set beside the others"):
        world_from_environment({"RANK": "0", "WORLD_SIZE": "2"})
    with pytest.raises(ValueError, match=r"^distributed: got WORLD_SIZE=two, expected an integer >= 0$"):
        world_from_environment({"RANK": "0", "WORLD_SIZE": "two", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"})


@pytest.mark.parametrize(
    ("num_bytes", "num_processes", "expected"),
    [(100, 1, 0), (100, 2, 100), (100, 4, 150), (100, 3, 4 * 34), (0, 8, 0), (102_228_128, 8, 178_899_224)],
)
def test_bytes_of_a_ring(num_bytes, num_processes, expected):
    assert all_reduce_bytes(num_bytes, num_processes) == expected


def test_a_ring_needs_a_process():
    with pytest.raises(ValueError, match=r"^num_processes: got 0, expected an integer >= 1$"):
        all_reduce_bytes(1, 0)


@pytest.mark.fault(
    "Machine and environment",
    "RANK and WORLD_SIZE=1 without LOCAL_RANK, as schedulers set them",
    "one process, as without",
)
@pytest.mark.parametrize("more", [{}, {"RANK": "0"}, {"RANK": "0", "MASTER_ADDR": "there", "SLURM_PROCID": "0"}])
def test_one_process_is_alone_whatever_else_is_said_of_it(more):
    assert world_from_environment({"WORLD_SIZE": "1", **more}) == ALONE


@pytest.mark.fault("Signals and processes", "a MASTER_ADDR that nobody answers at", "one line within a minute")
def test_a_first_process_that_cannot_be_reached_is_an_error_soon(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        monkeypatch.setattr(processes._reach_first, "__defaults__", (os.environ, 0.3))
        with (
            pytest.raises(ValueError, match=r"^distributed: nobody answers at MASTER_ADDR=127\.0\.0\.1, MASTER_PORT="),
            joined(World(rank=1, size=2, local_rank=1, local_size=2)),
        ):
            pass
    assert processes._REACHED_WITHIN_S < 60


ORPHAN = """
import os, subprocess, sys, time
code = "import time; from dogs_accel.runtime import processes as p; p.end_with_torchrun()"
code += "; print(1, flush=True); time.sleep(60)"
own = os.environ | {"TORCHELASTIC_RUN_ID": "x"}
worker = subprocess.Popen([sys.executable, "-c", code], env=own, stdout=subprocess.PIPE)
worker.stdout.readline()
print(worker.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.fault("Signals and processes", "torchrun killed alone", "its workers end too")
@pytest.mark.skipif(sys.platform != "linux", reason="what the system does when a parent ends")
def test_a_worker_ends_when_torchrun_is_gone():
    agent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True)
    worker = psutil.Process(int(agent.stdout.readline()))
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    until = time.monotonic() + 20
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
        time.sleep(0.05)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
