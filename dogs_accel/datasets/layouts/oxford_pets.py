"""Oxford-IIIT Pet as its archives unpack: images/ in one folder, annotations/ with lists and head boxes."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dogs_accel.datasets.dataset import Dataset, DatasetError, DatasetNotFoundError, first_of, read_small
from dogs_accel.datasets.facts import DatasetFacts
from dogs_accel.datasets.splits import OFFICIAL_TEST, OFFICIAL_TRAIN

_LISTS = {"trainval.txt": OFFICIAL_TRAIN, "test.txt": OFFICIAL_TEST}
_SPECIES = {1: "cat", 2: "dog"}
"""By their number in the lists."""
_NAME = re.compile(r"(?P<folder>.+)_(?P<number>\d+)")
_MOST_LIST_BYTES = 1 << 22
"""Of a list, whose official ones have some 100 kB."""
_OFFICIAL_SIZE = (3_680, 3_669, 37)


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    label: int
    species: str


def is_oxford_pets(root: str | os.PathLike[str]) -> bool:
    """Whether a folder has one of the lists of Oxford-IIIT Pet in annotations, be the rest there or not."""
    folder = Path(root).expanduser() / "annotations"
    return any((folder / name).is_file() for name in _LISTS)


def open_oxford_pets(root: str | os.PathLike[str], *, check_files: bool = True) -> Dataset:
    """Open a folder that holds Oxford-IIIT Pet, or a subset of it in the same layout.

    The lists decide what the dataset is: trainval.txt, whose images are training (validation is carved out of them),
    then test.txt, each in its own order. The breed is what a file's name has before its last underscore, and the
    lists say cat or dog, which `class_groups` has. Boxes are of heads, and only some training images have one.

    `check_files` raises where a listed image is missing. Raises DatasetError, of which DatasetNotFoundError is the
    kind for what is missing.
    Definition: annotations/README of the dataset; https://www.robots.ox.ac.uk/~vgg/data/pets/.
    """
    folder = Path(root).expanduser().resolve()
    lists = {name: _read_list(folder / "annotations" / name) for name in _LISTS}
    entries = [entry for each in lists.values() for entry in each]
    _check_listed_once(lists)
    folder_names, groups = _classes(entries, lists["trainval.txt"])
    files = [f"{entry.name}.jpg" for entry in entries]
    if check_files:
        _check_on_disk(folder / "images", files)
    boxes = folder / "annotations" / "xmls"
    size = (*map(len, lists.values()), len(folder_names))
    is_whole = size == _OFFICIAL_SIZE
    kinds = Counter(groups)
    return Dataset(
        facts=DatasetFacts(
            name="oxford-iiit-pet" if is_whole else "oxford-iiit-pet-subset",
            title="Oxford-IIIT Pet" if is_whole else "a subset of Oxford-IIIT Pet",
            layout="Oxford-IIIT Pet, by its lists of trainval and test images: "
            + " and ".join(f"{kinds[kind]} breeds of {kind}s" for kind in _SPECIES.values() if kinds[kind]),
            noun="breed",
            plural="breeds",
            published="oxford-iiit-pet",
        ),
        root=folder,
        image_root=folder / "images",
        ids=[entry.name for entry in entries],
        paths=[str(folder / "images" / file) for file in files],
        labels=np.asarray([entry.label for entry in entries], dtype=np.int64),
        class_names=[name.replace("_", " ") for name in folder_names],
        folder_names=folder_names,
        class_groups=groups,
        official_split=[part for name, part in _LISTS.items() for _ in lists[name]],
        annotation_dir=boxes if boxes.is_dir() else None,
        annotation_name="{stem}.xml",
    )


def _read_list(path: Path) -> list[_Entry]:
    """Read a list: on each line a name, its class from 1 on, 1 for a cat or 2 for a dog, and its number among them."""
    try:
        lines = read_small(path, _MOST_LIST_BYTES).decode("utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{path.parent.parent}: no annotations/{path.name}") from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DatasetError(f"{path}: not a list of images ({error})") from error
    entries = [
        _entry(line, f"{path}: line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.startswith("#")
    ]
    if not entries:
        raise DatasetError(f"{path}: got no images, expected some")
    return entries


def _entry(line: str, where: str) -> _Entry:
    parts = line.split()
    found = _NAME.fullmatch(parts[0]) if len(parts) == 4 else None
    # A list decides what is opened, so it must not lead out of images.
    if found is None or "/" in parts[0] or "\\" in parts[0] or "\0" in parts[0] or not all(map(_is_count, parts[1:])):
        raise DatasetError(f"{where}: got {line[:100]!r}, expected such as 'Abyssinian_101 1 1 1'")
    label, species = int(parts[1]), int(parts[2])
    if species not in _SPECIES:
        raise DatasetError(f"{where}: got species {species}, expected 1 for a cat or 2 for a dog")
    return _Entry(parts[0], label - 1, _SPECIES[species])


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 1 << 31


def _check_listed_once(lists: dict[str, list[_Entry]]) -> None:
    counts = Counter(entry.name for entries in lists.values() for entry in entries)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise DatasetError(f"{len(twice)} images are more than once in {' and '.join(lists)}: {first_of(twice)}")


def _classes(entries: list[_Entry], training: list[_Entry]) -> tuple[list[str], list[str]]:
    """Give what the class of each label is called in file names, and whether it is of cats or dogs."""
    name_of: dict[int, str] = {}
    label_of: dict[str, int] = {}
    species_of: dict[int, str] = {}
    for entry in entries:
        found = _NAME.fullmatch(entry.name)
        assert found is not None
        name = found["folder"]
        if name_of.setdefault(entry.label, name) != name or label_of.setdefault(name, entry.label) != entry.label:
            raise DatasetError(
                f"{entry.name}: class {entry.label + 1} is {name_of[entry.label]} and {name} is class "
                f"{label_of.get(name, entry.label) + 1} elsewhere in the lists, expected one name a class"
            )
        if species_of.setdefault(entry.label, entry.species) != entry.species:
            raise DatasetError(f"{entry.name}: {name} is a {species_of[entry.label]} elsewhere in the lists")
    expected = set(range(max(name_of) + 1)) if max(name_of) < len(entries) else None
    taught = {entry.label for entry in training}
    if expected is None or taught != expected:
        absent = [] if expected is None else [str(label + 1) for label in sorted(expected - taught)]
        raise DatasetError(
            f"trainval.txt: expected every class of 1..{max(name_of) + 1}"
            + (f", {len(absent)} missing: {first_of(absent)}" if absent else "")
        )
    return [name_of[label] for label in sorted(name_of)], [species_of[label] for label in sorted(name_of)]


def _check_on_disk(images: Path, files: list[str]) -> None:
    if not images.is_dir():
        raise DatasetNotFoundError(f"{images.parent}: no folder images, expected the photos of the lists in it")
    if missing := sorted(set(files) - {path.name for path in images.iterdir()}):
        raise DatasetNotFoundError(
            f"{images}: {len(missing)} of {len(files)} listed images are missing: {first_of(missing)}"
        )
