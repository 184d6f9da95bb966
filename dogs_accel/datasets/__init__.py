"""Datasets on disk: where the images are, what they are labelled, and how they are split."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

from dogs_accel.datasets.dataset import Box, Dataset, DatasetError, DatasetNotFoundError, dataset_folder
from dogs_accel.datasets.facts import DatasetFacts
from dogs_accel.datasets.layouts.caltech256 import is_caltech256, open_caltech256
from dogs_accel.datasets.layouts.cats_and_dogs import is_cats_and_dogs, open_cats_and_dogs
from dogs_accel.datasets.layouts.cifar10 import is_cifar10, open_cifar10
from dogs_accel.datasets.layouts.class_folders import open_class_folders
from dogs_accel.datasets.layouts.inaturalist import is_inaturalist, open_inaturalist
from dogs_accel.datasets.layouts.oxford_pets import is_oxford_pets, open_oxford_pets
from dogs_accel.datasets.layouts.stanford_dogs import check_images_folder, is_stanford_dogs, open_stanford_dogs
from dogs_accel.datasets.published.caltech256 import CALTECH256
from dogs_accel.datasets.published.cats_and_dogs import CATS_AND_DOGS
from dogs_accel.datasets.published.cifar10 import CIFAR10
from dogs_accel.datasets.published.figures import Published
from dogs_accel.datasets.published.inaturalist import INATURALIST
from dogs_accel.datasets.published.oxford_pets import OXFORD_PETS
from dogs_accel.datasets.published.stanford_dogs import STANFORD_DOGS
from dogs_accel.datasets.synthetic import generated_facts, is_part_of_synthetic
from dogs_accel.runtime.arguments import did_you_mean

__all__ = [
    "LAYOUTS", "Box", "Dataset", "DatasetError", "DatasetFacts", "DatasetNotFoundError", "open_dataset",
    "published_about",
]  # fmt: skip

_RECOGNISED: dict[str, Callable[[str | os.PathLike[str]], bool]] = {
    "stanford-dogs": is_stanford_dogs,
    "oxford-iiit-pet": is_oxford_pets,
    "cifar-10": is_cifar10,
    "caltech-256": is_caltech256,
    "inaturalist-12k": is_inaturalist,
    "cats-and-dogs": is_cats_and_dogs,
}
LAYOUTS = (*_RECOGNISED, "class-folders")
"""What `open_dataset` knows, in the order in which it looks for them."""
_PUBLISHED = {
    "stanford-dogs": STANFORD_DOGS,
    "oxford-iiit-pet": OXFORD_PETS,
    "cifar-10": CIFAR10,
    "caltech-256": CALTECH256,
    "inaturalist-12k": INATURALIST,
    "cats-and-dogs": CATS_AND_DOGS,
}


def open_dataset(
    root: str | os.PathLike[str],
    layout: str | None = None,
    *,
    unpack: bool = False,
    check_files: bool = True,
    progress: bool = True,
) -> Dataset:
    """Open the dataset in a folder, whichever layout it has.

    Args:
        root: the folder: one of the datasets of LAYOUTS or a subset of it, or any folder of class folders.
        layout: one of LAYOUTS; None recognises it, and `facts.layout` of what is returned says which it was.
        unpack: unpack archives of Stanford Dogs that lie in the folder, and write the arrays of CIFAR-10 as pictures,
            where that is not done; else nothing is written.
        check_files: raise where a single listed image is not on disk; else that shows when it is read.
        progress: show a bar on stderr while archives are unpacked.

    Returns:
        The dataset: ids, paths, labels, class names and the splits.

    Raises:
        DatasetNotFoundError: there is no such folder, or nothing in it that could be opened.
        DatasetError: what is there is not what its layout expects; the message is one line.
        ValueError: layout is not one of LAYOUTS.

    Example:
        >>> from dogs_accel.datasets import open_dataset
        >>> dataset = open_dataset(root)
        >>> dataset.num_classes, dataset.noun
        (3, 'class')
        >>> [len(dataset.split(name)) for name in ("train", "val", "test")]
        [40, 8, 12]
    """
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"layout: got {layout!r}, expected one of {', '.join(LAYOUTS)}{did_you_mean(layout, LAYOUTS)}")
    if layout is None:
        layout = next((name for name, is_so in _RECOGNISED.items() if is_so(root)), LAYOUTS[-1])
    if layout != LAYOUTS[-1]:  # which says what it expects itself
        dataset_folder(root)
    dataset = _open(root, layout, unpack=unpack, check_files=check_files, progress=progress)
    if layout != "stanford-dogs" and is_part_of_synthetic(dataset.root):  # which says so itself
        return dataclasses.replace(dataset, facts=generated_facts(dataset.facts, layout))
    return dataset


def _open(root: str | os.PathLike[str], layout: str, *, unpack: bool, check_files: bool, progress: bool) -> Dataset:
    match layout:
        case "stanford-dogs":
            dataset = open_stanford_dogs(root, unpack=unpack, check_files=check_files, progress=progress)
            check_images_folder(dataset.root)
            return dataset
        case "oxford-iiit-pet":
            return open_oxford_pets(root, check_files=check_files)
        case "cifar-10":
            return open_cifar10(root, unpack=unpack, progress=progress)
        case "caltech-256":
            return open_caltech256(root)
        case "inaturalist-12k":
            return open_inaturalist(root)
        case "cats-and-dogs":
            return open_cats_and_dogs(root)
    return open_class_folders(root)


def published_about(key: str | None) -> Published | None:
    """Return what was published about a dataset, by `DatasetFacts.published`; None where nothing was."""
    return _PUBLISHED.get(key or "")
