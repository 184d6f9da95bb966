"""The explanations of a run: which test images, their heat maps, what these are worth, and the files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dogs_accel.datasets import Dataset, DatasetError
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.explain.cells import UnexplainableError, scale_to_unit
from dogs_accel.explain.drawings import Drawing, crop_pixels, explanation_figure, save_picture
from dogs_accel.explain.explainers import Explainer, find_explainer, heat_maps
from dogs_accel.explain.scores import (
    box_cover,
    box_on_crop,
    class_probabilities,
    heat_inside,
    hottest_patches,
    mean_with_interval,
    num_removed,
    patches_across,
    random_patches,
    removal_verdict,
    shifted_patches,
    without_patches,
)
from dogs_accel.plots import save_figure
from dogs_accel.runtime.files import write_csv, write_json
from pipelines import Loader, Recipe
from pipelines.decoding.pil import open_image

EXPLANATIONS_FOLDER = "explanations"
"""Of a run's folder: where the single pictures are."""
NUM_CONFIDENT = 4
NUM_RANDOM = 8
REMOVED_SHARE = 0.2
EXPLANATIONS_FILE, EXPLAINED_FILE, EXPLANATION_SCORES_FILE = (
    "explanations.json", "explanations.csv", "explanation_scores.csv",
)  # fmt: skip
"""Method and means; a row for each image shown and method; the same of the sample."""
GALLERY = {"gradcam": "gradcam_gallery.png", "attention": "attention_gallery.png"}
_LARGEST_GAP = 0.1
"""Between the probabilities in the predictions, perhaps of mixed precision, and those here, in the median."""

_NO_FILE_NAME = re.compile(r'[/\\:*?"<>|\x00-\x1f]|^\.')
"""What the name of a file must not have on some system."""
_LONGEST_NAME = 200
"""In bytes; what a file system takes less what is added."""

LoadImages = Callable[[NDArray[np.int64]], Loader]
"""Gives a loader of these images of the dataset as evaluation sees them, in their order, in this process alone."""


@dataclass(frozen=True)
class Chosen:
    """Positions in the predictions."""

    drawn: list[tuple[str, int]]
    """(group, position) of the images that are shown."""
    sample: NDArray[np.int64]
    """Drawn at random, for the scores; the random images shown are its first ones."""

    @property
    def positions(self) -> NDArray[np.int64]:
        """Every position that is needed, each once, in rising order."""
        return np.unique([*self.sample.tolist(), *(position for _, position in self.drawn)]).astype(np.int64)


def picture_name(image_id: str) -> str:
    """Name the file of an image's picture after its id, of which it is a name in one folder whatever the id is.

    An id that is no name of a file, such as a path, or that is long, is changed to one, which a part of its SHA-256
    keeps apart from others.

    Example:
        >>> picture_name("n02085620_5927"), picture_name("train/cat/0001.jpg")
        ('n02085620_5927.png', 'train_cat_0001.jpg-927b8f3f4099.png')
    """
    name = _NO_FILE_NAME.sub("_", image_id).encode(errors="surrogateescape")[-_LONGEST_NAME:].decode(errors="ignore")
    if name != image_id:
        name += f"-{hashlib.sha256(image_id.encode(errors='surrogateescape')).hexdigest()[:12]}"
    return f"{name}.png"


def choose_images(predictions: Predictions, *, seed: int = 0, sample_size: int = 64) -> Chosen:
    """Choose the 4 most confident right and the 4 most confident wrong predictions, 8 random ones, and a sample.

    Fewer where there are fewer. Confidence is the largest softmax probability; of equals the first comes first.
    Raises ValueError for a sample of none.
    """
    if sample_size < 1:
        raise ValueError(f"sample_size: got {sample_size}, expected an integer >= 1")
    confidence = predictions.confidence
    order = np.argsort(-confidence, kind="stable")
    is_right = predictions.predicted[order] == predictions.labels[order]
    sample = np.random.default_rng(seed).permutation(len(order))[:sample_size]
    groups = {
        "confident_right": order[is_right][:NUM_CONFIDENT],
        "confident_wrong": order[~is_right][:NUM_CONFIDENT],
        "random": sample[:NUM_RANDOM],
    }
    return Chosen([(group, int(each)) for group, some in groups.items() for each in some], sample.astype(np.int64))


def write_explanations(
    folder: Path,
    model: nn.Module,
    load: LoadImages,
    predictions: Predictions,
    data: Dataset,
    recipe: Recipe,
    *,
    title: str,
    seed: int = 0,
    sample_size: int = 64,
    num_draws: int = 3,
) -> list[Path]:
    """Explain a model's predictions of a split, in float32; returns the files, which lie in folder.

    explanations/ with a picture of each image (the crop and its maps side by side), named as `picture_name` does,
    gradcam_gallery.png or attention_gallery.png, explanations.csv (a row for each image shown and method),
    explanation_scores.csv (the same of the sample) and explanations.json (method, settings, means over the sample with
    95 % intervals, verdicts). Of a model that cannot be explained explanations.json alone, which says why. recipe is
    the loader's. Raises ValueError where model and images are not those of the predictions.
    """
    try:
        explainer = find_explainer(model, recipe.crop)
    except UnexplainableError as error:
        return [write_json(folder / EXPLANATIONS_FILE, {"method": None, "reason": str(error)})]
    chosen = choose_images(predictions, seed=seed, sample_size=sample_size)
    explainer, explained = _explain(model, explainer, load, predictions, data, recipe, chosen.positions)
    scores = _score(model, explainer, explained, seed, num_draws)
    paths = _write_drawings(folder, explainer, explained, chosen, title)
    drawn = [(group, explained.at[position]) for group, position in chosen.drawn]
    sample = [("random", explained.at[position]) for position in chosen.sample.tolist()]
    shown = _table(explainer, explained, scores, drawn)
    table = _table(explainer, explained, scores, sample)
    settings = {
        **explainer.describe(data.noun),
        "precision": "float32",
        "seed": seed,
        "removal": _describe_removal(explainer, num_draws, data.noun),
        "heat_in_box": "share of the map, before it is scaled to [0, 1] for the drawing, inside the annotated boxes; "
        "box_share: the share of the crop that they cover",
        "methods": {method: _summary(table[table["method"] == method]) for method in explainer.methods},
    }
    return [
        *paths,
        write_csv(folder / EXPLAINED_FILE, shown),
        write_csv(folder / EXPLANATION_SCORES_FILE, table.drop(columns="group")),
        write_json(folder / EXPLANATIONS_FILE, settings),
    ]


@dataclass(frozen=True, kw_only=True)
class _Explained:
    """Images of some positions in the predictions, and their maps."""

    at: dict[int, int]
    """Row of each position."""
    images: Tensor
    """(N, 3, S, S), as the loader gave them."""
    classes: Tensor
    """(N,) predicted."""
    probabilities: Tensor
    """(N,) of these classes."""
    heat: dict[str, Tensor]
    """By method, (N, S, S), >= 0."""
    pixels: NDArray[np.uint8]
    boxes: list[list[tuple[float, float, float, float]] | None]
    """In px of the crop; None of an image without an annotation."""
    ids: list[str]
    true_class: list[str]
    pred_class: list[str]
    confidence: NDArray[np.float64]


def _explain(
    model: nn.Module,
    explainer: Explainer,
    load: LoadImages,
    predictions: Predictions,
    data: Dataset,
    recipe: Recipe,
    positions: NDArray[np.int64],
) -> tuple[Explainer, _Explained]:
    """Compute the maps of some positions; returns the explainer too, its cells placed by the images."""
    ids = predictions.ids[positions].tolist()
    index = find_images(data, ids)
    images = load_images(load, index, recipe)
    confidence = predictions.confidence[positions]
    classes = torch.from_numpy(predictions.predicted[positions]).to(images.device)
    probabilities = class_probabilities(model, images, classes)
    _check_same(probabilities, confidence)
    explainer = explainer.placed_on(images)
    names = np.asarray(data.class_names)
    return explainer, _Explained(
        at={position: row for row, position in enumerate(positions.tolist())},
        images=images,
        classes=classes,
        probabilities=probabilities,
        heat=heat_maps(explainer, images, classes),
        pixels=crop_pixels(images, recipe),
        boxes=[_boxes(data, each, recipe) for each in index.tolist()],
        ids=ids,
        true_class=names[predictions.labels[positions]].tolist(),
        pred_class=names[predictions.predicted[positions]].tolist(),
        confidence=confidence,
    )


def find_images(data: Dataset, ids: Sequence[str]) -> NDArray[np.int64]:
    """Find images in a dataset by their ids. Raises ValueError, which names one, for ids that it does not have."""
    index_of = {name: index for index, name in enumerate(data.ids)}
    if unknown := [name for name in ids if name not in index_of]:
        raise ValueError(f"predictions: {len(unknown)} ids are not in the dataset, such as {unknown[0]!r}")
    return np.array([index_of[name] for name in ids], dtype=np.int64)


def load_images(load: LoadImages, index: NDArray[np.int64], recipe: Recipe) -> Tensor:
    """Load images of a dataset in the order of index, (N, 3, S, S) float32.

    Raises ValueError for a loader of another recipe.
    """
    with load(index) as loader:
        if loader.recipe != recipe:
            raise ValueError(f"load: its loader has recipe {loader.recipe.name}, expected {recipe.name} as given")
        batches = list(loader)
    order = torch.cat([batch.index for batch in batches]).argsort()
    return torch.cat([batch.images for batch in batches]).float()[order]


def _check_same(probabilities: Tensor, confidence: NDArray[np.float64]) -> None:
    gap = float(np.median(np.abs(probabilities.cpu().numpy() - confidence)))
    if gap > _LARGEST_GAP:
        raise ValueError(
            f"model: its probabilities differ from those of the predictions by {gap:.2f} in the median, expected the "
            "model and the images that gave them"
        )


def _boxes(data: Dataset, index: int, recipe: Recipe) -> list[tuple[float, float, float, float]] | None:
    if data.annotation_path(index) is None:
        return None
    with open_image(data.paths[index]) as image:  # reads the header alone
        width, height = image.size
    try:
        boxes = data.boxes(index, (width, height))
    except DatasetError:  # which the pass over the files has named
        return None
    if not boxes:
        return None
    return [box_on_crop(box, (height, width), recipe) for box in boxes]


def _score(
    model: nn.Module, explainer: Explainer, explained: _Explained, seed: int, num_draws: int
) -> dict[str, dict[str, list[float | None]]]:
    """Score the maps of each image, by method and column."""
    if num_draws < 1:
        raise ValueError(f"num_draws: got {num_draws}, expected an integer >= 1")
    generator = torch.Generator().manual_seed(seed)
    across, num = patches_across(explainer.grid), len(explained.images)

    def fall(patches: Tensor) -> Tensor:
        changed = without_patches(explained.images, patches)
        return (explained.probabilities - class_probabilities(model, changed, explained.classes)).cpu().double()

    def mean_fall(draw: Callable[[], Tensor]) -> Tensor:
        return torch.stack([fall(draw()) for _ in range(num_draws)]).mean(dim=0)

    at_random = mean_fall(lambda: random_patches(num, across, REMOVED_SHARE, generator))
    covers = [None if boxes is None else box_cover(boxes, explained.images.shape[-1]) for boxes in explained.boxes]
    scores: dict[str, dict[str, list[float | None]]] = {}
    for method, heat in explained.heat.items():
        hottest = hottest_patches(heat, across, REMOVED_SHARE, generator)
        shifted = mean_fall(lambda hottest=hottest: shifted_patches(hottest, generator))  # type: ignore[misc]
        inside = [
            None if cover is None else heat_inside(own, cover) for own, cover in zip(heat.cpu(), covers, strict=True)
        ]
        scores[method] = {
            "drop_hottest": fall(hottest).tolist(),
            "drop_random": at_random.tolist(),
            "heat_in_box": inside,
            "box_share": [None if cover is None else float(cover.mean()) for cover in covers],
            "drop_shifted": shifted.tolist(),
        }
    return scores


def _describe_removal(explainer: Explainer, num_draws: int, noun: str) -> dict[str, Any]:
    across = patches_across(explainer.grid)
    removed = num_removed(across, REMOVED_SHARE)
    return {
        "what": f"fall of the predicted {noun}'s probability when parts are replaced by the image's mean colour",
        "patches": [across, across],
        "share": removed / across**2,
        "drop_hottest": f"without the {removed} patches of {across**2} with the most heat",
        "drop_random": f"without {removed} patches at random, mean of {num_draws} draws",
        "drop_shifted": "without the hottest patches' shape, moved to a random place, mean of "
        f"{num_draws} draws: its pieces hang together as the hottest ones do",
    }


def _table(
    explainer: Explainer,
    explained: _Explained,
    scores: dict[str, dict[str, list[float | None]]],
    rows: Sequence[tuple[str, int]],
) -> pd.DataFrame:
    records = [
        {
            "id": explained.ids[row],
            "group": group,
            "true_class": explained.true_class[row],
            "pred_class": explained.pred_class[row],
            "confidence": explained.confidence[row],
            "method": method,
            **{column: values[row] for column, values in scores[method].items()},
        }
        for group, row in rows
        for method in explainer.methods
    ]
    columns = [
        "id", "group", "true_class", "pred_class", "confidence", "method", "drop_hottest", "drop_random",
        "heat_in_box", "box_share", "drop_shifted",
    ]  # fmt: skip
    return pd.DataFrame(records, columns=columns)


def _summary(table: pd.DataFrame) -> dict[str, Any]:
    """Means over the sample, the differences within each image, and what they show."""

    def values(column: str) -> NDArray[np.float64]:
        return table[column].to_numpy(dtype=np.float64)

    boxed = table["heat_in_box"].notna().to_numpy()
    against_random = mean_with_interval(values("drop_hottest") - values("drop_random"))
    against_shifted = mean_with_interval(values("drop_hottest") - values("drop_shifted"))
    return {
        **{name: mean_with_interval(values(name)) for name in ("drop_hottest", "drop_random", "drop_shifted")},
        "hottest_less_random": against_random,
        "verdict": removal_verdict(against_random),
        "hottest_less_shifted": against_shifted,
        "verdict_shifted": removal_verdict(against_shifted),
        **{name: mean_with_interval(values(name)[boxed]) for name in ("heat_in_box", "box_share")},
        "heat_less_box_share": mean_with_interval((values("heat_in_box") - values("box_share"))[boxed]),
    }


def _write_drawings(
    folder: Path, explainer: Explainer, explained: _Explained, chosen: Chosen, title: str
) -> list[Path]:
    heat = {method: scale_to_unit(each).cpu().numpy() for method, each in explained.heat.items()}
    drawings: dict[str, Drawing] = {}
    every = []
    for group, position in chosen.drawn:
        row = explained.at[position]
        drawing = Drawing(
            group=group,
            pixels=explained.pixels[row],
            heat={method: each[row] for method, each in heat.items()},
            boxes=explained.boxes[row] or [],
            true_class=explained.true_class[row],
            pred_class=explained.pred_class[row],
            confidence=float(explained.confidence[row]),
        )
        drawings[explained.ids[row]] = drawing
        every.append(drawing)
    single = folder / EXPLANATIONS_FOLDER
    paths = [save_picture(drawing.strip(), single / picture_name(name)) for name, drawing in drawings.items()]
    gallery = folder / GALLERY[explainer.describe()["method"]]
    return [*paths, save_figure(explanation_figure(every, title), gallery)]
