"""Pictures of a dataset: samples, extremes, and a batch as the model gets it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from dogs_accel.plots import draw_cell, own_look, shortened
from pipelines import BadImageError, Recipe
from pipelines.decoding.pil import decode_rgb

NUM_AUGMENTED = 8
_GALLERY_COLUMNS = 4
_THUMBNAIL_PX = 384


def random_class_samples(quality: pd.DataFrame, *, seed: int = 42, num: int = 12) -> pd.DataFrame:
    """Choose up to `num` classes and one image of each, by label; the seed chooses both."""
    random = np.random.default_rng(seed)
    labels = np.unique(quality["label"].to_numpy())
    chosen = np.sort(random.choice(labels, size=min(num, len(labels)), replace=False))
    rows = [random.choice(np.flatnonzero(quality["label"] == label)) for label in chosen]
    return quality.iloc[rows]


def brightness_extremes(quality: pd.DataFrame, *, darkest: bool, num: int = 8) -> pd.DataFrame:
    """Choose up to `num` images of lowest or highest brightness_mean, the most extreme first, equals as they come."""
    return quality.sort_values("brightness_mean", ascending=darkest, kind="stable").head(num)


@own_look()
def photos_figure(rows: pd.DataFrame, captions: Sequence[str], title: str) -> Figure:
    """Draw the images of the rows, in their order, four to a line; one that cannot be read is a cell that says so."""
    return _grid_figure([_thumbnail(Path(path)) for path in rows["image_path"]], captions, title)


@own_look()
def augmented_batch_figure(images: Tensor, recipe: Recipe, names: Sequence[str]) -> Figure:
    """Draw the first 8 images of a batch of the recipe as the model gets them, normalisation undone.

    `images` is (B, 3, H, W) of any float dtype, on any device; `names` are its B classes. Raises ValueError for another
    shape or number of names.
    """
    if images.ndim != 4 or images.shape[1] != 3 or len(images) == 0:
        raise ValueError(f"images: got shape {tuple(images.shape)}, expected (B, 3, H, W) with B >= 1")
    if len(names) != len(images):
        raise ValueError(f"names: got {len(names)}, expected one per image ({len(images)})")
    shown = images[:NUM_AUGMENTED].detach().float().cpu().permute(0, 2, 3, 1).numpy()
    pictures = np.clip(shown * np.asarray(recipe.std) + np.asarray(recipe.mean), 0, 1)
    title = f"Training images as the model gets them: recipe {recipe.name}, {recipe.crop} px"
    return _grid_figure(list(pictures), [shortened(name, 30) for name in names[:NUM_AUGMENTED]], title)


def _thumbnail(path: Path) -> NDArray[Any] | str:
    """Give a small RGB image (H, W, 3) of the file's aspect ratio, or why there is none."""
    if not path.is_file():
        return "not found"
    try:
        image = decode_rgb(str(path))
    except BadImageError:
        return "not readable"
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    return np.asarray(image)


@own_look()
def _grid_figure(pictures: Sequence[NDArray[Any] | str], captions: Sequence[str], title: str) -> Figure:
    columns = min(_GALLERY_COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    lines = max(caption.count("\n") + 1 for caption in captions)
    figure = Figure(figsize=(2.6 * columns, (2.57 + 0.19 * lines) * rows + 0.45), layout="constrained")
    figure.suptitle(title, fontsize=13)
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, picture, caption in zip(cells, pictures, captions, strict=False):
        draw_cell(axes, picture)
        axes.set_xlabel(caption, fontsize=9.5, parse_math=False)
    for axes in cells[len(pictures) :]:
        axes.set_axis_off()
    return figure
