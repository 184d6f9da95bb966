"""squash against Pillow itself, and against its definition in numpy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from dogs_accel import ops
from tests.support import image_reference
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

SQUASH = torch.ops.dogs_accel.squash
LAUNCH = 64  # images of one launch of the CUDA kernel
INTERPOLATIONS = ["bilinear", "bicubic"]
PIL_HAS_VERTICAL_FIRST = int(PIL.__version__.split(".")[0]) >= 13

# (height, width) of an image and of what it becomes.
SIZES = [
    ((1, 1), (1, 1)),
    ((1, 1), (7, 5)),
    ((1, 9), (4, 4)),
    ((9, 1), (4, 4)),
    ((5, 7), (5, 7)),
    ((5, 7), (5, 3)),
    ((5, 7), (2, 7)),
    ((2, 3), (40, 50)),
    ((31, 33), (1, 1)),
    ((3, 5000), (3, 3)),
    ((5000, 3), (3, 3)),
    ((2, 5000), (8, 3)),
    ((17, 16), (16, 17)),
    ((64, 64), (63, 65)),
    ((100, 130), (33, 31)),
    ((375, 500), (256, 256)),
    ((500, 375), (256, 256)),
    ((256, 256), (224, 224)),
    ((100, 3000), (256, 256)),
]

# Where the vertical pass begins to come first: the height loses more than twice the px of the width, and some.
BOUNDARY_SIZES = [
    ((64, 48), (32, 32)),
    ((65, 48), (32, 32)),
    ((66, 48), (32, 32)),
    ((33, 32), (32, 32)),
    ((32, 30), (32, 32)),
    ((33, 20), (32, 32)),
    ((32, 20), (32, 32)),
    ((31, 10), (32, 32)),
    ((100, 30), (32, 32)),
    ((500, 300), (256, 256)),
]

PATTERNS: dict[str, Callable[[int, int], Tensor]] = {
    "noise": make_image,
    "checkerboard": lambda height, width: (
        (torch.arange(height)[:, None, None] + torch.arange(width)[:, None] + torch.arange(3)) % 2 * 255
    ).byte(),
    "white": lambda height, width: torch.full((height, width, 3), 255, dtype=torch.uint8),
}


def pil_resize(image: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    pil = Image.fromarray(np.ascontiguousarray(image.cpu().numpy()))
    return torch.from_numpy(np.array(pil.resize(size[::-1], Image.Resampling[interpolation.upper()])))


def check_against_references(image: Tensor, size: tuple[int, int], interpolation: str) -> None:
    result = ops.squash([image], size, interpolation)
    assert (result.shape, result.dtype, result.device) == ((1, *size, 3), torch.uint8, image.device)
    got, pixels = result[0].cpu(), image.cpu().numpy()
    assert torch.equal(got.long(), torch.from_numpy(image_reference.resize(pixels, *size, interpolation)))
    expected = pil_resize(image, size, interpolation)
    # A Pillow before 13 always has the horizontal pass first.
    level = 1 if not PIL_HAS_VERTICAL_FIRST and image_reference.is_vertical_first(pixels, *size) else 0
    assert (got.int() - expected.int()).abs().max() <= level


def make_images(num_images: int, seed: int = 0) -> list[Tensor]:
    """Images of very different sizes."""
    sizes = np.random.default_rng(seed).integers(1, 120, (num_images, 2))
    return [make_image(int(height), int(width), seed + i) for i, (height, width) in enumerate(sizes)]


def test_squash_is_pils_resize_from_this_version_on() -> None:
    """The order of the passes is seen in Pillow's own bytes."""
    image = make_image(100, 30)
    first = image_reference.resize(image.numpy(), 32, 32, "bilinear")
    wide = image_reference.resample_columns(image.numpy(), 32, "bilinear")
    last = image_reference.resample_rows(wide, 32, "bilinear")
    assert (first != last).any()
    ours, pils = ops.squash([image], (32, 32))[0].numpy(), pil_resize(image, (32, 32), "bilinear").numpy()
    np.testing.assert_array_equal(ours, first)
    np.testing.assert_array_equal(pils, first if PIL_HAS_VERTICAL_FIRST else last)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_matches_references(device: str, interpolation: str, pattern: str) -> None:
    for in_size, out_size in [*SIZES, *BOUNDARY_SIZES]:
        check_against_references(PATTERNS[pattern](*in_size).to(device), out_size, interpolation)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_every_instruction_set_matches_the_references(instruction_set: str, interpolation: str) -> None:
    for in_size, out_size in [*SIZES, *BOUNDARY_SIZES]:
        check_against_references(make_image(*in_size, seed=3), out_size, interpolation)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_every_height_and_width_around_the_vectors(instruction_set: str, interpolation: str) -> None:
    for side in range(1, 36):
        check_against_references(make_image(side, 7, seed=side), (5, 6), interpolation)
        check_against_references(make_image(7, side, seed=side), (6, 5), interpolation)
        check_against_references(make_image(9, 8, seed=side), (7, side), interpolation)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", IMAGE_LAYOUTS)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_any_strides(device: str, layout: str, interpolation: str) -> None:
    for in_size, out_size in (((1, 1), (3, 2)), ((1, 40), (9, 9)), ((40, 1), (9, 9)), ((37, 53), (21, 19))):
        image = IMAGE_LAYOUTS[layout](make_image(*in_size).to(device))
        assert image.shape == (*in_size, 3)
        check_against_references(image, out_size, interpolation)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("expanded", ["rows", "columns", "both", "channels"])
def test_expanded(device: str, expanded: str) -> None:
    image = make_image(40, 50).to(device)
    views = {
        "rows": image[:1].expand(40, 50, 3),
        "columns": image[:, :1].expand(40, 50, 3),
        "both": image[:1, :1].expand(40, 50, 3),
        "channels": image[..., :1].expand(40, 50, 3),
    }
    for size in ((13, 60), (7, 40)):
        check_against_references(views[expanded], size, "bicubic")


@pytest.mark.parametrize("device", DEVICES)
def test_real_photos(device: str, shared_data: Path) -> None:
    paths = sorted((shared_data / "stanford-dogs-mini" / "Images").rglob("*.jpg"))[::40]
    assert paths
    photos = [torch.from_numpy(np.array(Image.open(path).convert("RGB"))) for path in paths]
    for interpolation in INTERPOLATIONS:
        got = ops.squash([photo.to(device) for photo in photos], (256, 256), interpolation).cpu()
        for photo, ours in zip(photos, got, strict=True):
            expected = image_reference.resize(photo.numpy(), 256, 256, interpolation)
            np.testing.assert_array_equal(ours.numpy(), expected)
            if PIL_HAS_VERTICAL_FIRST:
                assert torch.equal(ours, pil_resize(photo, (256, 256), interpolation))


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_size(device: str, data: st.DataObject) -> None:
    in_size = data.draw(st.tuples(st.integers(1, 90), st.integers(1, 90)), label="in")
    out_size = data.draw(st.tuples(st.integers(1, 90), st.integers(1, 90)), label="out")
    layout = data.draw(st.sampled_from(sorted(IMAGE_LAYOUTS)), label="layout")
    interpolation = data.draw(st.sampled_from(INTERPOLATIONS), label="interpolation")
    levels = torch.tensor(data.draw(st.lists(st.integers(0, 255), min_size=1, max_size=9)), dtype=torch.uint8)
    image = levels[make_image(*in_size, seed=data.draw(st.integers(0, 2**31))).long() % len(levels)]
    check_against_references(IMAGE_LAYOUTS[layout](image.to(device)), out_size, interpolation)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_images", [1, 2, LAUNCH - 1, LAUNCH, LAUNCH + 1, 200])
def test_ragged_list(device: str, num_images: int) -> None:
    images = make_images(num_images)
    got = ops.squash([image.to(device) for image in images], (20, 24)).cpu()
    expected = [image_reference.resize(image.numpy(), 20, 24, "bilinear") for image in images]
    np.testing.assert_array_equal(got.numpy(), np.stack(expected))


def test_no_images() -> None:
    assert ops.squash([], (4, 5)).shape == (0, 4, 5, 3)
    assert ops.squash([], (4, 5)).dtype == torch.uint8


def test_number_of_threads_changes_no_bit() -> None:
    images = make_images(40)
    assert_threads_change_no_bit(lambda: [SQUASH(images, 33, 31, name) for name in INTERPOLATIONS])
    expected = ops.squash(images, (33, 31))
    for num_threads in (1, 2, 7, 100):
        assert torch.equal(ops.squash(images, (33, 31), num_threads=num_threads), expected)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a sparse file")
def test_rows_far_apart(tmp_path: Path) -> None:
    stride = 2**30 + 7
    image = make_image(4, 6)
    with (tmp_path / "sparse").open("wb") as file:
        for y, row in enumerate(image.numpy()):
            file.seek(y * stride)
            file.write(row.tobytes())
        size = file.tell()
    mapped = torch.from_file(str(tmp_path / "sparse"), shared=True, size=size, dtype=torch.uint8)
    check_against_references(mapped.as_strided((4, 6, 3), (stride, 3, 1)), (3, 5), "bilinear")
    planar = mapped.as_strided((4, 2, 3), (3, 1, stride))  # its last byte is beyond 2^31
    check_against_references(planar, (3, 5), "bilinear")


BEFORE_A_GUARD_PAGE = """
import ctypes, mmap
import numpy as np
import torch
from dogs_accel import ops

pages = mmap.mmap(-1, 4 * mmap.PAGESIZE)
address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + 3 * mmap.PAGESIZE), mmap.PAGESIZE, 0)
random = np.random.default_rng(0)
for case in range(300):
    height, width, *size = (int(side) for side in random.integers(1, 60, 4))
    if case % 4 == 0:
        height, width = 1, int(random.integers(1, 1000))
    length = 3 * height * width
    if length > 3 * mmap.PAGESIZE:
        continue
    values = random.integers(0, 256, length, dtype=np.uint8)
    pages[3 * mmap.PAGESIZE - length : 3 * mmap.PAGESIZE] = values.tobytes()
    image = torch.frombuffer(pages, dtype=torch.uint8, count=length, offset=3 * mmap.PAGESIZE - length)
    view, copy = image.view(height, width, 3), torch.from_numpy(values.copy()).view(height, width, 3)
    for interpolation in ("bilinear", "bicubic"):
        ops.limit_instruction_set("avx512")
        expected = ops.squash([copy], tuple(size), interpolation)
        for name in ("baseline", "avx2", "avx512"):
            ops.limit_instruction_set(name)
            assert torch.equal(ops.squash([view], tuple(size), interpolation), expected)
print("read nothing beyond the image")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs mprotect")
def test_reads_nothing_beyond_the_image() -> None:
    done = subprocess.run([sys.executable, "-c", BEFORE_A_GUARD_PAGE], capture_output=True, text=True, check=False)
    assert done.stdout == "read nothing beyond the image\n", (done.returncode, done.stderr)


GOOD = torch.zeros(4, 5, 3, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("images", "size", "interpolation", "message"),
    [
        ([GOOD], (0, 5), "bilinear", "height: got 0, expected 1 to 16384"),
        ([GOOD], (5, -1), "bilinear", "width: got -1, expected 1 to 16384"),
        ([GOOD], (16385, 5), "bilinear", "height: got 16385, expected 1 to 16384"),
        ([], (5, 16385), "bilinear", "width: got 16385, expected 1 to 16384"),
        ([GOOD], (5, 5), "nearest", "interpolation: got 'nearest', expected 'bilinear' or 'bicubic'"),
        ([], (5, 5), "", "interpolation: got '', expected 'bilinear' or 'bicubic'"),
        ([GOOD, GOOD.float()], (5, 5), "bilinear", r"images\[1\]: got dtype Float, expected uint8"),
        ([GOOD, GOOD[0]], (5, 5), "bilinear", r"images\[1\]: got shape \(5, 3\), expected \(H, W, 3\)"),
        ([GOOD[..., :2]], (5, 5), "bilinear", r"images\[0\]: got shape \(4, 5, 2\), expected \(H, W, 3\)"),
        ([GOOD[:0]], (5, 5), "bilinear", r"images\[0\]: got shape \(0, 5, 3\), expected \(H, W, 3\) with H, W >= 1"),
        (
            [GOOD[:1, :1].expand(1, 2**24 + 1, 3)],
            (5, 5),
            "bilinear",
            r"images\[0\]: got shape \(1, 16777217, 3\), expected sides of at most 16777216",
        ),
    ],
)
def test_refuses_arguments(images: list[Tensor], size: tuple[int, int], interpolation: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        ops.squash(images, size, interpolation)


def test_refuses_a_number_of_threads() -> None:
    with pytest.raises(ValueError, match=r"^num_threads: got -1, expected an integer >= 1, or 0"):
        ops.squash([GOOD], (5, 5), num_threads=-1)


@needs_cuda
def test_refuses_mixed_devices() -> None:
    with pytest.raises(ValueError, match=r"^images\[1\]: got device cpu, expected cuda:0 as images\[0\] has"):
        ops.squash([GOOD.cuda(), GOOD], (5, 5))


@needs_cuda
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("layout", IMAGE_LAYOUTS)
def test_the_cpu_and_the_cuda_kernel_agree_bit_for_bit(layout: str, interpolation: str) -> None:
    images = [IMAGE_LAYOUTS[layout](image) for image in make_images(300, seed=9)]
    on_gpu = [IMAGE_LAYOUTS[layout](image.cuda()) for image in images]
    for size in ((32, 32), (1, 1), (3, 100), (100, 3)):
        assert torch.equal(ops.squash(images, size, interpolation), ops.squash(on_gpu, size, interpolation).cpu())


@needs_cuda
def test_cuda_runs_on_the_current_stream_without_synchronising() -> None:
    images = [image.cuda() for image in make_images(2 * LAUNCH + 3)]
    assert_runs_on_the_current_stream_without_synchronising(lambda: [SQUASH(images, 32, 32, "bilinear")])
    assert_keeps_the_order_of_its_stream(lambda: [SQUASH(images, 32, 32, "bilinear")], lambda: images[3].fill_(17))


@needs_cuda
def test_cuda_graph_replays_it() -> None:
    images = [image.cuda() for image in make_images(LAUNCH + 1)]
    assert_cuda_graph_replays(lambda: [SQUASH(images, 32, 32, "bicubic")], lambda: images[LAUNCH].fill_(17))


@needs_cuda
@needs_two_gpus
def test_runs_on_a_device_that_is_not_current() -> None:
    images = make_images(LAUNCH + 1)
    assert_runs_on_a_device_that_is_not_current(
        lambda device: [SQUASH([image.to(device) for image in images], 32, 32, "bilinear")]
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(1, 1), (20, 24), (300, 7)])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_writes_every_element(device: str, size: tuple[int, int], interpolation: str) -> None:
    images = [image.to(device) for image in make_images(LAUNCH + 3)]
    assert_writes_every_element(lambda: [SQUASH(images, *size, interpolation)], device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_images", [0, 1, 3])
def test_opcheck(device: str, num_images: int) -> None:
    torch.library.opcheck(SQUASH, ([make_image(5, 6 + i).to(device) for i in range(num_images)], 4, 7, "bicubic"))


def squashed_negative(first: Tensor, second: Tensor) -> tuple[Tensor]:
    return (255 - torch.ops.dogs_accel.squash([255 - first, second], 9, 8, "bilinear"),)


@pytest.mark.parametrize("backend", BACKENDS)
def test_torch_compile(backend: str) -> None:
    assert_compiles(backend, squashed_negative, [(make_image(size, 30), make_image(25, size)) for size in (20, 33)])


def test_python_function_under_torch_compile() -> None:
    torch.compiler.reset()
    compiled = torch.compile(ops.squash, backend="eager")
    images = make_images(3)
    assert torch.equal(compiled(images, (7, 9)), ops.squash(images, (7, 9)))


def test_torchscript(tmp_path: Path) -> None:
    @torch.jit.script
    def squash(images: list[Tensor]) -> Tensor:
        return torch.ops.dogs_accel.squash(images, 7, 9, "bicubic")

    images = make_images(4)
    squash.save(str(tmp_path / "scripted.pt"))
    for function in (squash, torch.jit.load(str(tmp_path / "scripted.pt"))):
        assert torch.equal(function(images), ops.squash(images, (7, 9), "bicubic"))


def test_meta_tensors_get_the_right_shapes() -> None:
    images = [torch.empty(4, 5, 3, dtype=torch.uint8, device="meta")] * 3
    got = SQUASH(images, 7, 9, "bilinear")
    assert (got.shape, got.dtype, got.device.type) == ((3, 7, 9, 3), torch.uint8, "meta")
    with pytest.raises(RuntimeError, match=r"images\[1\]: got shape \(5, 3\), expected \(H, W, 3\)"):
        SQUASH([images[0], images[0][0]], 7, 9, "bilinear")
    with pytest.raises(RuntimeError, match=r"images\[1\]: got device meta, expected cpu as images\[0\] has"):
        SQUASH([GOOD, GOOD.to("meta")], 7, 9, "bilinear")
