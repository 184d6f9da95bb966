"""What runs answered to each test image, from their saved logits, and what was measured on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from dogs_accel.eda.files import METADATA_FILE
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.evaluation.quality_error import QUANTITIES, tenth_of
from dogs_accel.report.summary import RunView
from dogs_accel.results.folder import RunsFolder

TOP_SHOWN = 5
"""Classes of an answer, at most."""
LEAST_SHOWN = 0.005
"""Probability below which a class is left out, but for the answer."""
PARTS_OF_ONE = 10_000
"""Of which probabilities are whole numbers."""
_THOUSANDTHS = 1_000
"""In which qualities between 0 and 1 are written."""
_NO_TENTH = -1


@dataclass(frozen=True, eq=False)
class ExploredImages:
    """The test images of some runs, by class and in the order in which they were tested."""

    ids: NDArray[np.str_]
    """(N,)"""
    labels: NDArray[np.int64]
    """(N,)"""

    def places(self, ids: NDArray[np.str_]) -> NDArray[np.int64]:
        """Find where some of these images stand."""
        order = np.argsort(self.ids)
        found: NDArray[np.int64] = order[np.searchsorted(self.ids, ids, sorter=order)]
        return found


def explored_images(views: Sequence[RunView]) -> ExploredImages:
    """Gather the images that any of the runs was tested on.

    Raises ValueError where two runs have an image in different classes.
    """
    label_of: dict[str, int] = {}
    for view in views:
        test = view.run.predictions("test")
        for image_id, label in zip(test.ids.tolist(), test.labels.tolist(), strict=True):
            if label_of.setdefault(image_id, label) != label:
                raise ValueError(
                    f"{view.label}: test image {image_id!r} is of class {label}, expected {label_of[image_id]} as in "
                    "the runs before it"
                )
    labels = np.fromiter(label_of.values(), dtype=np.int64, count=len(label_of))
    order = np.argsort(labels, kind="stable")
    return ExploredImages(np.array(list(label_of), dtype=np.str_)[order], labels[order])


def answers_of(predictions: Predictions, images: ExploredImages) -> dict[str, list[Any]]:
    """Pack what a run answered, an entry an image, None of one that it was not tested on.

    top: the classes of largest softmax probability at temperature 1, the answer first, each followed by its probability
    in parts of PARTS_OF_ONE; true: the probability of the image's own class; rank: its place, 1 where the answer is
    right, with equals in the order of the classes. A probability that is no number is None.
    """
    probabilities = torch.from_numpy(predictions.logits).double().softmax(dim=1).numpy()
    parts = np.rint(probabilities * PARTS_OF_ONE)
    # Equals in their order, as the answer is the first of equals.
    order = np.argsort(-predictions.logits, axis=1, kind="stable")
    rank = (order == predictions.labels[:, None]).argmax(axis=1) + 1
    packed: dict[str, list[Any]] = {name: [None] * len(images.ids) for name in ("top", "true", "rank")}
    for row, place in enumerate(images.places(predictions.ids).tolist()):
        if not np.isfinite(probabilities[row]).all():
            packed["top"][place] = [int(predictions.predicted[row]), None]
            continue
        top: list[int] = []
        for label in order[row, :TOP_SHOWN].tolist():
            if not top or probabilities[row, label] >= LEAST_SHOWN:
                top += [label, int(parts[row, label])]
        packed["top"][place] = top
        packed["true"][place] = int(parts[row, predictions.labels[row]])
        packed["rank"][place] = int(rank[row])
    return packed


def image_rows(folder: RunsFolder, images: ExploredImages) -> pd.DataFrame:
    """Find the rows of metadata_with_quality.csv of the images, in their order; one that it lacks has empty cells."""
    table = folder.table(METADATA_FILE)
    columns = ["image_id", "image_path", "width", "height", *(column for column, *_ in QUANTITIES.values())]
    if table is None:
        return pd.DataFrame(index=images.ids, columns=columns[1:])
    rows = table.reindex(columns=columns).drop_duplicates("image_id").set_index("image_id")
    return rows.assign(area_px=rows["width"] * rows["height"]).reindex(images.ids)


def quality_data(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Pack what was measured on the images: each quantity with its words, values and tenths.

    Tenths are from 0, the lowest, and None as the value is where nothing was measured, or where all values are equal.
    Quantities that were measured on no image are left out; those between 0 and 1 are in thousandths, areas in px.
    """
    packed = []
    for name, (column, lowest, highest, meaning) in QUANTITIES.items():
        values = rows[column].to_numpy(dtype=np.float64)
        known = np.isfinite(values)
        if not known.any():
            continue
        scale = 1 if column == "area_px" else _THOUSANDTHS
        tenths = np.full(len(values), _NO_TENTH)
        if np.ptp(values[known]):
            tenths[known] = tenth_of(values[known])
        packed.append(
            {
                "name": name,
                "lowest": lowest,
                "highest": highest,
                "meaning": meaning,
                "scale": scale,
                "values": [round(value * scale) if ok else None for value, ok in zip(values, known, strict=True)],
                "tenths": [None if tenth == _NO_TENTH else tenth for tenth in tenths.tolist()],
            }
        )
    return packed
