"""Every table over the finished runs of a benchmark, computed from the runs in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dogs_accel.datasets.facts import DatasetFacts
from dogs_accel.evaluation.mistakes import confusion_clusters
from dogs_accel.results.comparison import write_comparison
from dogs_accel.results.layout import CLUSTERS_FILE
from dogs_accel.results.per_class import write_per_class
from dogs_accel.results.run import Run
from dogs_accel.runtime.files import write_csv


def write_tables(folder: Path, runs: Sequence[Run], facts: DatasetFacts) -> list[Path]:
    """Write the tables over the runs and their pictures: side by side, by class, and what is mistaken for what.

    facts: of the dataset, for the words of the pictures.
    """
    return [
        *write_comparison(folder, runs, facts),
        *write_per_class(folder, runs, facts),
        write_confusion_clusters(folder, runs),
    ]


def write_confusion_clusters(folder: Path, runs: Sequence[Run]) -> Path:
    """Write confusion_clusters.csv: the groups of classes of each run, on the test split."""
    tables = [confusion_clusters(run.confusion, run.class_names) for run in runs]
    for run, table in zip(runs, tables, strict=True):
        table.insert(0, "run", run.name)
    return write_csv(folder / CLUSTERS_FILE, pd.concat(tables, ignore_index=True))
