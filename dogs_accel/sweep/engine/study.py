"""The study that all workers of a sweep share: one journal in its folder, from which every trial's row follows."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timezone
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.runtime.terminal import count_text
from dogs_accel.sweep.engine.samplers import ShuffledGridSampler, distribution_of, make_sampler
from dogs_accel.sweep.settings import SweepConfig
from dogs_accel.sweep.space import Point
from dogs_accel.sweep.trials import (
    COMPLETE,
    FAILED,
    PRUNED,
    RUNNING,
    TRIALS_FILE,
    State,
    TrialRow,
    trial_folder,
    write_trials,
)
from pipelines.store.disk import lock, open_to_lock

STUDY_JOURNAL_FILE = "journal.log"
LOCKS_FOLDER = "locks"
"""Files that the system locks: of the journal, of giving out trials, and of each trial that somebody works on."""
_OF_JOURNAL, _OF_TRIALS = "journal", "trials"
_STUDY = "sweep"
_PROGRESS, _ATTEMPTS, _REASON = "progress", "attempts", "reason"
"""What a trial's row has beside Optuna's own words, as attributes of the trial."""
_BY_HAND = "fixed_params"
"""Optuna's own attribute of a trial whose point was given."""
_MOST_ATTEMPTS = 3
"""Workers that may die at a trial without an epoch between before it is left alone."""
NUM_WITH_WEIGHTS = 3
"""Complete trials, the best ones, whose weights are kept."""
_STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: COMPLETE, TrialState.PRUNED: PRUNED, TrialState.FAIL: FAILED, TrialState.RUNNING: RUNNING,
    TrialState.WAITING: RUNNING,
}  # fmt: skip
optuna.logging.set_verbosity(optuna.logging.WARNING)


class _SystemLock(JournalFileOpenLock):
    """The journal's lock as the system keeps it, which frees that of a process that was killed at once."""

    def __init__(self, journal: Path) -> None:
        self._journal, self._path, self._file = journal, journal.parent / LOCKS_FOLDER / _OF_JOURNAL, -1

    def acquire(self) -> bool:
        """Wait for the lock, and cut off what a killed process has left of a line."""
        self._file = open_to_lock(self._path)
        lock(self._file)
        with self._journal.open("rb+") as journal:
            size = journal.seek(0, os.SEEK_END)
            while size:
                start = max(0, size - (1 << 16))
                journal.seek(start)
                end = journal.read(size - start).rfind(b"\n")
                if end >= 0 or start == 0:
                    size = start + end + 1
                    break
                size = start
            journal.truncate(size)
        return True

    def release(self) -> None:
        """Give it back."""
        os.close(self._file)
        self._file = -1


@contextmanager
def one_at_a_time(folder: Path, what: str) -> Iterator[None]:
    """Let one process of a sweep at a time into the block of this name; the others wait."""
    file = open_to_lock(folder / LOCKS_FOLDER / what)
    try:
        lock(file)
        yield
    finally:
        os.close(file)


@dataclass(frozen=True)
class Claimed:
    """A trial that this process alone works on, for as long as its stack is open."""

    number: int
    point: Point
    folder: Path
    is_taken_over: bool
    """Whether somebody began it who is gone."""
    same_as: int | None
    """The first trial before it at the same point, if any."""
    trial: Trial
    progress: Mapping[str, Any]
    """What was known of it before: seconds, overhead_seconds, epochs."""


class SweepStudy:
    """The trials of a sweep, as the journal in its folder has them."""

    def __init__(self, folder: Path, sweep: SweepConfig) -> None:
        self.folder, self.sweep = folder, sweep
        folder.mkdir(parents=True, exist_ok=True)
        journal = folder / STUDY_JOURNAL_FILE
        storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=_SystemLock(journal)))
        self._study = optuna.create_study(
            storage=storage,
            study_name=_STUDY,
            direction="maximize",
            load_if_exists=True,
            sampler=make_sampler(sweep),
            pruner=_pruner(sweep),
        )
        self._distributions: dict[str, BaseDistribution] = {
            parameter.name: distribution_of(parameter) for parameter in sweep.space.parameters
        }

    @property
    def trials(self) -> list[FrozenTrial]:
        """Every trial, in the order of their numbers."""
        return self._study.get_trials(deepcopy=False)

    @property
    def best(self) -> tuple[int, float] | None:
        """Number and value of the best of the complete trials, the first of equals; None before there is one."""
        return next(iter(self._ranked()), None)

    def _ranked(self) -> list[tuple[int, float]]:
        """Number and value of each complete trial, the best first, of equals the earlier one."""
        values = [(trial.number, trial.value) for trial in self.trials if trial.state == TrialState.COMPLETE]
        known = [(number, value) for number, value in values if value is not None]
        return sorted(known, key=lambda each: (-each[1], each[0]))

    @contextmanager
    def claim(self, point: Point | None = None) -> Iterator[Claimed | None]:
        """Give a trial to this process for the length of the block; None where there is none left to do.

        One whose worker is gone comes first: it goes on under its number. point: of a new trial, in place of one that
        is drawn, whatever the budget.
        """
        with ExitStack() as stack:
            with self._alone():
                trial = None if point is not None else self._abandoned(stack)
                is_taken_over = trial is not None
                if trial is None and (point is not None or self.has_budget()):
                    trial = self._begin(stack, point)
                claimed = None if trial is None else self._claimed(trial, is_taken_over)
                # Also where none is left: a process that was killed may have ended a trial and not written that there.
                self._write_table()
            try:
                yield claimed
            except KeyboardInterrupt:
                if claimed is not None:
                    self._count_no_death(claimed.trial)
                raise

    def _count_no_death(self, trial: Trial) -> None:
        """Take back that a worker has begun at a trial: it was told to stop, which is none of the trial's doing."""
        frozen = self._study._storage.get_trial(trial._trial_id)
        if not frozen.state.is_finished():
            trial.set_user_attr(_ATTEMPTS, frozen.user_attrs.get(_ATTEMPTS, [])[:-1])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep the other workers from giving out trials, and from writing the table, for the length of the block."""
        with one_at_a_time(self.folder, _OF_TRIALS):
            yield

    def _abandoned(self, stack: ExitStack) -> Trial | None:
        """Take a trial that is running by its state and that no process works on."""
        for frozen in self.trials:
            if frozen.state not in (TrialState.RUNNING, TrialState.WAITING):
                continue
            if not self._take(stack, frozen.number):
                continue  # also where the file system has no locks, and nobody knows who is gone
            if frozen.state == TrialState.WAITING:  # of an earlier version that was killed as it gave out a point
                self._study._storage.set_trial_state_values(frozen._trial_id, TrialState.RUNNING)
            trial = Trial(self._study, frozen._trial_id)
            attempts, epochs = [*frozen.user_attrs.get(_ATTEMPTS, [])], len(frozen.intermediate_values)
            if attempts[-_MOST_ATTEMPTS:] == [epochs] * _MOST_ATTEMPTS:
                after = count_text(epochs, "epoch")
                self._end(trial, TrialState.FAIL, reason=f"{_MOST_ATTEMPTS} workers died at it after {after}")
                continue
            trial.set_user_attr(_ATTEMPTS, [*attempts, epochs])
            return trial
        return None

    def _take(self, stack: ExitStack, number: int) -> bool:
        """Lock a trial for this process until the stack is closed; says whether that keeps the others out."""
        file = open_to_lock(self._lock_path(number))
        stack.callback(os.close, file)
        try:
            return lock(file, wait=False)
        except BlockingIOError:
            return False

    def _lock_path(self, number: int) -> Path:
        return self.folder / LOCKS_FOLDER / f"{number:04}"

    def has_budget(self) -> bool:
        """Whether another trial may be drawn.

        Trials whose points were given by hand count as none of them, but no grid comes back to those points.
        """
        trials, sampler = self.trials, self._study.sampler
        most = self.sweep.most_trials
        if most is not None and sum(_BY_HAND not in each.system_attrs for each in trials) >= most:
            return False
        if isinstance(sampler, ShuffledGridSampler) and sampler.free_point(trials) is None:
            return False
        most_epochs = self.sweep.total_epochs
        return most_epochs is None or sum(len(each.intermediate_values) for each in trials) < most_epochs

    def _begin(self, stack: ExitStack, point: Point | None) -> Trial:
        self._take(stack, len(self.trials))  # before the trial, so that nobody finds it with nobody who works on it
        if point is not None:
            # In one write: of a process that is killed here there is a trial to go on with, or none.
            by_hand, attempts = {_BY_HAND: dict(point)}, {_ATTEMPTS: [0]}
            self._study.add_trial(create_trial(state=TrialState.RUNNING, system_attrs=by_hand, user_attrs=attempts))
            return Trial(self._study, self.trials[-1]._trial_id)
        trial = self._study.ask()
        trial.set_user_attr(_ATTEMPTS, [0])
        return trial

    def _claimed(self, trial: Trial, is_taken_over: bool) -> Claimed:
        # What it has already stays; else it is drawn.
        space = self.sweep.space
        point = space.snapped({name: trial._suggest(name, each) for name, each in self._distributions.items()})
        earlier = [each.number for each in self.trials[: trial.number] if space.snapped(each.params) == point]
        return Claimed(
            number=trial.number,
            point=point,
            folder=self.folder / trial_folder(trial.number),
            is_taken_over=is_taken_over,
            same_as=next(iter(earlier), None),
            trial=trial,
            progress=trial.user_attrs.get(_PROGRESS, {}),
        )

    @property
    def has_trained(self) -> bool:
        """Whether a trial was trained, to its end or until it was given up."""
        return any(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in self.trials)

    def report(
        self, claimed: Claimed, accuracies: Sequence[float], num_epochs: int, progress: Mapping[str, Any]
    ) -> bool:
        """Tell the validation accuracies of the epochs so far; returns whether it is to be given up.

        num_epochs: that the trial will have; after the last of them none is given up, also where its worker is gone and
        another one trains some of them again.
        """
        trial = claimed.trial
        told = set(self._study._storage.get_trial(trial._trial_id).intermediate_values)
        trial.set_user_attr(_PROGRESS, dict(progress))
        for step, accuracy in enumerate(accuracies, start=1):
            if step not in told:
                trial.report(accuracy, step)
        return trial.should_prune() and max([len(accuracies), *told]) < num_epochs

    def complete(self, claimed: Claimed, value: float, progress: Mapping[str, Any]) -> list[Path]:
        """End a trial with its best validation accuracy.

        Returns the folders of the complete trials that are not among the best, whose weights are kept. So it does each
        time, since a worker may have been killed before it had removed those of one.
        """
        claimed.trial.set_user_attr(_PROGRESS, dict(progress))
        with self._alone():
            self._end(claimed.trial, TrialState.COMPLETE, value=value)
            self._write_table()
            ranked = [number for number, _ in self._ranked()]
        return [self.folder / trial_folder(number) for number in ranked[NUM_WITH_WEIGHTS:]]

    def prune(self, claimed: Claimed, progress: Mapping[str, Any]) -> None:
        """End a trial that is given up."""
        self._finish(claimed, progress, TrialState.PRUNED)

    def fail(self, claimed: Claimed, reason: str, progress: Mapping[str, Any]) -> None:
        """End a trial that cannot be trained."""
        self._finish(claimed, progress, TrialState.FAIL, reason=reason)

    def _finish(self, claimed: Claimed, progress: Mapping[str, Any], state: TrialState, **how: Any) -> None:
        claimed.trial.set_user_attr(_PROGRESS, dict(progress))
        with self._alone():
            self._end(claimed.trial, state, **how)
            self._write_table()

    def _end(self, trial: Trial, state: TrialState, *, value: float | None = None, reason: str = "") -> None:
        if reason:
            trial.set_user_attr(_REASON, reason)
        self._study.tell(trial, value, state)
        self._lock_path(trial.number).unlink(missing_ok=True)  # nobody asks for that of a trial that has ended

    def write_table(self) -> Path:
        """Write trials.csv, which else is written whenever a trial begins or ends."""
        with self._alone():
            return self._write_table()

    def _write_table(self) -> Path:
        return write_trials(self.folder / TRIALS_FILE, trial_rows(self.trials, self.sweep), self.sweep.space)


def _pruner(sweep: SweepConfig) -> BasePruner:
    if sweep.pruning == "none":
        return NopPruner()
    # Definition: asynchronous successive halving, Li et al., A System for Massively Parallel Hyperparameter Tuning,
    # MLSys 2020.
    return SuccessiveHalvingPruner(min_resource=sweep.halving_epochs, reduction_factor=sweep.halving_factor)


def trial_rows(trials: Sequence[FrozenTrial], sweep: SweepConfig) -> list[TrialRow]:
    """Lay out the trials of a study as the table has them."""
    return [_row(trial, sweep) for trial in trials]


def _row(trial: FrozenTrial, sweep: SweepConfig) -> TrialRow:
    progress = trial.user_attrs.get(_PROGRESS, {})
    started = trial.datetime_start
    best = max(trial.intermediate_values.values(), default=math.nan)
    return TrialRow(
        number=trial.number,
        state=_STATES[trial.state],
        run=trial_folder(trial.number),
        started="" if started is None else started.astimezone(timezone.utc).isoformat(timespec="seconds"),
        seconds=progress.get("seconds", math.nan),
        overhead_seconds=progress.get("overhead_seconds", math.nan),
        epochs=len(trial.intermediate_values),
        value=trial.value if trial.state == TrialState.COMPLETE and trial.value is not None else best,
        num_val=progress.get("num_val", 0),
        seed=progress.get("seed", sweep.settings.get("seed", BenchmarkConfig.seed)),
        point=sweep.space.snapped(trial.params),
        reason=_reason_of(trial),
    )


def _reason_of(trial: FrozenTrial) -> str:
    """Say in a line why a trial failed; empty of any other."""
    return " ".join(str(trial.user_attrs.get(_REASON, "")).split())
