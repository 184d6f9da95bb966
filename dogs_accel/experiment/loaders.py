"""The loaders of a plan: which backend each recipe gets, and the store that it reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dogs_accel.experiment.plan import LoaderChoice, Plan, PlannedRun
from dogs_accel.runtime.processes import ALONE
from pipelines import Loader, Recipe, make_loader
from pipelines.cores import available_cores
from pipelines.make import choose_backend
from pipelines.store.build import build_store, default_store_folder, plan_store
from pipelines.store.index import absolute_path
from pipelines.store.reading import store_problems


def choose_loaders(plan: Plan) -> Plan:
    """Choose a backend for each recipe of a plan, over all of its files; nothing is written."""
    recipes = dict.fromkeys(recipe for run in plan.runs for recipe in (run.train_recipe, run.eval_recipe))
    sizes = sorted({f"{recipe.resize} {recipe.interpolation}" for recipe in recipes})
    if plan.config.store is not None and len(sizes) > 1:
        raise ValueError(
            f"store: got one folder for images at {', '.join(sizes)}, expected models of one input size, or no --store "
            "and so a folder for each"
        )
    return dataclasses.replace(plan, loaders={recipe: _choose(plan, recipe) for recipe in recipes})


def _choose(plan: Plan, recipe: Recipe) -> LoaderChoice:
    backend, reason = plan.config.loader, "as --loader says"
    if backend not in ("auto", "cached"):
        return LoaderChoice(backend, reason)
    folder = Path(plan.config.store) if plan.config.store else default_store_folder(plan.data.paths, recipe)
    if backend == "auto":
        backend, reason = choose_backend(plan.data.paths, recipe, plan.device, folder)
    return LoaderChoice(backend, reason, folder if backend == "cached" else None)


def describe_loaders(plan: Plan) -> str:
    """Say what was chosen and why, a line for each choice."""
    names: dict[LoaderChoice, list[str]] = {}
    for recipe, choice in plan.loaders.items():
        names.setdefault(choice, []).append(recipe.name)
    return "\n".join(
        f"loader   {choice.backend} for {', '.join(dict.fromkeys(recipes))}: {choice.reason}"
        for choice, recipes in names.items()
    )


def build_stores(plan: Plan) -> Iterator[str]:
    """Build the stores that the loaders read, where they are not there yet, saying what is written before it is."""
    for recipe, choice in plan.loaders.items():
        if choice.store_dir is None:
            continue
        planned = plan_store(plan.data.paths, recipe, choice.store_dir)
        if not planned.is_complete:
            yield str(planned)
        build_store(plan.data.paths, recipe, choice.store_dir, num_threads=plan.config.num_threads)


def without_new_stores(plan: Plan) -> Plan:
    """Let a recipe whose store is still to be built stream instead, for an estimate that writes nothing."""

    def streaming(recipe: Recipe, choice: LoaderChoice) -> LoaderChoice:
        if choice.store_dir is None or plan_store(plan.data.paths, recipe, choice.store_dir).is_complete:
            return choice
        return LoaderChoice("dali", "its store is not built yet, so the estimate streams")

    return dataclasses.replace(plan, loaders={recipe: streaming(recipe, each) for recipe, each in plan.loaders.items()})


def without_known_bad(plan: Plan) -> Plan:
    """Leave out of the splits what complete stores know to be bad, where bad files are to be skipped."""
    if plan.config.on_bad_image != "skip":
        return plan
    bad: set[str] = set()
    for recipe, choice in plan.loaders.items():
        if choice.store_dir is not None and plan_store(plan.data.paths, recipe, choice.store_dir).is_complete:
            bad |= set(store_problems(choice.store_dir, plan.data.paths, recipe))
    is_bad = np.array([absolute_path(path) in bad for path in plan.data.paths])
    return dataclasses.replace(plan, splits={name: index[~is_bad[index]] for name, index in plan.splits.items()})


def split_loader(plan: Plan, run: PlannedRun, split: str) -> Loader:
    """Make this process's loader of one split: training is shuffled and augmented, the others are neither.

    A batch of training is its share of the batch size, a batch of the others has the batch size of evaluation.
    """
    is_train = split == "train"
    return _loader(plan, run, split, run.train_recipe if is_train else run.eval_recipe, shuffle=is_train)


def plain_train_loader(plan: Plan, run: PlannedRun) -> Loader:
    """Make this process's loader of the training split as evaluation sees it."""
    return _loader(plan, run, "train", run.eval_recipe, shuffle=False)


def images_loader(plan: Plan, run: PlannedRun, index: NDArray[np.int64]) -> Loader:
    """Make a loader of some images of the dataset as evaluation sees them, all of them in this process."""
    alone = dataclasses.replace(plan, splits={"chosen": index}, world=ALONE)
    return _loader(alone, run, "chosen", run.eval_recipe, shuffle=False)


def _loader(plan: Plan, run: PlannedRun, split: str, recipe: Recipe, *, shuffle: bool) -> Loader:
    index, world = plan.splits[split], plan.world
    choice = plan.loaders[recipe]
    return make_loader(
        [plan.data.paths[i] for i in index],
        plan.data.labels[index],
        recipe,
        backend=choice.backend,
        batch_size=plan.batch_size // world.size if shuffle else plan.eval_batch_size,
        device=plan.device,
        seed=run.seed,
        shuffle=shuffle,
        num_threads=plan.config.num_threads or max(1, available_cores() // world.local_size),
        rank=world.rank,
        world_size=world.size,
        store_dir=choice.store_dir,
    )
