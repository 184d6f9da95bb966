"""The data of a sweep in one process: opened without test, decoded once, and shared by all runs on them."""

from __future__ import annotations

import dataclasses
import functools
import gc
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dogs_accel.datasets import Dataset
from dogs_accel.datasets.facts import DATASET_FILE
from dogs_accel.experiment.examine import ExaminedData, examine_data
from dogs_accel.experiment.loaders import Loaders, choose_loaders
from dogs_accel.experiment.plan import Plan, make_plan, plan_of_others
from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.results.layout import CONFIG_FILE, ENVIRONMENT_FILE
from dogs_accel.runtime.environment import describe_environment
from dogs_accel.runtime.files import read_json, remove_partial, write_json
from dogs_accel.runtime.memory import keep_freed_memory
from dogs_accel.runtime.precision import set_numerics
from dogs_accel.sweep.engine.study import one_at_a_time
from dogs_accel.sweep.trials import TRIALS_FOLDER

DATA_FOLDER = "data"
"""Of a sweep: what was measured of its images, as an ordinary folder of results has it."""
EXAMINED_FILE = "examined.json"
LOG_FILE = "log.txt"
"""Of a run: what an ordinary one prints."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where and how the runs of one process are computed."""

    device: str | None = None
    wandb: str = "offline"
    num_threads: int | None = None
    """Threads of torch and of the loaders, of this process; None is as torch and the loaders have it."""
    is_of_agent: bool = False
    """Whether W&B's agent drives this process."""

    def settings(self, folder: Path, *, resumes: bool) -> dict[str, Any]:
        """Give the settings of a run that are this process's, and its folder."""
        own: dict[str, Any] = {"out": str(folder), "resume": str(folder) if resumes else None, "gpu": None}
        own |= {"device": self.device, "wandb": self.wandb}
        return own if self.num_threads is None else own | {"num_threads": self.num_threads}


class OpenedData:
    """What the runs of a process share: the data, their splits, the device, stores, and what was found of the files.

    `open` must have been gone through before anything else is asked for.
    """

    def __init__(self, folder: Path, where: Where) -> None:
        self._folder, self._where = folder, where
        self._plan: Plan | None = None
        self._loaders: Loaders | None = None
        self._examined: ExaminedData | None = None
        self._threads_before: int | None = None

    @property
    def examined(self) -> ExaminedData:
        """What was found of the files."""
        assert self._examined is not None
        return self._examined

    def open(self, config: BenchmarkConfig) -> Iterator[str]:
        """Open the data, decode every file but those of test once, and build the store; says what is done.

        config: of any run on them. Raises ValueError where they are other images than those of the sweep's trials.
        """
        own = self._where.settings(self._folder / DATA_FOLDER, resumes=True)
        plan = make_plan(dataclasses.replace(config, **own))
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

    def _examine(self, plan: Plan, loaders: Loaders) -> ExaminedData:
        """Take what another process has found of the same files, or decode them."""
        path, files = plan.out / EXAMINED_FILE, _fingerprint(plan.data)
        known = read_json(path) if path.is_file() else {}
        if known.get("files") == files and not loaders.missing_stores():
            bad = known["bad"]
            splits = {name: index[~np.isin(index, bad)] for name, index in plan.splits.items()}
            return ExaminedData(splits, known["contents"])

        def check(found: ExaminedData) -> None:
            if (self._folder / TRIALS_FOLDER).is_dir():
                self._require_same_images(known, _identity(plan, found))

        plan.out.mkdir(parents=True, exist_ok=True)
        examined = examine_data(plan, loaders, check, figures=False)
        kept = np.concatenate([*examined.splits.values()])
        bad = np.setdiff1d(np.concatenate([*plan.splits.values()]), kept).tolist()
        write_json(path, {"files": files, "bad": bad, **_identity(plan, examined)})
        return dataclasses.replace(examined, metadata=None)

    def _require_same_images(self, known: Mapping[str, Any], found: Mapping[str, Mapping[str, str]]) -> None:
        """Raise ValueError unless the images are those that were found first, as far as that was written down."""
        for what, digests in found.items():
            if changed := [split for split, digest in digests.items() if known.get(what, digests).get(split) != digest]:
                raise ValueError(
                    f"data: the images of {' and '.join(changed)} have changed since the sweep in {self._folder} "
                    "began, whose trials are compared on the same images; expected them as they were, or another --out"
                )

    def plan_of(self, config: BenchmarkConfig, folder: Path, *, resumes: bool) -> tuple[Plan, Loaders]:
        """Plan a run on the data into a folder, and choose its loaders. Raises ValueError where it cannot be."""
        assert self._plan is not None
        assert self._loaders is not None
        plan = plan_of_others(self._plan, dataclasses.replace(config, **self._where.settings(folder, resumes=resumes)))
        loaders = choose_loaders(plan, self._loaders)
        self._loaders = dataclasses.replace(loaders, choices={**self._loaders.choices, **loaders.choices})
        return plan, loaders

    def plan_with_test(self, config: BenchmarkConfig, folder: Path) -> Plan:
        """Open the data with test, and plan a run that is in a folder on them: the one place where test is opened."""
        assert self._plan is not None
        with_test = make_plan(dataclasses.replace(self._plan.config, test=True))
        own = self._where.settings(folder, resumes=True)
        return plan_of_others(with_test, dataclasses.replace(config, **own, test=True))


def _identity(plan: Plan, examined: ExaminedData) -> dict[str, dict[str, str]]:
    """Name the images of each split: by their ids and labels, and by their contents."""
    images = {split: plan.data.digest(index) for split, index in examined.splits.items()}
    return {"images": images, "contents": dict(examined.contents)}


def begin_folder(plan: Plan) -> None:
    """Write what an ordinary folder of results has before its runs, unless it is there."""
    plan.out.mkdir(parents=True, exist_ok=True)
    remove_partial(plan.out)
    contents: dict[str, Callable[[], Any]] = {
        ENVIRONMENT_FILE: _environment,
        DATASET_FILE: plan.data.facts.as_json,
        CONFIG_FILE: lambda: asdict(dataclasses.replace(plan.config, resume=None)),
    }
    for name, content in contents.items():
        if not (plan.out / name).exists():
            write_json(plan.out / name, content())


@functools.cache
def _environment() -> dict[str, Any]:
    return describe_environment()


def runs_files(folder: Path, name: str) -> Sequence[Path]:
    """Find the files of a name of the runs in a folder of results."""
    return list(folder.glob(f"*/*/{name}"))


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
