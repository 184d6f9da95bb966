"""The breeds that each run takes for each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from dogs_accel.evaluation.mistakes import confusion_clusters
from dogs_accel.results.finished_run import finished_runs
from dogs_accel.runtime.files import write_csv

CLUSTERS_FILE = "confusion_clusters.csv"


def write_confusion_clusters(out: Path) -> Path:
    """Write confusion_clusters.csv of a benchmark's folder: the groups of each finished run, on the test split."""
    tables = []
    for run in finished_runs(out):
        test, names = run.predictions("test"), run.class_names()
        counts = confusion_matrix(test.labels, test.predicted, labels=np.arange(len(names)))
        table = confusion_clusters(counts, names)
        table.insert(0, "run", run.name)
        tables.append(table)
    return write_csv(out / CLUSTERS_FILE, pd.concat(tables, ignore_index=True))
