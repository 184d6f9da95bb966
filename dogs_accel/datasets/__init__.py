"""Datasets on disk: where the images are, what they are labelled, and how they are split."""

from __future__ import annotations

import os

from dogs_accel.datasets.dataset import Box, Dataset, DatasetError, DatasetNotFoundError
from dogs_accel.datasets.stanford_dogs import check_images_folder, open_stanford_dogs

__all__ = ["Box", "Dataset", "DatasetError", "DatasetNotFoundError", "check_images_folder", "open_dataset"]


def open_dataset(
    root: str | os.PathLike[str], *, unpack: bool = False, check_files: bool = True, progress: bool = True
) -> Dataset:
    """Open the dataset in `root`, which has the Stanford Dogs layout (real, a subset, or synthetic).

    See `stanford_dogs.open_stanford_dogs` for the layout, the checks and what is raised.
    """
    return open_stanford_dogs(root, unpack=unpack, check_files=check_files, progress=progress)
