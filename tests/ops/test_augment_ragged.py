"""augment_ragged against PIL: resize, then crop and resize, from images of different sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch
import torchvision.transforms.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode

from dogs_accel import ops
from tests.support import image_reference
from tests.support.augment_cases import after_steps, as_bytes, make_store, rows_of
from tests.support.operator_cases import (
    BACKENDS,
    DEVICES,
    IMAGE_LAYOUTS,
    assert_compiles,
    assert_cuda_graph_replays,
    assert_keeps_the_order_of_its_stream,
    assert_runs_on_a_device_that_is_not_current,
    assert_runs_on_the_current_stream_without_synchronising,
    assert_threads_change_no_bit,
    assert_writes_every_element,
    make_image,
    needs_cuda,
    needs_two_gpus,
)

AUGMENT_RAGGED = torch.ops.dogs_accel.augment_ragged
PIL_HAS_VERTICAL_FIRST = int(PIL.__version__.split(".")[0]) >= 13
BYTES = {"mean": [0.0] * 3, "std": [1.0] * 3}
SIZES = [(40, 60), (90, 30), (24, 24), (33, 100), (7, 5), (120, 41)]
RESIZED = [(32, 48), (72, 24), (24, 24), (33, 100), (30, 31), (40, 90)]
CROPS = [(3, 9, 24, 24), (0, 0, 72, 24), (0, 0, 24, 24), (20, 80, 13, 20), (-3, -5, 40, 40), (16, 66, 24, 24)]
STEPS: list[list[tuple[Any, ...]]] = [
    [],
    [("hue", 20), ("contrast", 1.5)],
    [],
    [("sharpness", 0.3), ("equalize",)],
    [("affine", 0.9, 0.1, 2, -0.1, 0.9, 3)],
    [("autocontrast",)],
]


def different_images(smooth: bool = False) -> list[Tensor]:
    return [make_store(1, *size)[0] if smooth else make_image(*size, seed=i) for i, size in enumerate(SIZES)]


def rows() -> NDArray[np.float64]:
    params = rows_of(STEPS, (0, 0, 1, 1))
    params[:, :4] = CROPS
    params[::2, 4] = 1
    params[3, 5:9] = [2, 3, 10, 9]
    return params


def run(images: list[Tensor], device: str | torch.device = "cpu", **changed: Any) -> Tensor:
    """The six images of `different_images`, or what is changed of the call."""
    arguments: dict[str, Any] = {
        "resized": torch.tensor(RESIZED),
        "params": torch.from_numpy(rows()),
        "size": 24,
        "fill": (1, 99, 200),
        **BYTES,
    }
    arguments |= changed
    arguments["params"] = arguments["params"].to(device)
    return ops.augment_ragged([image.to(device) for image in images], **arguments)


def pil_sample(
    image: Tensor,
    resized: tuple[int, int],
    crop: tuple[int, ...],
    size: int,
    mode: InterpolationMode,
    steps: list[tuple[Any, ...]],
    fill: tuple[int, ...] = (0, 0, 0),
) -> NDArray[np.uint8]:
    """(size, size, 3): resized, cropped, resized again, and after all steps; neither mirrored nor erased."""
    picture = F.resize(Image.fromarray(image.numpy()), list(resized), mode)
    top, left, tall, wide = crop
    outside = max(-top, -left, top + tall - resized[0], left + wide - resized[1])
    if outside > 0:
        picture, top, left = F.pad(picture, [outside], fill=fill), top + outside, left + outside
    picture = F.resized_crop(picture, top, left, tall, wide, [size, size], mode)
    return np.asarray(after_steps(picture, steps))


def is_vertical_first(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    return before[0] > after[0] and before[0] - after[0] > 2 * (before[1] - after[1])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_against_the_definition(device: str, interpolation: str) -> None:
    images, params, fill = different_images(), rows(), (1, 99, 200)
    got = run(images, device, interpolation=interpolation)
    assert (got.shape, got.device.type) == ((6, 3, 24, 24), device)
    assert got.is_contiguous(memory_format=torch.channels_last)
    for row, image in enumerate(images):
        expected = image_reference.augment(
            image.numpy(), params[row], 24, [0] * 3, [1] * 3, interpolation, RESIZED[row], fill
        )
        assert torch.equal(got[row].cpu(), torch.from_numpy(expected)), row


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("recipe", ["random crop of the photo", "shorter side, then centre", "squash", "as it is"])
def test_real_photos(device: str, recipe: str, shared_data: Path) -> None:
    paths = sorted((shared_data / "stanford-dogs-mini" / "Images").rglob("*.jpg"))[::180]
    photos = [torch.from_numpy(np.array(Image.open(path).convert("RGB"))) for path in paths]
    random, size = np.random.default_rng(0), 96
    resized, crops = [], []
    for photo in photos:
        height, width, _ = photo.shape
        if recipe == "shorter side, then centre":
            height, width = (110, 110 * width // height) if height < width else (110 * height // width, 110)
        elif recipe == "squash":
            height, width = 120, 120
        tall, wide = (int(random.integers(height // 3, height + 1)), int(random.integers(width // 3, width + 1)))
        if recipe == "shorter side, then centre":
            tall = wide = size
        if recipe == "as it is":
            tall, wide = height, width
        resized.append((height, width))
        crops.append((int(random.integers(height - tall + 1)), int(random.integers(width - wide + 1)), tall, wide))
    for mode in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC):
        params = rows_of([[]] * len(photos), (0, 0, 1, 1))
        params[:, :4] = crops
        changed = {"resized": torch.tensor(resized), "params": torch.from_numpy(params), "size": size}
        got = as_bytes(run(photos, device, interpolation=mode.value, **changed))
        for row, photo in enumerate(photos):
            orders = is_vertical_first(photo.shape, resized[row]), is_vertical_first(crops[row][2:], (size, size))
            if PIL_HAS_VERTICAL_FIRST or not any(orders):
                expected = pil_sample(photo, resized[row], crops[row], size, mode, [])
                np.testing.assert_array_equal(got[row], expected)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_sizes(device: str, data: st.DataObject) -> None:
    """Two resizes and a crop of any sizes, against PIL; the crop in, partly in or outside of the image."""
    height, width, tall, wide, size = (data.draw(st.integers(1, 45)) for _ in range(5))
    resized = (
        (height, width) if data.draw(st.booleans()) else (data.draw(st.integers(1, 45)), data.draw(st.integers(1, 45)))
    )
    top, left = data.draw(st.integers(-20, 45)), data.draw(st.integers(-20, 45))
    if data.draw(st.booleans(), label="inside"):
        tall, wide = min(tall, resized[0]), min(wide, resized[1])
        top, left = max(0, min(top, resized[0] - tall)), max(0, min(left, resized[1] - wide))
    mode = data.draw(st.sampled_from([InterpolationMode.BILINEAR, InterpolationMode.BICUBIC]))
    image = make_store(2, height, width, seed=data.draw(st.integers(0, 9)))[data.draw(st.integers(0, 1))]
    if not PIL_HAS_VERTICAL_FIRST:
        return
    params = torch.from_numpy(rows_of([[]], (top, left, tall, wide)))
    changed = {"resized": torch.tensor([resized]), "params": params, "size": size, "interpolation": mode.value}
    got = as_bytes(run([image], device, **changed))[0]
    expected = pil_sample(image, resized, (top, left, tall, wide), size, mode, [], (1, 99, 200))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_same_as_augment_on_images_of_one_size(device: str) -> None:
    images, params = make_store(6, 70, 90).to(device), torch.from_numpy(rows()).to(device)
    own = torch.tensor([(70, 90)] * 6)
    whole = ops.augment(images, torch.arange(6).to(device), params, size=24, fill=(1, 99, 200), **BYTES)
    assert torch.equal(run(list(images), device, resized=own), whole)
    squashed = ops.squash(list(images), (50, 40))
    whole = ops.augment(squashed, torch.arange(6).to(device), params, size=24, fill=(1, 99, 200), **BYTES)
    assert torch.equal(run(list(images), device, resized=torch.tensor([(50, 40)] * 6)), whole)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", IMAGE_LAYOUTS)
def test_strides(device: str, layout: str) -> None:
    images = different_images()
    views = [IMAGE_LAYOUTS[layout](image.to(device)) for image in images]
    assert torch.equal(run(views, device), run(images, device))
    params, resized = torch.from_numpy(rows()), torch.tensor(RESIZED)
    changed = {"params": params.t().contiguous().t(), "resized": resized.t().contiguous().t()}
    assert torch.equal(run(views, device, **changed), run(images, device))


def test_every_instruction_set(instruction_set: str) -> None:
    test_against_the_definition("cpu", "bicubic")


def test_threads_and_memory_change_no_bit() -> None:
    images = different_images()
    assert_threads_change_no_bit(lambda: [run(images)])
    for num_threads in (1, 2, 100):
        assert torch.equal(run(images, num_threads=num_threads), run(images))
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert torch.equal(run(images, dtype=dtype), run(images).to(dtype))


@pytest.mark.parametrize("device", DEVICES)
def test_writes_every_element(device: str) -> None:
    images = different_images()
    assert_writes_every_element(lambda: [run(images, device)], device)


@pytest.mark.parametrize("device", DEVICES)
def test_no_images(device: str) -> None:
    empty = {"resized": torch.zeros(0, 2, dtype=torch.int64), "params": torch.zeros(0, 9, dtype=torch.float64)}
    got = run([], device, dtype=torch.float16, **empty)
    assert (got.shape, got.dtype, got.device.type) == ((0, 3, 24, 24), torch.float16, device)


def test_more_images_than_a_launch_takes() -> None:
    images = different_images() * 25
    many = {"resized": torch.tensor(RESIZED * 25), "params": torch.from_numpy(np.tile(rows(), (25, 1)))}
    assert torch.equal(run(images, **many), run(different_images()).repeat(25, 1, 1, 1))


@needs_cuda
def test_the_cpu_and_the_cuda_kernel_agree_bit_for_bit() -> None:
    images = different_images() * 25
    many = {"resized": torch.tensor(RESIZED * 25), "params": torch.from_numpy(np.tile(rows(), (25, 1)))}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert torch.equal(run(images, "cuda", dtype=dtype, **many).cpu(), run(images, dtype=dtype, **many))


@needs_cuda
def test_cuda_gives_nan_for_bad_values() -> None:
    params = torch.from_numpy(rows())
    params[1, 0] = float("nan")
    params[3, 9] = 99
    got = run(different_images(), "cuda", params=params)
    assert got.isnan().flatten(1).all(1).tolist() == [False, True, False, True, False, False]
    assert got[[0, 2, 4, 5]].isfinite().all()


@needs_cuda
def test_cuda_runs_on_the_current_stream_without_synchronising() -> None:
    images = [image.cuda() for image in different_images()]
    params = torch.from_numpy(rows()).cuda()

    def augmented() -> list[Tensor]:
        return [run(images, "cuda", params=params)]

    assert_runs_on_the_current_stream_without_synchronising(augmented)
    assert_keeps_the_order_of_its_stream(augmented, lambda: images[0].copy_(images[0].flip(0)))
    assert_cuda_graph_replays(augmented, lambda: images[0].copy_(images[0].flip(0)))


@needs_cuda
@needs_two_gpus
def test_runs_on_a_device_that_is_not_current() -> None:
    assert_runs_on_a_device_that_is_not_current(lambda device: [run(different_images(), device)])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"resized": torch.tensor(RESIZED[:5])}, r"resized: got shape \(5, 2\), expected \(6, 2\)"),
        ({"resized": torch.tensor(RESIZED).int()}, "resized: got dtype Int, expected int64"),
        (
            {"resized": torch.tensor([*RESIZED[:2], (0, 24), *RESIZED[3:]])},
            r"resized\[2\]: got 0 rows, expected the image's 24, or 1 to 16384",
        ),
        (
            {"resized": torch.tensor([(40, 16385), *RESIZED[1:]])},
            r"resized\[0\]: got 16385 columns, expected the image's 60, or 1 to 16384",
        ),
        ({"params": torch.from_numpy(rows()[:, :-1])}, r"params: got shape \(6, 22\), expected \(6, 9 \+ 7 K\)"),
        ({"params": torch.from_numpy(rows()[:5])}, r"params: got shape \(5, 23\), expected \(6, 9 \+ 7 K\)"),
        ({"size": 0}, "size: got 0, expected 1 to 16384"),
        ({"fill": (0, 300, 0)}, "fill: got 300, expected 0 to 255"),
        ({"interpolation": "area"}, "interpolation: got 'area'"),
        ({"dtype": torch.float64}, "dtype: got Double"),
        ({"num_threads": -2}, "num_threads: got -2"),
        ({"mean": [0.0]}, "mean: got 1 numbers, expected 3"),
    ],
)
def test_refuses_arguments(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        run(different_images(), **changed)


def test_refuses_images_and_values() -> None:
    images = different_images()
    for image, message in (
        (images[1].float(), r"images\[1\]: got dtype Float, expected uint8"),
        (images[1][..., :2], r"images\[1\]: got shape \(90, 30, 2\), expected \(H, W, 3\)"),
        (images[1][:0], r"images\[1\]: got shape \(0, 30, 3\)"),
        (images[1][:1].expand(2**24 + 1, 30, 3), r"images\[1\]: got shape \(16777217, 30, 3\), expected sides of at"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            run([images[0], image, *images[2:]])
    params = torch.from_numpy(rows())
    params[4, 3] = 0
    with pytest.raises(ValueError, match=r"^params\[4\]: got crop .* a box within \(30, 31\)"):
        run(images, params=params)


def test_crop_of_a_side_beyond_what_an_output_may_have() -> None:
    """A panorama is read as far as Pillow reads it."""
    image = make_image(2, 20000)
    params = torch.from_numpy(rows_of([[]], (0, 1000, 2, 18000)))
    got = as_bytes(run([image], resized=torch.tensor([(2, 20000)]), params=params, size=8))[0]
    expected = pil_sample(image, (2, 20000), (0, 1000, 2, 18000), 8, InterpolationMode.BILINEAR, [])
    np.testing.assert_array_equal(got, expected)


def arguments_of(num: int, device: str = "cpu") -> tuple[list[Tensor], Tensor, Tensor]:
    images = [image.to(device) for image in different_images()[:num]]
    return (
        images,
        torch.tensor(RESIZED[:num], dtype=torch.int64).reshape(-1, 2),
        torch.from_numpy(rows()[:num]).to(device),
    )


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device: str) -> None:
    for num in (0, 3):
        torch.library.opcheck(
            AUGMENT_RAGGED,
            (*arguments_of(num, device), 24, [0.5] * 3, [0.2] * 3, "bilinear", torch.float16, 0, [1, 2, 3]),
        )


def negative_of_negatives(one: Tensor, two: Tensor, resized: Tensor, params: Tensor) -> tuple[Tensor]:
    arguments = (24, [0.5, 0.4, 0.3], [0.2, 0.2, 0.3], "bilinear", torch.float32)
    return (-torch.ops.dogs_accel.augment_ragged([255 - one, two], resized, params, *arguments),)


@pytest.mark.parametrize("backend", BACKENDS[:2])  # inductor is slow, and has compiled augment
def test_torch_compile(backend: str) -> None:
    images, resized, params = arguments_of(6)
    calls = [(images[i], images[j], resized[[i, j]], params[[i, j]]) for i, j in ((0, 1), (3, 5))]
    assert_compiles(backend, negative_of_negatives, calls)


def test_torchscript(tmp_path: Path) -> None:
    @torch.jit.script
    def augment(images: list[Tensor], resized: Tensor, params: Tensor) -> Tensor:
        return torch.ops.dogs_accel.augment_ragged(
            images, resized, params, 24, [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], "bilinear", torch.float32, 0, [1, 99, 200]
        )

    augment.save(str(tmp_path / "scripted.pt"))
    for function in (augment, torch.jit.load(str(tmp_path / "scripted.pt"))):
        assert torch.equal(function(*arguments_of(6)), run(different_images()))


def test_meta_tensors_get_the_right_shape_and_strides() -> None:
    images, resized, params = arguments_of(6, "meta")
    got = AUGMENT_RAGGED(images, resized, params, 24, [0.5] * 3, [0.2] * 3, "bilinear", torch.float16)
    real = run(different_images(), dtype=torch.float16)
    assert (got.shape, got.dtype, got.stride()) == (real.shape, real.dtype, real.stride())
    with pytest.raises(RuntimeError, match="params: got device cpu, expected meta as images have"):
        AUGMENT_RAGGED(
            images, resized, params.new_empty(6, 9, device="cpu"), 24, [0.5] * 3, [0.2] * 3, "bilinear", torch.float16
        )


def test_sizes_without_values_are_refused_beside_images_that_have_some() -> None:
    """A single meta tensor leads to the operator's shapes, whose result holds whatever memory held."""
    images, resized, params = arguments_of(6, "cpu")
    with pytest.raises(ValueError, match=r"^resized: got device meta, expected cpu"):
        ops.augment_ragged(images, resized.to("meta"), params, size=24, mean=[0.5] * 3, std=[0.2] * 3)
