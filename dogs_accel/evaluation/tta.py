"""Test-time augmentation: the views of an image over which a model's probabilities are averaged.

The mean is of the probabilities, not of the logits, and the image as the evaluation shows it is always among the views.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipelines.recipe import CROP_PLACES, Recipe

NO_TTA = "none"
_NAMED = (NO_TTA, "flip", "five-crop")
_MOST_VIEWS = 1000
_SHARE = 0.875
"""Of a side, what a corner covers where the evaluation crops nothing: as much as the published one's 224 of 256 px."""


@dataclass(frozen=True)
class View:
    """One way to show an image to a model."""

    recipe: Recipe
    epoch: int = 0
    """With the seed it decides what a random recipe draws."""


def check_tta(text: str) -> str:
    """Return the text if it names views: none, flip, five-crop or how many. Raises ValueError."""
    is_number = text.isascii() and text.isdecimal() and len(text) < 9 and 2 <= int(text) <= _MOST_VIEWS
    if text not in _NAMED and not is_number:
        raise ValueError(
            f"tta: got {text!r}, expected {', '.join(_NAMED)} or the number of views, 2 to {_MOST_VIEWS:,}"
        )
    return text


def tta_views(tta: str, evaluation: Recipe, training: Recipe) -> list[View]:
    """List the views, the first of which is the evaluation's own.

    Args:
        tta: "none" adds nothing. "flip" adds the mirrored image. "five-crop" adds crops in the four corners of the
            resized image and its centre, as large as the evaluation's own, which is one of them; where it crops nothing
            off a side, as where it squashes to the input's size, the image is resized to 1 / 0.875 of that first, and
            the five crops, each 0.875 of a side, are all other views. A number N adds N - 1 draws of the training
            recipe.
        evaluation: the recipe of validation and test.
        training: that of training; used for a number alone.
    """
    own = View(evaluation)
    if check_tta(tta) == NO_TTA:
        return [own]
    if tta == "flip":
        return [own, View(replace(evaluation, name=f"{evaluation.name} flipped", flip=1.0))]
    if tta == "five-crop":
        return [own, *_crops(evaluation)]
    if not training.is_random:
        raise ValueError(f"tta: got {tta} with the training recipe {training.name}, which draws nothing; flip would do")
    return [own, *(View(training, epoch) for epoch in range(1, int(tta)))]


def describe_views(tta: str, num_views: int) -> str:
    """Name the views in a few words, such as "flip, 2 views"."""
    what = "draws of the training recipe" if tta.isdecimal() else tta
    return f"{what}, {num_views} views"


def _crops(evaluation: Recipe) -> list[View]:
    enlarged = _enlarged(evaluation)
    places = [place for place in CROP_PLACES if enlarged != evaluation or place != evaluation.crop_place]
    return [
        View(replace(enlarged, name=f"{evaluation.name} {place.replace('_', ' ')}", crop_place=place))
        for place in places
    ]


def _enlarged(recipe: Recipe) -> Recipe:
    """Give a recipe room for corners, if it has none along a side."""
    resize = recipe.resize
    if resize is None or recipe.padding or recipe.crop not in (resize if isinstance(resize, tuple) else (resize,)):
        return recipe
    if isinstance(resize, tuple):
        return replace(recipe, resize=(round(resize[0] / _SHARE), round(resize[1] / _SHARE)))
    return replace(recipe, resize=round(resize / _SHARE))
