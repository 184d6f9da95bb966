"""Heat maps of any photo, beside what the model was fed of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from dogs_accel.explain.cells import scale_to_unit
from dogs_accel.explain.drawings import crop_pixels, save_picture, side_by_side
from dogs_accel.explain.explainers import Explainer, heat_maps
from dogs_accel.inference.predict import ImagePrediction
from dogs_accel.inference.trained import TrainedModel


def draw_heatmaps(
    trained: TrainedModel, explainer: Explainer, answers: Sequence[ImagePrediction], folder: Path
) -> list[ImagePrediction]:
    """Draw for each file that could be read what its likeliest class rests on; returns the answers with the pictures.

    `<name>_heatmap.png` in folder, which is made: the crop that the model was fed and its maps over it, side by side,
    as the benchmark draws its explanations. explainer: what find_explainer found for the model.
    """
    good = [answer for answer in answers if answer.problem is None]
    if not good:
        return list(answers)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / name for name in _file_names(good)]
    classes = torch.tensor([trained.class_names.index(answer.classes[0]) for answer in good])
    is_placed = False
    with trained.loader([answer.path for answer in good]) as loader:
        for images, _, index in loader:
            if not is_placed:
                explainer, is_placed = explainer.placed_on(images), True
            maps = heat_maps(explainer, images, classes[index.cpu()].to(images.device))
            heat = {method: scale_to_unit(each).cpu().numpy() for method, each in maps.items()}
            pixels = crop_pixels(images, trained.recipe)
            for row, position in enumerate(index.tolist()):
                own = {method: each[row] for method, each in heat.items()}
                save_picture(side_by_side(pixels[row], own), files[position])
    drawn = iter(files)
    return [
        answer if answer.problem is not None else dataclasses.replace(answer, heatmap=str(next(drawn)))
        for answer in answers
    ]


def _file_names(answers: Sequence[ImagePrediction]) -> Iterator[str]:
    """Name a picture after each file; files of the same name are numbered in their order."""
    used: set[str] = set()
    for answer in answers:
        stem = f"{Path(answer.path).stem}_heatmap"
        name, number = stem, 1
        while name in used:
            number += 1
            name = f"{stem}_{number}"
        used.add(name)
        yield f"{name}.png"
