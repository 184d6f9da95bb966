"""Figures of a dataset, from its tables alone."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from dogs_accel.eda.files import Normalisation
from dogs_accel.eda.tables import class_sizes, count_text, size_range
from dogs_accel.plots import BLUE, GREY, RED, bare, shortened

_NUM_BINS = 30
_NUM_LARGEST = 20
_NUM_BOXED = 6
_TEST_COLOUR = "#e0a458"
_CHANNEL_COLOUR = {"R": "#c0392b", "G": "#3a7d44", "B": BLUE}


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


def dataset_distributions_figure(quality: pd.DataFrame) -> Figure:
    """Draw the official split, the sizes of all breeds, and the largest breeds by name."""
    sizes = class_sizes(quality)
    largest = sizes.head(_NUM_LARGEST)
    some = len(largest) < len(sizes)
    figure = Figure(figsize=(12, float(np.clip(1.6 + 0.29 * len(largest), 3.6, 8))), layout="constrained")
    mosaic = "SL;AL" if some else "SL"
    panels = figure.subplot_mosaic(mosaic, width_ratios=[1, 1.35])
    _official_split_panel(panels["S"], sizes)
    if some:
        _all_breeds_panel(panels["A"], sizes)
    _breeds_panel(panels["L"], largest, f"{_largest_of(len(largest), len(sizes))}\n{size_range(sizes)}")
    figure.suptitle(f"{count_text(len(quality), 'image')} of {count_text(len(sizes), 'breed')}", fontsize=13)
    return figure


def _largest_of(num: int, total: int) -> str:
    return f"{num} largest of {total} breeds" if num < total else count_text(total, "breed")


def _official_split_panel(axes: Axes, sizes: pd.DataFrame) -> None:
    counts = [int(sizes["train"].sum()), int(sizes["test"].sum())]
    bars = axes.bar(["train", "test"], counts, color=[BLUE, _TEST_COLOUR], width=0.6)
    axes.bar_label(bars, [f"{count:,}\n{count / sum(counts):.1%}" for count in counts], padding=2)
    axes.set(ylim=(0, max(counts) * 1.25), ylabel="images", title="Official split")
    _count_axis(axes.yaxis)
    bare(axes)


def _all_breeds_panel(axes: Axes, sizes: pd.DataFrame) -> None:
    rank = np.arange(1, len(sizes) + 1)
    axes.bar(rank, sizes["train"], width=1, color=BLUE)
    axes.bar(rank, sizes["test"], width=1, bottom=sizes["train"], color=_TEST_COLOUR)
    axes.set(xlim=(0.5, len(sizes) + 0.5), xlabel="breeds, largest first", ylabel="images",
             title=f"All {len(sizes)} breeds")  # fmt: skip
    _count_axis(axes.yaxis)
    bare(axes)


def _breeds_panel(axes: Axes, sizes: pd.DataFrame, title: str) -> None:
    at = np.arange(len(sizes))
    axes.barh(at, sizes["train"], color=BLUE, height=0.72, label="train")
    bars = axes.barh(at, sizes["test"], left=sizes["train"], color=_TEST_COLOUR, height=0.72, label="test")
    axes.bar_label(bars, [f"{count:,}" for count in sizes["images"]], padding=3, fontsize=9)
    axes.set_yticks(at, [shortened(name, 30) for name in sizes["class_name"]], fontsize=9, parse_math=False)
    axes.set(xlim=(0, sizes["images"].max() * 1.12), ylim=(len(sizes) - 0.4, -0.6), xlabel="images", title=title)
    _count_axis(axes.xaxis)
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="upper right", bbox_to_anchor=(1, -0.07), ncols=2, frameon=False)  # below, clear of the bars
    bare(axes)


def rgb_channel_figure(quality: pd.DataFrame, normalisation: Normalisation) -> Figure:
    """Draw mean and standard deviation of the image means per channel, beside those of the training pixels."""
    means = quality[["r_mean", "g_mean", "b_mean"]].to_numpy(np.float64)
    figure, (left, right) = _panels(f"Colour of {count_text(len(quality), 'image')}", 2)
    _channel_bars(left, means.mean(axis=0), normalisation.train_mean)
    left.set(title="Mean", ylabel="intensity, 0 to 1")
    _channel_bars(right, means.std(axis=0), normalisation.train_std)
    right.set_title("Standard deviation")
    handles = [
        Patch(facecolor=GREY, label=f"of the means of {count_text(len(quality), 'image')} (published way)"),
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


def breed_quality_figure(quality: pd.DataFrame) -> Figure:
    """Draw boxes of brightness and saturation of the images of the largest breeds, whiskers to 1.5 box heights."""
    sizes = class_sizes(quality)
    boxed = sizes.head(_NUM_BOXED)
    figure = Figure(figsize=(max(5.0, 1.4 + 1.6 * len(boxed)), 6.8), layout="constrained")
    figure.suptitle(f"Brightness and saturation: {_largest_of(len(boxed), len(sizes))}", fontsize=13)
    panels = figure.subplots(2, 1, sharex=True)
    for axes, (column, title) in zip(
        panels, [("brightness_mean", "Brightness"), ("saturation_mean", "Saturation")], strict=True
    ):
        by_breed = [quality.loc[quality["label"] == label, column].to_numpy() for label in boxed["label"]]
        axes.boxplot(by_breed, positions=range(len(boxed)), widths=0.55, patch_artist=True,
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
    panels[1].set_xlabel("breed, and how many images it has")
    return figure
