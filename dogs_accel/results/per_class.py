"""Every run on every class, side by side, and the best run against the runner-up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dogs_accel.datasets.facts import DatasetFacts
from dogs_accel.plots import COLOURS, GREY, bare, own_look, run_colours, save_figure, shortened
from dogs_accel.results.comparison import best_and_runner_up, styles_of
from dogs_accel.results.layout import PER_CLASS_FIGURE, PER_CLASS_FILE
from dogs_accel.results.run import Run
from dogs_accel.runtime.files import write_csv

_NUM_LARGEST = 15


def per_class_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Tabulate the classes in the order of their labels over the finished runs of one benchmark.

    Columns: class, num_images (of the test split), <run>_precision, <run>_recall and <run>_f1 of each run, best_run
    and best_f1, and where there is a runner-up (see `best_and_runner_up`) runner_up_run, runner_up_f1 and
    f1_difference, the best run's less the runner-up's. A score that is not defined is empty. Raises ValueError for runs
    of other test images or classes.
    """
    names, ids = runs[0].class_names, runs[0].predictions("test").ids
    for run in runs:
        if run.class_names != names or not np.array_equal(run.predictions("test").ids, ids):
            raise ValueError(f"runs: {run.name} has other classes or test images than {runs[0].name}")
    columns: dict[str, object] = {"class": names, "num_images": runs[0].class_scores.num_images}
    for run in runs:
        scores = run.class_scores
        columns |= {f"{run.name}_precision": scores.precision, f"{run.name}_recall": scores.recall}
        columns[f"{run.name}_f1"] = scores.f1
    best, *runner_up = best_and_runner_up(runs)
    columns |= {"best_run": best.name, "best_f1": best.class_scores.f1}
    for run in runner_up:
        columns |= {"runner_up_run": run.name, "runner_up_f1": run.class_scores.f1}
        columns["f1_difference"] = best.class_scores.f1 - run.class_scores.f1
    return pd.DataFrame(columns)


@own_look()
def per_class_figure(
    table: pd.DataFrame,
    titles: Sequence[str],
    families: Sequence[str],
    facts: DatasetFacts,
    colours: Sequence[str] | None = None,
) -> Figure:
    """Draw the best run against the runner-up: F1 of every class, and the classes that differ most.

    table: that of `per_class_table`; titles, families and colours: of the two, which have those of their families where
    none are given. Classes without a test image are left out. Raises ValueError where there is no other.
    """
    shown = table.dropna(subset=["f1_difference"])
    if shown.empty:
        raise ValueError("table: got no class with a test image, expected at least one")
    order = np.argsort(-shown["f1_difference"].abs().to_numpy(), kind="stable")
    largest = shown.iloc[order[:_NUM_LARGEST]]
    largest = largest[largest["f1_difference"] != 0].sort_values("f1_difference", kind="stable")
    which = "the runner-up" if len(set(families)) == 1 else "the best one of another family"
    figure = Figure(figsize=(13, 6.4), layout="constrained")
    figure.suptitle(f"F1 of the {facts.count(len(shown))}: the best run against {which}", fontsize=13)
    left, right = figure.subplots(1, 2)
    colours = colours or [COLOURS[place] for place in run_colours(families)]
    _draw_scatter(left, shown, largest, titles, colours, facts)
    _draw_largest(right, largest, titles, colours, facts)
    fewest, most = shown["num_images"].min(), shown["num_images"].max()
    sizes = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    figure.supxlabel(
        f"Test images a {facts.noun}: {sizes}. The gap of one {facts.noun} alone says little: one image more or less "
        f"right moves its F1 by about {1 / max(fewest, 1):.2f}",
        fontsize=9, color="#555555",
    )  # fmt: skip
    return figure


def _draw_scatter(
    axes: Axes,
    shown: pd.DataFrame,
    largest: pd.DataFrame,
    titles: Sequence[str],
    colours: Sequence[str],
    facts: DatasetFacts,
) -> None:
    """Draw a point a class: the best run upwards, the runner-up to the right."""
    x, y = shown["runner_up_f1"], shown["best_f1"]
    low = max(0.0, min(x.min(), y.min()) - 0.03)
    axes.plot([low, 1], [low, 1], color=GREY, linestyle="--", linewidth=1)
    axes.plot(x, y, "o", color=GREY, alpha=0.55, markersize=5, markeredgewidth=0)
    for rows, colour in zip((largest["f1_difference"] > 0, largest["f1_difference"] < 0), colours, strict=True):
        chosen = largest[rows]
        axes.plot(chosen["runner_up_f1"], chosen["best_f1"], "o", color=colour, markersize=6)
    axes.set(xlim=(low, 1.01), ylim=(low, 1.01), aspect="equal")
    axes.set_ylabel(f"F1 of {titles[0]}", color=colours[0])
    axes.set_xlabel(f"F1 of {titles[1]}", color=colours[1])
    above, below = int((shown["f1_difference"] > 0).sum()), int((shown["f1_difference"] < 0).sum())
    axes.set_title(
        f"{facts.count(above)} above the line, {below} below, {len(shown) - above - below} on it", fontsize=10.5
    )
    bare(axes)


def _draw_largest(
    axes: Axes, largest: pd.DataFrame, titles: Sequence[str], colours: Sequence[str], facts: DatasetFacts
) -> None:
    if largest.empty:
        axes.text(0.5, 0.5, f"both have the same F1 on every {facts.noun}", ha="center", va="center", color="#555555")
        axes.set_axis_off()
        return
    rows = np.arange(len(largest))
    axes.hlines(rows, largest["runner_up_f1"], largest["best_f1"], color=GREY, linewidth=2)
    for column, title, colour in zip(("best_f1", "runner_up_f1"), titles, colours, strict=True):
        axes.plot(largest[column], rows, "o", color=colour, label=title)
    names = [
        f"{shortened(name, 40)} ({num})" for name, num in zip(largest["class"], largest["num_images"], strict=True)
    ]
    axes.set_yticks(rows, names, fontsize=9, parse_math=False)
    axes.set_ylim(-0.7, len(largest) - 0.3)
    for row, difference in zip(rows, largest["f1_difference"], strict=True):
        axes.annotate(f"{difference:+.2f}", (1, row), xycoords=("axes fraction", "data"), xytext=(4, 0),
                      textcoords="offset points", va="center", fontsize=9)  # fmt: skip
    axes.set_xlabel("F1")
    axes.set_title(f"the {len(largest)} largest gaps (test images in brackets)\n\n\n", fontsize=10.5)
    axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes.tick_params(axis="y", length=0)
    bare(axes)


def _colours_of(pair: Sequence[Run], runs: Sequence[Run]) -> list[str] | None:
    """Give two runs the colours that they have among all; None where that is one colour."""
    styles = dict(zip([run.name for run in runs], styles_of(runs), strict=True))
    colours = [COLOURS[styles[run.name].colour] for run in pair]
    return colours if len(set(colours)) == len(pair) else None


def write_per_class(folder: Path, runs: Sequence[Run], facts: DatasetFacts) -> list[Path]:
    """Write per_class_comparison.csv of a benchmark's finished runs, and its picture where there is a runner-up."""
    table = per_class_table(runs)
    written = [write_csv(folder / PER_CLASS_FILE, table)]
    if "f1_difference" not in table:
        (folder / PER_CLASS_FIGURE).unlink(missing_ok=True)  # that of an earlier call would be taken for this one's
        return written
    pair = best_and_runner_up(runs)
    figure = per_class_figure(
        table, [run.title for run in pair], [run.family for run in pair], facts, _colours_of(pair, runs)
    )
    return [*written, save_figure(figure, folder / PER_CLASS_FIGURE)]
