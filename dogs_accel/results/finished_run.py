"""Finished runs of a results folder: what their files hold, and how to build their models again."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from dogs_accel.calibration import fit_temperature
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.models.build import build_model
from dogs_accel.models.specs import ModelSpec, model_spec
from dogs_accel.runtime.files import read_json
from dogs_accel.training.checkpoint import CheckpointError, load_checkpoint
from pipelines import Recipe

_RECORD_SUFFIX = "_run_metadata.json"
_TO_ANSWER = ("amp", "best_val_accuracy", "data_notice", "device", "eval_batch_size", "eval_recipe", "identity", "step")
"""Keys of a record without which a run's model cannot be asked again."""
_NUM_CLOSING_ROWS = 3
"""Rows of classification_report.csv that are no breeds: accuracy, macro avg, weighted avg."""


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A run whose files are all there."""

    name: str
    family: str
    folder: Path
    record: dict[str, Any]
    """What `<name>_run_metadata.json` holds."""

    @property
    def title(self) -> str:
        """Model and strategy, for people."""
        return str(self.record["display_name"])

    @property
    def configuration(self) -> tuple[str, str]:
        """Model and strategy, which runs with other seeds share."""
        return self.record["config"]["model_name"], self.record["config"]["strategy"]

    @property
    def val_accuracy(self) -> float:
        """Validation accuracy of the epoch whose weights best.pt holds."""
        return float(self.record["best_val_accuracy"])

    @property
    def eval_recipe(self) -> Recipe:
        """The recipe that validation and test were loaded with."""
        recorded: dict[str, Any] = self.record["eval_recipe"]
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in recorded.items()
        }
        return Recipe(**fields)

    def predictions(self, split: str) -> Predictions:
        """Read the logits of "val" or "test"."""
        return Predictions.load(self.folder / f"{split}_logits.npz")

    def class_names(self) -> list[str]:
        """Read the breeds in the order of the labels: the rows of classification_report.csv."""
        path = self.folder / "classification_report.csv"
        # As text without missing values, because a breed may be called "NA".
        rows = pd.read_csv(path, usecols=[0], dtype=str, keep_default_na=False).iloc[:, 0].tolist()
        names, expected = rows[:-_NUM_CLOSING_ROWS], self.record["config"]["num_classes"]
        if len(names) != expected:
            raise ValueError(f"{path}: got {len(names)} breeds, expected {expected}")
        return names

    def temperature(self) -> float:
        """Read the temperature of metrics.json, or fit it on the validation logits where the file has none."""
        recorded = read_json(self.folder / "metrics.json").get("temperature")
        if recorded is not None:
            return float(recorded["value"])
        val = self.predictions("val")
        return fit_temperature(torch.from_numpy(val.logits), torch.from_numpy(val.labels)).temperature

    def spec(self) -> ModelSpec:
        """Look up the model that the run trained."""
        identity = self.record["identity"]
        return model_spec(identity["model"], identity["image_size"])

    def load_model(self) -> nn.Module:
        """Build the model with the weights of best.pt, on the CPU in evaluation mode.

        Raises CheckpointError where they cannot be read or are not the model's.
        """
        path = self.folder / "best.pt"
        state = load_checkpoint(path)["model"]
        model = build_model(self.spec(), self.record["config"]["num_classes"], "none").model
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"checkpoint: {path} does not fit {self.title} ({reason[:200]})") from error
        return model.eval()


def finished_runs(out: Path) -> list[FinishedRun]:
    """Find the finished runs of a benchmark's folder, in the order in which they began.

    Raises ValueError where there is none.
    """
    records = [(path.parent, read_json(path)) for path in sorted(out.glob(f"*/*/*{_RECORD_SUFFIX}"))]
    runs = [
        FinishedRun(name=record["run_name"], family=folder.parent.name, folder=folder, record=record)
        for folder, record in records
        if record["state"] == "finished"
    ]
    if not runs:
        raise ValueError(f"run: {out} holds no finished run of a benchmark")
    return sorted(runs, key=lambda run: run.record["created_at"])


def choose_run(out: Path, name: str | None = None) -> FinishedRun:
    """Take a run of a benchmark's folder by name, or the one of highest validation accuracy, the first of equals.

    Raises ValueError where there is none of that name, or where an older version recorded less than its model needs.
    """
    runs = {run.name: run for run in finished_runs(out)}
    if name is not None and name not in runs:
        near = difflib.get_close_matches(name, runs, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"model: got {name!r}, expected one of {', '.join(runs)}{hint}")
    for run in runs.values() if name is None else [runs[name]]:
        if missing := [key for key in _TO_ANSWER if key not in run.record]:
            raise ValueError(
                f"run: {run.name} was recorded by an older version, without {', '.join(missing)}; run the benchmark "
                "again"
            )
    return max(runs.values(), key=lambda run: run.val_accuracy) if name is None else runs[name]
