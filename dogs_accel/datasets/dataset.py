"""What every dataset gives, whichever layout it was read from."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from xml.parsers.expat import ExpatError, ParserCreate

import numpy as np

from dogs_accel.datasets.facts import DatasetFacts
from dogs_accel.datasets.splits import split_indices
from dogs_accel.runtime.terminal import escaped
from pipelines.decoding.contents import require_regular

Box = tuple[int, int, int, int]
"""xmin, ymin, xmax, ymax in px, as the annotation has them."""
MOST_ANNOTATION_BYTES = 1 << 20
"""Of the annotation of one image, which has some hundred for each box."""
_MOST_PX = 1 << 31
_SHOWN = 3


class DatasetError(ValueError):
    """A dataset on disk is not what it should be; the message is one line, whatever names it has in it."""

    def __init__(self, message: str) -> None:
        super().__init__(escaped(message))


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """Something that a dataset needs is not on disk."""


def first_of(names: Iterable[str]) -> str:
    """Name the first few of many, in the order of their letters, for an error."""
    ordered = sorted(names)
    return ", ".join(ordered[:_SHOWN]) + (", ..." if len(ordered) > _SHOWN else "")


def dataset_folder(root: str | os.PathLike[str], expected: str = "the folder of the dataset") -> Path:
    """Give the whole path of a folder. Raises DatasetNotFoundError where there is none."""
    folder = Path(root).expanduser().resolve()
    if not folder.is_dir():
        raise DatasetNotFoundError(
            f"{folder}: {'a file' if folder.exists() else 'no such folder'}, expected {expected}"
        )
    return folder


def image_ids(short: Sequence[str], files: Sequence[str]) -> list[str]:
    """Name each image by its short name, or all by their files where two would be called the same: 1.jpg and 1.png."""
    return list(short if len(set(short)) == len(short) else files)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Dataset:
    """The images of a dataset, in a fixed order, with their labels, classes and official parts.

    ids, paths, labels and official_split have one entry per image: what tells it apart, absolute path, 0-based label
    as (N,) int64, and one of `splits.OFFICIAL_PARTS`. class_names, folder_names (what folders or
    file names call the classes) and class_groups (what kind a class is of, where the data say so) have one entry per
    label. Paths are below `image_root`, annotations below `annotation_dir`, each called as `annotation_name` says
    with the folder's name and the photo's without its ending.
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
    class_groups: list[str] | None = None
    annotation_dir: Path | None = None
    annotation_name: str = "{folder}/{stem}"

    def __post_init__(self) -> None:
        """Raise DatasetError for names that no table, JSON or page could hold."""
        try:
            "\n".join(self.paths).encode()
        except UnicodeEncodeError as error:
            name = next(path for path in self.paths if any("\ud800" <= letter <= "\udfff" for letter in path))
            raise DatasetError(f"{name!r}: a name that is not UTF-8, expected names in UTF-8; rename it") from error

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

    def subset(self, index: np.ndarray) -> Dataset:
        """Return the dataset with some of its images alone, in the order of (n,) positions, and with all classes."""
        return dataclasses.replace(
            self,
            ids=[self.ids[i] for i in index],
            paths=[self.paths[i] for i in index],
            labels=self.labels[index],
            official_split=[self.official_split[i] for i in index],
        )

    def absent_from(self, index: np.ndarray) -> list[str]:
        """Name the classes that have no image among some, (n,) positions in the dataset."""
        return [self.class_names[label] for label in np.setdiff1d(np.arange(self.num_classes), self.labels[index])]

    def digest(self, index: np.ndarray | None = None) -> str:
        """Name images and their labels, in their order, by a SHA-256 of both; index None is all of them."""
        chosen = range(len(self)) if index is None else index
        images = "\n".join(f"{self.ids[i]} {self.labels[i]}" for i in chosen)
        return hashlib.sha256(images.encode()).hexdigest()

    def boxes(self, index: int, size_px: tuple[int, int] | None = None) -> list[Box] | None:
        """Give the boxes annotated on an image, None where the dataset has no annotation of it.

        Raises DatasetError where the annotation cannot be read or, size_px being the image's width and height, a box
        is outside it; IndexError where `index` is out of range.
        """
        path = self.annotation_path(index)
        return None if path is None else read_boxes(path, size_px)

    def annotation_path(self, index: int) -> Path | None:
        """Name the annotation of an image, None where the dataset has none of it."""
        if self.annotation_dir is None:
            return None
        folder, stem = self.folder_names[int(self.labels[index])], PurePath(self.paths[index]).stem
        path = self.annotation_dir / self.annotation_name.format(folder=folder, stem=stem)
        return path if path.is_file() else None


def read_boxes(path: Path, size_px: tuple[int, int] | None = None) -> list[Box]:
    """Read the boxes of an annotation in Pascal VOC XML, of an image of this width and height.

    Raises DatasetError where it is not such XML, has more than MOST_ANNOTATION_BYTES or declares entities, which may
    stand for gigabytes of text, and where a box has no area or none of it is in the image.
    """
    try:
        content = read_small(path, MOST_ANNOTATION_BYTES)
        _refuse_entities(content)
        boxes = [_box(element) for element in ElementTree.fromstring(content).findall("object/bndbox")]
        for box in boxes:
            _check_box(box, size_px)
    except OSError as error:
        raise DatasetError(f"{path}: the annotation cannot be read ({error.strerror})") from error
    # LookupError: of an encoding that nobody knows; OverflowError: of an infinite side.
    except (ElementTree.ParseError, ExpatError, ValueError, LookupError, OverflowError) as error:
        raise DatasetError(f"{path}: not a readable annotation ({error})") from error
    return boxes


def read_small(path: Path, most_bytes: int) -> bytes:
    """Read a regular file. Raises OSError where it cannot be read, and ValueError where it has more bytes."""
    require_regular(path)
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"it has more than {most_bytes:,} bytes")
    return content


def _refuse_entities(content: bytes) -> None:
    def refuse(name: str, *_: object) -> None:
        raise ValueError(f"it declares the entity {name}, expected none")

    parser = ParserCreate()
    parser.EntityDeclHandler = refuse
    parser.Parse(content, True)


def _box(element: ElementTree.Element) -> Box:
    sides = {side: element.findtext(side, default="") for side in ("xmin", "ymin", "xmax", "ymax")}
    try:
        xmin, ymin, xmax, ymax = (int(float(text)) for text in sides.values())
        if max(abs(side) for side in (xmin, ymin, xmax, ymax)) > _MOST_PX:
            raise ValueError
    except (ValueError, OverflowError) as error:
        shown = ", ".join(f"{side} {text.strip() or 'missing'}" for side, text in sides.items())
        raise ValueError(f"got a box of {shown[:100]}, expected four numbers") from error
    return xmin, ymin, xmax, ymax


def _check_box(box: Box, size_px: tuple[int, int] | None) -> None:
    xmin, ymin, xmax, ymax = box
    if xmax <= xmin or ymax <= ymin:
        raise ValueError(f"got the box {box}, expected xmin < xmax and ymin < ymax")
    if size_px is not None and (xmax <= 0 or ymax <= 0 or xmin >= size_px[0] or ymin >= size_px[1]):
        raise ValueError(f"got the box {box} outside the image of {size_px[0]} x {size_px[1]} px")
