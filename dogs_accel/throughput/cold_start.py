"""A loader in a process of its own: how long until its first batch, and how much memory it takes."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import pkgutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

import pipelines
from dogs_accel.runtime.files import FullDiskError, is_disk_full
from dogs_accel.throughput.candidates import Candidate, Workload

_POLL_SECONDS = 0.05
"""A look takes about 10 ms of another core."""


@dataclass(frozen=True)
class ColdStart:
    """One epoch of a loader in a process that has imported everything and done nothing else."""

    first_batch_seconds: float
    """From the call that makes the loader to its first batch."""
    peak_memory_mb: float
    """Above the idle process, its workers included; mapped files, which the system may drop, are left out."""
    peak_gpu_memory_mb: float | None
    """Above the idle CUDA context; None without a GPU."""


def measure_cold_start(candidate: Candidate, workload: Workload) -> ColdStart:
    """Measure the first epoch of a candidate in a fresh process.

    Raises RuntimeError where that process ends, and where it fails ValueError for what the user can put right,
    FullDiskError for a full disk and else RuntimeError.
    """
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_first_epoch, args=(theirs, candidate, workload, multiprocessing.get_start_method())
    )
    # Ctrl-C on a terminal goes to all processes; this one says so, and ends the other.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    theirs.close()
    try:
        assert process.pid is not None
        return _watch(ours, process.pid, workload)
    except EOFError as error:
        process.join()
        raise RuntimeError(f"{candidate.name}: its process ended with exit code {process.exitcode}") from error
    except BaseException:
        process.kill()
        raise
    finally:
        ours.close()
        process.join()


def _first_epoch(pipe: Connection, candidate: Candidate, workload: Workload, start_method: str) -> None:
    try:
        _time_first_epoch(pipe, candidate, workload, start_method)
    except Exception as error:  # said by the process that asked, as if it had come up there
        pipe.send(_tellable(error))


def _tellable(error: Exception) -> Exception:
    """Give an error that can be sent to another process, and ends the command there as this one would."""
    if is_disk_full(error):
        return FullDiskError(str(error))
    return ValueError(str(error)) if isinstance(error, ValueError | OSError) else RuntimeError(f"{error!r}")


def _time_first_epoch(pipe: Connection, candidate: Candidate, workload: Workload, start_method: str) -> None:
    # A process that was spawned would spawn its own workers too, and they would import everything again.
    multiprocessing.set_start_method(start_method, force=True)
    _import_loaders()
    if workload.on_gpu:
        torch.zeros(1, device=workload.device)
    pipe.send(None)
    pipe.recv()
    start = time.perf_counter()
    loader = candidate.make(workload)
    batches = iter(loader)
    next(batches)
    workload.finish()
    seconds = time.perf_counter() - start
    for _ in batches:
        pass
    pipe.send(seconds)
    loader.close()


def _import_loaders() -> None:
    for module in pkgutil.iter_modules(pipelines.__path__):
        # Without DALI its modules cannot be imported, and no candidate needs them.
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(f"pipelines.{module.name}")


def _received(pipe: Connection) -> Any:
    said = pipe.recv()
    if isinstance(said, Exception):
        raise said
    return said


def _watch(pipe: Connection, pid: int, workload: Workload) -> ColdStart:
    _received(pipe)
    idle = peak = tree_memory_bytes(pid)
    idle_gpu = peak_gpu = _gpu_memory_bytes(workload)
    pipe.send(None)
    while not pipe.poll(_POLL_SECONDS):
        peak = max(peak, tree_memory_bytes(pid))
        peak_gpu = max(peak_gpu, _gpu_memory_bytes(workload))
    seconds = _received(pipe)
    gpu = (peak_gpu - idle_gpu) / 1e6 if workload.on_gpu else None
    return ColdStart(seconds, (peak - idle) / 1e6, gpu)


def _gpu_memory_bytes(workload: Workload) -> int:
    """Memory in use on the device, whoever uses it."""
    if not workload.on_gpu:
        return 0
    free, total = torch.cuda.mem_get_info(workload.device)
    return total - free


def tree_memory_bytes(pid: int) -> int:
    """Memory of a process and all that it started, in bytes: anonymous and shared, each page counted once.

    Read from /proc, so Linux only; a process that ends meanwhile counts as nothing.
    """
    return sum(_own_memory_bytes(each) for each in _tree(pid))


def _own_memory_bytes(pid: int) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return 0


def _tree(pid: int) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # After the name, which may hold anything, come the state and the parent.
            parent = int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    left = [pid]
    while left:
        yield (current := left.pop())
        left += children.get(current, [])
