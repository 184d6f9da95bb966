"""Heat maps of any photo, beside what the model was fed of it."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from dogs_accel.explain.cells import scale_to_unit
from dogs_accel.explain.drawings import crop_pixels, save_picture, side_by_side
from dogs_accel.explain.explainers import Explainer, find_explainer, heat_maps
from dogs_accel.runtime.files import only_process_in
from pipelines import Recipe

_PHOTO = "dogs-accel photo"
"""Key of the text in a picture that says which photo it is of."""


class HeatmapFolder:
    """Draws, batch by batch, what the likeliest class of each photo rests on, a picture a photo.

    `<name>_heatmap.png` in a folder that is made with the first: the crop that the model was fed and its maps over it,
    side by side, as the benchmark draws its explanations. What an earlier call drew of the same file is replaced, and
    what is there of another stays.
    """

    def __init__(self, folder: Path, model: nn.Module, recipe: Recipe) -> None:
        self._folder = folder
        self._model = model
        self._explainer: Explainer | None = None
        self._recipe = recipe
        self._used: set[Path] = set()

    def draw(self, paths: Sequence[str], images: torch.Tensor, classes: torch.Tensor) -> list[Path]:
        """Draw the maps of a batch: images (B, 3, S, S) as the model is fed them, classes (B,) int64.

        Raises UnexplainableError for a model without maps, OSError where a picture cannot be written.
        """
        if self._explainer is None:
            self._explainer = find_explainer(self._model, self._recipe.crop).placed_on(images)
        self._folder.mkdir(parents=True, exist_ok=True)
        maps = heat_maps(self._explainer, images, classes.to(images.device))
        heat = {method: scale_to_unit(each).cpu().numpy() for method, each in maps.items()}
        pictures = []
        # A name is free until its picture is there: another process may draw into the folder too.
        with only_process_in(self._folder, wait=True):
            for row, (path, pixels) in enumerate(zip(paths, crop_pixels(images, self._recipe), strict=True)):
                own = {method: each[row] for method, each in heat.items()}
                photo = _photo_id(path)
                place = self._place(path, photo)
                pictures.append(save_picture(side_by_side(pixels, own), place, {_PHOTO: photo}))
        return pictures

    def _place(self, path: str, photo: str) -> Path:
        """Name a picture after its file; where one of another file has the name, it is numbered on."""
        stem = f"{Path(path).stem}_heatmap"
        for number in itertools.count(1):
            place = self._folder / (f"{stem}.png" if number == 1 else f"{stem}_{number}.png")
            if place not in self._used and (not os.path.lexists(place) or _drawn_photo(place) == photo):
                self._used.add(place)
                return place
        raise AssertionError("there is always another number")


def _photo_id(path: str) -> str:
    """Give what tells a photo from others: the SHA-256 of its absolute path, which may hold letters of no encoding."""
    return hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()  # noqa: PTH100


def _drawn_photo(place: Path) -> str | None:
    """Give the id of the photo that a picture is of; None of what is no heat map of ours."""
    try:
        with Image.open(place) as picture:
            return picture.info.get(_PHOTO)
    except (OSError, ValueError, SyntaxError):
        return None
