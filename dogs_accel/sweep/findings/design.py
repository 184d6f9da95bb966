"""Whether the trials of a sweep can tell the levels of its parameters apart: confounding, and effects adjusted for it.

A level is confounded with a level of another parameter where at least 75 % of its trials have that one too, and the
share is higher by at least 0.4 than among the trials without it (the risk difference of the 2 x 2 table, whose
Cramer's V is given beside it: Cramer, "Mathematical Methods of Statistics", 1946, chapter 21). So seven of nine trials
with batch normalisation against three of eleven are confounded with it; seven of nine against eight of eleven are not.
It is confounded with the other parameters together where they all but decide it: where it is aliased with them, so
that no regression can tell them apart, or its variance inflation factor is at least 5 (Fox and Monette, "Generalized
Collinearity Diagnostics", JASA 87, 1992).

The effect of a level is the mean of its trials less the mean of all others. The adjusted effect is the same contrast of
a least squares fit in which the effects of all parameters add up. In a balanced design the two are equal. Where the
sign of the two differs, though the first is larger than its noise, the level is confounded as well (Simpson's paradox).

A p value is the share of permutations of the values among the trials whose studentised contrast is as large: exact
where no parameter has an effect, whatever the distribution of the values (Fisher, "The Design of Experiments", 1935).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from dogs_accel.evaluation.intervals import LEVEL, Interval
from dogs_accel.sweep.findings.trials import ParameterLevels

NEARLY_ALWAYS = 0.75
"""Share of a level's trials that have one level of another parameter, from which on the two may be confounded."""
MUCH_MORE_OFTEN = 0.4
"""By how much that share must be above the share among the other trials."""
MOST_INFLATION = 5.0
"""Variance inflation factor from which on the other parameters all but decide a level."""
FEWEST_FREE = 3
"""Degrees of freedom that a fit must leave for its noise."""
NUM_PERMUTATIONS = 5_000
_ROUNDING = 1e-8


@dataclass(frozen=True, kw_only=True, slots=True)
class CameWith:
    """A level of another parameter that came with a level, in counts of trials."""

    other: str
    """Such as batch_norm=true."""
    together: int
    num: int
    """Trials of the level."""
    elsewhere: int
    num_elsewhere: int
    """Trials without the level, and how many of them have the other one."""

    @property
    def cramers_v(self) -> float:
        """Cramer's V of the 2 x 2 table: the absolute correlation of the two indicators, 0 where one does not vary."""
        total = self.together + self.elsewhere, self.num + self.num_elsewhere - self.together - self.elsewhere
        odd = self.together * (self.num_elsewhere - self.elsewhere) - self.elsewhere * (self.num - self.together)
        return abs(odd) / math.sqrt(self.num * self.num_elsewhere * total[0] * total[1]) if all(total) else 0.0

    @property
    def is_confounding(self) -> bool:
        """Whether the two nearly always came together, and much more often than without the level."""
        share, other_share = self.together / self.num, self.elsewhere / max(self.num_elsewhere, 1)
        return share >= NEARLY_ALWAYS and share - other_share >= MUCH_MORE_OFTEN

    def __str__(self) -> str:
        how_many = f"all {self.num}" if self.together == self.num else f"{self.together} of the {self.num}"
        return f"{how_many} had {self.other} ({self.elsewhere} of the other {self.num_elsewhere})"


def most_confounding(levels: Sequence[ParameterLevels], at: int, level: int) -> CameWith | None:
    """Find the level of another parameter with which a level came most often beyond its share elsewhere.

    None where no trial has the level or each has it, or where there is no other parameter. Those that are confounding
    come before others.
    """
    has = levels[at].has(level)
    num, num_elsewhere = int(has.sum()), int((~has).sum())
    if not (num and num_elsewhere):
        return None
    found = []
    for place, other in enumerate(levels):
        if place == at:
            continue
        counts = [np.bincount(other.index[rows] + 1, minlength=len(other.labels) + 1)[1:] for rows in (has, ~has)]
        found += [
            CameWith(
                other=other.named(each), together=int(together), num=num, elsewhere=int(elsewhere),
                num_elsewhere=num_elsewhere,
            )
            for each, (together, elsewhere) in enumerate(zip(*counts, strict=True))
        ]  # fmt: skip
    if not found:
        return None
    return max(found, key=lambda each: (each.is_confounding, each.together / num - each.elsewhere / num_elsewhere))


@dataclass(frozen=True, kw_only=True, eq=False)
class AdjustedEffects:
    """The contrasts of all levels in one fit: each level less the mean of all other trials of its parameter."""

    names: list[tuple[int, int]]
    """(L,) the parameter and the level of each contrast, by their places."""
    estimate: NDArray[np.float64]
    """(L,) NaN where the design cannot tell."""
    half_width: NDArray[np.float64]
    """(L,) half of the 95 % interval by Student's t."""
    inflation: NDArray[np.float64]
    """(L,) variance inflation factors; infinite where a level is aliased with others."""
    p_value: NDArray[np.float64]
    """(L,) of the permutations."""
    num_free: int
    """Degrees of freedom of the noise."""

    def interval(self, at: int) -> Interval | None:
        """Return the 95 % interval of a contrast; None where there is none."""
        if not np.isfinite(self.half_width[at]):
            return None
        return Interval(float(self.estimate[at] - self.half_width[at]), float(self.estimate[at] + self.half_width[at]))


def adjusted_effects(
    levels: Sequence[ParameterLevels], values: NDArray[np.float64], num_permutations: int = NUM_PERMUTATIONS
) -> AdjustedEffects:
    """Fit values (N,) by the levels of all parameters at once, and contrast each level with the rest of its parameter.

    A level that no trial has, or that each has, has no contrast. Where fewer than three degrees of freedom are left for
    the noise, no contrast has an estimate.
    """
    design, contrasts, names = _design(levels)
    num = len(values)
    inverse: NDArray[np.float64] = np.linalg.pinv(design, rcond=1e-10).astype(np.float64)
    rank = int(np.linalg.matrix_rank(design)) if num else 0
    num_free, num_contrasts = num - rank, len(names)
    if num_free < FEWEST_FREE or not num_contrasts or np.ptp(values) <= _ROUNDING:
        nothing = np.full(num_contrasts, np.nan)
        return AdjustedEffects(
            names=names, estimate=nothing, half_width=nothing, inflation=nothing, p_value=nothing, num_free=num_free
        )
    can_tell = np.abs(contrasts @ (inverse @ design) - contrasts).max(axis=1) < 1e-6
    weights = contrasts @ inverse  # (L, N): what each value counts in a contrast
    variance = np.square(weights).sum(axis=1)
    estimate, spread = _fit(design, inverse, weights, num_free, values[:, None])
    studentised = np.abs(estimate / spread)[:, 0]
    order = np.random.default_rng(0).random((num, num_permutations)).argsort(axis=0)
    permuted = np.abs(np.divide(*_fit(design, inverse, weights, num_free, values[order])))
    p_value = (1 + (permuted >= studentised[:, None] - _ROUNDING).sum(axis=1)) / (1 + num_permutations)
    alone = np.array([1 / levels[at].has(level).sum() + 1 / (~levels[at].has(level)).sum() for at, level in names])
    half = float(stdtrit(num_free, 0.5 + LEVEL / 2)) * spread[:, 0]
    return AdjustedEffects(
        names=names,
        estimate=np.where(can_tell, estimate[:, 0], np.nan),
        half_width=np.where(can_tell, half, np.nan),
        inflation=np.where(can_tell, variance / alone, np.inf),
        p_value=np.where(can_tell, p_value, np.nan),
        num_free=num_free,
    )


def _design(
    levels: Sequence[ParameterLevels],
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[tuple[int, int]]]:
    """The columns of a fit (N, K), the contrasts of the levels (L, K), and which levels those are."""
    num = len(levels[0].index) if levels else 0
    places = [
        (at, level) for at, each in enumerate(levels) for level in range(len(each.labels)) if each.has(level).any()
    ]
    # Every level has a column, so that the columns of a parameter add up to the first one: the pseudo-inverse copes.
    columns = [np.ones(num), *(levels[at].has(level).astype(np.float64) for at, level in places)]
    contrasts, names = [], []
    for column, (at, level) in enumerate(places, start=1):
        has = levels[at].has(level)
        if has.all():
            continue
        contrast = np.zeros(1 + len(places))
        for other, (other_at, other_level) in enumerate(places, start=1):
            if other_at == at:
                contrast[other] = -levels[at].has(other_level).sum() / (~has).sum()
        contrast[column] = 1.0
        contrasts.append(contrast)
        names.append((at, level))
    return np.stack(columns, axis=1), np.array(contrasts).reshape(len(names), 1 + len(places)), names


def _fit(
    design: NDArray[np.float64],
    inverse: NDArray[np.float64],
    weights: NDArray[np.float64],
    num_free: int,
    values: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Contrasts (L, P) and their standard errors of P columns of values (N, P)."""
    noise = np.square(values - design @ (inverse @ values)).sum(axis=0) / num_free
    spread = np.sqrt(np.square(weights).sum(axis=1)[:, None] * np.maximum(noise, 1e-24))
    return weights @ values, spread
