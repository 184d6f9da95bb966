"""A transform recipe as data: every loader takes one and realises the same law."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_RESIZED_PX = 1 << 14
"""Of what an image is resized to: csrc/resample.h has the same."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What happens to an image between the file and the model, in the order of the fields.

    Augmentations are off at their defaults. Pixels are 8-bit until `mean` and `std`; erasing comes last and
    writes 0, the mean colour. The reference realisation is torchvision's transforms on PIL images.

    Raises:
        ValueError: a field cannot be; the message names it, what it got and what it expects.

    Example:
        >>> from dataclasses import replace
        >>> from pipelines import EVAL, Recipe
        >>> Recipe(name="mine", resize=(160, 160), crop=128, flip=0.5).is_random
        True
        >>> EVAL.at(96).resize
        (110, 110)
        >>> replace(EVAL, flip=1.5)
        Traceback (most recent call last):
            ...
        ValueError: flip: got 1.5, expected a number in [0, 1]
    """

    name: str
    resize: tuple[int, int] | int | None = (256, 256)
    """(height, width) in px squashes to exactly that; one integer is the shorter side and keeps the aspect."""
    crop: int = 224
    """Side in px of the square output."""
    random_area: tuple[float, float] | None = None
    """Share of the area that the random crop covers; None is the centre crop."""
    random_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Aspect ratio of the random crop, log-uniform."""
    flip: float = 0.0
    """Probability of a horizontal flip."""
    rotation_deg: float = 0.0
    """Largest rotation either way; nearest neighbour, corners filled with 0 (black)."""
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    """Half width of the jitter factor around 1; the three are applied in random order."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    erasing: float = 0.0
    """Probability of erasing one rectangle."""
    erasing_area: tuple[float, float] = (0.02, 0.33)
    erasing_ratio: tuple[float, float] = (0.3, 3.3)
    interpolation: str = "bilinear"
    """bilinear or bicubic, for the resize and the crop, always antialiased as PIL does it."""

    def __post_init__(self) -> None:
        if self.crop < 1:
            raise ValueError(f"crop: got {self.crop}, expected an integer >= 1 (px)")
        sides = self.resize if isinstance(self.resize, tuple) else (self.resize or 1,)
        if max(self.crop, *sides) > MAX_RESIZED_PX:
            raise ValueError(f"resize: got {self.resize}, crop {self.crop}, expected at most {MAX_RESIZED_PX} px")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation: got {self.interpolation!r}, expected 'bilinear' or 'bicubic'")
        for field in ("flip", "erasing", "brightness", "contrast", "saturation"):
            value = getattr(self, field)
            if not 0 <= value <= 1:
                raise ValueError(f"{field}: got {value}, expected a number in [0, 1]")
        for field in ("random_area", "random_ratio", "erasing_area", "erasing_ratio"):
            bounds = getattr(self, field)
            if bounds is not None and not 0 < bounds[0] <= bounds[1]:
                raise ValueError(f"{field}: got {bounds}, expected 0 < low <= high")
        if self.random_area is None and min(self.resized(self.crop, self.crop)) < self.crop:
            raise ValueError(f"resize: got {self.resize}, expected at least the crop of {self.crop} px on each side")

    @classmethod
    def recorded(cls, fields: Mapping[str, Any]) -> Recipe:
        """Read what `dataclasses.asdict` gave of a recipe and JSON has kept, in which tuples are lists."""
        own: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in fields.items()}
        return cls(**own)

    @property
    def jitters(self) -> bool:
        """Whether brightness, contrast or saturation change."""
        return max(self.brightness, self.contrast, self.saturation) > 0

    @property
    def is_random(self) -> bool:
        """Whether two epochs can give the same sample different pixels."""
        return bool(self.random_area or self.flip or self.rotation_deg or self.jitters or self.erasing)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in px after the resize step of an image of this height and width."""
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        short, long = sorted((height, width))
        other = int(self.resize * long / short)
        return (self.resize, other) if height <= width else (other, self.resize)

    def at(
        self,
        size_px: int,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
    ) -> Recipe:
        """Return this recipe for another input size (the resize keeps its proportion) and normalisation.

        Args:
            size_px: side of the output.
            mean: of R, G and B in [0, 1]; None keeps the recipe's.
            std: the same of the standard deviation.

        Raises:
            ValueError: there is no such recipe, as for size_px 0.
        """
        scale = size_px / self.crop
        resize = self.resize
        if isinstance(resize, tuple):
            resize = (round(resize[0] * scale), round(resize[1] * scale))
        elif resize is not None:
            resize = round(resize * scale)
        return replace(self, crop=size_px, resize=resize, mean=mean or self.mean, std=std or self.std)


MAX_INPUT_PX = MAX_RESIZED_PX * 224 // 256
"""Side of a model's input for which a published recipe resizes to no more."""

EVAL = Recipe(name="eval")
"""The published evaluation transform: squash to 256 x 256, centre crop of 224."""

RESNET_TRAIN = Recipe(
    name="resnet-train",
    random_area=(0.72, 1.0),
    flip=0.5,
    rotation_deg=15.0,
    brightness=0.15,
    contrast=0.15,
    saturation=0.15,
    erasing=0.10,
)
"""The published training transform of ResNet-50."""

VIT_TRAIN = Recipe(
    name="vit-train",
    random_area=(0.78, 1.0),
    flip=0.5,
    brightness=0.10,
    contrast=0.10,
    saturation=0.10,
    erasing=0.08,
)
"""The published training transform of ViT-B/16: milder, and without rotation."""
