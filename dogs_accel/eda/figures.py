"""Figures of a dataset, from its tables alone."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from dogs_accel.datasets.facts import DatasetFacts
from dogs_accel.eda.files import Normalisation
from dogs_accel.eda.tables import class_sizes, size_range
from dogs_accel.plots import BLUE, GREY, RED, bare, own_look, shortened
from dogs_accel.runtime.terminal import count_text

_NUM_BINS = 30
_NUM_LARGEST = 20
_NUM_BOXED = 6
_PART_COLOUR = {"train": BLUE, "val": "#7fb7a3", "test": "#e0a458", "no official part": GREY}
_CHANNEL_COLOUR = {"R": "#c0392b", "G": "#3a7d44", "B": BLUE}


@own_look()
def quality_distributions_figure(quality: pd.DataFrame) -> Figure:
    """Draw how brightness, contrast and saturation are distributed over the images."""
    panels = [
        ("brightness_mean", "Brightness", "mean of an image's grey values"),
        ("contrast_std", "Contrast", "standard deviation of its grey values"),
        ("saturation_mean", "Saturation", "mean of its HSV saturation"),
    ]
    figure, rows = _panels(f"Quality of {count_text(len(quality), 'image')}", len(panels))
    for axes, (column, title, label) in zip(rows, panels, strict=True):
        _histogram(axes, quality[column].to_numpy(np.float64), title, label, "{:.3f}", kde=True)
    return figure


@own_look()
def image_size_figure(quality: pd.DataFrame) -> Figure:
    """Draw how width, height and aspect ratio are distributed; the few very large are counted, not drawn."""
    panels = [
        ("width", "Width", "px", "{:,.1f}"),
        ("height", "Height", "px", "{:,.1f}"),
        ("aspect_ratio", "Aspect ratio", "width / height", "{:.2f}"),
    ]
    figure, rows = _panels(f"Size of {count_text(len(quality), 'image')}", len(panels))
    for axes, (column, title, label, form) in zip(rows, panels, strict=True):
        _histogram(axes, quality[column].to_numpy(np.float64), title, label, form, cut=True)
    return figure


def _panels(title: str, num: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4.4 * num, 4.2), layout="constrained")
    if isinstance(engine := figure.get_layout_engine(), ConstrainedLayoutEngine):
        engine.set(wspace=0.05)
    figure.suptitle(title, fontsize=13)
    return figure, list(figure.subplots(1, num, squeeze=False)[0])


def _histogram(
    axes: Axes, values: NDArray[np.float64], title: str, label: str, form: str, *, kde: bool = False, cut: bool = False
) -> None:
    """Draw a histogram of 30 bins with its mean; `cut` leaves out a tail that would squeeze everything else."""
    high = _end_without_tail(values) if cut else values.max()
    shown = values[values <= high]
    # Equal values have no range of their own, and values that differ by rounding none that 30 bins could divide.
    is_constant = np.ptp(shown) <= 1e-9 * max(1.0, np.abs(shown).max())
    middle_of_a_bin = shown.mean() + 0.5 / _NUM_BINS
    span = (middle_of_a_bin - 0.5, middle_of_a_bin + 0.5) if is_constant else None
    _, edges, _ = axes.hist(shown, _NUM_BINS, range=span, color=BLUE, alpha=0.55)
    if kde and not is_constant:
        _density(axes, shown, edges)
    mean = values.mean()
    axes.axvline(mean, color=RED, linewidth=1.4)
    axes.text(mean, 1.01, f"mean {form.format(mean)}", transform=axes.get_xaxis_transform(), ha="center", va="bottom",
              color=RED, fontsize=9.5)  # fmt: skip
    if left_out := len(values) - len(shown):
        label += f"\nnot drawn: {left_out:,} larger, up to {values.max():,.5g}"
    axes.set_title(title, fontsize=11.5, pad=20)
    axes.set(xlabel=label, ylabel="images")
    _count_axis(axes.yaxis)
    bare(axes)


def _count_axis(axis: Axis) -> None:
    axis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
    axis.set_major_formatter("{x:,.0f}")


def _end_without_tail(values: NDArray[np.float64]) -> float:
    end = max(float(np.quantile(values, 0.995)), values.mean())
    return end if values.max() > 1.5 * end else values.max()


def _density(axes: Axes, values: NDArray[np.float64], edges: NDArray[np.float64]) -> None:
    from scipy.stats import gaussian_kde  # half a second, which only this figure should pay

    at = np.linspace(values.min(), values.max(), 200)
    images_per_unit = len(values) * (edges[1] - edges[0])
    axes.plot(at, gaussian_kde(values)(at) * images_per_unit, color=BLUE, linewidth=1.8)


@own_look()
def dataset_distributions_figure(quality: pd.DataFrame, facts: DatasetFacts) -> Figure:
    """Draw the official parts, the sizes of all classes, and the largest classes by name."""
    sizes = class_sizes(quality)
    largest = sizes.head(_NUM_LARGEST)
    some = len(largest) < len(sizes)
    figure = Figure(figsize=(12, float(np.clip(1.6 + 0.29 * len(largest), 3.6, 8))), layout="constrained")
    mosaic = "SL;AL" if some else "SL"
    panels = figure.subplot_mosaic(mosaic, width_ratios=[1, 1.35])
    parts = _official_parts(sizes)
    _official_split_panel(panels["S"], parts)
    if some:
        _all_classes_panel(panels["A"], sizes, parts, facts)
    title = f"{_largest_of(len(largest), len(sizes), facts)}\n{size_range(sizes, facts.noun)}"
    _largest_classes_panel(panels["L"], largest, _official_parts(largest), title)
    figure.suptitle(f"{count_text(len(quality), 'image')} of {facts.count(len(sizes))}", fontsize=13)
    return figure


def _largest_of(num: int, total: int, facts: DatasetFacts) -> str:
    return f"{num} largest of {facts.count(total)}" if num < total else facts.count(total)


def _official_parts(sizes: pd.DataFrame) -> dict[str, pd.Series]:
    """Count the images of each official part by class, and those of no part; parts without an image are left out."""
    parts = {name: sizes[name] for name in _PART_COLOUR if name in sizes}
    parts["no official part"] = sizes["images"] - sum(parts.values())
    return {name: counts for name, counts in parts.items() if counts.sum()}


def _official_split_panel(axes: Axes, parts: Mapping[str, pd.Series]) -> None:
    counts = [int(part.sum()) for part in parts.values()]
    bars = axes.bar(list(parts), counts, color=[_PART_COLOUR[name] for name in parts], width=0.6)
    axes.bar_label(bars, [f"{count:,}\n{count / sum(counts):.1%}" for count in counts], padding=2)
    axes.set(ylim=(0, max(counts) * 1.25), ylabel="images", title="Official split")
    _count_axis(axes.yaxis)
    bare(axes)


def _all_classes_panel(axes: Axes, sizes: pd.DataFrame, parts: Mapping[str, pd.Series], facts: DatasetFacts) -> None:
    rank, below = np.arange(1, len(sizes) + 1), np.zeros(len(sizes))
    for name, counts in parts.items():
        axes.bar(rank, counts, width=1, bottom=below, color=_PART_COLOUR[name])
        below += counts
    axes.set(xlim=(0.5, len(sizes) + 0.5), xlabel=f"{facts.plural}, largest first", ylabel="images",
             title=f"All {facts.count(len(sizes))}")  # fmt: skip
    _count_axis(axes.yaxis)
    bare(axes)


def _largest_classes_panel(axes: Axes, sizes: pd.DataFrame, parts: Mapping[str, pd.Series], title: str) -> None:
    at, left = np.arange(len(sizes)), np.zeros(len(sizes))
    for name, counts in parts.items():
        bars = axes.barh(at, counts, left=left, color=_PART_COLOUR[name], height=0.72, label=name)
        left += counts
    axes.bar_label(bars, [f"{count:,}" for count in sizes["images"]], padding=3, fontsize=9)
    axes.set_yticks(at, [shortened(name, 30) for name in sizes["class_name"]], fontsize=9, parse_math=False)
    axes.set(xlim=(0, sizes["images"].max() * 1.12), ylim=(len(sizes) - 0.4, -0.6), xlabel="images", title=title)
    _count_axis(axes.xaxis)
    axes.tick_params(axis="y", length=0)
    # Below, clear of the bars.
    axes.legend(loc="upper right", bbox_to_anchor=(1, -0.07), ncols=len(parts), frameon=False)
    bare(axes)


@own_look()
def rgb_channel_figure(quality: pd.DataFrame, normalisation: Normalisation) -> Figure:
    """Draw mean and standard deviation of the image means per channel, beside those of the training pixels."""
    means = quality[["r_mean", "g_mean", "b_mean"]].to_numpy(np.float64)
    figure, (left, right) = _panels(f"Colour of {count_text(len(quality), 'image')}", 2)
    _channel_bars(left, means.mean(axis=0), normalisation.train_mean)
    left.set(title="Mean", ylabel="intensity, 0 to 1")
    _channel_bars(right, means.std(axis=0), normalisation.train_std)
    right.set_title("Standard deviation")
    handles = [
        Patch(facecolor=GREY, label=f"of the means of {count_text(len(quality), 'image')}"),
        Patch(facecolor="white", edgecolor=GREY, hatch="///",
              label=f"of the pixels of {count_text(normalisation.num_train_images, 'training image')}"),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _channel_bars(axes: Axes, of_means: NDArray[np.float64], of_pixels: Sequence[float]) -> None:
    at = np.arange(3)
    colours = list(_CHANNEL_COLOUR.values())
    solid = axes.bar(at - 0.2, of_means, width=0.38, color=colours)
    hatched = axes.bar(at + 0.2, of_pixels, width=0.38, color="white", edgecolor=colours, hatch="///")
    for bars in (solid, hatched):
        axes.bar_label(bars, fmt="{:.4f}", padding=2, fontsize=8.5)
    axes.set_xticks(at, list(_CHANNEL_COLOUR))
    axes.set_ylim(0, max(*of_means, *of_pixels, 1e-3) * 1.12)
    bare(axes)


@own_look()
def class_quality_figure(quality: pd.DataFrame, facts: DatasetFacts) -> Figure:
    """Draw boxes of brightness and saturation of the images of the largest classes, whiskers to 1.5 box heights."""
    sizes = class_sizes(quality)
    boxed = sizes.head(_NUM_BOXED)
    figure = Figure(figsize=(max(5.0, 1.4 + 1.6 * len(boxed)), 6.8), layout="constrained")
    figure.suptitle(f"Brightness and saturation: {_largest_of(len(boxed), len(sizes), facts)}", fontsize=13)
    panels = figure.subplots(2, 1, sharex=True)
    for axes, (column, title) in zip(
        panels, [("brightness_mean", "Brightness"), ("saturation_mean", "Saturation")], strict=True
    ):
        by_class = [quality.loc[quality["label"] == label, column].to_numpy() for label in boxed["label"]]
        axes.boxplot(by_class, positions=range(len(boxed)), widths=0.55, patch_artist=True,
                     boxprops={"facecolor": BLUE, "alpha": 0.55}, medianprops={"color": "black", "linewidth": 1.6},
                     flierprops={"marker": ".", "markersize": 4, "markeredgecolor": GREY})  # fmt: skip
        median = quality[column].median()
        axes.axhline(median, color=RED, linewidth=1, linestyle="--", zorder=0)
        axes.text(1.005, median, f"median of\nall images\n{median:.3f}", transform=axes.get_yaxis_transform(),
                  va="center", color=RED, fontsize=8.5)  # fmt: skip
        axes.set(ylabel=title)
        bare(axes)
    names = [
        f"{textwrap.fill(shortened(name, 36), 17)}\n{num:,}"
        for name, num in zip(boxed["class_name"], boxed["images"], strict=True)
    ]
    panels[1].set_xticks(range(len(boxed)), names, fontsize=9, parse_math=False)
    panels[1].set_xlabel(f"{facts.noun}, and how many images it has")
    return figure
