"""The figure of loaders against each other: ratios with intervals, scaling, and the step with a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from dogs_accel.plots import BLUE, GREY, RED, bare, own_look
from dogs_accel.throughput.bottleneck import LoaderWithModel
from dogs_accel.throughput.measure import AXES, Row, ScalingPoint

_LINES = ((RED, "-"), (GREY, "-"), (BLUE, "--"), (BLUE, "-"))
"""Colour and style of the first, the second candidate and so on."""
_SMALL = 8.5


@own_look()
def loaders_figure(
    tables: Mapping[str, Sequence[Row]],
    baseline: str,
    points: Sequence[ScalingPoint] = (),
    with_model: Mapping[str, LoaderWithModel] | None = None,
    model: str = "",
) -> Figure:
    """Draw ratios to the baseline, one panel a table; below them the scaling and the step with a model.

    tables has a title for each list of rows, which name the same candidates.
    """
    num_bars = max(map(len, tables.values()))
    num_below = len(dict.fromkeys(point.axis for point in points)) + (with_model is not None)
    heights = [0.9 + 0.34 * num_bars] + ([3.9] if num_below else [])
    width = max(4.3 * len(tables), 4.0 * num_below, 8.0)
    figure = Figure(figsize=(width, sum(heights) + 0.5), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _draw_ratios(parts[0], tables, baseline)
    if num_below:
        panels = list(parts[1].subplots(1, num_below, squeeze=False)[0])
        if points:
            _draw_scaling(panels, points)
            _legend_below(parts[1], panels[0], "left")
        if with_model is not None:
            _draw_with_model(panels[-1], with_model, model)
            _legend_below(parts[1], panels[-1], "right")
    return figure


def _draw_ratios(part: Any, tables: Mapping[str, Sequence[Row]], baseline: str) -> None:
    panels = part.subplots(1, len(tables), sharey=True, sharex=True, squeeze=False)[0]
    for axes, (title, rows) in zip(panels, tables.items(), strict=True):
        names = [f"ceiling: {row.candidate}" if row.is_ceiling else row.candidate for row in rows]
        ratios = np.array([row.ratio for row in rows])
        # On a logarithmic scale a bar has its foot at 1: its length is how much faster or slower.
        axes.barh(names, ratios - 1, left=1, color=[_colour(row) for row in rows], height=0.62)
        interval = [ratios - [row.ratio_low for row in rows], [row.ratio_high for row in rows] - ratios]
        axes.errorbar(ratios, names, xerr=interval, fmt="none", ecolor="black", elinewidth=0.9, capsize=2.5)
        for name, row in zip(names, rows, strict=True):
            axes.annotate(_ratio_text(row.ratio), (max(row.ratio_high, 1), name), xytext=(5, 0),
                          textcoords="offset points", va="center", fontsize=_SMALL)  # fmt: skip
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xscale("log")
        _plain_ticks(axes.xaxis)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel(f"times as fast as {baseline}", fontsize=_SMALL)
        axes.tick_params(axis="y", length=0)
        bare(axes)
    low = min(row.ratio_low for rows in tables.values() for row in rows)
    high = max(row.ratio_high for rows in tables.values() for row in rows)
    panels[0].set_xlim(min(low / 1.15, 0.8), high * 2.2)
    panels[0].invert_yaxis()


def _colour(row: Row) -> str:
    return GREY if row.is_ceiling else BLUE if row.is_ours else RED


def _ratio_text(ratio: float) -> str:
    return f"{ratio:.0f} x" if ratio >= 20 else f"{ratio:.1f} x" if ratio >= 2 else f"{ratio:.2f} x"


def _plain_ticks(axis: Any, digits: tuple[int, ...] = (1, 2, 5)) -> None:
    """Mark these digits of each power of ten with plain numbers."""
    axis.set_major_locator(LogLocator(subs=digits))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if value < 1 else f"{value:,.0f}"))
    axis.set_minor_locator(NullLocator())


def _short(name: str) -> str:
    """Drop what a name explains behind a colon."""
    return name.partition(":")[0]


def _legend_below(part: Any, axes: Axes, side: str) -> None:
    """Explain what a panel shows below it, at the left or the right side of its row of panels."""
    handles, labels = axes.get_legend_handles_labels()
    part.legend(handles, labels, fontsize=_SMALL, frameon=False, loc=f"outside lower {side}", ncols=len(labels))


def _draw_scaling(panels: Sequence[Axes], points: Sequence[ScalingPoint]) -> None:
    names = list(dict.fromkeys(point.candidate for point in points))
    for axes, axis in zip(panels, dict.fromkeys(point.axis for point in points), strict=False):
        on_axis = [point for point in points if point.axis == axis]
        values = sorted({point.value for point in on_axis})
        for i, name in enumerate(names):
            own = sorted((point for point in on_axis if point.candidate == name), key=lambda point: point.value)
            x, rates = [point.value for point in own], np.array([point.rate for point in own])
            colour, style = _LINES[i % len(_LINES)]
            axes.fill_between(x, [point.rate_low for point in own], [point.rate_high for point in own],
                              color=colour, alpha=0.15, linewidth=0)  # fmt: skip
            axes.plot(x, rates, color=colour, linestyle=style, marker="o", markersize=4, label=_short(name))
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(values, [str(value) for value in values])
        axes.xaxis.set_minor_locator(NullLocator())
        _plain_ticks(axes.yaxis)
        axes.set_xlabel(AXES[axis])
        axes.set_title(f"images a second by {AXES[axis]}", fontsize=10)
        bare(axes)


def _draw_with_model(axes: Axes, measured: Mapping[str, LoaderWithModel], model: str) -> None:
    names = [_short(name) for name in measured]
    for marker, colour, label, rates in (
        ("o", GREY, "loader only", [each.loader_rate for each in measured.values()]),
        ("s", RED, "model only", [each.compute_rate for each in measured.values()]),
        ("D", BLUE, "end to end", [each.end_to_end_rate for each in measured.values()]),
    ):
        axes.plot(rates, names, marker, color=colour, markersize=7, label=label)
    for name, each in zip(names, measured.values(), strict=True):
        axes.annotate(f"waits {100 * each.wait_share:.0f} %", (each.end_to_end_rate, name), xytext=(0, 9),
                      textcoords="offset points", ha="center", fontsize=_SMALL)  # fmt: skip
    axes.margins(x=0.2, y=0.25)
    axes.invert_yaxis()
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    _plain_ticks(axes.xaxis, (1, 3) if high < 100 * low else (1,))
    axes.set_title(f"images a second with {model}", fontsize=10)
    axes.grid(axis="y", linewidth=0.4)
    axes.tick_params(axis="y", length=0)
    bare(axes)
