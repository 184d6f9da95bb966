"""A transform recipe as data: every loader takes one and realises the same law."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral
from typing import Any

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)
MAGNITUDE_BINS = 31
"""Of RandAugment, as torchvision has them."""
MOST_OPERATIONS = 16
_FIRST_FIELDS = frozenset({
    "name", "resize", "crop", "random_area", "random_ratio", "flip", "rotation_deg", "brightness", "contrast",
    "saturation", "mean", "std", "erasing", "erasing_area", "erasing_ratio", "interpolation",
})  # fmt: skip
"""Fields that every record has."""
CROP_PLACES = ("centre", "top_left", "top_right", "bottom_left", "bottom_right")
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
    """(height, width) in px squashes to exactly that; one integer is the shorter side and keeps the aspect; None leaves
    the photo as it is."""
    padding: int = 0
    """px added on each side before the crop."""
    fill: tuple[int, int, int] = (0, 0, 0)
    """R, G and B, 0 to 255, of the padding and of what a crop has beyond the image."""
    crop: int = 224
    """Side in px of the square output."""
    random_crop: bool = False
    """Whether the crop, of the output's size, is at a random place; else it is where crop_place says."""
    random_area: tuple[float, float] | None = None
    """Share of the area that a random crop covers, which is then resized to the output; None is a crop of its size."""
    random_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Aspect ratio of the crop of a random area, log-uniform."""
    flip: float = 0.0
    """Probability of a horizontal flip."""
    randaugment: tuple[int, int] | None = None
    """(number of operations, magnitude from 0 to 30) of RandAugment; None does none."""
    rotation_deg: float = 0.0
    """Largest rotation either way; nearest neighbour, corners filled with 0 (black)."""
    rotation_after_jitter: bool = False
    """Whether the rotation follows the jitter; else it comes before."""
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    """Half width of the jitter factor around 1."""
    hue: float = 0.0
    """Largest shift of the hue either way, as a share of the colour circle, up to 0.5. The four are applied in random
    order."""
    grayscale: float = 0.0
    """Probability of losing the colours."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    erasing: float = 0.0
    """Probability of erasing one rectangle."""
    erasing_area: tuple[float, float] = (0.02, 0.33)
    erasing_ratio: tuple[float, float] = (0.3, 3.3)
    interpolation: str = "bilinear"
    """bilinear or bicubic, for the resize and the crop, always antialiased as PIL does it."""
    crop_place: str = "centre"
    """Where a crop of the output's size lies that is not random: in the centre, or in a corner, as top_left and the
    other three; along a side on which the image is smaller than the crop, always in the centre."""

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_numbers()
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation: got {self.interpolation!r}, expected 'bilinear' or 'bicubic'")
        if self.random_area is not None and self.random_crop:
            raise ValueError(f"random_crop: got True beside random_area {self.random_area}, expected one of them")
        if self.crop_place not in CROP_PLACES:
            raise ValueError(f"crop_place: got {self.crop_place!r}, expected one of {', '.join(CROP_PLACES)}")
        if self.crop_place != "centre" and (self.random_crop or self.random_area is not None):
            raise ValueError(f"crop_place: got {self.crop_place!r} beside a random crop, expected 'centre'")
        least = max(1, self.crop - 2 * self.padding)
        if self.random_area is None and self.resize is not None and min(self.resized(least, least)) < least:
            beside = f", with a padding of {self.padding} px" if self.padding else ""
            raise ValueError(
                f"resize: got {self.resize}, expected at least the crop of {self.crop} px on each side{beside}"
            )

    def _check_sizes(self) -> None:
        if not _are_integers([self.crop], least=1):
            raise ValueError(f"crop: got {self.crop}, expected an integer >= 1 (px)")
        if not _are_integers([self.padding], least=0):
            raise ValueError(f"padding: got {self.padding}, expected an integer >= 0 (px)")
        sides = self.resize if isinstance(self.resize, tuple) else () if self.resize is None else (self.resize,)
        if not _are_integers(sides, least=1) or (isinstance(self.resize, tuple) and len(sides) != 2):
            raise ValueError(f"resize: got {self.resize}, expected (height, width) or one side >= 1 (px), or None")
        if max(self.crop, *sides, 1) > MAX_RESIZED_PX:
            raise ValueError(f"resize: got {self.resize}, crop {self.crop}, expected at most {MAX_RESIZED_PX} px")

    def _check_numbers(self) -> None:
        if not _are_integers(self.fill, least=0, most=255) or len(self.fill) != 3:
            raise ValueError(f"fill: got {self.fill}, expected three integers of 0 to 255")
        for field in ("flip", "grayscale", "erasing", "brightness", "contrast", "saturation"):
            value = getattr(self, field)
            if not 0 <= value <= 1:
                raise ValueError(f"{field}: got {value}, expected a number in [0, 1]")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue: got {self.hue}, expected a number in [0, 0.5]")
        if not math.isfinite(self.rotation_deg):
            raise ValueError(f"rotation_deg: got {self.rotation_deg}, expected a number")
        for field in ("mean", "std"):
            values, least = getattr(self, field), "above 0" if field == "std" else ""
            if len(values) != 3 or not all(map(math.isfinite, values)) or (least and min(values) <= 0):
                raise ValueError(f"{field}: got {values}, expected three numbers {least}".rstrip())
        for field in ("random_area", "random_ratio", "erasing_area", "erasing_ratio"):
            bounds = getattr(self, field)
            if bounds is not None and not (len(bounds) == 2 and 0 < bounds[0] <= bounds[1] < math.inf):
                raise ValueError(f"{field}: got {bounds}, expected 0 < low <= high")
        if self.randaugment is not None:
            if not _are_integers(self.randaugment, least=0) or len(self.randaugment) != 2:
                raise ValueError(f"randaugment: got {self.randaugment}, expected two integers")
            num_ops, magnitude = self.randaugment
            if not (1 <= num_ops <= MOST_OPERATIONS and magnitude < MAGNITUDE_BINS):
                raise ValueError(
                    f"randaugment: got {self.randaugment}, expected 1 to {MOST_OPERATIONS} operations of a magnitude "
                    f"of 0 to {MAGNITUDE_BINS - 1}"
                )

    @classmethod
    def recorded(cls, fields: Mapping[str, Any]) -> Recipe:
        """Read what `as_dict` gave of a recipe and JSON has kept, in which tuples are lists."""
        own: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in fields.items()}
        return cls(**own)

    @property
    def jitters(self) -> bool:
        """Whether brightness, contrast, saturation or hue change."""
        return max(self.brightness, self.contrast, self.saturation, self.hue) > 0

    @property
    def is_random(self) -> bool:
        """Whether two epochs can give the same sample different pixels."""
        changes = (self.random_crop, self.random_area, self.flip, self.randaugment, self.rotation_deg, self.jitters)
        return any(changes) or self.grayscale > 0 or self.erasing > 0

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in px after the resize step of an image of this height and width."""
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        short, long = sorted((height, width))
        other = int(self.resize * long / short)
        return (self.resize, other) if height <= width else (other, self.resize)

    def as_dict(self) -> dict[str, Any]:
        """Lay out the fields, but for those that the first version had not and that do nothing here.

        So what is recorded of a recipe stays the same when recipes get another field.
        """
        unset = {field.name: field.default for field in fields(self) if field.name not in _FIRST_FIELDS}
        return {name: value for name, value in asdict(self).items() if name not in unset or value != unset[name]}

    def at(
        self,
        size_px: int,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
    ) -> Recipe:
        """Return this recipe for another input size (resize and padding keep their proportion) and normalisation.

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
        padding = round(self.padding * scale)
        return replace(self, crop=size_px, resize=resize, padding=padding, mean=mean or self.mean, std=std or self.std)


def _are_integers(values: Sequence[object], *, least: int, most: float = math.inf) -> bool:
    return all(isinstance(value, Integral) and least <= int(value) <= most for value in values)


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

IMAGENET_EVAL = Recipe(name="imagenet-eval", resize=256)
"""The usual evaluation on ImageNet, also of the comparison on Oxford-IIIT Pet: shorter side 256, centre crop of 224."""

IMAGENET_TRAIN = Recipe(name="imagenet-train", resize=None, random_area=(0.08, 1.0), flip=0.5)
"""The usual training on ImageNet: a crop of random area straight from the photo, and a flip."""

PETS_TRAIN = Recipe(name="pets-train", resize=256, random_area=(0.08, 1.0), flip=0.5, brightness=0.2, contrast=0.2)
"""The training transform of the comparison on Oxford-IIIT Pet, which resizes twice."""

PETS_MILD_TRAIN = replace(PETS_TRAIN, name="pets-mild-train", random_area=(0.8, 1.0))
"""The same with crops of at least 80 % of the area, its second variant."""

STANDARD_TRAIN = Recipe(
    name="standard-train",
    resize=None,
    random_area=(0.8, 1.0),
    flip=0.5,
    rotation_deg=15.0,
    rotation_after_jitter=True,
    brightness=0.2,
    contrast=0.2,
    saturation=0.2,
    hue=0.1,
    erasing=0.2,
)
"""The standard augmentation of the guide to CNNs and Vision Transformers."""

RANDAUGMENT_TRAIN = Recipe(name="randaugment-train", resize=None, random_area=(0.08, 1.0), flip=0.5, randaugment=(2, 9))
"""The guide's stronger augmentation: RandAugment, Cubuk et al., CVPR Workshops 2020."""

CIFAR_TRAIN = Recipe(
    name="cifar-train",
    resize=(32, 32),
    padding=4,
    crop=32,
    random_crop=True,
    flip=0.5,
    mean=CIFAR_MEAN,
    std=CIFAR_STD,
)
"""The guide's training transform of CIFAR-10; photos of another size are squashed to 32 x 32 px."""

CIFAR_EVAL = Recipe(name="cifar-eval", resize=(32, 32), crop=32, mean=CIFAR_MEAN, std=CIFAR_STD)
"""The guide's evaluation of CIFAR-10."""

INATURALIST_TRAIN = Recipe(name="inaturalist-train", resize=(224, 224), flip=0.5, rotation_deg=15.0)
"""The training transform of the assignment on iNaturalist: squash, flip and rotate."""

INATURALIST_EVAL = Recipe(name="inaturalist-eval", resize=(224, 224))
"""The assignment's evaluation: squash to 224 x 224."""

RECIPES = {
    recipe.name: recipe
    for recipe in (
        EVAL, RESNET_TRAIN, VIT_TRAIN, IMAGENET_EVAL, IMAGENET_TRAIN, PETS_TRAIN, PETS_MILD_TRAIN, STANDARD_TRAIN,
        RANDAUGMENT_TRAIN, CIFAR_TRAIN, CIFAR_EVAL, INATURALIST_TRAIN, INATURALIST_EVAL,
    )
}  # fmt: skip
"""Every preset by its name."""

_EVALUATED_BY = {
    IMAGENET_EVAL: (IMAGENET_TRAIN, PETS_TRAIN, PETS_MILD_TRAIN, STANDARD_TRAIN, RANDAUGMENT_TRAIN),
    CIFAR_EVAL: (CIFAR_TRAIN,),
    INATURALIST_EVAL: (INATURALIST_TRAIN,),
}


def evaluation_of(recipe: Recipe) -> Recipe:
    """Return the preset by which a model is evaluated that was trained with a preset.

    One of evaluation is evaluated by itself: training with it is training without augmentation.

    Example:
        >>> evaluation_of(RECIPES["imagenet-train"]).name, evaluation_of(RECIPES["imagenet-eval"]).name
        ('imagenet-eval', 'imagenet-eval')
    """
    if not recipe.is_random:
        return recipe
    return next((evaluation for evaluation, trained in _EVALUATED_BY.items() if recipe in trained), EVAL)
