"""Pictures of what a run answers, right and wrong, each photo as the model was fed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dogs_accel.evaluation.mistakes import misclassified_table
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.plots import draw_cell, own_look, save_figure, shortened, title_figure
from dogs_accel.runtime.files import write_csv
from pipelines import BadImageError, Recipe
from pipelines.augmentation import draw_params
from pipelines.decoding.pil import open_rgb
from pipelines.torchloader import crop_image, resize_image

MISCLASSIFIED_FILE, MISCLASSIFIED_FIGURE = "misclassified.csv", "misclassified_gallery.png"
PREDICTION_GRID_FIGURE = "prediction_grid.png"
GRID_COLUMNS, GRID_ROWS = 10, 3
_RIGHT, _WRONG = ("#1b7837", "right"), ("#b2182b", "wrong")
"""Colour of a frame, and the word below the picture, since colour alone does not tell everybody."""
_LONGEST_IN_GRID = 18
_PAIRS_A_LINE = 3
_LONGEST_NAME = 26


def fed_image(path: str, recipe: Recipe) -> NDArray[np.uint8]:
    """Give the pixels that a model is fed of a file before they are normalised, (crop, crop, 3), by the reference.

    Raises ValueError for a recipe that is random, and BadImageError for a file that cannot be decoded.
    """
    if recipe.is_random:
        raise ValueError(f"recipe: got {recipe.name}, which is random, expected one of evaluation")
    image = resize_image(open_rgb(path), recipe)
    sizes = np.array([[image.height, image.width]], dtype=np.int64)
    box = draw_params(recipe, sizes, seed=0, epoch=0, index=np.zeros(1, dtype=np.int64)).crop[0].tolist()
    return np.asarray(crop_image(image, recipe, box))


def _picture(path: str, recipe: Recipe, absent: str) -> NDArray[Any] | str:
    """Give the picture of a cell, or the words that stand there instead."""
    if not path:
        return absent
    if not Path(path).is_file():
        return "not found"
    try:
        return fed_image(path, recipe)
    except BadImageError:
        return "not readable"


@own_look()
def misclassified_figure(table: pd.DataFrame, recipe: Recipe, title: str) -> Figure:
    """Draw the rows of misclassified.csv as pairs: the mistake, and a training image of the class it was taken for.

    Both are drawn as the model is fed them. Raises ValueError for a table without rows.
    """
    if table.empty:
        raise ValueError("table: got no rows, expected at least one mistake")
    pairs = min(_PAIRS_A_LINE, len(table))
    lines = -(-len(table) // pairs)
    figure = Figure(figsize=(4.9 * pairs, 3.05 * lines + 0.8), layout="constrained")
    title_figure(figure, title, 13)
    blocks = figure.subfigures(lines, pairs, squeeze=False, wspace=0.04).ravel()
    for block, (_, row) in zip(blocks, table.iterrows(), strict=False):
        wrong, example = block.subplots(1, 2)
        draw_cell(wrong, _picture(row["image_path"], recipe, "not in the metadata"))
        draw_cell(example, _picture(row["example_path"], recipe, "no training image"))
        true, predicted = (shortened(row[name], _LONGEST_NAME) for name in ("true_class", "pred_class"))
        wrong.set_title(true, fontsize=10, parse_math=False)
        wrong.set_xlabel(f"taken for {predicted}\nat {row['confidence']:.1%}", fontsize=9, parse_math=False)
        example.set_title(predicted, fontsize=10, parse_math=False)
        example.set_xlabel("training image\n", fontsize=9)
    return figure


def write_misclassified(
    folder: Path,
    predictions: Predictions,
    class_names: Sequence[str],
    splits: pd.DataFrame,
    recipe: Recipe,
    title: str,
) -> list[Path]:
    """Write misclassified.csv and misclassified_gallery.png of a run's test split; without a mistake no picture.

    splits: the rows of split_metadata.csv; recipe: that of evaluation.
    """
    table = misclassified_table(predictions, class_names, splits)
    written = [write_csv(folder / MISCLASSIFIED_FILE, table)]
    if table.empty:
        (folder / MISCLASSIFIED_FIGURE).unlink(missing_ok=True)  # that of an earlier call would be taken for this one's
        return written
    total = int((predictions.predicted != predictions.labels).sum())
    which = f"the {len(table)} most confident of {total:,} mistakes" if total > 1 else "the only mistake"
    figure = misclassified_figure(table, recipe, f"{title}\n{which} on {len(predictions.labels):,} test images")
    return [*written, save_figure(figure, folder / MISCLASSIFIED_FIGURE)]


def balanced_sample(labels: NDArray[np.int64], num: int, seed: int) -> NDArray[np.int64]:
    """Choose up to `num` positions in labels (N,), of each class as many as of any other or one more.

    Classes and images are drawn by the seed; where there are more classes than positions, each chosen class has one.
    The positions are in the order of their labels, those of a class as they were drawn.
    """
    chance = np.random.default_rng(seed)
    drawn = [chance.permutation(np.flatnonzero(labels == label)) for label in chance.permutation(np.unique(labels))]
    turns = [own[turn] for turn in range(max(map(len, drawn), default=0)) for own in drawn if turn < len(own)]
    chosen = np.array(turns[:num], dtype=np.int64)
    return chosen[np.argsort(labels[chosen], kind="stable")]


@own_look()
def prediction_grid(
    predictions: Predictions,
    class_names: Sequence[str],
    paths: Mapping[str, str],
    recipe: Recipe,
    title: str,
    seed: int,
) -> Figure:
    """Draw GRID_COLUMNS x GRID_ROWS images of a split, balanced over its classes, each with its class and the answer.

    paths: of the images by their ids; recipe: that of evaluation.
    """
    chosen = balanced_sample(predictions.labels, GRID_COLUMNS * GRID_ROWS, seed)
    columns = min(GRID_COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(1.75 * columns, 2.35 * rows + 0.7), layout="constrained")
    cells = figure.subplots(rows, columns, squeeze=False)
    for axes in cells.ravel()[len(chosen) :]:
        axes.set_axis_off()
    # Down the columns, so that images of a class stand below each other where there are ten classes.
    places = [cell for column in cells.T for cell in column if cell.axison][: len(chosen)]
    num_right = 0
    for axes, at in zip(places, chosen.tolist(), strict=True):
        is_right = predictions.predicted[at] == predictions.labels[at]
        num_right += int(is_right)
        colour, word = _RIGHT if is_right else _WRONG
        draw_cell(axes, _picture(paths.get(str(predictions.ids[at]), ""), recipe, "not in the metadata"))
        axes.spines[:].set(visible=True, color=colour, linewidth=2.5)
        true, answer = (
            shortened(class_names[label], _LONGEST_IN_GRID)
            for label in (predictions.labels[at], predictions.predicted[at])
        )
        axes.set_title(true, fontsize=8, parse_math=False)
        said = word if is_right else f"{word}: {answer}"
        axes.set_xlabel(f"{said}\n{predictions.confidence[at]:.0%}", fontsize=8, color=colour, parse_math=False)
    head = f"{title}\n{len(chosen)} test images balanced over the classes: {num_right} right"
    title_figure(figure, head, 12)
    return figure


def write_prediction_grid(
    folder: Path,
    predictions: Predictions,
    class_names: Sequence[str],
    splits: pd.DataFrame,
    recipe: Recipe,
    title: str,
    seed: int,
) -> Path:
    """Write prediction_grid.png of a run's test split; splits: the rows of split_metadata.csv."""
    paths = dict(zip(splits["image_id"], splits["image_path"], strict=True))
    return save_figure(
        prediction_grid(predictions, class_names, paths, recipe, title, seed), folder / PREDICTION_GRID_FIGURE
    )
