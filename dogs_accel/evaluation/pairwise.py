"""Whether one run is better than another, on the same test images: in numbers, and in words that they support.

Two runs are paired: both are scored on the same resamples of the module `intervals`, and McNemar's exact test looks
at the images that one of them alone has right. With several pairs some would differ by chance, so the words, not the
intervals, are corrected for their number: McNemar's p values by Holm's method, the other scores by an interval of
level 1 - 0.05 / pairs.

Of few images an interval of resamples is too narrow, so that it alone shows no difference. If two runs are equally
good, each image on which they differ is as likely to speak for one as for the other, so that no test can have a p value
below that of all of them speaking for the same one, 2^(1 - images). Where this is above 0.05 / pairs, which with one
pair are five images or fewer, no difference is shown; nor is one where resampling has nothing to vary, so that there is
no interval, but for accuracy by McNemar's test.

The calibration error's difference is not taken from paired resamples: they are biased as those of the error itself,
and their percentiles held the true difference in as few as 17 of 100 simulated sets. It comes from the two errors' own
intervals by the square-and-add method (MOVER: Zou and Donner, "Construction of confidence limits about effect measures:
a general approach", Statistics in Medicine 27, 2008), and ignores that the images are the same, which makes it wide
rather than narrow.

With several seeds of each configuration the means over the seeds are compared. Then two things vary: the images, for
which the resamples of the means stand, and what the seed decides, for which the differences of the runs of one seed
stand, by Student's t. The interval adds the two by the same method. McNemar's test knows only the first, so it is left
out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dogs_accel.evaluation.intervals import (
    LEVEL,
    Interval,
    ResampledScores,
    bootstrap_scores,
    calibration_error_range,
    percentile_interval,
    t_half_width,
    varies,
)
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.evaluation.significance import McNemar, holm, mcnemar

METRICS = ("accuracy", "macro_f1", "ece")
SMALLER_IS_BETTER = frozenset({"ece"})
NO_DIFFERENCE = "no difference shown"
COLUMNS = (
    "run_a", "run_b", "metric", "a", "b", "difference", "low", "high", "only_a_right", "only_b_right", "mcnemar_p",
    "mcnemar_p_holm", "verdict", "reason",
)  # fmt: skip
SEED_COLUMNS = ("num_seeds", "seeds_low", "seeds_high")
"""Added where a configuration ran with several seeds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparedRun:
    """What a comparison needs of a run: its scores, resampled, and which test images it has right."""

    name: str
    configuration: str
    """Name that runs with other seeds share."""
    seed: int
    ids: NDArray[np.str_]
    """(N,), in their own order."""
    labels: NDArray[np.int64]
    """(N,)"""
    predicted: NDArray[np.int64]
    """(N,)"""
    right: NDArray[np.bool_]
    """(N,)"""
    scores: ResampledScores


def compared_run(name: str, configuration: str, seed: int, test: Predictions) -> ComparedRun:
    """Score and resample a run's test split; seed is what the run was trained with."""
    order = np.argsort(test.ids)
    labels, predicted = test.labels[order], test.predicted[order]
    return ComparedRun(
        name=name,
        configuration=configuration,
        seed=seed,
        ids=test.ids[order],
        labels=labels,
        predicted=predicted,
        right=predicted == labels,
        scores=bootstrap_scores(test.logits[order], labels),
    )


def check_same_images(a: ComparedRun, b: ComparedRun) -> None:
    """Raise ValueError unless two runs were tested on the same images with the same labels."""
    if not np.array_equal(a.ids, b.ids):
        common = len(np.intersect1d(a.ids, b.ids))
        raise ValueError(
            f"{b.name}: tested on other images than {a.name} ({len(b.ids)} and {len(a.ids)}, {common} in common), "
            f"expected the same"
        )
    if not np.array_equal(a.labels, b.labels):
        first = int(np.flatnonzero(a.labels != b.labels)[0])
        raise ValueError(
            f"{b.name}: label of {b.ids[first]} is {b.labels[first]}, expected {a.labels[first]} as {a.name} has"
        )


@dataclass(frozen=True, eq=False)
class Pair:
    """Two configurations, and the runs of each that are compared; runs at the same place belong together."""

    runs_a: list[ComparedRun]
    runs_b: list[ComparedRun]

    @property
    def names(self) -> tuple[str, str]:
        """The names of the runs, or of the configurations if there are several of each."""
        if len(self.runs_a) > 1:
            return self.runs_a[0].configuration, self.runs_b[0].configuration
        return self.runs_a[0].name, self.runs_b[0].name

    def seed_differences(self, metric: str) -> NDArray[np.float64]:
        """(S,) b - a of each two runs that belong together."""
        together = zip(self.runs_a, self.runs_b, strict=True)
        return np.array([b.scores.estimate[metric] - a.scores.estimate[metric] for a, b in together])

    def difference(self, metric: str) -> float:
        """Mean of b less mean of a."""
        return float(self.seed_differences(metric).mean())

    def interval(self, metric: str, level: float = LEVEL) -> Interval | None:
        """Interval of the difference, over images and, with several seeds, over seeds too.

        None where resampling has nothing to vary: there is no interval over images then.
        """
        difference = self.difference(metric)
        if metric in SMALLER_IS_BETTER:
            if not all(run.scores.gaps[metric].vary for run in (*self.runs_a, *self.runs_b)):
                return None
            images = _interval_of_error_difference(self, metric, level)
        else:
            resampled = _mean(self.runs_b, metric) - _mean(self.runs_a, metric)
            if not varies(resampled):
                return None
            images = percentile_interval(resampled, level)
        images = images.including(difference)
        half = self.seeds_half_width(metric, level) if len(self.runs_a) > 1 else 0.0
        low, high = difference - images.low, images.high - difference
        return _possible(difference - math.hypot(low, half), difference + math.hypot(high, half))

    def num_differing(self, metric: str) -> int:
        """Count the images that can speak for one of the two: all of them in a calibration error."""
        if metric in SMALLER_IS_BETTER:
            return len(self.runs_a[0].ids)
        together = zip(self.runs_a, self.runs_b, strict=True)
        return int(np.any([a.predicted != b.predicted for a, b in together], axis=0).sum())

    def is_shown(self, metric: str, num_pairs: int) -> bool:
        """Whether the interval of a level corrected for a number of pairs shows a difference, if images can."""
        share = (1 - LEVEL) / num_pairs
        interval = self.interval(metric, 1 - share)
        if interval is None or 2.0 ** (1 - self.num_differing(metric)) > share:
            return False
        return interval.low > 0 or interval.high < 0

    def why_no_interval(self) -> str:
        """Say why a difference may have no interval: both have the same test images."""
        return self.runs_a[0].scores.why_nothing_varies()

    def seeds_half_width(self, metric: str, level: float = LEVEL) -> float:
        """Half the t interval of the mean over the seeds' differences, of 2 at least."""
        return t_half_width(self.seed_differences(metric), level)

    def mcnemar(self) -> McNemar | None:
        """The test of two runs; None if there are several of each."""
        return mcnemar(self.runs_a[0].right, self.runs_b[0].right) if len(self.runs_a) == 1 else None


def _possible(low: float, high: float) -> Interval:
    """The part of an interval that a difference can have: all METRICS are of 0 to 1."""
    return Interval(max(low, -1.0), min(high, 1.0))


def _mean(runs: Sequence[ComparedRun], metric: str) -> NDArray[np.float64]:
    """(R,) of each resample, the mean over runs."""
    return np.mean([run.scores.resampled[metric] for run in runs], axis=0)


def _interval_of_error_difference(pair: Pair, metric: str, level: float) -> Interval:
    # The ends of a mean over seeds are taken for the means of the ends: right if all seeds err together, else wide.
    low_a, middle_a, high_a = _mean_range(pair.runs_a, metric, level)
    low_b, middle_b, high_b = _mean_range(pair.runs_b, metric, level)
    return Interval(
        middle_b - middle_a - math.hypot(middle_b - low_b, high_a - middle_a),
        middle_b - middle_a + math.hypot(high_b - middle_b, middle_a - low_a),
    )


def _mean_range(runs: Sequence[ComparedRun], metric: str, level: float) -> list[float]:
    ranges = [_error_range(run, metric, level) for run in runs]
    return [float(value) for value in np.mean(ranges, axis=0)]


@functools.lru_cache(maxsize=1024)
def _error_range(run: ComparedRun, metric: str, level: float) -> tuple[float, float, float]:
    # A run is in many pairs.
    return calibration_error_range(run.scores.gaps[metric], level)


def make_pairs(runs: Sequence[ComparedRun]) -> list[Pair]:
    """Pair the configurations in the order in which they first come, each with every later one.

    Of two configurations the runs of the seeds that both have are compared; if they share none, run by run in the order
    of their seeds.
    """
    by_configuration: dict[str, dict[int, ComparedRun]] = {}
    for run in runs:
        by_configuration.setdefault(run.configuration, {})[run.seed] = run
    pairs = []
    for a, b in combinations(by_configuration.values(), 2):
        shared = sorted(a.keys() & b.keys())
        seeds = zip(shared, shared, strict=True) if shared else zip(sorted(a), sorted(b), strict=False)
        together = [(a[seed_a], b[seed_b]) for seed_a, seed_b in seeds]
        pairs.append(Pair([one for one, _ in together], [other for _, other in together]))
    return pairs


def compare_runs(runs: Sequence[ComparedRun]) -> pd.DataFrame:
    """Compare every two runs, or configurations where there are several seeds, in accuracy, macro F1 and ECE.

    Columns: COLUMNS, and SEED_COLUMNS if a configuration has several seeds: the t interval over the seeds alone, which
    takes the test images as given. The difference is b - a and low, high are its 95 % interval; reason says why there
    is none. The counts and p values are in rows of accuracy that compare single runs. Raises ValueError as
    `check_same_images` does.
    """
    for run in runs[1:]:
        check_same_images(runs[0], run)
    pairs = make_pairs(runs)
    tests = [pair.mcnemar() for pair in pairs]
    adjusted = iter(holm([test.p_value for test in tests if test is not None]))
    rows = []
    for pair, test in zip(pairs, tests, strict=True):
        p_holm = next(adjusted) if test is not None else math.nan
        for metric in METRICS:
            rows.append(_row(pair, metric, len(pairs), (test, p_holm) if test and metric == "accuracy" else None))
    columns = [*COLUMNS, *SEED_COLUMNS] if any(len(pair.runs_a) > 1 for pair in pairs) else [*COLUMNS]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({"only_a_right": "Int64", "only_b_right": "Int64"})


def _row(pair: Pair, metric: str, num_pairs: int, tested: tuple[McNemar, float] | None) -> dict[str, object]:
    interval, difference = pair.interval(metric), pair.difference(metric)
    shown = tested[1] < 1 - LEVEL if tested is not None else pair.is_shown(metric, num_pairs)
    name_a, name_b = pair.names
    row: dict[str, object] = {
        "run_a": name_a,
        "run_b": name_b,
        "metric": metric,
        "a": float(np.mean([run.scores.estimate[metric] for run in pair.runs_a])),
        "b": float(np.mean([run.scores.estimate[metric] for run in pair.runs_b])),
        "difference": difference,
        "low": math.nan if interval is None else interval.low,
        "high": math.nan if interval is None else interval.high,
        "verdict": difference_verdict(metric, interval or Interval(difference, difference), shown),
        "reason": pair.why_no_interval() if interval is None else None,
        "num_seeds": len(pair.runs_a),
    }
    if tested is not None:
        test, p_holm = tested
        row |= {"only_a_right": test.only_a_right, "only_b_right": test.only_b_right, "mcnemar_p": test.p_value,
                "mcnemar_p_holm": p_holm}  # fmt: skip
    if len(pair.runs_a) > 1:
        half = pair.seeds_half_width(metric)
        seeds = _possible(difference - half, difference + half)
        row |= {"seeds_low": seeds.low, "seeds_high": seeds.high}
    return row


def difference_verdict(metric: str, interval: Interval, shown: bool) -> str:
    """Say which is better where a difference is shown and its interval is on one side of 0."""
    if not shown or interval.low <= 0 <= interval.high:
        return NO_DIFFERENCE
    b_is_better = (interval.low > 0) != (metric in SMALLER_IS_BETTER)
    return "b is better" if b_is_better else "a is better"


def describe_difference(row: pd.Series) -> str:
    """Say a row of `compare_runs` in one line, b against a."""
    interval = "no interval" if math.isnan(row.low) else f"{row.low:.3f} to {row.high:.3f}"
    numbers = f"{row.difference:+.3f} ({interval})"
    test = ""
    if not math.isnan(row.mcnemar_p):
        test = f", McNemar p {'< 0.001' if row.mcnemar_p_holm < 0.001 else f'= {row.mcnemar_p_holm:.3f}'}"
    shown = f", {NO_DIFFERENCE}" if row.verdict == NO_DIFFERENCE else ""
    return f"{row.run_b} against {row.run_a}: {numbers}{test}{shown}"
