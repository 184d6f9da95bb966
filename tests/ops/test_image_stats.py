"""image_sums and image_stats against int64 and float64 numpy, PIL and matplotlib."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import rgb_to_hsv
from PIL import Image
from torch import Tensor

from dogs_accel import ops
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

SUMS = torch.ops.dogs_accel.image_sums
STATS = torch.ops.dogs_accel.image_stats
STATS_OF_SUMS = torch.ops.dogs_accel.stats_of_sums
BLOCK = 256  # pixels that the CPU kernel takes at once
CHUNK = 16384  # pixels that a thread of the CPU kernel takes at once
SEGMENT = 1024  # pixels that a warp of the CUDA kernel takes at once
LAUNCH = 64  # images of one launch of the CUDA kernel

SHAPES = [
    (1, 1),
    (1, 2),
    (1, 63),
    (1, 64),
    (1, 65),
    (2, 1),
    (255, 1),
    (1, BLOCK),
    (1, BLOCK + 1),
    (17, 31),
    (7, SEGMENT + 5),
    (CHUNK // 128, 128),
    (CHUNK // 128, 129),
    (468, 401),
]


def make_images(num_images: int, seed: int = 0) -> list[Tensor]:
    """Images of very different sizes."""
    sizes = np.random.default_rng(seed).integers(1, 200, (num_images, 2))
    images = [make_image(int(height), int(width), seed + i) for i, (height, width) in enumerate(sizes)]
    images[num_images // 2] = make_image(300, 1000, seed)
    return images


def reference_sums(image: Tensor) -> list[int]:
    rgb = image.cpu().numpy().astype(np.int64)
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    grey = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16
    largest = rgb.max(axis=-1)
    quotient = (largest - rgb.min(axis=-1)).astype(np.float32) / np.maximum(largest, 1).astype(np.float32)
    saturation = ((np.float32(1) + quotient).astype(np.float64) - 1) / ops.SATURATION_UNIT
    columns = [np.ones_like(r), grey, grey**2, saturation.astype(np.int64), r, g, b, r**2, g**2, b**2]
    return [int(column.sum()) for column in columns]


def reference_stats(image: Tensor) -> list[float]:
    """By PIL and matplotlib themselves, as the published experiment has them, but in float64."""
    rgb = np.ascontiguousarray(image.cpu().numpy())
    grey = np.asarray(Image.fromarray(rgb).convert("L"), dtype=np.float64) / 255
    saturation = rgb_to_hsv(rgb.astype(np.float64) / 255)[..., 1]
    return [grey.mean(), grey.std(), saturation.mean(), *(rgb.reshape(-1, 3).mean(axis=0, dtype=np.float64) / 255)]


def check_against_references(image: Tensor) -> None:
    sums, stats = ops.image_sums(image), ops.image_stats(image)
    assert (sums.dtype, stats.dtype) == (torch.int64, torch.float64)
    assert sums.device == stats.device == image.device
    assert dict(zip(ops.IMAGE_SUMS, sums.tolist(), strict=True)) == dict(
        zip(ops.IMAGE_SUMS, reference_sums(image), strict=True)
    )
    np.testing.assert_allclose(stats.cpu().numpy(), reference_stats(image), rtol=1e-12, atol=9e-8)
    others = [column != "saturation_mean" for column in ops.IMAGE_STATS]
    np.testing.assert_allclose(
        stats.cpu().numpy()[others], np.array(reference_stats(image))[others], rtol=1e-12, atol=1e-14
    )


def stats_of_sums_in_torchscript(sums: Tensor) -> Tensor:
    return torch.ops.dogs_accel.stats_of_sums(sums)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", IMAGE_LAYOUTS)
def test_matches_references(device: str, shape: tuple[int, int], layout: str) -> None:
    image = IMAGE_LAYOUTS[layout](make_image(*shape).to(device))
    assert image.shape == (*shape, 3)
    check_against_references(image)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", IMAGE_LAYOUTS)
def test_every_instruction_set_matches_the_reference(instruction_set: str, shape: tuple[int, int], layout: str) -> None:
    image = IMAGE_LAYOUTS[layout](make_image(*shape, seed=5))
    assert ops.image_sums(image).tolist() == reference_sums(image)


@pytest.mark.parametrize("num_pixels", range(1, 200))
def test_every_length_around_the_vectors(num_pixels: int) -> None:
    image = torch.full((1, num_pixels + 7, 3), 255, dtype=torch.uint8)
    for offset in range(5):
        part = image[:, offset : offset + num_pixels]
        assert ops.image_sums(part).tolist() == reference_sums(part)


def test_stats_are_the_sums_rounded_once_or_twice() -> None:
    image = make_image(300, 200)
    n, grey, squared, saturation, r, g, b, *_ = ops.image_sums(image).tolist()
    brightness, contrast, saturation_mean, *means = ops.image_stats(image).tolist()
    assert (brightness, means) == (grey / (255 * n), [r / (255 * n), g / (255 * n), b / (255 * n)])
    assert saturation_mean == saturation / (2**23 * n)
    assert contrast == math.sqrt(n * squared - grey**2) / (255 * n)


@pytest.mark.parametrize("device", DEVICES)
def test_stats_of_sums_of_parts_are_those_of_the_whole(device: str) -> None:
    image = make_image(300, 200).to(device)
    parts = ops.image_sums(image.tensor_split(7))
    assert torch.equal(ops.stats_of_sums(parts.sum(0)), ops.image_stats(image))
    assert torch.equal(ops.stats_of_sums(parts), ops.image_stats(image.tensor_split(7)))
    assert torch.equal(ops.stats_of_sums(parts.t().contiguous().t()), ops.stats_of_sums(parts))
    assert ops.stats_of_sums(parts[:0]).shape == (0, 6)
    assert ops.stats_of_sums(torch.zeros_like(parts)).isnan().all()


@pytest.mark.parametrize("device", DEVICES)
def test_standard_deviation_is_exact_in_128_bits(device: str) -> None:
    """Of images in which some pixels have one grey and the others are black: n sum(x^2) exceeds 64 bits."""
    random = np.random.default_rng(0)
    rows, expected = [], []
    for _ in range(300):
        n = int(random.integers(1, 2 ** int(random.integers(1, 40))))
        bright, grey = int(random.integers(0, n + 1)), int(random.integers(0, 256))
        rows.append([n, bright * grey, bright * grey**2, *[0] * 7])
        expected.append(math.sqrt(n * bright * grey**2 - (bright * grey) ** 2) / (255 * n))
    stats = ops.stats_of_sums(torch.tensor(rows, device=device))
    np.testing.assert_allclose(stats[:, ops.IMAGE_STATS.index("contrast_std")].cpu().numpy(), expected, rtol=1e-15)
    assert max(n * squared for n, _, squared, *_ in rows) > 2**64


BEFORE_A_GUARD_PAGE = """
import ctypes, mmap
import numpy as np
import torch
from dogs_accel import ops

pages = mmap.mmap(-1, 4 * mmap.PAGESIZE)
address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + 3 * mmap.PAGESIZE), mmap.PAGESIZE, 0)
random = np.random.default_rng(0)
for case in range(400):
    height, width = (int(side) for side in random.integers(1, 60, 2))
    if case % 4 == 0:
        height, width = 1, int(random.integers(1, 1000))
    size = 3 * height * width
    if size > 3 * mmap.PAGESIZE:
        continue
    values = random.integers(0, 256, size, dtype=np.uint8)
    pages[3 * mmap.PAGESIZE - size : 3 * mmap.PAGESIZE] = values.tobytes()
    image = torch.frombuffer(pages, dtype=torch.uint8, count=size, offset=3 * mmap.PAGESIZE - size)
    for view, copy in (
        (image.view(height, width, 3), values.reshape(height, width, 3)),
        (image.view(3, height, width).permute(1, 2, 0), values.reshape(3, height, width).transpose(1, 2, 0)),
    ):
        expected = ops.image_sums(torch.from_numpy(copy.copy()))
        for name in ("baseline", "avx2", "avx512"):
            ops.limit_instruction_set(name)
            assert torch.equal(ops.image_sums(view), expected)
print("read nothing beyond the image")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs mprotect")
def test_reads_nothing_beyond_the_image() -> None:
    done = subprocess.run([sys.executable, "-c", BEFORE_A_GUARD_PAGE], capture_output=True, text=True, check=False)
    assert done.stdout == "read nothing beyond the image\n", (done.returncode, done.stderr)


@pytest.mark.parametrize(
    ("sums", "message"),
    [
        (torch.zeros(3, 9, dtype=torch.int64), r"sums: got shape \(3, 9\), expected \(N, 10\)"),
        (torch.zeros((), dtype=torch.int64), r"sums: got shape \(\), expected \(N, 10\)"),
        (torch.zeros(3, 10), "sums: got dtype Float, expected int64"),
    ],
)
def test_stats_of_sums_refuses_arguments(sums: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        ops.stats_of_sums(sums)


@pytest.mark.parametrize("device", DEVICES)
def test_stats_of_sums_opcheck_and_compile(device: str) -> None:
    sums = ops.image_sums([image.to(device) for image in make_images(3)])
    torch.library.opcheck(torch.ops.dogs_accel.stats_of_sums, (sums,))
    compiled = torch.compile(lambda x: torch.ops.dogs_accel.stats_of_sums(x + 0), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(sums), ops.stats_of_sums(sums))
    scripted = torch.jit.script(stats_of_sums_in_torchscript)
    assert torch.equal(scripted(sums), ops.stats_of_sums(sums))


@pytest.mark.parametrize("device", DEVICES)
def test_all_greys(device: str) -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    images = list(levels[:, None, None, None].expand(256, 1, 3, 3).contiguous().to(device))
    stats = ops.image_stats(images).cpu()
    assert torch.equal(stats[:, 0], levels.double() / 255)
    assert torch.equal(stats[:, 1:3], torch.zeros(256, 2, dtype=torch.float64))
    assert torch.equal(stats[:, 3:], (levels.double() / 255)[:, None].expand(256, 3))


@pytest.mark.parametrize("device", DEVICES)
def test_every_saturation(device: str) -> None:
    """All pairs of a maximum and a minimum, in all orders of the channels, one pixel an image."""
    largest, least = (x.flatten() for x in np.meshgrid(np.arange(256), np.arange(256), indexing="ij"))
    largest, least = largest[least <= largest], least[least <= largest]
    exact = (largest - least) / np.maximum(largest, 1)
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        colours = np.stack([largest, least, (largest + least) // 2], axis=-1)[:, order].astype(np.uint8)
        images = torch.from_numpy(colours).to(device)[:, None, None]
        got = ops.image_stats(images)[:, 2].cpu().numpy()
        assert np.abs(got - exact).max() < 9e-8
        assert np.abs(got - rgb_to_hsv(colours / 255)[:, 1]).max() < 9e-8
        assert set(got[exact == 1]) == {1.0}
        assert set(got[exact == 0]) == {0.0}


@pytest.mark.parametrize("device", DEVICES)
def test_grey_of_every_colour(device: str, instruction_set: str) -> None:
    """An image for each (R, G), with all B: its sums of grey and of grey^2 are PIL's."""
    levels = torch.arange(256, dtype=torch.uint8)
    for r in range(0, 256, 5):
        images = torch.stack(torch.broadcast_tensors(levels[r], levels[:, None], levels[None, :]), dim=-1)
        grey = np.asarray(Image.fromarray(images.numpy()).convert("L"), dtype=np.int64)
        sums = ops.image_sums(images[:, None].to(device)).cpu().numpy()
        np.testing.assert_array_equal(sums[:, 1], grey.sum(axis=1))
        np.testing.assert_array_equal(sums[:, 2], (grey**2).sum(axis=1))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 0, 0), (0, 255, 255), (0, 0, 0)])
def test_sums_beyond_32_bits(device: str, colour: tuple[int, int, int], instruction_set: str) -> None:
    image = torch.tensor(colour, dtype=torch.uint8, device=device).expand(9000, 9000, 3)
    one = reference_sums(image[:1, :1])
    assert ops.image_sums(image).tolist() == [9000 * 9000 * value for value in one]
    image = image[:9000, :1000].contiguous()
    assert ops.image_sums(image).tolist() == [9000 * 1000 * value for value in one]
    assert ops.image_stats(image)[1].item() == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_more_pixels_than_32_bits_count(device: str) -> None:
    row = make_image(1, 4096).to(device)
    image = row.expand(2**20 + 1, 4096, 3)
    assert ops.image_sums(image).tolist() == [(2**20 + 1) * value for value in reference_sums(row)]


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
    check_against_references(views[expanded])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_images", [1, 2, LAUNCH - 1, LAUNCH, LAUNCH + 1, 300])
def test_ragged_list(device: str, num_images: int) -> None:
    images = make_images(num_images)
    expected = [reference_sums(image) for image in images]
    images = [image.to(device) for image in images]
    assert ops.image_sums(images).tolist() == expected
    assert torch.equal(ops.image_stats(images), torch.stack([ops.image_stats(image) for image in images]))


@pytest.mark.parametrize("device", DEVICES)
def test_batch_is_the_list_of_its_images(device: str) -> None:
    batch = torch.stack([make_image(30, 40, seed) for seed in range(5)]).to(device)
    for function, num_columns in ((ops.image_sums, 10), (ops.image_stats, 6)):
        assert torch.equal(function(batch), function(list(batch)))
        assert torch.equal(function(batch), function(tuple(batch)))
        assert torch.equal(function(batch)[2], function(batch[2]))
        assert function(batch).shape == (5, num_columns)
        assert function(batch[2]).shape == (num_columns,)


def test_column_names() -> None:
    assert len(ops.IMAGE_SUMS) == ops.image_sums([]).shape[1]
    assert len(ops.IMAGE_STATS) == ops.image_stats([]).shape[1]


@pytest.mark.parametrize("device", DEVICES)
def test_no_images(device: str) -> None:
    empty = torch.empty(0, 4, 5, 3, dtype=torch.uint8, device=device)
    for function, num_columns, dtype in ((ops.image_sums, 10, torch.int64), (ops.image_stats, 6, torch.float64)):
        assert (function([]).shape, function([]).dtype) == ((0, num_columns), dtype)
        assert (function(empty).shape, function(empty).dtype) == ((0, num_columns), dtype)
        assert function(empty).device == empty.device


GOOD = torch.zeros(4, 5, 3, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (GOOD.float(), r"images\[0\]: got dtype Float, expected uint8"),
        (GOOD.char(), r"images\[0\]: got dtype Char, expected uint8"),
        (GOOD[0], r"images: got shape \(5, 3\), expected \(H, W, 3\), \(N, H, W, 3\) or a sequence"),
        (GOOD[None, None], r"images: got shape \(1, 1, 4, 5, 3\), expected \(H, W, 3\), \(N, H, W, 3\) or a sequence"),
        (GOOD.permute(2, 0, 1), r"images\[0\]: got shape \(3, 4, 5\), expected \(H, W, 3\) with H, W >= 1"),
        ([GOOD, GOOD, GOOD, GOOD[:0]], r"images\[3\]: got shape \(0, 5, 3\), expected \(H, W, 3\) with H, W >= 1"),
        ([GOOD, GOOD[:, :0]], r"images\[1\]: got shape \(4, 0, 3\), expected \(H, W, 3\) with H, W >= 1"),
        ([GOOD, GOOD[0]], r"images\[1\]: got shape \(5, 3\), expected \(H, W, 3\) with H, W >= 1"),
        ([GOOD, GOOD[..., :2]], r"images\[1\]: got shape \(4, 5, 2\), expected \(H, W, 3\) with H, W >= 1"),
        (
            torch.zeros(0, 4, 5, 7),
            r"images: got shape \(0, 4, 5, 7\) of torch.float32, expected \(N, H, W, 3\) of uint8",
        ),
        (GOOD[None, :0], r"images\[0\]: got shape \(0, 5, 3\), expected \(H, W, 3\) with H, W >= 1"),
        (GOOD[:1, :1].expand(2**20, 2**20, 3), r"images\[0\]: got shape .*, expected fewer than 1099511627776 pixels"),
        (GOOD[:1, :1].expand(2**30, 2**31, 3), r"images\[0\]: got shape .*, expected fewer than 1099511627776 pixels"),
    ],
)
def test_refuses_arguments(images: Tensor | list[Tensor], message: str) -> None:
    for function in (ops.image_sums, ops.image_stats):
        with pytest.raises(ValueError, match=f"^{message}"):
            function(images)


@needs_cuda
def test_refuses_mixed_devices() -> None:
    with pytest.raises(ValueError, match=r"^images\[1\]: got device cpu, expected cuda:0 as images\[0\] has"):
        ops.image_sums([GOOD.cuda(), GOOD])
    with pytest.raises(ValueError, match=r"^images\[1\]: got device cuda:0, expected cpu as images\[0\] has"):
        ops.image_stats([GOOD, GOOD.cuda()])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", IMAGE_LAYOUTS)
def test_shards_add_up_exactly(device: str, layout: str) -> None:
    image = IMAGE_LAYOUTS[layout](make_image(211, 333).to(device))
    whole = ops.image_sums(image)
    for num_shards in (2, 7, 200):
        assert torch.equal(ops.image_sums(image.tensor_split(num_shards)).sum(0), whole)
        assert torch.equal(ops.image_sums(image.tensor_split(num_shards, dim=1)).sum(0), whole)


def test_number_of_threads_changes_no_bit() -> None:
    images = [*make_images(40), make_image(700, 900)]
    assert_threads_change_no_bit(lambda: (SUMS(images), STATS(images), SUMS(images[-1:])))
    assert SUMS(images).tolist() == [reference_sums(image) for image in images]


def test_limit_instruction_set_refuses_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"^name: got 'avx', expected 'baseline', 'avx2' or 'avx512'$"):
        ops.limit_instruction_set("avx")


@needs_cuda
@pytest.mark.parametrize("layout", IMAGE_LAYOUTS)
def test_the_cpu_and_the_cuda_kernel_agree_bit_for_bit(layout: str) -> None:
    images = [IMAGE_LAYOUTS[layout](image) for image in make_images(500, seed=9)]
    on_gpu = [IMAGE_LAYOUTS[layout](image.cuda()) for image in images]
    assert torch.equal(SUMS(images), SUMS(on_gpu).cpu())
    assert torch.equal(STATS(images), STATS(on_gpu).cpu())


def sums_and_stats(images: list[Tensor]) -> tuple[Tensor, ...]:
    """All three operators; stats_of_sums of columns that are not contiguous."""
    sums = SUMS(images)
    return sums, STATS(images), STATS_OF_SUMS(sums.t().contiguous().t())


@needs_cuda
def test_cuda_runs_on_the_current_stream_without_synchronising() -> None:
    images = [image.cuda() for image in make_images(2 * LAUNCH + 3)]
    assert_runs_on_the_current_stream_without_synchronising(lambda: sums_and_stats(images))
    assert_keeps_the_order_of_its_stream(lambda: sums_and_stats(images), lambda: images[3].fill_(17))


@needs_cuda
def test_cuda_graph_replays_it() -> None:
    images = [image.cuda() for image in make_images(LAUNCH + 1)]
    assert_cuda_graph_replays(lambda: sums_and_stats(images), lambda: images[LAUNCH].fill_(17))


@needs_cuda
@needs_two_gpus
def test_runs_on_a_device_that_is_not_current() -> None:
    images = make_images(LAUNCH + 1)
    assert_runs_on_a_device_that_is_not_current(lambda device: sums_and_stats([image.to(device) for image in images]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_images", [1, LAUNCH + 1, 300])
def test_writes_every_element(device: str, num_images: int) -> None:
    images = [image.to(device) for image in make_images(num_images)]
    assert_writes_every_element(lambda: sums_and_stats(images), device)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_shape_stride_and_value(device: str, data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 40), label="height"), data.draw(st.integers(1, 600), label="width")
    row_step, column_step = data.draw(st.integers(1, 3), label="row step"), data.draw(st.integers(1, 3), label="step")
    top, left = data.draw(st.integers(0, 3), label="top"), data.draw(st.integers(0, 3), label="left")
    order = data.draw(st.permutations([0, 1, 2]), label="order of dimensions in memory")
    levels = data.draw(st.lists(st.integers(0, 255), min_size=1, max_size=9), label="levels")
    seed = data.draw(st.integers(0, 2**31), label="seed")
    generator = torch.Generator().manual_seed(seed)
    shape = (top + height * row_step, left + width * column_step, 3)
    choice = torch.randint(0, len(levels), shape, generator=generator)
    whole = torch.tensor(levels, dtype=torch.uint8)[choice].to(device)
    back = [order.index(d) for d in range(3)]
    image = whole.permute(order).contiguous().permute(back)[top::row_step, left::column_step]
    check_against_references(image)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("operator", [SUMS, STATS])
@pytest.mark.parametrize("num_images", [0, 1, 3])
def test_opcheck(device: str, operator: Callable[..., Tensor], num_images: int) -> None:
    torch.library.opcheck(operator, ([make_image(5, 6 + i).to(device) for i in range(num_images)],))


def grey_and_stats(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    images = [255 - first, second]
    return torch.ops.dogs_accel.image_sums(images)[:, 1] * 2, torch.ops.dogs_accel.image_stats(images) + 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_torch_compile(backend: str) -> None:
    assert_compiles(backend, grey_and_stats, [(make_image(size, 30), make_image(25, size)) for size in (20, 33)])


def test_python_function_under_torch_compile() -> None:
    torch.compiler.reset()
    compiled = torch.compile(ops.image_stats, backend="eager")
    images = make_images(3)
    assert torch.equal(compiled(images), ops.image_stats(images))
    assert torch.equal(compiled(images[0]), ops.image_stats(images[0]))
    with pytest.raises(ValueError, match=r"^images: got shape \(3,\)"):
        ops.image_stats(images[0][0, 0])


def test_torchscript(tmp_path: Path) -> None:
    # Two functions, because TorchScript leaves a list empty that it has given to an operator of the stable ABI.
    @torch.jit.script
    def sums(images: list[Tensor]) -> Tensor:
        return torch.ops.dogs_accel.image_sums(images)

    @torch.jit.script
    def stats(images: list[Tensor]) -> Tensor:
        return torch.ops.dogs_accel.image_stats(images)

    images = make_images(4)
    for scripted, expected in ((sums, ops.image_sums(images)), (stats, ops.image_stats(images))):
        scripted.save(str(tmp_path / "scripted.pt"))
        for function in (scripted, torch.jit.load(str(tmp_path / "scripted.pt"))):
            assert torch.equal(function(images), expected)


def test_a_meta_image_among_real_ones_is_refused() -> None:
    for operator in (SUMS, STATS):
        with pytest.raises(RuntimeError, match=r"images\[1\]: got device meta, expected cpu as images\[0\] has"):
            operator([GOOD, GOOD.to("meta")])


def test_meta_tensors_get_the_right_shapes() -> None:
    images = [torch.empty(4, 5, 3, dtype=torch.uint8, device="meta")] * 3
    for operator in (SUMS, STATS):
        real = operator([GOOD] * 3)
        assert (operator(images).shape, operator(images).dtype) == (real.shape, real.dtype)
    with pytest.raises(RuntimeError, match=r"images\[1\]: got shape \(5, 3\), expected \(H, W, 3\)"):
        SUMS([images[0], images[0][0]])
