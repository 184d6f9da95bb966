"""Reading what a benchmark has written, with errors that name the file."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.results.older import OLDER_COLUMNS, with_names_of_now
from dogs_accel.runtime.files import read_json

Value = TypeVar("Value")

_TEXT = (
    "image_id", "id", "image_path", "example_path", "class_name", "folder_name", "true_class", "pred_class", "class",
    "classes", "Unnamed: 0", "Model", "Family", "run", "run_a", "run_b", "best_run", "runner_up_run", *OLDER_COLUMNS,
)  # fmt: skip
"""Columns of names, which may look like numbers; the one without a name has the classes of a classification report."""


def read_table(path: Path) -> pd.DataFrame | None:
    """Read a CSV file, None where there is none; a class may be called "NA", so only an empty cell has no value.

    What an earlier version called otherwise has its name of now.

    Raises ValueError, naming the file, where it cannot be read.
    """
    if not path.exists():
        return None
    try:
        table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(_TEXT, str))
    except ValueError as error:  # pandas' parser errors and broken UTF-8
        raise ValueError(f"{path}: not a readable table ({' '.join(str(error).split())})") from error
    return with_names_of_now(table)


def read_content(path: Path) -> Any:
    """Read a JSON file, None where there is none. Raises ValueError, naming the file, where it cannot be read."""
    return read_json(path) if path.exists() else None


_DAMAGED = (BadZipFile, EOFError, LookupError, MemoryError, NotImplementedError, ValueError, zlib.error)
"""What NumPy and zipfile were seen to raise of damaged files."""


def read_predictions(path: Path) -> Predictions | None:
    """Read logits, None where there are none. Raises ValueError, naming the file, where it cannot be read."""
    if not path.exists():
        return None
    try:
        return Predictions.load(path)
    except _DAMAGED as error:
        raise ValueError(f"{path}: not the logits of a run ({error})") from error


def read_arrays(path: Path) -> dict[str, NDArray[Any]] | None:
    """Read the arrays of an .npz file, None where there is none.

    Raises ValueError, naming the file, where it cannot be read.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except _DAMAGED as error:
        raise ValueError(f"{path}: not readable arrays ({error})") from error


def missing_columns(table: pd.DataFrame | None, columns: Iterable[str]) -> bool:
    """Whether a table is absent, empty or lacks one of the columns."""
    return table is None or table.empty or not set(columns) <= set(table.columns)


class ReadOnce:
    """The files of a folder, each read when it is first asked for, and at most once.

    known: what is known already, by the names of the files, to whoever has just written them.
    """

    def __init__(self, folder: Path, known: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self._known: dict[str, Any] = dict(known or {})

    def once(self, name: str, read: Callable[[Path], Value]) -> Value:
        """Return what `read` makes of a file, without reading it again."""
        if name not in self._known:
            self._known[name] = read(self.folder / name)
        value: Value = self._known[name]
        return value

    def table(self, name: str) -> pd.DataFrame | None:
        """Read a CSV file, None where there is none."""
        return self.once(name, read_table)

    def content(self, name: str) -> Any:
        """Read a JSON file, None where there is none."""
        return self.once(name, read_content)

    def binary(self, name: str) -> bytes | None:
        """Read a file as it is, None where there is none."""
        return self.once(name, lambda path: path.read_bytes() if path.exists() else None)
