"""Every operator's CUDA kernel against a copy on the device: how much of the memory's bandwidth it reaches.

A copy reads and writes at the speed of the memory. Of an operator those bytes count that it must read and write at
least (bench/op_traffic.py), so a kernel that passes twice over its input has half of the bandwidth it could have. The
inputs are larger than any cache on the chip, or another part of a larger store is taken in each round. The clock is the
GPU's: launches are queued before it starts. Where there is no GPU, the CPU kernels show in tiny runs that this works.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bench_ops import torch_class_bins
from op_traffic import augment_bytes, num_bytes
from torchvision.transforms.v2 import functional as v2

from dogs_accel import ops
from dogs_accel.calibration import expected_calibration_error
from dogs_accel.runtime.timing import interleaved, interleaved_on_gpu
from pipelines import EVAL, RESNET_TRAIN, VIT_TRAIN
from pipelines.augmentation import draw_params, pack_params

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda", 0) if ON_GPU else torch.device("cpu")
BINS = 15
NUM_CLASSES = 120
PHOTO_SIZE_PX = (468, 401)  # height and width; about the mean of Stanford Dogs
AIM = 0.5
"""Share of the copy's bandwidth that is aimed at."""
_AT_ONCE = 64
"""Photos that the torch versions take at once, since what lies between their steps takes many times their memory."""

COPY, OURS = "copy on the device", "dogs_accel"


@pytest.fixture
def measured(bench):
    """Time candidates beside a copy and save them; a candidate is what it does and the bytes that count."""
    if bench.measure and not ON_GPU:
        pytest.skip("no CUDA device, and a CPU's figures are those of bench_ops.py")

    def measure(name: str, title: str, candidates: Mapping[str, tuple[Callable[[], object], int]]) -> None:
        source = torch.randint(0, 256, (2**29 if bench.measure else 2**10,), dtype=torch.uint8, device=DEVICE)
        target = torch.empty_like(source)
        works = {COPY: lambda: target.copy_(source)} | {each: work for each, (work, _) in candidates.items()}
        sizes = {COPY: num_bytes([source, target])} | {each: size for each, (_, size) in candidates.items()}
        timings = interleaved_on_gpu(works, DEVICE, bench.rounds) if ON_GPU else interleaved(works, bench.rounds)
        rows = []
        for candidate, timing in timings.items():
            # Of each round the bytes a second, as a share of the copy's in the same round.
            shares = [ratio * sizes[candidate] / sizes[COPY] for ratio in timing.ratio_to(timings[COPY])]
            rows.append(
                {"candidate": candidate, "num_bytes": sizes[candidate],
                 "bytes_per_second": sizes[candidate] / timing.median, "share_of_copy": shares[0],
                 "share_low": shares[1], "share_high": shares[2], "seconds": timing.seconds}
            )  # fmt: skip
        ours = next(row for row in rows if row["candidate"] == OURS)
        bench.save(
            f"gpu_{name}",
            f"{title}, {torch.cuda.get_device_name(DEVICE) if ON_GPU else 'CPU'}",
            describe(rows),
            headline=f"{100 * ours['share_of_copy']:.0f} % of the bandwidth of a copy (aim: {100 * AIM:.0f} %)",
            unit="bytes/s",
            aim=AIM,
            rounds=bench.rounds,
            rows=rows,
        )

    return measure


def describe(rows):
    """Lay the rows out as a table."""
    width = max(len(row["candidate"]) for row in rows)
    lines = [f"  {'':<{width}}  microseconds   GB/s  share of the copy's"]
    lines += [
        f"  {row['candidate']:<{width}}  {1e6 * float(np.median(row['seconds'])):>12,.0f}"
        f"  {row['bytes_per_second'] / 1e9:>5,.0f}"
        f"  {100 * row['share_of_copy']:.0f} % ({100 * row['share_low']:.0f} to {100 * row['share_high']:.0f})"
        for row in rows
    ]
    return "\n".join(lines)


@pytest.fixture
def logits_and_labels(bench):
    num = 1_000_000 if bench.measure else 100
    generator = torch.Generator(DEVICE).manual_seed(0)
    labels = torch.randint(0, NUM_CLASSES, (num,), device=DEVICE, generator=generator)
    return torch.randn(num, NUM_CLASSES, device=DEVICE, generator=generator) * 3, labels


def torch_ece(logits, labels):
    """ECE from the softmax, as it is written in torch."""
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    inner_edges = torch.linspace(0, 1, BINS + 1, device=logits.device)[1:-1]
    bin_of = torch.bucketize(confidence, inner_edges)
    gap = torch.bincount(bin_of, (predicted == labels).float() - confidence, minlength=BINS)
    return gap.abs().sum() / len(labels)


def test_calibration_bins(measured, logits_and_labels):
    logits, labels = logits_and_labels
    raw = torch.ops.dogs_accel.calibration_bins
    size = num_bytes([logits, labels, *raw(logits, labels, BINS)])
    assert float(torch_ece(logits, labels)) == pytest.approx(
        expected_calibration_error(logits, labels, bins=BINS), abs=1e-4
    )
    measured(
        "calibration_bins",
        f"Bins of confidence, of {len(logits):,} x {NUM_CLASSES} float32 logits",
        {
            "torch: ECE from the softmax": (lambda: torch_ece(logits, labels), size),
            OURS: (lambda: raw(logits, labels, BINS), size),
            "dogs_accel, ECE as a number of Python's": (
                lambda: expected_calibration_error(logits, labels, bins=BINS), size
            ),
        },
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_calibration_bins_of_short_logits(measured, logits_and_labels, dtype):
    logits, labels = logits_and_labels[0].to(dtype), logits_and_labels[1]
    raw = torch.ops.dogs_accel.calibration_bins
    size = num_bytes([logits, labels, *raw(logits, labels, BINS)])
    name = str(dtype).removeprefix("torch.")
    measured(
        f"calibration_bins_{name}",
        f"Bins of confidence, of {len(logits):,} x {NUM_CLASSES} {name} logits",
        {OURS: (lambda: raw(logits, labels, BINS), size)},
    )


def test_class_calibration_bins(measured, logits_and_labels):
    logits, labels = logits_and_labels
    raw = torch.ops.dogs_accel.class_calibration_bins
    size = num_bytes([logits, labels, *raw(logits, labels, BINS)])
    measured(
        "class_calibration_bins",
        f"Bins of every class and Brier score, of {len(logits):,} x {NUM_CLASSES} float32 logits",
        {
            "torch: softmax, bucketize, bincount": (lambda: torch_class_bins(logits, labels), size),
            OURS: (lambda: raw(logits, labels, BINS), size),
        },
    )


def make_photos(num, height, width):
    """Something with the smooth areas, the edges and the noise of photos: (N, H, W, 3) uint8."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    photos = torch.empty(num, height, width, 3, dtype=torch.uint8, device=DEVICE)
    for some in photos.split(_AT_ONCE):
        coarse = torch.rand(len(some), 3, 12, 10, device=DEVICE, generator=generator)
        smooth = 255 * F.interpolate(coarse, (height, width), mode="bicubic").permute(0, 2, 3, 1)
        noise = 8 * torch.randn(smooth.shape, device=DEVICE, generator=generator)
        some.copy_((smooth + noise).round().clamp(0, 255))
        some[:, height // 2 :, : width // 3] //= 3
    return photos


@pytest.fixture
def photos(bench):
    height, width = PHOTO_SIZE_PX if bench.measure else (12, 10)
    return make_photos(1024 if bench.measure else 3, height, width)


def torch_stats(photos):
    """The statistics of photos of one size (N, H, W, 3), as they are written in torch: (N, 6)."""
    return torch.cat([_torch_stats(some) for some in photos.split(_AT_ONCE)])


def _torch_stats(photos):
    rgb = photos.float()
    grey = (rgb * torch.tensor([0.299, 0.587, 0.114], device=rgb.device)).sum(dim=-1) / 255
    largest, least = rgb.amax(dim=-1), rgb.amin(dim=-1)
    saturation = torch.where(largest > 0, (largest - least) / largest, 0)
    means = rgb.mean(dim=(1, 2)) / 255
    one_each = [grey.mean(dim=(1, 2)), grey.std(dim=(1, 2), correction=0), saturation.mean(dim=(1, 2))]
    return torch.cat([torch.stack(one_each, dim=1), means], dim=1)


def test_image_stats(measured, photos):
    images = list(photos)
    stats = ops.image_stats(images)
    torch.testing.assert_close(torch_stats(photos).double(), stats, rtol=0, atol=4e-3)  # its grey is not rounded
    size = num_bytes([photos, stats])
    measured(
        "image_stats",
        f"Statistics of {len(photos):,} photos of {photos.shape[1]} x {photos.shape[2]}",
        {
            f"torch, {_AT_ONCE} photos at once": (lambda: torch_stats(photos), size),
            OURS: (lambda: torch.ops.dogs_accel.image_stats(images), size),
        },
    )


def test_stats_of_sums(bench, measured):
    num = 4_000_000 if bench.measure else 10
    sums = torch.randint(1, 2**20, (num, len(ops.IMAGE_SUMS)), device=DEVICE)
    size = num_bytes([sums, ops.stats_of_sums(sums)])
    measured(
        "stats_of_sums",
        f"Statistics from {num:,} rows of sums",
        {OURS: (lambda: torch.ops.dogs_accel.stats_of_sums(sums), size)},
    )


def torch_squash(photos, size):
    """Photos of one size (N, H, W, 3) resized with antialiasing, as it is written in torch."""
    return torch.cat(
        [
            F.interpolate(some.permute(0, 3, 1, 2).float(), (size, size), mode="bilinear", antialias=True)
            .round_()
            .byte()
            .permute(0, 2, 3, 1)
            for some in photos.split(_AT_ONCE)
        ]
    )


def test_squash(bench, measured, photos):
    side, images = 256 if bench.measure else 8, list(photos)
    squashed = ops.squash(images, (side, side))
    assert (torch_squash(photos, side).int() - squashed.int()).abs().max() <= 2
    size = num_bytes([photos, squashed])
    measured(
        "squash",
        f"{len(photos):,} photos of {photos.shape[1]} x {photos.shape[2]} squashed to {side} x {side}",
        {
            f"torch interpolate, {_AT_ONCE} photos at once": (lambda: torch_squash(photos, side), size),
            OURS: (lambda: torch.ops.dogs_accel.squash(images, side, side, "bilinear"), size),
        },
    )


def torch_augment(stored, index, params, recipe):
    """A batch by torchvision v2 on the device, with the same parameters."""
    images = [_torch_moved(stored[i].permute(2, 0, 1), params, row, recipe) for row, i in enumerate(index.tolist())]
    batch = v2.normalize(torch.stack(images).float() / 255, list(recipe.mean), list(recipe.std))
    for row, (top, left, height, width) in enumerate(params.erase.tolist()):
        if height:
            batch[row, :, top : top + height, left : left + width] = 0
    return batch.contiguous(memory_format=torch.channels_last)


def _torch_moved(image, params, row, recipe):
    top, left, height, width = params.crop[row].tolist()
    if recipe.random_area is None:
        image = v2.crop(image, top, left, height, width)
    else:
        image = v2.resized_crop(image, top, left, height, width, [recipe.crop, recipe.crop], antialias=True)
    if params.flip[row]:
        image = v2.horizontal_flip(image)
    if recipe.rotation_deg:
        image = v2.rotate(image, float(params.angle_deg[row]))
    if recipe.jitters:
        steps = (v2.adjust_brightness, v2.adjust_contrast, v2.adjust_saturation)
        for which in params.order[row][params.order[row] < len(steps)]:  # the published recipes leave the hue
            image = steps[which](image, float(params.factors[row, which]))
    return image


@pytest.mark.parametrize("recipe", [EVAL, RESNET_TRAIN, VIT_TRAIN], ids=lambda recipe: recipe.name)
def test_augment(bench, measured, recipe):
    num_stored, num, size = (4096, 256, recipe.crop) if bench.measure else (8, 3, 32)
    recipe = recipe.at(size)
    height, width = recipe.resized(0, 0)
    stored = make_photos(num_stored, height, width)
    order = torch.randperm(num_stored, generator=torch.Generator().manual_seed(0))
    chunks = order[: num_stored // num * num].to(DEVICE).split(num)
    params = draw_params(recipe, np.tile([height, width], (num, 1)), 0, 0, np.arange(num))
    packed = torch.from_numpy(pack_params(params, recipe)).to(DEVICE)
    ours, theirs = itertools.cycle(chunks), itertools.cycle(chunks)

    def augmented():
        return ops.augment(stored, next(ours), packed, size=size, mean=recipe.mean, std=recipe.std)

    num_counted = augment_bytes(chunks[0], packed, augmented())
    measured(
        f"augment_{recipe.name}",
        f"Recipe {recipe.name}: a batch of {num} at {size} px, from {num_stored:,} stored images of {height} x {width}",
        {
            "torchvision v2 on the device, image by image": (
                lambda: torch_augment(stored, next(theirs), params, recipe), num_counted
            ),
            OURS: (augmented, num_counted),
        },
    )  # fmt: skip
