"""What the tests of augment and augment_ragged share: images, rows of parameters, and every step as PIL has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torchvision.transforms.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dogs_accel import ops

HEAD = len(ops.AUGMENT_PARAMS)


def make_store(num_images: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Half noise, half smooth pictures, whose greys are not all the same."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (num_images, height, width, 3), dtype=np.uint8)
    for i in range(0, num_images, 2):
        few = Image.fromarray(images[i, : height // 9 + 1, : width // 9 + 1])
        images[i] = np.array(few.resize((width, height), Image.Resampling.BICUBIC))
    return torch.from_numpy(images)


def rows_of(
    steps: Sequence[Sequence[tuple[Any, ...]]],
    crop: tuple[int, int, int, int],
    flip: bool = False,
    erase: tuple[int, ...] = (0, 0, 0, 0),
) -> NDArray[np.float64]:
    """A row of params for each list of steps, a step being its name and its numbers."""
    rows = np.zeros((len(steps), HEAD + 7 * max(map(len, steps))))
    rows[:, :HEAD] = [*crop, flip, *erase]
    for row, own in zip(rows, steps, strict=True):
        for i, (name, *numbers) in enumerate(own):
            at = HEAD + 7 * i
            row[at : at + 1 + len(numbers)] = [ops.AUGMENT_STEPS.index(name), *numbers]
    return rows


def pil_step(image: Image.Image, name: str, *numbers: float) -> Image.Image:
    """One step as torchvision does it to a PIL image."""
    if name == "affine":
        return image.transform(image.size, Image.Transform.AFFINE, numbers, Image.Resampling.NEAREST)
    if name == "hue":
        hue, saturation, value = image.convert("HSV").split()
        turned = Image.fromarray(np.array(hue) + np.uint8(numbers[0]))
        return Image.merge("HSV", (turned, saturation, value)).convert("RGB")
    if name == "posterize":
        return F.posterize(image, int(numbers[0]))
    steps = {
        "none": lambda image, *unused: image,
        "brightness": F.adjust_brightness,
        "contrast": F.adjust_contrast,
        "saturation": F.adjust_saturation,
        "grayscale": lambda image: F.to_grayscale(image, 3),
        "sharpness": F.adjust_sharpness,
        "solarize": F.solarize,
        "autocontrast": F.autocontrast,
        "equalize": F.equalize,
    }
    changed: Image.Image = steps[name](image, *numbers)
    return changed


def after_steps(image: Image.Image, steps: Sequence[tuple[Any, ...]]) -> Image.Image:
    for step in steps:
        image = pil_step(image, *step)
    return image


def as_bytes(batch: Tensor) -> NDArray[np.uint8]:
    """(B, H, W, 3) of a batch (B, 3, H, W) that was made with mean 0 and standard deviation 1."""
    levels = (batch * 255).round()
    assert torch.equal(levels / 255, batch)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
