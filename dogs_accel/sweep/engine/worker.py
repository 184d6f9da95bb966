"""A worker: one trial after the other, until nothing is left to do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from dogs_accel.runtime.terminal import count_text
from dogs_accel.sweep.engine.study import Claimed, SweepStudy
from dogs_accel.sweep.engine.trial import OnProgress, Progress, TrialError
from dogs_accel.sweep.space import Point, value_text
from dogs_accel.training.tracking import PrunedError

_MOST_FAILED = 5
"""Trials of a worker that failed after which it stops where no trial of the sweep was trained: it is no matter of a
point then."""


class Train(Protocol):
    """What trains a trial: `TrialRunner`."""

    def __call__(self, claimed: Claimed, on_progress: OnProgress) -> float:
        """Train it, and return its best validation accuracy. Raises TrialError."""

    def drop_weights(self, folder: Path) -> None:
        """Remove the weights of a trial in its folder."""


class NothingTrainsError(Exception):
    """Trial after trial has failed, and none was ever trained; or the one that was asked for."""


def work(
    study: SweepStudy,
    train: Train,
    *,
    point: Point | None = None,
    until: float = math.inf,
    goes_on: Callable[[], bool] = lambda: True,
) -> Iterator[str]:
    """Train trials until the budget is used up, and say a line of each.

    point: train this one alone. until: the time of `time.monotonic` after which no other trial begins. goes_on: is
    asked before each trial and after each epoch; where it says no the work stops as at Ctrl-C. Raises
    NothingTrainsError where trial after trial fails and none of the sweep was ever trained, and where the point fails.
    """
    since, num_failed = time.perf_counter(), 0
    while time.monotonic() < until:
        with study.claim(point) as claimed:
            if claimed is None:
                return
            session = _Session(study, claimed, since, goes_on)
            try:
                value = train(claimed, session.on_progress)
            except PrunedError:
                train.drop_weights(claimed.folder)
                progress, since = session.end()
                study.prune(claimed, progress)
                said = f"pruned at {max(session.accuracies):.4f}"
            except TrialError as error:
                train.drop_weights(claimed.folder)
                progress, since = session.end()
                study.fail(claimed, str(error), progress)
                said = f"failed: {error}"
                num_failed += 1
            else:
                progress, since = session.end()
                for folder in study.complete(claimed, value, progress):
                    train.drop_weights(folder)
                said = f"{value:.4f}"
            yield _line(study, claimed, said, progress)
        if num_failed >= _MOST_FAILED and not study.has_trained:
            raise NothingTrainsError(f"no trial could be trained; the last one {said}")
        if point is not None:
            if num_failed:
                raise NothingTrainsError(f"the point was not trained: {said.partition(': ')[2]}")
            return


class _Session:
    """The time that one process spends on a trial."""

    def __init__(self, study: SweepStudy, claimed: Claimed, since: float, goes_on: Callable[[], bool]) -> None:
        self._study, self._claimed, self._since, self._goes_on = study, claimed, since, goes_on
        self._before = {"seconds": 0.0, "overhead_seconds": 0.0, **claimed.progress}
        self._progress: Mapping[str, Any] = self._before
        self.accuracies: Sequence[float] = ()

    def on_progress(self, progress: Progress) -> None:
        """Tell the study of an epoch. Raises PrunedError where the trial is to be given up."""
        if not self._goes_on():
            raise KeyboardInterrupt
        self.accuracies = progress.accuracies
        self._progress = {
            "num_val": progress.num_val,
            "seed": progress.seed,
            "epochs": len(progress.accuracies),
            "seconds": progress.seconds,
            "overhead_seconds": self._before["overhead_seconds"],
        }
        known = self._with_overhead(time.perf_counter())
        if self._study.report(self._claimed, progress.accuracies, progress.num_epochs, known):
            raise PrunedError

    def _with_overhead(self, now: float) -> dict[str, Any]:
        """Count what was neither training nor validation of an epoch since the trial before this one ended."""
        trained = self._progress["seconds"] - self._before["seconds"]
        lost = max(0.0, now - self._since - max(0.0, trained))
        return {**self._progress, "overhead_seconds": self._before["overhead_seconds"] + lost}

    def end(self) -> tuple[dict[str, Any], float]:
        """Give what is known at the end, and the time from which the next trial counts."""
        now = time.perf_counter()
        return self._with_overhead(now), now


def _line(study: SweepStudy, claimed: Claimed, said: str, progress: Mapping[str, Any]) -> str:
    best = study.best
    known = "" if best is None else f" (best {best[1]:.4f}, trial {best[0]})"
    epochs, seconds, lost = progress.get("epochs", 0), progress["seconds"], progress["overhead_seconds"]
    point = " ".join(f"{name}={value_text(value)}" for name, value in claimed.point.items())
    again = "" if claimed.same_as is None else f"; the point of trial {claimed.same_as} again"
    on = "; taken over" if claimed.is_taken_over else ""
    took = f"{count_text(epochs, 'epoch')} in {seconds:.1f} s, {lost:.1f} s beside"
    return f"trial {claimed.number:>3}  {said}{known}  {took}  {point}{again}{on}"
