"""The runs side by side, and the repeats of a configuration."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dogs_accel.plots import COLOURS, DASHES, MARKERS, NOTE_COLOUR, RunStyle, bare, own_look, shortened
from dogs_accel.runtime.timing import describe_seconds

_PANELS = (
    ("Test accuracy", "{:.3f}".format, "with its 95 % interval"),
    ("Macro F1", "{:.3f}".format, "mean over {plural}, 95 % interval"),
    ("ECE", "{:.3f}".format, "10 bins, smaller is better, 95 % interval"),
    ("Train time (s)", describe_seconds, "training and validation"),
)
"""Column, number format and note of each panel of the overview."""
_NAME_CHARACTERS = 36
"""Of a line beside the rows."""


@own_look()
def comparison_figure(
    table: pd.DataFrame,
    colours: Sequence[str],
    intervals: Mapping[str, Sequence[Sequence[float] | None]],
    *,
    plural: str = "classes",
    reasons: Sequence[str] = (),
) -> Figure:
    """Draw the runs of model_comparison.csv: accuracy, macro F1, ECE and training time.

    colours: one a run; intervals: by column the 95 % interval of each run, None where it has none; reasons: why some
    have none; plural: what the classes are called.
    """
    names = [_row_name(row) for _, row in table.iterrows()]
    rows = np.arange(len(table))
    figure = Figure(figsize=(13, 1.9 + _inches(names) * len(table)), layout="constrained")
    panels = figure.subplots(1, 4, sharey=True)
    for axes, (column, form, note) in zip(panels, _PANELS, strict=True):
        values = table[column].to_numpy(dtype=float)
        axes.barh(rows, values, color=colours, height=0.62)
        end = values.copy()
        without = 0
        if column in intervals:
            ends = [(np.nan, np.nan) if each is None else each for each in intervals[column]]
            low, high = np.asarray(ends, dtype=float).T
            known = np.isfinite(low)
            arms = [(values - low)[known], (high - values)[known]]
            axes.errorbar(values[known], np.flatnonzero(known), xerr=arms, fmt="none", ecolor="black", capsize=3)
            end[known] = high[known]
            without = int((~known).sum())
        for row, value, at in zip(rows, values, end, strict=True):
            axes.annotate(form(value), (at, row), xytext=(5, 0), textcoords="offset points", va="center")
        axes.set_xlim(0, max(float(end.max()) * 1.28, 1e-3))
        if column in intervals:  # a share, which room for its number must not take beyond 1
            axes.set_xticks([tick for tick in axes.get_xticks() if tick <= min(1, axes.get_xlim()[1])])
        if without:
            note = f"{without} of {len(names)} without an interval" if without < len(names) else "no interval"
        _finish_panel(axes, column, note.format(plural=plural))
    _name_rows(panels[0], names)
    if reasons:
        figure.supxlabel(f"no interval: {'; '.join(reasons)}", fontsize=9, color=NOTE_COLOUR)
    return figure


@own_look()
def repeats_figure(
    runs: pd.DataFrame, repeats: pd.DataFrame, colours: Sequence[str], *, plural: str = "classes"
) -> Figure:
    """Draw configurations that ran with several seeds: means, their 95 % intervals and each run.

    runs: model_comparison.csv; repeats: seeds_comparison.csv, whose rows have these colours; plural: what the
    classes are called.
    """
    names = [f"{_row_name(row)}\n{row.Seeds} seed{'s' * (row.Seeds != 1)}" for _, row in repeats.iterrows()]
    figure = Figure(figsize=(13, 2.1 + _inches(names) * len(repeats)), layout="constrained")
    panels = figure.subplots(1, 4, sharey=True)
    for axes, (column, form, note) in zip(panels, _PANELS, strict=True):
        _draw_means(axes, runs, repeats, column, colours)
        for row, mean in enumerate(repeats[f"{column} mean"]):
            # Beside the panel: an interval over two seeds may be wider than all the bars.
            axes.annotate(form(mean), (1, row), xycoords=("axes fraction", "data"), xytext=(3, 0),
                          textcoords="offset points", va="center")  # fmt: skip
        note = "95 % t interval of the mean" if column == "Test accuracy" else note.format(plural=plural)
        _finish_panel(axes, column, note)
    _name_rows(panels[0], names)
    figure.supxlabel(
        "bar: mean over the seeds; line: 95 % interval of that mean (Student's t); dot: one seed",
        fontsize=9, color=NOTE_COLOUR,
    )  # fmt: skip
    return figure


def _draw_means(axes: Axes, runs: pd.DataFrame, repeats: pd.DataFrame, column: str, colours: Sequence[str]) -> None:
    """Draw one measure: a bar a configuration at its mean, the interval of the mean, and a dot a run."""
    means = repeats[f"{column} mean"].to_numpy(dtype=float)
    low, high = (repeats[f"{column} 95 % {end}"].to_numpy(dtype=float) for end in ("low", "high"))
    axes.barh(np.arange(len(means)), means, color=colours, height=0.62, alpha=0.75)
    known = np.isfinite(low)
    axes.errorbar(
        means[known], np.flatnonzero(known), xerr=(high - means)[known], fmt="none", ecolor="black", capsize=3
    )
    position = {(row.Model, row["Training strategy"]): at for at, (_, row) in enumerate(repeats.iterrows())}
    rows = [position[key] for key in zip(runs["Model"], runs["Training strategy"], strict=True)]
    values = runs[column].to_numpy(dtype=float)
    # Below the line, which would hide them.
    axes.plot(values, np.asarray(rows) + 0.2, "o", color="white", markeredgecolor="black", markersize=4)
    most = float(values.max())
    axes.set_xlim(0, max(min(1.05 * float(np.nanmax([*high[known], most])), 1.6 * most), 1e-3))


def _row_name(row: pd.Series) -> str:
    """Name a row in lines that leave the panels their room."""
    lines = [*textwrap.wrap(row.Model, _NAME_CHARACTERS), *textwrap.wrap(row["Training strategy"], _NAME_CHARACTERS)]
    return "\n".join(lines)


def _inches(names: Sequence[str]) -> float:
    """Give the height of a row whose longest name is one of these."""
    return 0.30 + 0.16 * max(name.count("\n") + 1 for name in names)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a figure from the top; they may share a name, and none is a formula."""
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _finish_panel(axes: Axes, title: str, note: str) -> None:
    axes.set_title(f"{title}\n", fontsize=11)
    axes.annotate(note, (0.5, 1), xycoords="axes fraction", xytext=(0, 4), textcoords="offset points", ha="center",
                  va="bottom", fontsize=8.5, color=NOTE_COLOUR)  # fmt: skip
    axes.tick_params(axis="y", length=0)
    bare(axes)


@dataclass(frozen=True, eq=False)
class Curves:
    """The epochs of a run, as its history has them, and how they are drawn."""

    label: str
    history: pd.DataFrame
    """A row an epoch: epoch_total, stage, train_loss, train_acc, val_loss, val_acc."""
    style: RunStyle
    mixed: bool = False
    """Whether its training scores are of mixed images."""


CURVES = (
    ("Training loss", "train_loss"), ("Validation loss", "val_loss"),
    ("Training accuracy", "train_acc"), ("Validation accuracy", "val_acc"),
)  # fmt: skip
"""Title and column of each panel of learning curves; the panels of a row share their scale."""
_LEGEND_CHARACTERS, _MARKS_A_CURVE = 130, 8


@own_look()
def learning_curves_figure(runs: Sequence[Curves]) -> Figure:
    """Draw training and validation, loss and accuracy, of all runs over the epochs of all phases.

    A bar across a curve is the end of a phase. Colour and dashes are of the configuration, the marker tells runs of one
    colour apart. Raises ValueError where there is no run.
    """
    if not runs:
        raise ValueError("runs: got none, expected at least one with a history")
    labels = [shortened(each.label, 90) + ", trained on mixed images" * each.mixed for each in runs]
    num_columns = max(1, min(len(runs), 4, _LEGEND_CHARACTERS // (max(map(len, labels)) + 6)))
    num_lines = -(-len(runs) // num_columns)
    figure = Figure(figsize=(13, 8.4 + 0.24 * num_lines), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey="row")
    for axes, (title, column) in zip(panels.flat, CURVES, strict=True):
        for place, each in enumerate(runs):
            _draw_curve(axes, each, column, place)
        axes.set_title(title, fontsize=11)
        axes.grid(color="#e6e6e6", linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        bare(axes)
    for axes in panels[1]:
        axes.set_xlabel("epoch, over all phases")
    handles = [Line2D([], [], **_line(each.style), markersize=5) for each in runs]
    legend = figure.legend(
        handles, labels, loc="outside lower center", ncols=num_columns, frameon=False, fontsize=9, handlelength=3.4
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    if any((each.history["stage"] != each.history["stage"].iloc[0]).any() for each in runs if len(each.history)):
        figure.suptitle("a bar across a curve ends a phase", fontsize=9, color=NOTE_COLOUR)
    return figure


def _draw_curve(axes: Axes, run: Curves, column: str, place: int) -> None:
    epochs = run.history["epoch_total"].to_numpy(dtype=float)
    values = run.history[column].to_numpy(dtype=float)
    apart = max(1, -(-len(epochs) // _MARKS_A_CURVE))
    axes.plot(epochs, values, **_line(run.style), markersize=4.5, markevery=(place % apart, apart))
    stages = run.history["stage"].to_numpy()
    ends = np.flatnonzero(stages[1:] != stages[:-1])
    colour = COLOURS[run.style.colour]
    axes.plot(epochs[ends], values[ends], "|", color=colour, markersize=11, markeredgewidth=1.8)


def _line(style: RunStyle) -> dict[str, Any]:
    dashes, colour = DASHES[style.colour], COLOURS[style.colour]
    return {
        "color": colour,
        "linestyle": (0, dashes) if dashes else "-",
        "linewidth": 1.7,
        "marker": MARKERS[style.marker],
        "markerfacecolor": "white" if style.marker else colour,
    }
