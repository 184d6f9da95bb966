"""The tables that put the runs side by side, with the published file and column names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dogs_accel.files import write_csv
from dogs_accel.plots import comparison_figure, save_figure

FAMILY_NAME = {"cnn": "CNN", "vit": "Transformer"}


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """What the comparison needs of a finished run."""

    model: str
    family: str
    strategy: str
    total_params: int
    training_seconds: float
    metrics: dict[str, Any]
    tracked: dict[str, Any]
    """The row of runs_summary.csv."""


def experiment_to_row(run: RunOutcome) -> dict[str, Any]:
    """Return the run as a row of model_comparison.csv; its ECE has 10 bins, as the published one."""
    return {
        "Model": run.model,
        "Family": FAMILY_NAME[run.family],
        "Params": run.total_params,
        "Training strategy": run.strategy,
        "Test accuracy": run.metrics["accuracy"],
        "Macro F1": run.metrics["macro_f1"],
        "Weighted F1": run.metrics["weighted_f1"],
        "ECE": run.metrics["ece"],
        "Train time (s)": round(run.training_seconds, 2),
        "Params(M)": round(run.total_params / 1e6, 2),
    }


def comparison_table(runs: Sequence[RunOutcome]) -> pd.DataFrame:
    """Tabulate the runs in the order in which they ran."""
    return pd.DataFrame([experiment_to_row(run) for run in runs])


def best_per_family(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the row of highest test accuracy of each family, the earlier run of equals."""
    best = table.loc[table.groupby("Family", sort=False)["Test accuracy"].idxmax()]
    return best[["Model", "Family", "Training strategy", "Test accuracy", "Macro F1", "ECE", "Train time (s)"]].rename(
        columns={"Training strategy": "Best strategy", "Test accuracy": "Accuracy"}
    )


def write_comparison(folder: Path, runs: Sequence[RunOutcome]) -> list[Path]:
    """Write model_comparison.csv, best_per_family_comparison.csv, comparison_overview.png and runs_summary.csv."""
    table = comparison_table(runs)
    figure = comparison_figure(table, [run.family for run in runs], [run.metrics["accuracy_ci95"] for run in runs])
    return [
        write_csv(folder / "model_comparison.csv", table),
        write_csv(folder / "best_per_family_comparison.csv", best_per_family(table)),
        save_figure(figure, folder / "comparison_overview.png"),
        write_csv(folder / "wandb_export" / "runs_summary.csv", pd.DataFrame([run.tracked for run in runs])),
    ]
