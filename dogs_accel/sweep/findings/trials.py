"""The trials of a sweep as its findings read them: what each had, how it ended, and the levels of every parameter.

A parameter that is a choice has its choices as levels. A range is cut into three levels of equal width on its own
scale, which is logarithmic where the range is; an integer range of few values has each value as a level. The cuts
follow from the space alone, so that they do not depend on what came out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dogs_accel.sweep.space import Parameter

COMPLETE, PRUNED, FAILED, RUNNING = "complete", "pruned", "failed", "running"
"""The states of a trial."""
_BINS = 3
_MOST_INTEGERS = 6
"""Values of an integer range that are levels each."""
_ABSENT = -1
_OWN_COLUMNS = ("number", "state", "value", "num_val", "epochs", "seed")


def level_text(value: Any) -> str:
    """Write a value of a parameter as a settings file would: true, 0.2, mish; a number of a range in three digits."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value)).lower()
    if isinstance(value, (float, np.floating)):
        return f"{value:.3g}" if math.isfinite(value) else ""
    return "none" if value is None else str(value)


@dataclass(frozen=True, eq=False)
class ParameterLevels:
    """The levels of one parameter, and which of them each row of a table of trials has."""

    name: str
    labels: tuple[str, ...]
    index: NDArray[np.int64]
    """(N,) places in labels; -1 where the trial says nothing of the parameter."""

    def has(self, level: int) -> NDArray[np.bool_]:
        """(N,) whether each trial has a level."""
        return self.index == level

    def named(self, level: int) -> str:
        """Name a level with its parameter, as in batch_norm=true."""
        return f"{self.name}={self.labels[level]}"


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepTrials:
    """A sweep's space and its trials.

    Raises ValueError where the table lacks a column of the space or one that every sweep writes.
    """

    space: Sequence[Parameter]
    table: pd.DataFrame
    """trials.csv: a row a trial."""
    sampler: str = "random"
    """bayes, random or grid."""

    def __post_init__(self) -> None:
        expected = [*_OWN_COLUMNS, *(parameter.name for parameter in self.space)]
        if missing := [name for name in expected if name not in self.table]:
            raise ValueError(
                f"trials: got no column {', '.join(missing)}, expected one for each parameter of the space"
            )

    @cached_property
    def states(self) -> NDArray[np.object_]:
        """(N,) how each trial ended."""
        return self.table["state"].to_numpy(dtype=object)

    @cached_property
    def repeats(self) -> NDArray[np.bool_]:
        """(N,) whether a trial repeats an earlier complete one: the same parameters and seed, and so the same value."""
        columns = [self.table[name].tolist() for name in (*(each.name for each in self.space), "seed")]
        seen: set[tuple[str, ...]] = set()
        repeated = np.zeros(len(self.table), dtype=np.bool_)
        for at, (state, *settings) in enumerate(zip(self.states, *columns, strict=True)):
            key = tuple(map(str, settings))
            repeated[at] = state == COMPLETE and key in seen
            if state == COMPLETE:
                seen.add(key)
        return repeated

    @cached_property
    def is_counted(self) -> NDArray[np.bool_]:
        """(N,) whether a trial counts: complete, with a value, and no repeat of an earlier one.

        The value of a pruned trial is of fewer epochs, so it is compared with none.
        """
        has_value = np.isfinite(self.table["value"].to_numpy(dtype=np.float64))
        return (self.states == COMPLETE) & has_value & ~self.repeats

    @cached_property
    def counted(self) -> pd.DataFrame:
        """The rows of the trials that count."""
        return self.table[self.is_counted]

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """(N,) best validation accuracy of the trials that count."""
        return self.counted["value"].to_numpy(dtype=np.float64)

    @cached_property
    def levels(self) -> list[ParameterLevels]:
        """The levels of each parameter, over all trials."""
        return [levels_of(parameter, self.table[parameter.name]) for parameter in self.space]

    @cached_property
    def counted_levels(self) -> list[ParameterLevels]:
        """The same over the trials that count."""
        return [ParameterLevels(each.name, each.labels, each.index[self.is_counted]) for each in self.levels]

    @property
    def best(self) -> pd.Series:
        """The trial of highest validation accuracy, the earlier one of equals. Raises ValueError if there is none."""
        return self.best_of(1).iloc[0]

    def best_of(self, num: int) -> pd.DataFrame:
        """The trials of highest validation accuracy, best first. Raises ValueError where no trial is complete."""
        if self.counted.empty:
            raise ValueError("trials: got no complete trial, expected one or more")
        return self.counted.sort_values(["value", "number"], ascending=[False, True]).head(num)


def levels_of(parameter: Parameter, column: pd.Series) -> ParameterLevels:
    """Cut a parameter into levels, and place the values of a column of trials in them.

    Raises ValueError for a value that is none of the choices of a parameter.
    """
    if parameter.kind == "choice":
        labels = tuple(map(level_text, parameter.choices))
        places = {key: place for place, choice in enumerate(parameter.choices) for key in _keys(choice)}
        found = [_ABSENT if _is_absent(value) else _place(parameter.name, places, value) for value in column]
        return ParameterLevels(parameter.name, labels, np.array(found, dtype=np.int64))
    numbers = pd.to_numeric(column).to_numpy(dtype=np.float64)
    if parameter.kind == "int" and parameter.high - parameter.low < _MOST_INTEGERS:
        labels = tuple(str(value) for value in range(int(parameter.low), int(parameter.high) + 1))
        index = numbers - parameter.low
    else:
        edges = _edges(parameter)
        labels = tuple(f"{level_text(low)} to {level_text(high)}" for low, high in itertools.pairwise(edges))
        index = np.searchsorted(edges[1:-1], numbers, side="right").astype(np.float64)
    index = np.where(np.isnan(numbers), _ABSENT, index)
    return ParameterLevels(parameter.name, labels, index.astype(np.int64))


def position_of(parameter: Parameter, column: pd.Series) -> NDArray[np.float64]:
    """Place the values of a range on its own scale: 0 its low end, 1 its high end; NaN where there is none."""
    numbers = pd.to_numeric(column).to_numpy(dtype=np.float64)
    low, high = float(parameter.low), float(parameter.high)
    if parameter.log:
        numbers, low, high = np.log(numbers), math.log(low), math.log(high)
    return (numbers - low) / (high - low if high > low else 1.0)


def _edges(parameter: Parameter) -> list[float]:
    low, high = float(parameter.low), float(parameter.high)
    scale = np.geomspace if parameter.log else np.linspace
    return [float(edge) for edge in scale(low, high, _BINS + 1)]


def _is_absent(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _keys(value: Any) -> list[str]:
    """The texts by which a table may name a choice: as it is, in lower case, and as a number."""
    text = str(value)
    keys = [text, text.lower(), level_text(value)]
    with suppress(ValueError):
        keys.append(repr(float(text)))
    return keys


def _place(name: str, places: dict[str, int], value: Any) -> int:
    for key in _keys(value):
        if key in places:
            return places[key]
    raise ValueError(f"trials: got {name} {value!r}, expected a choice of the space")
