"""One finished run: its record, and its files, each read when it is first asked for and at most once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from dogs_accel.calibration import fit_temperature
from dogs_accel.cost.model_cost import ModelCost
from dogs_accel.evaluation.per_class import ClassScores, class_scores
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.results.layout import CLASSES_FILE, METRICS_FILE, history_file, logits_file
from dogs_accel.results.older import with_scores_of_now
from dogs_accel.results.reading import ReadOnce, read_predictions
from dogs_accel.results.record import RunRecord
from dogs_accel.training.phases import STRATEGIES, strategy_of

if TYPE_CHECKING:
    from dogs_accel.evaluation.pairwise import ComparedRun

_NUM_CLOSING_ROWS = 3
"""Rows of classification_report.csv that are no classes: accuracy, macro avg, weighted avg."""


class Run(ReadOnce):
    """A finished run."""

    def __init__(self, folder: Path, record: RunRecord, known: Mapping[str, Any] | None = None) -> None:
        super().__init__(folder, known)
        self.record = record

    @property
    def name(self) -> str:
        """Such as resnet50_staged, or resnet50_staged_seed43."""
        return self.record.run_name

    @property
    def configuration(self) -> str:
        """Name that runs with other seeds share."""
        return self.name.removesuffix(f"_seed{self.seed}")

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.record.config.seed

    @property
    def family(self) -> str:
        """Label of the family, such as cnn or vit."""
        return self.record.config.family

    @property
    def model(self) -> str:
        """Name the model as people do."""
        return self.record.config.model_name

    @property
    def strategy(self) -> str:
        """Name the schedule as the published tables do."""
        return self.record.config.strategy

    @property
    def schedule(self) -> str:
        """Name the schedule in a word, as it was typed or where it is a usual one, and a training recipe of its own."""
        strategy = strategy_of(self.record.config.phases)
        known = "head only" if strategy == "head" else strategy or self.strategy
        typed = self.record.strategy_name
        named = typed if typed not in ("", "head") else known
        if typed in STRATEGIES and typed != strategy:
            named = f"{typed} with settings"  # which make it another one
        return f"{named}, {self.record.recipe_name}" if self.record.recipe_name else named

    @property
    def title(self) -> str:
        """Model and strategy, for people."""
        return self.record.display_name

    @property
    def training_seconds(self) -> float:
        """Seconds of training and validation."""
        return float(self.record.training_seconds)

    @property
    def val_accuracy(self) -> float:
        """Validation accuracy of the epoch whose weights are kept."""
        return float(self.record.best_val_accuracy)

    @cached_property
    def cost(self) -> ModelCost | None:
        """What the model costs beside its scores; None where `why_no_cost` says why."""
        return ModelCost.from_json(self.record.cost) if self.record.cost else None

    @property
    def why_no_cost(self) -> str | None:
        """Why nothing is known of what the model costs; None where it is."""
        if self.record.cost:
            return None
        return "an earlier version did not measure it" if "cost" in self.record.absent else "it could not be measured"

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Scores of the test split, and of validation under "val". Raises ValueError where the file is not there."""
        metrics: dict[str, Any] | None = self.content(METRICS_FILE)
        if metrics is None:
            raise ValueError(f"{self.folder / METRICS_FILE}: not found, expected the scores of a run")
        return with_scores_of_now(metrics, self.record.config.num_classes)

    def interval(self, measure: str) -> tuple[float, float] | None:
        """95 % interval of a measure of the test split, None where metrics.json has none."""
        ends = self.metrics.get("intervals", {}).get(measure)
        if ends is None and measure == "accuracy":
            ends = self.metrics.get("accuracy_ci95")
        return None if ends is None else (float(ends[0]), float(ends[1]))

    def why_no_interval(self, measure: str) -> str | None:
        """Why a measure of the test split has no interval, None where it has one or nothing is said of it."""
        reason: str | None = self.metrics.get("no_interval", {}).get(measure)
        return reason

    @property
    def history(self) -> pd.DataFrame | None:
        """The row of each epoch."""
        return self.table(history_file(self.name))

    @cached_property
    def classes(self) -> pd.DataFrame | None:
        """classification_report.csv without its closing rows: class_name, precision, recall, f1-score, support.

        The closing rows are the last ones, whatever the classes are called.
        """
        table = self.table(CLASSES_FILE)
        if table is None:
            return None
        return table.iloc[:-_NUM_CLOSING_ROWS].rename(columns={table.columns[0]: "class_name"})

    @cached_property
    def class_names(self) -> list[str]:
        """Classes in the order of their labels. Raises ValueError, naming the file, where it does not name each."""
        names = [] if self.classes is None else [str(name) for name in self.classes["class_name"]]
        if len(names) != self.record.config.num_classes:
            raise ValueError(
                f"{self.folder / CLASSES_FILE}: got {len(names)} classes, expected {self.record.config.num_classes}"
            )
        return names

    def predictions(self, split: str, *, tta: bool = False) -> Predictions:
        """Logits of "val" or "test", or the logarithms of their mean probabilities over views.

        Raises ValueError, naming the file, where it is absent or cannot be read.
        """
        name = logits_file(split, tta=tta)
        found = self.once(name, read_predictions)
        if found is None:
            raise ValueError(f"{self.folder / name}: not found, expected the logits of a run")
        return found

    @property
    def has_predictions(self) -> bool:
        """Whether the logits of the test split are there."""
        return self.once(logits_file("test"), read_predictions) is not None

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """(C, C) counts of the test split, rows true."""
        from sklearn.metrics import confusion_matrix  # takes a second, which predict does not need

        test = self.predictions("test")
        every = np.arange(test.logits.shape[1])
        counts: NDArray[np.int64] = confusion_matrix(test.labels, test.predicted, labels=every)
        return counts

    @cached_property
    def class_scores(self) -> ClassScores:
        """Precision, recall and F1 of each class on the test split."""
        return class_scores(self.confusion)

    @cached_property
    def compared(self) -> ComparedRun:
        """The test split scored and resampled for comparisons: a second of work."""
        from dogs_accel.evaluation.pairwise import compared_run  # and so scipy, as above

        return compared_run(self.name, self.configuration, self.seed, self.predictions("test"))

    @property
    def temperature(self) -> float | None:
        """The temperature of metrics.json, or fitted on the validation logits where an older version has none.

        None where `why_no_temperature` says why.
        """
        return self._temperature[0]

    @property
    def why_no_temperature(self) -> str | None:
        """Why the logits are not divided by a temperature; None where they are."""
        return self._temperature[1]

    @cached_property
    def _temperature(self) -> tuple[float | None, str | None]:
        recorded = self.metrics.get("temperature")
        if recorded is not None:
            return recorded["value"], recorded.get("reason")
        val = self.predictions("val")
        fitted = fit_temperature(torch.from_numpy(val.logits), torch.from_numpy(val.labels))
        return (fitted.temperature, None) if fitted.problem is None else (None, fitted.problem)
