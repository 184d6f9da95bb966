"""The answers of a real model to what two loaders show it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dogs_accel.evaluation.predictions import predict
from dogs_accel.parity.gates import SAME_TOP1, Limit
from dogs_accel.parity.measure import ParityError
from dogs_accel.runtime.processes import SampleError
from pipelines import Loader, Recipe, make_loader

# ---- what a model says


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What a model says of the same photos from two loaders."""

    loader: str
    model: str
    num_images: int
    top1_agreement: float
    """Share of the photos with the same class on top."""
    mean_change: float
    """Mean absolute change of a logit."""
    max_change: float
    logit_std: float
    """Standard deviation of the reference's logits, to which the changes compare."""
    limit: Limit = SAME_TOP1

    @property
    def passes(self) -> bool:
        """Whether enough photos have the same class on top."""
        return self.limit.holds(self.top1_agreement)

    @property
    def complaint(self) -> str | None:
        """What broke the limit, None where the loader passes."""
        if self.passes:
            return None
        return f"loader {self.loader}, model {self.model}: {self.limit.describe(self.top1_agreement)}"

    def require(self) -> Agreement:
        """Return this, or raise ParityError where too few agree."""
        if self.complaint is not None:
            raise ParityError(self.complaint)
        return self

    def __str__(self) -> str:
        return (
            f"loader {self.loader}, model {self.model}, {self.num_images:,} images: top-1 the same on "
            f"{self.top1_agreement:.2%}, logits change by {self.mean_change:.3g} on average and {self.max_change:.3g} "
            f"at most, {self.mean_change / self.logit_std:.2%} and {self.max_change / self.logit_std:.2%} of their "
            f"standard deviation: {'passes' if self.passes else 'FAILS'} ({self.limit})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, for JSON."""
        names = ("loader", "model", "num_images", "top1_agreement", "mean_change", "max_change", "logit_std", "passes")
        return {name: getattr(self, name) for name in names} | {"limit": str(self.limit)}


def loader_logits(
    model: nn.Module,
    paths: Sequence[str | Path],
    recipe: Recipe,
    *,
    backend: str,
    device: torch.device | str | None = None,
    batch_size: int = 32,
    num_threads: int | None = None,
    make: Callable[..., Loader] = make_loader,
) -> NDArray[np.float32]:
    """Logits (N, C) of what a loader shows of N files, in the files' order, by a model on the same device.

    Raises ParityError where the loader does not show each file once.
    """
    settings = {"batch_size": batch_size, "device": device, "shuffle": False, "num_threads": num_threads}
    with make(paths, np.arange(len(paths)), recipe, backend=backend, **settings) as loader:
        try:
            ids = list(map(str, range(len(paths))))
            return predict(model, loader, ids, label=f"model on {backend}", flag=None).logits
        except SampleError as error:
            raise ParityError(f"{error} ({backend}, recipe {recipe.name})") from error


def compare_logits(
    ours: NDArray[np.float32], theirs: NDArray[np.float32], *, loader: str, model: str = "model"
) -> Agreement:
    """Compare the logits (N, C) of a model on our images with those on the reference's."""
    if ours.shape != theirs.shape or ours.ndim != 2 or not len(ours):
        raise ValueError(f"logits: got shapes {ours.shape} and {theirs.shape}, expected (N, C) twice, with N >= 1")
    change = np.abs(ours.astype(np.float64) - theirs)
    return Agreement(
        loader=loader,
        model=model,
        num_images=len(ours),
        top1_agreement=float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean()),
        mean_change=float(change.mean()),
        max_change=float(change.max()),
        logit_std=float(theirs.astype(np.float64).std()),
    )
