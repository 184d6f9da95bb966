"""CIFAR-10 as its archive unpacks: pickled batches of arrays, which are written as pictures first."""

from __future__ import annotations

import codecs
import dataclasses
import os
import pickle
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from dogs_accel.datasets.dataset import Dataset, DatasetError, DatasetNotFoundError
from dogs_accel.datasets.layouts.class_folders import open_class_folders
from dogs_accel.runtime.files import replacing_folder
from pipelines.decoding.contents import require_regular
from pipelines.progress import progress_bar

BATCHES_FOLDER, PICTURES_FOLDER = "cifar-10-batches-py", "cifar-10-png"
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_BATCHES = {"train": re.compile(r"data_batch_\d+"), "test": re.compile(r"test_batch")}
_SIDE_PX = 32
_MOST_BATCH_BYTES = 1 << 28
"""Of a batch, whose official ones have 31 MB."""
_FILE_NAME = re.compile(r"[\w-]+\.png")
_OFFICIAL_SIZE = (60_000, 10)


@dataclass(frozen=True, slots=True)
class PickledBatch:
    """One batch: images (N, 32, 32, 3) uint8, their labels, and what their files were called."""

    images: np.ndarray
    labels: list[int]
    names: list[str]


def is_cifar10(root: str | os.PathLike[str]) -> bool:
    """Whether a folder holds the pickled batches or what they were written to, or is the folder of the batches."""
    folder = _folder(root)
    return any((folder / name).is_dir() for name in (BATCHES_FOLDER, PICTURES_FOLDER))


def open_cifar10(root: str | os.PathLike[str], *, unpack: bool = False, progress: bool = True) -> Dataset:
    """Open a folder that holds CIFAR-10.

    Its images are arrays in pickled batches. With `unpack` they are written first, once, as PNG files, which lose
    nothing, to cifar-10-png/train/<class>/ and test/; every command then reads these. They have the names that the
    batches give them, after batch and row where a class has a name twice. Training and test are the publisher's,
    validation is carved out of training.

    Raises DatasetError for batches that are damaged or hold anything but arrays, and DatasetNotFoundError where the
    pictures are missing and are not to be written.
    Definition: Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """
    folder = _folder(root).resolve()
    pictures = folder / PICTURES_FOLDER
    if not pictures.is_dir():
        if not (folder / BATCHES_FOLDER).is_dir():
            raise DatasetNotFoundError(f"{folder}: no folder {BATCHES_FOLDER}, expected it")
        if not unpack:
            raise DatasetNotFoundError(
                f"{folder}: {BATCHES_FOLDER} is not written as pictures yet, which any command does that is no dry "
                "run, and open_dataset(root, unpack=True)"
            )
        _write_pictures(folder / BATCHES_FOLDER, pictures, progress)
    data = open_class_folders(pictures)
    is_whole = (len(data), data.num_classes) == _OFFICIAL_SIZE
    facts = dataclasses.replace(
        data.facts,
        name="cifar-10" if is_whole else "cifar-10-subset",
        title="CIFAR-10" if is_whole else "a subset of CIFAR-10",
        layout=f"CIFAR-10, its arrays as pictures in {PICTURES_FOLDER}/",
        published="cifar-10",
    )
    return dataclasses.replace(data, facts=facts, root=folder)


def _folder(root: str | os.PathLike[str]) -> Path:
    folder = Path(root).expanduser()
    return folder.parent if folder.name == BATCHES_FOLDER and folder.is_dir() else folder


def _write_pictures(batches: Path, pictures: Path, progress: bool) -> None:
    read = [(part, path.name, read_batch(path)) for part, path in _batch_files(batches)]
    counts = Counter(
        (part, label, name) for part, _, batch in read for label, name in zip(batch.labels, batch.names, strict=True)
    )
    total = counts.total()
    with replacing_folder(pictures) as content, progress_bar(total, f"write {PICTURES_FOLDER}", shown=progress) as bar:
        for part in _BATCHES:
            for class_name in CLASS_NAMES:
                (content / part / class_name).mkdir(parents=True, exist_ok=True)
        for part, batch_name, batch in read:
            for row, (image, label, name) in enumerate(zip(batch.images, batch.labels, batch.names, strict=True)):
                own_name = name if counts[part, label, name] == 1 else f"{batch_name}_{row}_{name}"
                Image.fromarray(image).save(content / part / CLASS_NAMES[label] / own_name, compress_level=1)
                bar.update(1)


def _batch_files(folder: Path) -> Iterator[tuple[str, Path]]:
    paths = sorted(folder.iterdir())
    for part, pattern in _BATCHES.items():
        found = [path for path in paths if pattern.fullmatch(path.name)]
        if not found:
            raise DatasetNotFoundError(
                f"{folder}: no {'data_batch_1' if part == 'train' else 'test_batch'}, expected it"
            )
        expected = [f"data_batch_{number}" for number in range(1, len(found) + 1)] if part == "train" else []
        if absent := sorted(set(expected) - {path.name for path in found}):
            raise DatasetNotFoundError(f"{folder}: no {absent[0]}, expected it beside {found[-1].name}")
        yield from ((part, path) for path in found)


class _ArraysOnly(pickle.Unpickler):
    """Reads pickles of plain values and NumPy arrays; anything else could run code."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle of an array needs, and nothing else."""
        if (module, name) == ("_codecs", "encode"):  # by which Python 3 writes bytes in a format of Python 2
            return codecs.encode
        allowed = {"_reconstruct": np.zeros(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}
        if module.partition(".")[0] != "numpy" or name not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, expected arrays alone")
        return allowed[name]


def read_batch(path: Path) -> PickledBatch:
    """Read one of the pickled batches. Raises DatasetError where it is damaged, or holds anything but arrays."""
    try:
        require_regular(path)
        if path.stat().st_size > _MOST_BATCH_BYTES:
            raise ValueError(f"it has more than {_MOST_BATCH_BYTES:,} bytes")
        with path.open("rb") as file:
            content = _ArraysOnly(file).load()
        return _checked(content)
    except Exception as error:  # a damaged pickle raises whatever it comes across
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error).partition("\n")[0]
        raise DatasetError(f"{path}: not a batch of CIFAR-10 ({reason or type(error).__name__})") from error


def _checked(content: Any) -> PickledBatch:
    if not isinstance(content, dict) or not {b"data", b"labels", b"filenames"} <= content.keys():
        raise ValueError("expected data, labels and filenames")
    data, labels, names = content[b"data"], content[b"labels"], content[b"filenames"]
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3 * _SIDE_PX**2:
        raise ValueError(f"data: expected (N, {3 * _SIDE_PX**2}) uint8")
    if not isinstance(labels, list) or not isinstance(names, list) or not len(labels) == len(names) == len(data):
        raise ValueError(f"labels, filenames: expected one per image ({len(data)})")
    if not all(type(label) is int and 0 <= label < len(CLASS_NAMES) for label in labels):
        raise ValueError(f"labels: expected integers of 0..{len(CLASS_NAMES) - 1}")
    texts = [name.decode() if isinstance(name, bytes) else str(name) for name in names]
    if wrong := [text for text in texts if not _FILE_NAME.fullmatch(text)]:
        raise ValueError(f"filenames: got {wrong[0][:100]!r}, expected such as 'a_s_000004.png'")
    return PickledBatch(data.reshape(-1, 3, _SIDE_PX, _SIDE_PX).transpose(0, 2, 3, 1), labels, texts)
