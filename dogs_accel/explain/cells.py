"""The cells of a map, where they lie in the image, and the map drawn over it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dogs_accel.models.architecture.receptive_field import Field, ReceptiveField


class UnexplainableError(ValueError):
    """A model that has neither a feature map to weigh nor attention to follow; the message says what is missing."""


@dataclass(frozen=True)
class Places:
    """Where the cells of a map lie in the image that it is of, in px from its corner."""

    first: tuple[float, float]
    """Centre of the first cell, down and across."""
    step: float
    """From one cell's centre to the next."""
    source: str
    """How that is known."""

    @classmethod
    def even(cls, grid: tuple[int, int], size_px: int, source: str = "tiles of the image") -> Places:
        """Tile an image of size_px with the cells."""
        step = size_px / grid[0]
        return cls((step / 2, step / 2), step, source)

    @classmethod
    def of_field(cls, field: Field | None) -> Places | None:
        """Put each cell in the middle of its receptive field; None of cells without one.

        A cell of a ResNet is centred 32 i px from the corner, not in the middle of a tile of 32 px: padding puts half
        of the first window outside the image. Definition: Araujo et al., "Computing Receptive Fields of Convolutional
        Neural Networks", Distill 2019.
        """
        if not isinstance(field, ReceptiveField):
            return None
        down, across = ((low + high) / 2 for low, high in zip(field.low, field.high, strict=True))
        return cls((down, across), field.step[0], "strides and padding")


def black(model: nn.Module, size_px: int) -> Tensor:
    """Make one black image (1, 3, S, S) as a model takes it."""
    parameter = next(model.parameters())
    return torch.zeros(1, 3, size_px, size_px, device=parameter.device, dtype=parameter.dtype)


@torch.no_grad()
def run_on_black(model: nn.Module, size_px: int) -> None:
    """Run a model on one black image, for what its modules show meanwhile."""
    model(black(model, size_px))


def upsample(maps: Tensor, places: Places, size_px: int) -> Tensor:
    """Draw maps (N, h, w) over their image, bilinearly between the centres of the cells: (N, size_px, size_px).

    Beyond the outermost centres a map goes on as it is there. Where the cells tile the image this is torch's
    interpolate(mode="bilinear", align_corners=False).
    """
    down, across = (
        _interpolation(num, first, places.step, size_px).to(maps.device)
        for num, first in zip(maps.shape[1:], places.first, strict=True)
    )
    return down @ maps.float() @ across.T


def _interpolation(num: int, first: float, step: float, size_px: int) -> Tensor:
    """Weights of num cells in each of size_px pixels, (size_px, num) float32, rows that sum to 1."""
    at = ((torch.arange(size_px, dtype=torch.float32) + 0.5 - first) / step).clamp(0, num - 1)
    return (1 - (at[:, None] - torch.arange(num, dtype=torch.float32)).abs()).clamp(min=0)


def scale_to_unit(maps: Tensor) -> Tensor:
    """Scale each map (N, H, W) to [0, 1], its own smallest to its own largest value; a constant one becomes 0."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    span = high - low
    return torch.where(span > 0, (maps - low) / span.where(span > 0, torch.ones_like(span)), torch.zeros_like(maps))
