"""Which parameters go with the accuracy: fANOVA's importance and correlations, each with what noise does to it.

Importance is the share of the variance that a random forest over the trials gives to each parameter by itself (Hutter,
Hoos and Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance", ICML 2014), by Optuna, whose
shares add up to 1 whatever the values are. So it has two companions: its range over forests of resampled trials, and
the highest share that each parameter gets where the values are shuffled among the trials, which is of noise alone. A
parameter stands out where even the lowest of its range is above that.

A correlation is Spearman's for a range, and of a level of a choice the point-biserial one: Pearson's of whether a trial
has the level. Its interval is the percentile one over resampled trials.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from dogs_accel.evaluation.intervals import NUM_RESAMPLES, percentile_interval
from dogs_accel.sweep.findings.levels import FEWEST_TRIALS
from dogs_accel.sweep.findings.trials import ParameterLevels, SweepTrials, position_of

NUM_FORESTS = 10
"""Of resampled trials, and as many of shuffled values."""
FEWEST_FOR_IMPORTANCE = 8
"""Complete trials below which a forest says nothing."""
_NUM_TREES, _FEW_TREES = 32, 8
"""Of the forest of all trials, and of each of the others, whose spread so holds that of few trees too."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """The importance of one parameter, as a share of that of all."""

    parameter: str
    share: float
    low: float
    high: float
    """Lowest and highest over forests of resampled trials."""
    of_noise: float
    """Highest over forests of shuffled values."""

    @property
    def stands_out(self) -> bool:
        """Whether the whole range is above what noise gives."""
        return self.low > self.of_noise


def find_importance(trials: SweepTrials, num_forests: int = NUM_FORESTS) -> list[Importance]:
    """Give the importance of each parameter, the highest first.

    Empty where fewer than eight trials count, where they all have the same value, or where the space is of one
    parameter, whose share is 1 by definition.
    """
    names = [levels.name for levels in trials.counted_levels if len(np.unique(levels.index)) > 1]
    values = trials.values
    if len(values) < FEWEST_FOR_IMPORTANCE or np.ptp(values) <= 0 or len(names) < 2:
        return []
    columns = _columns(trials, names)
    random = np.random.default_rng(0)
    num_choices = {each.name: len(each.choices) for each in trials.space.parameters if each.kind == "choice"}
    own = _shares(columns, num_choices, values, 0, _NUM_TREES)
    resampled = []
    for seed in range(num_forests):
        rows = _varied_rows(columns, values, random)
        resampled.append(
            _shares({name: column[rows] for name, column in columns.items()}, num_choices, values[rows], seed)
        )
    shuffled = [_shares(columns, num_choices, random.permutation(values), seed) for seed in range(num_forests)]
    found = [
        Importance(
            parameter=name,
            share=own[name],
            low=min(each[name] for each in [own, *resampled]),
            high=max(each[name] for each in [own, *resampled]),
            of_noise=max(each[name] for each in shuffled),
        )
        for name in names
    ]
    return sorted(found, key=lambda each: -each.share)


def _columns(trials: SweepTrials, names: list[str]) -> dict[str, NDArray[np.float64]]:
    """What a forest sees of each parameter: the place of a choice, or the position in a range."""
    columns = {}
    for parameter, levels in zip(trials.space.parameters, trials.counted_levels, strict=True):
        if levels.name in names:
            is_choice = parameter.kind == "choice"
            place = levels.index.astype(np.float64)
            columns[levels.name] = place if is_choice else position_of(parameter, trials.counted[levels.name])
    return columns


def _varied_rows(
    columns: dict[str, NDArray[np.float64]], values: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.int64]:
    """Draw rows with repeats, of which no parameter and not the values are all the same."""
    while True:
        rows = random.integers(0, len(values), len(values))
        if all(np.ptp(column[rows]) > 0 for column in [values, *columns.values()]):
            return rows


def _shares(
    columns: dict[str, NDArray[np.float64]],
    num_choices: Mapping[str, int],
    values: NDArray[np.float64],
    seed: int,
    num_trees: int = _FEW_TREES,
) -> dict[str, float]:
    import optuna  # takes a second, which no other command needs
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    distributions: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(tuple(range(num_choices[name])))
        if name in num_choices
        else FloatDistribution(0, 1)
        for name in columns
    }
    rows = [
        {name: int(value) if name in num_choices else float(value) for name, value in zip(columns, row, strict=True)}
        for row in zip(*columns.values(), strict=True)
    ]
    with _quiet(optuna):
        study = optuna.create_study(direction="maximize")
        study.add_trials(
            [
                optuna.trial.create_trial(params=row, distributions=distributions, value=float(value))
                for row, value in zip(rows, values, strict=True)
            ]
        )
        try:
            shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(n_trees=num_trees, seed=seed))
        except RuntimeError as error:
            if "zero total variance" not in str(error):
                raise
            return dict.fromkeys(columns, 0.0)  # no tree saw the one value that differs
    return {name: float(share) for name, share in shares.items()}


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Leave out that a study in memory was made, which Optuna says of each."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """How a range, or a level of a choice, goes with the accuracy."""

    name: str
    """lr, or activation=mish."""
    kind: str
    """Spearman or point-biserial."""
    value: float
    low: float
    high: float
    """95 % interval over resampled trials; NaN of a level that fewer than three trials have, or have not."""
    num_trials: int
    """Trials that have the level, or all of a range."""


def find_correlations(trials: SweepTrials, num_resamples: int = NUM_RESAMPLES) -> list[Correlation]:
    """Correlate each range and each level with the values of the trials that count; what does not vary has none."""
    values = trials.values
    if len(values) < 3 or np.ptp(values) <= 0:
        return []
    rows = np.random.default_rng(0).integers(0, len(values), (num_resamples, len(values)))
    return [
        _correlation(name, kind, column, values, rows) for name, kind, column in _features(trials) if np.ptp(column) > 0
    ]


def _features(trials: SweepTrials) -> Iterator[tuple[str, str, NDArray[np.float64]]]:
    for parameter, levels in zip(trials.space.parameters, trials.counted_levels, strict=True):
        if parameter.kind == "choice":
            yield from _indicators(levels)
        else:
            column = pd.to_numeric(trials.counted[parameter.name]).to_numpy(dtype=np.float64)
            if np.isfinite(column).all():
                yield parameter.name, "Spearman", column


def _indicators(levels: ParameterLevels) -> Iterator[tuple[str, str, NDArray[np.float64]]]:
    for level in range(len(levels.labels)):
        yield levels.named(level), "point-biserial", levels.has(level).astype(np.float64)


def _correlation(
    name: str, kind: str, column: NDArray[np.float64], values: NDArray[np.float64], rows: NDArray[np.int64]
) -> Correlation:
    drawn, drawn_values = column[rows], values[rows]
    if kind == "Spearman":
        column, values = rankdata(column), rankdata(values)
        drawn, drawn_values = rankdata(drawn, axis=1), rankdata(drawn_values, axis=1)
    resampled = _pearson(drawn, drawn_values)
    num = len(column) if kind == "Spearman" else int(column.sum())
    is_rare = kind != "Spearman" and min(num, len(column) - num) < FEWEST_TRIALS
    interval = None if is_rare else percentile_interval(resampled[np.isfinite(resampled)])
    return Correlation(
        name=name,
        kind=kind,
        value=float(_pearson(column[None], values[None])[0]),
        low=math.nan if interval is None else interval.low,
        high=math.nan if interval is None else interval.high,
        num_trials=num,
    )


def _pearson(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's correlation of the rows of two arrays (R, N); NaN where a row does not vary."""
    one = one - one.mean(axis=1, keepdims=True)
    other = other - other.mean(axis=1, keepdims=True)
    size = np.sqrt(np.square(one).sum(axis=1) * np.square(other).sum(axis=1))
    products = (one * other).sum(axis=1)
    return np.divide(products, size, out=np.full(len(size), np.nan), where=size > 1e-12)
