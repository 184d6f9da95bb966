"""image_stats and image_sums against int64 and float64 numpy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dogs_accel import ops


def reference_sums(image: Tensor) -> list[int]:
    rgb = image.cpu().numpy().astype(np.int64)
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    grey = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16
    largest = rgb.max(axis=-1)
    quotient = (largest - rgb.min(axis=-1)).astype(np.float32) / np.maximum(largest, 1).astype(np.float32)
    saturation = ((np.float32(1) + quotient).astype(np.float64) - 1) / ops.SATURATION_UNIT
    columns = [np.ones_like(r), grey, grey**2, saturation.astype(np.int64), r, g, b, r**2, g**2, b**2]
    return [int(column.sum()) for column in columns]


def make_image(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)


def test_matches_numpy() -> None:
    images = [make_image(1, 1), make_image(31, 70), make_image(468, 401)[3:, 5:], make_image(20, 30).transpose(0, 1)]
    assert ops.image_sums(images).tolist() == [reference_sums(image) for image in images]
    assert ops.image_stats(images).shape == (4, 6)
