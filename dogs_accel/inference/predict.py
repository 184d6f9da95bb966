"""What a finished run says of any photo: its classes with their probabilities."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dogs_accel.datasets.photos import PHOTO_SUFFIXES, walk_photos
from dogs_accel.evaluation.tta import NO_TTA, View
from dogs_accel.explain.cells import UnexplainableError
from dogs_accel.inference.trained import TrainedModel
from dogs_accel.runtime.arguments import describe_error
from dogs_accel.runtime.terminal import escaped
from pipelines import BadImageError, Recipe
from pipelines.cores import available_cores
from pipelines.decoding.pil import decode_rgb
from pipelines.progress import passing_bar
from pipelines.torchloader import resize_image


@dataclass(frozen=True, kw_only=True)
class ImagePrediction:
    """What is said of one file."""

    path: str
    problem: str | None = None
    """Why the file could not be read; None where it could."""
    classes: tuple[str, ...] = ()
    """The likeliest first."""
    probabilities: tuple[float, ...] = ()
    """Those of `TrainedModel.probabilities`: calibrated where the run has a temperature."""
    heatmap: str | None = None
    """Where its heat map was written."""
    no_heatmap: str | None = None
    """Why the heat map that was asked for could not be drawn."""

    def as_json(self) -> dict[str, Any]:
        """Lay out the entry of `dogs-accel predict --json`."""
        if self.problem is not None:
            return {"path": self.path, "error": self.problem}
        pairs = zip(self.classes, self.probabilities, strict=True)
        said = {"path": self.path, "predictions": [{"class": name, "probability": share} for name, share in pairs]}
        if self.no_heatmap is not None:
            return said | {"heatmap_error": self.no_heatmap}
        return said if self.heatmap is None else said | {"heatmap": self.heatmap}


DrawHeatmaps = Callable[[Sequence[str], torch.Tensor, torch.Tensor], Sequence[Path]]
"""Draws what a batch's answers rest on: from paths (B,), what the model was fed (B, 3, S, S) and the likeliest classes
(B,) int64 to a picture each."""


Resize = tuple[tuple[int, int] | int | None, str]
"""What a recipe resizes a photo to, and how it interpolates."""
Photo = Mapping[Resize, Image.Image]
"""A photo as each of several views has it after its resize."""


def named_photos(arguments: Sequence[str]) -> list[str]:
    """Put in the place of each folder the photos below it, in the order of their names; one without any stays."""
    paths: list[str] = []
    for argument in arguments:
        below = list(walk_photos(argument, Counter())) if Path(argument).is_dir() else []
        paths += below or [argument]
    return paths


def predict_images(
    trained: TrainedModel, paths: Sequence[str], *, top: int = 5, draw: DrawHeatmaps | None = None, tta: str = NO_TTA
) -> list[ImagePrediction]:
    """Say of each file which classes are likeliest, in the order of the paths; a bad file has its problem instead.

    tta: views of each photo, as `evaluation.tta` names them, over which the probabilities are averaged; draw gets the
    first, which is the evaluation's own.

    Each file is decoded once, and those of about two batches are in memory at a time. draw is called with each batch
    that was answered; where it cannot draw, the answers say why.
    """
    answers: dict[int, ImagePrediction] = {}
    views = trained.views(tta)
    with passing_bar(len(paths), trained.run.name) as bar:
        photos = enumerate(_read_ahead(paths, [view.recipe for view in views], trained.batch_size))
        while batch := _next_batch(photos, paths, trained.batch_size, answers):
            named = [paths[position] for position in batch]
            answers |= zip(batch, _answer(trained, views, named, list(batch.values()), top, draw), strict=True)
            bar.update(len(answers) - bar.n)
    return [answers[position] for position in range(len(paths))]


def _next_batch(
    photos: Iterator[tuple[int, Photo | str]],
    paths: Sequence[str],
    batch_size: int,
    answers: dict[int, ImagePrediction],
) -> dict[int, Photo]:
    """Gather the next photos for the model by their positions; nothing at the end. Bad ones are answers already."""
    batch: dict[int, Photo] = {}
    for position, photo in photos:
        if isinstance(photo, str):
            answers[position] = ImagePrediction(path=paths[position], problem=photo)
            continue
        batch[position] = photo
        if len(batch) == batch_size:
            break
    return batch


def _answer(
    trained: TrainedModel,
    views: Sequence[View],
    paths: Sequence[str],
    photos: Sequence[Photo],
    top: int,
    draw: DrawHeatmaps | None,
) -> list[ImagePrediction]:
    own, *others = views
    images = trained.batch([photo[_resize_of(own.recipe)] for photo in photos], own)
    probabilities = trained.probabilities(trained.answer(images))
    for view in others:
        shown = trained.batch([photo[_resize_of(view.recipe)] for photo in photos], view)
        probabilities += trained.probabilities(trained.answer(shown))
    probabilities /= len(views)
    values, labels = probabilities.topk(min(top, len(trained.class_names)), dim=1)
    answers = map(_prediction, paths, itertools.repeat(trained.class_names), values.tolist(), labels.tolist())
    if draw is None:
        return list(answers)
    try:
        pictures = draw(paths, images, labels[:, 0])
    except (UnexplainableError, OSError) as error:
        return [replace(answer, no_heatmap=describe_error(error)) for answer in answers]
    return [replace(answer, heatmap=str(picture)) for answer, picture in zip(answers, pictures, strict=True)]


def _read_ahead(paths: Sequence[str], recipes: Sequence[Recipe], num_ahead: int) -> Iterator[Photo | str]:
    """Give each file's photo, resized as each recipe has it, or why it cannot be decoded, in order.

    Meanwhile the next ones are decoded.
    """
    by_resize = {_resize_of(recipe): recipe for recipe in recipes}
    reading: deque[Future[Photo | str]] = deque()
    with ThreadPoolExecutor(available_cores()) as pool:
        for path in paths:
            reading.append(pool.submit(_read, path, by_resize))
            if len(reading) > num_ahead:
                yield reading.popleft().result()
        while reading:
            yield reading.popleft().result()


def _resize_of(recipe: Recipe) -> Resize:
    return recipe.resize, recipe.interpolation


def _read(path: str, recipes: Mapping[Resize, Recipe]) -> Photo | str:
    if Path(path).is_dir():
        return f"a folder without a photo, looked for {', '.join(PHOTO_SUFFIXES)}"
    try:
        photo = decode_rgb(path)
        return {resize: resize_image(photo, recipe) for resize, recipe in recipes.items()}
    except BadImageError as error:
        return " ".join(str(error).split())


def _prediction(path: str, class_names: Sequence[str], values: list[float], labels: list[int]) -> ImagePrediction:
    classes = tuple(class_names[label] for label in labels)
    return ImagePrediction(path=path, classes=classes, probabilities=tuple(values))


def describe_prediction(answer: ImagePrediction) -> str:
    """Lay out what is said of one file, for people."""
    if answer.problem is not None:
        return f"{escaped(answer.path)}: {escaped(answer.problem)}"
    classes = [escaped(name) for name in answer.classes]
    width = max(map(len, classes))
    pairs = zip(classes, answer.probabilities, strict=True)
    rows = [f"  {rank}  {name:<{width}}  {share:.4f}" for rank, (name, share) in enumerate(pairs, start=1)]
    if answer.heatmap is not None:
        rows.append(f"  heat map: {escaped(answer.heatmap)}")
    if answer.no_heatmap is not None:
        rows.append(f"  no heat map: {escaped(answer.no_heatmap)}")
    return "\n".join([escaped(answer.path), *rows])
