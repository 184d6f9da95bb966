"""One trial, which is an ordinary run without its test part, and what a process loads once for all of its trials."""

from __future__ import annotations

import dataclasses
import functools
import gc
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dogs_accel.datasets import Dataset
from dogs_accel.datasets.facts import DATASET_FILE
from dogs_accel.experiment.examine import ExaminedData, examine_data
from dogs_accel.experiment.loaders import Loaders, choose_loaders
from dogs_accel.experiment.plan import Plan, make_plan, plan_of_others, plan_runs
from dogs_accel.experiment.run import TrialOfSweep, execute_run
from dogs_accel.results.layout import CONFIG_FILE, ENVIRONMENT_FILE, run_folder
from dogs_accel.runtime.environment import describe_environment
from dogs_accel.runtime.files import read_json, remove_partial, write_json
from dogs_accel.runtime.memory import keep_freed_memory
from dogs_accel.runtime.out_of_memory import BatchTooLargeError
from dogs_accel.runtime.precision import set_numerics
from dogs_accel.sweep.engine.study import Claimed, one_at_a_time
from dogs_accel.sweep.settings import SweepConfig
from dogs_accel.sweep.space import value_text
from dogs_accel.training.checkpoint import BEST_WEIGHTS_FILE, LAST_CHECKPOINT_FILE, CheckpointError
from dogs_accel.training.trainer import DivergedError, HistoryRow

DATA_FOLDER = "data"
"""Of a sweep: what was measured of its images, as an ordinary folder of results has it."""
EXAMINED_FILE = "examined.json"
LOG_FILE = "log.txt"
"""Of a trial: what an ordinary run prints."""
CHECKPOINT_EVERY_S = 30.0
"""A trial is over soon, and writing its state after each epoch would take longer than a short epoch does."""


class TrialError(Exception):
    """A point cannot be trained, whoever tries it: its settings contradict each other, or its loss is not finite."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where and how the trials of one process are computed."""

    device: str | None = None
    wandb: str = "offline"
    num_threads: int | None = None
    """Threads of torch and of the loaders, of this process; None is as torch and the loaders have it."""
    is_of_agent: bool = False
    """Whether W&B's agent drives this process."""


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
    """Trains trials one after the other; data, stores and what was found of the files are loaded once.

    `prepare` must have been gone through before the first one.
    """

    def __init__(self, folder: Path, sweep: SweepConfig, where: Where) -> None:
        self._folder, self._sweep, self._where = folder, sweep, where
        self._plan: Plan | None = None
        self._loaders: Loaders | None = None
        self._examined: ExaminedData | None = None
        self._threads_before: int | None = None

    def prepare(self) -> Iterator[str]:
        """Open the data, decode every file but those of test once, and build the store; says what is done."""
        data_folder = self._folder / DATA_FOLDER
        first = {parameter.name: parameter.ends[0] for parameter in self._sweep.space.parameters}
        config = self._sweep.config(first, **self._own(data_folder, resumes=True))
        plan = make_plan(config)
        set_numerics(tf32=plan.config.tf32, deterministic=plan.config.deterministic)
        if plan.device.type == "cuda":
            torch.cuda.set_device(plan.device)
        else:
            keep_freed_memory()
            if self._where.num_threads is not None:
                self._threads_before = torch.get_num_threads()
                torch.set_num_threads(self._where.num_threads)
        facts = plan.data.facts
        yield from facts.lines()
        sizes = " / ".join(f"{len(index):,} {name}" for name, index in plan.splits.items())
        yield f"data     {facts.name}: {facts.count(plan.data.num_classes)}, {sizes} images, test left out"
        yield f"splits   {plan.carving}"
        loaders = choose_loaders(plan)
        yield loaders.describe()
        with one_at_a_time(self._folder, DATA_FOLDER):
            self._examined = self._examine(plan, loaders)
            yield from loaders.build_stores()
        self._plan, self._loaders = plan, loaders
        # Of what is loaded by now nothing will be freed, and looking through it takes half a second each time.
        gc.collect()
        gc.freeze()

    def close(self) -> None:
        """Let what was kept be freed again, and give torch back the threads that it had."""
        gc.unfreeze()
        if self._threads_before is not None:
            torch.set_num_threads(self._threads_before)

    def _own(self, folder: Path, *, resumes: bool) -> dict[str, Any]:
        """Give the settings of a run that are this process's, and its folder."""
        own: dict[str, Any] = {"out": str(folder), "resume": str(folder) if resumes else None, "gpu": None}
        own |= {"device": self._where.device, "wandb": self._where.wandb}
        return own if self._where.num_threads is None else own | {"num_threads": self._where.num_threads}

    def _examine(self, plan: Plan, loaders: Loaders) -> ExaminedData:
        """Take what another process has found of the same files, or decode them."""
        path, files = plan.out / EXAMINED_FILE, _fingerprint(plan.data)
        known = read_json(path) if path.is_file() else {}
        if known.get("files") == files and not loaders.missing_stores():
            bad = known["bad"]
            splits = {name: index[~np.isin(index, bad)] for name, index in plan.splits.items()}
            return ExaminedData(splits, known["contents"])
        plan.out.mkdir(parents=True, exist_ok=True)
        examined = examine_data(plan, loaders, lambda _: None, figures=False)
        kept = np.concatenate([*examined.splits.values()])
        bad = np.setdiff1d(np.concatenate([*plan.splits.values()]), kept).tolist()
        write_json(path, {"files": files, "bad": bad, "contents": dict(examined.contents)})
        return dataclasses.replace(examined, metadata=None)

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
        plan, loaders = self._plan_of(claimed, resumes)
        self._begin(plan, folder)
        with (folder / LOG_FILE).open("a", encoding="utf-8", buffering=1) as log, redirect_stdout(log):
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
        for path in _runs_files(folder, LAST_CHECKPOINT_FILE):  # three times as large as the weights
            path.unlink()
        return value

    def _plan_of(self, claimed: Claimed, resumes: bool) -> tuple[Plan, Loaders]:
        assert self._plan is not None
        assert self._loaders is not None
        try:
            config = self._sweep.config(claimed.point, **self._own(claimed.folder, resumes=resumes))
            plan = plan_of_others(self._plan, config)
            loaders = choose_loaders(plan, self._loaders)
        except ValueError as error:
            raise TrialError(str(error)) from error
        self._loaders = dataclasses.replace(loaders, choices={**self._loaders.choices, **loaders.choices})
        return plan, loaders

    def _begin(self, plan: Plan, folder: Path) -> None:
        """Write what an ordinary folder of results has before its runs."""
        folder.mkdir(parents=True, exist_ok=True)
        remove_partial(folder)
        if not (folder / ENVIRONMENT_FILE).exists():
            write_json(folder / ENVIRONMENT_FILE, _environment())
        if not (folder / DATASET_FILE).exists():
            write_json(folder / DATASET_FILE, plan.data.facts.as_json())
        if not (folder / CONFIG_FILE).exists():
            write_json(folder / CONFIG_FILE, asdict(plan.config))

    def _execute(self, claimed: Claimed, plan: Plan, loaders: Loaders, on_progress: OnProgress) -> float:
        assert self._examined is not None
        [planned] = plan.runs
        num_epochs, num_val = sum(phase.epochs for phase in planned.phases), len(self._examined.splits["val"])

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
            run = execute_run(plan, planned, loaders, self._examined, trial=trial)
        except DivergedError as error:
            raise TrialError(error.what) from error
        except BatchTooLargeError as error:
            raise TrialError(str(error)) from error
        return run.val_accuracy

    def given_up(self, claimed: Claimed) -> None:
        """Remove the weights of a trial that is given up."""
        for name in (BEST_WEIGHTS_FILE, LAST_CHECKPOINT_FILE):
            for path in _runs_files(claimed.folder, name):
                path.unlink()


def _runs_files(folder: Path, name: str) -> list[Path]:
    return list(folder.glob(f"*/*/{name}"))


@functools.cache
def _environment() -> dict[str, Any]:
    return describe_environment()


def _fingerprint(data: Dataset) -> str:
    """Name the files of a dataset as they are now: their paths, sizes and times."""
    digest = hashlib.sha256(data.digest().encode())
    for path in data.paths:
        try:
            found = os.stat(path)  # noqa: PTH116  (a Path for each of many files takes longer than the call)
            digest.update(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{path}\0absent\n".encode())
    return digest.hexdigest()
