"""The random parameters of a recipe, drawn per sample from (seed, epoch, sample) alone.

Every loader draws here, so all of them show a model the same crops, flips and colours, whatever the batch size,
the number of workers or the order of calls. The distributions are those of torchvision's RandomResizedCrop,
RandomHorizontalFlip, RandomRotation, ColorJitter and RandomErasing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dogs_accel.ops import AUGMENT_STEPS
from pipelines.philox import uniform
from pipelines.recipe import Recipe

_STREAM = 1
_ATTEMPTS = 10
_CHUNKS_AT_ONCE = 16
"""Drawing for one batch costs a sample eight times what drawing for many does."""
_JITTER_STEPS = np.array([AUGMENT_STEPS.index(name) for name in ("brightness", "contrast", "saturation")])
# One column of random numbers for each use, so that switching one augmentation off leaves the others as they were.
_CROP_ATTEMPTS, _CROP_PLACE, _FLIP, _ANGLE, _FACTORS, _ORDER, _ERASE, _ERASE_ATTEMPTS, _ERASE_PLACE, _NUM = (
    0, 20, 22, 23, 24, 27, 30, 31, 51, 53,
)  # fmt: skip


@dataclass(frozen=True)
class AugmentParams:
    """What happens to each of N samples; boxes are (top, left, height, width) in px."""

    crop: NDArray[np.int64]
    """(N, 4) box in the resized image, which is resized to the output."""
    flip: NDArray[np.bool_]
    """(N,)"""
    angle_deg: NDArray[np.float64]
    """(N,) counter-clockwise."""
    factors: NDArray[np.float64]
    """(N, 3) of brightness, contrast and saturation; 1 changes nothing."""
    order: NDArray[np.int64]
    """(N, 3) order in which the three factors are applied: 0 brightness, 1 contrast, 2 saturation."""
    erase: NDArray[np.int64]
    """(N, 4) box in the output that is set to 0; height 0 where nothing is erased."""


def draw_params(
    recipe: Recipe, sizes: NDArray[np.int64], seed: int, epoch: int, index: NDArray[np.int64]
) -> AugmentParams:
    """Draw the parameters of the samples `index` (N,) whose resized images have sizes (N, 2) = height, width."""
    num = len(index)
    u = uniform(seed, epoch, index, _NUM, _STREAM) if recipe.is_random else np.full((num, _NUM), 0.5)
    widths = np.array([recipe.brightness, recipe.contrast, recipe.saturation])
    return AugmentParams(
        crop=_crop_boxes(recipe, sizes, u),
        flip=u[:, _FLIP] < recipe.flip,
        angle_deg=(2 * u[:, _ANGLE] - 1) * recipe.rotation_deg,
        factors=1 + (2 * u[:, _FACTORS:_ORDER] - 1) * widths,
        order=np.argsort(u[:, _ORDER:_ERASE], axis=1, kind="stable"),
        erase=_erase_boxes(recipe, u),
    )


def pack_params(params: AugmentParams, size_px: int) -> NDArray[np.float64]:
    """Lay out parameters as `dogs_accel.ops.augment` takes them for outputs of size_px: (N, 37) float64."""
    num = len(params.crop)
    steps = np.zeros((num, 4, 7))
    steps[:, 0, 0] = AUGMENT_STEPS.index("affine")
    matrices = [_rotation_matrix(angle, size_px) for angle in params.angle_deg.tolist()]
    steps[:, 0, 1:] = np.array(matrices).reshape(-1, 6)
    steps[:, 1:, 0] = _JITTER_STEPS[params.order]
    steps[:, 1:, 1] = np.take_along_axis(params.factors, params.order, axis=1)
    return np.concatenate(
        [params.crop, params.flip[:, None], params.erase, steps.reshape(num, 28)], axis=1, dtype=np.float64
    )


def _rotation_matrix(angle_deg: float, size_px: int) -> tuple[float, ...]:
    """From an output pixel to where it comes from, with the roundings of `PIL.Image.rotate`."""
    if angle_deg == 0:
        return (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    # PIL turns by the angle in [0, 360), whose cosine may differ in the last place.
    angle = -math.radians(angle_deg % 360.0)
    cos, sin, minus_sin = (round(value, 15) for value in (math.cos(angle), math.sin(angle), -math.sin(angle)))
    centre = size_px / 2
    x = cos * -centre + sin * -centre + centre
    y = minus_sin * -centre + cos * -centre + centre
    return (cos, sin, x, minus_sin, cos, y)


def draw_packed(
    recipe: Recipe, seed: int, epoch: int, chunks: Sequence[NDArray[np.int64]]
) -> Iterator[NDArray[np.float64]]:
    """Draw for each chunk of samples (n,), of a recipe with one size for all, what `pack_params` lays out: (n, 37)."""
    for at in range(0, len(chunks), _CHUNKS_AT_ONCE):
        some = chunks[at : at + _CHUNKS_AT_ONCE]
        index = np.concatenate(some)
        sizes = np.tile(np.array(recipe.resized(0, 0), dtype=np.int64), (len(index), 1))
        packed = pack_params(draw_params(recipe, sizes, seed, epoch, index), recipe.crop)
        yield from np.split(packed, np.cumsum([len(chunk) for chunk in some])[:-1])


def _crop_boxes(recipe: Recipe, sizes: NDArray[np.int64], u: NDArray[np.float64]) -> NDArray[np.int64]:
    if recipe.random_area is None:
        size = np.full_like(sizes, recipe.crop)
        return np.concatenate([np.rint((sizes - size) / 2).astype(np.int64), size], axis=1)
    height, width = sizes[:, :1], sizes[:, 1:]
    tall, wide = _attempts(height * width, recipe.random_area, recipe.random_ratio, u[:, _CROP_ATTEMPTS:_CROP_PLACE])
    fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
    box = _first_fit(fits, tall, wide)
    # No attempt fitted: the largest centred crop whose ratio is allowed.
    low, high = recipe.random_ratio
    ratio = sizes[:, 1] / sizes[:, 0]
    fallback_h = np.where(ratio < low, np.rint(sizes[:, 1] / low), sizes[:, 0]).astype(np.int64)
    fallback_w = np.where(ratio > high, np.rint(sizes[:, 0] * high), sizes[:, 1]).astype(np.int64)
    found = fits.any(axis=1)
    h = np.where(found, box[:, 0], fallback_h)
    w = np.where(found, box[:, 1], fallback_w)
    top, left = _place(sizes, h, w, u[:, _CROP_PLACE:_FLIP])
    top = np.where(found, top, (sizes[:, 0] - h) // 2)
    left = np.where(found, left, (sizes[:, 1] - w) // 2)
    return np.stack([top, left, h, w], axis=1)


def _erase_boxes(recipe: Recipe, u: NDArray[np.float64]) -> NDArray[np.int64]:
    num, size = len(u), recipe.crop
    if not recipe.erasing:
        return np.zeros((num, 4), dtype=np.int64)
    # torchvision's ratio here is height to width, the inverse of the crop's.
    wide, tall = _attempts(size * size, recipe.erasing_area, recipe.erasing_ratio, u[:, _ERASE_ATTEMPTS:_ERASE_PLACE])
    fits = (tall < size) & (wide < size)
    box = _first_fit(fits, tall, wide)
    erased = fits.any(axis=1) & (u[:, _ERASE] < recipe.erasing)
    h, w = np.where(erased, box[:, 0], 0), np.where(erased, box[:, 1], 0)
    top, left = _place(np.full((num, 2), size), h, w, u[:, _ERASE_PLACE:_NUM])
    return np.where(erased[:, None], np.stack([top, left, h, w], axis=1), 0)


def _attempts(
    area: NDArray[np.int64] | int,
    area_bounds: tuple[float, float],
    ratio_bounds: tuple[float, float],
    u: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sides of the boxes tried, (N, attempts) each: (the one divided by the ratio, the one multiplied by it)."""
    share = area_bounds[0] + u[:, :_ATTEMPTS] * (area_bounds[1] - area_bounds[0])
    low, high = np.log(ratio_bounds)
    ratio = np.exp(low + u[:, _ATTEMPTS:] * (high - low))
    divided = np.rint(np.sqrt(area * share / ratio)).astype(np.int64)
    multiplied = np.rint(np.sqrt(area * share * ratio)).astype(np.int64)
    return divided, multiplied


def _first_fit(fits: NDArray[np.bool_], tall: NDArray[np.int64], wide: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N, 2) height and width of each row's first attempt that fits."""
    first = fits.argmax(axis=1)
    rows = np.arange(len(fits))
    return np.stack([tall[rows, first], wide[rows, first]], axis=1)


def _place(
    sizes: NDArray[np.int64], h: NDArray[np.int64], w: NDArray[np.int64], u: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    top = np.floor(u[:, 0] * (sizes[:, 0] - h + 1)).astype(np.int64)
    left = np.floor(u[:, 1] * (sizes[:, 1] - w + 1)).astype(np.int64)
    return top, left
