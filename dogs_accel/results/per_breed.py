"""Every run on every breed, side by side, and the best runs of two families against each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dogs_accel.models import FAMILY_NAME
from dogs_accel.plots import FAMILY_COLOUR, GREY, bare, save_figure
from dogs_accel.results.layout import PER_BREED_FIGURE, PER_BREED_FILE
from dogs_accel.results.run import Run
from dogs_accel.runtime.files import write_csv

_NUM_LARGEST = 15


def best_of_families(runs: Sequence[Run]) -> dict[str, str]:
    """Name the run of highest test accuracy of each family, the earlier one of equals.

    Where there are repeats with other seeds the configuration of highest mean is taken, as in
    best_per_family_comparison.csv, and of it the first run.
    """
    accuracy = pd.DataFrame(
        {
            "family": [run.family for run in runs],
            "configuration": [run.configuration for run in runs],
            "run": [run.name for run in runs],
            "accuracy": [float(np.trace(run.confusion) / run.confusion.sum()) for run in runs],
        }
    )
    means = accuracy.groupby(["family", "configuration"], sort=False).agg(
        run=("run", "first"), accuracy=("accuracy", "mean")
    )
    best = means.loc[means.groupby("family", sort=False)["accuracy"].idxmax()]
    return {str(family): str(run) for (family, _), run in best["run"].items()}


def per_breed_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Tabulate the breeds in the order of their labels over the finished runs of one benchmark.

    Columns: breed, num_images (of the test split), <run>_precision, <run>_recall and <run>_f1 of each run, and of each
    family best_<family>_run and best_<family>_f1 (see `best_of_families`); with a CNN and a ViT also f1_difference, the
    ViT's less the CNN's. A score that is not defined is empty. Raises ValueError for runs of other test images or
    breeds.
    """
    names, ids = runs[0].class_names, runs[0].predictions("test").ids
    for run in runs:
        if run.class_names != names or not np.array_equal(run.predictions("test").ids, ids):
            raise ValueError(f"runs: {run.name} has other breeds or test images than {runs[0].name}")
    scores = {run.name: run.breed_scores for run in runs}
    columns: dict[str, object] = {"breed": names, "num_images": scores[runs[0].name].num_images}
    for run_name, each in scores.items():
        columns |= {f"{run_name}_precision": each.precision, f"{run_name}_recall": each.recall}
        columns[f"{run_name}_f1"] = each.f1
    best = best_of_families(runs)
    for family, run_name in best.items():
        columns |= {f"best_{family}_run": run_name, f"best_{family}_f1": scores[run_name].f1}
    if set(best) == set(FAMILY_NAME):
        columns["f1_difference"] = scores[best["vit"]].f1 - scores[best["cnn"]].f1
    return pd.DataFrame(columns)


def per_breed_figure(table: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Draw the best run of each family against the other: F1 of every breed, and the breeds that differ most.

    table: that of `per_breed_table` with both families; titles: of the best run by family. Breeds without a test image
    are left out. Raises ValueError where there is no other.
    """
    shown = table.dropna(subset=["f1_difference"])
    if shown.empty:
        raise ValueError("table: got no breed with a test image, expected at least one")
    order = np.argsort(-shown["f1_difference"].abs().to_numpy(), kind="stable")
    largest = shown.iloc[order[:_NUM_LARGEST]]
    largest = largest[largest["f1_difference"] != 0].sort_values("f1_difference", kind="stable")
    figure = Figure(figsize=(13, 6.4), layout="constrained")
    figure.suptitle(f"F1 of the {len(shown)} breeds, the best run of each family", fontsize=13)
    left, right = figure.subplots(1, 2)
    _draw_scatter(left, shown, largest, titles)
    _draw_largest(right, largest, titles)
    fewest, most = shown["num_images"].min(), shown["num_images"].max()
    sizes = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    figure.supxlabel(
        f"A breed has {sizes} test images, so a gap of one breed alone says little: one image more or less right moves "
        f"its F1 by about {1 / max(fewest, 1):.2f}",
        fontsize=9, color="#555555",
    )  # fmt: skip
    return figure


def _draw_scatter(axes: Axes, shown: pd.DataFrame, largest: pd.DataFrame, titles: dict[str, str]) -> None:
    x, y = shown["best_cnn_f1"], shown["best_vit_f1"]
    low = max(0.0, min(x.min(), y.min()) - 0.03)
    axes.plot([low, 1], [low, 1], color=GREY, linestyle="--", linewidth=1)
    axes.plot(x, y, "o", color=GREY, alpha=0.55, markersize=5, markeredgewidth=0)
    for rows, family in ((largest["f1_difference"] < 0, "cnn"), (largest["f1_difference"] > 0, "vit")):
        chosen = largest[rows]
        axes.plot(chosen["best_cnn_f1"], chosen["best_vit_f1"], "o", color=FAMILY_COLOUR[family], markersize=6)
    axes.set(xlim=(low, 1.01), ylim=(low, 1.01), aspect="equal")
    axes.set_xlabel(f"F1 of {titles['cnn']}", color=FAMILY_COLOUR["cnn"])
    axes.set_ylabel(f"F1 of {titles['vit']}", color=FAMILY_COLOUR["vit"])
    ahead = int((shown["f1_difference"] > 0).sum()), int((shown["f1_difference"] < 0).sum())
    axes.set_title(
        f"{ahead[0]} breeds above the line, {ahead[1]} below, {len(shown) - sum(ahead)} on it", fontsize=10.5
    )
    bare(axes)


def _draw_largest(axes: Axes, largest: pd.DataFrame, titles: dict[str, str]) -> None:
    if largest.empty:
        axes.text(0.5, 0.5, "both have the same F1 on every breed", ha="center", va="center", color="#555555")
        axes.set_axis_off()
        return
    rows = np.arange(len(largest))
    axes.hlines(rows, largest["best_cnn_f1"], largest["best_vit_f1"], color=GREY, linewidth=2)
    for family in ("cnn", "vit"):
        axes.plot(largest[f"best_{family}_f1"], rows, "o", color=FAMILY_COLOUR[family], label=titles[family])
    names = [f"{row.breed} ({row.num_images})" for row in largest.itertuples()]
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


def write_per_breed(folder: Path, runs: Sequence[Run]) -> list[Path]:
    """Write per_breed_comparison.csv of a benchmark's finished runs, and its picture where there are two families."""
    table = per_breed_table(runs)
    written = [write_csv(folder / PER_BREED_FILE, table)]
    if "f1_difference" not in table:
        (folder / PER_BREED_FIGURE).unlink(missing_ok=True)  # that of an earlier call would be taken for this one's
        return written
    title_of = {run.name: run.title for run in runs}
    titles = {family: title_of[name] for family, name in best_of_families(runs).items()}
    return [*written, save_figure(per_breed_figure(table, titles), folder / PER_BREED_FIGURE)]
