"""Datasets on disk: where the images are, what they are labelled, and how they are split."""

from __future__ import annotations

import os

from dogs_accel.datasets.class_folders import open_class_folders
from dogs_accel.datasets.dataset import Box, Dataset, DatasetError, DatasetNotFoundError
from dogs_accel.datasets.facts import DatasetFacts
from dogs_accel.datasets.published import Published
from dogs_accel.datasets.stanford_dogs import check_images_folder, is_stanford_dogs, open_stanford_dogs
from dogs_accel.datasets.stanford_dogs_published import STANFORD_DOGS
from dogs_accel.runtime.arguments import did_you_mean

__all__ = [
    "LAYOUTS", "Box", "Dataset", "DatasetError", "DatasetFacts", "DatasetNotFoundError", "open_dataset",
    "published_about",
]  # fmt: skip

LAYOUTS = ("stanford-dogs", "class-folders")
"""What `open_dataset` knows, in the order in which it looks for them."""


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
        root: the folder: Stanford Dogs or a subset of it, or any folder of class folders.
        layout: one of LAYOUTS; None recognises it, and `facts.layout` of what is returned says which it was.
        unpack: unpack archives of a known dataset that lie in the folder first; else nothing is written.
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
    if layout == "stanford-dogs" or (layout is None and is_stanford_dogs(root)):
        dataset = open_stanford_dogs(root, unpack=unpack, check_files=check_files, progress=progress)
        check_images_folder(dataset.root)
        return dataset
    return open_class_folders(root)


def published_about(key: str | None) -> Published | None:
    """Return what was published about a dataset, by `DatasetFacts.published`; None where nothing was."""
    return {"stanford-dogs": STANFORD_DOGS}.get(key or "")
