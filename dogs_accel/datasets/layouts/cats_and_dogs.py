"""Kaggle's cats and dogs: train/cat.0.jpg, the class before the first dot of a file's name."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import numpy as np

from dogs_accel.datasets.dataset import Dataset, DatasetError, DatasetNotFoundError, image_ids
from dogs_accel.datasets.facts import DatasetFacts
from dogs_accel.datasets.photos import counts_of, is_folder, is_hidden_folder, photos_in
from dogs_accel.datasets.splits import NO_OFFICIAL_PART

_NAME = re.compile(r"(?P<name>[A-Za-z][\w-]*)\.(?P<number>\d+)\.\w+")
_UNNAMED, _UNLABELLED = "photo whose name has no class", "photo without a label in test folders"
_TESTS = ("test", "test1")
_OFFICIAL_SIZE = (25_000, 2)


def is_cats_and_dogs(root: str | os.PathLike[str]) -> bool:
    """Whether a folder has train/ with photos of two classes or more that are called as Kaggle's are, cat.0.jpg.

    What else lies beside them is no class folder: there are more of these photos than of anything else.
    """
    folder = Path(root).expanduser() / "train"
    if not folder.is_dir():
        return False
    classes: Counter[str] = Counter()
    num_others = 0
    with os.scandir(folder) as found:
        for entry in found:
            match = None if is_folder(entry) else _NAME.fullmatch(entry.name)
            if match is not None:
                classes[match["name"]] += 1
            elif not is_hidden_folder(entry.name):
                num_others += 1
    return len(classes) > 1 and classes.total() > num_others


def open_cats_and_dogs(root: str | os.PathLike[str]) -> Dataset:
    """Open a folder that holds Kaggle's cats and dogs, or other classes in the same layout.

    All labelled photos are in train/; they are ordered by class and number. The publisher kept the labels of test1/,
    whose photos are counted and left out, so that validation and test are carved out of train/.

    Raises DatasetNotFoundError where there is no such photo, DatasetError where there is one class alone.
    Definition: https://www.kaggle.com/competitions/dogs-vs-cats.
    """
    folder = Path(root).expanduser().resolve()
    train = folder / "train"
    if not train.is_dir():
        raise DatasetNotFoundError(f"{folder}: no folder train, expected it with photos such as cat.0.jpg")
    left_out: Counter[str] = Counter()
    found: list[tuple[str, int, str]] = []
    for photo in photos_in(train, left_out):
        if match := _NAME.fullmatch(photo):
            found.append((match["name"], int(match["number"]), photo))
        else:
            left_out[_UNNAMED] += 1
    names = sorted({name for name, _, _ in found})
    if not names:
        raise DatasetNotFoundError(f"{train}: no photo such as cat.0.jpg")
    if len(names) == 1:
        raise DatasetError(f"{train}: got photos of one class, {names[0]!r}, expected at least 2")
    for name in _TESTS:
        if (folder / name).is_dir():
            left_out[_UNLABELLED] += len(photos_in(folder / name, left_out))
    found.sort()
    photos = [photo for _, _, photo in found]
    is_whole = names == ["cat", "dog"] and (len(found), len(names)) == _OFFICIAL_SIZE
    is_theirs = names == ["cat", "dog"]
    return Dataset(
        facts=DatasetFacts(
            name="cats-and-dogs" if is_whole else "cats-and-dogs-subset" if is_theirs else folder.name or "data",
            title="cats and dogs" if is_whole else "a subset of cats and dogs" if is_theirs else folder.name or "data",
            layout="photos in train/ with the class in their names, such as cat.0.jpg",
            published="cats-and-dogs" if is_theirs else None,
            left_out=counts_of(left_out),
        ),
        root=folder,
        image_root=train,
        ids=image_ids([photo.rpartition(".")[0] for photo in photos], photos),
        paths=[str(train / photo) for photo in photos],
        labels=np.asarray([names.index(name) for name, _, _ in found], dtype=np.int64),
        class_names=names,
        folder_names=names,
        official_split=[NO_OFFICIAL_PART] * len(found),
    )
