"""What came of an experiment, as text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dogs_accel.explain.run import EXPLANATIONS_FOLDER
from dogs_accel.results.comparison import MEASURES, comparison_table, describe_pairs, has_repeats, repeats_table
from dogs_accel.results.folder import RunsFolder
from dogs_accel.results.layout import PAIRWISE_FILE, run_folder
from dogs_accel.results.run import Run
from dogs_accel.runtime.files import is_no_result
from dogs_accel.training.tracking import WANDB_FOLDER

_MOST_RUNS = 4
"""Runs whose files are named one by one."""


def describe_results(folder: RunsFolder) -> str:
    """Lay out the result as text for a terminal: the table, the differences that matter, and what was written."""
    shown = _describe_repeats(folder.runs) if has_repeats(folder.runs) else _describe_runs(folder.runs)
    pairs = folder.table(PAIRWISE_FILE)
    differences = "" if pairs is None else describe_pairs(pairs, folder.runs)
    many = [run_folder(Path(), run.family, run.name) for run in folder.runs] if len(folder.runs) > _MOST_RUNS else []
    listed = "\n".join(f"  {name}" for name in _listed_files(folder.folder, many))
    return "\n\n".join(filter(None, [shown, differences, f"written to {folder.folder}\n{listed}"]))


def describe_validation(folder: RunsFolder) -> str:
    """Lay out the result of runs that have not read the test split."""
    rows = [(run.model, run.strategy, run.metrics["val"]["accuracy"]) for run in folder.runs]
    table = pd.DataFrame(rows, columns=["Model", "Training strategy", "Validation accuracy"])
    files = "\n".join(f"  {name}" for name in _listed_files(folder.folder))
    return (
        f"{table.to_string(index=False, float_format='{:.4f}'.format)}\nthe test split was not read, so there are no "
        f"tables over the runs and no report\n\nwritten to {folder.folder}\n{files}"
    )


def _listed_files(folder: Path, many: Sequence[Path] = ()) -> list[str]:
    """Name the files of a folder, single pictures and those of many runs by their folder alone."""
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    paths = [path for path in paths if not is_no_result(path)]
    of_runs = Counter(run for path in paths for run in many if path.is_relative_to(run))
    paths = [path for path in paths if not any(path.is_relative_to(run) for run in many)]
    pictures = Counter(path.parent for path in paths if path.parent.name == EXPLANATIONS_FOLDER)
    files = [str(path) for path in paths if path.parts[0] != WANDB_FOLDER and path.parent not in pictures]
    files += [f"{parent}/ ({number} pictures)" for parent, number in pictures.items()]
    files += [f"{run}/ ({number} file{'s' * (number != 1)})" for run, number in of_runs.items()]
    if (folder / WANDB_FOLDER).is_dir():
        files.append(f"{WANDB_FOLDER}/ (the runs of Weights & Biases)")
    return sorted(files)


def _describe_runs(runs: Sequence[Run]) -> str:
    table = comparison_table(runs)
    table["95 % interval"] = ["{:.4f} to {:.4f}".format(*run.metrics["accuracy_ci95"]) for run in runs]
    columns = ["Model", "Training strategy", "Test accuracy", "95 % interval", "Macro F1", "ECE", "Train time (s)"]
    return _show(table[columns])


def _describe_repeats(runs: Sequence[Run]) -> str:
    table = repeats_table(runs)
    ends = zip(table["Test accuracy 95 % low"], table["Test accuracy 95 % high"], strict=True)
    table["95 % interval"] = ["" if np.isnan(low) else f"{low:.4f} to {high:.4f}" for low, high in ends]
    table = table.rename(columns={f"{measure} mean": measure for measure in MEASURES})
    columns = ["Model", "Training strategy", "Seeds", "Test accuracy", "95 % interval", "Macro F1", "ECE"]
    seeds = " or ".join(map(str, sorted({num for num in table["Seeds"] if num > 1})))
    note = f"means; 95 % interval of the mean over {seeds} seeds (Student's t)"
    return f"{_show(table[[*columns, 'Train time (s)']])}\n{note}"


def _show(table: pd.DataFrame) -> str:
    return table.to_string(index=False, float_format="{:.4f}".format, formatters={"Train time (s)": "{:.1f}".format})
