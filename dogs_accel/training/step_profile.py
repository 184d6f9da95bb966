"""Where the time of training goes: the parts of an epoch's steps, memory, and a trace of a few of them."""

from __future__ import annotations

import gzip
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dogs_accel.runtime.files import replacing
from pipelines.clock import StepClock

PARTS = ("data_wait", "transfer", "forward", "backward", "graph", "optimizer")
"""Of a step. data_wait is what passes between a step and the next batch, the loader's own work on the device included;
graph is forward and backward replayed as one CUDA graph."""
_TRACED_STEPS = 4


class EpochProfile:
    """Times one epoch: made when it begins, `row` when training and validation have ended."""

    def __init__(self, clock: StepClock, device: torch.device) -> None:
        self._clock = clock
        self._device = device
        self._train_seconds = 0.0
        self._parts = dict.fromkeys(PARTS, 0.0)
        self._steps = np.zeros(0)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._start = time.perf_counter()

    def end_training(self) -> None:
        """Say that the training steps are done."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._train_seconds = time.perf_counter() - self._start
        marks = self._clock.read()
        for part, seconds in marks:
            self._parts[part] += seconds
        self._steps = step_seconds(marks)

    def row(self, num_images: int) -> dict[str, float]:
        """Return the columns of the epoch, of the `num_images` of all processes: times in seconds, of steps in ms."""
        epoch_seconds = time.perf_counter() - self._start
        first, later = self._steps[:1], self._steps[1:] if len(self._steps) > 1 else self._steps
        return {
            "epoch_seconds": epoch_seconds,
            "train_images_per_second": num_images / self._train_seconds,
            **{f"{part}_s": seconds for part, seconds in self._parts.items()},
            "other_s": max(0.0, self._train_seconds - sum(self._parts.values())),
            "validation_s": epoch_seconds - self._train_seconds,
            "first_step_ms": 1e3 * float(first.sum()),
            "median_step_ms": 1e3 * float(np.median(later)) if len(later) else 0.0,
            "p95_step_ms": 1e3 * float(np.quantile(later, 0.95)) if len(later) else 0.0,
            "peak_memory_mib": peak_memory_mib(self._device),
        }


def step_seconds(marks: Sequence[tuple[str, float]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Add the parts of each step, which ends with its optimiser: (num_steps,) seconds."""
    steps, so_far = [], 0.0
    for part, seconds in marks:
        so_far += seconds
        if part == "optimizer":
            steps.append(so_far)
            so_far = 0.0
    return np.array(steps)


def peak_memory_mib(device: torch.device) -> float:
    """Most memory in use: what torch had allocated on a GPU since the epoch began, of the process itself on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


@contextmanager
def traced_steps(path: Path | None, num_steps: int) -> Iterator[Callable[[], None]]:
    """Give a function to be called after each step of num_steps; a few of the first are traced into `path`.

    The file has the Chrome trace format, which https://ui.perfetto.dev and chrome://tracing open. None traces nothing.
    """
    if path is None:
        yield lambda: None
        return

    def write(profiler: torch.profiler.profile) -> None:
        with replacing(path) as temporary:
            # Where it is to be compressed the library goes by way of the temporary files, and says nothing of a disk
            # that is full: neither of theirs nor of this one.
            plain = temporary.with_suffix(".json")
            try:
                profiler.export_chrome_trace(str(plain))
                content = plain.read_bytes()
            finally:
                plain.unlink(missing_ok=True)
            if not content.rstrip().endswith(b"}"):
                raise OSError(f"{path}: the trace is cut off, and its library does not say why")
            temporary.write_bytes(gzip.compress(content))

    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    # The first step compiles and allocates; the one before the trace warms the profiler up.
    wait = 1 if num_steps > _TRACED_STEPS + 1 else 0
    active = max(1, min(_TRACED_STEPS, num_steps - wait - 1))
    schedule = torch.profiler.schedule(wait=wait, warmup=1, active=active, repeat=1)
    with torch.profiler.profile(activities=activities, schedule=schedule, on_trace_ready=write) as profiler:
        yield profiler.step
