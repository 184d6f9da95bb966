"""Pillow's resampling and torchvision's augmentation from their definitions, in slow and obvious numpy integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
WEIGHT_BITS = 22
SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}


def filter_values(x: Array, interpolation: str) -> Array:
    x = np.abs(x)
    if interpolation == "bilinear":
        return np.where(x < 1, 1 - x, 0)
    a = -0.5
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def fixed_point_weights(in_size: int, out_size: int, interpolation: str) -> Array:
    """(out_size, in_size) int64: how much of each input pixel is in each output pixel, in units of 2^-22."""
    scale = in_size / out_size
    widening = max(scale, 1.0)
    support = SUPPORT[interpolation] * widening
    centre = ((np.arange(out_size) + 0.5) * scale)[:, None]
    pixel = np.arange(in_size)
    first, end = np.trunc(centre - support + 0.5), np.trunc(centre + support + 0.5)
    weights = filter_values((pixel - centre + 0.5) * (1 / widening), interpolation)
    weights = np.where((first <= pixel) & (pixel < end), weights, 0)
    weights = weights / np.cumsum(weights, axis=1)[:, -1:] * 2**WEIGHT_BITS  # cumsum adds in order, sum does not
    return np.trunc(weights + np.where(weights < 0, -0.5, 0.5)).astype(np.int64)


def resample_rows(image: Array, height: int, interpolation: str) -> Array:
    """One pass along the first axis."""
    weights = fixed_point_weights(len(image), height, interpolation)
    # Integers below 2^53 are exact in float64, whose products numpy has a fast routine for.
    sums = (weights.astype(np.float64) @ image.reshape(len(image), -1).astype(np.float64)).astype(np.int64)
    rounded = (sums + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS
    return np.clip(rounded, 0, 255).reshape(height, *image.shape[1:])


def resample_columns(image: Array, width: int, interpolation: str) -> Array:
    return resample_rows(image.swapaxes(0, 1), width, interpolation).swapaxes(0, 1)


def is_vertical_first(image: Array, height: int, width: int) -> bool:
    lost_height, lost_width = image.shape[0] - height, image.shape[1] - width
    return lost_height > 0 and lost_height > 2 * lost_width


def resize(image: Array, height: int, width: int, interpolation: str) -> Array:
    """(height, width, 3) int64 of (H, W, 3), as Pillow 13 has it."""
    if is_vertical_first(image, height, width):
        return resample_columns(resample_rows(image, height, interpolation), width, interpolation)
    return resample_rows(resample_columns(image, width, interpolation), height, interpolation)


def transform(image: Array, matrix: Array) -> Array:
    """Affine transform of a square image, nearest neighbour in 16.16 fixed point, black outside."""
    size = len(image)
    a, b, c, d, e, f = matrix
    start_x, start_y = c + a * 0.5 + b * 0.5, f + d * 0.5 + e * 0.5
    fixed = np.floor(np.array([start_x, a, b, start_y, d, e]) * 65536 + 0.5).astype(np.int64)
    y, x = np.mgrid[:size, :size]
    from_x, from_y = ((start + x * step_x + y * step_y) >> 16 for start, step_x, step_y in (fixed[:3], fixed[3:]))
    inside = (from_x >= 0) & (from_x < size) & (from_y >= 0) & (from_y < size)
    found = image[np.where(inside, from_y, 0), np.where(inside, from_x, 0)]
    return np.where(inside[..., None], found, 0)


def grey(image: Array) -> Array:
    return (image @ np.array([19595, 38470, 7471]) + 32768) >> 16


def blend(other: Array, image: Array, factor: float) -> Array:
    one, two = other.astype(np.float32), (image - other).astype(np.float32)
    return np.clip(np.trunc(one + np.float32(factor) * two), 0, 255).astype(np.int64)


def jitter(image: Array, which: int, factor: float) -> Array:
    if which == 0:
        other = np.zeros_like(image)
    elif which == 1:
        other = np.full_like(image, int(grey(image).sum() / image[..., 0].size + 0.5))
    else:
        other = np.broadcast_to(grey(image)[..., None], image.shape)
    return blend(other, image, factor)


def augment(
    image: Array, params: Array, size: int, mean: Sequence[float], std: Sequence[float], interpolation: str
) -> Array:
    """(3, size, size) float32 of one stored image (H, W, 3) uint8 and one row of `dogs_accel.ops.augment`'s params."""
    top, left, height, width = params[:4].astype(int)
    image = resize(image[top : top + height, left : left + width].astype(np.int64), size, size, interpolation)
    if params[4]:
        image = image[:, ::-1]
    image = transform(image, params[5:11])
    for which in params[14:17].astype(int):
        if params[11 + which] != 1:
            image = jitter(image, which, params[11 + which])
    values = image.astype(np.float32) / np.float32(255)
    values = (values - np.asarray(mean, dtype=np.float32)) / np.asarray(std, dtype=np.float32)
    top, left, height, width = params[17:21].astype(int)
    values[top : top + height, left : left + width] = 0
    return values.transpose(2, 0, 1)
