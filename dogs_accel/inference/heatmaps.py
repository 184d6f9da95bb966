"""Heat maps of any photo, beside what the model was fed of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from dogs_accel.explain.cells import scale_to_unit
from dogs_accel.explain.drawings import crop_pixels, save_picture, side_by_side
from dogs_accel.explain.explainers import Explainer, heat_maps
from pipelines import Recipe


class HeatmapFolder:
    """Draws, batch by batch, what the likeliest class of each photo rests on, a picture a photo.

    `<name>_heatmap.png` in a folder that is made with the first: the crop that the model was fed and its maps over it,
    side by side, as the benchmark draws its explanations. explainer: what find_explainer found for the model.
    """

    def __init__(self, folder: Path, explainer: Explainer, recipe: Recipe) -> None:
        self._folder = folder
        self._explainer = explainer
        self._is_placed = False
        self._recipe = recipe
        self._used: set[str] = set()

    def draw(self, paths: Sequence[str], images: torch.Tensor, classes: torch.Tensor) -> list[Path]:
        """Draw the maps of a batch: images (B, 3, S, S) as the model is fed them, classes (B,) int64."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._is_placed:
            self._explainer, self._is_placed = self._explainer.placed_on(images), True
        maps = heat_maps(self._explainer, images, classes.to(images.device))
        heat = {method: scale_to_unit(each).cpu().numpy() for method, each in maps.items()}
        pictures = []
        for row, (path, pixels) in enumerate(zip(paths, crop_pixels(images, self._recipe), strict=True)):
            own = {method: each[row] for method, each in heat.items()}
            pictures.append(save_picture(side_by_side(pixels, own), self._folder / self._file_name(path)))
        return pictures

    def _file_name(self, path: str) -> str:
        """Name a picture after its file; files of the same name are numbered in their order."""
        stem = f"{Path(path).stem}_heatmap"
        name, number = stem, 1
        while name in self._used:
            number += 1
            name = f"{stem}_{number}"
        self._used.add(name)
        return f"{name}.png"
