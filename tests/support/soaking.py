"""What a process holds while the same is done again and again, and whether that grows."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from dogs_accel.throughput.cold_start import tree_memory_bytes

SCALE = float(os.environ.get("DOGS_ACCEL_SOAK", "1"))
"""Of all numbers of repetitions: 0.1 for a short look, 10 for a night."""
_NUM_SAMPLES = 60
_WARM_UP = 0.5
"""The share of the repetitions in which memory may still grow: pools, caches, pages that workers come to own."""


def repetitions(number: int) -> int:
    """So many, scaled; enough for a slope."""
    return max(20, round(number * SCALE))


@dataclass(frozen=True, slots=True)
class Held:
    """What this process and all that it started hold at one time."""

    memory_bytes: int
    descriptors: int
    threads: int
    processes: int
    shared_files: int
    """Mappings and descriptors of files in /dev/shm."""

    @property
    def counted(self) -> tuple[int, int, int, int]:
        return self.descriptors, self.threads, self.processes, self.shared_files


def held() -> Held:
    """Measure, after what is free has been given back: what is free but in pieces is no leak."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    memory_bytes = tree_memory_bytes(os.getpid())
    own = psutil.Process()
    tree = [own, *own.children(recursive=True)]
    descriptors = threads = shared_files = 0
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            descriptors += process.num_fds()
            threads += process.num_threads()
            shared_files += sum("/dev/shm/" in line for line in _maps_and_links(process.pid))
    return Held(memory_bytes, descriptors, threads, len(tree), shared_files)


def _maps_and_links(pid: int) -> list[str]:
    folder = Path(f"/proc/{pid}")
    links = [str(entry.readlink()) for entry in (folder / "fd").iterdir() if entry.is_symlink()]
    return (folder / "maps").read_text(encoding="utf-8", errors="replace").splitlines() + links


def slope(at: list[int], values: list[int]) -> float:
    """The median of the slopes of all pairs (Theil and Sen), which a few high samples do not move."""
    x, y = np.array(at, dtype=float), np.array(values, dtype=float)
    first, second = np.triu_indices(len(x), k=1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))


class Watch:
    """Samples of what is held after each of so many repetitions."""

    def __init__(self, what: str, number: int) -> None:
        self._what = what
        self._number = number
        self._every = max(1, number // _NUM_SAMPLES)
        self._done = 0
        self._at: list[int] = []
        self._samples: list[Held] = []

    def after_one(self) -> None:
        """Count a repetition that has just ended."""
        self._done += 1
        if self._done % self._every == 0:
            self._at.append(self._done)
            self._samples.append(held())

    def check(self, *, bytes_each: float) -> None:
        """In the second half memory has grown by less than `bytes_each` a time, and nothing else has changed.

        Prints what was held at first and at last. Raises AssertionError.
        """
        assert self._done == self._number
        warm = int(len(self._samples) * _WARM_UP)
        memory = [sample.memory_bytes for sample in self._samples]
        growth = slope(self._at[warm:], memory[warm:])
        first, last = self._samples[warm], self._samples[-1]
        print(
            f"\n{self._what}: {self._number} times, {memory[0] / 1e6:.1f} MB at first, {memory[warm] / 1e6:.1f} at "
            f"half, {memory[-1] / 1e6:.1f} at last, {growth:+.0f} bytes a time; {last.descriptors} descriptors, "
            f"{last.threads} threads, {last.processes} processes, {last.shared_files} shared files"
        )
        assert {sample.counted for sample in self._samples[warm:]} == {first.counted}, self._samples
        # Of a short look, what warms up is a larger part.
        assert growth < bytes_each / min(1, SCALE), memory


def soak(what: str, number: int, once: Callable[[int], object], *, bytes_each: float) -> None:
    """Do `once` so many times and check what is held. Raises AssertionError."""
    watch = Watch(what, number)
    for repetition in range(number):
        once(repetition)
        watch.after_one()
    watch.check(bytes_each=bytes_each)
