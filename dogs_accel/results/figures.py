"""The runs side by side, and the repeats of a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dogs_accel.plots import NOTE_COLOUR, bare, family_colours, own_look
from dogs_accel.runtime.timing import describe_seconds

_PANELS = (
    ("Test accuracy", "{:.3f}".format, "with its 95 % interval"),
    ("Macro F1", "{:.3f}".format, "mean over {plural}, 95 % interval"),
    ("ECE", "{:.3f}".format, "10 bins, smaller is better, 95 % interval"),
    ("Train time (s)", describe_seconds, "training and validation"),
)
"""Column, number format and note of each panel of the overview."""


@own_look()
def comparison_figure(
    table: pd.DataFrame,
    families: Sequence[str],
    intervals: Mapping[str, Sequence[Sequence[float] | None]],
    *,
    plural: str = "classes",
    reasons: Sequence[str] = (),
) -> Figure:
    """Draw the runs of model_comparison.csv: accuracy, macro F1, ECE and training time.

    intervals: by column the 95 % interval of each run, None where it has none; reasons: why some have none; plural:
    what the classes are called.
    """
    names = [f"{row.Model}\n{row['Training strategy']}" for _, row in table.iterrows()]
    colour_of = family_colours(families)
    colours = [colour_of[family] for family in families]
    figure = Figure(figsize=(13, 1.9 + 0.62 * len(table)), layout="constrained")
    panels = figure.subplots(1, 4, sharey=True)
    for axes, (column, form, note) in zip(panels, _PANELS, strict=True):
        values = table[column].to_numpy(dtype=float)
        axes.barh(names, values, color=colours, height=0.62)
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
        for name, value, at in zip(names, values, end, strict=True):
            axes.annotate(form(value), (at, name), xytext=(5, 0), textcoords="offset points", va="center")
        axes.set_xlim(0, max(float(end.max()) * 1.28, 1e-3))
        if column in intervals:  # a share, which room for its number must not take beyond 1
            axes.set_xticks([tick for tick in axes.get_xticks() if tick <= min(1, axes.get_xlim()[1])])
        if without:
            note = f"{without} of {len(names)} without an interval" if without < len(names) else "no interval"
        _finish_panel(axes, column, note.format(plural=plural))
    panels[0].invert_yaxis()
    if reasons:
        figure.supxlabel(f"no interval: {'; '.join(reasons)}", fontsize=9, color=NOTE_COLOUR)
    return figure


@own_look()
def repeats_figure(
    runs: pd.DataFrame, repeats: pd.DataFrame, families: Sequence[str], *, plural: str = "classes"
) -> Figure:
    """Draw configurations that ran with several seeds: means, their 95 % intervals and each run.

    runs: model_comparison.csv; repeats: seeds_comparison.csv, whose rows are of these families; plural: what the
    classes are called.
    """
    names = [
        f"{row.Model}\n{row['Training strategy']}\n{row.Seeds} seed{'s' * (row.Seeds != 1)}"
        for _, row in repeats.iterrows()
    ]
    colour_of = family_colours(families)
    colours = [colour_of[family] for family in families]
    figure = Figure(figsize=(13, 2.1 + 0.78 * len(repeats)), layout="constrained")
    panels = figure.subplots(1, 4, sharey=True)
    for axes, (column, form, note) in zip(panels, _PANELS, strict=True):
        _draw_means(axes, runs, repeats, column, names, colours)
        for name, mean in zip(names, repeats[f"{column} mean"], strict=True):
            # Beside the panel: an interval over two seeds may be wider than all the bars.
            axes.annotate(form(mean), (1, name), xycoords=("axes fraction", "data"), xytext=(3, 0),
                          textcoords="offset points", va="center")  # fmt: skip
        note = "95 % t interval of the mean" if column == "Test accuracy" else note.format(plural=plural)
        _finish_panel(axes, column, note)
    panels[0].invert_yaxis()
    figure.supxlabel(
        "bar: mean over the seeds; line: 95 % interval of that mean (Student's t); dot: one seed",
        fontsize=9, color=NOTE_COLOUR,
    )  # fmt: skip
    return figure


def _draw_means(
    axes: Axes, runs: pd.DataFrame, repeats: pd.DataFrame, column: str, names: Sequence[str], colours: Sequence[str]
) -> None:
    """Draw one measure: a bar a configuration at its mean, the interval of the mean, and a dot a run."""
    means = repeats[f"{column} mean"].to_numpy(dtype=float)
    low, high = (repeats[f"{column} 95 % {end}"].to_numpy(dtype=float) for end in ("low", "high"))
    axes.barh(names, means, color=colours, height=0.62, alpha=0.75)
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


def _finish_panel(axes: Axes, title: str, note: str) -> None:
    axes.set_title(f"{title}\n", fontsize=11)
    axes.text(0.5, 1.015, note, transform=axes.transAxes, ha="center", va="bottom", fontsize=8.5, color=NOTE_COLOUR)
    axes.tick_params(axis="y", length=0)
    bare(axes)
