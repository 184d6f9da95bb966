"""The loaders of an experiment: which backend each recipe gets, the store that it reads, and loaders of any images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dogs_accel.datasets import Dataset
from dogs_accel.experiment.plan import Plan
from dogs_accel.runtime.processes import ALONE, World
from pipelines import Loader, Recipe, make_loader
from pipelines.cores import available_cores
from pipelines.make import choose_backend
from pipelines.store.build import build_store, default_store_folder, plan_store
from pipelines.store.index import absolute_path, made_for
from pipelines.store.reading import OpenStore, find_store, remember_times


@dataclass(frozen=True)
class LoaderChoice:
    """What loads the images of a recipe, and why."""

    backend: str
    reason: str
    store_dir: Path | None = None
    """Folder of the decode-once store that it reads, of all files of the data."""


@dataclass(frozen=True, kw_only=True)
class Loaders:
    """Makes loaders of a dataset's images, each as this process's share of them."""

    data: Dataset
    choices: Mapping[Recipe, LoaderChoice]
    device: torch.device
    batch_size: int
    """Images a training step, of all processes together."""
    eval_batch_size: int
    """Images a step of evaluation, of each process."""
    num_threads: int | None = None
    """Threads or worker processes of a loader; None is a share of the cores."""
    world: World = ALONE
    opened: dict[Path, OpenStore] = field(default_factory=dict, repr=False)
    """The stores that this process has open, by their folders: each is checked and mapped once, for all loaders."""

    def of(self, index: NDArray[np.int64], recipe: Recipe, *, shuffle: bool = False, seed: int = 0) -> Loader:
        """Make a loader of some images, (n,) positions in the dataset.

        A shuffled one is for training: its batch is this process's share of the batch size.
        """
        choice = self.choices[recipe]
        store = None if choice.store_dir is None else self._built(choice.store_dir, recipe)
        return make_loader(
            [self.data.paths[i] for i in index],
            self.data.labels[index],
            recipe,
            backend=choice.backend,
            batch_size=self.batch_size // self.world.size if shuffle else self.eval_batch_size,
            device=self.device,
            seed=seed,
            shuffle=shuffle,
            num_threads=self.num_threads or max(1, available_cores() // self.world.local_size),
            rank=self.world.rank,
            world_size=self.world.size,
            store=store,
        )

    def in_this_process(self) -> Loaders:
        """Return the same with all images of a loader in this process, whatever the others do."""
        return dataclasses.replace(self, world=ALONE)

    def describe(self) -> str:
        """Say what was chosen and why, a line for each choice."""
        return _describe_choices("loader", self.choices)

    def describe_others(self, planned: Loaders) -> str:
        """Say what an estimate has in place of what is planned, a line for each choice that is another one."""
        others = {recipe: choice for recipe, choice in self.choices.items() if choice != planned.choices[recipe]}
        return _describe_choices("estimate", others)

    def missing_stores(self) -> dict[Path, Recipe]:
        """Name the folders of the stores that are read and not there yet, and what each is to be of.

        Raises StoreError for a folder that holds something else.
        """
        return {folder: recipe for folder, recipe in self._stores().items() if self._found(folder, recipe) is None}

    def describe_missing(self) -> list[str]:
        """Say what is still to be written of the missing stores, a line for each."""
        plans = (plan_store(self.data.paths, recipe, folder) for folder, recipe in self.missing_stores().items())
        return [str(planned) for planned in plans if planned.num_bytes]

    def build_stores(self) -> Iterator[str]:
        """Build the missing stores, saying what is written before it is, so that all that are read are open."""
        yield from self.describe_missing()
        for folder, recipe in self._stores().items():
            remember_times(self._built(folder, recipe))

    def without_new_stores(self) -> Loaders:
        """Let a recipe whose store is still to be built stream instead, for an estimate that writes nothing."""
        streaming = LoaderChoice("dali", "the store of the run is not built yet, so its time is estimated by streaming")
        missing = self.missing_stores()
        choices = {
            recipe: streaming if choice.store_dir in missing else choice for recipe, choice in self.choices.items()
        }
        return dataclasses.replace(self, choices=choices)

    def known_bad(self) -> NDArray[np.int64]:
        """Positions of the images that complete stores know to be bad."""
        stores = (self._found(folder, recipe) for folder, recipe in self._stores().items())
        bad = {path for store in stores if store is not None for path in store.problems}
        return np.flatnonzero([absolute_path(path) in bad for path in self.data.paths]).astype(np.int64)

    def _stores(self) -> dict[Path, Recipe]:
        """Name the folders of the stores that are read, each with a recipe that it serves."""
        return {choice.store_dir: recipe for recipe, choice in self.choices.items() if choice.store_dir is not None}

    def _found(self, folder: Path, recipe: Recipe) -> OpenStore | None:
        """Open the store in a folder, if it is there, unless it is open."""
        if folder not in self.opened and (store := find_store(folder, self.data.paths, recipe)) is not None:
            self.opened[folder] = store
        return self.opened.get(folder)

    def _built(self, folder: Path, recipe: Recipe) -> OpenStore:
        """Open the store in a folder, having built what is missing of it, unless it is open."""
        if folder not in self.opened:
            self.opened[folder] = build_store(self.data.paths, recipe, folder, num_threads=self.num_threads)
        return self.opened[folder]


def choose_loaders(plan: Plan, earlier: Loaders | None = None) -> Loaders:
    """Choose a backend for each recipe of a plan, over all of its files; nothing is written.

    earlier: those of another plan on the same data and device; what it has chosen for images of a size holds here too,
    and what it has open is open.
    """
    recipes = dict.fromkeys(recipe for run in plan.runs for recipe in (run.train_recipe, run.eval_recipe))
    recipes |= dict.fromkeys(view.recipe for run in plan.runs for view in run.views)
    sizes = sorted({" ".join(map(str, made_for(recipe))) for recipe in recipes})
    if plan.config.store is not None and len(sizes) > 1:
        raise ValueError(
            f"store: got one folder for images at {', '.join(sizes)}, expected models of one input size, or no --store "
            "and so a folder for each"
        )
    # Recipes of one size share a store, and so what is chosen for them.
    first_of = {made_for(recipe): recipe for recipe in reversed(recipes)}
    known = {} if earlier is None else {made_for(recipe): choice for recipe, choice in earlier.choices.items()}
    choices = {size: known.get(size) or _choose(plan, recipe) for size, recipe in first_of.items()}
    return Loaders(
        data=plan.data,
        choices={recipe: choices[made_for(recipe)] for recipe in recipes},
        device=plan.device,
        batch_size=plan.batch_size,
        eval_batch_size=plan.eval_batch_size,
        num_threads=plan.config.num_threads,
        world=plan.world,
        opened={} if earlier is None else earlier.opened,
    )


def _describe_choices(title: str, choices: Mapping[Recipe, LoaderChoice]) -> str:
    names: dict[LoaderChoice, list[str]] = {}
    for recipe, choice in choices.items():
        names.setdefault(choice, []).append(recipe.name)
    return "\n".join(
        f"{title:<8} {choice.backend} for {', '.join(dict.fromkeys(recipes))}: {choice.reason}"
        for choice, recipes in names.items()
    )


def _choose(plan: Plan, recipe: Recipe) -> LoaderChoice:
    backend, reason = plan.config.loader, "as --loader says"
    if backend not in ("auto", "cached"):
        return LoaderChoice(backend, reason)
    paths, named = plan.data.paths, None if plan.config.store is None else Path(plan.config.store)
    if backend == "auto":
        backend, reason = choose_backend(paths, recipe, plan.device, named)
        if backend != "cached":
            return LoaderChoice(backend, reason)
    folder = named or default_store_folder(paths, recipe)
    if plan.config.loader == "cached":
        plan_store(paths, recipe, folder)  # which says now what a build would say after the plan
    return LoaderChoice(backend, reason, folder)
