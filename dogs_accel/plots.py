"""The figures of a run, drawn to be read at a glance and saved as PNG, and the look that all figures share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dogs_accel.runtime.files import replacing

BLUE, RED, GREY = "#2a6f97", "#c8553d", "#8d99ae"
FAMILY_COLOUR = {"cnn": BLUE, "vit": RED}
_NOTE_COLOUR = "#555555"
_ANNOTATE_UP_TO = 16
"""Classes up to which the cells of a confusion matrix can still be read as numbers."""
_DPI = 144


def save_figure(figure: Figure, path: Path) -> Path:
    """Save a figure as PNG without ever showing half of one."""
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, bbox_inches="tight", facecolor="white")
    return path


def bare(axes: Axes) -> None:
    """Leave the left and the bottom side of the frame."""
    axes.spines[["top", "right"]].set_visible(False)


def confusion_figure(
    counts: NDArray[np.int64], class_names: Sequence[str], title: str, *, normalized: bool = False
) -> Figure:
    """Draw a confusion matrix (C, C), rows true; normalized divides each row by its number of images.

    Cells carry numbers only while they can be read; the breeds are named along both sides.
    """
    num = len(class_names)
    values = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) if normalized else counts.astype(np.float64)
    side = float(np.clip(0.17 * num + 3.5, 6, 24))
    figure = Figure(figsize=(side * 1.08, side), layout="constrained")
    axes = figure.subplots()
    # Few images make a mistake; the square root lifts them from the background.
    scale = PowerNorm(0.5, vmin=0, vmax=1 if normalized else max(values.max(), 1))
    image = axes.imshow(values, cmap="Blues", norm=scale, interpolation="nearest")
    font, large = (9.0, 12.0) if num <= 30 else (6.5, 20.0)
    axes.set_xticks(range(num), class_names, rotation=90, fontsize=font, parse_math=False)
    axes.set_yticks(range(num), class_names, fontsize=font, parse_math=False)
    axes.set_xlabel("predicted breed", fontsize=large)
    axes.set_ylabel("true breed", fontsize=large)
    axes.set_title(title, fontsize=large)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02)
    bar.set_label("share of the breed's images" if normalized else "images", fontsize=large)
    bar.ax.tick_params(labelsize=large * 0.75)
    if num <= _ANNOTATE_UP_TO:
        _annotate(axes, values, normalized)
    return figure


def _annotate(axes: Axes, values: NDArray[np.float64], normalized: bool) -> None:
    dark = values.max() / 4
    for (row, column), value in np.ndenumerate(values):
        if value:
            text = f"{value:.2f}".lstrip("0") if normalized and value < 1 else f"{value:g}"
            colour = "white" if value > dark else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)


def calibration_figure(table: pd.DataFrame, metrics: Mapping[str, Any], title: str, bins: int = 10) -> Figure:
    """Draw the reliability diagrams before and after the temperature, over the number of images in each bin.

    table: that of `dogs_accel.evaluate.calibration_table`; metrics: that of `dogs_accel.evaluate.evaluate_test`, for
    the errors with their intervals.
    """
    figure = Figure(figsize=(9.6, 6.6), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=[3, 1])
    temperature = metrics["temperature"]["value"]
    sides = ((1.0, "as trained", metrics), (temperature, f"temperature {temperature:.3g}", metrics["calibrated"]))
    for (axes, below), (value, name, scores) in zip(panels.T, sides, strict=True):
        rows = table[(table["bins"] == bins) & (table["temperature"] == value)]
        _draw_reliability(axes, rows)
        axes.set_title(f"{name}\n{_describe_ece(scores)}", fontsize=10)
        below.bar(rows["lower"], rows["count"], width=1 / bins, align="edge", color=GREY, edgecolor="white")
        for row in rows[rows["count"] > 0].itertuples():
            below.annotate(f"{row.count:,}", ((row.lower + row.upper) / 2, row.count), xytext=(0, 1),
                           textcoords="offset points", ha="center", va="bottom", fontsize=7)  # fmt: skip
        below.set(xlabel="confidence of the predicted breed")
        below.margins(y=0.15)
        bare(axes)
        bare(below)
    panels[0, 0].set(ylabel="accuracy", ylim=(0, 1), xlim=(0, 1))
    panels[1, 0].set_ylabel("images")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title)
    return figure


def _draw_reliability(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw the bins that hold images: accuracy with its Wilson interval, at its place and at its mean confidence."""
    rows = rows[rows["count"] > 0]
    width = rows["upper"] - rows["lower"]
    axes.bar(rows["lower"], rows["accuracy"], width=width, align="edge", color=BLUE, alpha=0.3,
             edgecolor="white", label="accuracy of the bin")  # fmt: skip
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect calibration")
    arms = [rows["accuracy"] - rows["accuracy_low"], rows["accuracy_high"] - rows["accuracy"]]
    axes.errorbar(rows["confidence"], rows["accuracy"], yerr=arms, fmt="o", color=RED, markersize=4, capsize=3,
                  elinewidth=1.2, label="at its mean confidence, 95 % interval")  # fmt: skip


def _describe_ece(scores: Mapping[str, Any]) -> str:
    lines = []
    for name, bins in (("ece", 10), ("ece_15", 15)):
        low, high = scores["intervals"][name]
        lines.append(f"ECE {scores[name]:.4f} ({low:.4f} to {high:.4f}) with {bins} bins")
    return "\n".join(lines)


_PANELS = (
    ("Test accuracy", "{:.3f}", "with its 95 % interval"),
    ("Macro F1", "{:.3f}", "mean over breeds, 95 % interval"),
    ("ECE", "{:.3f}", "10 bins, smaller is better, 95 % interval"),
    ("Train time (s)", "{:.0f} s", "training and validation"),
)
"""Column, number format and note of each panel of the overview."""


def comparison_figure(
    table: pd.DataFrame, families: Sequence[str], intervals: Mapping[str, Sequence[Sequence[float]]]
) -> Figure:
    """Draw the runs of model_comparison.csv: accuracy, macro F1, ECE and training time.

    intervals: by column the 95 % interval of each run, for those that have one.
    """
    names = [f"{row.Model}\n{row['Training strategy']}" for _, row in table.iterrows()]
    colours = [FAMILY_COLOUR[family] for family in families]
    figure = Figure(figsize=(13, 1.9 + 0.62 * len(table)), layout="constrained")
    panels = figure.subplots(1, 4, sharey=True)
    for axes, (column, form, note) in zip(panels, _PANELS, strict=True):
        values = table[column].to_numpy(dtype=float)
        axes.barh(names, values, color=colours, height=0.62)
        end = values.copy()
        if column in intervals:
            low, high = np.asarray(intervals[column], dtype=float).T
            axes.errorbar(values, names, xerr=[values - low, high - values], fmt="none", ecolor="black", capsize=3)
            end = high
        for name, value, at in zip(names, values, end, strict=True):
            axes.annotate(form.format(value), (at, name), xytext=(5, 0), textcoords="offset points", va="center")
        axes.set_xlim(0, max(float(end.max()) * 1.28, 1e-3))
        if column in intervals:  # a share, which room for its number must not take beyond 1
            axes.set_xticks([tick for tick in axes.get_xticks() if tick <= min(1, axes.get_xlim()[1])])
        _finish_panel(axes, column, note)
    panels[0].invert_yaxis()
    return figure


def repeats_figure(runs: pd.DataFrame, repeats: pd.DataFrame, families: Sequence[str]) -> Figure:
    """Draw configurations that ran with several seeds: means, their 95 % intervals and each run.

    runs: model_comparison.csv; repeats: seeds_comparison.csv, whose rows are of these families.
    """
    names = [
        f"{row.Model}\n{row['Training strategy']}\n{row.Seeds} seed{'s' * (row.Seeds != 1)}"
        for _, row in repeats.iterrows()
    ]
    colours = [FAMILY_COLOUR[family] for family in families]
    figure = Figure(figsize=(13, 2.1 + 0.78 * len(repeats)), layout="constrained")
    panels = figure.subplots(1, 4, sharey=True)
    for axes, (column, form, note) in zip(panels, _PANELS, strict=True):
        _draw_means(axes, runs, repeats, column, names, colours)
        for name, mean in zip(names, repeats[f"{column} mean"], strict=True):
            # Beside the panel: an interval over two seeds may be wider than all the bars.
            axes.annotate(form.format(mean), (1, name), xycoords=("axes fraction", "data"), xytext=(3, 0),
                          textcoords="offset points", va="center")  # fmt: skip
        _finish_panel(axes, column, "95 % t interval of the mean" if column == "Test accuracy" else note)
    panels[0].invert_yaxis()
    figure.supxlabel(
        "bar: mean over the seeds; line: 95 % interval of that mean (Student's t); dot: one seed",
        fontsize=9, color=_NOTE_COLOUR,
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
    axes.text(0.5, 1.015, note, transform=axes.transAxes, ha="center", va="bottom", fontsize=8.5, color=_NOTE_COLOUR)
    axes.tick_params(axis="y", length=0)
    bare(axes)
