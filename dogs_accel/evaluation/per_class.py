"""Precision, recall and F1 of each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Precision, recall and F1 of each class, (C,) float64; NaN where a score is not defined."""

    precision: NDArray[np.float64]
    """NaN where the class was never predicted."""
    recall: NDArray[np.float64]
    """NaN without a test image of the class."""
    f1: NDArray[np.float64]
    """NaN without a test image of the class."""
    num_images: NDArray[np.int64]


def class_scores(counts: NDArray[np.int64]) -> ClassScores:
    """Score each class of a confusion matrix (C, C), rows true.

    F1 is 2 TP / (2 TP + FP + FN), so 0 for a class that has images and is never predicted.
    """
    right, images, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    return ClassScores(
        precision=_ratio(right, predicted),
        recall=_ratio(right, images),
        f1=np.where(images > 0, _ratio(2 * right, images + predicted), np.nan),
        num_images=images.astype(np.int64),
    )


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
