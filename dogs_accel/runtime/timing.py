"""Timing of candidates against each other, on machines whose speed changes from minute to minute."""

from __future__ import annotations

import ctypes
import functools
import math
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

Result = TypeVar("Result")
Clock = Callable[[], float]
"""Gives seconds since some moment."""

_LEAD_CYCLES = 20_000_000
"""How long a GPU waits before it is timed, in cycles of its clock, of which it has one to two billion a second."""


@dataclass(frozen=True)
class Timing:
    """How long a candidate took, round by round."""

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...] = ()
    """CPU time of this process and its workers in the same rounds."""

    @property
    def median(self) -> float:
        """Median over the rounds, in seconds."""
        return statistics.median(self.seconds)

    def ratio_to(self, other: Timing) -> tuple[float, float, float]:
        """How many times as fast as `other` this is: median, lowest and highest over the rounds.

        Both were timed in the same rounds, so that what slows the machine down cancels.
        """
        ratios = [theirs / ours for ours, theirs in zip(self.seconds, other.seconds, strict=True)]
        return statistics.median(ratios), min(ratios), max(ratios)

    def rate(self, num: int) -> tuple[float, float, float]:
        """How many of `num` things a round were done in a second: median, lowest and highest over the rounds."""
        return num / self.median, num / max(self.seconds), num / min(self.seconds)


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Return the ends of an interval of the median of independent values, which are two of them.

    They are the k-th smallest and the k-th largest, with the largest k for which the median lies between them with that
    confidence whatever the distribution: that fewer than k of n values are below it is as likely as fewer than k heads
    of n fair coins. Of too few values, which for 95 % are five or fewer, the lowest and the highest are returned.
    Definition: David and Nagaraja, "Order Statistics", 2003, section 7.1.
    """
    ordered, num = sorted(values), len(values)
    k, fewer = 0, 0  # of the 2^n ways in which coins may fall, those with k heads or fewer
    while 2 * (fewer := fewer + math.comb(num, k)) <= (1 - level) * 2**num:
        k += 1
    k = max(k, 1)
    return ordered[k - 1], ordered[num - k]


def describe_seconds(seconds: float) -> str:
    """Write a time with two digits at least, so that no short one is 0 s."""
    if seconds < 0.01:
        return "less than 0.01 s"
    return f"{seconds:,.0f} s" if seconds >= 9.95 else f"{seconds:#.2g} s"


def cpu_seconds() -> float:
    """CPU time used so far by this process and by the processes that it started, ended ones included.

    Of processes that still run, those count that were started through multiprocessing, such as the workers of a
    DataLoader. NaN where the system does not tell the time of another process.
    """
    workers = multiprocessing.active_children()
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = sum(_process_cpu_seconds(worker.pid) for worker in workers if worker.pid is not None)
    return time.process_time() + ended.ru_utime + ended.ru_stime + running


def _process_cpu_seconds(pid: int) -> float:
    """CPU time of another process; finer than the hundredths of a second in /proc."""
    clock = ctypes.c_int()
    try:
        error = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    except AttributeError:
        return math.nan
    return 0.0 if error else time.clock_gettime(clock.value)  # an error: it has ended since


def in_turns(
    candidates: Mapping[str, Callable[[], Result]], rounds: int = 5, warm_up: int = 1
) -> dict[str, list[Result]]:
    """Call candidates in turns, each once a round; what they return, without the first `warm_up` rounds."""
    results: dict[str, list[Result]] = {name: [] for name in candidates}
    for turn in range(warm_up + rounds):
        for name, work in candidates.items():
            result = work()
            if turn >= warm_up:
                results[name].append(result)
    return results


def interleaved(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int = 5,
    warm_up: int = 1,
    *,
    clock: Clock = time.perf_counter,
    cpu_clock: Clock = cpu_seconds,
) -> dict[str, Timing]:
    """Time candidates in turns, each once a round, after `warm_up` rounds that do not count.

    A candidate returns when its work is done; one that uses a GPU must wait for it.
    """
    clocked = {name: functools.partial(_clocked, work, clock, cpu_clock) for name, work in candidates.items()}
    return {
        name: Timing(*map(tuple, zip(*results, strict=True)))
        for name, results in in_turns(clocked, rounds, warm_up).items()
    }


def interleaved_on_gpu(
    candidates: Mapping[str, Callable[[], object]], device: torch.device, rounds: int = 5, warm_up: int = 1
) -> dict[str, Timing]:
    """Time candidates in turns on the clock of a GPU: from the start of their first kernel to the end of their last.

    The GPU is kept busy while they are launched, so that what the host needs for up to some ten milliseconds of
    launches is no part of it; of a candidate that waits for the GPU in its middle, the host's part after that is.
    """
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def clocked(work: Callable[[], object]) -> float:
        with torch.cuda.device(device):
            torch.cuda._sleep(_LEAD_CYCLES)
            begin.record()
            work()
            end.record()
            end.synchronize()
        return begin.elapsed_time(end) / 1e3

    turns = {name: functools.partial(clocked, work) for name, work in candidates.items()}
    return {name: Timing(tuple(seconds)) for name, seconds in in_turns(turns, rounds, warm_up).items()}


def _clocked(work: Callable[[], object], clock: Clock, cpu_clock: Clock) -> tuple[float, float]:
    cpu, start = cpu_clock(), clock()
    work()
    return clock() - start, cpu_clock() - cpu
