"""`dogs-accel parity`: the loaders on every recipe against the reference, as a table, as figures and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dogs_accel.models.build import BuiltModel, build_pretrained
from dogs_accel.models.specs import ModelSpec, model_spec
from dogs_accel.parity.answers import Agreement, compare_logits, loader_logits
from dogs_accel.parity.gates import REFERENCE
from dogs_accel.parity.measure import STEPS_PER_LEVEL, Parity, ParityError, check_parity
from dogs_accel.plots import RED, own_look, save_figure
from dogs_accel.runtime.arguments import did_you_mean
from dogs_accel.runtime.environment import describe_environment
from dogs_accel.runtime.files import temporary_folder, write_json
from pipelines import BACKENDS, EVAL, RECIPES, Loader, Recipe, make_loader

LOADERS = tuple(name for name in BACKENDS if name not in (REFERENCE, "auto"))
_MAX_FACTOR = 128


def named_loaders(name: str) -> tuple[str, ...]:
    """Return the loader of this name, or all but the reference."""
    if name == "all":
        return LOADERS
    if name not in LOADERS:
        raise ValueError(f"loader: got {name!r}, expected one of {', '.join(LOADERS)}, or all")
    return (name,)


def named_recipes(names: str) -> tuple[Recipe, ...]:
    """Return the recipes of some names, separated by commas, or all presets."""
    if names == "all":
        return tuple(RECIPES.values())
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in RECIPES:
            near = did_you_mean(name, RECIPES)
            raise ValueError(f"recipe: got {name!r}, expected some of {', '.join(RECIPES)}, or all{near}")
    return tuple(RECIPES[name] for name in dict.fromkeys(wanted))


@dataclass(kw_only=True)
class ParityRun:
    """What is compared with what, and what came of it so far."""

    paths: Sequence[str]
    loaders: Sequence[str]
    recipes: Sequence[Recipe]
    model: str
    weights: str | None
    """A file; None is the published weights, where they can be downloaded."""
    device: torch.device
    seed: int
    num_threads: int | None = None
    parities: list[Parity] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What did not pass, a sentence each."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the numbers must know, such as whose weights the model has."""

    def lines(self) -> Iterator[str]:
        """Compare everything, and tell it line by line as it comes.

        A loader that needs a store builds one of these images in the system's temporary folder, where it stays until
        the end. Raises ValueError for weights that do not fit, BadImageError for a file that cannot be decoded.
        """
        spec = model_spec(self.model)
        # A wrong file of weights should not cost the minutes of the pixels, nor a wrong photo those of a download.
        built = None if self.weights is None else self._build(spec)
        with temporary_folder("dogs-accel-parity-", "TMPDIR=DIR puts the stores elsewhere") as stores:
            yield _header()
            for loader in self.loaders:
                for recipe in self.recipes:
                    yield self._compare_pixels(loader, recipe, stores)
            if self.weights is None:
                built = self._build(spec)
            yield from self.notes
            if built is not None:
                yield from self._compare_answers(spec, built, stores)

    def _build(self, spec: ModelSpec) -> BuiltModel | None:
        try:
            built = build_pretrained(spec, self.weights or "imagenet")
        except OSError as error:
            if self.weights is not None:
                raise
            self.notes.append(f"no model was asked: {error}; give a file with --weights FILE")
            return None
        self.notes.append(f"model: {built.note}")
        return built

    def _compare_pixels(self, loader: str, recipe: Recipe, stores: Path) -> str:
        try:
            parity = check_parity(
                self.paths,
                recipe,
                backend=loader,
                device=self.device,
                seed=self.seed,
                num_threads=self.num_threads,
                make=_maker(loader, recipe, stores),
            )
        except ParityError as error:  # nothing to measure: the images cannot be paired
            self.problems.append(str(error))
            return f"{loader:<8} {recipe.name:<17} FAIL  {error}"
        self.parities.append(parity)
        if parity.complaint is not None:
            self.problems.append(parity.complaint)
        return _row(parity)

    def _compare_answers(self, spec: ModelSpec, built: BuiltModel, stores: Path) -> Iterator[str]:
        model = built.model.to(self.device)
        recipe = EVAL.at(spec.image_size, spec.mean, spec.std)

        def logits(backend: str) -> NDArray[np.float32]:
            return loader_logits(
                model,
                self.paths,
                recipe,
                backend=backend,
                device=self.device,
                num_threads=self.num_threads,
                make=_maker(backend, recipe, stores),
            )

        reference = logits(REFERENCE)
        for loader in self.loaders:
            try:
                agreement = compare_logits(logits(loader), reference, loader=loader, model=spec.display)
            except ParityError as error:  # nothing to compare
                self.problems.append(str(error))
                yield f"FAIL  {error}"
                continue
            self.agreements.append(agreement)
            if agreement.complaint is not None:
                self.problems.append(agreement.complaint)
            yield str(agreement)


def _maker(backend: str, recipe: Recipe, stores: Path) -> Callable[..., Loader]:
    """Give what makes a loader of a backend; recipes that resize alike share a store."""
    make: Callable[..., Loader] = make_loader
    if backend != "cached":
        return make
    size = "x".join(map(str, recipe.resize)) if isinstance(recipe.resize, tuple) else recipe.resize
    return partial(make, store_dir=stores / f"{size}-{recipe.interpolation}")


def _header() -> str:
    return (
        f"{'loader':<8} {'recipe':<17} {'images':>6}  {'mean':>7}  {'99.9 %':>6}  {'max':>6}  {'differing':>9}  "
        f"{'':<4}  gate (levels of 0 to 255)"
    )


def _row(parity: Parity) -> str:
    return (
        f"{parity.loader:<8} {parity.recipe:<17} {parity.num_images:>6,}  {parity.mean:>7.4f}  {parity.p999:>6.4g}  "
        f"{parity.max:>6.4g}  {parity.share_differing:>9.4%}  {'pass' if parity.passes else 'FAIL'}  {parity.gate}"
    )


def write_parity(out: Path, run: ParityRun) -> list[Path]:
    """Write parity.json and a figure parity_<loader>_<recipe>.png for each that was compared; returns the files."""
    content = {
        "environment": describe_environment(),
        "resolution_levels": 1 / STEPS_PER_LEVEL,
        "pixels": [parity.as_dict() for parity in run.parities],
        "models": [agreement.as_dict() for agreement in run.agreements],
        "notes": run.notes,
        "problems": run.problems,
    }
    figures = [
        save_figure(parity_figure(parity), out / f"parity_{parity.loader}_{parity.recipe}.png")
        for parity in run.parities
    ]
    return [write_json(out / "parity.json", content), *figures]


@own_look()
def parity_figure(parity: Parity) -> Figure:
    """Draw the worst images, a row each: the reference's, ours, and their difference, amplified.

    Raises ValueError where none were kept.
    """
    if not parity.worst:
        raise ValueError("parity: got no images to draw, expected num_worst >= 1 when it was measured")
    differences = [np.abs(sample.ours.astype(np.int16) - sample.reference) for sample in parity.worst]
    factor = amplification(np.quantile(differences, 0.99))
    rows = len(parity.worst)
    figure = Figure(figsize=(8.4, 2.25 * rows + 0.9), layout="constrained")
    figure.suptitle(_figure_title(parity), fontsize=12)
    cells = figure.subplots(rows, 3, squeeze=False)
    for axes, sample, difference in zip(cells, parity.worst, differences, strict=True):
        amplified = np.minimum(difference * factor, 255).astype(np.uint8)
        for cell, picture in zip(axes, (sample.reference, sample.ours, amplified), strict=True):
            cell.imshow(picture, interpolation="nearest")
            cell.set(xticks=[], yticks=[])
            cell.spines[:].set_visible(False)
        caption = f"{Path(sample.path).name}\nmean {sample.mean:.4f}\nmax {sample.max:g} levels"
        axes[0].set_ylabel(caption, rotation=0, ha="right", va="center", fontsize=9, parse_math=False)
    for cell, title in zip(cells[0], (f"{REFERENCE}, the reference", parity.loader), strict=False):
        cell.set_title(title, fontsize=11)
    cells[0, 2].set_title(f"difference x {factor}", fontsize=11, color=RED)
    return figure


def amplification(levels: float) -> int:
    """Give the largest power of two, up to 128, by which a difference of so many levels stays within 255."""
    factor = _MAX_FACTOR
    while factor > 1 and factor * levels > 255:
        factor //= 2
    return factor


def _figure_title(parity: Parity) -> str:
    what = f"{parity.loader} against {REFERENCE}: recipe {parity.recipe}, {parity.num_images:,} images"
    if parity.max == 0:
        return f"{what}\nevery pixel is the same in all of them; here are the first {len(parity.worst)}"
    return (
        f"{what}\nhere the {len(parity.worst)} that differ most; in all, mean {parity.mean:.4f}, "
        f"99.9th percentile {parity.p999:g}, largest {parity.max:g} levels"
    )
