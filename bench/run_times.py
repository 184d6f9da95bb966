"""Where the training seconds of runs went, from the histories that they write after each epoch."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

_END = "_history.csv"


def training_times(folder: Path) -> dict[str, dict[str, Any]]:
    """Seconds and epochs of each phase of every run below a folder, finished or not: by run, in their order.

    A phase's seconds are those of training and validation, of waiting for data among them, and of caching features.
    """
    # A killed process leaves files that it was writing, whose names begin with a dot.
    histories = [path for path in folder.rglob(f"[!.]*{_END}") if path.is_file()]
    return {path.name.removesuffix(_END): _times(path) for path in sorted(histories, key=_begun)}


def _begun(path: Path) -> float:
    return path.stat().st_mtime


def _times(path: Path) -> dict[str, Any]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    phases: dict[str, dict[str, Any]] = {}
    for row in rows:
        phase = phases.setdefault(
            row["phase"], {"phase": row["phase"], "epochs": 0, "seconds": 0.0, "data_wait_seconds": 0.0}
        )
        phase["epochs"] += 1
        phase["seconds"] += float(row["epoch_seconds"]) + float(row["features_s"])
        phase["data_wait_seconds"] += float(row["data_wait_s"])
    return {
        "epochs": len(rows),
        "seconds": sum(phase["seconds"] for phase in phases.values()),
        "phases": list(phases.values()),
    }
