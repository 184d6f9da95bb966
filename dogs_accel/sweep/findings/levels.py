"""Every level of every parameter: how many trials saw it, what they reached, and what follows of it.

Something follows of a level only if at least three complete trials had it and three had not, if it is not confounded
with the level of another parameter (`findings.design` has the rules), and if its effect, adjusted for all other
parameters, has an interval on one side of 0 and a p value below 0.05 by Holm's method over all levels that could be
tested. A parameter of two levels is one test, and where one of them is confounded the other one is.

The trials of a sampler that looks at earlier values are no random sample, for which the p values stand. Of accuracies
that were noise alone, 30 trials of TPE over a space of 960 points, something was shown in 5 of 300 sweeps; in 146 of
them the interval of some level's difference, not adjusted or corrected, excluded 0 (tests/soak/test_noise.py).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from dogs_accel.evaluation.intervals import LEVEL, Interval, t_half_width, varies
from dogs_accel.evaluation.significance import holm
from dogs_accel.sweep.findings.design import (
    FEWEST_FREE,
    MOST_INFLATION,
    NUM_PERMUTATIONS,
    AdjustedEffects,
    CameWith,
    adjusted_effects,
    most_confounding,
)
from dogs_accel.sweep.findings.trials import SweepTrials
from dogs_accel.sweep.trials import FAILED, PRUNED

FEWEST_TRIALS = 3
"""Complete trials with a level, and without it, below which nothing follows."""
HIGHER, LOWER, NOT_SHOWN, NOTHING_FOLLOWS = "higher", "lower", "no difference shown", "nothing follows"
"""What is said of a level, against the other levels of its parameter."""


@dataclass(frozen=True, kw_only=True)
class LevelFinding:
    """What the trials say of one level of a parameter. Shares are of validation images."""

    parameter: str
    level: str
    num_trials: int
    """Trials that had it, however they ended."""
    num_complete: int
    """Those that count: complete, and no repeat of another."""
    num_pruned: int
    num_failed: int
    num_others: int
    """Trials that count and had another level."""
    best: float
    """Highest value of those that count; NaN where there are none, as below."""
    mean: float
    low: float
    high: float
    """95 % interval of the mean by Student's t, which is within 0 and 1."""
    difference: float
    """Mean less the mean of the others."""
    difference_low: float
    difference_high: float
    """95 % interval by Welch's t."""
    adjusted: float
    """The same difference, adjusted for the other parameters."""
    adjusted_low: float
    adjusted_high: float
    inflation: float
    """Variance inflation factor of the adjusted difference."""
    came_with: str
    """The level of another parameter that came with it most, such as batch_norm=true."""
    together: int
    """How many of those that count had both."""
    cramers_v: float
    confounded: str
    """With what it is confounded, in words; empty where it is not."""
    p_value: float
    p_holm: float
    verdict: str
    reason: str
    """Why nothing follows; empty where something does."""

    @property
    def name(self) -> str:
        """The level with its parameter, as in batch_norm=true."""
        return f"{self.parameter}={self.level}"


def find_levels(trials: SweepTrials, num_permutations: int = NUM_PERMUTATIONS) -> list[LevelFinding]:
    """Say of every level of every parameter what the trials of a sweep show."""
    effects = adjusted_effects(trials.counted_levels, trials.values, num_permutations)
    places = {name: place for place, name in enumerate(effects.names)}
    found = [
        _describe(trials, at, level, effects, places.get((at, level)))
        for at, each in enumerate(trials.levels)
        for level in range(len(each.labels))
    ]
    return _judged(_confounded_alike(found))


def level_table(found: list[LevelFinding]) -> pd.DataFrame:
    """Lay out levels.csv: a row a level, the fields of `LevelFinding` as columns."""
    return pd.DataFrame([dataclasses.asdict(each) for each in found])


def _describe(trials: SweepTrials, at: int, level: int, effects: AdjustedEffects, place: int | None) -> LevelFinding:
    every, counted = trials.levels[at], trials.counted_levels[at]
    states = trials.states[every.has(level)]
    has = counted.has(level)
    values, others = trials.values[has], trials.values[~has]
    mean, low, high = _mean(values)
    difference, difference_low, difference_high = _welch(values, others)
    interval = None if place is None else effects.interval(place)
    came_with = most_confounding(trials.counted_levels, at, level)
    adjusted = math.nan if place is None else float(effects.estimate[place])
    inflation = math.nan if place is None else float(effects.inflation[place])
    confounded = _confounded(came_with, inflation, (difference, difference_low, difference_high), adjusted)
    reason = _why_nothing(
        len(values), len(others), confounded, effects.num_free, np.ptp(trials.values) if len(trials.values) else 0.0
    )
    return LevelFinding(
        parameter=counted.name,
        level=counted.labels[level],
        num_trials=len(states),
        num_complete=len(values),
        num_pruned=int((states == PRUNED).sum()),
        num_failed=int((states == FAILED).sum()),
        num_others=len(others),
        best=float(values.max()) if len(values) else math.nan,
        mean=mean,
        low=low,
        high=high,
        difference=difference,
        difference_low=difference_low,
        difference_high=difference_high,
        adjusted=adjusted,
        adjusted_low=math.nan if interval is None else interval.low,
        adjusted_high=math.nan if interval is None else interval.high,
        inflation=inflation,
        came_with="" if came_with is None else came_with.other,
        together=0 if came_with is None else came_with.together,
        cramers_v=math.nan if came_with is None else came_with.cramers_v,
        confounded=confounded,
        p_value=math.nan if place is None else float(effects.p_value[place]),
        p_holm=math.nan,
        verdict=NOTHING_FOLLOWS if reason else NOT_SHOWN,
        reason=reason,
    )


def _mean(values: NDArray[np.float64]) -> tuple[float, float, float]:
    if not len(values):
        return math.nan, math.nan, math.nan
    mean = float(values.mean())
    if len(values) < 2 or not varies(values):
        return mean, math.nan, math.nan
    half = t_half_width(values)
    return mean, max(mean - half, 0.0), min(mean + half, 1.0)


def _welch(values: NDArray[np.float64], others: NDArray[np.float64]) -> tuple[float, float, float]:
    """The difference of two means and its 95 % interval; Welch, "The Generalization of 'Student's' Problem", 1947."""
    if not (len(values) and len(others)):
        return math.nan, math.nan, math.nan
    difference = float(values.mean() - others.mean())
    if min(len(values), len(others)) < 2:
        return difference, math.nan, math.nan
    parts = [each.var(ddof=1) / len(each) for each in (values, others)]
    variance = sum(parts)
    if variance <= 1e-20:
        return difference, math.nan, math.nan
    squares = sum(part**2 / (len(each) - 1) for part, each in zip(parts, (values, others), strict=True))
    half = float(stdtrit(variance**2 / squares, 0.5 + LEVEL / 2) * math.sqrt(variance))
    return difference, difference - half, difference + half


def _confounded(
    came_with: CameWith | None, inflation: float, difference: tuple[float, float, float], adjusted: float
) -> str:
    if came_with is not None and came_with.is_confounding:
        return str(came_with)
    if math.isinf(inflation):
        return "the other parameters decide where it was tried"
    if inflation >= MOST_INFLATION:
        return f"the other parameters all but decide where it was tried (variance inflation {inflation:.1f})"
    middle, low, high = difference
    if (low > 0 or high < 0) and middle * adjusted < 0:
        return f"the difference is {middle:+.3f} as it stands and {adjusted:+.3f} with the other parameters held equal"
    return ""


def _why_nothing(num: int, num_others: int, confounded: str, num_free: int, spread: float) -> str:
    if num < FEWEST_TRIALS:
        return ("no complete trial had it", "one complete trial had it", "two complete trials had it")[num]
    if num_others < FEWEST_TRIALS:
        return (
            "every complete trial had it",
            "one complete trial alone had another level",
            "two complete trials alone had another level",
        )[num_others]
    if confounded:
        return confounded
    if spread <= 1e-8:
        return "all trials have the same value"
    if num_free < FEWEST_FREE:
        return f"{num + num_others} trials are too few to hold the other parameters equal"
    return ""


def _confounded_alike(found: list[LevelFinding]) -> list[LevelFinding]:
    """Let a level be confounded where the one other level of its parameter is: the two are one contrast.

    By the shares of its own trials the other one may just not be.
    """
    alike = list(found)
    by_parameter: dict[str, list[int]] = {}
    for place, each in enumerate(found):
        if each.num_complete:
            by_parameter.setdefault(each.parameter, []).append(place)
    for places in by_parameter.values():
        confounded = [place for place in places if found[place].confounded]
        if len(places) == 2 and len(confounded) == 1:
            [one] = confounded
            [other] = set(places) - {one}
            text = f"of {found[one].level} {found[one].confounded}"
            alike[other] = dataclasses.replace(
                found[other], confounded=text, reason=found[other].reason or text, verdict=NOTHING_FOLLOWS
            )
    return alike


def _judged(found: list[LevelFinding]) -> list[LevelFinding]:
    """Correct the p values of what can be tested for their number, and say which differences are shown."""
    testable = [place for place, each in enumerate(found) if not each.reason and math.isfinite(each.p_value)]
    by_test: dict[tuple[str, ...], list[int]] = {}
    for place in testable:
        parameter = found[place].parameter
        seen = [each.level for each in found if each.parameter == parameter and each.num_complete]
        # With two levels the second difference is the first one with another sign.
        by_test.setdefault((parameter,) if len(seen) == 2 else (parameter, found[place].level), []).append(place)
    adjusted = holm([found[places[0]].p_value for places in by_test.values()])
    judged = list(found)
    for p_holm, places in zip(adjusted, by_test.values(), strict=True):
        for place in places:
            judged[place] = dataclasses.replace(found[place], p_holm=p_holm, verdict=_verdict(found[place], p_holm))
    return judged


def _verdict(found: LevelFinding, p_holm: float) -> str:
    interval = Interval(found.adjusted_low, found.adjusted_high)
    if p_holm >= 1 - LEVEL or not (interval.low > 0 or interval.high < 0):
        return NOT_SHOWN
    return HIGHER if interval.low > 0 else LOWER
