"""The folder of a benchmark, or several: its finished runs, and its tables, each file read at most once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from dogs_accel.datasets.facts import DATASET_FILE, DatasetFacts
from dogs_accel.datasets.layouts.stanford_dogs import stanford_dogs_facts
from dogs_accel.eda.files import METADATA_COLUMNS, METADATA_FILE, SPLIT_FILE
from dogs_accel.ending import CheckFailedError
from dogs_accel.ops import IMAGE_STATS
from dogs_accel.results.layout import (
    CLAIMS_FILE,
    CONFIG_FILE,
    ENVIRONMENT_FILE,
    EXPLORER_FILE,
    METRICS_FILE,
    NOT_MADE_FILE,
    REPORT_FILE,
    explorer_pictures,
    record_path,
    record_paths,
)
from dogs_accel.results.reading import ReadOnce, missing_columns
from dogs_accel.results.record import RunRecord
from dogs_accel.results.run import Run
from dogs_accel.runtime.arguments import did_you_mean
from dogs_accel.runtime.files import changed_files, read_json, read_manifest
from dogs_accel.runtime.out_of_memory import is_out_of_memory

_TO_ANSWER = ("amp", "best_val_accuracy", "data_notice", "device", "eval_batch_size", "eval_recipe", "identity", "step")
"""What a record must say so that the run's model can be asked again."""
_SHOWN, _MOST_SHOWN = 3, 150
"""Files that an error names, and letters of what it says."""


class RunsFolder(ReadOnce):
    """The folder of one benchmark.

    runs: those that are finished, in the order in which they began; unfinished: the names of the others.
    """

    def __init__(
        self,
        folder: Path,
        runs: Sequence[Run],
        unfinished: Sequence[str] = (),
        known: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(folder, known)
        self.runs = list(runs)
        self.unfinished = list(unfinished)

    @property
    def config(self) -> dict[str, Any]:
        """The settings of the command, as config.json has them."""
        return self.content(CONFIG_FILE) or {}

    @property
    def environment(self) -> dict[str, Any]:
        """Hardware and versions, as environment.json has them."""
        return self.content(ENVIRONMENT_FILE) or {}

    @cached_property
    def facts(self) -> DatasetFacts:
        """What is said of the dataset. Raises ValueError, naming the file, where dataset.json cannot be read."""
        content = self.content(DATASET_FILE)
        if content is None:  # an older version, which knew one dataset and its generated double
            return stanford_dogs_facts("synthetic" if self.runs[0].record.data_notice else self.dataset)
        try:
            return DatasetFacts.from_json(content)
        except ValueError as error:
            raise ValueError(f"{self.folder / DATASET_FILE}: {error}") from error

    @property
    def notice(self) -> str:
        """What the data say of themselves, such as that they were generated; empty of most."""
        return self.facts.notice or ""

    @property
    def num_images(self) -> dict[str, int]:
        """Images that were used, by split."""
        return dict(self.runs[0].record.num_images)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return self.runs[0].record.config.num_classes

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return self.runs[0].record.config.dataset

    @property
    def device(self) -> str:
        """What it ran on, by name."""
        record, gpus = self.runs[0].record, self.environment.get("gpus") or []
        if record.device.startswith("cuda") and (record.device_name or gpus):
            return record.device_name or str(gpus[0]["name"])
        return f"{self.environment.get('cpu', 'CPU')}, {self.environment.get('cores', '?')} cores"

    @property
    def not_made(self) -> list[str]:
        """What could not be made of the runs and over them, and why."""
        of_runs = [f"{name} of {run.name} ({why})" for run in self.runs for name, why in run.record.not_made.items()]
        return of_runs + [f"{name} ({why})" for name, why in (self.content(NOT_MADE_FILE) or {}).items()]

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What MANIFEST.json has, read once; empty where there is none."""
        return read_manifest(self.folder)

    @cached_property
    def checksums(self) -> dict[str, dict[str, Any]]:
        """Size and sha256 of each file that a report is made from, as the manifest has them."""
        made = (REPORT_FILE, CLAIMS_FILE, EXPLORER_FILE, explorer_pictures(Path(EXPLORER_FILE)).name)
        return {name: entry for name, entry in self.manifest["files"].items() if Path(name).parts[0] not in made}

    @cached_property
    def class_names(self) -> list[str]:
        """Classes in the order of their labels, from the first run that names them."""
        for run in self.runs:
            if run.classes is not None:
                return run.class_names
        return [f"class {label}" for label in range(self.num_classes)]

    @cached_property
    def test_images(self) -> str | None:
        """Digest of the test images: two folders with the same one were tested on the same pictures.

        Of their ids and classes, and of what was measured on the pixels, so that other pictures of the same names
        differ; None where that is not known.
        """
        splits, metadata = self.table(SPLIT_FILE), self.table(METADATA_FILE)
        if missing_columns(splits, ["image_id", "split"]) or missing_columns(metadata, METADATA_COLUMNS):
            return None
        assert splits is not None
        assert metadata is not None
        ids = splits.loc[splits["split"] == "test", "image_id"].astype(str)
        measured = metadata[metadata["image_id"].astype(str).isin(ids)].sort_values("image_id")
        rows = measured[["image_id", "class_name", "width", "height", *IMAGE_STATS]].to_csv(index=False)
        return hashlib.sha256(f"{self.notice}\n{rows}".encode()).hexdigest()


def read_runs_folder(folder: Path) -> RunsFolder:
    """Find the runs of a benchmark's folder.

    Raises ValueError, naming the folder or file and what is wrong with it, where there is no finished run or a record
    cannot be read.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        raise ValueError(f"{folder}: not a folder")
    runs, unfinished = [], []
    for path in record_paths(folder):
        if path != record_path(path.parent):
            raise ValueError(f"{path}: the record of another folder, expected {record_path(path.parent).name}")
        record = read_record(path)
        if record.is_finished and (path.parent / METRICS_FILE).exists():
            runs.append(Run(path.parent, record))
        else:
            unfinished.append(path.parent.name)
    if untested := [run.name for run in runs if not run.record.test_was_read]:
        raise ValueError(
            f"{folder}: {untested[0]} has not read the test split (--no-test), expected runs that have; benchmark "
            f"--config {folder / CONFIG_FILE} --test --out DIR makes one"
        )
    if not runs:
        expected = record_path(Path("<family>/<run>"))
        raise ValueError(f"{folder}: found no finished run, expected {expected}")
    return RunsFolder(folder, sorted(runs, key=lambda run: run.record.created_at), unfinished)


@contextmanager
def naming_changed_files(folders: Iterable[Path]) -> Iterator[None]:
    """Let an error in the block name the files of these folders that are others than they were written.

    Who edits a table, or copies half of a folder, is told which file it is. What goes wrong while all files are as they
    were written is passed on as it is.
    """
    folders = list(folders)
    try:
        yield
    except (OSError, CheckFailedError):  # which say what they are of
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        if is_out_of_memory(error):
            raise
        changed = [folder / name for folder in folders for name in changed_files(folder)]
        if not changed or (isinstance(error, ValueError) and any(path.name in text for path in changed)):
            raise
        named = ", ".join(map(str, changed[:_SHOWN])) + (f" and {len(changed) - _SHOWN} more" * (len(changed) > _SHOWN))
        reason = (
            text[:_MOST_SHOWN] if isinstance(error, ValueError) else f"{type(error).__name__}: {text[:_MOST_SHOWN]}"
        )
        raise ValueError(f"{named}: changed since the benchmark wrote it, and of no use as it is ({reason})") from error


def read_record(path: Path) -> RunRecord:
    """Read the record of a run. Raises ValueError, naming the file, where it is none."""
    content = read_json(path)
    try:
        return RunRecord.from_json(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def choose_run(folder: RunsFolder, name: str | None = None) -> Run:
    """Take a run by name, or the one of highest validation accuracy, the first of equals.

    Raises ValueError where there is none of that name, or where an older version recorded less than its model needs.
    """
    runs = {run.name: run for run in folder.runs}
    if name is not None and name not in runs:
        raise ValueError(f"model: got {name!r}, expected one of {', '.join(runs)}{did_you_mean(name, runs)}")
    for run in runs.values() if name is None else [runs[name]]:
        if missing := [key for key in _TO_ANSWER if key in run.record.absent]:
            raise ValueError(
                f"run: {run.name} was recorded by an older version, without {', '.join(missing)}; run the benchmark "
                "again"
            )
    return max(runs.values(), key=lambda run: run.val_accuracy) if name is None else runs[name]


def folder_labels(folders: Iterable[Path]) -> dict[Path, str]:
    """Name folders by the shortest ends of their paths that tell them apart, such as demo, or a/run and b/run."""
    different = set(folders)
    longest = max((len(folder.parts) for folder in different), default=1)
    for num_parts in range(1, longest + 1):
        labels = {folder: "/".join(folder.parts[-num_parts:]) for folder in different}
        if len(set(labels.values())) == len(different):
            return labels
    return {folder: str(folder) for folder in different}
