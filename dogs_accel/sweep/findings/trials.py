"""The trials of a sweep as its findings read them: what each had, how it ended, and the levels of every parameter.

A parameter that is a choice has its choices as levels. A range is cut into three levels of equal width on its own
scale, which is logarithmic where the range is; one of few values, an integer range or one with a step, has each value
as a level. The cuts follow from the space alone, so that they do not depend on what came out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dogs_accel.sweep.space import Parameter, Space, value_text
from dogs_accel.sweep.trials import COMPLETE, PRUNED, TRIAL_COLUMNS

_BINS = 3
_MOST_VALUES = 6
"""Values of an integer range, or of one with a step, that are levels each."""
_LARGEST = 1e15
"""Up to it a number is written without an exponent."""
_ABSENT = -1


def level_text(value: Any, *, is_choice: bool = False) -> str:
    """Write a value of a parameter for people: a choice in full, a number of a range in 3 digits, large ones without e.

    Example:
        >>> level_text(0.12345), level_text(0.12345, is_choice=True), level_text(912345.6), level_text(True)
        ('0.123', '0.12345', '912000', 'true')
    """
    if not isinstance(value, float):
        return value_text(value)
    text = value_text(value) if is_choice else f"{value:.3g}"
    rounded = float(text)
    return f"{rounded:.0f}" if rounded.is_integer() and abs(rounded) < _LARGEST else text


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

    space: Space
    table: pd.DataFrame
    """trials.csv: a row a trial."""
    sampler: str = "random"
    """bayes, random or grid."""

    def __post_init__(self) -> None:
        if missing := [name for name in (*TRIAL_COLUMNS, *self.space.names) if name not in self.table]:
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
        columns = [self.table[name].tolist() for name in (*(each.name for each in self.space.parameters), "seed")]
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

    @property
    def num_pruned(self) -> int:
        """How many trials were given up by their validation accuracy."""
        return int(np.sum(self.states == PRUNED))

    @cached_property
    def levels(self) -> list[ParameterLevels]:
        """The levels of each parameter, over all trials."""
        return [levels_of(parameter, self.table[parameter.name]) for parameter in self.space.parameters]

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

    column: values as `sweep.trials.read_trials` gives them, None where a trial has none. Raises ValueError for a value
    that is none of the choices of a parameter.
    """
    if parameter.kind == "choice":
        labels = tuple(level_text(choice, is_choice=True) for choice in parameter.choices)
        found = [_place(parameter, value) for value in column]
        return ParameterLevels(parameter.name, labels, np.array(found, dtype=np.int64))
    numbers = pd.to_numeric(column).to_numpy(dtype=np.float64)
    if values := _few_values(parameter):
        labels = tuple(map(level_text, values))
        # The nearest one: a sum of steps may be off in its last digit.
        index = np.abs(numbers[:, None] - np.array(values, dtype=np.float64)).argmin(axis=1).astype(np.float64)
    else:
        edges = _edges(parameter)
        labels = tuple(f"{level_text(low)} to {level_text(high)}" for low, high in itertools.pairwise(edges))
        index = np.searchsorted(edges[1:-1], numbers, side="right").astype(np.float64)
    index = np.where(np.isnan(numbers), _ABSENT, index)
    return ParameterLevels(parameter.name, labels, index.astype(np.int64))


def _few_values(parameter: Parameter) -> Sequence[Any]:
    """The values of a range that has few, else none."""
    low, high = _ends(parameter)
    step = parameter.step if parameter.step is not None or parameter.kind == "float" else 1
    if step is None or (high - low) / step >= _MOST_VALUES:
        return ()
    values = parameter.values or ()
    return values if len({level_text(value) for value in values}) == len(values) else ()


def position_of(parameter: Parameter, column: pd.Series) -> NDArray[np.float64]:
    """Place the values of a range on its own scale: 0 its low end, 1 its high end; NaN where there is none."""
    numbers = pd.to_numeric(column).to_numpy(dtype=np.float64)
    low, high = _ends(parameter)
    if parameter.log:
        numbers, low, high = np.log(numbers), math.log(low), math.log(high)
    return (numbers - low) / (high - low if high > low else 1.0)


def _edges(parameter: Parameter) -> list[float]:
    low, high = _ends(parameter)
    scale = np.geomspace if parameter.log else np.linspace
    return [float(edge) for edge in scale(low, high, _BINS + 1)]


def _ends(parameter: Parameter) -> tuple[float, float]:
    """The ends of a range."""
    assert parameter.low is not None
    assert parameter.high is not None
    return float(parameter.low), float(parameter.high)


def _place(parameter: Parameter, value: Any) -> int:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return _ABSENT
    text, choices = value_text(value), list(map(value_text, parameter.choices))
    if text not in choices:
        raise ValueError(f"{parameter.name}: got {text!r}, expected one of {', '.join(choices)}")
    return choices.index(text)
