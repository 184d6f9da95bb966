"""What earlier versions wrote otherwise: the columns of a version that knew breeds of dogs alone, and scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from dogs_accel.calibration import why_no_temperature
from dogs_accel.evaluation.predictions import TOP

_NOW = {"breed": "class", "breeds": "classes"}
OLDER_COLUMNS = tuple(_NOW)
"""All of them are of names."""


def with_names_of_now(table: pd.DataFrame) -> pd.DataFrame:
    """Rename the columns of a table that an earlier version wrote."""
    return table.rename(columns=_NOW)


_OF_SHARES = ("accuracy", "weighted_recall", "top5_accuracy")
"""Scores whose interval needs no resamples."""


def with_scores_of_now(metrics: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    """Read metrics.json by the rules of now, whichever version wrote it.

    A top-5 accuracy of five classes or fewer is None; so is a temperature that `calibration.why_no_temperature` has
    something against, with what follows from it; intervals hold their values, and those without a width are None.
    """
    now = dict(metrics)
    if num_classes <= TOP and "top5_accuracy" in now:
        now["top5_accuracy"] = None
    if "intervals" in now:
        now["intervals"] = _intervals_of_now(now)
    if (temperature := now.get("temperature")) is not None and temperature["value"] is not None:
        val = now.get("val", {})
        num_mistakes = val["num_images"] - val["num_correct"] if {"num_images", "num_correct"} <= set(val) else 1
        low, high = temperature.get("low"), temperature.get("high")
        ends = (0.0, math.inf) if low is None or high is None else (low, high)
        if (reason := why_no_temperature(temperature["value"], ends, num_mistakes)) is not None:
            now["temperature"] = temperature | {"value": None, "low": None, "high": None, "reason": reason}
            now["calibrated"] = None
    if now.get("calibrated"):
        now["calibrated"] = now["calibrated"] | {"intervals": _intervals_of_now(now["calibrated"])}
    return now


def _intervals_of_now(scores: Mapping[str, Any]) -> dict[str, list[float] | None]:
    """Widen each interval to its value; of what has no value or, of what is resampled, no width there is none."""
    found: dict[str, list[float] | None] = {}
    for name, ends in scores.get("intervals", {}).items():
        value = scores.get(name)
        if ends is None or value is None or (ends[0] == ends[1] and name not in _OF_SHARES):
            found[name] = None
        else:
            found[name] = [min(ends[0], value), max(ends[1], value)]
    return found
