"""Any folder of class folders: with train, val and test folders around them, with two of these, or without."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dogs_accel.datasets.dataset import Dataset, DatasetError, DatasetNotFoundError, dataset_folder
from dogs_accel.datasets.facts import DatasetFacts
from dogs_accel.datasets.photos import (
    HIDDEN,
    PHOTO_SUFFIXES,
    count_files,
    counts_of,
    is_folder,
    is_hidden_folder,
    leads_back,
    walk_photos,
    why_no_photo,
)
from dogs_accel.datasets.splits import NO_OFFICIAL_PART, OFFICIAL_TEST, OFFICIAL_TRAIN, OFFICIAL_VAL

_PART_OF = {
    "train": OFFICIAL_TRAIN, "training": OFFICIAL_TRAIN,
    "val": OFFICIAL_VAL, "valid": OFFICIAL_VAL, "validation": OFFICIAL_VAL, "dev": OFFICIAL_VAL,
    "test": OFFICIAL_TEST, "testing": OFFICIAL_TEST,
}  # fmt: skip
"""Parts by the names that their folders have, in any case."""
_ORDER = (OFFICIAL_TRAIN, OFFICIAL_VAL, OFFICIAL_TEST)
_NO_CLASS, _EMPTY, _BESIDE = "photo in no class folder", "class folder without a photo", "folder beside the parts"
_SHOWN = 3
_WORDNET_ID = re.compile(r"(n\d{8})[-_ ](?=.)")


def open_class_folders(root: str | os.PathLike[str]) -> Dataset:
    """Open a folder of class folders.

    Parts are recognised by the names of the folders in `root`: train and at least one of val and test, as torchvision,
    Keras and Kaggle have them; else every folder in `root` is a class. A class has the photos at any depth below its
    folder, whose order is that of their names; links are followed. Hidden files, files of other kinds and photos
    beside the class folders are left out and counted, as is a class folder without a photo. Nothing is decoded.

    Ids are paths below `root`, so that two photos of one name are two photos.

    Raises:
        DatasetNotFoundError: there is no such folder, or no photo in it.
        DatasetError: there is one class, a class that is not in train, or two that differ in nothing but how their
            letters are composed.
    """
    folder = dataset_folder(root, "a folder of class folders")
    left_out: Counter[str] = Counter()
    part_folders = _part_folders(folder)
    _count_loose_files(folder, left_out)
    found: dict[str, dict[str, list[str]]] = {}
    if part_folders:
        beside = [name for name in _folders_in(folder) if str(folder / name) not in set(part_folders.values())]
        left_out[_BESIDE] += len(beside)
        for part, path in part_folders.items():
            _count_loose_files(Path(path), left_out)
            found[part] = _photos_of_classes(path, left_out, (os.path.realpath(folder), os.path.realpath(path)))
    else:
        found[NO_OFFICIAL_PART] = _photos_of_classes(str(folder), left_out, (os.path.realpath(folder),))
    names = _check_classes(folder, found)
    paths, labels, official = [], [], []
    for part, photos in found.items():
        for label, name in enumerate(names):
            own = photos.get(name, [])
            paths += own
            labels += [label] * len(own)
            official += [part] * len(own)
    start = len(str(folder).rstrip("/")) + 1
    return Dataset(
        facts=DatasetFacts(
            name=folder.name or "data",
            title=folder.name or "data",
            layout=_describe_layout(part_folders, folder, names),
            left_out=counts_of(left_out),
        ),
        root=folder,
        image_root=folder,
        ids=[path[start:] for path in paths],
        paths=paths,
        labels=np.asarray(labels, dtype=np.int64),
        class_names=class_names(names),
        folder_names=names,
        official_split=official,
    )


def _folders_in(folder: Path) -> list[str]:
    """Name the folders in a folder; a link that leads back to a folder around it is none."""
    around = (os.path.realpath(folder),)
    with os.scandir(folder) as found:
        return sorted(
            entry.name
            for entry in found
            if is_folder(entry) and not is_hidden_folder(entry.name) and not leads_back(entry.path, around)
        )


def _part_folders(folder: Path) -> dict[str, str]:
    """Find the folder of each part; none where the folders are classes, which may be called train."""
    by_part: dict[str, list[str]] = {}
    for name in _folders_in(folder):
        if (part := _PART_OF.get(name.lower())) is not None:
            by_part.setdefault(part, []).append(name)
    # A folder of parts has folders of classes in each of them; a class called train has photos.
    if len(by_part) < 2 or not any(_folders_in(folder / name) for names in by_part.values() for name in names):
        return {}
    if OFFICIAL_TRAIN not in by_part:
        found = [name for names in by_part.values() for name in names]
        raise DatasetError(f"{folder}: got {_join(found)} without train, expected it too")
    for names in by_part.values():
        if len(names) > 1:
            raise DatasetError(f"{folder}: got {_join(names)}, expected one folder of this part")
    return {part: str(folder / by_part[part][0]) for part in _ORDER if part in by_part}


def _count_loose_files(folder: Path, left_out: Counter[str]) -> None:
    with os.scandir(folder) as found:
        for entry in found:
            if not is_folder(entry):
                left_out[why_no_photo(entry) or _NO_CLASS] += 1
            elif is_hidden_folder(entry.name):
                left_out[HIDDEN] += count_files(entry.path)


def _photos_of_classes(folder: str, left_out: Counter[str], around: Sequence[str]) -> dict[str, list[str]]:
    """Find the photos of each class folder, by its name in composed letters."""
    found: dict[str, list[str]] = {}
    spelt: dict[str, str] = {}
    for name in _folders_in(Path(folder)):
        composed = unicodedata.normalize("NFC", name)
        if composed in spelt:
            raise DatasetError(
                f"{folder}: two class folders are called {composed!r}, which differ in how their letters are composed; "
                "rename one"
            )
        spelt[composed] = name
        photos = list(walk_photos(os.path.join(folder, name), left_out, around))  # noqa: PTH118
        if photos:
            found[composed] = photos
        else:
            left_out[_EMPTY] += 1
    return found


def _check_classes(folder: Path, found: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    """Give the folder names of the classes in their order, having checked that they can be learned."""
    first = found.get(OFFICIAL_TRAIN, found.get(NO_OFFICIAL_PART, {}))
    every = sorted({name for photos in found.values() for name in photos})
    if not every:
        raise DatasetNotFoundError(
            f"{folder}: no photo in class folders, looked for <class>/*{{{','.join(PHOTO_SUFFIXES)}}}, also in train, "
            "val and test, and for the lists of Stanford Dogs"
        )
    if untaught := [name for name in every if name not in first]:
        raise DatasetError(
            f"{folder}: {_join(untaught)} {'has' if len(untaught) == 1 else 'have'} no photo in the training part, "
            "expected some of every class"
        )
    if len(every) == 1:
        inner = folder / every[0]  # which is not there where it lies in a part, or is spelt in other letters
        hint = f"; name {inner} for the folders in it" if inner.is_dir() and _folders_in(inner) else ""
        raise DatasetError(f"{folder}: got one class, {every[0]!r}, expected at least 2{hint}")
    return every


def _describe_layout(part_folders: Mapping[str, str], folder: Path, classes: Sequence[str]) -> str:
    if not part_folders:
        like_parts = [name for name in classes if name.lower() in _PART_OF]
        if not like_parts:
            return "class folders, no parts"
        return f"class folders, no parts; as classes: {_join(like_parts)}"
    names = [f"{os.path.relpath(path, folder)}/" for path in part_folders.values()]
    return f"class folders in {' and '.join([', '.join(names[:-1]), names[-1]])}"


def _join(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


# --- names of classes -------------------------------------------------------------------------------------------


def class_names(folder_names: Sequence[str]) -> list[str]:
    """Name the class of each folder; folder_names are unique, and so are the names.

    "n02085782-Japanese_spaniel" is "Japanese spaniel": behind a WordNet id what follows is the name, its underscores
    are spaces. Every other folder's name is kept as it is. Where two would be called the same, each says its id
    behind it: "crane (n02012849)".

    Example:
        >>> class_names(["n02012849-crane", "n03126707-crane", "fox_terrier"])
        ['crane (n02012849)', 'crane (n03126707)', 'fox_terrier']
    """
    short = [_without_id(name) for name in folder_names]
    counts = Counter(short)
    names = []
    for folder, name in zip(folder_names, short, strict=True):
        found = _WORDNET_ID.match(folder)
        names.append(f"{name} ({found[1]})" if counts[name] > 1 and found else name)
    return names if len(set(names)) == len(names) else list(folder_names)


def _without_id(folder_name: str) -> str:
    found = _WORDNET_ID.match(folder_name)
    return folder_name[found.end() :].replace("_", " ") if found else folder_name
