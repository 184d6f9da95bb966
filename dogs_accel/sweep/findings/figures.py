"""The pictures of a sweep: accuracy against the time at which trials were begun, and parallel coordinates."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from dogs_accel.plots import BLUE, GREY, NOTE_COLOUR, RED, bare, own_look, shortened
from dogs_accel.sweep.findings.trials import SweepTrials
from dogs_accel.sweep.findings.views import coordinates_of, minutes_since_start
from dogs_accel.sweep.trials import FAILED, PRUNED

_LONGEST = 16
_BEHIND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
"""Of a label that lies on lines."""


@own_look()
def time_figure(trials: SweepTrials) -> Figure:
    """Draw the validation accuracy of each trial against the time at which it was begun, and the best so far."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    minutes, values = minutes_since_start(trials), trials.table["value"].to_numpy(dtype=np.float64)
    is_pruned, is_failed = trials.states == PRUNED, trials.states == FAILED
    counted = trials.is_counted
    axes.scatter(minutes[counted], values[counted], color=BLUE, s=26, label="complete", zorder=3)
    if is_pruned.any():
        axes.scatter(
            minutes[is_pruned],
            values[is_pruned],
            facecolors="none",
            edgecolors=GREY,
            s=26,
            label="pruned: fewer epochs",
        )
    if is_failed.any():
        at = np.full(int(is_failed.sum()), axes.get_ylim()[0])
        axes.scatter(minutes[is_failed], at, color=RED, marker="x", label="failed")
    if counted.any():
        order = np.flatnonzero(counted)[np.argsort(minutes[counted], kind="stable")]
        best = np.maximum.accumulate(values[order])
        axes.step(minutes[order], best, where="post", color=BLUE, alpha=0.5, label="best so far")
    axes.set(xlabel="minutes from the first trial's start to this one's", ylabel="best validation accuracy")
    axes.legend(frameon=False, fontsize=9)
    bare(axes)
    return figure


@own_look()
def parallel_figure(trials: SweepTrials) -> Figure:
    """Draw every complete trial as a line over its parameters, coloured by its validation accuracy."""
    shown = coordinates_of(trials)
    figure = Figure(figsize=(max(6.5, 1.35 * len(shown.axes) + 1), 4.6), layout="constrained")
    axes = figure.subplots()
    values = trials.values
    norm = Normalize(*((float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)))
    colours = colormaps["viridis"]
    for at in np.argsort(values, kind="stable"):
        axes.plot(
            range(len(shown.axes)), shown.places[at], color=colours(norm(values[at])), linewidth=1.3, alpha=0.85,
        )  # fmt: skip
    for place, axis in enumerate(shown.axes):
        axes.axvline(place, color="#bbbbbb", linewidth=0.8, zorder=0)
        for at, label in axis.ticks:
            axes.text(
                place + 0.03, at, shortened(label, _LONGEST), fontsize=8, va="center", color=NOTE_COLOUR, bbox=_BEHIND
            )
    names = [shortened(axis.name, _LONGEST) for axis in shown.axes]
    axes.set_xticks(range(len(names)), names, fontsize=9, rotation=20, ha="right")
    axes.set(yticks=[], ylim=(-0.06, 1.06), xlim=(-0.1, len(names) - 0.5))
    axes.spines[:].set_visible(False)
    figure.colorbar(ScalarMappable(norm, colours), ax=axes, label="best validation accuracy", shrink=0.8)
    return figure
