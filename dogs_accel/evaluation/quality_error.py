"""Accuracy against the quality of the images: does it fall where they are dark, flat, grey or small?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import norm

from dogs_accel.evaluation.intervals import wilson_interval
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.evaluation.significance import holm
from dogs_accel.plots import BLUE, GREY, bare, own_look, save_figure, title_figure
from dogs_accel.runtime.files import write_csv

QUALITY_ERROR_FILE, QUALITY_ERROR_FIGURE = "quality_vs_error.csv", "quality_vs_error.png"
SIGNIFICANCE = 0.05
"""Of the trends of one run together."""
QUANTITIES = {
    # name: (column of metadata_with_quality.csv, words for its first and its last tenth, axis)
    "brightness": ("brightness_mean", "darkest", "brightest", "mean grey"),
    "contrast": ("contrast_std", "flattest", "most contrasted", "standard deviation of grey"),
    "saturation": ("saturation_mean", "greyest", "most saturated", "mean saturation"),
    "area": ("area_px", "smallest", "largest", "width x height in px"),
}
_NUM_TENTHS = 10
_COLUMNS = ("quantity", "tenth", "low", "high", "num_images", "accuracy", "accuracy_low", "accuracy_high")


def quality_table(predictions: Predictions, quality: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the accuracy on each tenth of the images by brightness, contrast, saturation and area.

    quality: the rows of metadata_with_quality.csv, joined by id; images without a row are left out. The images in the
    order of a quantity are cut into ten parts as equal as can be, and those of equal value go where the first of them
    goes, so that a tenth may be empty, which has no row. Columns: quantity, tenth (from 1, the lowest), low and high
    (of its values), num_images, accuracy and the ends of its 95 % Wilson interval.
    """
    areas = quality["width"] * quality["height"]
    measured = quality.assign(area_px=areas).set_index("image_id")
    known = np.isin(predictions.ids, measured.index.to_numpy(dtype=str))
    values = measured.loc[predictions.ids[known]]
    correct = (predictions.predicted == predictions.labels)[known]
    tables = [_tenths(name, values[column].to_numpy(), correct) for name, (column, *_) in QUANTITIES.items()]
    return pd.DataFrame([row for rows in tables for row in rows], columns=list(_COLUMNS))


def tenth_of(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Give the tenth of each value (N,), from 0, the lowest: values in their order cut into ten as equal as can be.

    Equal values go where the first of them goes.
    """
    tenths: NDArray[np.int64] = np.searchsorted(np.sort(values), values) * _NUM_TENTHS // max(len(values), 1)
    return tenths


def _tenths(name: str, values: NDArray[np.float64], correct: NDArray[np.bool_]) -> list[tuple[object, ...]]:
    own_tenth = tenth_of(values)
    rows: list[tuple[object, ...]] = []
    for tenth in np.unique(own_tenth):
        inside = own_tenth == tenth
        num_images, num_correct = int(inside.sum()), int(correct[inside].sum())
        interval = wilson_interval(num_correct, num_images)
        low, high = values[inside].min(), values[inside].max()
        accuracy = num_correct / num_images
        rows.append((name, int(tenth) + 1, low, high, num_images, accuracy, interval.low, interval.high))
    return rows


@dataclass(frozen=True, kw_only=True)
class Trend:
    """Whether accuracy rises or falls over the tenths of a quantity."""

    quantity: str
    z: float
    """Statistic of the test, positive where accuracy rises with the quantity; NaN where there is nothing to test."""
    p: float
    """Two-sided, with Holm's correction for the quantities that could be tested."""
    sentence: str
    """What the data say, in words."""


def trend_test(tenths: NDArray[np.int64], num_images: NDArray[np.int64], num_correct: NDArray[np.int64]) -> float:
    """Return z of the Cochran-Armitage test for trend in proportions, with the numbers of the tenths as scores.

    NaN where there is one tenth, or all or none of the images are right. Definition: Armitage, "Tests for linear trends
    in proportions and frequencies", Biometrics 11, 1955.
    """
    total = int(num_images.sum())
    if total == 0 or not 0 < num_correct.sum() < total:
        return float("nan")
    share = num_correct.sum() / total
    score = tenths - (tenths * num_images).sum() / total
    spread = (num_images * score**2).sum()
    if spread == 0:
        return float("nan")
    return float((score * num_correct).sum() / np.sqrt(share * (1 - share) * spread))


def quality_trends(table: pd.DataFrame) -> list[Trend]:
    """Test each quantity of `quality_table` for a trend, and say in a sentence what was found.

    The p-values have Holm's correction (Scandinavian Journal of Statistics 6, 1979), since a trend in any of four
    quantities would be reported.
    """
    groups = {name: table[table["quantity"] == name] for name in QUANTITIES}
    statistics = {name: _statistic(rows) for name, rows in groups.items()}
    tested = {name: 2 * norm.sf(abs(z)) for name, z in statistics.items() if not np.isnan(z)}
    p_values = dict.fromkeys(statistics, float("nan")) | dict(zip(tested, holm([*tested.values()]), strict=True))
    return [
        Trend(quantity=name, z=z, p=p_values[name], sentence=_sentence(name, groups[name], z, p_values[name]))
        for name, z in statistics.items()
    ]


def _statistic(rows: pd.DataFrame) -> float:
    num_images = rows["num_images"].to_numpy(dtype=np.int64)
    return trend_test(rows["tenth"].to_numpy(dtype=np.int64), num_images, _num_correct(rows))


def _num_correct(rows: pd.DataFrame) -> NDArray[np.int64]:
    return (rows["accuracy"] * rows["num_images"]).round().to_numpy(dtype=np.int64)


def _sentence(name: str, rows: pd.DataFrame, z: float, p: float) -> str:
    if rows.empty:
        return f"{name}: not measured, no test image has a row in the metadata."
    if np.isnan(z):
        if len(rows) == 1:
            return f"{name}: no trend shown, the images do not differ enough in it to be cut into tenths."
        every = "every" if rows["accuracy"].iloc[0] == 1 else "no"
        return f"{name}: no trend shown, {every} image is classified correctly."
    _, lowest, highest, _ = QUANTITIES[name]
    accuracy = rows["accuracy"].to_numpy()
    ends = f"{accuracy[0]:.3f} in the {lowest} tenth, {accuracy[-1]:.3f} in the {highest}"
    found = "no trend shown" if p >= SIGNIFICANCE else f"accuracy {'rises' if z > 0 else 'falls'} with it"
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return f"{name}: {found} ({ends}; Cochran-Armitage test for trend, {shown} after Holm's correction)."


@own_look()
def quality_figure(table: pd.DataFrame, title: str) -> Figure:
    """Draw the accuracy on each tenth of each quantity with its interval; a panel's heading says what the test found.

    Raises ValueError for a table without rows.
    """
    if table.empty:
        raise ValueError("table: got no rows, expected at least one tenth")
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    head = f"{title}\naccuracy on tenths of the test images, with 95 % Wilson intervals"
    title_figure(figure, head, 12)
    figure.get_layout_engine().set(wspace=0.06)  # type: ignore[union-attr, call-arg]
    panels = figure.subplots(2, 2, sharey=True).ravel()
    trends = quality_trends(table)
    for axes, trend in zip(panels, trends, strict=True):
        _draw_tenths(axes, table[table["quantity"] == trend.quantity], trend)
    panels[0].set_ylabel("accuracy")
    panels[2].set_ylabel("accuracy")
    figure.supxlabel(
        "dashed: all the images; p of the Cochran-Armitage test for trend, with Holm's correction for the quantities",
        fontsize=9, color="#555555",
    )  # fmt: skip
    return figure


def _draw_tenths(axes: Axes, rows: pd.DataFrame, trend: Trend) -> None:
    _, lowest, highest, meaning = QUANTITIES[trend.quantity]
    accuracy = rows["accuracy"].to_numpy()
    # Rounding may put an end of the interval on the wrong side of the accuracy.
    below = np.maximum(accuracy - rows["accuracy_low"].to_numpy(), 0)
    above = np.maximum(rows["accuracy_high"].to_numpy() - accuracy, 0)
    overall = _num_correct(rows).sum() / rows["num_images"].sum()
    axes.axhline(overall, color=GREY, linestyle="--", linewidth=1)
    axes.errorbar(rows["tenth"], accuracy, yerr=[below, above], fmt="o", color=BLUE, ecolor=BLUE, capsize=3)
    ticks = [f"{tenth}" for tenth in range(1, _NUM_TENTHS + 1)]
    axes.set_xticks(range(1, _NUM_TENTHS + 1), [f"1\n{lowest}", *ticks[1:-1], f"10\n{highest}"])
    axes.set_xlim(0.5, _NUM_TENTHS + 0.5)
    verdict = "no trend can be tested"
    if not np.isnan(trend.z):
        direction = "accuracy rises" if trend.z > 0 else "accuracy falls"
        verdict = f"{'no trend shown' if trend.p >= SIGNIFICANCE else direction}, p = {trend.p:.3f}"
    axes.set_title(f"{trend.quantity} ({meaning}): {verdict}", fontsize=10.5)
    bare(axes)


def write_quality_error(folder: Path, predictions: Predictions, quality: pd.DataFrame, title: str) -> list[Path]:
    """Write quality_vs_error.csv and .png of a run's test split into its folder; without a measured image no picture.

    quality: the rows of metadata_with_quality.csv.
    """
    table = quality_table(predictions, quality)
    written = [write_csv(folder / QUALITY_ERROR_FILE, table)]
    if table.empty:
        (folder / QUALITY_ERROR_FIGURE).unlink(missing_ok=True)  # that of an earlier call would be taken for this one's
        return written
    return [*written, save_figure(quality_figure(table, title), folder / QUALITY_ERROR_FIGURE)]
