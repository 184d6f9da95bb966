"""The mistakes of a run: the most confident ones, and the classes that are taken for each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from dogs_accel.evaluation.predictions import Predictions

NUM_SHOWN = 12
"""Mistakes of misclassified.csv and its gallery."""
CLUSTER_SHARE = 0.03
"""Classes belong together where, on average over their pairs, this share of two classes' images is mistaken."""

_MISTAKE_COLUMNS = ("id", "image_path", "true_class", "pred_class", "confidence", "example_path")
_CLUSTER_COLUMNS = ("cluster", "classes", "num_confusions", "share_of_mistakes")


def confident_mistakes(predictions: Predictions, num: int = NUM_SHOWN) -> NDArray[np.int64]:
    """Choose the positions of up to `num` mistakes, the most confident first, equals in their order."""
    wrong = np.flatnonzero(predictions.predicted != predictions.labels)
    return wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:num]


def misclassified_table(
    predictions: Predictions, class_names: Sequence[str], splits: pd.DataFrame, num: int = NUM_SHOWN
) -> pd.DataFrame:
    """Tabulate the most confident mistakes, each with a training image of the class that was predicted.

    splits: the rows of split_metadata.csv. Columns: id, image_path, true_class, pred_class, confidence, example_path;
    the n-th mistake for a class has its n-th training image, and a path is empty where the table has no such image.
    """
    paths = dict(zip(splits["image_id"], splits["image_path"], strict=True))
    train = splits[splits["split"] == "train"]
    examples = {label: list(rows) for label, rows in train.groupby("label")["image_path"]}
    confidence, num_before = predictions.confidence, dict.fromkeys(examples, 0)
    rows: list[tuple[Any, ...]] = []
    for at in confident_mistakes(predictions, num):
        name, label = str(predictions.ids[at]), int(predictions.predicted[at])
        example = ""
        if label in examples:
            example = examples[label][num_before[label] % len(examples[label])]
            num_before[label] += 1
        true = class_names[predictions.labels[at]]
        rows.append((name, paths.get(name, ""), true, class_names[label], confidence[at], example))
    return pd.DataFrame(rows, columns=list(_MISTAKE_COLUMNS))


def confusion_clusters(
    counts: NDArray[np.int64], class_names: Sequence[str], share: float = CLUSTER_SHARE
) -> pd.DataFrame:
    """Group the classes of a confusion matrix (C, C), rows true, that are mistaken for each other.

    The confusion of two classes is the share of their test images that is taken for the other one, in both directions
    together. Average linkage (UPGMA: Sokal and Michener, 1958; scipy's) joins the classes by 1 - confusion, and groups
    whose pairs are confused in `share` or more on average are one. Columns: cluster (from 1), classes (in the order of
    their labels, "; " between them), num_confusions (mistakes from one class of the group to another) and
    share_of_mistakes; most confusions first, equals by their first class. Classes that stay alone are left out.
    """
    mistakes = counts.copy()
    np.fill_diagonal(mistakes, 0)
    groups: list[tuple[int, NDArray[np.int64]]] = []
    for members in _joined(counts, mistakes, share):
        inside = int(mistakes[np.ix_(members, members)].sum())
        groups.append((inside, members))
    groups.sort(key=lambda group: (-group[0], group[1][0]))
    rows = [
        (number, "; ".join(class_names[label] for label in members), inside, inside / mistakes.sum())
        for number, (inside, members) in enumerate(groups, start=1)
    ]
    return pd.DataFrame(rows, columns=list(_CLUSTER_COLUMNS))


def _joined(counts: NDArray[np.int64], mistakes: NDArray[np.int64], share: float) -> list[NDArray[np.int64]]:
    """Labels of each group of two classes or more."""
    if len(counts) < 2:
        return []
    images = counts.sum(axis=1)
    confusion = (mistakes + mistakes.T) / np.maximum(images[:, None] + images[None, :], 1)
    distance = 1 - confusion
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), method="average")
    # Rounding must not part a pair that is confused in exactly this share.
    group = fcluster(tree, t=1 - share + 1e-9, criterion="distance")
    members = [np.flatnonzero(group == number) for number in np.unique(group)]
    return [each for each in members if len(each) > 1]


def most_confused(counts: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Choose at most so many classes, those with the most mistakes between them: their labels, in order.

    counts: (C, C), rows true. From all classes the one with the fewest mistakes to and from the others that are left is
    taken out again and again, the last of equals first (Charikar, "Greedy approximation algorithms for finding dense
    components in a graph", APPROX 2000).
    """
    between = counts + counts.T
    np.fill_diagonal(between, 0)
    degree = between.sum(axis=1)
    kept = np.ones(len(counts), dtype=bool)
    for _ in range(len(counts) - most):
        candidates = np.flatnonzero(kept)
        out = candidates[len(candidates) - 1 - np.argmin(degree[candidates][::-1])]
        kept[out] = False
        degree = degree - between[out]
    return np.flatnonzero(kept)
