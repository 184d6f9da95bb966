"""A sweep's trials as pictures place them: along axes of the parameters, and in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from dogs_accel.report.charts import nice_ticks
from dogs_accel.sweep.findings.trials import SweepTrials, level_text, position_of

_WITHIN = 0.55
"""Share of the room of a choice's level over which its trials are spread."""
VALUE_NAME = "val accuracy"
"""The last axis of parallel coordinates."""


@dataclass(frozen=True)
class CoordinateAxis:
    """One axis: its ticks are places from 0, the bottom, to 1, and their labels."""

    name: str
    ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Parallel coordinates of the trials that count."""

    axes: list[CoordinateAxis]
    places: NDArray[np.float64]
    """(N, axes) from 0 to 1; NaN where a trial says nothing of a parameter."""


def coordinates_of(trials: SweepTrials) -> Coordinates:
    """Place every trial that counts on an axis for each parameter, and on one of its accuracy."""
    axes, places = [], []
    # Trials of one level would lie on one point: they are spread around it, the best uppermost.
    order = (rankdata(trials.values) - 0.5) / max(len(trials.values), 1) - 0.5
    for parameter, levels in zip(trials.space.parameters, trials.counted_levels, strict=True):
        if parameter.kind == "choice":
            num = len(levels.labels)
            axes.append(
                CoordinateAxis(levels.name, [((at + 0.5) / num, label) for at, label in enumerate(levels.labels)])
            )
            places.append(np.where(levels.index < 0, np.nan, (levels.index + 0.5 + _WITHIN * order) / num))
        else:
            ends = [level_text(end) for end in parameter.ends]
            axes.append(CoordinateAxis(levels.name, [(0.0, ends[0]), (1.0, ends[1])]))
            places.append(position_of(parameter, trials.counted[levels.name]))
    low, high = value_range(trials.values)
    ticks = [((tick - low) / (high - low), f"{tick:g}") for tick in nice_ticks(low, high)]
    axes.append(CoordinateAxis(VALUE_NAME, ticks))
    places.append((trials.values - low) / (high - low))
    return Coordinates(axes, np.stack(places, axis=1))


def value_range(values: NDArray[np.float64]) -> tuple[float, float]:
    """Ends of an axis that holds values, which may be none or all alike."""
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    room = 0.05 * (high - low) or 0.01
    return low - room, high + room


def minutes_since_start(trials: SweepTrials) -> NDArray[np.float64]:
    """(N,) minutes from the start of the first trial to that of each."""
    started = pd.to_datetime(trials.table["started"], utc=True, format="ISO8601")
    elapsed = (started - started.min()).dt.total_seconds().to_numpy(dtype=np.float64)
    return elapsed / 60
