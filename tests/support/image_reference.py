"""Pillow's resampling and torchvision's augmentation from their definitions, in slow and obvious numpy integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dogs_accel.ops import AUGMENT_STEPS

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


def hsv(image: Array) -> Array:
    """(H, W, 3) int64 of PIL's convert("HSV"), with the float32 and float64 of its C source."""
    single, double = np.float32, np.float64
    r, g, b = (image[..., c] for c in range(3))
    most, least = image.max(-1), image.min(-1)
    span = np.maximum(most - least, 1).astype(single)
    rc, gc, bc = ((most - channel).astype(single) / span for channel in (r, g, b))
    from_green = (2.0 + rc.astype(double) - bc.astype(double)).astype(single)
    from_blue = (4.0 + gc.astype(double) - rc.astype(double)).astype(single)
    sixths = np.where(r == most, bc - gc, np.where(g == most, from_green, from_blue))
    turns = np.fmod(sixths.astype(double) / 6.0 + 1.0, 1.0).astype(single)
    share = (most - least).astype(single) / np.maximum(most, 1).astype(single)
    is_grey = most == least
    hue, saturation = ((values.astype(double) * 255.0).astype(np.int64) for values in (turns, share))
    return np.stack([np.where(is_grey, 0, hue), np.where(is_grey, 0, saturation), most], axis=-1)


def rgb(image: Array) -> Array:
    """(H, W, 3) int64 of an HSV image converted to "RGB"."""
    single, double = np.float32, np.float64
    h, s, v = (image[..., c] for c in range(3))
    place = h.astype(double) * 6.0 / 255.0
    sixth = np.floor(place).astype(np.int64)
    f = (place - sixth).astype(single)
    fs = s.astype(single) / single(255)
    wide_f, wide_fs, wide_v = f.astype(double), fs.astype(double), v.astype(double)
    p, q, t = (
        np.floor(wide_v * (1.0 - part) + 0.5).astype(np.int64)
        for part in (wide_fs, (fs * f).astype(double), wide_fs * (1.0 - wide_f))
    )
    orders = [(v, t, p), (q, v, p), (p, v, t), (p, q, v), (t, p, v), (v, p, q)]
    channels = [np.choose(sixth % 6, [order[c] for order in orders]) for c in range(3)]
    return np.where((s == 0)[..., None], v[..., None], np.stack(channels, axis=-1))


def shift_hue(image: Array, shift: int) -> Array:
    turned = hsv(image)
    turned[..., 0] = (turned[..., 0] + shift) % 256
    return rgb(turned)


def smooth(image: Array) -> Array:
    """ImageFilter.SMOOTH: the border stays."""
    result = image.copy()
    if min(image.shape[:2]) >= 3:
        size_y, size_x = image.shape[0] - 2, image.shape[1] - 2
        total = 4 * image[1:-1, 1:-1]
        for y in range(3):
            for x in range(3):
                total = total + image[y : y + size_y, x : x + size_x]
        result[1:-1, 1:-1] = np.floor(total / 13 + 0.5).astype(np.int64)
    return result


def autocontrast_levels(channel: Array) -> Array:
    low, high = int(channel.min()), int(channel.max())
    if high <= low:
        return np.arange(256)
    scale = 255.0 / (high - low)
    return np.clip(np.trunc(np.arange(256) * scale + -low * scale).astype(np.int64), 0, 255)


def equalize_levels(channel: Array) -> Array:
    histogram = np.bincount(channel.ravel(), minlength=256)
    present = histogram[histogram > 0]
    step = (present.sum() - present[-1]) // 255
    if len(present) <= 1 or step == 0:
        return np.arange(256)
    return np.minimum((step // 2 + np.cumsum(histogram) - histogram) // step, 255)


def step(image: Array, name: str, numbers: Array) -> Array:
    """(size, size, 3) int64 of the same, after one step of `dogs_accel.ops.AUGMENT_STEPS`."""
    number = float(numbers[0])
    if name == "none":
        return image
    if name == "affine":
        return transform(image, numbers)
    if name in ("brightness", "contrast", "saturation", "sharpness"):
        if number == 1:
            return image
        if name == "brightness":
            other = np.zeros_like(image)
        elif name == "contrast":
            other = np.full_like(image, int(grey(image).sum() / image[..., 0].size + 0.5))
        elif name == "saturation":
            other = np.broadcast_to(grey(image)[..., None], image.shape)
        else:
            other = smooth(image)
        return blend(other, image, number)
    if name == "hue":
        return shift_hue(image, int(number))
    if name == "grayscale":
        return np.broadcast_to(grey(image)[..., None], image.shape)
    if name == "posterize":
        return image & (256 - (1 << (8 - int(number))))
    if name == "solarize":
        return np.where(image < number, image, 255 - image)
    levels = {"autocontrast": autocontrast_levels, "equalize": equalize_levels}[name]
    return np.stack([levels(image[..., c])[image[..., c]] for c in range(3)], axis=-1)


def cut_out(image: Array, box: Sequence[int], fill: Sequence[int]) -> Array:
    """(height, width, 3) of an image, `fill` where the box (top, left, height, width) is outside of it."""
    top, left, height, width = box
    y, x = np.mgrid[top : top + height, left : left + width]
    inside = (y >= 0) & (y < image.shape[0]) & (x >= 0) & (x < image.shape[1])
    found = image[np.where(inside, y, 0), np.where(inside, x, 0)]
    return np.where(inside[..., None], found, np.asarray(fill))


def augment(
    image: Array,
    params: Array,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str,
    resized: Sequence[int] | None = None,
    fill: Sequence[int] = (0, 0, 0),
) -> Array:
    """(3, size, size) float32 of one image (H, W, 3) uint8 and one row of `dogs_accel.ops.augment`'s params."""
    image = image.astype(np.int64)
    if resized is not None:
        image = resize(image, *resized, interpolation)
    image = resize(cut_out(image, params[:4].astype(int), fill), size, size, interpolation)
    if params[4]:
        image = image[:, ::-1]
    for number, *numbers in params[9:].reshape(-1, 7):
        image = step(image, AUGMENT_STEPS[int(number)], np.array(numbers))
    values = image.astype(np.float32) / np.float32(255)
    values = (values - np.asarray(mean, dtype=np.float32)) / np.asarray(std, dtype=np.float32)
    top, left, height, width = params[5:9].astype(int)
    values[top : top + height, left : left + width] = 0
    return values.transpose(2, 0, 1)
