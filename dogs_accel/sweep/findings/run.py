"""Everything that is made of the trials of a sweep: tables, sentences, figures, best.toml and the report."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd

from dogs_accel.datasets.facts import DATASET_FILE, DatasetFacts
from dogs_accel.plots import save_figure
from dogs_accel.results.reading import read_content
from dogs_accel.runtime.files import write_csv, write_json
from dogs_accel.runtime.terminal import count_text
from dogs_accel.sweep.engine.opened import DATA_FOLDER
from dogs_accel.sweep.findings.best import BEST_SETTINGS_FILE, write_settings_toml
from dogs_accel.sweep.findings.confirmed import CONFIRMATION_FILE, confirmation_view
from dogs_accel.sweep.findings.figures import parallel_figure, time_figure
from dogs_accel.sweep.findings.importance import find_correlations, find_importance
from dogs_accel.sweep.findings.levels import find_levels, level_table
from dogs_accel.sweep.findings.page import SweepFindings, write_sweep_report
from dogs_accel.sweep.findings.selection import SelectionBias, selection_bias
from dogs_accel.sweep.findings.sentences import SHOWN, write_sentences
from dogs_accel.sweep.findings.trials import SweepTrials, level_text
from dogs_accel.sweep.settings import SweepConfig, read_sweep
from dogs_accel.sweep.space import Point, Space
from dogs_accel.sweep.trials import TRIALS_FILE, read_trials

LEVELS_FILE = "levels.csv"
IMPORTANCE_FILE = "importance.csv"
CORRELATIONS_FILE = "correlations.csv"
SENTENCES_FILE = "findings.json"
TIME_FIGURE = "accuracy_over_time.png"
PARALLEL_FIGURE = "parallel_coordinates.png"
_SAMPLERS = {"bayes": "Bayesian sampler (TPE)", "random": "random sampler", "grid": "grid"}


def read_sweep_trials(folder: Path, sweep: SweepConfig) -> SweepTrials:
    """Read the trials of the sweep in a folder. Raises ValueError as `read_trials` does."""
    table = read_trials(folder / TRIALS_FILE, sweep.space)
    return SweepTrials(space=sweep.space, table=table, sampler=sweep.sampler)


def point_of(row: pd.Series, space: Space) -> Point:
    """Give the point of a trial, of a row of trials.csv."""
    return {name: row[name] for name in space.names if row[name] is not None}


def find_all(folder: Path) -> SweepFindings:
    """Find what the trials of the sweep in a folder show, and what was confirmed; the importance takes seconds."""
    sweep = read_sweep(folder)
    trials = read_sweep_trials(folder, sweep)
    facts, confirmed = _facts(folder), read_content(folder / CONFIRMATION_FILE)
    levels, importance = find_levels(trials), find_importance(trials)
    num_val = int(trials.counted["num_val"].max()) if len(trials.values) else 0
    bias = selection_bias(trials.values, num_val, num_pruned=trials.num_pruned) if num_val else None
    subject = ", ".join(sweep.settings.get("models") or [sweep.name])
    return SweepFindings(
        trials=trials,
        levels=levels,
        importance=importance,
        correlations=find_correlations(trials),
        bias=bias,
        sentences=write_sentences(trials, levels, importance, bias),
        title=f"A sweep of {subject}" + (f" on {facts.title}" if facts else ""),
        meta=_meta(sweep, trials, num_val),
        notice=(facts.notice or "") if facts else "",
        settings=_settings(sweep),
        confirmation=None if confirmed is None else confirmation_view(confirmed, len(trials.values)),
    )


def write_findings(folder: Path, findings: SweepFindings) -> list[Path]:
    """Write everything into the folder of a sweep; what is there already is made anew. Returns what was written."""
    written = [
        write_csv(folder / LEVELS_FILE, level_table(list(findings.levels))),
        write_csv(folder / IMPORTANCE_FILE, pd.DataFrame([dataclasses.asdict(each) for each in findings.importance])),
        write_csv(
            folder / CORRELATIONS_FILE, pd.DataFrame([dataclasses.asdict(each) for each in findings.correlations])
        ),
        write_json(folder / SENTENCES_FILE, [dataclasses.asdict(each) for each in findings.sentences]),
    ]
    if len(findings.trials.values):
        written.append(_write_best(folder, findings))
        written.append(save_figure(time_figure(findings.trials), folder / TIME_FIGURE))
        written.append(save_figure(parallel_figure(findings.trials), folder / PARALLEL_FIGURE))
    return [*written, write_sweep_report(folder, findings)]


def shown_sentences(findings: SweepFindings) -> list[str]:
    """Give what is shown, or that nothing is."""
    shown = [each.text for each in findings.sentences if each.kind == SHOWN]
    return shown or ["nothing of any single parameter"]


def write_all_findings(folder: Path) -> list[Path]:
    """Find and write what the trials of the sweep in a folder show."""
    return write_findings(folder, find_all(folder))


def _write_best(folder: Path, findings: SweepFindings) -> Path:
    sweep, best = read_sweep(folder), findings.trials.best
    notes = best_notes(findings.trials, findings.bias)
    return write_settings_toml(folder / BEST_SETTINGS_FILE, sweep.config(point_of(best, sweep.space)), notes)


def best_notes(trials: SweepTrials, bias: SelectionBias | None) -> list[str]:
    """Say in best.toml of which trial it is, and by how much the choice of it is expected to have raised its value."""
    num, best = len(trials.values), trials.best
    highest = f"the highest of {num}" if num > 1 else "that of the one complete trial"
    notes = [f"Trial {best['number']} of a sweep: its validation accuracy of {best['value']:.4f} is {highest}."]
    if bias is not None and bias.num_pruned:
        notes.append(
            f"Choosing the highest is expected to have raised it by at least {bias.expected:.4f}, since "
            f"{bias.num_pruned} more {'was' if bias.num_pruned == 1 else 'were'} given up by the same images."
        )
    elif bias is not None and num > 1:
        notes.append(f"Choosing the highest is expected to have raised it by {bias.expected:.4f}.")
    return notes


def _facts(folder: Path) -> DatasetFacts | None:
    content = read_content(folder / DATA_FOLDER / DATASET_FILE)
    return None if content is None else DatasetFacts.from_json(content)


def _meta(sweep: SweepConfig, trials: SweepTrials, num_val: int) -> list[str]:
    num = sweep.space.num_points
    points = "" if num is None else f" ({count_text(num, 'point')})"
    parameters = count_text(len(sweep.space.parameters), "parameter")
    return [
        f"{count_text(len(trials.states), 'trial')} over {parameters}{points}",
        _SAMPLERS[sweep.sampler],
        *([f"{num_val:,} images of validation"] if num_val else []),
        *([f"begun {min(trials.table['started'])[:10]}"] if len(trials.states) else []),
    ]


def _settings(sweep: SweepConfig) -> str:
    varied = [str(parameter) for parameter in sweep.space.parameters]
    fixed = [f"{name}: {value}" for name, value in sweep.settings.items()]
    return "\n".join(["space", *varied, "", "fixed settings", *fixed])


def point_text(point: Point, space: Space) -> str:
    """Write a point in words, numbers of ranges in three digits, as in batch_size 32, set.lr 0.00814."""
    choices = {parameter.name for parameter in space.parameters if parameter.kind == "choice"}
    return ", ".join(f"{name} {level_text(value, is_choice=name in choices)}" for name, value in point.items())
