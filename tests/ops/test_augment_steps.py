"""Every step of augment against torchvision on PIL images, all bytes."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import InterpolationMode, RandAugment
from torchvision.transforms.autoaugment import _apply_op

from dogs_accel import ops
from tests.support import image_reference
from tests.support.augment_cases import after_steps, as_bytes, make_store, rows_of
from tests.support.operator_cases import DEVICES, assert_threads_change_no_bit

FACTORS = [0.0, 0.1, 0.5, 0.73, 0.9999, 1.0, 1 + 1e-7, 1.1, 1.9, 2.0, 7.3, 255.0, 1e6]
ALONE: dict[str, list[tuple[float, ...]]] = {
    "none": [(), (float("nan"),)],
    "affine": [(1, 0.1, -3, -0.1, 1, 2), (0.7, 0.7, 1, -0.7, 0.7, 9), (1, 0, 3, 0, 1, 0), (1, 0, 0, 0, 1, 0)],
    "brightness": [(factor,) for factor in FACTORS],
    "contrast": [(factor,) for factor in FACTORS],
    "saturation": [(factor,) for factor in FACTORS],
    "hue": [(shift,) for shift in (0, 1, 2, 12, 25, 64, 127, 128, 200, 254, 255)],
    "grayscale": [()],
    "sharpness": [(factor,) for factor in FACTORS],
    "posterize": [(bits,) for bits in range(1, 9)],
    "solarize": [(threshold,) for threshold in (0, 0.5, 1, 127.5, 128, 200.25, 254.9, 255, 255.5, 256)],
    "autocontrast": [()],
    "equalize": [()],
}


@functools.cache
def photos(shared_data: Path, size: int) -> list[Image.Image]:
    paths = sorted((shared_data / "stanford-dogs-mini" / "Images").rglob("*.jpg"))[::150]
    assert paths
    return [Image.open(path).convert("RGB").resize((size, size)) for path in paths]


def drawn_images(size: int) -> list[Image.Image]:
    """One level, two levels, a ramp, few levels, and noise of all levels, of narrow ranges and of few pixels."""
    random = np.random.default_rng(size)
    shape = (size, size, 3)
    ramp = np.arange(size * size * 3).reshape(shape)
    arrays = [
        np.zeros(shape),
        np.full(shape, 255),
        np.full(shape, (7, 7, 200)),
        random.integers(0, 2, shape) * 255,
        np.where(random.random(shape) < 0.3, 100, 101),
        ramp % 256,
        ramp // max(1, size * size * 3 // 256 + 1),
        random.integers(0, 256, shape),
        random.integers(90, 120, shape),
        np.where(random.random(shape) < 0.05, random.integers(0, 256, shape), 12),
    ]
    return [Image.fromarray(array.astype(np.uint8)) for array in arrays]


def apply(
    images: Sequence[Image.Image], steps: Sequence[Sequence[tuple[Any, ...]]], device: str = "cpu"
) -> NDArray[np.uint8]:
    """(B, size, size, 3): each image after its list of steps."""
    size = images[0].width
    stored = torch.from_numpy(np.stack([np.asarray(image) for image in images])).to(device)
    params = torch.from_numpy(rows_of(steps, (0, 0, size, size))).to(device)
    index = torch.arange(len(images)).to(device)
    return as_bytes(ops.augment(stored, index, params, size=size, mean=[0.0] * 3, std=[1.0] * 3))


def assert_as_pil(
    images: Sequence[Image.Image], steps: Sequence[Sequence[tuple[Any, ...]]], device: str = "cpu"
) -> None:
    """Every list of steps on every image."""
    cases = list(itertools.product(images, steps))
    got = apply([image for image, _ in cases], [own for _, own in cases], device)
    for (image, own), result in zip(cases, got, strict=True):
        np.testing.assert_array_equal(result, np.asarray(after_steps(image, own)), str(own))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ops.AUGMENT_STEPS)
def test_each_step_alone(device: str, name: str, shared_data: Path) -> None:
    steps = [[(name, *numbers)] for numbers in ALONE[name]]
    for images in (photos(shared_data, 50), *(drawn_images(size) for size in (1, 2, 3, 4, 17, 33))):
        assert_as_pil(images, steps, device)


def test_the_names_are_those_of_the_kernels() -> None:
    """A refused number is named as its step, so the order of both lists is the same."""
    stored, index = torch.zeros(1, 4, 4, 3, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
    for name in ops.AUGMENT_STEPS:
        params = torch.from_numpy(rows_of([[(name, *[float("nan")] * 6)]], (0, 0, 4, 4)))
        call = {"size": 4, "mean": [0.0] * 3, "std": [1.0] * 3}
        if name in ("none", "grayscale", "autocontrast", "equalize"):
            assert (ops.augment(stored, index, params, **call) == 0).all()  # the numbers are not read
        else:
            with pytest.raises(ValueError, match=rf"^params\[0\]: got {name} nan"):
                ops.augment(stored, index, params, **call)


@pytest.mark.parametrize("stride", [97])
@pytest.mark.parametrize("shift", [0, 1, 77, 128, 255])
def test_hue_of_colours(stride: int, shift: int) -> None:
    """All 2^24, or every so many, in squares: the roundings of some only differ from those of exact arithmetic."""
    colours = np.arange(0, 2**24, stride, dtype=np.uint32)
    size = 64
    colours = np.resize(colours, (-(-len(colours) // size**2), size, size))
    images = np.stack([colours & 255, colours >> 8 & 255, colours >> 16], axis=-1).astype(np.uint8)
    for some in np.array_split(images, max(1, len(images) // 64)):
        assert_as_pil([Image.fromarray(image) for image in some], [[("hue", shift)]])


def test_every_instruction_set_gives_the_same_steps(instruction_set: str, shared_data: Path) -> None:
    images = [photos(shared_data, 53)[0], *drawn_images(53)[3:8:2]]
    assert_as_pil(images, [[(name, *numbers)] for name, some in ALONE.items() for numbers in some[:3]])
    assert_as_pil(images, [[(name, *some[-1]) for name, some in ALONE.items() if name != "none"]])


def test_number_of_threads_changes_no_bit_of_steps(shared_data: Path) -> None:
    images = [*photos(shared_data, 40), *drawn_images(40)]
    steps = [("sharpness", 1.9), ("equalize",), ("affine", *ALONE["affine"][0]), ("contrast", 1.4), ("hue", 3)]
    rows = [steps[i % 5 :] + steps[: i % 3] for i in range(len(images))]
    assert_threads_change_no_bit(lambda: [torch.from_numpy(apply(images, rows))])


NUMBERS = {
    "none": st.just(()),
    "affine": st.tuples(st.floats(-40, 40), st.integers(-9, 9), st.integers(-9, 9)).map(
        lambda drawn: (np.cos(drawn[0]), 0.3, drawn[1], -0.3, np.cos(drawn[0]), drawn[2])
    ),
    "hue": st.integers(0, 255).map(lambda shift: (shift,)),
    "posterize": st.integers(1, 8).map(lambda bits: (bits,)),
    "solarize": st.floats(0, 256).map(lambda threshold: (threshold,)),
    "grayscale": st.just(()),
    "autocontrast": st.just(()),
    "equalize": st.just(()),
}
FACTOR = (st.floats(0, 3) | st.just(1.0)).map(lambda factor: (factor,))


@st.composite
def any_step(draw: st.DrawFn) -> tuple[Any, ...]:
    name = draw(st.sampled_from(ops.AUGMENT_STEPS))
    return (name, *draw(NUMBERS.get(name, FACTOR)))


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(steps=st.lists(any_step(), max_size=9), size=st.integers(1, 40), seed=st.integers(0, 9))
def test_any_list_of_steps(device: str, steps: list[tuple[Any, ...]], size: int, seed: int) -> None:
    images = [Image.fromarray(image.numpy()) for image in make_store(2, size, size, seed)]
    assert_as_pil(images, [steps], device)


def test_as_many_steps_as_there_may_be() -> None:
    random = np.random.default_rng(0)
    names = [name for name in ops.AUGMENT_STEPS if name != "none"]
    steps = [(name, *ALONE[name][random.integers(len(ALONE[name]))]) for name in random.choice(names, 32)]
    assert_as_pil(drawn_images(29)[-4:], [steps])


def affine_of(name: str, magnitude: float, size: int) -> tuple[float, ...]:
    """The matrix that torchvision passes to PIL for an operation of RandAugment."""
    matrices: list[tuple[float, ...]] = []

    class Recorded(Image.Image):
        def transform(self, size: Any, method: Any, data: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
            matrices.append(tuple(data))
            return self

    image = Image.new("RGB", (size, size))
    image.__class__ = Recorded
    _apply_op(image, name, magnitude, InterpolationMode.NEAREST, None)
    return matrices[0] if matrices else (1, 0, 0, 0, 1, 0)


@pytest.mark.parametrize("size", [32, 47])
@pytest.mark.parametrize("name", list(RandAugment()._augmentation_space(31, (1, 1))))
def test_randaugment_operation(name: str, size: int, shared_data: Path) -> None:
    """Each at every magnitude and sign, as torchvision applies it."""
    magnitudes, is_signed = RandAugment()._augmentation_space(31, (size, size))[name]
    values = magnitudes.tolist() if magnitudes.ndim > 0 else [0.0]
    values += [-value for value in values] if is_signed else []
    step_of = {
        "Identity": lambda value: [],
        "Brightness": lambda value: [("brightness", 1 + value)],
        "Color": lambda value: [("saturation", 1 + value)],
        "Contrast": lambda value: [("contrast", 1 + value)],
        "Sharpness": lambda value: [("sharpness", 1 + value)],
        "Posterize": lambda value: [("posterize", int(value))],
        "Solarize": lambda value: [("solarize", value)],
        "AutoContrast": lambda value: [("autocontrast",)],
        "Equalize": lambda value: [("equalize",)],
    }.get(name, lambda value: [("affine", *affine_of(name, value, size))])
    images = [photos(shared_data, size)[0], drawn_images(size)[-3]]
    for value in values:
        got = apply(images, [step_of(value)] * len(images))
        for image, result in zip(images, got, strict=True):
            expected = _apply_op(image, name, value, InterpolationMode.NEAREST, None)
            np.testing.assert_array_equal(result, np.asarray(expected), f"{name} {value}")


def test_the_reference_in_numpy_has_the_steps_of_pil(shared_data: Path) -> None:
    for image in [photos(shared_data, 31)[0], *drawn_images(31)]:
        for name, some in ALONE.items():
            for numbers in some:
                array = np.asarray(image).astype(np.int64)
                expected = np.asarray(after_steps(image, [(name, *numbers)]))
                padded = np.array([*numbers, 0.0])
                if name == "affine":
                    padded = np.array(numbers)
                np.testing.assert_array_equal(image_reference.step(array, name, padded), expected, f"{name} {numbers}")


@pytest.mark.parametrize("device", DEVICES)
def test_padding_and_crops_beyond_the_image(device: str) -> None:
    """As torchvision's pad and crop, with a fill, at all borders, wholly outside, and larger than the image."""
    fill = (9, 120, 255)
    stored = make_store(2, 20, 30)
    for top, left, tall, wide in [
        (-4, -4, 16, 16), (8, 18, 16, 16), (-4, 20, 16, 16), (12, -9, 16, 16), (-8, -3, 36, 36), (-2, 5, 24, 9),
        (3, -1, 4, 40), (-40, 0, 16, 16), (0, 99, 16, 16), (-16, -16, 16, 16), (20, 30, 5, 7), (0, 0, 20, 30),
    ]:  # fmt: skip
        params = torch.from_numpy(rows_of([[]] * 2, (top, left, tall, wide), flip=True)).to(device)
        got = as_bytes(
            ops.augment(
                stored.to(device),
                torch.tensor([1, 0]).to(device),
                params,
                size=16,
                mean=[0.0] * 3,
                std=[1.0] * 3,
                fill=fill,
            )
        )
        for image, result in zip(stored.flip(0), got, strict=True):
            padded = F.pad(Image.fromarray(image.numpy()), [100], fill=fill)
            cut = F.hflip(F.resized_crop(padded, top + 100, left + 100, tall, wide, [16, 16]))
            np.testing.assert_array_equal(result, np.asarray(cut), str((top, left, tall, wide)))
