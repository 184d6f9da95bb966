"""Stanford Dogs as its archives unpack: Images/, Annotation/ and three .mat lists."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from dogs_accel.datasets.dataset import Dataset, DatasetError, DatasetNotFoundError, dataset_folder, first_of, image_ids
from dogs_accel.datasets.download import ARCHIVES, sha256_of, unpack_archive
from dogs_accel.datasets.facts import DatasetFacts
from dogs_accel.datasets.layouts.class_folders import class_names
from dogs_accel.datasets.matlab import MOST_LIST_BYTES, read_matlab
from dogs_accel.datasets.splits import OFFICIAL_TEST, OFFICIAL_TRAIN
from dogs_accel.datasets.synthetic import SYNTHETIC_NOTICE, is_synthetic
from pipelines.decoding.contents import require_regular

TRAIN_LIST = "train_list.mat"
TEST_LIST = "test_list.mat"
_FILES, _LABELS = "file_list", "labels"
"""What is read of a list."""
_OFFICIAL_SIZE = (12_000, 8_580, 120)
_MOST_SHOWN, _MOST_NAME_BYTES = 100, 255
"""Letters of a wrong name that are shown, and bytes that file systems allow a name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageList:
    """One list file: "folder/name.jpg" per image, and its 0-based label as (n,) int64."""

    files: list[str]
    labels: np.ndarray


def open_stanford_dogs(
    root: str | os.PathLike[str], *, unpack: bool = False, check_files: bool = True, progress: bool = True
) -> Dataset:
    """Open a folder that holds Stanford Dogs, or a subset of it in the same layout.

    The lists decide what the dataset is: train_list.mat, then test_list.mat, each in its own order, from `root` or
    from root/lists. Images on disk that neither names are left out, and the number of classes is theirs too.
    Annotation/ is optional; without it there are no boxes.

    Opening reads and never writes, so many processes can open one folder. Where only the .tar archives are there it
    raises and says so; with `unpack` it unpacks those archives beside themselves first, with a progress bar. An
    archive as large as the official one must then have the official checksum; one of another size is taken for a
    subset of your own and unpacked with a warning that it was not verified.

    `check_files` reads each class folder once, and raises where a listed image is missing; without it the images
    need not be there at all. Raises DatasetError, of which DatasetNotFoundError is the kind for what is missing.
    Definition: the published experiment.
    """
    folder = dataset_folder(root)
    if unpack:
        _unpack_present(folder, progress)
    train, test = read_list(_find_list(folder, TRAIN_LIST)), read_list(_find_list(folder, TEST_LIST))
    files = train.files + test.files
    labels = np.concatenate([train.labels, test.labels])
    _check_listed_once(train.files, test.files)
    folder_names = _folder_of_each_label(files, labels, num_train=len(train.files))
    if check_files:
        _check_on_disk(folder, files)
    annotation_dir = folder / "Annotation"
    return Dataset(
        facts=_facts(folder, len(train.files), len(test.files), len(folder_names)),
        root=folder,
        image_root=folder / "Images",
        ids=image_ids([PurePosixPath(file).stem for file in files], files),  # stems, as published
        paths=[str(folder / "Images" / file) for file in files],
        labels=labels,
        class_names=class_names(folder_names),
        folder_names=folder_names,
        official_split=[OFFICIAL_TRAIN] * len(train.files) + [OFFICIAL_TEST] * len(test.files),
        annotation_dir=annotation_dir if annotation_dir.is_dir() else None,
    )


def is_stanford_dogs(root: str | os.PathLike[str]) -> bool:
    """Whether a folder has the layout: a list, one of the archives, or the two folders that they unpack to."""
    folder = Path(root).expanduser()
    lists = any((folder / part / name).is_file() for part in ("lists", "") for name in (TRAIN_LIST, TEST_LIST))
    archives = any((folder / archive.file_name).is_file() for archive in ARCHIVES.values())
    return lists or archives or ((folder / "Images").is_dir() and (folder / "Annotation").is_dir())


def stanford_dogs_facts(name: str = "stanford-dogs-subset") -> DatasetFacts:
    """Return what is said of Stanford Dogs ("stanford-dogs"), a subset of it, or the generated set ("synthetic")."""
    if name == "synthetic":
        return DatasetFacts(
            name=name, title="invented animals", layout="generated pictures, in the layout of Stanford Dogs",
            noun="breed", plural="breeds", notice=SYNTHETIC_NOTICE, notice_title="Not dogs",
        )  # fmt: skip
    subset = "" if name == "stanford-dogs" else "a subset of "
    return DatasetFacts(
        name=name, title=f"{subset}Stanford Dogs", layout="Stanford Dogs, by its lists of training and test images",
        noun="breed", plural="breeds", published="stanford-dogs",
    )  # fmt: skip


def _facts(folder: Path, *size: int) -> DatasetFacts:
    if is_synthetic(folder):
        return stanford_dogs_facts("synthetic")
    return stanford_dogs_facts("stanford-dogs" if size == _OFFICIAL_SIZE else "stanford-dogs-subset")


# --- lists ------------------------------------------------------------------------------------------------------


def _find_list(root: Path, name: str) -> Path:
    candidates = (root / "lists" / name, root / name)
    for path in candidates:
        if path.is_file():
            return path
    looked_for = " and ".join(str(path.relative_to(root)) for path in candidates)
    raise DatasetNotFoundError(f"{root}: no {name}, looked for {looked_for}{_archive_hint(root, 'lists')}")


def read_list(path: Path) -> ImageList:
    """Read train_list.mat or test_list.mat: its files, and its labels made 0-based.

    Raises DatasetError where it is not a MATLAB file, or its file_list and labels are not one per image.
    """
    try:
        # One more than is read, by which a file that is too large shows; one of its own size may not fit into memory.
        require_regular(path)
        with path.open("rb") as file:
            lists = read_matlab(file.read(MOST_LIST_BYTES + 1), strings=(_FILES,), numbers=(_LABELS,))
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from error
    for field, found in ((_FILES, lists.strings), (_LABELS, lists.numbers)):
        if field not in found:
            raise DatasetError(f"{path}: no field {field!r}, expected {_FILES} and {_LABELS}")
    files = [_file_name(text, path) for text in lists.strings[_FILES]]
    labels = lists.numbers[_LABELS]
    if len(files) != len(labels):
        raise DatasetError(f"{path}: labels: got {len(labels)}, expected one per file ({len(files)})")
    # Beyond 2**53 not every integer is a float64. NaN is refused by the first, infinity by the last.
    if (labels != np.floor(labels)).any() or (labels < 1).any() or (labels > 1 << 53).any():
        raise DatasetError(f"{path}: labels: expected integers from 1 on")
    return ImageList(files=files, labels=labels.astype(np.int64) - 1)


def _file_name(text: str, path: Path) -> str:
    text = text.strip(" ")  # a table of letters has lines of one length
    parts = text.split("/")
    cause = None
    # A list decides what is opened, so it must not lead out of Images.
    if len(parts) != 2 or any(part in ("", ".", "..") or "\0" in part for part in parts):
        cause = " with a backslash" if "\\" in text else ""
    elif "\n" in text or "\r" in text:
        cause = " with a line end"
    elif not PurePosixPath(text).suffix:
        cause = " without an ending"
    elif any(len(part.encode()) > _MOST_NAME_BYTES for part in parts):
        cause = f" with a name of more than {_MOST_NAME_BYTES} bytes"
    if cause is not None:
        shown = f"{text[:_MOST_SHOWN]!r}{' and so on' if len(text) > _MOST_SHOWN else ''}"
        raise DatasetError(f"{path}: file_list: got {shown}{cause}, expected 'folder/name.jpg'; write the list anew")
    return text


def _check_listed_once(train_files: list[str], test_files: list[str]) -> None:
    both = set(train_files) & set(test_files)
    if both:
        raise DatasetError(f"{len(both)} files are in {TRAIN_LIST} and in {TEST_LIST}: {first_of(both)}")
    for name, files in ((TRAIN_LIST, train_files), (TEST_LIST, test_files)):
        repeated = [file for file, count in Counter(files).items() if count > 1]
        if repeated:
            raise DatasetError(f"{len(repeated)} files are more than once in {name}: {first_of(repeated)}")


def _folder_of_each_label(files: list[str], labels: np.ndarray, *, num_train: int) -> list[str]:
    """Give the class folder of each label, having checked that labels are complete and match folders one to one."""
    if num_train == 0 or num_train == len(files):
        raise DatasetError(f"{TRAIN_LIST if num_train == 0 else TEST_LIST}: file_list: got no images, expected some")
    num_classes = int(labels.max()) + 1
    if num_classes > num_train:  # each has an image, so it need not be looked for among billions of labels
        raise DatasetError(
            f"labels: got {num_classes}, expected none above {num_train}, the number of images in {TRAIN_LIST}"
        )
    absent = sorted(set(range(num_classes)) - set(labels[:num_train].tolist()))
    if absent:
        shown = first_of(str(label + 1) for label in absent)
        raise DatasetError(
            f"{TRAIN_LIST}: labels: expected every label of 1..{num_classes}, {len(absent)} missing: {shown}"
        )
    folder_of: dict[int, str] = {}
    label_of: dict[str, int] = {}
    for file, label in zip(files, labels.tolist(), strict=True):
        folder = file.split("/")[0]
        if folder_of.setdefault(label, folder) != folder:
            raise DatasetError(
                f"{file}: label {label + 1} is also that of folder {folder_of[label]}, expected one folder a label"
            )
        if label_of.setdefault(folder, label) != label:
            raise DatasetError(
                f"{file}: label {label + 1}, but others of its folder have {label_of[folder] + 1}, expected one"
            )
    return [folder_of[label] for label in range(num_classes)]


# --- files and archives -----------------------------------------------------------------------------------------


def check_images_folder(root: Path) -> None:
    """Raise DatasetNotFoundError where there is no Images folder at all: what to check where files may be missing."""
    if not (root / "Images").is_dir():
        raise DatasetNotFoundError(f"{root}: no Images folder{_archive_hint(root, 'images')}")


def _check_on_disk(root: Path, files: list[str]) -> None:
    check_images_folder(root)
    images = root / "Images"
    listed: dict[str, set[str]] = {}
    for file in files:
        folder, name = file.split("/")
        listed.setdefault(folder, set()).add(name)
    missing = [f"{folder}/{name}" for folder, names in listed.items() for name in names - _names_in(images / folder)]
    if missing:
        gone = sum(not (images / folder).is_dir() for folder in listed)
        raise DatasetNotFoundError(
            f"{images}: {len(missing)} of {len(files)} listed images are missing "
            f"({gone} of {len(listed)} class folders are): {first_of(missing)}"
        )


def _names_in(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _archive_hint(root: Path, name: str) -> str:
    if (root / ARCHIVES[name].file_name).is_file():
        return f"; {ARCHIVES[name].file_name} is there, unpack it with `dogs-accel download --data {root}`"
    return f"; `dogs-accel download --data {root}` fetches the dataset"


def _unpack_present(root: Path, progress: bool) -> None:
    for archive in ARCHIVES.values():
        path = root / archive.file_name
        lists_in_root = archive.folder == "lists" and (root / TRAIN_LIST).is_file()
        if not path.is_file() or (root / archive.folder).exists() or lists_in_root:
            continue
        size = path.stat().st_size
        if size != archive.size_bytes:
            warnings.warn(
                f"{path}: {size} bytes, the official archive has {archive.size_bytes}: unpacked without verifying it",
                stacklevel=4,
            )
        elif (digest := sha256_of(path, progress=progress)) != archive.sha256:
            raise DatasetError(f"{path}: sha256 is {digest}, expected {archive.sha256}; delete it and fetch it again")
        unpack_archive(path, root / archive.folder, progress=progress)
