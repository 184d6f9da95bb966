"""The tables that put the runs side by side, with the published file and column names."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dogs_accel.cost.model_cost import ModelCost
from dogs_accel.datasets.facts import DatasetFacts
from dogs_accel.evaluation.intervals import mean_interval
from dogs_accel.evaluation.pairwise import NO_DIFFERENCE, compare_runs, describe_difference
from dogs_accel.models import family_name
from dogs_accel.plots import COLOURS, RunStyle, own_look, run_styles, save_figure
from dogs_accel.results.figures import Curves, comparison_figure, learning_curves_figure, repeats_figure
from dogs_accel.results.layout import (
    BEST_FILE,
    COMPARISON_FILE,
    CURVES_FIGURE,
    OVERVIEW_FIGURE,
    PAIRWISE_FILE,
    SEEDS_FILE,
    SUMMARY_FILE,
)
from dogs_accel.results.reading import missing_columns
from dogs_accel.results.run import Run
from dogs_accel.runtime.files import write_csv
from dogs_accel.steps import Step, any_failure_ends

_PRECISION_AND_RECALL = {
    f"{average.capitalize()} {score}": f"{average}_{score}"
    for score in ("precision", "recall")
    for average in ("macro", "weighted")
}
"""Column and key of metrics.json."""
_COST: dict[str, Callable[[ModelCost], float]] = {
    "MB": lambda cost: cost.megabytes,
    "GMACs": lambda cost: cost.macs / 1e9,
    "GFLOPs": lambda cost: cost.flops / 1e9,
    "Latency (ms)": lambda cost: cost.one_image_ms.median,
    "Images/s": lambda cost: cost.images_per_second,
    "Peak memory (MB)": lambda cost: cost.peak_memory_bytes / 1e6,
}
"""Column and figure of a `ModelCost`."""
MEASURES = ("Test accuracy", "Macro F1", "Weighted F1", "ECE", "Train time (s)", *_PRECISION_AND_RECALL)
"""Columns of model_comparison.csv that differ from seed to seed."""
_HISTORY = ("epoch_total", "stage", "train_loss", "train_acc", "val_loss", "val_acc")
_MOST_PAIRS = 10
"""Pairs that a terminal has a line for."""
_CONFIGURATION = ["Model", "Family", "Training strategy"]


def experiment_to_row(run: Run) -> dict[str, Any]:
    """Return the run as a row of model_comparison.csv; its ECE has 10 bins, as the published one.

    The published columns come first. What an earlier version did not measure is NaN.
    """
    return {
        "Model": run.model,
        "Family": family_name(run.family),
        "Params": run.record.config.total_params,
        "Training strategy": run.strategy,
        "Test accuracy": run.metrics["accuracy"],
        "Macro F1": run.metrics["macro_f1"],
        "Weighted F1": run.metrics["weighted_f1"],
        "ECE": run.metrics["ece"],
        "Train time (s)": round(run.training_seconds, 2),
        "Params(M)": round(run.record.config.total_params / 1e6, 2),
        **{column: run.metrics.get(key, math.nan) for column, key in _PRECISION_AND_RECALL.items()},
        **{column: math.nan if run.cost is None else figure(run.cost) for column, figure in _COST.items()},
    }


def has_repeats(runs: Sequence[Run]) -> bool:
    """Whether any model and strategy ran with more than one seed."""
    return len({(run.model, run.strategy) for run in runs}) < len(runs)


def comparison_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Tabulate the runs in the order in which they ran; where there are repeats, a column Seed tells them apart."""
    table = pd.DataFrame([experiment_to_row(run) for run in runs])
    return table.assign(Seed=[run.seed for run in runs]) if has_repeats(runs) else table


def repeats_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Tabulate each model and strategy over its seeds, in the order in which they first ran.

    Of every measure the mean, the sample standard deviation (SD) and the ends of the 95 % interval of the mean; of a
    single run there is only the mean. The ends lie where the measure can: shares in 0 to 1, seconds from 0.
    """
    rows = []
    for key, group in comparison_table(runs).groupby(_CONFIGURATION, sort=False):
        row = dict(zip(_CONFIGURATION, key, strict=True)) | {"Seeds": len(group)}
        for measure in MEASURES:
            values = group[measure]
            low, high = np.clip(mean_interval(values), 0, None if measure.endswith("(s)") else 1).tolist()
            row |= {
                f"{measure} mean": values.mean(),
                f"{measure} SD": values.std(),
                f"{measure} 95 % low": low,
                f"{measure} 95 % high": high,
            }
        rows.append(row)
    return pd.DataFrame(rows)


def best_per_family(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the row of highest test accuracy of each family, the earlier one of equals.

    table: that of `comparison_table`. Where it has repeats, a configuration's means compete, since its luckiest seed
    would win by luck, and a column Seeds says of how many.
    """
    if "Seed" in table:
        groups = table.groupby(_CONFIGURATION, sort=False)
        means = groups[list(MEASURES)].mean().round({"Train time (s)": 2})
        table = means.assign(Seeds=groups.size()).reset_index()
    best = table.loc[table.groupby("Family", sort=False)["Test accuracy"].idxmax()]
    columns = ["Model", "Family", "Training strategy", "Test accuracy", "Macro F1", "ECE", "Train time (s)"]
    return best[columns + ["Seeds"] * ("Seeds" in table)].rename(
        columns={"Training strategy": "Best strategy", "Test accuracy": "Accuracy"}
    )


def best_and_runner_up(runs: Sequence[Run]) -> list[Run]:
    """Give the run of highest test accuracy, and the best one of the other families, or of its own if there is none.

    Where there are repeats with other seeds, configurations compete by their means, as in
    best_per_family_comparison.csv, and of each its first run is given. Of equals the earlier one comes first. A single
    configuration has no runner-up.
    """
    configurations: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        configurations.setdefault((run.family, run.configuration), []).append(run)
    # Sorting is stable, so that equals keep their order.
    (best, *_), *others = sorted(configurations.values(), key=_mean_accuracy, reverse=True)
    rivals = [group for group in others if group[0].family != best.family] or others
    return [best, *(group[0] for group in rivals[:1])]


def _mean_accuracy(runs: Sequence[Run]) -> float:
    return sum(run.metrics["accuracy"] for run in runs) / len(runs)


def write_comparison(
    folder: Path, runs: Sequence[Run], facts: DatasetFacts, step: Step = any_failure_ends
) -> list[Path]:
    """Write the tables over the runs and their picture, each in a step of its own.

    model_comparison.csv, best_per_family_comparison.csv, comparison_overview.png, runs_summary.csv and
    pairwise_comparison.csv; learning_curves.png of the runs that have a history; where there are repeats also
    seeds_comparison.csv. Raises ValueError if the runs were not
    tested on the same images.
    """
    table = comparison_table(runs)
    written: list[Path] = []
    with step(COMPARISON_FILE):
        written.append(write_csv(folder / COMPARISON_FILE, table))
    with step(BEST_FILE):
        written.append(write_csv(folder / BEST_FILE, best_per_family(table)))
    with step(OVERVIEW_FIGURE):
        written.append(save_figure(_overview(table, runs, facts.plural), folder / OVERVIEW_FIGURE))
    curves = learning_curves(runs)
    if curves:
        with step(CURVES_FIGURE):
            written.append(save_figure(learning_curves_figure(curves), folder / CURVES_FIGURE))
    with step(SUMMARY_FILE):
        written.append(write_csv(folder / SUMMARY_FILE, pd.DataFrame([run.record.as_row() for run in runs])))
    with step(PAIRWISE_FILE):
        written.append(write_csv(folder / PAIRWISE_FILE, compare_runs([run.compared for run in runs])))
    if has_repeats(runs):
        with step(SEEDS_FILE):
            written.append(write_csv(folder / SEEDS_FILE, repeats_table(runs)))
    return written


@own_look()
def _overview(table: pd.DataFrame, runs: Sequence[Run], plural: str) -> Figure:
    styles = styles_of(runs)
    if has_repeats(runs):
        colours: dict[tuple[str, str], str] = {}
        for run, style in zip(runs, styles, strict=True):
            colours.setdefault((run.model, run.strategy), COLOURS[style.colour])
        return repeats_figure(table, repeats_table(runs), list(colours.values()), plural=plural)
    measures = {"Test accuracy": "accuracy", "Macro F1": "macro_f1", "ECE": "ece"}
    intervals = {column: [run.interval(name) for run in runs] for column, name in measures.items()}
    said = (run.why_no_interval(name) for name in measures.values() for run in runs)
    reasons = list(dict.fromkeys(reason for reason in said if reason))
    return comparison_figure(
        table, [COLOURS[style.colour] for style in styles], intervals, plural=plural, reasons=reasons
    )


def styles_of(runs: Sequence[Run]) -> list[RunStyle]:
    """Say how each run is drawn, the same in every figure and in the report."""
    return run_styles([(run.family, f"{run.folder.resolve().parents[1]}/{run.configuration}") for run in runs])


def short_labels(runs: Sequence[Run]) -> list[str]:
    """Name each run by its model and its schedule, and by its seed where another one of its folder has that name.

    Names that the seed does not tell apart have that of the run behind them.
    """
    keys = [(run.folder.resolve().parents[1], f"{run.model}, {run.schedule}") for run in runs]
    num_named = Counter(keys)
    num_seeded = Counter(zip(keys, (run.seed for run in runs), strict=True))
    labels = []
    for run, key in zip(runs, keys, strict=True):
        if num_named[key] == 1:
            labels.append(key[1])
        elif num_seeded[key, run.seed] == 1:
            labels.append(f"{key[1]}, seed {run.seed}")
        else:
            labels.append(f"{key[1]} ({run.name})")
    return labels


def learning_curves(runs: Sequence[Run]) -> list[Curves]:
    """Give the curves of the runs whose history is there."""
    curves = []
    for run, label, style in zip(runs, short_labels(runs), styles_of(runs), strict=True):
        history = run.history
        if missing_columns(history, _HISTORY):
            continue
        assert history is not None
        curves.append(Curves(label, history, style, mixed=run.record.training_scores_note is not None))
    return curves


def describe_pairs(pairs: pd.DataFrame, runs: Sequence[Run]) -> str:
    """Say in a line a pair how accuracy differs, for the pairs that matter: "" if there is none.

    These are the best of each family against each other, the best against the runner-up where there is one family, and
    every two strategies of one model, of which those with a difference come first where they are many; pairs: the
    table of `dogs_accel.evaluation.pairwise.compare_runs`.
    """
    group_of = {name: (run.model, run.strategy) for run in runs for name in (run.name, run.configuration)}
    best = {(row.Model, row["Best strategy"]) for _, row in best_per_family(comparison_table(runs)).iterrows()}
    if len(best) == 1:
        best = {(run.model, run.strategy) for run in best_and_runner_up(runs)}
    rows = []
    for _, row in pairs[pairs["metric"] == "accuracy"].iterrows():
        a, b = group_of[row.run_a], group_of[row.run_b]
        if a[0] == b[0] or {a, b} <= best:
            rows.append((0 if {a, b} <= best else 1 if row.verdict != NO_DIFFERENCE else 2, row))
    if not rows:
        return ""
    shown, left_out = rows, []
    if len(rows) > _MOST_PAIRS:
        ranked = sorted(rows, key=lambda ranked: ranked[0])  # stable
        shown, left_out = ranked[:_MOST_PAIRS], ranked[_MOST_PAIRS:]
    lines = [describe_difference(row) for _, row in shown]
    if left_out:
        differing = sum(row.verdict != NO_DIFFERENCE for _, row in left_out)
        what = f"{differing} of them with a difference shown" if differing else "none of them with a difference shown"
        lines.append(f"and {len(left_out)} more pairs of one model's strategies, {what} ({PAIRWISE_FILE})")
    num_pairs = int((pairs["metric"] == "accuracy").sum())
    of_pairs = f", p values and words corrected for {num_pairs} pairs" if num_pairs > 1 else ""
    return "\n".join(
        [f"differences in test accuracy, with 95 % intervals{of_pairs}:", *(f"  {line}" for line in lines)]
    )
