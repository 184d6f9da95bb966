"""Recommendations that follow from the numbers by stated rules, and that change when the numbers do."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from dogs_accel.evaluation.intervals import mean_interval
from dogs_accel.evaluation.pairwise import NO_DIFFERENCE
from dogs_accel.report.formats import listed
from dogs_accel.results.folder import folder_labels
from dogs_accel.results.reading import missing_columns
from dogs_accel.results.run import Run
from dogs_accel.runtime.timing import describe_seconds


@dataclass(frozen=True)
class Configuration:
    """What may be recommended: a model and a strategy, as a run or as the mean of its seeds."""

    label: str
    runs: tuple[Run, ...]

    @property
    def known_as(self) -> set[str]:
        """Names that a table of pairs may give it: that of the configuration, and that of a single run.

        Each also with the folder, as in a table over several.
        """
        names = {self.runs[0].configuration} | {run.name for run in self.runs if len(self.runs) == 1}
        return names | {over_folders(self.runs[0], name) for name in names}

    def values(self, measure: str) -> list[float]:
        """The measure of each of its runs."""
        return [run.training_seconds if measure == "seconds" else float(run.metrics[measure]) for run in self.runs]

    def mean(self, measure: str) -> float:
        """The measure by which it competes."""
        values = self.values(measure)
        return sum(values) / len(values)


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """One answer to one question."""

    question: str
    rule: str
    winner: str
    reason: str
    ties: tuple[str, ...]
    """Those of which the data do not show that they differ from the winner."""
    caveat: str = ""


def over_folders(run: Run, name: str) -> str:
    """Give a name of a run or its configuration that is none of another folder's."""
    return f"{run.folder.resolve().parents[1]}/{name}"


def configurations(runs: Sequence[Run]) -> list[Configuration]:
    """Gather the runs of each configuration, which differ in their seed alone."""
    groups: dict[tuple[Path, str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.folder.resolve().parents[1], run.model, run.strategy), []).append(run)
    roots = folder_labels(root for root, *_ in groups)
    found = []
    for (root, model, _), group in groups.items():
        label = f"{roots[root]} / " * (len(roots) > 1) + f"{model}, {group[0].schedule}"
        found.append(Configuration(label + f" ({len(group)} seeds)" * (len(group) > 1), tuple(group)))
    return found


def recommend(runs: Sequence[Run], pairwise: pd.DataFrame | None) -> list[Recommendation]:
    """Answer the three questions: best accuracy, best calibrated, best accuracy within a time budget.

    The budget is the (lower) median of the configurations' training times, so that it leaves out the slower half.
    pairwise: pairwise_comparison.csv, or the same over several folders, which says what is a tie; where it lacks
    configurations with several seeds, the t intervals of their means do. A single configuration is not a choice, so
    nothing is recommended.
    """
    every = configurations(runs)
    if len(every) < 2:
        return []
    budget = statistics.median_low(each.mean("seconds") for each in every)
    within = [each for each in every if each.mean("seconds") <= budget]
    rule = (
        f"the highest test accuracy among the faster half, which trains within {describe_seconds(budget)}, the median "
        f"of the {len(every)} training times"
    )
    in_time = _best("Best within the time budget", rule, within, "accuracy", -1, pairwise)
    devices = list(dict.fromkeys(run.record.device_name for run in runs if run.record.device_name))
    if len(devices) > 1:
        said = f"The times are of different hardware: {listed(devices)}."
        in_time = replace(in_time, caveat=f"{in_time.caveat} {said}".strip())
    return [
        _best("Best accuracy", "the highest test accuracy", every, "accuracy", -1, pairwise),
        _best("Best calibrated", "the lowest ECE (10 bins) before temperature scaling", every, "ece", 1, pairwise),
        in_time,
    ]


def _best(
    question: str, rule: str, every: Sequence[Configuration], measure: str, sign: int, pairwise: pd.DataFrame | None
) -> Recommendation:
    best = min(every, key=lambda each: sign * each.mean(measure))
    others = [each for each in every if each is not best]
    shown = {each.label: differs(best, each, measure, pairwise) for each in others}
    unsure = [label for label, verdict in shown.items() if verdict is None]
    ties = [label for label, verdict in shown.items() if verdict is False]
    name = "accuracy" if measure == "accuracy" else "ECE"
    trained = describe_seconds(best.mean("seconds"))
    reason = f"{best.runs[0].strategy}: {name} {best.mean(measure):.4f}, trained in {trained}"
    if len(every) == 1:
        reason += "; the only one within the budget"
    caveat = "" if not unsure else f"Not tested against {listed(unsure)}."
    return Recommendation(
        question=question, rule=rule, winner=best.label, reason=reason, ties=tuple(ties), caveat=caveat
    )


def differs(a: Configuration, b: Configuration, measure: str, pairwise: pd.DataFrame | None) -> bool | None:
    """Whether the data show that two configurations differ in a measure; None where nothing here tests it."""
    verdict = pair_verdict(pairwise, a.known_as, b.known_as, measure)
    if verdict is not None:
        return verdict != NO_DIFFERENCE
    if len(a.runs) > 1 and len(b.runs) > 1:
        (low, high), (other_low, other_high) = (mean_interval(pd.Series(each.values(measure))) for each in (a, b))
        return high < other_low or other_high < low
    return None


def pair_verdict(pairwise: pd.DataFrame | None, names: set[str], others: set[str], measure: str) -> str | None:
    """Return the words of pairwise_comparison.csv on two, each known by one of its names; None where it has none."""
    if missing_columns(pairwise, ["run_a", "run_b", "metric", "verdict"]):
        return None
    assert pairwise is not None
    rows = pairwise[pairwise["metric"] == measure]
    for row in rows.itertuples():
        if (row.run_a in names and row.run_b in others) or (row.run_b in names and row.run_a in others):
            return str(row.verdict)
    return None
