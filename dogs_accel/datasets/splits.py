"""Training, validation and test indices: the published split, reproducible from a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

OFFICIAL_TRAIN = "official_train"
OFFICIAL_TEST = "official_test"
SPLITS = ("train", "val", "test")


def split_indices(
    labels: np.ndarray,
    official_split: Sequence[str],
    split: str,
    *,
    seed: int = 42,
    val_ratio: float = 0.15,
    class_names: Sequence[str] | None = None,
) -> np.ndarray:
    """Give the indices of one split as (n,) int64, into a dataset of N images.

    Train and val share the official training images, divided by `stratified_split` and in the shuffled order that it
    gives; test is the official test images in their own order. `labels` is (N,) int64; `class_names` serves error
    messages. Raises ValueError for an unknown split, a bad ratio or seed, or a class with too few images.
    Definition: the published experiment.
    """
    if split not in SPLITS:
        raise ValueError(f"split: got {split!r}, expected one of {', '.join(SPLITS)}")
    if len(labels) != len(official_split):
        raise ValueError(f"official_split: got {len(official_split)} entries, expected one per label ({len(labels)})")
    official = np.asarray(official_split)
    if split == "test":
        return np.flatnonzero(official == OFFICIAL_TEST)
    candidates = np.flatnonzero(official == OFFICIAL_TRAIN)
    train, val = stratified_split(
        np.asarray(labels)[candidates], seed=seed, val_ratio=val_ratio, class_names=class_names
    )
    return candidates[train if split == "train" else val]


def stratified_split(
    labels: np.ndarray, *, seed: int = 42, val_ratio: float = 0.15, class_names: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Divide images into train and validation positions, each class in the same proportion.

    `labels` is (n,) int64; gives two int64 arrays of positions, ceil(n * val_ratio) of them for validation, in
    scikit-learn's shuffled order. Every class is sure of an image on both sides, whatever the seed; ValueError where
    a class has too few for that, or where ratio or seed are not usable.
    Definition: scikit-learn's StratifiedShuffleSplit with one split, as in the published experiment.
    """
    if not 0.0 < val_ratio < 1.0:
        raise ValueError(f"val_ratio: got {val_ratio}, expected a number between 0 and 1, both excluded")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed: got {seed}, expected an integer in 0..{2**32 - 1}")
    labels = np.asarray(labels)
    _check_class_sizes(labels, val_ratio, class_names)
    # Imported here: it takes a second, which a command that never splits should not pay.
    from sklearn.model_selection import StratifiedShuffleSplit

    splitter = StratifiedShuffleSplit(n_splits=1, test_size=val_ratio, random_state=seed)
    train, val = next(splitter.split(np.zeros(len(labels)), labels))
    return train.astype(np.int64), val.astype(np.int64)


def _check_class_sizes(labels: np.ndarray, val_ratio: float, class_names: Sequence[str] | None) -> None:
    """Refuse a split that could leave a class without an image on one side.

    A class gets at least floor(its share) on each side; what rounding leaves over is dealt out by the seed, so a
    class below one whole image would be in validation for some seeds and not for others.
    """
    if len(labels) == 0:
        raise ValueError("labels: got no official training images, expected at least 2 a class")
    classes, counts = np.unique(labels, return_counts=True)
    total = len(labels)
    num_val = math.ceil(total * val_ratio)
    smaller_side = min(num_val, total - num_val)
    smallest = int(counts.argmin())
    count, label = int(counts[smallest]), int(classes[smallest])
    if count >= 2 and count * smaller_side >= total:
        return
    name = f"class {label}" if class_names is None else f"class {class_names[label]!r}"
    side = "validation" if num_val <= total - num_val else "training"
    needed = max(2, math.ceil(total / smaller_side)) if smaller_side else "more"
    # From 3 images on there is a ratio that is large enough for the class and leaves it more to train on.
    hint = f"; val_ratio {math.ceil(1000 / count) / 1000:g} would do" if count >= 3 else ""
    raise ValueError(
        f"{name}: got {count} training images, expected at least {needed} to be sure of one in {side} "
        f"({num_val} of {total} images, {len(classes)} classes, val_ratio {val_ratio:g}){hint}"
    )
