"""What a heat map is worth: what its hottest parts are worth to the model, and how much of it is in annotated boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dogs_accel.datasets import Box
from dogs_accel.evaluation.intervals import t_half_width
from pipelines import Recipe
from pipelines.augmentation import draw_params

_MIN_PATCHES = 7
"""Patches across, at least: a fifth of fewer than 7 x 7 would be a coarse thing."""


def patches_across(grid: tuple[int, int]) -> int:
    """Patches across an image from which parts are taken: the cells of a map (h, w), halved until there are enough."""
    across = max(grid)
    while across < _MIN_PATCHES:
        across *= 2
    return across


def hottest_patches(heat: Tensor, across: int, share: float, generator: torch.Generator) -> Tensor:
    """Pick the share of an image's patches with the most heat: (N, S, S) -> (N, across, across) bool.

    Equally many for each image, at least one; between patches of equal heat the generator decides, so that a map that
    is constant picks at random.
    """
    belongs = nn.functional.one_hot(_patch_of_pixel(heat.shape[-1], across), across).to(heat)
    belongs = belongs / belongs.sum(dim=0)
    means = (belongs.T @ heat @ belongs).flatten(1).cpu()
    shuffled = torch.rand(means.shape, generator=generator).argsort(dim=1)
    order = shuffled.gather(1, means.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))
    return _mask_of(order, across, share)


def random_patches(num: int, across: int, share: float, generator: torch.Generator) -> Tensor:
    """Pick as many patches as `hottest_patches` does, each as likely as any other: (num, across, across) bool."""
    return _mask_of(torch.rand((num, across**2), generator=generator).argsort(dim=1), across, share)


def shifted_patches(patches: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image's patches (N, across, across) by a random number down and across; what leaves one side comes in
    at the other."""
    across = patches.shape[-1]
    moves = torch.randint(across, (len(patches), 2), generator=generator).tolist()
    return torch.stack([each.roll(move, (0, 1)) for each, move in zip(patches, moves, strict=True)])


def _mask_of(order: Tensor, across: int, share: float) -> Tensor:
    """Mark the first patches of each row of an order (N, across * across)."""
    mask = torch.zeros(order.shape, dtype=torch.bool)
    mask.scatter_(1, order[:, : num_removed(across, share)], value=True)
    return mask.view(-1, across, across)


def num_removed(across: int, share: float) -> int:
    """Number of patches that are a share of all."""
    return max(1, round(share * across**2))


def _patch_of_pixel(size_px: int, across: int) -> Tensor:
    """Patch in which each row or column of pixels lies, (size_px,) int64."""
    return torch.arange(size_px) * across // size_px


def without_patches(images: Tensor, patches: Tensor) -> Tensor:
    """Replace patches (N, across, across) bool of images (N, 3, S, S) by the mean colour of the same image."""
    place = _patch_of_pixel(images.shape[-1], patches.shape[-1])
    mask = patches[:, place][:, :, place][:, None].to(images.device)
    return torch.where(mask, images.mean(dim=(2, 3), keepdim=True), images)


@torch.no_grad()
def class_probabilities(model: nn.Module, images: Tensor, classes: Tensor, batch_size: int = 64) -> Tensor:
    """Softmax probability of one class an image: images (N, 3, S, S), classes (N,) -> (N,) float32."""
    model.eval()
    parts = [model(some).float().softmax(dim=1) for some in images.split(batch_size)]
    return torch.cat(parts).gather(1, classes[:, None])[:, 0]


def mean_with_interval(values: NDArray[np.float64]) -> dict[str, Any]:
    """Mean, 95 % interval of Student's t and number of values; the interval is None below two values."""
    num = len(values)
    if num == 0:
        return {"mean": None, "interval": None, "num_images": 0}
    mean = float(values.mean())
    if num == 1:
        return {"mean": mean, "interval": None, "num_images": 1}
    half = t_half_width(values)
    return {"mean": mean, "interval": [mean - half, mean + half], "num_images": num}


def removal_verdict(difference: dict[str, Any]) -> str:
    """Say in words what the interval of (fall without the hottest - fall without random parts) shows."""
    if difference["interval"] is None:
        return "too few images"
    low, high = difference["interval"]
    if low > 0:
        return "better than random"
    return "worse than random" if high < 0 else "no difference from random shown"


def box_on_crop(box: Box, size_px: tuple[int, int], recipe: Recipe) -> tuple[float, float, float, float]:
    """Map a box of a file of size_px (height, width) to the crop that an evaluation recipe makes of it.

    xmin, ymin, xmax, ymax in px of the crop, which may lie beyond its sides. Raises ValueError for a recipe that
    depends on chance.
    """
    if recipe.is_random:
        raise ValueError(f"recipe: got {recipe.name}, expected one of evaluation, which makes the same crop every time")
    height, width = size_px
    resized = recipe.resized(height, width)
    [[top, left, _, _]] = draw_params(recipe, np.array([resized]), 0, 0, np.zeros(1, dtype=np.int64)).crop.tolist()
    down, across = resized[0] / height, resized[1] / width
    xmin, ymin, xmax, ymax = box
    return xmin * across - left, ymin * down - top, xmax * across - left, ymax * down - top


def box_cover(boxes: Sequence[tuple[float, float, float, float]], size_px: int) -> Tensor:
    """How much of each pixel of a crop lies in any of some boxes of it: (size_px, size_px) float32 in [0, 1]."""
    cover = torch.zeros(size_px, size_px, dtype=torch.float32)
    for xmin, ymin, xmax, ymax in boxes:
        cover = torch.maximum(cover, torch.outer(_line_cover(ymin, ymax, size_px), _line_cover(xmin, xmax, size_px)))
    return cover


def _line_cover(low: float, high: float, size_px: int) -> Tensor:
    begin = torch.arange(size_px, dtype=torch.float32)
    return ((begin + 1).clamp(max=high) - begin.clamp(min=low)).clamp(min=0)


def heat_inside(heat: Tensor, cover: Tensor) -> float | None:
    """Share of a map's heat (S, S), >= 0, that lies where cover (S, S) is 1; None of a map without heat."""
    total = float(heat.double().sum())
    return float((heat.double() * cover.to(heat.device)).sum()) / total if total > 0 else None
