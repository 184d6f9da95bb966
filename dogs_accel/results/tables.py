"""Every table over the finished runs of a benchmark, computed from the runs in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from dogs_accel.datasets.facts import DatasetFacts
from dogs_accel.eda.files import read_metadata
from dogs_accel.eda.run import write_eda
from dogs_accel.evaluation.mistakes import confusion_clusters
from dogs_accel.results.comparison import write_comparison
from dogs_accel.results.folder import RunsFolder, read_runs_folder
from dogs_accel.results.layout import CLUSTERS_FILE, COMPARISON_FILE, EDA_FOLDER, NOT_MADE_FILE, PER_CLASS_FILE
from dogs_accel.results.per_class import write_per_class
from dogs_accel.results.run import Run
from dogs_accel.runtime.files import update_manifest, write_csv, write_json
from dogs_accel.steps import Step, Steps, any_failure_ends
from pipelines import Recipe


def write_tables(folder: Path, runs: Sequence[Run], facts: DatasetFacts, step: Step = any_failure_ends) -> list[Path]:
    """Write the tables over the runs and their pictures: side by side, by class, and what is mistaken for what.

    facts: of the dataset, for the words of the pictures; step: the block of each of them.
    """
    written: list[Path] = []
    with step(COMPARISON_FILE):
        written += write_comparison(folder, runs, facts, step)
    with step(PER_CLASS_FILE):
        written += write_per_class(folder, runs, facts)
    with step(CLUSTERS_FILE):
        written.append(write_confusion_clusters(folder, runs))
    return written


def note_not_made(folder: Path, failed: Mapping[str, str]) -> Path | None:
    """Write not_made.json into a folder of results, or remove that of an earlier time where nothing failed."""
    path = folder / NOT_MADE_FILE
    if failed:
        return write_json(path, dict(failed))
    path.unlink(missing_ok=True)
    return None


def remake_tables(folder: RunsFolder) -> RunsFolder:
    """Make the tables of a folder, and the figures of its data, again where some could not be made.

    Returns the folder as it is then.
    """
    not_made = folder.content(NOT_MADE_FILE)
    if not not_made:
        return folder
    steps = Steps(folder.folder, "tables over the runs")
    written = write_tables(folder.folder, folder.runs, folder.facts, steps.step)
    if any(name.startswith(f"{EDA_FOLDER}/") for name in not_made):
        seed, recipe = folder.config["seed"], Recipe.recorded(folder.runs[0].record.train_recipe)
        data, out = read_metadata(folder.folder), folder.folder / EDA_FOLDER
        written += write_eda(data, out, seed=seed, recipe=recipe, step=steps.step)
    noted = note_not_made(folder.folder, steps.failed) if steps.failed else None
    update_manifest(folder.folder, [*written, *([] if noted is None else [noted])], gone=[NOT_MADE_FILE])
    if noted is None:  # not before: as long as the note is there, all of this is done again
        note_not_made(folder.folder, {})
    return read_runs_folder(folder.folder)


def write_confusion_clusters(folder: Path, runs: Sequence[Run]) -> Path:
    """Write confusion_clusters.csv: the groups of classes of each run, on the test split."""
    tables = [confusion_clusters(run.confusion, run.class_names) for run in runs]
    for run, table in zip(runs, tables, strict=True):
        table.insert(0, "run", run.name)
    return write_csv(folder / CLUSTERS_FILE, pd.concat(tables, ignore_index=True))
