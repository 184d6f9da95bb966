"""The feature maps that a run has kept, coloured, for the page where run, stage and image are chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dogs_accel.explain.inside.inspection import FEATURE_MAP_ARRAYS_FILE, FEATURE_MAPS_FILE, LEVELS
from dogs_accel.report.explorer.media import Media
from dogs_accel.report.pictures import webp
from dogs_accel.report.summary import RunView
from dogs_accel.results.reading import read_arrays

_MAP_COLOURS = "inferno"
"""Of heat maps too, from dark to yellow."""
_CROP_PX = 224
"""Side of a crop, at most."""
_GROUPS = ("active", "separating")


def feature_map_data(view: RunView, media: Media) -> dict[str, Any]:
    """Pack the feature maps of a run: its images, what the model was fed of them, and the maps of each stage.

    Of each stage one picture has a row an image and a column a channel, the active ones before the separating ones; the
    crops are one picture too, side by side. area: left, top, width and height of a map as shares of the crop, by the
    places of its cells. Without maps `reason` says why. Raises ValueError, naming the file, for arrays that are not
    those of the description.
    """
    content, arrays = view.run.content(FEATURE_MAPS_FILE), view.run.once(FEATURE_MAP_ARRAYS_FILE, read_arrays)
    if content is None or arrays is None:
        return {"reason": (content or {}).get("reason", "this run has kept none"), "stages": []}
    try:
        return {
            "reason": "",
            "ids": [each["id"] for each in content["images"]],
            "classes": content["classes"],
            "measures": content["measures"],
            "levels": LEVELS,
            "crops": media.add(f"crops_{view.id}", _crops(arrays["crops"])),
            "stages": [
                _stage(stage, number, content["image_size"], arrays, f"stage_{view.id}_{number}", media)
                for number, stage in enumerate(content["stages"])
            ],
        }
    except (LookupError, TypeError) as error:
        path = Path(view.run.folder / FEATURE_MAPS_FILE)
        raise ValueError(f"{path}: not the feature maps of a run ({type(error).__name__}: {error})") from error


def _crops(crops: NDArray[np.uint8]) -> bytes:
    """Lay crops (N, S, S, 3) side by side."""
    side = min(_CROP_PX, crops.shape[1])
    row = Image.new("RGB", (side * len(crops), side))
    for at, crop in enumerate(crops):
        row.paste(Image.fromarray(crop).resize((side, side), Image.Resampling.LANCZOS), (side * at, 0))
    return webp(row)


def _stage(
    stage: dict[str, Any], number: int, image_size: int, arrays: dict[str, NDArray[Any]], name: str, media: Media
) -> dict[str, Any]:
    levels = np.concatenate([arrays[f"{group}_{number}"] for group in _GROUPS], axis=1)
    places, (rows, columns) = stage["cells_px"], stage["cells"]
    down, across = (first - places["step"] / 2 for first in places["first_centre"])
    return {
        "name": stage["name"],
        "kind": stage["kind"],
        "channels": stage["channels"],
        "cells": stage["cells"],
        "active": stage["active"],
        "separating": stage["separating"],
        "area": [part / image_size for part in (across, down, columns * places["step"], rows * places["step"])],
        "picture": media.add(name, coloured_maps(levels)),
    }


def coloured_maps(levels: NDArray[np.uint8]) -> bytes:
    """Colour maps (N, K, h, w) of levels: a row an image, a column a channel, without a loss."""
    num, channels, height, width = levels.shape
    table = np.rint(255 * matplotlib.colormaps[_MAP_COLOURS](np.arange(256))[:, :3]).astype(np.uint8)
    grid = levels.transpose(0, 2, 1, 3).reshape(num * height, channels * width)
    return webp(Image.fromarray(table[grid]), quality=None)
