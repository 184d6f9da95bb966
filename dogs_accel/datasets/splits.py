"""Training, validation and test indices: the official parts, and what is carved out of them, from a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

OFFICIAL_TRAIN, OFFICIAL_VAL, OFFICIAL_TEST, NO_OFFICIAL_PART = OFFICIAL_PARTS = (
    "official_train", "official_val", "official_test", "none",
)  # fmt: skip
"""Which part of the data an image belongs to by its publisher."""
SPLITS = ("train", "val", "test")


def split_indices(
    labels: np.ndarray,
    official_split: Sequence[str],
    split: str,
    *,
    seed: int = 42,
    val_ratio: float = 0.15,
    test_ratio: float = 0.2,
    class_names: Sequence[str] | None = None,
) -> np.ndarray:
    """Give the indices of one split as (n,) int64, into a dataset of N images.

    Official parts are taken as they are, in their own order; what there is no part for is carved out of training by
    `stratified_split`, test first, and those two are in the shuffled order that it gives. Images of no official part
    are training images. `labels` is (N,) int64; `class_names` serves error messages. Raises ValueError for an unknown
    split, a bad ratio or seed, or a class with too few images.
    Definition: with official training and test images, the published experiment's.
    """
    if split not in SPLITS:
        raise ValueError(f"split: got {split!r}, expected one of {', '.join(SPLITS)}")
    if len(labels) != len(official_split):
        raise ValueError(f"official_split: got {len(official_split)} entries, expected one per label ({len(labels)})")
    official, labels = np.asarray(official_split), np.asarray(labels)
    parts = {
        "test": np.flatnonzero(official == OFFICIAL_TEST),
        "val": np.flatnonzero(official == OFFICIAL_VAL),
        "train": np.flatnonzero((official == OFFICIAL_TRAIN) | (official == NO_OFFICIAL_PART)),
    }
    for carved, ratio in (("test", test_ratio), ("val", val_ratio)):
        if len(parts[carved]) == 0:
            candidates = parts["train"]
            rest, taken = stratified_split(
                labels[candidates], seed=seed, ratio=ratio, class_names=class_names, part=carved
            )
            parts["train"], parts[carved] = candidates[rest], candidates[taken]
        if split == carved:
            break
    return parts[split]


def describe_carving(
    official_split: Sequence[str], *, seed: int = 42, val_ratio: float = 0.15, test_ratio: float = 0.2
) -> str:
    """Say which splits are official and which are carved out, as `split_indices` does it."""
    official = set(official_split)
    named = {"train": OFFICIAL_TRAIN, "validation": OFFICIAL_VAL, "test": OFFICIAL_TEST}
    ratios = {"test": test_ratio, "validation": val_ratio}
    given = [name for name, part in named.items() if part in official]
    carved = [f"{name} ({100 * ratios[name]:g} %)" for name in ("test", "validation") if name not in given]
    parts = [f"{_joined(given)} as the data have {'it' if len(given) == 1 else 'them'}"] if given else []
    if carved:
        source = "training" if OFFICIAL_TRAIN in official else "all"
        parts.append(f"{' and then '.join(carved)} carved out of {source}, seed {seed}, in each class alike")
    return "; ".join(parts)


def _joined(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def stratified_split(
    labels: np.ndarray,
    *,
    seed: int = 42,
    ratio: float = 0.15,
    class_names: Sequence[str] | None = None,
    part: str = "val",
) -> tuple[np.ndarray, np.ndarray]:
    """Divide images into the positions that stay and those of a part, each class in the same proportion.

    `labels` is (n,) int64; gives two int64 arrays of positions, ceil(n * ratio) of them for the part, in
    scikit-learn's shuffled order. Every class is sure of an image on both sides, whatever the seed; ValueError where
    a class has too few for that, or where ratio or seed are not usable. part: "val" or "test", for error messages.
    Definition: scikit-learn's StratifiedShuffleSplit with one split, as in the published experiment.
    """
    if not 0.0 < ratio < 1.0:
        raise ValueError(f"{part}_ratio: got {ratio}, expected a number between 0 and 1, both excluded")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed: got {seed}, expected an integer in 0..{2**32 - 1}")
    labels = np.asarray(labels)
    _check_class_sizes(labels, ratio, class_names, part)
    # Imported here: it takes a second, which a command that never splits should not pay.
    from sklearn.model_selection import StratifiedShuffleSplit

    splitter = StratifiedShuffleSplit(n_splits=1, test_size=ratio, random_state=seed)
    train, val = next(splitter.split(np.zeros(len(labels)), labels))
    return train.astype(np.int64), val.astype(np.int64)


def _check_class_sizes(labels: np.ndarray, ratio: float, class_names: Sequence[str] | None, part: str) -> None:
    """Refuse a split that could leave a class without an image on one side.

    A class gets at least floor(its share) on each side; what rounding leaves over is dealt out by the seed, so a
    class below one whole image would be in the part for some seeds and not for others.
    """
    if len(labels) == 0:
        raise ValueError("labels: got no training images, expected at least 2 a class")
    classes, counts = np.unique(labels, return_counts=True)
    total = len(labels)
    num_taken = math.ceil(total * ratio)
    smaller_side = min(num_taken, total - num_taken)
    smallest = int(counts.argmin())
    count, label = int(counts[smallest]), int(classes[smallest])
    if count >= 2 and count * smaller_side >= total:
        return
    name = f"class {label}" if class_names is None else f"class {class_names[label]!r}"
    taken = {"val": "validation"}.get(part, part)
    side = taken if num_taken <= total - num_taken else "training"
    needed = max(2, math.ceil(total / smaller_side)) if smaller_side else "more"
    # From 3 images on there is a ratio that is large enough for the class and leaves it more to train on.
    hint = f"; {part}_ratio {math.ceil(1000 / count) / 1000:g} would do" if count >= 3 else ""
    raise ValueError(
        f"{name}: got {count} training image{'' if count == 1 else 's'}, expected at least {needed} to be sure of one "
        f"in {side} "
        f"({num_taken} of {total} images, {len(classes)} classes, {part}_ratio {ratio:g}){hint}"
    )
