"""Caltech-256 as its archive unpacks: 256_ObjectCategories/001.ak47/001_0001.jpg, the last class of clutter."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dogs_accel.datasets.dataset import Dataset, DatasetError, DatasetNotFoundError, image_ids
from dogs_accel.datasets.facts import DatasetFacts
from dogs_accel.datasets.photos import counts_of, is_hidden_folder, photos_in
from dogs_accel.datasets.splits import OFFICIAL_TEST, OFFICIAL_TRAIN

FOLDER = "256_ObjectCategories"
TRAIN_PER_CLASS = 60
"""Training images a class, of which validation is carved out: the largest of the publisher's own experiments."""
_SEED = 256
"""Of the draw of the training images, which is the same whatever the seed of a benchmark."""
_MOST_SHARE = 2 / 3
"""Of a class that is smaller than the official ones, that is for training."""
_CLASS = re.compile(r"\d{3}\.(?P<name>.+)")
_OFFICIAL_SIZE = (30_607, 257)


def is_caltech256(root: str | os.PathLike[str]) -> bool:
    """Whether a folder holds 256_ObjectCategories, or is called so."""
    folder = Path(root).expanduser()
    return (folder / FOLDER).is_dir() or (folder.name == FOLDER and folder.is_dir())


def open_caltech256(root: str | os.PathLike[str]) -> Dataset:
    """Open a folder that holds Caltech-256, or a subset of it in the same layout.

    The class of a folder is what follows its number. There is no official split: TRAIN_PER_CLASS images of each class,
    drawn once and for all, are training (two thirds of a class that has fewer than 90), the others test. A class has
    the photos that lie in its folder; what lies in folders below it, as in 056.dog, is left out and counted.

    Raises DatasetNotFoundError where there is no photo, DatasetError where a folder is not called as a class is, and
    where there are too few classes or photos.
    Definition: Griffin, Holub and Perona, Caltech-256 object category dataset, 2007.
    """
    folder = Path(root).expanduser().resolve()
    images = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    left_out: Counter[str] = Counter()
    folders = sorted(path for path in images.iterdir() if path.is_dir() and not is_hidden_folder(path.name))
    found = {path.name: photos_in(path, left_out) for path in folders}
    folder_names = [name for name, photos in found.items() if photos]
    if not folder_names:
        raise DatasetNotFoundError(f"{images}: no photo in folders such as 001.ak47")
    matches = [_CLASS.fullmatch(name) for name in folder_names]
    if wrong := [name for name, match in zip(folder_names, matches, strict=True) if match is None]:
        raise DatasetError(f"{images}: got a folder {wrong[0]!r}, expected such as '001.ak47'")
    names = [match["name"] for match in matches if match is not None]
    if len(set(names)) < len(names):
        names = folder_names
    files = [f"{name}/{photo}" for name in folder_names for photo in found[name]]
    labels = np.repeat(np.arange(len(names)), [len(found[name]) for name in folder_names])
    _check_counts(images, folder_names, found)
    official, most = _draw(labels)
    is_whole = (len(files), len(names)) == _OFFICIAL_SIZE
    return Dataset(
        facts=DatasetFacts(
            name="caltech-256" if is_whole else "caltech-256-subset",
            title="Caltech-256" if is_whole else "a subset of Caltech-256",
            layout=f"Caltech-256, which has no official parts: {most} a class are for training, drawn with a seed of "
            "their own, and the others for test",
            published="caltech-256",
            left_out=counts_of(left_out),
        ),
        root=folder,
        image_root=images,
        ids=image_ids([file.rpartition(".")[0] for file in files], files),
        paths=[str(images / file) for file in files],
        labels=labels,
        class_names=names,
        folder_names=folder_names,
        official_split=official,
    )


def _check_counts(images: Path, folder_names: Sequence[str], found: Mapping[str, Sequence[str]]) -> None:
    """Raise DatasetError for one class alone, and for a class of which no photo would be for training."""
    if len(folder_names) == 1:
        raise DatasetError(f"{images}: got one class, {folder_names[0]!r}, expected at least 2")
    if few := [name for name in folder_names if int(len(found[name]) * _MOST_SHARE) < 1]:
        more = f" and {len(few) - 1:,} more" if len(few) > 1 else ""
        raise DatasetError(f"{images}: {few[0]}{more}: got one photo, expected at least 2, for training and test")


def _draw(labels: np.ndarray) -> tuple[list[str], str]:
    """Draw the training images of each class; gives the parts, and in words how many."""
    chance = np.random.default_rng(_SEED)
    parts = np.full(len(labels), OFFICIAL_TEST, dtype=object)
    counts = []
    for label in range(int(labels.max()) + 1):
        (own,) = np.nonzero(labels == label)
        counts.append(min(TRAIN_PER_CLASS, int(len(own) * _MOST_SHARE)))
        parts[chance.permutation(own)[: counts[-1]]] = OFFICIAL_TRAIN
    fewest, most = min(counts), max(counts)
    return parts.tolist(), f"{most}" if fewest == most else f"{fewest} to {most}"
