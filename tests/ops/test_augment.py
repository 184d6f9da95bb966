"""augment against torchvision on PIL images, and against its definition in numpy."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dogs_accel import ops
from pipelines import EVAL, RESNET_TRAIN, VIT_TRAIN, Recipe
from pipelines.augmentation import AugmentParams, draw_params
from pipelines.augmentation import pack_params as pack_steps
from pipelines.torchloader import augment_image
from tests.support import image_reference
from tests.support.augment_cases import make_store, rows_of
from tests.support.operator_cases import (
    BACKENDS,
    DEVICES,
    assert_compiles,
    assert_cuda_graph_replays,
    assert_keeps_the_order_of_its_stream,
    assert_runs_on_a_device_that_is_not_current,
    assert_runs_on_the_current_stream_without_synchronising,
    assert_threads_change_no_bit,
    assert_writes_every_element,
    needs_cuda,
    needs_two_gpus,
)

AUGMENT = torch.ops.dogs_accel.augment
COLUMN = {name: i for i, name in enumerate(ops.AUGMENT_PARAMS)}
# Of the four steps that pack_params lays out where the jitter is in its own order.
COLUMN |= {name: len(ops.AUGMENT_PARAMS) + i for i, name in enumerate(("first", "a", "b", "c", "d", "e", "f"))}
COLUMN |= {
    name: len(ops.AUGMENT_PARAMS) + 7 * (1 + i // 2) + i % 2
    for i, name in enumerate(("second", "brightness", "third", "contrast", "fourth", "saturation"))
}
NUM_PARAMS = len(ops.AUGMENT_PARAMS) + 4 * 7
PIL_HAS_VERTICAL_FIRST = int(PIL.__version__.split(".")[0]) >= 13
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
ALL_STEPS = Recipe(
    name="all-steps",
    resize=(70, 90),
    crop=48,
    random_area=(0.1, 1.0),
    flip=0.5,
    rotation_deg=180.0,
    brightness=1.0,
    contrast=1.0,
    saturation=1.0,
    erasing=0.5,
)


def still(num: int, size: int, crop: tuple[int, int, int, int] | None = None) -> AugmentParams:
    """Parameters with which nothing happens, but for the crop."""
    return AugmentParams(
        crop=np.tile(crop or (0, 0, size, size), (num, 1)),
        flip=np.zeros(num, dtype=bool),
        angle_deg=np.zeros(num),
        operations=np.zeros((num, 0), dtype=np.int64),
        signs=np.zeros((num, 0)),
        factors=np.tile([1.0, 1.0, 1.0, 0.0], (num, 1)),
        order=np.tile([0, 1, 2, 3], (num, 1)),
        grayscale=np.zeros(num, dtype=bool),
        erase=np.zeros((num, 4), dtype=np.int64),
    )


def pack_params(params: AugmentParams, size: int) -> NDArray[np.float64]:
    """Lay out a rotation and three factors, whatever they are: (N, NUM_PARAMS)."""
    every = replace(ALL_STEPS, resize=(size, size), crop=size)
    return pack_steps(params, every)


def pil_batch(images: Tensor, index: Sequence[int], params: AugmentParams, recipe: Recipe) -> Tensor:
    stored = [Image.fromarray(np.ascontiguousarray(images[i].cpu().numpy())) for i in index]
    return torch.stack([augment_image(image, recipe, params, row) for row, image in enumerate(stored)])


def numpy_batch(images: Tensor, index: Sequence[int], packed: NDArray[np.float64], recipe: Recipe) -> Tensor:
    return torch.from_numpy(
        np.stack(
            [
                image_reference.augment(
                    images[i].cpu().numpy(), packed[row], recipe.crop, recipe.mean, recipe.std, recipe.interpolation
                )
                for row, i in enumerate(index)
            ]
        )
    )


def run(images: Tensor, index: Any, packed: Any, recipe: Recipe, dtype: torch.dtype = torch.float32) -> Tensor:
    index, packed = (torch.as_tensor(x).to(images.device) for x in (index, packed))
    return ops.augment(
        images,
        index,
        packed,
        size=recipe.crop,
        mean=recipe.mean,
        std=recipe.std,
        interpolation=recipe.interpolation,
        dtype=dtype,
    )


def is_vertical_first(params: AugmentParams, row: int, size: int) -> bool:
    _, _, height, width = params.crop[row]
    return height > size and height - size > 2 * (width - size)


def check_against_references(
    images: Tensor, index: Sequence[int], params: AugmentParams, recipe: Recipe, device: str = "cpu"
) -> Tensor:
    packed = pack_params(params, recipe.crop)
    got = run(images.to(device), list(index), packed, recipe)
    assert (got.shape, got.dtype) == ((len(index), 3, recipe.crop, recipe.crop), torch.float32)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert got.device.type == device
    assert torch.equal(got.cpu(), numpy_batch(images, index, packed, recipe))
    pils = pil_batch(images, index, params, recipe)
    for row in range(len(index)):
        # A Pillow before 13 always has the horizontal pass first.
        if PIL_HAS_VERTICAL_FIRST or not is_vertical_first(params, row, recipe.crop):
            assert torch.equal(got[row].cpu(), pils[row])
    return got


def drawn(recipe: Recipe, images: Tensor, index: Sequence[int], epoch: int = 0) -> AugmentParams:
    sizes = np.tile(images.shape[1:3], (len(index), 1))
    return draw_params(recipe, sizes, 42, epoch, np.array(index))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("recipe", [EVAL, RESNET_TRAIN, VIT_TRAIN], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_published_recipes(device: str, recipe: Recipe, interpolation: str) -> None:
    images, index = make_store(6, 256, 256), [3, 0, 5, 5, 1, 2, 4]
    recipe = replace(recipe, interpolation=interpolation)
    check_against_references(images, index, drawn(recipe, images, index), recipe, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("recipe", [EVAL, RESNET_TRAIN, VIT_TRAIN], ids=lambda recipe: recipe.name)
def test_real_photos(device: str, recipe: Recipe, shared_data: Path) -> None:
    paths = sorted((shared_data / "stanford-dogs-mini" / "Images").rglob("*.jpg"))[::90]
    assert paths
    photos = [torch.from_numpy(np.array(Image.open(path).convert("RGB"))) for path in paths]
    images, index = ops.squash(photos, (256, 256)), range(len(photos))
    check_against_references(images, index, drawn(recipe, images, index), recipe, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_all_steps_drawn_many_times(device: str, interpolation: str) -> None:
    images, index = make_store(7, 70, 90), list(range(7)) * 20
    recipe = replace(ALL_STEPS, interpolation=interpolation)
    sizes = np.tile(images.shape[1:3], (len(index), 1))
    params = draw_params(recipe, sizes, 42, 1, np.arange(len(index)))
    verticals = sum(is_vertical_first(params, row, recipe.crop) for row in range(len(index)))
    assert 0 < verticals < len(index)
    check_against_references(images, index, params, recipe, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 33, 64, 97])
@pytest.mark.parametrize("stored", [(64, 64), (40, 131), (131, 40), (1, 1), (1, 70), (70, 1)])
def test_sizes(device: str, size: int, stored: tuple[int, int]) -> None:
    recipe = replace(ALL_STEPS, resize=None, crop=size, erasing_area=(0.02, 0.5))
    images, index = make_store(3, *stored), [2, 1, 0, 1]
    params = drawn(recipe, images, index)
    params = replace(params, crop=np.clip(params.crop, (0, 0, 1, 1), np.iinfo(np.int64).max))
    check_against_references(images, index, params, recipe, device)


def test_every_instruction_set(instruction_set: str) -> None:
    images, index = make_store(7, 70, 90), list(range(7)) * 3
    params = drawn(ALL_STEPS, images, list(range(7)) * 3)
    for interpolation in ("bilinear", "bicubic"):
        check_against_references(images, index, params, replace(ALL_STEPS, interpolation=interpolation))
    images = make_store(2, 256, 256)
    for recipe in (EVAL, RESNET_TRAIN):
        check_against_references(images, [1, 0], drawn(recipe, images, [1, 0]), recipe)


@pytest.mark.parametrize("device", DEVICES)
def test_crop_alone(device: str) -> None:
    """Cut out as it is, resized along one axis, along both, and of one pixel; at every border."""
    images, size = make_store(2, 40, 50), 24
    recipe = Recipe(name="crop", resize=None, crop=size, random_area=(0.1, 1.0))
    for height, width in ((size, size), (size, 30), (30, size), (40, 50), (1, 1), (1, 50), (40, 1), (7, 9)):
        for top, left in itertools.product({0, 40 - height}, {0, 50 - width}):
            check_against_references(images, [0, 1], still(2, size, (top, left, height, width)), recipe, device)


@pytest.mark.parametrize("device", DEVICES)
def test_flip_alone(device: str) -> None:
    images, recipe = make_store(2, 40, 50), Recipe(name="flip", resize=None, crop=24, random_area=(0.1, 1.0), flip=0.5)
    for crop in ((3, 5, 24, 24), (0, 0, 40, 50)):
        params = replace(still(2, 24, crop), flip=np.array([True, False]))
        got = check_against_references(images, [1, 1], params, recipe, device)
        assert torch.equal(got[0], got[1].flip(-1))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [24, 25])
def test_rotation_alone(device: str, size: int) -> None:
    """180 degrees and right angles are other code in PIL: it transposes."""
    angles = [0.0, -0.0, 15.0, -15.0, 45.0, 90.0, -90.0, 180.0, -180.0, 270.0, 359.9, 360.0, 1e-9, -1e-20, 0.3, 1234.5]
    images, recipe = make_store(2, 40, 50), Recipe(name="turn", resize=None, crop=size, rotation_deg=180.0)
    for flip in (False, True):
        params = replace(
            still(len(angles), size, (3, 4, size, size)),
            angle_deg=np.array(angles),
            flip=np.full(len(angles), flip),
        )
        check_against_references(images, [1] * len(angles), params, recipe, device)


@pytest.mark.parametrize("device", DEVICES)
def test_shift_alone(device: str) -> None:
    shifts = list(
        itertools.product((0.0, 1.0, -1.0, 0.49, 0.5, -0.5, -0.51, 5.25, 23.5, 24.0, -24.0, 3000.0), repeat=2)
    )
    packed = pack_params(still(len(shifts), 24, (3, 4, 24, 24)), 24)
    packed[:, [COLUMN["c"], COLUMN["f"]]] = shifts
    images, index, recipe = make_store(2, 40, 50), [1] * len(shifts), Recipe(name="shift", resize=None, crop=24)
    got = run(images.to(device), index, packed, recipe)
    assert torch.equal(got.cpu(), numpy_batch(images, index, packed, recipe))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("which", range(3))
def test_one_jitter_alone(device: str, which: int) -> None:
    factors = [0.0, 0.5, 1.0, 2.0, 1.9999, 0.85, 1.15, 1 + 1e-9, 1 - 1e-7, 1e-9, 255.0, 1e6]
    recipe = Recipe(name="jitter", resize=None, crop=24, brightness=1.0, contrast=1.0, saturation=1.0)
    params = still(len(factors), 24, (3, 4, 24, 24))
    params.factors[:, which] = factors
    check_against_references(make_store(2, 40, 50), [1] * len(factors), params, recipe, device)
    check_against_references(make_store(2, 40, 50), [0] * len(factors), params, recipe, device)


@pytest.mark.parametrize("device", DEVICES)
def test_jitters_in_every_order(device: str) -> None:
    """Each of them on or off, so that contrast comes alone, first, last and between."""
    recipe = Recipe(name="jitter", resize=None, crop=24, brightness=1.0, contrast=1.0, saturation=1.0)
    cases = list(
        itertools.product(itertools.permutations(range(3)), itertools.product((1.0, 1.7), (1.0, 0.4), (1.0, 1.9)))
    )
    params = replace(
        still(len(cases), 24, (3, 4, 24, 24)),
        order=np.array([[*order, 3] for order, _ in cases]),
        factors=np.array([[*factors, 0.0] for _, factors in cases]),
    )
    check_against_references(make_store(2, 40, 50), [i % 2 for i in range(len(cases))], params, recipe, device)


@pytest.mark.parametrize("device", DEVICES)
def test_mean_of_grey_is_rounded_as_torchvision_has_it(device: str) -> None:
    """Half black and half of one grey: the mean of odd greys lies between two levels."""
    recipe = Recipe(name="contrast", resize=None, crop=4, contrast=1.0)
    levels = torch.arange(256, dtype=torch.uint8)
    images = levels[:, None, None, None].repeat(1, 4, 4, 3)
    images[:, :, ::2] = 0
    params = still(256, 4)
    params.factors[:, 1] = 0.0
    got = check_against_references(images, range(256), params, recipe, device)
    bytes_ = got.cpu()[:, 0, 0, 0] * recipe.std[0] + recipe.mean[0]
    assert torch.equal((bytes_ * 255).round().long(), (levels.long() + 1) // 2)


@pytest.mark.parametrize("device", DEVICES)
def test_erase_alone(device: str) -> None:
    size = 24
    boxes = [(0, 0, 0, 0), (0, 0, 1, 1), (23, 23, 1, 1), (0, 0, 24, 24), (0, 5, 24, 1), (7, 0, 3, 24), (20, 19, 4, 5)]
    boxes += [(3, 4, 0, 7), (3, 4, 7, 0), (24, 24, 0, 0)]
    params = replace(still(len(boxes), size, (3, 4, size, size)), erase=np.array(boxes))
    recipe = Recipe(name="erase", resize=None, crop=size, erasing=1.0)
    got = check_against_references(make_store(2, 40, 50), [1] * len(boxes), params, recipe, device)
    for image, (top, left, height, width) in zip(got, boxes, strict=True):
        assert (image[:, top : top + height, left : left + width] == 0).all()


@pytest.mark.parametrize("device", DEVICES)
def test_every_byte_of_every_channel_is_normalised_as_torchvision_has_it(device: str) -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).repeat(1, 1, 1, 3)
    # The inverse of 2.9e-39 is no float32, and that of 3e38 has lost most of its bits.
    for mean, std in (
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ((0.5, 0.1, 0.9), (0.5, 1e-3, 0.3)),
        ((0.9, 0.5, 0.9), (2.9e-39, 3e38, 0.3)),
    ):
        recipe = Recipe(name="levels", resize=None, crop=16, mean=mean, std=std)
        check_against_references(levels, [0], still(1, 16), recipe, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("recipe", [EVAL, ALL_STEPS], ids=lambda recipe: recipe.name)
def test_dtypes_are_float32_rounded(device: str, dtype: torch.dtype, recipe: Recipe) -> None:
    size = recipe.resized(1, 1)
    images, index = make_store(4, *size), [3, 2, 1, 0]
    params = drawn(recipe, images, index)
    got = run(images.to(device), index, pack_params(params, recipe.crop), recipe, dtype)
    assert got.dtype == dtype
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(got.cpu(), numpy_batch(images, index, pack_params(params, recipe.crop), recipe).to(dtype))


@pytest.mark.parametrize("device", DEVICES)
def test_strides(device: str) -> None:
    """Images and their rows may be any distance apart; index and params may have any strides."""
    images, index = make_store(5, 70, 90).to(device), torch.tensor([4, 0, 0, 2, 3, 1]).to(device)
    packed = torch.from_numpy(pack_params(drawn(ALL_STEPS, images, index.tolist()), ALL_STEPS.crop)).to(device)
    expected = run(images, index, packed, ALL_STEPS)
    padded = torch.nn.functional.pad(images, (0, 0, 3, 4, 1, 2), value=99)
    for view in (
        images.repeat_interleave(2, dim=0)[::2],
        images.repeat_interleave(3, dim=1)[:, ::3],
        padded[:, 1:-2, 3:-4],
        images.transpose(0, 1).contiguous().transpose(0, 1),
    ):
        assert torch.equal(view, images)
        assert torch.equal(run(view, index, packed, ALL_STEPS), expected)
    assert torch.equal(run(images, index.repeat_interleave(2)[::2], packed, ALL_STEPS), expected)
    assert torch.equal(run(images, index, packed.t().contiguous().t(), ALL_STEPS), expected)
    assert torch.equal(run(images, index, packed.repeat(1, 2)[:, :NUM_PARAMS], ALL_STEPS), expected)
    same = run(images[:1].expand(5, 70, 90, 3), index, packed[:1].expand(6, NUM_PARAMS), ALL_STEPS)
    assert torch.equal(same, run(images, torch.zeros_like(index), packed[:1].repeat(6, 1), ALL_STEPS))
    rows = run(images[:, :1].expand(5, 70, 90, 3), index, packed, ALL_STEPS)
    assert torch.equal(rows, run(images[:, :1].repeat(1, 70, 1, 1), index, packed, ALL_STEPS))


@pytest.mark.parametrize("device", DEVICES)
def test_a_sample_is_the_same_in_any_batch(device: str) -> None:
    images, index = make_store(5, 70, 90).to(device), [4, 1, 1, 0, 2, 3]
    packed = pack_params(drawn(ALL_STEPS, images, index), ALL_STEPS.crop)
    whole = run(images, index, packed, ALL_STEPS)
    order = np.array([5, 0, 3])
    assert torch.equal(run(images, np.array(index)[order], packed[order], ALL_STEPS), whole[order])
    for row in range(len(index)):
        assert torch.equal(run(images, index[row : row + 1], packed[row : row + 1], ALL_STEPS)[0], whole[row])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_images", [0, 3])
def test_empty_batch(device: str, num_images: int) -> None:
    images = torch.zeros(num_images, 70, 90, 3, dtype=torch.uint8, device=device)
    got = run(images, torch.zeros(0, dtype=torch.int64), np.zeros((0, NUM_PARAMS)), ALL_STEPS, torch.bfloat16)
    assert (got.shape, got.dtype, got.device) == ((0, 3, 48, 48), torch.bfloat16, images.device)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_number_of_threads_changes_no_bit() -> None:
    images, index = make_store(5, 70, 90), [i % 5 for i in range(40)]
    packed = pack_params(drawn(ALL_STEPS, images, list(range(40))), ALL_STEPS.crop)
    assert_threads_change_no_bit(lambda: [run(images, index, packed, ALL_STEPS)])
    many = {"images": make_store(4, 30, 40), "index": torch.arange(40) % 4, "params": GOOD_PARAMS[:1].repeat(40, 1)}
    for num_threads in (1, 2, 7, 100):
        assert torch.equal(call(**many, num_threads=num_threads), call(**many))
        assert len(call(index=GOOD_INDEX[:0], params=GOOD_PARAMS[:0], num_threads=num_threads)) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs a sparse file")
def test_images_beyond_2_31_bytes(tmp_path: Path) -> None:
    size = 256 * 256 * 3
    num_images = 2**31 // size + 3
    images = make_store(2, 256, 256)
    with (tmp_path / "sparse").open("wb") as file:
        for i, image in ((0, images[0]), (num_images - 1, images[1])):
            file.seek(i * size)
            file.write(image.numpy().tobytes())
    mapped = torch.from_file(str(tmp_path / "sparse"), shared=True, size=num_images * size, dtype=torch.uint8)
    store = mapped.view(num_images, 256, 256, 3)
    packed = pack_params(drawn(RESNET_TRAIN, images, [0, 1]), 224)
    got = run(store, [0, num_images - 1], packed, RESNET_TRAIN)
    assert torch.equal(got, run(images, [0, 1], packed, RESNET_TRAIN))
    far_rows = mapped.as_strided((1, 5, 256, 3), (0, 2**29 + 1, 3, 1))
    packed = pack_params(still(1, 4, (0, 0, 5, 256)), 4)
    recipe = replace(ALL_STEPS, crop=4)
    assert torch.equal(run(far_rows, [0], packed, recipe), run(far_rows.contiguous(), [0], packed, recipe))


@needs_cuda
def test_cuda_images_beyond_2_31_bytes() -> None:
    images = make_store(2, 256, 256)
    num_images = 2**31 // images[0].numel() + 3
    store = torch.zeros(num_images, 256, 256, 3, dtype=torch.uint8, device="cuda")
    store[0], store[-1] = images
    packed = pack_params(drawn(RESNET_TRAIN, images, [0, 1]), 224)
    got = run(store, [0, num_images - 1], packed, RESNET_TRAIN)
    assert torch.equal(got.cpu(), run(images, [0, 1], packed, RESNET_TRAIN))


def test_large_output() -> None:
    """A sample of more than 2^31 / 12 pixels would take minutes: 4096 x 4096, whose sum of grey is beyond 32 bits."""
    images = torch.full((1, 8, 8, 3), 255, dtype=torch.uint8)
    params = still(1, 4096, (0, 0, 8, 8))
    params.factors[:, 1] = 0.5
    recipe = replace(ALL_STEPS, crop=4096, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert (run(images, [0], pack_params(params, 4096), recipe, torch.bfloat16) == 1).all()


BEFORE_A_GUARD_PAGE = """
import ctypes, mmap
import numpy as np
import torch
from dogs_accel import ops

pages = mmap.mmap(-1, 4 * mmap.PAGESIZE)
address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + 3 * mmap.PAGESIZE), mmap.PAGESIZE, 0)
random = np.random.default_rng(0)
for case in range(150):
    number, height, width = (int(side) for side in random.integers(1, (4, 40, 40)))
    shape = (1, 1, height * width, 3) if case % 4 == 0 else (number, height, width, 3)
    length = int(np.prod(shape))
    if length > 3 * mmap.PAGESIZE:
        continue
    values = random.integers(0, 256, length, dtype=np.uint8)
    pages[3 * mmap.PAGESIZE - length : 3 * mmap.PAGESIZE] = values.tobytes()
    view = torch.frombuffer(pages, dtype=torch.uint8, count=length, offset=3 * mmap.PAGESIZE - length).view(shape)
    copy = torch.from_numpy(values.copy()).view(shape)
    size = int(random.integers(1, 40))
    if case % 3 == 0:
        size = min(shape[1:3])
    params = torch.zeros(6, 9 + 4 * 7, dtype=torch.float64)
    for row in params:  # the whole image, or what is at its end
        whole = random.integers(2) and case % 3 > 0
        tall, wide = shape[1:3] if whole else (min(side, size) for side in shape[1:3])
        angle = random.choice([0, 0.1])
        row[:4] = torch.tensor([shape[1] - tall, shape[2] - wide, tall, wide])
        row[4] = int(random.integers(2)) if case % 3 else 0
        steps = [[1, 1, angle, 0, -angle, 1, 0]] + [[kind, random.choice([1, 0.5]), *[0] * 5] for kind in (2, 3, 7)]
        row[9:] = torch.from_numpy(random.permutation(steps).ravel())
    index = torch.full((6,), shape[0] - 1)
    for name in ("baseline", "avx2", "avx512"):
        ops.limit_instruction_set(name)
        arguments = dict(size=size, mean=[0.5] * 3, std=[0.2] * 3, interpolation=("bilinear", "bicubic")[case % 2])
        assert torch.equal(ops.augment(view, index, params, **arguments), ops.augment(copy, index, params, **arguments))
        resized = torch.tensor([shape[1:3], (30, 33), (9, 50)] * 2)  # more than the crop needs, or less than it has
        assert torch.equal(
            ops.augment_ragged([view[-1]] * 6, resized, params, **arguments),
            ops.augment_ragged([copy[-1]] * 6, resized, params, **arguments),
        )
print("read nothing beyond the images")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs mprotect")
def test_reads_nothing_beyond_the_images() -> None:
    done = subprocess.run([sys.executable, "-c", BEFORE_A_GUARD_PAGE], capture_output=True, text=True, check=False)
    assert done.stdout == "read nothing beyond the images\n", (done.returncode, done.stderr)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_parameters(device: str, data: st.DataObject) -> None:
    """Against the definition, with affine transforms that no rotation has."""
    height, width, size = (data.draw(st.integers(1, 40), label=name) for name in ("height", "width", "size"))
    tall, wide = data.draw(st.integers(1, height), label="tall"), data.draw(st.integers(1, width), label="wide")
    top, left = data.draw(st.integers(0, height - tall)), data.draw(st.integers(0, width - wide))
    number = st.floats(-3, 3) | st.sampled_from([0.0, 1.0, -1.0, 0.5])
    offset = st.floats(-1.5 * size, 1.5 * size) | st.sampled_from([0.0, -1.0, float(size), 0.5, -32000.0, 32000.0])
    matrix = [data.draw(offset if i % 3 == 2 else number, label=f"matrix[{i}]") for i in range(6)]
    factors = [data.draw(st.floats(0, 2, width=32) | st.just(1.0), label=f"factors[{i}]") for i in range(3)]
    order = data.draw(st.permutations(("brightness", "contrast", "saturation")), label="order")
    erase = [data.draw(st.integers(0, size), label="erased height"), data.draw(st.integers(0, size))]
    place = [data.draw(st.integers(0, size - side)) for side in erase]
    flip = data.draw(st.booleans(), label="flip")
    recipe = replace(
        ALL_STEPS, resize=None, crop=size, interpolation=data.draw(st.sampled_from(["bilinear", "bicubic"]))
    )
    steps = [("affine", *matrix), *zip(order, factors, strict=True)]
    packed = rows_of([steps], crop=(top, left, tall, wide), flip=flip, erase=(*place, *erase))
    images = make_store(2, height, width, seed=data.draw(st.integers(0, 99), label="seed"))
    got = run(images.to(device), [1], packed, recipe)
    assert torch.equal(got.cpu(), numpy_batch(images, [1], packed, recipe))


GOOD_IMAGES = torch.zeros(4, 30, 40, 3, dtype=torch.uint8)
GOOD_INDEX = torch.tensor([3, 0])
GOOD_PARAMS = torch.from_numpy(pack_params(still(2, 24), 24))


def call(**changed: Any) -> Tensor:
    arguments: dict[str, Any] = {
        "images": GOOD_IMAGES,
        "index": GOOD_INDEX,
        "params": GOOD_PARAMS,
        "size": 24,
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
    }
    return ops.augment(**(arguments | changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": GOOD_IMAGES.float()}, "images: got dtype Float, expected uint8"),
        ({"images": GOOD_IMAGES[0]}, r"images: got shape \(30, 40, 3\), expected \(N, H, W, 3\)"),
        ({"images": GOOD_IMAGES[..., :2]}, r"images: got shape \(4, 30, 40, 2\), expected \(N, H, W, 3\)"),
        ({"images": GOOD_IMAGES[:, :0]}, r"images: got shape \(4, 0, 40, 3\), expected .* with H, W of 1 to 16384"),
        (
            {"images": GOOD_IMAGES[:, :1].expand(4, 16385, 40, 3)},
            r"images: got shape \(4, 16385, 40, 3\), expected .* with H, W of 1 to 16384",
        ),
        ({"images": GOOD_IMAGES[:, :, ::2]}, "images: got strides of 6 and 1 bytes a pixel and a channel, expected 3"),
        (
            {"images": GOOD_IMAGES.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)},
            "images: got strides of 1 and 1200 bytes a pixel and a channel, expected 3 and 1",
        ),
        ({"index": GOOD_INDEX[None]}, r"index: got shape \(1, 2\), expected \(B,\)"),
        ({"index": GOOD_INDEX.int()}, "index: got dtype Int, expected int64"),
        ({"index": torch.tensor([0, 4])}, r"index\[1\]: got 4, expected 0 to 3"),
        ({"index": torch.tensor([-1, 0])}, r"index\[0\]: got -1, expected 0 to 3"),
        ({"images": GOOD_IMAGES[:0]}, r"index\[0\]: got 3, expected 0 to -1"),
        ({"params": GOOD_PARAMS[:1]}, r"params: got shape \(1, 37\), expected \(2, 9 \+ 7 K\) with K of 0 to 32"),
        ({"params": GOOD_PARAMS[:, :-1]}, r"params: got shape \(2, 36\), expected \(2, 9 \+ 7 K\)"),
        ({"params": GOOD_PARAMS[:, :2]}, r"params: got shape \(2, 2\), expected \(2, 9 \+ 7 K\)"),
        ({"params": torch.zeros(2, 9 + 7 * 33).double()}, r"params: got shape \(2, 240\), expected \(2, 9 \+ 7 K\)"),
        ({"params": GOOD_PARAMS[0]}, r"params: got shape \(37,\), expected \(2, 9 \+ 7 K\)"),
        ({"params": GOOD_PARAMS.float()}, "params: got dtype Float, expected float64"),
        ({"size": 0}, "size: got 0, expected 1 to 16384"),
        ({"size": 16385}, "size: got 16385, expected 1 to 16384"),
        ({"mean": [0.5]}, "mean: got 1 numbers, expected 3"),
        ({"std": [0.5] * 4}, "std: got 4 numbers, expected 3"),
        ({"interpolation": "area"}, "interpolation: got 'area', expected 'bilinear' or 'bicubic'"),
        ({"dtype": torch.float64}, "dtype: got Double, expected float32, float16 or bfloat16"),
        ({"fill": [0, 0]}, "fill: got 2 numbers, expected 3"),
        ({"fill": [0, 256, 0]}, "fill: got 256, expected 0 to 255"),
        ({"fill": [0, 0, -1]}, "fill: got -1, expected 0 to 255"),
        ({"num_threads": -1}, "num_threads: got -1, expected an integer >= 1, or 0 for as many as torch uses"),
        ({"dtype": torch.uint8}, "dtype: got Byte, expected float32, float16 or bfloat16"),
    ],
)
def test_refuses_arguments(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call(**changed)


BAD_VALUES = [
    (
        {"crop_top": -1, "crop_height": 0},
        r"crop \(top -1, left 0, height 0, width 24\), expected whole numbers: a box within \(30, 40\), or one of 1 to "
        r"16384 px a side, at most 16777216 px away",
    ),
    ({"crop_height": 0}, r"crop \(top 0, left 0, height 0, width 24\)"),
    ({"crop_width": 16385}, r"crop \(top 0, left 0, height 24, width 16385\)"),
    ({"crop_top": 2**24 + 1}, r"crop \(top 1.67772e\+07, left 0, height 24, width 24\)"),
    ({"crop_left": -(2**24) - 1}, r"crop \(top 0, left -1.67772e\+07, height 24, width 24\)"),
    ({"crop_width": 23.5}, r"crop \(top 0, left 0, height 24, width 23.5\), expected whole numbers"),
    ({"crop_left": float("nan")}, r"crop \(top 0, left nan, height 24, width 24\)"),
    ({"crop_height": float("inf")}, r"crop \(top 0, left 0, height inf, width 24\)"),
    ({"crop_top": 1e300}, r"crop \(top 1e\+300, left 0, height 24, width 24\)"),
    ({"flip": 2}, "flip 2, expected 0 or 1"),
    ({"flip": 0.5}, "flip 0.5, expected 0 or 1"),
    ({"flip": float("nan")}, "flip nan, expected 0 or 1"),
    ({"a": 1400}, "affine 1400 0 0 0 1 0, expected to stay within 32767 px"),
    ({"c": 32767}, "affine 1 0 32767 0 1 0, expected to stay within"),
    ({"f": float("-inf")}, "affine 1 0 0 0 1 -inf, expected to stay within"),
    ({"e": float("nan")}, "affine 1 0 0 0 nan 0, expected to stay within"),
    ({"brightness": -0.1}, "brightness -0.1, expected 0 to 1e\\+06"),
    ({"contrast": 1e7}, "contrast 1e\\+07, expected 0 to 1e\\+06"),
    ({"saturation": float("nan")}, "saturation nan, expected 0 to"),
    ({"third": 7, "contrast": float("inf")}, "sharpness inf, expected 0 to"),
    ({"second": 5, "brightness": 256}, "hue 256, expected a whole number of 0 to 255"),
    ({"second": 5, "brightness": 0.5}, "hue 0.5, expected a whole number of 0 to 255"),
    ({"second": 8, "brightness": 0}, "posterize 0, expected a whole number of 1 to 8"),
    ({"second": 8, "brightness": 9}, "posterize 9, expected a whole number of 1 to 8"),
    ({"second": 8, "brightness": 1.5}, "posterize 1.5, expected a whole number of 1 to 8"),
    ({"fourth": 9, "saturation": 256.5}, "solarize 256.5, expected 0 to 256"),
    ({"fourth": 9, "saturation": float("nan")}, "solarize nan, expected 0 to 256"),
    ({"first": 12}, "step 12, expected 0 to 11"),
    ({"third": -1}, "step -1, expected 0 to 11"),
    ({"second": 0.5}, "step 0.5, expected 0 to 11"),
    ({"fourth": float("nan")}, "step nan, expected 0 to 11"),
    ({"erase_top": -1}, r"erase \(top -1, left 0, height 0, width 0\), expected whole numbers within \(24, 24\)"),
    ({"erase_height": 25}, r"erase \(top 0, left 0, height 25, width 0\)"),
    ({"erase_left": 0.5}, r"erase \(top 0, left 0.5, height 0, width 0\)"),
    ({"erase_width": float("nan")}, r"erase \(top 0, left 0, height 0, width nan\)"),
]


def params_with(values: dict[str, float], row: int = 1) -> Tensor:
    params = GOOD_PARAMS.clone()
    for name, value in values.items():
        params[row, COLUMN[name]] = value
    return params


@pytest.mark.parametrize(("values", "message"), BAD_VALUES)
def test_refuses_values(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^params\[1\]: got {message}"):
        call(params=params_with(values))


def test_accepts_values_at_their_limits() -> None:
    for values in (
        {"crop_top": 6, "crop_left": 16},
        {"crop_top": 29, "crop_left": 39, "crop_height": 1, "crop_width": 1},
        {"crop_height": 30, "crop_width": 40},
        {"crop_top": -(2**24), "crop_left": 2**24},
        {"crop_height": 16384},
        {"c": 32742.9},
        {"f": -32742.9},
        {"brightness": 1e6, "contrast": 1e6, "saturation": 1e6},
        {"first": 0, "a": float("nan"), "f": float("inf")},
        {"second": 5, "brightness": 255, "third": 8, "contrast": 1, "fourth": 9, "saturation": 0},
        {"erase_height": 24, "erase_width": 24},
    ):
        assert call(params=params_with(values)).isfinite().all()


@needs_cuda
@pytest.mark.parametrize("dtype", DTYPES)
def test_cuda_gives_nan_for_bad_values(dtype: torch.dtype) -> None:
    rows = torch.cat([params_with(values)[1:] for values, _ in BAD_VALUES] + [GOOD_PARAMS[:1]] * 4)
    index = torch.zeros(len(rows), dtype=torch.int64)
    index[-3:] = torch.tensor([4, -1, 2**62])
    got = call(images=GOOD_IMAGES.cuda(), index=index.cuda(), params=rows.cuda(), dtype=dtype)
    good = len(BAD_VALUES)
    assert got[good].isfinite().all()
    assert torch.cat([got[:good], got[good + 1 :]]).isnan().all()
    none = call(images=GOOD_IMAGES[:0].cuda(), index=GOOD_INDEX.cuda(), params=GOOD_PARAMS.cuda(), dtype=dtype)
    assert none.isnan().all()


@needs_cuda
def test_refuses_mixed_devices() -> None:
    for name, tensor in (("index", GOOD_INDEX), ("params", GOOD_PARAMS)):
        with pytest.raises(ValueError, match=f"^{name}: got device cuda:0, expected cpu as images have"):
            call(**{name: tensor.cuda()})


@needs_cuda
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_cpu_and_the_cuda_kernel_agree_bit_for_bit(interpolation: str, dtype: torch.dtype) -> None:
    images, index = make_store(9, 256, 256), [i % 9 for i in range(300)]
    for recipe in (EVAL, RESNET_TRAIN, VIT_TRAIN, replace(ALL_STEPS, crop=97)):
        recipe = replace(recipe, interpolation=interpolation)
        packed = pack_params(drawn(recipe, images, list(range(300))), recipe.crop)
        on_cpu = run(images, index, packed, recipe, dtype)
        assert torch.equal(run(images.cuda(), index, packed, recipe, dtype).cpu(), on_cpu)


def all_steps_of_forty(device: torch.device | str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Any]:
    """Images, index and a call of `augment` on them."""
    images, index = make_store(5, 70, 90).to(device), (torch.arange(40) % 5).to(device)
    packed = torch.from_numpy(pack_params(drawn(ALL_STEPS, images, list(range(40))), ALL_STEPS.crop)).to(device)
    return images, index, lambda: [run(images, index, packed, ALL_STEPS, dtype)]


@needs_cuda
def test_cuda_runs_on_the_current_stream_without_synchronising() -> None:
    images, index, augmented = all_steps_of_forty("cuda")
    assert_runs_on_the_current_stream_without_synchronising(augmented)
    assert_keeps_the_order_of_its_stream(augmented, lambda: images.copy_(images.flip(0)))
    assert_keeps_the_order_of_its_stream(augmented, lambda: index.copy_(index.flip(0)))


@needs_cuda
def test_cuda_graph_replays_it() -> None:
    _, index, augmented = all_steps_of_forty("cuda")
    assert_cuda_graph_replays(augmented, lambda: index.copy_(index.flip(0)))


@needs_cuda
@needs_two_gpus
def test_runs_on_a_device_that_is_not_current() -> None:
    assert_runs_on_a_device_that_is_not_current(lambda device: all_steps_of_forty(device)[2]())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_writes_every_element(device: str, dtype: torch.dtype) -> None:
    assert_writes_every_element(all_steps_of_forty(device, dtype)[2], device)
    images, index = make_store(3, 256, 256).to(device), [2, 0, 1]
    for recipe in (EVAL, RESNET_TRAIN, replace(ALL_STEPS, crop=17)):
        packed = pack_params(drawn(recipe, images, index), recipe.crop)
        assert_writes_every_element(lambda r=recipe, p=packed: [run(images, index, p, r, dtype)], device)


def test_rotations_are_pils(monkeypatch: pytest.MonkeyPatch) -> None:
    """The matrices that PIL itself passes on, and at right angles, where it transposes, its pixels."""
    image = Image.new("RGB", (24, 24))
    matrices = []
    monkeypatch.setattr(
        Image.Image, "transform", lambda self, size, method, data, *args, **kwargs: matrices.append(data)
    )
    random = np.random.default_rng(0)
    angles = np.concatenate([random.uniform(-180, 180, 4000), random.uniform(-15, 15, 4000), [1e-9, 89.999999, 359.9]])
    for angle in angles:
        image.rotate(angle)
    packed = pack_params(replace(still(len(angles), 24), angle_deg=angles), 24)
    np.testing.assert_array_equal(packed[:, COLUMN["a"] : COLUMN["f"] + 1], np.array(matrices))


def test_packed_columns_are_named() -> None:
    params = drawn(ALL_STEPS, GOOD_IMAGES, [0, 1, 2])
    packed = pack_params(params, ALL_STEPS.crop)
    order = params.order[params.order < 3].reshape(3, 3)  # without the hue, which this recipe does not shift
    assert (packed.shape, packed.dtype) == ((3, NUM_PARAMS), np.float64)
    for name, expected in (
        ("crop_top", params.crop[:, 0]),
        ("crop_width", params.crop[:, 3]),
        ("flip", params.flip),
        ("first", np.full(3, ops.AUGMENT_STEPS.index("affine"))),
        ("second", np.array([2, 3, 4])[order[:, 0]]),
        ("fourth", np.array([2, 3, 4])[order[:, 2]]),
        ("contrast", params.factors[np.arange(3), order[:, 1]]),
        ("erase_top", params.erase[:, 0]),
        ("erase_width", params.erase[:, 3]),
    ):
        np.testing.assert_array_equal(packed[:, COLUMN[name]], expected)
    assert pack_params(drawn(ALL_STEPS, GOOD_IMAGES, []), 48).shape == (0, NUM_PARAMS)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(device: str, dtype: torch.dtype) -> None:
    tensors = [tensor.to(device) for tensor in (GOOD_IMAGES, GOOD_INDEX, GOOD_PARAMS)]
    torch.library.opcheck(AUGMENT, (*tensors, 24, [0.5] * 3, [0.2] * 3, "bilinear", dtype))
    torch.library.opcheck(
        AUGMENT, (tensors[0], tensors[1][:0], tensors[2][:0], 24, [0.5] * 3, [0.2] * 3, "bicubic", dtype)
    )


def negative_of_negatives(images: Tensor, index: Tensor, params: Tensor) -> tuple[Tensor]:
    arguments = (24, [0.5, 0.4, 0.3], [0.2, 0.2, 0.3], "bilinear", torch.float32)
    return (-torch.ops.dogs_accel.augment(255 - images, index.flip(0), params, *arguments),)


@pytest.mark.parametrize("backend", BACKENDS)
def test_torch_compile(backend: str) -> None:
    images = make_store(4, 30, 40)
    assert_compiles(
        backend,
        negative_of_negatives,
        [(images, torch.arange(num) % 4, GOOD_PARAMS[:1].repeat(num, 1)) for num in (3, 5)],
    )


def test_python_function_under_torch_compile() -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda images: call(images=images), backend="eager")
    assert torch.equal(compiled(make_store(4, 30, 40)), call(images=make_store(4, 30, 40)))


def test_torchscript(tmp_path: Path) -> None:
    @torch.jit.script
    def augment(images: Tensor, index: Tensor, params: Tensor) -> Tensor:
        return torch.ops.dogs_accel.augment(
            images, index, params, 24, [0.5, 0.5, 0.5], [0.2, 0.2, 0.2], "bilinear", torch.float32
        )

    images = make_store(4, 30, 40)
    augment.save(str(tmp_path / "scripted.pt"))
    for function in (augment, torch.jit.load(str(tmp_path / "scripted.pt"))):
        assert torch.equal(function(images, GOOD_INDEX, GOOD_PARAMS), call(images=images))


def test_meta_tensors_get_the_right_shape_and_strides() -> None:
    tensors = [tensor.to("meta") for tensor in (GOOD_IMAGES, GOOD_INDEX, GOOD_PARAMS)]
    got, real = AUGMENT(*tensors, 24, [0.5] * 3, [0.2] * 3, "bilinear", torch.float16), call(dtype=torch.float16)
    assert (got.shape, got.dtype, got.stride()) == (real.shape, real.dtype, real.stride())
    with pytest.raises(RuntimeError, match="index: got device cpu, expected meta as images have"):
        AUGMENT(tensors[0], GOOD_INDEX, tensors[2], 24, [0.5] * 3, [0.2] * 3, "bilinear", torch.float16)
