"""What a run left in its folder, read back: for the report and for everything that judges a run afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.runtime.files import MANIFEST, read_json

REPORT_FILE, CLAIMS_FILE = "report.html", "claims.json"
"""What is made of a folder's other files."""

_RECORD_SUFFIX = "_run_metadata.json"


@dataclass(frozen=True)
class TrainedRun:
    """One finished run: its folder, <family>/<name>/ in the folder of all, and its record."""

    folder: Path
    record: dict[str, Any]
    metrics: dict[str, Any]
    """metrics.json"""

    @property
    def name(self) -> str:
        """Such as resnet50_staged."""
        return self.folder.name

    @property
    def configuration(self) -> str:
        """Name without the seed, which the names of repeated runs end with."""
        return self.name.removesuffix(f"_seed{self.record['config']['seed']}")

    @property
    def family(self) -> str:
        """Name the family: cnn or vit."""
        return str(self.record["config"]["family"])

    @property
    def model(self) -> str:
        """Name the model as people do."""
        return str(self.record["config"]["model_name"])

    @property
    def strategy(self) -> str:
        """Name the schedule as the published tables do."""
        return str(self.record["config"]["strategy"])

    @property
    def schedule(self) -> str:
        """Name the schedule in a word where it is one of the usual ones."""
        match [phase["mode"] for phase in self.record["config"]["phases"]]:
            case ["full_finetune"]:
                return "full"
            case ["head_only", "full_finetune"]:
                return "staged"
            case ["head_only"]:
                return "head only"
            case _:
                return self.strategy

    @property
    def training_seconds(self) -> float:
        """Seconds of training and validation."""
        return float(self.record["training_seconds"])

    def interval(self, measure: str) -> tuple[float, float] | None:
        """95 % interval of a measure of the test split, None where metrics.json has none."""
        ends = self.metrics.get("intervals", {}).get(measure)
        if ends is None and measure == "accuracy":
            ends = self.metrics.get("accuracy_ci95")
        return None if ends is None else (float(ends[0]), float(ends[1]))

    @cached_property
    def history(self) -> pd.DataFrame | None:
        """The row of each epoch."""
        return read_table(self.folder / f"{self.name}_history.csv")

    @cached_property
    def classes(self) -> pd.DataFrame | None:
        """classification_report.csv without its closing rows: class_name, precision, recall, f1-score, support."""
        table = read_table(self.folder / "classification_report.csv")
        if table is None:
            return None
        return table.iloc[:-3].rename(columns={table.columns[0]: "class_name"})

    @cached_property
    def predictions(self) -> Predictions | None:
        """Logits of the test split. Raises ValueError, naming the file, where it cannot be read."""
        path = self.folder / "test_logits.npz"
        if not path.exists():
            return None
        try:
            return Predictions.load(path)
        except (BadZipFile, KeyError, ValueError) as error:
            raise ValueError(f"{path}: not the logits of a run ({error})") from error

    @cached_property
    def confusion(self) -> NDArray[np.int64] | None:
        """(C, C) counts of the test split, rows true."""
        if self.predictions is None:
            return None
        every = np.arange(self.predictions.logits.shape[1])
        counts: NDArray[np.int64] = confusion_matrix(self.predictions.labels, self.predictions.predicted, labels=every)
        return counts


@dataclass(frozen=True)
class RunFolder:
    """The folder of one benchmark."""

    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    runs: list[TrainedRun]
    """Those that are finished, in the order in which they began."""
    unfinished: list[str]
    label: str
    """Its name for people."""

    @property
    def notice(self) -> str:
        """What the data say of themselves, such as that they were generated; empty of real data."""
        return str(self.runs[0].record.get("data_notice") or "")

    @property
    def num_images(self) -> dict[str, int]:
        """Images that were used, by split."""
        return dict(self.runs[0].record["num_images"])

    @property
    def num_classes(self) -> int:
        """How many breeds there are."""
        return int(self.runs[0].record["config"]["num_classes"])

    @property
    def device(self) -> str:
        """What it ran on, by name."""
        if self.runs[0].record.get("device_name") and str(self.runs[0].record["device"]).startswith("cuda"):
            return str(self.runs[0].record["device_name"])
        gpus = self.environment.get("gpus") or []
        if str(self.runs[0].record["device"]).startswith("cuda") and gpus:
            return str(gpus[0]["name"])
        return f"{self.environment.get('cpu', 'CPU')}, {self.environment.get('cores', '?')} cores"

    def table(self, name: str) -> pd.DataFrame | None:
        """Read a CSV file of the folder, None where there is none."""
        return read_table(self.folder / name)

    def json(self, name: str) -> Any:
        """Read a JSON file of the folder, None where there is none."""
        return _read(self.folder / name) if (self.folder / name).exists() else None

    @cached_property
    def checksums(self) -> dict[str, dict[str, Any]]:
        """Size and sha256 of each file that a report is made from, as MANIFEST.json has them."""
        files = (self.json(MANIFEST) or {"files": {}})["files"]
        return {name: entry for name, entry in files.items() if name not in (REPORT_FILE, CLAIMS_FILE)}

    @cached_property
    def class_names(self) -> list[str]:
        """Breeds in the order of their labels, from the first report that is there."""
        for run in self.runs:
            if run.classes is not None:
                return [str(name) for name in run.classes["class_name"]]
        return [f"class {label}" for label in range(self.num_classes)]

    @cached_property
    def test_images(self) -> str | None:
        """Digest of the ids of the test images: two folders with the same one were tested on the same pictures."""
        splits = self.table("split_metadata.csv")
        if splits is None:
            return None
        ids = sorted(splits.loc[splits["split"] == "test", "image_id"].astype(str))
        return hashlib.sha256("\n".join([self.notice, *ids]).encode()).hexdigest()


def read_run_folder(folder: Path) -> RunFolder:
    """Read a folder of the benchmark.

    Raises ValueError, naming the folder or file and what is wrong with it, where there is no finished run or a file
    cannot be read.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        raise ValueError(f"{folder}: not a folder")
    paths = sorted(folder.glob(f"*/*/*{_RECORD_SUFFIX}"))
    runs, unfinished = [], []
    for path in paths:
        record = _read(path)
        metrics = path.parent / "metrics.json"
        if record.get("state") == "finished" and "training_seconds" in record and metrics.exists():
            runs.append(TrainedRun(path.parent, record, _read(metrics)))
        else:
            unfinished.append(path.parent.name)
    if not runs:
        raise ValueError(f"{folder}: found no finished run, expected <family>/<run>/<run>{_RECORD_SUFFIX}")
    runs.sort(key=lambda run: str(run.record.get("created_at", "")))
    config, environment = (
        _read(folder / name) if (folder / name).exists() else {} for name in ("config.json", "environment.json")
    )
    return RunFolder(folder, config, environment, runs, unfinished, folder.name)


def folder_labels(folders: Iterable[Path]) -> dict[Path, str]:
    """Name folders by the shortest ends of their paths that tell them apart, such as demo, or a/run and b/run."""
    different = set(folders)
    longest = max((len(folder.parts) for folder in different), default=1)
    for num_parts in range(1, longest + 1):
        labels = {folder: "/".join(folder.parts[-num_parts:]) for folder in different}
        if len(set(labels.values())) == len(different):
            return labels
    return {folder: str(folder) for folder in different}


def read_table(path: Path) -> pd.DataFrame | None:
    """Read a CSV file, None where there is none; a breed may be called "NA", so only an empty cell has no value."""
    if not path.exists():
        return None
    try:
        return pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"image_id": str, "id": str})
    except ValueError as error:  # pandas' parser errors and broken UTF-8
        raise ValueError(f"{path}: not a readable table ({' '.join(str(error).split())})") from error


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except ValueError as error:
        raise ValueError(f"{path}: not readable JSON ({error})") from error


def missing_columns(table: pd.DataFrame | None, columns: Iterable[str]) -> bool:
    """Whether a table is absent, empty or lacks one of the columns."""
    return table is None or table.empty or not set(columns) <= set(table.columns)
