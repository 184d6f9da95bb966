"""iNaturalist-12K: class folders of ten taxa in train/ and val/, of which val/ is the test part."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from dogs_accel.datasets.dataset import Dataset, DatasetNotFoundError
from dogs_accel.datasets.layouts.class_folders import open_class_folders
from dogs_accel.datasets.photos import is_folder, is_hidden_folder
from dogs_accel.datasets.splits import OFFICIAL_TEST, OFFICIAL_VAL

TAXA = (
    "Amphibia", "Animalia", "Arachnida", "Aves", "Fungi", "Insecta", "Mammalia", "Mollusca", "Plantae", "Reptilia",
)  # fmt: skip
_NAME, _TEST = "inaturalist_12K", "val"


def is_inaturalist(root: str | os.PathLike[str]) -> bool:
    """Whether a folder, or inaturalist_12K in it, has train/ of these taxa and no others, and val/ of some of them."""
    folder = _folder(root)
    tested = _classes(folder / _TEST)
    is_so = _classes(folder / "train") == set(TAXA) and bool(tested) and tested <= set(TAXA)
    return is_so and not (folder / "test").is_dir()


def open_inaturalist(root: str | os.PathLike[str]) -> Dataset:
    """Open a folder that holds iNaturalist-12K, or a subset of it in the same layout.

    val/ is the publisher's test part and is that here; validation is carved out of train/, a fifth of each class in
    the document's own experiments. Raises what `open_class_folders` does.
    Definition: https://storage.googleapis.com/wandb_datasets/nature_12K.zip.
    """
    folder = _folder(root)
    if not (folder / _TEST).is_dir():
        raise DatasetNotFoundError(f"{folder}: no folder {_TEST}, expected train and {_TEST} of iNaturalist-12K")
    data = open_class_folders(folder)
    facts = dataclasses.replace(
        data.facts,
        name="inaturalist-12k",
        title="iNaturalist-12K",
        layout=f"iNaturalist-12K, whose {_TEST}/ is the test part",
        published="inaturalist-12k",
    )
    official = [OFFICIAL_TEST if part == OFFICIAL_VAL else part for part in data.official_split]
    return dataclasses.replace(data, facts=facts, official_split=official)


def _folder(root: str | os.PathLike[str]) -> Path:
    folder = Path(root).expanduser()
    return folder / _NAME if (folder / _NAME).is_dir() else folder


def _classes(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as found:
        return {entry.name for entry in found if is_folder(entry) and not is_hidden_folder(entry.name)}
