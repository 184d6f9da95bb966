"""What the channels of a stage do on a sample of images: which are active, which tell two classes apart, on what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dogs_accel.explain.inside.stage_maps import StageMap, record_maps
from dogs_accel.models.architecture.stages import find_stages
from pipelines.loader import Batch

ACTIVE = "standard deviations by which the channel's mean over the image's cells is above its mean over the sample"
ACTIVE_ALONE = (
    "standard deviations over the stage's channels by which the channel's mean over the image's cells is above the "
    "mean of all of them; there was no sample to compare with"
)
SEPARATES = (
    "difference of the two classes' means of the channel's mean over the cells, over their pooled standard deviation "
    "(Cohen, Statistical Power Analysis, 1988); chosen on one half of the images, and given of the other half too"
)
_FEWEST_IN_HALF = 2
"""Images of each class, of which a standard deviation can be told."""
_FEWEST_IN_CLASS = 2 * _FEWEST_IN_HALF
"""Images of each class of a pair: of one half alone, any channel of many tells two images from two others."""


class OneClassError(ValueError):
    """Images of one class, where two are to be told apart."""


@dataclass(frozen=True, kw_only=True)
class ChannelSample:
    """What the channels of one stage gave on the images of a sample."""

    means: NDArray[np.float64]
    """(N, C) over the cells."""
    maxima: NDArray[np.float64]
    """(N, C) over the cells."""
    places: NDArray[np.int64]
    """(N, C) the cell of the maximum, row * side + column; the first of equals."""


@torch.no_grad()
def sample_channels(model: nn.Module, stage_maps: Sequence[StageMap], batches: Iterable[Batch]) -> list[ChannelSample]:
    """Run a model once over a loader's batches; returns what each stage gave, the images in the order of their index.

    Raises ValueError where there is no image.
    """
    model.eval()
    found: list[list[tuple[Tensor, ...]]] = [[] for _ in stage_maps]
    index, stages = [], None
    for batch in batches:
        images = batch.images.float()
        stages = stages or find_stages(model, images[:1])
        index.append(batch.index.cpu())
        for own, values in zip(found, record_maps(model, stage_maps, stages, images), strict=True):
            flat = values.flatten(2)
            highest, at = flat.max(dim=2)
            own.append(tuple(each.cpu() for each in (flat.double().mean(dim=2), highest, at)))
    if not index:
        raise ValueError("sample: got no image, expected some of the test split")
    order = torch.cat(index).argsort()
    joined = [[torch.cat(parts)[order].numpy() for parts in zip(*own, strict=True)] for own in found]
    return [
        ChannelSample(means=means, maxima=maxima.astype(np.float64), places=places) for means, maxima, places in joined
    ]


def activity(means: NDArray[np.float64], sample: ChannelSample) -> NDArray[np.float64]:
    """How active channels are in images, means (N, C) -> (N, C): see ACTIVE; 0 of a channel that never changes."""
    spread = sample.means.std(axis=0, ddof=1) if len(sample.means) > 1 else np.zeros(sample.means.shape[1])
    above = means - sample.means.mean(axis=0)
    return np.divide(above, spread, out=np.zeros_like(above), where=_is_spread(spread, sample.means))


def activity_alone(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """How active channels are in images that nothing can be compared with, means (N, C) -> (N, C): see ACTIVE_ALONE."""
    above, spread = means - means.mean(axis=1, keepdims=True), means.std(axis=1, keepdims=True)
    return np.divide(above, spread, out=np.zeros_like(above), where=spread > 0)


def cohens_d(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cohen's d of each column of two samples, (N, C) and (M, C) -> (C,); 0 of a column that is constant in both."""
    n, m = len(first), len(second)
    pooled = np.sqrt(((n - 1) * first.var(axis=0, ddof=1) + (m - 1) * second.var(axis=0, ddof=1)) / (n + m - 2))
    difference = first.mean(axis=0) - second.mean(axis=0)
    return np.divide(difference, pooled, out=np.zeros_like(difference), where=_is_spread(pooled, first, second))


def _is_spread(spread: NDArray[np.float64], *samples: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the spread of each column of samples (N, C) is more than the rounding of a constant one, (C,) bool."""
    return spread > 1e-12 * np.max([np.abs(each).max(axis=0, initial=0) for each in samples], axis=0)


@dataclass(frozen=True, kw_only=True)
class Separation:
    """A channel that tells two classes apart."""

    channel: int
    d: float
    """Where it was chosen; above 0 where the first class has more of it."""
    d_held_out: float
    """Of the images that had no part in the choice."""


def separating_channels(
    means: NDArray[np.float64], labels: NDArray[np.int64], pair: tuple[int, int], num: int
) -> list[Separation]:
    """Choose the channels that tell a pair of classes best apart: see SEPARATES.

    means (N, C), labels (N,). Empty where a class has fewer than four images, which two halves need.
    """
    own = [means[labels == label] for label in pair]
    if any(len(each) < _FEWEST_IN_CLASS for each in own):
        return []
    d = cohens_d(own[0][0::2], own[1][0::2])
    held_out = cohens_d(own[0][1::2], own[1][1::2])
    order = np.argsort(-np.abs(d), kind="stable")[:num]
    return [Separation(channel=int(at), d=float(d[at]), d_held_out=float(held_out[at])) for at in order]


def confused_pair(labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> tuple[int, int]:
    """Give the two classes that are most often taken for each other, of those with images enough to be told apart.

    These are four of each class. Without such a mistake, the two with most images. Of equals the first. The smaller
    one comes first. Raises OneClassError where all images are of one class.
    """
    num = int(max(labels.max(), predicted.max())) + 1
    confused = np.zeros((num, num), dtype=np.int64)
    np.add.at(confused, (labels, predicted), 1)
    np.fill_diagonal(confused, 0)
    counts = np.bincount(labels, minlength=num)
    confused[counts < _FEWEST_IN_CLASS] = 0
    confused[:, counts < _FEWEST_IN_CLASS] = 0
    both = np.triu(confused + confused.T)
    if both.any():
        first, second = np.unravel_index(int(both.argmax()), both.shape)
        return int(first), int(second)
    if np.count_nonzero(counts) < 2:
        raise OneClassError("classes: got images of one class, expected two")
    first, second = sorted(np.argsort(-counts, kind="stable")[:2].tolist())
    return first, second


def choose_sample(labels: NDArray[np.int64], pair: tuple[int, int], num: int, seed: int) -> NDArray[np.int64]:
    """Choose positions of at most num images at random: a quarter of each class of the pair, then any others."""
    order = np.random.default_rng(seed).permutation(len(labels))
    of_pair = [position for label in pair for position in order[labels[order] == label][: max(num // 4, 1)].tolist()]
    rest = [position for position in order.tolist() if position not in of_pair]
    return np.array(sorted([*of_pair, *rest][:num]), dtype=np.int64)
