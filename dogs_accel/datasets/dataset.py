"""What every dataset gives, whichever layout it was read from."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from dogs_accel.datasets.facts import DatasetFacts
from dogs_accel.datasets.splits import split_indices

Box = tuple[int, int, int, int]
"""xmin, ymin, xmax, ymax in px, as the annotation has them."""


class DatasetError(ValueError):
    """A dataset on disk is not what it should be; the message is one line."""


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """Something that a dataset needs is not on disk."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Dataset:
    """The images of a dataset, in a fixed order, with their labels, classes and official parts.

    ids, paths, labels and official_split have one entry per image: what tells it apart, absolute path, 0-based label
    as (N,) int64, and one of `splits.OFFICIAL_PARTS`. class_names and folder_names have one entry per label. Paths are
    below `image_root`.
    """

    facts: DatasetFacts
    root: Path
    image_root: Path
    ids: list[str]
    paths: list[str]
    labels: np.ndarray
    class_names: list[str]
    folder_names: list[str]
    official_split: list[str]
    annotation_dir: Path | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_classes(self) -> int:
        """Number of classes; labels are 0 .. num_classes - 1."""
        return len(self.class_names)

    @property
    def noun(self) -> str:
        """What the classes are, in the singular."""
        return self.facts.noun

    def relative_path(self, index: int) -> str:
        """Path of an image below `image_root`."""
        return PurePath(self.paths[index]).relative_to(self.image_root).as_posix()

    def split(self, split: str, *, seed: int = 42, val_ratio: float = 0.15, test_ratio: float = 0.2) -> np.ndarray:
        """Give the indices of one split, in the order of `splits.split_indices`.

        A part that the publisher has is taken as it is; what there is none for is carved out of training.

        Args:
            split: "train", "val" or "test".
            seed: of what is carved.
            val_ratio: share of the training images that is validation, where the data have no such part.
            test_ratio: the same of test, which is carved first.

        Returns:
            (n,) int64 positions in the dataset.

        Raises:
            ValueError: another split, seed or ratio, or a class with too few images.

        Example:
            >>> import numpy as np
            >>> train = dataset.split("train")
            >>> len(np.intersect1d(train, dataset.split("test")))
            0
        """
        return split_indices(
            self.labels,
            self.official_split,
            split,
            seed=seed,
            val_ratio=val_ratio,
            test_ratio=test_ratio,
            class_names=self.class_names,
        )

    def absent_from(self, index: np.ndarray) -> list[str]:
        """Name the classes that have no image among some, (n,) positions in the dataset."""
        return [self.class_names[label] for label in np.setdiff1d(np.arange(self.num_classes), self.labels[index])]

    def digest(self, index: np.ndarray | None = None) -> str:
        """Name images and their labels, in their order, by a SHA-256 of both; index None is all of them."""
        chosen = range(len(self)) if index is None else index
        images = "\n".join(f"{self.ids[i]} {self.labels[i]}" for i in chosen)
        return hashlib.sha256(images.encode()).hexdigest()

    def boxes(self, index: int) -> list[Box] | None:
        """Give the boxes annotated on an image, None where the dataset has no annotation of it.

        Raises DatasetError where the annotation cannot be read, IndexError where `index` is out of range.
        """
        path = None if self.annotation_dir is None else self._annotation_path(self.annotation_dir, index)
        return read_boxes(path) if path is not None and path.is_file() else None

    def _annotation_path(self, annotation_dir: Path, index: int) -> Path:
        return annotation_dir / self.folder_names[int(self.labels[index])] / PurePath(self.paths[index]).stem


def read_boxes(path: Path) -> list[Box]:
    """Read the boxes of an annotation in Pascal VOC XML.

    Raises DatasetError where it is not such XML.
    """
    try:
        boxes = ElementTree.parse(path).getroot().findall("object/bndbox")
        return [_box(element) for element in boxes]
    except (ElementTree.ParseError, ValueError, UnicodeError) as error:
        raise DatasetError(f"{path}: not a readable annotation ({error})") from error


def _box(element: ElementTree.Element) -> Box:
    xmin, ymin, xmax, ymax = (
        int(float(element.findtext(side, default=""))) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    return xmin, ymin, xmax, ymax
