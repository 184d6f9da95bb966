"""The compiled operators, `torch.ops.dogs_accel.*`, and a Python function for each.

Importing this module loads the libraries that setup.py builds next to it. The operators themselves never wait for the
GPU, so they report bad values in an output; the Python functions read that output and raise.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# `make sanitize` has libraries of its own.
_FOLDER = Path(os.environ.get("DOGS_ACCEL_LIBRARIES") or Path(__file__).resolve().parent)


def _load_cpu_library(folder: Path) -> None:
    library = folder / "_C.abi3.so"
    if not library.is_file():
        raise ImportError(
            f"dogs_accel is not built: {library} does not exist. Build it with `pip install -e .`, or with "
            "`python setup.py build_ext --inplace`, in the source tree. If it is installed elsewhere, this folder "
            "hides it: start Python somewhere else."
        )
    torch.ops.load_library(str(library))


def _load_cuda_library(folder: Path) -> str | None:
    """Load the CUDA kernels, or return the reason why there are none to load."""
    library = folder / "_C_cuda.abi3.so"
    if torch.version.cuda is None:
        return "this torch is a CPU-only build"
    if not library.is_file():
        return "the CUDA library was not built"
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        if torch.cuda.is_available():
            raise ImportError(f"{library} cannot be loaded ({error}); build it again with this torch") from error
        return f"the CUDA library cannot be loaded: {error}"
    return None


_load_cpu_library(_FOLDER)
_no_cuda_because = _load_cuda_library(_FOLDER)


def cuda_status() -> str:
    """Say in one line whether the CUDA kernels are loaded, and if not, why.

    Returns:
        One line for people.

    Example:
        >>> from dogs_accel import ops
        >>> ops.cuda_status().startswith("CUDA kernels")
        True
    """
    if _no_cuda_because is not None:
        return f"CUDA kernels not loaded: {_no_cuda_because}"
    return "CUDA kernels loaded" if torch.cuda.is_available() else "CUDA kernels loaded, no CUDA device found"


def _call(operator: Any, *arguments: Any) -> Any:
    """Call an operator. An argument it refuses is a ValueError; torch makes RuntimeErrors of all that C++ throws."""
    try:
        return operator(*arguments)
    except RuntimeError as error:
        if re.match(r"\w+(\[\d+\])?: got ", str(error)):
            raise ValueError(str(error)) from None
        raise


def _check_tensors(**named: object) -> None:
    """Refuse what is no tensor. torch takes None for one that has no dtype, no shape and no name."""
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: got {type(value).__name__}, expected a tensor")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CalibrationBins:
    """What `calibration_bins` returns: three sums over bins, and two values a row.

    The sums of several shards add up to those of the whole, exactly (while a bin's confidence_sum is below 2^21, where
    float64 ends).
    """

    count: Tensor
    """(bins,) int64: rows whose confidence falls in the bin."""
    confidence_sum: Tensor
    """(bins,) float64: sum of their confidences."""
    correct: Tensor
    """(bins,) int64: how many of them are predicted right."""
    confidence: Tensor
    """(N,) float32, float64 of float64 logits: softmax probability of the predicted class."""
    prediction: Tensor
    """(N,) int64: class of the largest logit, the first of equals."""


def calibration_bins(logits: Tensor, labels: Tensor, bins: int = 15) -> CalibrationBins:
    """Sort predictions into equal bins of confidence, without materialising the softmax.

    Bins are (lower, upper] with the edges `numpy.linspace(0, 1, bins + 1)`, the first with its lower edge. The sums are
    the same bits for any number of threads and any order of the rows.

    Args:
        logits: (N, C) float32, float16, bfloat16 or float64 of any strides, on a CPU or a CUDA device.
        labels: (N,) int64 on the same device.
        bins: how many, 1 to 4096.

    Returns:
        Three sums over bins, and two values a row.

    Raises:
        ValueError: a shape, a dtype or `bins` is wrong, or a row holds a NaN, an infinity or a label outside [0, C);
            the message names the first. Reading that row waits for the GPU; `torch.ops.dogs_accel.calibration_bins`
            returns it as a tensor instead.

    Definition: the bins of Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 2.

    Example:
        >>> from dogs_accel import ops
        >>> bins = ops.calibration_bins(logits, labels, bins=10)
        >>> bins.prediction[:3].tolist(), bins.count.sum() == len(logits)
        ([0, 0, 0], tensor(True))
    """
    _check_tensors(logits=logits, labels=labels)
    confidence, prediction, count, confidence_sum, correct, bad_row = _call(
        torch.ops.dogs_accel.calibration_bins, logits, labels, bins
    )
    _raise_for_bad_row(bad_row, logits, labels)
    return CalibrationBins(
        count=count, confidence_sum=confidence_sum, correct=correct, confidence=confidence, prediction=prediction
    )


def _raise_for_bad_row(bad_row: Tensor, logits: Tensor, labels: Tensor) -> None:
    if bad_row.is_meta:  # which has a shape and no value
        return
    row = int(bad_row.item())
    if row >= 0:
        if not bool(torch.isfinite(logits[row]).all()):
            raise ValueError(f"logits: row {row} holds a NaN or infinity")
        raise ValueError(f"labels: row {row} is {int(labels[row])}, expected 0 <= label < {logits.shape[1]}")


def _check_fake_logits(logits: Tensor, labels: Tensor) -> None:
    torch._check(logits.dim() == 2, lambda: f"logits: got shape {tuple(logits.shape)}, expected (N, C)")
    # A fake also serves a call of which one argument only is a meta tensor.
    torch._check(
        labels.device == logits.device,
        lambda: f"labels: got device {labels.device}, expected {logits.device} as logits have",
    )


@torch.library.register_fake("dogs_accel::calibration_bins")
def _calibration_bins_fake(
    logits: Tensor, labels: Tensor, bins: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    _check_fake_logits(logits, labels)
    num_rows = logits.shape[0]
    real = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return (
        logits.new_empty(num_rows, dtype=real),
        logits.new_empty(num_rows, dtype=torch.int64),
        logits.new_empty(bins, dtype=torch.int64),
        logits.new_empty(bins, dtype=torch.float64),
        logits.new_empty(bins, dtype=torch.int64),
        logits.new_empty(1, dtype=torch.int64),
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ClassCalibrationBins:
    """What `class_calibration_bins` returns: three sums over the bins of every class, and one over its rows.

    The sums of several shards add up to those of the whole, exactly (while a sum is below 2^21, where float64 ends).
    """

    count: Tensor
    """(C, bins) int64: rows whose probability of the class falls in the bin."""
    probability_sum: Tensor
    """(C, bins) float64: sum of these probabilities."""
    positives: Tensor
    """(C, bins) int64: how many of these rows have the class as their label."""
    squared_error: Tensor
    """(C,) float64: sum over rows of (probability - [label == class])^2, the part of the Brier score of the class."""


def class_calibration_bins(logits: Tensor, labels: Tensor, bins: int = 15) -> ClassCalibrationBins:
    """Sort the softmax probabilities of every class into equal bins, without materialising the softmax.

    Bins and exactness are those of `calibration_bins`. The probability of the predicted class is its confidence, bit
    for bit.

    Args:
        logits: as for `calibration_bins`.
        labels: as for `calibration_bins`.
        bins: how many a class, 1 to 4096; C * bins is below 2^31.

    Returns:
        Three sums over the bins of every class, and one over its rows.

    Raises:
        ValueError: as of `calibration_bins`.

    Definition: the bins of Nixon et al., "Measuring Calibration in Deep Learning", CVPR Workshops 2019, section 3.

    Example:
        >>> from dogs_accel import ops
        >>> ops.class_calibration_bins(logits, labels, bins=10).count.shape  # (C, bins)
        torch.Size([3, 10])
    """
    _check_tensors(logits=logits, labels=labels)
    count, probability_sum, positives, squared_error, bad_row = _call(
        torch.ops.dogs_accel.class_calibration_bins, logits, labels, bins
    )
    _raise_for_bad_row(bad_row, logits, labels)
    return ClassCalibrationBins(
        count=count, probability_sum=probability_sum, positives=positives, squared_error=squared_error
    )


@torch.library.register_fake("dogs_accel::class_calibration_bins")
def _class_calibration_bins_fake(
    logits: Tensor, labels: Tensor, bins: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    _check_fake_logits(logits, labels)
    num_classes = logits.shape[1]
    return (
        logits.new_empty((num_classes, bins), dtype=torch.int64),
        logits.new_empty((num_classes, bins), dtype=torch.float64),
        logits.new_empty((num_classes, bins), dtype=torch.int64),
        logits.new_empty(num_classes, dtype=torch.float64),
        logits.new_empty(1, dtype=torch.int64),
    )


IMAGE_STATS = ("brightness_mean", "contrast_std", "saturation_mean", "r_mean", "g_mean", "b_mean")
"""The columns of `image_stats`."""

IMAGE_SUMS = (
    "pixels",
    "grey",
    "grey_squared",
    "saturation",
    "r",
    "g",
    "b",
    "r_squared",
    "g_squared",
    "b_squared",
)
"""The columns of `image_sums`."""

SATURATION_UNIT = 2.0**-23
"""What 1 means in the column `saturation` of `image_sums`."""


def image_stats(images: Tensor | Sequence[Tensor]) -> Tensor:
    """Measure brightness, contrast, saturation and mean colour of images, in one pass over their bytes.

    The columns follow from `image_sums`, and are the same bits on every device and for any number of threads.

    Args:
        images: uint8 RGB of any strides, on one device: (H, W, 3), (N, H, W, 3), or a sequence of N (H, W, 3) whose
            sizes may differ.

    Returns:
        (6,) float64 of one image, else (N, 6), on that device; the columns are `IMAGE_STATS`, all in [0, 1].

    Raises:
        ValueError: an image is of another dtype, shape or device, or has no pixels; the message names the first.

    Definition: brightness_mean and contrast_std are mean and population standard deviation of `PIL.Image.convert("L")`;
    saturation_mean is the mean of S in `matplotlib.colors.rgb_to_hsv`. Of black pixels it is 0.

    Example:
        >>> import torch
        >>> from dogs_accel import ops
        >>> red = torch.tensor([255, 0, 0], dtype=torch.uint8).expand(8, 8, 3)
        >>> dict(zip(ops.IMAGE_STATS[2:], ops.image_stats(red)[2:].tolist()))
        {'saturation_mean': 1.0, 'r_mean': 1.0, 'g_mean': 0.0, 'b_mean': 0.0}
    """
    return _call_on_images(torch.ops.dogs_accel.image_stats, images)


def image_sums(images: Tensor | Sequence[Tensor]) -> Tensor:
    """Sum what statistics of images are made of, exactly.

    The sums of parts of an image, or of shards of a set, add up to those of the whole.

    Args:
        images: as for `image_stats`.

    Returns:
        (10,) int64 of one image, else (N, 10), with the columns `IMAGE_SUMS`: the number of pixels; sums of grey (0 to
        255), grey^2, saturation (in units of `SATURATION_UNIT`), R, G, B, R^2, G^2 and B^2.

    Raises:
        ValueError: as of `image_stats`.

    Definition: grey is that of `PIL.Image.convert("L")`. A pixel's saturation is (max - min) / max, rounded to float32
    and then to the unit: within 9e-8 of `matplotlib.colors.rgb_to_hsv`.

    Example:
        >>> import torch
        >>> from dogs_accel import ops
        >>> image = torch.full((8, 8, 3), 100, dtype=torch.uint8)
        >>> whole, halves = ops.image_sums(image), ops.image_sums([image[:4], image[4:]])
        >>> bool((halves.sum(0) == whole).all()), whole[:2].tolist()  # pixels, grey
        (True, [64, 6400])
    """
    return _call_on_images(torch.ops.dogs_accel.image_sums, images)


def stats_of_sums(sums: Tensor) -> Tensor:
    """Derive the statistics of `image_stats` from sums of `image_sums`, also from those of several parts added up.

    Args:
        sums: (10,) or (N, 10) int64, of 2^40 pixels in all at most, where int64 ends.

    Returns:
        (6,) or (N, 6) float64 on the same device, with the columns `IMAGE_STATS`; NaN where there are no pixels.

    Raises:
        ValueError: another shape or dtype.

    Example:
        >>> import torch
        >>> from dogs_accel import ops
        >>> images = torch.randint(256, (4, 8, 8, 3), dtype=torch.uint8)
        >>> sums = ops.image_sums(images).sum(0)  # as of one image of 4 x 8 rows
        >>> bool((ops.stats_of_sums(sums) == ops.image_stats(images.reshape(32, 8, 3))).all())
        True
    """
    _check_tensors(sums=sums)
    if sums.dim() == 1:
        row: Tensor = _call(torch.ops.dogs_accel.stats_of_sums, sums[None])[0]
        return row
    rows: Tensor = _call(torch.ops.dogs_accel.stats_of_sums, sums)
    return rows


def _listed(images: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Images as the operators take them. Sparse and quantized ones have no kernel, and torch does not say which."""
    try:
        listed = list(images)
    except TypeError:
        got = "a tensor of no dimensions" if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images: got {got}, expected a sequence of tensors") from None
    for i, image in enumerate(listed):
        _check_tensors(**{f"images[{i}]": image})
        if image.layout != torch.strided or image.is_quantized or image.is_nested:
            kind = "quantized" if image.is_quantized else "nested" if image.is_nested else str(image.layout)
            raise ValueError(f"images[{i}]: got a {kind} tensor, expected a plain one of uint8")
    return listed


def _call_on_images(operator: Any, images: Tensor | Sequence[Tensor]) -> Tensor:
    if not isinstance(images, Tensor):
        return _call(operator, _listed(images))
    if images.dim() == 4:
        if len(images) == 0 and (images.shape[3] != 3 or images.dtype != torch.uint8):
            raise ValueError(
                f"images: got shape {tuple(images.shape)} of {images.dtype}, expected (N, H, W, 3) of uint8"
            )
        # Without an image there is none to tell the device.
        rows = _call(operator, _listed(images))
        return rows.to(images.device)
    if images.dim() != 3:
        raise ValueError(f"images: got shape {tuple(images.shape)}, expected (H, W, 3), (N, H, W, 3) or a sequence")
    return _call(operator, _listed([images]))[0]


def _check_fake_image(name: str, image: Tensor, device: torch.device) -> None:
    torch._check(
        image.dim() == 3 and image.shape[2] == 3, lambda: f"{name}: got shape {tuple(image.shape)}, expected (H, W, 3)"
    )
    torch._check(
        image.device == device, lambda: f"{name}: got device {image.device}, expected {device} as images[0] has"
    )


def _fake_rows(images: Sequence[Tensor], num_columns: int, dtype: torch.dtype) -> Tensor:
    for i, image in enumerate(images):
        _check_fake_image(f"images[{i}]", image, images[0].device)
    return torch.empty(len(images), num_columns, dtype=dtype, device=images[0].device if images else None)


@torch.library.register_fake("dogs_accel::image_stats")
def _image_stats_fake(images: Sequence[Tensor]) -> Tensor:
    return _fake_rows(images, len(IMAGE_STATS), torch.float64)


@torch.library.register_fake("dogs_accel::image_sums")
def _image_sums_fake(images: Sequence[Tensor]) -> Tensor:
    return _fake_rows(images, len(IMAGE_SUMS), torch.int64)


@torch.library.register_fake("dogs_accel::stats_of_sums")
def _stats_of_sums_fake(sums: Tensor) -> Tensor:
    torch._check(sums.dim() == 2, lambda: f"sums: got shape {tuple(sums.shape)}, expected (N, {len(IMAGE_SUMS)})")
    return sums.new_empty((sums.shape[0], len(IMAGE_STATS)), dtype=torch.float64)


def squash(
    images: Sequence[Tensor], size: tuple[int, int], interpolation: str = "bilinear", num_threads: int = 0
) -> Tensor:
    """Resize images of any sizes to one, as Pillow does: antialiased, in fixed point.

    Args:
        images: N uint8 RGB (H, W, 3) of any strides, on one device.
        size: (height, width) in px, 1 to 16,384 each.
        interpolation: "bilinear" or "bicubic".
        num_threads: how many threads share the images at most, on a CPU; 0 is as many as torch uses.

    Returns:
        (N, height, width, 3) uint8 on that device.

    Raises:
        ValueError: an image is of another dtype, shape or device (the message names the first), or `size` or
            `interpolation` cannot be.

    Definition: `PIL.Image.resize` of Pillow 13, whose bytes these are. Older Pillows differ by one level at times, in
    images that lose more than twice as many px of height as of width.

    Example:
        >>> import torch
        >>> from dogs_accel import ops
        >>> images = [torch.zeros(side, 90, 3, dtype=torch.uint8) for side in (40, 60)]
        >>> ops.squash(images, (32, 32)).shape
        torch.Size([2, 32, 32, 3])
    """
    resized: Tensor = _call(torch.ops.dogs_accel.squash, _listed(images), *size, interpolation, num_threads)
    return resized


@torch.library.register_fake("dogs_accel::squash")
def _squash_fake(images: Sequence[Tensor], height: int, width: int, interpolation: str, num_threads: int = 0) -> Tensor:
    for i, image in enumerate(images):
        _check_fake_image(f"images[{i}]", image, images[0].device)
    device = images[0].device if images else None
    return torch.empty(len(images), height, width, 3, dtype=torch.uint8, device=device)


AUGMENT_PARAMS = (
    "crop_top",
    "crop_left",
    "crop_height",
    "crop_width",
    "flip",
    "erase_top",
    "erase_left",
    "erase_height",
    "erase_width",
)
"""The first columns of the argument `params` of `augment`; its steps come after them."""

AUGMENT_STEPS = (
    "none",
    "affine",
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "grayscale",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
"""The steps of `augment`: the number of one is its place here."""
NUM_STEP_COLUMNS = 7
"""Of a step in `params`: which it is, and six numbers."""


def augment(
    images: Tensor,
    index: Tensor,
    params: Tensor,
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str = "bilinear",
    dtype: torch.dtype = torch.float32,
    num_threads: int = 0,
    fill: Sequence[int] = (0, 0, 0),
) -> Tensor:
    """Make a batch for a model from stored images, in one pass: crop, resize, flip, any steps, normalise, erase.

    A row of `params` is 9 numbers, `AUGMENT_PARAMS`, and then 7 for each of K steps. They mean, in this order:

    - crop_*: the box in px that is resized to (`size`, `size`), with `interpolation` "bilinear" or "bicubic". It may
      lie partly or wholly outside of the image, where everything is `fill`;
    - flip: 1 mirrors it left to right, 0 does not;
    - the steps, one after the other: the place of each in `AUGMENT_STEPS`, and 6 numbers, of which it uses the first
      ones:

      - none: nothing, so that rows of fewer steps can be filled up;
      - affine: the a to f that `PIL.Image.transform` takes, from an output pixel to where it comes from, nearest
        neighbour, black outside; (1, 0, 0, 0, 1, 0) moves nothing;
      - brightness, contrast, saturation, sharpness: a factor, 0 to 10^6, of which 1 changes nothing;
      - hue: what is added to PIL's 8-bit hue, 0 to 255. 0 is not quite the identity, because HSV is bytes too;
      - grayscale: PIL's "L" in all three channels;
      - posterize: how many bits of each byte stay, 1 to 8;
      - solarize: the threshold, 0 to 256, from which on bytes are inverted;
      - autocontrast, equalize: as `PIL.ImageOps` has them, each channel by itself;

    - then bytes become numbers, minus `mean` and divided by `std` (three each, of values in [0, 1]);
    - erase_*: the box in the output that becomes 0; height 0 erases nothing.

    Args:
        images: (N, H, W, 3) uint8 RGB, each row contiguous.
        index: (B,) int64, which image each sample is made of, on the same device.
        params: (B, 9 + 7 K) float64, K of 0 to 32, a row a sample, on the same device.
        size: side of the square output in px.
        mean: of R, G and B in [0, 1].
        std: the same of the standard deviation.
        interpolation: "bilinear" or "bicubic", of the crop's resize.
        dtype: torch.float32, torch.float16 or torch.bfloat16.
        num_threads: how many threads share the samples at most, on a CPU; 0 is as many as torch uses.
        fill: R, G and B outside of the image, 0 to 255.

    Returns:
        (B, 3, size, size) of that dtype, channels-last, on that device.

    Raises:
        ValueError: a shape or a dtype is wrong; on a CPU also for the first row whose values cannot be. On a GPU the
            image of such a row is NaN, since raising would wait for the GPU.

    Definition: torchvision's `pad`, `crop`, `resized_crop`, `hflip`, `affine`, `rotate`, `adjust_*`, `to_grayscale`,
    `posterize`, `solarize`, `autocontrast`, `equalize`, `to_tensor`, `normalize` and `erase` on PIL images with Pillow
    13, whose bits these are.

    Example:
        >>> import torch
        >>> from dogs_accel import ops
        >>> images = torch.full((10, 256, 256, 3), 200, dtype=torch.uint8)
        >>> head = [16, 16, 224, 224, 0, *[0] * 4]  # the centre, not mirrored, nothing erased
        >>> solarize = [ops.AUGMENT_STEPS.index("solarize"), 128, 0, 0, 0, 0, 0]
        >>> params = torch.tensor([head + solarize] * 2, dtype=torch.float64)
        >>> index = torch.tensor([7, 2])
        >>> batch = ops.augment(images, index, params, size=224, mean=[0.0] * 3, std=[1.0] * 3)
        >>> batch.shape, (batch * 255).unique()
        (torch.Size([2, 3, 224, 224]), tensor([55.]))
    """
    _check_tensors(images=images, index=index, params=params)
    batch: Tensor = _call(
        torch.ops.dogs_accel.augment,
        images,
        index,
        params,
        size,
        list(mean),
        list(std),
        interpolation,
        dtype,
        num_threads,
        list(fill),
    )
    return batch


def augment_ragged(
    images: Sequence[Tensor],
    resized: Tensor,
    params: Tensor,
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str = "bilinear",
    dtype: torch.dtype = torch.float32,
    num_threads: int = 0,
    fill: Sequence[int] = (0, 0, 0),
) -> Tensor:
    """Make a batch for a model from images of different sizes, as `augment` does from those of one size.

    Each image is resized to its row of `resized` first, then cropped. Of the first resize, only those pixels are
    computed that the crop has.

    Args:
        images: B uint8 RGB (H, W, 3) of any sizes and strides, on one device.
        resized: (B, 2) int64 on the CPU: height and width to which each image is resized, with `interpolation`; its
            own size where it is not.
        params: as for `augment`, a row for each image, on their device. The box of the crop is in the resized image.
        size: as for `augment`.
        mean: as for `augment`.
        std: as for `augment`.
        interpolation: "bilinear" or "bicubic", of both resizes.
        dtype: as for `augment`.
        num_threads: as for `augment`.
        fill: as for `augment`.

    Returns:
        (B, 3, size, size) of that dtype, channels-last, on that device.

    Raises:
        ValueError: as of `augment`; an image is of another dtype, shape or device, or cannot be resized so; the message
            names the first.

    Definition: `PIL.Image.resize`, and then that of `augment`.

    Example:
        >>> import torch
        >>> from dogs_accel import ops
        >>> images = [torch.zeros(375, 500, 3, dtype=torch.uint8), torch.zeros(600, 300, 3, dtype=torch.uint8)]
        >>> resized = torch.tensor([[256, 341], [512, 256]])  # the shorter side is 256
        >>> params = torch.tensor([[16, 58, 224, 224, *[0] * 5], [144, 16, 224, 224, *[0] * 5]], dtype=torch.float64)
        >>> ops.augment_ragged(images, resized, params, size=224, mean=[0.5] * 3, std=[0.5] * 3).shape
        torch.Size([2, 3, 224, 224])
    """
    batch: Tensor = _call(
        torch.ops.dogs_accel.augment_ragged,
        _listed(images),
        resized,
        params,
        size,
        list(mean),
        list(std),
        interpolation,
        dtype,
        num_threads,
        list(fill),
    )
    return batch


def _check_fake_device(name: str, tensor: Tensor, device: torch.device) -> None:
    torch._check(
        tensor.device == device, lambda: f"{name}: got device {tensor.device}, expected {device} as images have"
    )


@torch.library.register_fake("dogs_accel::augment")
def _augment_fake(
    images: Tensor,
    index: Tensor,
    params: Tensor,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str,
    dtype: torch.dtype,
    num_threads: int = 0,
    fill: Sequence[int] = (0, 0, 0),
) -> Tensor:
    torch._check(images.dim() == 4, lambda: f"images: got shape {tuple(images.shape)}, expected (N, H, W, 3)")
    torch._check(index.dim() == 1, lambda: f"index: got shape {tuple(index.shape)}, expected (B,)")
    _check_fake_device("index", index, images.device)
    _check_fake_device("params", params, images.device)
    return images.new_empty((index.shape[0], size, size, 3), dtype=dtype).permute(0, 3, 1, 2)


@torch.library.register_fake("dogs_accel::augment_ragged")
def _augment_ragged_fake(
    images: Sequence[Tensor],
    resized: Tensor,
    params: Tensor,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str,
    dtype: torch.dtype,
    num_threads: int = 0,
    fill: Sequence[int] = (0, 0, 0),
) -> Tensor:
    for i, image in enumerate(images):
        _check_fake_image(f"images[{i}]", image, images[0].device)
    if images:
        _check_fake_device("params", params, images[0].device)
    # Else a meta tensor would lead here, beside images that have values, and what is returned would have none.
    is_on_cpu = resized.device.type == "cpu" or params.device.type == "meta"
    torch._check(is_on_cpu, lambda: f"resized: got device {resized.device}, expected cpu")
    return params.new_empty((len(images), size, size, 3), dtype=dtype).permute(0, 3, 1, 2)


def limit_instruction_set(name: str) -> str:
    """Let the CPU kernels use "baseline", "avx2" or "avx512" at most, in every thread.

    For tests and benchmarks: the results are the same bits with each.

    Args:
        name: one of the three.

    Returns:
        What they use from now on, which is less where the CPU has less.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> from dogs_accel import ops
        >>> ops.limit_instruction_set("baseline")
        'baseline'
        >>> used = ops.limit_instruction_set("avx512")  # the best that the CPU has
    """
    used: str = _call(torch.ops.dogs_accel.limit_instruction_set, name)
    return used
