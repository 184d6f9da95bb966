"""Whether a loader shows a model what the reference loader shows it: pixels, and what a real model says of them.

Both loaders draw the same parameters for a sample, so in an epoch of one seed their images can be compared one by one.
Differences are in levels of 0 to 255, of the pixels before normalisation. Up to there all arithmetic is that of 8 bits,
so pixels differ by whole levels; they are counted in steps of 1/64 level, and what is less than half a step is the
rounding of the normalisation in floating point. Means, quantiles and maxima are exact to that step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dogs_accel.parity.gates import MAX_LEVELS, REFERENCE, Gate, Limit, gate_for
from pipelines import Batch, Loader, Recipe, make_loader

STEPS_PER_LEVEL = 64
"""Resolution of the measured differences."""


class ParityError(ValueError):
    """A loader does not show what the reference shows; the message names both, and what was measured and expected."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleDifference:
    """One image as both loaders show it."""

    index: int
    path: str
    mean: float
    """Of the differences, in levels."""
    max: float
    reference: NDArray[np.uint8]
    """(H, W, 3), normalisation undone."""
    ours: NDArray[np.uint8]
    """(H, W, 3)"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Parity:
    """One loader against the reference on the same files, recipe, seed and epoch; differences in levels of 0 to 255."""

    loader: str
    recipe: str
    device: str
    seed: int
    epoch: int
    num_images: int
    mean: float
    p999: float
    """The least difference that 99.9 % of the values keep to."""
    max: float
    share_differing: float
    """Share of all values that differ."""
    worst: tuple[SampleDifference, ...]
    """The images with the largest mean difference, the worst first and equals by index."""
    gate: Gate

    @property
    def broken(self) -> tuple[Limit, ...]:
        """The limits that the loader does not keep to."""
        return tuple(limit for limit in self.gate.limits if not limit.holds(getattr(self, limit.measure)))

    @property
    def passes(self) -> bool:
        """Whether the loader keeps to every limit."""
        return not self.broken

    @property
    def complaint(self) -> str | None:
        """What broke which limit, None where the loader passes."""
        if self.passes:
            return None
        found = ", ".join(limit.describe(getattr(self, limit.measure)) for limit in self.broken)
        return f"loader {self.loader}, recipe {self.recipe}: {found} (gate {self.gate.name})"

    def require(self) -> Parity:
        """Return this, or raise ParityError where a limit is broken."""
        if self.complaint is not None:
            raise ParityError(self.complaint)
        return self

    def __str__(self) -> str:
        return (
            f"loader {self.loader}, recipe {self.recipe}, {self.num_images:,} images: mean {self.mean:.4f}, "
            f"99.9th percentile {self.p999:g}, largest {self.max:g} levels, {self.share_differing:.4%} of values "
            f"differ: {'passes' if self.passes else 'FAILS'} ({self.gate})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the pixels, for JSON."""
        names = ("loader", "recipe", "device", "seed", "epoch", "num_images", "mean", "p999", "max", "share_differing")
        sample_names = ("index", "path", "mean", "max")
        return {
            **{name: getattr(self, name) for name in names},
            "gate": {"name": self.gate.name, "limits": [str(limit) for limit in self.gate.limits]},
            "passes": self.passes,
            "worst": [{name: getattr(sample, name) for name in sample_names} for sample in self.worst],
        }


def check_parity(
    paths: Sequence[str | Path],
    recipe: Recipe,
    *,
    backend: str,
    device: torch.device | str | None = None,
    batch_size: int = 32,
    seed: int = 0,
    epoch: int = 0,
    num_threads: int | None = None,
    gate: Gate | None = None,
    num_worst: int = 6,
    make: Callable[..., Loader] = make_loader,
) -> Parity:
    """Compare what a loader shows of N files with what the reference shows, batch by batch.

    gate None is that of the backend and the device; num_worst images are kept to be drawn. make is called as
    `make_loader` is, for the loader that is checked; both are closed at the end. Raises ParityError where a loader's
    images cannot be paired with the reference's (one that is missing or comes twice, another shape, a label of another
    image), ValueError for a setting that cannot be, BadImageError for a file that cannot be decoded.
    """
    if not len(paths):
        raise ValueError("paths: got none, expected at least one image file")
    if num_worst < 0:
        raise ValueError(f"num_worst: got {num_worst}, expected an integer >= 0")
    # A label that names the image shows one that goes with another.
    given: tuple[Any, ...] = (paths, np.arange(len(paths)), recipe)
    settings: dict[str, Any] = {
        "batch_size": batch_size, "device": device, "seed": seed, "shuffle": False, "num_threads": num_threads,
    }  # fmt: skip
    with (
        make(*given, backend=backend, **settings) as ours,
        make_loader(*given, backend=REFERENCE, **settings) as theirs,
    ):
        ours.set_epoch(epoch)
        theirs.set_epoch(epoch)
        counts, worst = _measure(_pairs(ours, theirs), recipe, [str(path) for path in paths], num_worst)
        return Parity(
            loader=ours.backend,
            recipe=recipe.name,
            device=str(ours.device),
            seed=seed,
            epoch=epoch,
            num_images=len(paths),
            **_summary(counts),
            share_differing=float(counts[1:].sum() / counts.sum()),
            worst=tuple(worst),
            gate=gate or gate_for(ours.backend, ours.device),
        )


def require_parity(paths: Sequence[str | Path], recipe: Recipe, **settings: Any) -> Parity:
    """Do what `check_parity` does, and raise ParityError also where the loader does not pass its gate."""
    return check_parity(paths, recipe, **settings).require()


SamplePair = tuple[int, Tensor, Tensor]
"""Index, our image and the reference's, each (3, H, W) and normalised."""


def _pairs(ours: Loader, theirs: Loader) -> Iterator[SamplePair]:
    """Pair the images of an epoch by their index; what waits for its partner is kept, the rest let go."""
    loaders = (ours, theirs)
    waiting: tuple[dict[int, Tensor], dict[int, Tensor]] = ({}, {})
    seen: tuple[set[int], set[int]] = (set(), set())
    for batches in zip_longest(ours, theirs):
        for side, batch in enumerate(batches):
            for index, image in () if batch is None else _samples(batch, loaders[side], seen[side]):
                partner = waiting[1 - side].pop(index, None)
                if partner is None:
                    waiting[side][index] = image
                    continue
                pair = (image, partner) if side == 0 else (partner, image)
                _check_shapes(*pair, ours, index)
                yield index, *pair
    for loader, found in zip(loaders, seen, strict=True):
        if len(found) < len(loader.paths):
            missing = min(set(range(len(loader.paths))) - found)
            raise ParityError(f"loader {loader.backend}, recipe {loader.recipe.name}: no image {missing} in the epoch")


def _samples(batch: Batch, loader: Loader, seen: set[int]) -> Iterator[tuple[int, Tensor]]:
    """Go through a batch's (index, image), and see that each comes once and with its own label."""
    name = f"loader {loader.backend}, recipe {loader.recipe.name}"
    for index, label, image in zip(batch.index.tolist(), batch.labels.tolist(), batch.images, strict=True):
        if index in seen:
            raise ParityError(f"{name}: image {index} comes twice in an epoch")
        if label != index:
            raise ParityError(f"{name}: image {index} comes with the label of image {label}")
        seen.add(index)
        yield index, image


def _check_shapes(ours: Tensor, theirs: Tensor, loader: Loader, index: int) -> None:
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        raise ParityError(
            f"loader {loader.backend}, recipe {loader.recipe.name}: image {index} is {tuple(ours.shape)} {ours.dtype}, "
            f"expected {tuple(theirs.shape)} {theirs.dtype}"
        )


def _measure(
    pairs: Iterable[SamplePair], recipe: Recipe, paths: Sequence[str], num_worst: int
) -> tuple[NDArray[np.int64], list[SampleDifference]]:
    """Count the differences of all pairs in steps, and keep the images that differ most."""
    total = np.zeros(MAX_LEVELS * STEPS_PER_LEVEL + 1, dtype=np.int64)
    worst: list[SampleDifference] = []
    for index, ours, theirs in pairs:
        counts = _count_steps(ours, theirs, recipe)
        total += counts
        summary = _summary(counts)
        rank = (-summary["mean"], index)
        if len(worst) < num_worst or (worst and rank < _rank(worst[-1])):
            sample = SampleDifference(
                index=index,
                path=paths[index],
                mean=summary["mean"],
                max=summary["max"],
                reference=_as_bytes(theirs, recipe),
                ours=_as_bytes(ours, recipe),
            )
            worst = sorted([*worst, sample], key=_rank)[:num_worst]
    return total, worst


def _rank(sample: SampleDifference) -> tuple[float, int]:
    return -sample.mean, sample.index


def _count_steps(ours: Tensor, theirs: Tensor, recipe: Recipe) -> NDArray[np.int64]:
    """Count the values (3, H, W) by how many steps they differ."""
    most = MAX_LEVELS * STEPS_PER_LEVEL
    scale = 255 * STEPS_PER_LEVEL * torch.tensor(recipe.std, device=ours.device, dtype=torch.float32)[:, None, None]
    steps = ((ours.float() - theirs.float()).abs() * scale).round()
    steps = steps.nan_to_num(nan=most, posinf=most).clamp(max=most).long()
    return np.asarray(torch.bincount(steps.flatten(), minlength=most + 1).cpu().numpy())


def _summary(counts: NDArray[np.int64]) -> dict[str, float]:
    """Give mean, 99.9th percentile and maximum, in levels, of differences counted in steps."""
    up_to = counts.cumsum()
    # The first step that leaves at most 1 in 1,000 values above it; in integers, so exactly.
    p999 = np.argmax(1000 * (up_to[-1] - up_to) <= up_to[-1])
    sums = {
        "mean": counts @ np.arange(len(counts)) / up_to[-1],
        "p999": p999,
        "max": np.flatnonzero(counts)[-1],
    }
    return {name: float(value) / STEPS_PER_LEVEL for name, value in sums.items()}


def _as_bytes(image: Tensor, recipe: Recipe) -> NDArray[np.uint8]:
    """Undo the normalisation of (3, H, W): (H, W, 3) uint8."""
    mean, std = (
        torch.tensor(value, device=image.device, dtype=torch.float32)[:, None, None]
        for value in (recipe.mean, recipe.std)
    )
    levels = ((image.float() * std + mean) * 255).nan_to_num(nan=0).round().clamp(0, 255)
    return np.asarray(levels.to(torch.uint8).permute(1, 2, 0).cpu().numpy())
