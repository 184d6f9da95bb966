"""One trial, which is an ordinary run without its test part, and what a process loads once for all of its trials."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from dogs_accel.experiment.loaders import Loaders
from dogs_accel.experiment.plan import Plan, plan_runs
from dogs_accel.experiment.run import TrialOfSweep, execute_run
from dogs_accel.results.layout import CONFIG_FILE, run_folder
from dogs_accel.runtime.out_of_memory import BatchTooLargeError
from dogs_accel.sweep.engine.opened import LOG_FILE, OpenedData, Where, begin_folder, runs_files
from dogs_accel.sweep.engine.study import Claimed
from dogs_accel.sweep.settings import SweepConfig
from dogs_accel.sweep.space import value_text
from dogs_accel.training.checkpoint import BEST_WEIGHTS_FILE, LAST_CHECKPOINT_FILE, CheckpointError
from dogs_accel.training.features import FeatureError
from dogs_accel.training.trainer import DivergedError, HistoryRow

CHECKPOINT_EVERY_S = 30.0
"""A trial is over soon, and writing its state after each epoch would take longer than a short epoch does."""


class TrialError(Exception):
    """A point cannot be trained, whoever tries it: its settings contradict each other, or its loss is not finite."""


@dataclass(frozen=True)
class Progress:
    """What a trial has reached after an epoch."""

    accuracies: Sequence[float]
    """Of validation, an epoch each."""
    seconds: float
    """Of training and validation, over all sessions."""
    num_epochs: int
    """That there will be at most."""
    num_val: int
    seed: int


OnProgress = Callable[[Progress], None]


def check_runs(sweep: SweepConfig) -> None:
    """Raise ValueError, which names the parameter, where a value of the space makes no single run that can be."""
    first = {parameter.name: parameter.ends[0] for parameter in sweep.space.parameters}
    for parameter in sweep.space.parameters:
        for value in parameter.ends:
            try:
                runs = plan_runs(sweep.config(first | {parameter.name: value}).resolved())
                if len(runs) > 1:
                    names = ", ".join(run.name for run in runs[:3])
                    raise ValueError(f"got {len(runs)} runs a trial ({names}), expected one model, strategy and recipe")
            except ValueError as error:
                raise ValueError(f"space: {parameter.name} = {value_text(value)}: {error}") from error


class TrialRunner:
    """Trains trials one after the other, on data that are opened once.

    `prepare` must have been gone through before the first one.
    """

    def __init__(self, folder: Path, sweep: SweepConfig, where: Where) -> None:
        self._sweep, self._where, self._data = sweep, where, OpenedData(folder, where)

    def prepare(self) -> Iterator[str]:
        """Open the data, decode every file but those of test once, and build the store; says what is done."""
        first = {parameter.name: parameter.ends[0] for parameter in self._sweep.space.parameters}
        yield from self._data.open(self._sweep.config(first))

    def close(self) -> None:
        """Let what was kept be freed again, and give torch back the threads that it had."""
        self._data.close()

    def __call__(self, claimed: Claimed, on_progress: OnProgress) -> float:
        """Train a trial into its folder, on from where it was left, and return its best validation accuracy.

        on_progress: is told after each epoch, and may raise PrunedError. Raises TrialError, which its log has too.
        """
        try:
            return self._train(claimed, on_progress)
        except TrialError as error:
            claimed.folder.mkdir(parents=True, exist_ok=True)
            with (claimed.folder / LOG_FILE).open("a", encoding="utf-8") as log:
                print(f"failed: {error}", file=log)
            raise

    def _train(self, claimed: Claimed, on_progress: OnProgress) -> float:
        folder = claimed.folder
        resumes = (folder / CONFIG_FILE).is_file()
        try:
            plan, loaders = self._data.plan_of(self._sweep.config(claimed.point), folder, resumes=resumes)
        except ValueError as error:
            raise TrialError(str(error)) from error
        begin_folder(plan)
        with (folder / LOG_FILE).open("a", encoding="utf-8", buffering=1) as log, redirect_stdout(log):
            for notice in plan.notices:
                print(f"notice   {notice}")
            try:
                value = self._execute(claimed, plan, loaders, on_progress)
            except CheckpointError as error:
                if not resumes:
                    raise
                print(f"it starts anew: {error}")
                for run in plan.runs:
                    shutil.rmtree(run_folder(plan.out, run.spec.family, run.name), ignore_errors=True)
                value = self._execute(claimed, plan, loaders, on_progress)
            finally:
                gc.collect()
        for path in runs_files(folder, LAST_CHECKPOINT_FILE):  # three times as large as the weights
            path.unlink()
        return value

    def _execute(self, claimed: Claimed, plan: Plan, loaders: Loaders, on_progress: OnProgress) -> float:
        [planned] = plan.runs
        examined = self._data.examined
        num_epochs, num_val = sum(phase.epochs for phase in planned.phases), len(examined.splits["val"])

        def on_epoch(history: Sequence[HistoryRow]) -> None:
            accuracies = [float(row["val_acc"]) for row in history]
            on_progress(Progress(accuracies, float(history[-1]["seconds"]), num_epochs, num_val, planned.seed))

        trial = TrialOfSweep(
            group=self._sweep.name,
            title=f"trial {claimed.number}: " + " ".join(f"{n}={value_text(v)}" for n, v in claimed.point.items()),
            point=claimed.point,
            on_epoch=on_epoch,
            checkpoint_every_s=CHECKPOINT_EVERY_S,
            is_of_agent=self._where.is_of_agent,
        )
        try:
            run = execute_run(plan, planned, loaders, examined, trial=trial)
        except DivergedError as error:
            raise TrialError(error.what) from error
        except (BatchTooLargeError, FeatureError) as error:
            raise TrialError(str(error)) from error
        return run.val_accuracy

    def drop_weights(self, folder: Path) -> None:
        """Remove the weights of a trial in its folder, and what it would go on with."""
        for name in (BEST_WEIGHTS_FILE, LAST_CHECKPOINT_FILE):
            for path in runs_files(folder, name):
                path.unlink(missing_ok=True)  # another worker may remove it meanwhile
