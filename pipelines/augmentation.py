"""The random parameters of a recipe, drawn per sample from (seed, epoch, sample) alone.

Every loader draws here, so all of them show a model the same crops, flips and colours, whatever the batch size,
the number of workers or the order of calls. The distributions are those of torchvision's RandomResizedCrop,
RandomCrop, RandomHorizontalFlip, RandAugment, RandomRotation, ColorJitter, RandomGrayscale and RandomErasing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dogs_accel.ops import AUGMENT_STEPS, NUM_STEP_COLUMNS
from pipelines.philox import uniform
from pipelines.recipe import MAGNITUDE_BINS, Recipe

_STREAM, _RANDAUGMENT_STREAM = 1, 2
_ATTEMPTS = 10
_CHUNKS_AT_ONCE = 16
"""Drawing for one batch costs a sample eight times what drawing for many does."""
# One column of random numbers for each use, so that switching one augmentation off leaves the others as they were. New
# uses come behind the last ones. RandAugment, which has two for each of its operations, has numbers of its own.
_CROP_ATTEMPTS, _CROP_PLACE, _FLIP, _ANGLE, _FACTORS, _ORDER, _ERASE, _ERASE_ATTEMPTS, _ERASE_PLACE, _HUE = (
    0, 20, 22, 23, 24, 27, 30, 31, 51, 53,
)  # fmt: skip
_HUE_ORDER, _GRAYSCALE, _NUM = 54, 55, 56

RANDAUGMENT_OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "saturation", "contrast",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
"""In torchvision's order, each as likely as the others; torchvision calls saturation Color."""
SIGNED = RANDAUGMENT_OPERATIONS[1:10]
"""Those that go either way."""
_STEP = {name: number for number, name in enumerate(AUGMENT_STEPS)}


@dataclass(frozen=True)
class AugmentParams:
    """What happens to each of N samples; boxes are (top, left, height, width) in px."""

    crop: NDArray[np.int64]
    """(N, 4) box in the resized image, which is resized to the output; beyond the image it has the recipe's fill."""
    flip: NDArray[np.bool_]
    """(N,)"""
    operations: NDArray[np.int64]
    """(N, K) of RandAugment, in their order: positions in RANDAUGMENT_OPERATIONS."""
    signs: NDArray[np.float64]
    """(N, K), 1 or -1: which way an operation goes, where it can go either way."""
    angle_deg: NDArray[np.float64]
    """(N,) counter-clockwise."""
    factors: NDArray[np.float64]
    """(N, 4) of brightness, contrast and saturation, where 1 changes nothing, and the shift of the hue in circles."""
    order: NDArray[np.int64]
    """(N, 4) order in which the four are applied, as 0, 1, 2 and 3."""
    grayscale: NDArray[np.bool_]
    """(N,)"""
    erase: NDArray[np.int64]
    """(N, 4) box in the output that is set to 0; height 0 where nothing is erased."""


def draw_params(
    recipe: Recipe, sizes: NDArray[np.int64], seed: int, epoch: int, index: NDArray[np.int64]
) -> AugmentParams:
    """Draw the parameters of the samples `index` (N,) whose resized images have sizes (N, 2) = height, width."""
    num = len(index)
    num_operations = 0 if recipe.randaugment is None else recipe.randaugment[0]
    u = uniform(seed, epoch, index, _NUM, _STREAM) if recipe.is_random else np.full((num, _NUM), 0.5)
    operations = uniform(seed, epoch, index, 2 * num_operations, _RANDAUGMENT_STREAM)
    widths = np.array([recipe.brightness, recipe.contrast, recipe.saturation])
    shifts = (2 * u[:, _HUE] - 1) * recipe.hue
    return AugmentParams(
        crop=_crop_boxes(recipe, sizes, u),
        flip=u[:, _FLIP] < recipe.flip,
        operations=(operations[:, ::2] * len(RANDAUGMENT_OPERATIONS)).astype(np.int64),
        signs=np.where(operations[:, 1::2] < 0.5, -1.0, 1.0),
        angle_deg=(2 * u[:, _ANGLE] - 1) * recipe.rotation_deg,
        factors=np.column_stack([1 + (2 * u[:, _FACTORS:_ORDER] - 1) * widths, shifts]),
        order=np.argsort(u[:, [*range(_ORDER, _ERASE), _HUE_ORDER]], axis=1, kind="stable"),
        grayscale=u[:, _GRAYSCALE] < recipe.grayscale,
        erase=_erase_boxes(recipe, u),
    )


@functools.cache
def randaugment_magnitudes(magnitude: int, size_px: int) -> dict[str, float]:
    """Say how strong each operation is at a magnitude (0 to 30) on a square image, as torchvision has it.

    Shears are tangents, translations px (toward 0), rotations degrees; of brightness, saturation, contrast and
    sharpness it is what the factor is more or less than 1; bits of posterize, the threshold of solarize; 0 of others.
    """

    def ramp(start: float, end: float) -> float:
        return float(torch.linspace(start, end, MAGNITUDE_BINS, dtype=torch.float32)[magnitude])

    most_px = 150.0 / 331.0 * size_px
    bits = 8 - (torch.arange(MAGNITUDE_BINS) / ((MAGNITUDE_BINS - 1) / 4)).round().int()
    factor = ramp(0.0, 0.9)
    return {
        "identity": 0.0,
        "shear_x": ramp(0.0, 0.3),
        "shear_y": ramp(0.0, 0.3),
        "translate_x": ramp(0.0, most_px),
        "translate_y": ramp(0.0, most_px),
        "rotate": ramp(0.0, 30.0),
        "brightness": factor,
        "saturation": factor,
        "contrast": factor,
        "sharpness": factor,
        "posterize": float(bits[magnitude]),
        "solarize": ramp(255.0, 0.0),
        "autocontrast": 0.0,
        "equalize": 0.0,
    }


def pack_params(params: AugmentParams, recipe: Recipe) -> NDArray[np.float64]:
    """Lay out parameters as `dogs_accel.ops.augment` takes them: (N, 9 + 7 K) float64, with K steps."""
    head = np.concatenate([params.crop, params.flip[:, None], params.erase], axis=1, dtype=np.float64)
    steps = [_randaugment_steps(params, recipe)] if recipe.randaugment else []
    rotation = [_rotation_steps(params, recipe)] if recipe.rotation_deg else []
    jitter = [_jitter_steps(params, recipe)] if recipe.jitters else []
    steps += [*jitter, *rotation] if recipe.rotation_after_jitter else [*rotation, *jitter]
    if recipe.grayscale:
        steps.append(_steps(len(head), 1))
        steps[-1][:, 0, 0] = np.where(params.grayscale, _STEP["grayscale"], _STEP["none"])
    flat = (each.reshape(len(head), each.shape[1] * NUM_STEP_COLUMNS) for each in steps)
    return np.concatenate([head, *flat], axis=1)


def _steps(num: int, num_steps: int) -> NDArray[np.float64]:
    return np.zeros((num, num_steps, NUM_STEP_COLUMNS))


def _rotation_steps(params: AugmentParams, recipe: Recipe) -> NDArray[np.float64]:
    steps = _steps(len(params.flip), 1)
    steps[:, 0, 0] = _STEP["affine"]
    steps[:, 0, 1:] = [_rotation_matrix(angle, recipe.crop) for angle in params.angle_deg.tolist()] or np.zeros((0, 6))
    return steps


def _jitter_steps(params: AugmentParams, recipe: Recipe) -> NDArray[np.float64]:
    """Lay out the factors in their order; the hue last in the table of four is left out where none is shifted."""
    num = len(params.flip)
    kinds = np.array([_STEP[name] for name in ("brightness", "contrast", "saturation", "hue")])
    # As torchvision does it: the fraction is cut off, and what is below 0 comes round from 255.
    shift = np.trunc(params.factors[:, 3] * 255) % 256
    values = np.column_stack([params.factors[:, :3], shift])
    order = params.order if recipe.hue else params.order[params.order < 3].reshape(num, 3)
    steps = _steps(num, order.shape[1])
    steps[:, :, 0] = kinds[order]
    steps[:, :, 1] = np.take_along_axis(values, order, axis=1)
    return steps


def _randaugment_steps(params: AugmentParams, recipe: Recipe) -> NDArray[np.float64]:
    assert recipe.randaugment is not None
    table = _randaugment_table(recipe.randaugment[1], recipe.crop)
    return table[params.operations, (params.signs > 0).astype(np.int64)]


@functools.cache
def _randaugment_table(magnitude: int, size_px: int) -> NDArray[np.float64]:
    """Lay out every operation as a step: (operations, 2, 7), the negative one before the positive one."""
    strengths = randaugment_magnitudes(magnitude, size_px)
    table = np.zeros((len(RANDAUGMENT_OPERATIONS), 2, NUM_STEP_COLUMNS))
    for number, name in enumerate(RANDAUGMENT_OPERATIONS):
        for side, sign in enumerate((-1, 1)):
            strength = strengths[name] * (sign if name in SIGNED else 1)
            table[number, side] = _operation_step(name, strength, size_px)
    return table


def _operation_step(name: str, strength: float, size_px: int) -> list[float]:
    none = [0.0] * 6
    if name == "identity":
        return [_STEP["none"], *none]
    if name.startswith("shear"):
        # Through degrees and back, with the roundings of torchvision's affine.
        angle = math.radians(math.degrees(math.atan(strength)))
        along_x, along_y = math.tan(angle), math.sin(angle) / math.cos(angle)
        return [_STEP["affine"], *((1, along_x, 0, 0, 1, 0) if name == "shear_x" else (1, 0, 0, along_y, 1, 0))]
    if name.startswith("translate"):
        px = int(strength)
        return [_STEP["affine"], 1, 0, -px if name == "translate_x" else 0, 0, 1, -px if name == "translate_y" else 0]
    if name == "rotate":
        return [_STEP["affine"], *_rotation_matrix(strength, size_px)]
    if name in ("brightness", "saturation", "contrast", "sharpness"):
        return [_STEP[name], 1 + strength, *none[1:]]
    return [_STEP[name], strength, *none[1:]]


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
    recipe: Recipe, seed: int, epoch: int, chunks: Sequence[NDArray[np.int64]], sizes: NDArray[np.int64]
) -> Iterator[NDArray[np.float64]]:
    """Draw for each chunk of samples (n,) what `pack_params` lays out.

    sizes: height and width of the resized images: (2,) where all have one, else (N, 2), by sample.
    """
    for at in range(0, len(chunks), _CHUNKS_AT_ONCE):
        some = chunks[at : at + _CHUNKS_AT_ONCE]
        index = np.concatenate(some)
        own = np.broadcast_to(sizes, (len(index), 2)) if sizes.ndim == 1 else sizes[index]
        packed = pack_params(draw_params(recipe, own, seed, epoch, index), recipe)
        yield from np.split(packed, np.cumsum([len(chunk) for chunk in some])[:-1])


def _crop_boxes(recipe: Recipe, sizes: NDArray[np.int64], u: NDArray[np.float64]) -> NDArray[np.int64]:
    padded = sizes + 2 * recipe.padding
    box = _boxes_in(recipe, padded, u)
    return box - np.array([recipe.padding, recipe.padding, 0, 0])


def _boxes_in(recipe: Recipe, sizes: NDArray[np.int64], u: NDArray[np.float64]) -> NDArray[np.int64]:
    if recipe.random_area is None:
        size = np.full_like(sizes, recipe.crop)
        spare = sizes - size
        # Where an image is smaller than the crop, torchvision's random crop may be anywhere that has all of the image.
        place = np.minimum(spare, 0) + np.floor(u[:, _CROP_PLACE:_FLIP] * (np.abs(spare) + 1)).astype(np.int64)
        centre = np.where(spare < 0, -(-spare // 2), np.rint(spare / 2).astype(np.int64))
        if recipe.crop_place != "centre":
            is_far = np.array([recipe.crop_place.startswith("bottom"), recipe.crop_place.endswith("right")])
            centre = np.where(spare < 0, centre, spare * is_far)
        return np.concatenate([place if recipe.random_crop else centre, size], axis=1)
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
    top, left = _place(np.full((num, 2), size), h, w, u[:, _ERASE_PLACE:_HUE])
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
