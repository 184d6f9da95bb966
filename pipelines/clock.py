"""The parts of a training step, timed on the clock of the device that does the work."""

from __future__ import annotations

import itertools
import time
from typing import Any

import torch


class StepClock:
    """Splits the time of training steps into parts, on the clock of the device that does the work.

    `mark(part)` says that what has passed since the last mark was `part`. On a GPU a mark is an event in the current
    stream: nothing waits for it before `read`, and what the host spends while the device is busy costs nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []
        self._spare: list[Any] = []

    def mark(self, part: str) -> None:
        """End a part; the first mark after `read` only starts the clock."""
        if not self._on_gpu:
            self._marks.append((part, time.perf_counter()))
            return
        event = self._spare.pop() if self._spare else torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks.append((part, event))

    def read(self) -> list[tuple[str, float]]:
        """Return the parts in their order, with their seconds, and start anew; waits for the device."""
        marks, self._marks = self._marks, []
        if self._on_gpu and marks:
            marks[-1][1].synchronize()
            self._spare += [event for _, event in marks]
        return [(part, self._seconds(before, now)) for (_, before), (part, now) in itertools.pairwise(marks)]

    def _seconds(self, before: Any, now: Any) -> float:
        return before.elapsed_time(now) / 1e3 if self._on_gpu else now - before
