"""The compiled operators against what people use instead."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from matplotlib.colors import rgb_to_hsv
from PIL import Image
from torchmetrics.functional.classification import multiclass_calibration_error

from dogs_accel.calibration import (
    brier_score,
    class_calibration_bins,
    classwise_calibration_error,
    expected_calibration_error,
)
from dogs_accel.ops import AUGMENT_STEPS, augment, augment_ragged, image_stats, limit_instruction_set, squash
from dogs_accel.runtime.timing import interleaved
from pipelines import EVAL, RESNET_TRAIN, VIT_TRAIN
from pipelines.augmentation import draw_params, pack_params
from pipelines.torchloader import augment_image

BINS = 15


def published_ece(logits, labels):
    """The way of the published experiment: softmax, then a loop over bins, in NumPy."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    ece = 0.0
    for low, high in zip(np.arange(BINS) / BINS, np.arange(1, BINS + 1) / BINS, strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            ece += abs(correct[inside].mean() - confidence[inside].mean()) * inside.mean()
    return ece


def test_expected_calibration_error(bench):
    num = 1_000_000 if bench.measure else 1_000
    logits = torch.randn(num, 120) * 3
    labels = torch.randint(0, 120, (num,))
    probabilities = logits.softmax(dim=1)
    candidates = {
        "torchmetrics": lambda: multiclass_calibration_error(
            probabilities, labels, 120, n_bins=BINS, validate_args=False
        ),
        "NumPy": lambda: published_ece(logits.numpy(), labels.numpy()),
        "dogs_accel": lambda: expected_calibration_error(logits, labels, bins=BINS),
        "ceiling: read the logits once": lambda: logits.sum(),
    }
    values = [float(candidates[name]()) for name in ("torchmetrics", "NumPy", "dogs_accel")]
    assert max(values) - min(values) < 1e-4
    timings = interleaved(candidates, bench.rounds)
    title = f"ECE of {num:,} x 120 float32 logits, {BINS} bins (torchmetrics is given the softmax)"
    bench.report("ece", title, timings, "torchmetrics", num, "rows")


def torch_class_bins(logits, labels):
    """Softmax, then every probability into a bin of its class: classwise error and Brier score."""
    probabilities = logits.softmax(dim=1)
    num_rows, num_classes = probabilities.shape
    inner_edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64, device=logits.device)[1:-1]
    cells = torch.bucketize(probabilities, inner_edges)
    cells += torch.arange(num_classes, device=logits.device) * BINS
    positives = torch.bincount(cells.gather(1, labels[:, None])[:, 0], minlength=num_classes * BINS)
    sums = torch.bincount(cells.flatten(), weights=probabilities.flatten(), minlength=num_classes * BINS)
    del cells
    probabilities[torch.arange(num_rows, device=logits.device), labels] -= 1
    brier = probabilities.square_().sum(dim=1).mean()
    return float((positives - sums).abs().sum() / (num_rows * num_classes)), float(brier)


def numpy_class_bins(logits, labels):
    """The same class by class in NumPy."""
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    num_rows, num_classes = probabilities.shape
    gap = brier = 0.0
    for c in range(num_classes):
        own, positive = np.ascontiguousarray(probabilities[:, c]), labels == c
        bin_of = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], own, side="left")
        gap += np.abs(np.bincount(bin_of, weights=positive - own, minlength=BINS)).sum()
        brier += np.square(positive - own).sum()
    return gap / (num_rows * num_classes), brier / num_rows


def test_class_calibration_bins(bench):
    num = 1_000_000 if bench.measure else 1_000
    logits = torch.randn(num, 120) * 3
    labels = torch.randint(0, 120, (num,))
    candidates = {
        "torch": lambda: torch_class_bins(logits, labels),
        "NumPy": lambda: numpy_class_bins(logits.numpy(), labels.numpy()),
        "dogs_accel": lambda: class_calibration_bins(logits, labels, BINS),
        "ceiling: read the logits once": lambda: logits.sum(),
    }
    ours = (classwise_calibration_error(logits, labels, BINS), brier_score(logits, labels))
    np.testing.assert_allclose(candidates["NumPy"](), ours, rtol=1e-5)
    np.testing.assert_allclose(candidates["torch"](), ours, rtol=1e-3)  # its bincount adds up in float32
    timings = interleaved(candidates, bench.rounds)
    title = f"classwise bins and Brier score of {num:,} x 120 float32 logits, {BINS} bins a class"
    bench.report("class_bins", title, timings, "torch", num, "rows")


PHOTO_SIZE_PX = (468, 401)  # height and width; about the mean of Stanford Dogs


def make_photo(height, width, seed):
    """Something with the smooth areas, the edges and the noise of a photo: (H, W, 3) uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 12, 10, generator=generator)
    photo = 255 * F.interpolate(coarse, (height, width), mode="bicubic")[0].permute(1, 2, 0)
    photo = photo + 8 * torch.randn(height, width, 3, generator=generator)
    photo[height // 2 :, : width // 3] *= 0.4
    return photo.round().clamp(0, 255).byte().contiguous()


def published_stats(image):
    """The way of the published experiment, from the decoded image on."""
    rgb_arr = np.asarray(image, dtype=np.float32) / 255.0
    gray_arr = np.asarray(image.convert("L"), dtype=np.float32) / 255.0
    hsv_arr = rgb_to_hsv(rgb_arr)
    return [gray_arr.mean(), gray_arr.std(), hsv_arr[..., 1].mean(), *(rgb_arr[..., c].mean() for c in range(3))]


def with_threads(num_threads, work):
    """Return `work` done by so many threads."""

    def run():
        before = torch.get_num_threads()
        torch.set_num_threads(num_threads)
        try:
            return work()
        finally:
            torch.set_num_threads(before)

    return run


def with_avx2(work):
    """Return `work` done with AVX2, also where the CPU has AVX-512."""

    def run():
        limit_instruction_set("avx2")
        try:
            return work()
        finally:
            limit_instruction_set("avx512")

    return run


def one_and_all_threads(work):
    """Name `work` as it is measured of every operator on images."""
    return {
        "dogs_accel, 1 thread, AVX2": with_threads(1, with_avx2(work)),
        "dogs_accel, 1 thread": with_threads(1, work),
        f"dogs_accel, all threads ({torch.get_num_threads()})": work,
    }


def compare_image_stats(bench, name, title, photos, work):
    """Report `work` on the photos against the published way and against reading their bytes, in images a second."""
    images = [Image.fromarray(photo.numpy()) for photo in photos]
    words = [photo.flatten()[: photo.numel() // 8 * 8].view(torch.int64) for photo in photos]
    candidates = {
        "PIL + NumPy + matplotlib": lambda: [published_stats(image) for image in images],
        **one_and_all_threads(work),
        "ceiling: add the bytes as int64, 1 thread": with_threads(1, lambda: [word.sum() for word in words]),
    }
    values = [torch.tensor(np.array(candidates["PIL + NumPy + matplotlib"]()), dtype=torch.float64)]
    values += [torch.stack(list(run())) for candidate, run in candidates.items() if "dogs_accel" in candidate]
    for other in values[1:]:
        torch.testing.assert_close(other, values[0], rtol=0, atol=1e-5)
        assert torch.equal(other, values[1])
    timings = interleaved(candidates, bench.rounds)
    bench.report(name, title, timings, "PIL + NumPy + matplotlib", len(photos), "images")


def test_image_stats(bench):
    height, width = PHOTO_SIZE_PX if bench.measure else (12, 10)
    photos = [make_photo(height, width, seed) for seed in range(32 if bench.measure else 2)]
    title = f"Brightness, contrast, saturation and colour of decoded photos of {height} x {width}, one by one"
    compare_image_stats(bench, "image_stats", title, photos, lambda: [image_stats(photo) for photo in photos])


def test_image_stats_of_a_ragged_list(bench):
    longest = 500 if bench.measure else 12
    sizes = np.random.default_rng(0).integers(longest // 3, longest, (64 if bench.measure else 3, 2))
    photos = [make_photo(int(height), int(width), seed) for seed, (height, width) in enumerate(sizes)]
    megapixels = sum(photo.numel() for photo in photos) / 3e6
    title = f"The same of {len(photos)} photos of different sizes, {megapixels:.1f} megapixels, in one call"
    compare_image_stats(bench, "image_stats_ragged", title, photos, lambda: image_stats(photos))


def test_squash(bench):
    (height, width), size = (PHOTO_SIZE_PX, 256) if bench.measure else ((30, 20), 12)
    photos = [make_photo(height, width, seed) for seed in range(32 if bench.measure else 2)]
    images = [Image.fromarray(photo.numpy()) for photo in photos]
    planar = [photo.permute(2, 0, 1).contiguous() for photo in photos]
    candidates = {
        "Pillow, 1 thread": lambda: [image.resize((size, size), Image.Resampling.BILINEAR) for image in images],
        "torch interpolate on uint8, 1 thread": with_threads(
            1,
            lambda: [F.interpolate(p[None], (size, size), mode="bilinear", antialias=True) for p in planar],
        ),
        **one_and_all_threads(lambda: squash(photos, (size, size))),
    }
    expected = torch.stack([torch.from_numpy(np.array(image)) for image in candidates["Pillow, 1 thread"]()])
    for name, work in candidates.items():
        assert "dogs_accel" not in name or torch.equal(work(), expected)
    timings = interleaved(candidates, bench.rounds)
    title = f"{len(photos)} photos of {height} x {width} squashed to {size} x {size}"
    bench.report("squash", title, timings, "Pillow, 1 thread", len(photos), "images")


@pytest.mark.parametrize("recipe", [EVAL, RESNET_TRAIN, VIT_TRAIN], ids=lambda recipe: recipe.name)
def test_augment(bench, recipe):
    num, size = (32, recipe.crop) if bench.measure else (2, 32)
    recipe = recipe.at(size)
    height, width = recipe.resized(0, 0)
    stored = torch.stack([make_photo(height, width, seed) for seed in range(num)])
    images = [Image.fromarray(image.numpy()) for image in stored]
    index = torch.arange(num)
    params = draw_params(recipe, np.tile([height, width], (num, 1)), 0, 0, index.numpy())
    packed = torch.from_numpy(pack_params(params, recipe))
    candidates = {
        "PIL and torchvision, 1 thread": with_threads(
            1, lambda: torch.stack([augment_image(image, recipe, params, row) for row, image in enumerate(images)])
        ),
        **one_and_all_threads(lambda: augment(stored, index, packed, size=size, mean=recipe.mean, std=recipe.std)),
        "ceiling: write the batch, 1 thread": with_threads(1, lambda: torch.zeros(num, 3, size, size)),
    }
    expected = candidates["PIL and torchvision, 1 thread"]()
    for name, work in candidates.items():
        assert "dogs_accel" not in name or torch.equal(work(), expected)
    timings = interleaved(candidates, bench.rounds)
    title = f"Recipe {recipe.name}: a batch of {num} at {size} px from stored bytes of {height} x {width}"
    bench.report(f"augment_{recipe.name}", title, timings, "PIL and torchvision, 1 thread", num, "images")


# Operations of RandAugment at magnitude 9 of 31: what torchvision does, and the same as a step.
_OPERATIONS = [
    (lambda image: TF.adjust_sharpness(image, 1.27), ("sharpness", 1.27)),
    (lambda image: TF.autocontrast(image), ("autocontrast",)),
    (lambda image: TF.adjust_saturation(image, 0.73), ("saturation", 0.73)),
    (lambda image: TF.equalize(image), ("equalize",)),
    (lambda image: TF.posterize(image, 7), ("posterize", 7)),
    (lambda image: TF.adjust_contrast(image, 1.27), ("contrast", 1.27)),
    (lambda image: TF.solarize(image, 178.5), ("solarize", 178.5)),
    (lambda image: TF.adjust_brightness(image, 0.73), ("brightness", 0.73)),
    (lambda image: TF.adjust_hue(image, 0.1), ("hue", 25)),
]


def rows_of(boxes, steps=()):
    """Rows of `params` with these crops and, for each row, its steps: (name, number) each."""
    num_steps = max(map(len, steps), default=0)
    rows = torch.zeros(len(boxes), 9 + 7 * num_steps, dtype=torch.float64)
    rows[:, :4] = torch.tensor(boxes)
    for row, own in zip(rows, steps, strict=False):
        for i, (name, *numbers) in enumerate(own):
            row[9 + 7 * i : 10 + 7 * i + len(numbers)] = torch.tensor([AUGMENT_STEPS.index(name), *numbers])
    return rows


def normalised(image):
    return TF.normalize(TF.to_tensor(image), EVAL.mean, EVAL.std)


def test_augment_steps(bench):
    """Two operations of RandAugment and hue in a row, other ones in each image."""
    num, size = (36, 224) if bench.measure else (9, 24)
    stored = torch.stack([make_photo(size + 32, size + 32, seed) for seed in range(num)])
    images = [Image.fromarray(image.numpy()) for image in stored]
    pairs = [(_OPERATIONS[i % 9], _OPERATIONS[(i // 9 + 3 * i + 1) % 9]) for i in range(num)]
    rows = rows_of([(16, 16, size, size)] * num, [[step for _, step in pair] for pair in pairs])
    index = torch.arange(num)

    def by_torchvision():
        cut = [TF.crop(image, 16, 16, size, size) for image in images]
        return torch.stack([normalised(b(a(image))) for image, ((a, _), (b, _)) in zip(cut, pairs, strict=True)])

    candidates = {
        "PIL and torchvision, 1 thread": with_threads(1, by_torchvision),
        **one_and_all_threads(lambda: augment(stored, index, rows, size=size, mean=EVAL.mean, std=EVAL.std)),
    }
    expected = by_torchvision()
    for name, work in candidates.items():
        assert "dogs_accel" not in name or torch.equal(work(), expected)
    timings = interleaved(candidates, bench.rounds)
    title = f"Two operations of RandAugment or hue on each of {num} images at {size} px"
    bench.report("augment_steps", title, timings, "PIL and torchvision, 1 thread", num, "images")


@pytest.mark.parametrize("recipe", ["imagenet-train", "imagenet-eval"])
def test_augment_ragged(bench, recipe):
    """ImageNet's standard recipes from decoded photos: a random box, or the shorter side and then the centre."""
    num, scale = (32, 1) if bench.measure else (3, 10)
    (height, width), size, side = (side // scale for side in PHOTO_SIZE_PX), 224 // scale, 256 // scale
    photos = [make_photo(height, width, seed) for seed in range(num)]
    images = [Image.fromarray(photo.numpy()) for photo in photos]
    random = np.random.default_rng(0)
    if recipe == "imagenet-train":
        sides = random.integers((height // 3, width // 3), (height, width), (num, 2))
        boxes = [(*random.integers((0, 0), (height - tall, width - wide)), tall, wide) for tall, wide in sides]
        resized = (height, width)
    else:
        shorter = min(height, width)
        resized = (side * height // shorter, side * width // shorter)
        boxes = [(*(round((long - size) / 2) for long in resized), size, size)] * num
    boxes = np.array(boxes).tolist()
    rows, sizes = rows_of(boxes), torch.tensor([resized] * num)

    def by_torchvision():
        whole = [TF.resize(image, list(resized)) if recipe == "imagenet-eval" else image for image in images]
        return torch.stack(
            [normalised(TF.resized_crop(image, *box, [size, size])) for image, box in zip(whole, boxes, strict=True)]
        )

    def squashed():
        small = squash(photos, resized)
        return augment(small, torch.arange(num), rows, size=size, mean=EVAL.mean, std=EVAL.std)

    candidates = {
        "PIL and torchvision, 1 thread": with_threads(1, by_torchvision),
        "dogs_accel squash and augment, 1 thread": with_threads(1, squashed),
        **one_and_all_threads(lambda: augment_ragged(photos, sizes, rows, size=size, mean=EVAL.mean, std=EVAL.std)),
    }
    expected = by_torchvision()
    for name, work in candidates.items():
        assert "dogs_accel" not in name or torch.equal(work(), expected)
    timings = interleaved(candidates, bench.rounds)
    title = f"Recipe {recipe}: a batch of {num} at {size} px from photos of {height} x {width}"
    bench.report(f"augment_ragged_{recipe}", title, timings, "PIL and torchvision, 1 thread", num, "images")
