"""Where the time of a run's training went, from its history: a summary and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dogs_accel.models.flops import ModelFlops
from dogs_accel.plots import BLUE, GREY, RED, bare, own_look, title_figure
from dogs_accel.training.step_profile import PARTS
from dogs_accel.training.trainer import HistoryRow

VAL_ACCURACIES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
"""Validation accuracies whose time is reported."""
_COLOURS = {
    "features": "#f0c419", "data_wait": RED, "transfer": "#e9a178", "forward": "#7fb3d5", "backward": BLUE,
    "graph": "#4a7fa5", "optimizer": "#1b3a4b", "other": GREY, "validation": "#cfd6df",
}  # fmt: skip


def summarise_profile(
    history: Sequence[HistoryRow], flops: Sequence[ModelFlops | None], peak: float | None, num_devices: int = 1
) -> dict[str, Any]:
    """Summarise the measured columns of a history by phase, and how long a validation accuracy took to reach.

    flops: operations an image of each phase, None where it does not run the whole model. peak: floating-point
    operations a second of one device, None where that is not known or changed. Rates are of all devices, medians over
    a phase's epochs; FLOPs are operations, two for a multiply-accumulate. Seconds of parts are those of the first
    process; features is the time of caching them.
    """
    table = pd.DataFrame(history)
    return {
        "phases": [
            _summarise_phase(rows, flops[int(rows["stage"].iloc[0]) - 1], peak, num_devices)
            for _, rows in table.groupby("stage", sort=True)
        ],
        "peak_flops_per_second": peak,
        "num_devices": num_devices,
        "peak_memory_mib": float(table["peak_memory_mib"].max()),
        "seconds_to_val_accuracy": {str(goal): _seconds_to(table, goal) for goal in VAL_ACCURACIES},
    }


def _summarise_phase(
    rows: pd.DataFrame, flops: ModelFlops | None, peak: float | None, num_devices: int
) -> dict[str, Any]:
    rate = float(rows["train_images_per_second"].median())
    achieved = None if flops is None else rate * flops.training
    return {
        "phase": str(rows["phase"].iloc[0]),
        "epochs": len(rows),
        "seconds": float(rows["epoch_seconds"].sum() + rows["features_s"].sum()),
        "parts_s": {part: float(rows[f"{part}_s"].sum()) for part in ("features", *PARTS, "other", "validation")},
        "train_images_per_second": rate,
        "median_step_ms": float(rows["median_step_ms"].median()),
        "forward_flops_per_image": None if flops is None else flops.forward,
        "training_flops_per_image": None if flops is None else flops.training,
        "flops_per_second": achieved,
        "share_of_peak": None if achieved is None or peak is None else achieved / (peak * num_devices),
    }


def _seconds_to(table: pd.DataFrame, accuracy: float) -> float | None:
    """Training seconds at the end of the first epoch that reached a validation accuracy."""
    reached = table.loc[table["val_acc"] >= accuracy, "seconds"]
    return float(reached.iloc[0]) if len(reached) else None


@own_look()
def profile_figure(history: Sequence[HistoryRow], title: str) -> Figure:
    """Draw the parts of each epoch's time, the images a second, and validation accuracy over time."""
    table = pd.DataFrame(history)
    epochs = table["epoch_total"].to_numpy()
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    parts, rate, accuracy = figure.subplots(1, 3, width_ratios=[1.35, 1, 1])
    _draw_parts(parts, table, epochs)
    rate.plot(epochs, table["train_images_per_second"], "o-", color=BLUE, markersize=4)
    rate.set(xlabel="epoch", ylabel="training images a second", title="Throughput")
    rate.set_ylim(0, 1.1 * table["train_images_per_second"].max())
    accuracy.plot(table["seconds"], table["val_acc"], "o-", color=BLUE, markersize=4)
    accuracy.set(xlabel="seconds of training", ylabel="accuracy", title="Validation accuracy over time", ylim=(0, 1))
    accuracy.set_xlim(left=0)
    for axes in (parts, rate):
        axes.xaxis.get_major_locator().set_params(integer=True)
        for start in table.index[table["stage"].diff() > 0]:
            axes.axvline(start + 0.5, color="#555555", linewidth=0.8, linestyle=":")
    for axes in (parts, rate, accuracy):
        bare(axes)
    title_figure(figure, title, 11)
    return figure


def _draw_parts(axes: Axes, table: pd.DataFrame, epochs: np.ndarray[Any, Any]) -> None:
    bottom = np.zeros(len(table))
    for part, colour in _COLOURS.items():
        seconds = table[f"{part}_s"].to_numpy()
        if seconds.any():
            axes.bar(epochs, seconds, bottom=bottom, color=colour, width=0.8, label=part.replace("_", " "))
            bottom += seconds
    axes.set(xlabel="epoch", ylabel="seconds", title="Where the time went")
    axes.set_ylim(0, 1.02 * bottom.max())
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
