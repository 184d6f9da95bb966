"""The figures of a run: its confusion matrix and its reliability."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dogs_accel.plots import BLUE, GREY, RED, bare, fitted, own_look, shortened, title_figure

_ANNOTATE_UP_TO = 16
"""Classes up to which the cells of a confusion matrix can still be read as numbers."""


@own_look()
def confusion_figure(
    counts: NDArray[np.int64],
    class_names: Sequence[str],
    title: str,
    *,
    noun: str = "class",
    normalized: bool = False,
) -> Figure:
    """Draw a confusion matrix (C, C), rows true; normalized divides each row by its number of images.

    Cells carry numbers only while they can be read; the classes are named along both sides, which `noun` is for.
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
    names = [shortened(name, 40) for name in class_names]
    axes.set_xticks(range(num), names, rotation=90, fontsize=font, parse_math=False)
    axes.set_yticks(range(num), names, fontsize=font, parse_math=False)
    axes.set_xlabel(f"predicted {noun}", fontsize=large)
    axes.set_ylabel(f"true {noun}", fontsize=large)
    axes.set_title(fitted(title, 0.75 * side, large), fontsize=large, parse_math=False)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02)
    bar.set_label(f"share of the {noun}'s images" if normalized else "images", fontsize=large)
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


@own_look()
def calibration_figure(
    table: pd.DataFrame, metrics: Mapping[str, Any], title: str, *, noun: str = "class", bins: int = 10
) -> Figure:
    """Draw the reliability diagrams before and after the temperature, over the number of images in each bin.

    table: that of `metrics.calibration_table`; metrics: that of `metrics.evaluate_test`, for
    the errors with their intervals; noun: what a class is called. Without a temperature there is no after, and the
    figure says why.
    """
    temperature = metrics["temperature"]["value"]
    sides = [(1.0, "as trained", metrics)]
    if temperature is None:
        sides[0] = (1.0, textwrap.fill(f"as trained; no temperature: {metrics['temperature']['reason']}", 70), metrics)
    else:
        sides.append((temperature, f"temperature {temperature:.3g}", metrics["calibrated"]))
    figure = Figure(figsize=(4.8 * max(len(sides), 1.4), 6.6), layout="constrained")
    panels = figure.subplots(2, len(sides), sharex=True, sharey="row", height_ratios=[3, 1], squeeze=False)
    for (axes, below), (value, name, scores) in zip(panels.T, sides, strict=True):
        rows = table[(table["bins"] == bins) & (table["temperature"] == value)]
        _draw_reliability(axes, rows)
        axes.set_title(f"{name}\n{_describe_ece(scores)}", fontsize=10)
        below.bar(rows["lower"], rows["count"], width=1 / bins, align="edge", color=GREY, edgecolor="white")
        for row in rows[rows["count"] > 0].itertuples():
            below.annotate(f"{row.count:,}", ((row.lower + row.upper) / 2, row.count), xytext=(0, 1),
                           textcoords="offset points", ha="center", va="bottom", fontsize=7)  # fmt: skip
        below.set(xlabel=f"confidence of the predicted {noun}")
        below.margins(y=0.15)
        bare(axes)
        bare(below)
    panels[0, 0].set(ylabel="accuracy", ylim=(0, 1), xlim=(0, 1))
    panels[1, 0].set_ylabel("images")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=1 + len(sides),
                  frameon=False)  # fmt: skip
    title_figure(figure, title, 12)
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
        ends = scores["intervals"][name]
        shown = "no interval" if ends is None else f"{ends[0]:.4f} to {ends[1]:.4f}"
        lines.append(f"ECE {scores[name]:.4f} ({shown}) with {bins} bins")
    return "\n".join(lines)
