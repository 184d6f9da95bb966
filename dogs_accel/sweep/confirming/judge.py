"""What the retrained candidates of a sweep show: pairs on validation, the one that is chosen, and the words for it.

The candidates are compared as the runs of a benchmark are (`evaluation.pairwise`), on the images of validation in place
of test: the interval of a difference holds what varies with the images and with the seed. They were chosen by the same
images, so that what is luck of these images stays; the seeds are others than that of the sweep, so that what was luck
of its seed does not. The rule is fixed beforehand: the highest mean over the seeds is chosen, of equals the one that
was better in the sweep, and it alone is tested.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from dogs_accel.evaluation.intervals import Interval, percentile_interval, t_half_width, varies
from dogs_accel.evaluation.pairwise import NO_DIFFERENCE, ComparedRun, compare_runs, compared_run
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.sweep.findings.confirmed import mcnemar_text

BASELINE = "baseline"
RULE = "the highest mean validation accuracy over the new seeds, of equals the one that was better in the sweep"


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """Settings that are trained anew."""

    name: str
    """trial 13, or baseline."""
    in_sweep: float | None
    """Its validation accuracy in the sweep; None of a baseline, which was no trial."""
    settings: str = ""
    """What it has of the space, in words."""
    epochs: int = 0
    """That it is trained for; 0 where nobody wrote it down."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The accuracy of a candidate over the seeds."""

    candidate: Finalist
    mean: float
    low: float
    high: float
    """95 % interval of the mean, over the images and, with several seeds, over the seeds."""
    by_seed: Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What came of confirming, before anything is tested."""

    scored: Sequence[Scored]
    """In the order of the candidates."""
    chosen: str
    pairs: pd.DataFrame
    """Of accuracy alone, as `compare_runs` has them."""


def judge(answers: Mapping[str, tuple[Finalist, Mapping[int, Predictions]]]) -> Judgement:
    """Compare candidates by their predictions of validation, by seed, and choose one.

    answers: by the name of the candidate, in the order in which equals are preferred. Raises ValueError where two were
    validated on other images.
    """
    runs = {
        name: [_compared(name, seed, predictions, len(by_seed)) for seed, predictions in by_seed.items()]
        for name, (_, by_seed) in answers.items()
    }
    # A difference is that of a trial from the baseline, and of a worse trial from a better one.
    in_order = sorted(runs, key=lambda name: name != BASELINE)
    pairs = compare_runs([run for name in in_order for run in runs[name]])
    scored = [_scored(answers[name][0], each) for name, each in runs.items()]
    chosen = max(scored, key=lambda each: (each.mean, each.candidate.in_sweep or 0.0))  # of equals in both the first
    return Judgement(
        scored=scored, chosen=chosen.candidate.name, pairs=pairs[pairs["metric"] == "accuracy"].reset_index(drop=True)
    )


def score_of(candidate: Finalist, by_seed: Mapping[int, Predictions]) -> Scored:
    """Score a candidate alone, such as the chosen one on test."""
    runs = [_compared(candidate.name, seed, predictions, len(by_seed)) for seed, predictions in by_seed.items()]
    return _scored(candidate, runs)


def _compared(name: str, seed: int, predictions: Predictions, num_seeds: int) -> ComparedRun:
    # A pair of single runs is named by the runs, one of several by the configurations.
    return compared_run(name if num_seeds == 1 else f"{name}, seed {seed}", name, seed, predictions)


def _scored(candidate: Finalist, runs: Sequence[ComparedRun]) -> Scored:
    values = np.array([run.scores.estimate["accuracy"] for run in runs])
    mean = float(values.mean())
    resampled = np.mean([run.scores.resampled["accuracy"] for run in runs], axis=0)
    images = percentile_interval(resampled).including(mean) if varies(resampled) else Interval(math.nan, math.nan)
    half = t_half_width(values) if len(runs) > 1 else 0.0
    return Scored(
        candidate=candidate,
        mean=mean,
        low=max(mean - math.hypot(mean - images.low, half), 0.0),
        high=min(mean + math.hypot(images.high - mean, half), 1.0),
        by_seed={run.seed: float(value) for run, value in zip(runs, values, strict=True)},
    )


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """What confirm.json holds."""

    seeds: Sequence[int]
    num_val: int
    candidates: Sequence[Scored]
    chosen: str
    pairs: Sequence[Mapping[str, Any]]
    test: Scored | None = None
    """Of the chosen one; None until it was read."""
    num_test: int = 0
    num_left_out: int = 0
    """Files of test that cannot be decoded."""
    expected_bias: float | None = None
    """What choosing the best of the sweep was expected to add to it."""
    num_complete: int = 0
    """Complete trials of which the best were chosen; 0 where nobody wrote it down."""
    num_pruned: int = 0
    """Trials of the sweep that were given up by the same images, so that it is at least that."""
    diverged: Mapping[str, str] = field(default_factory=dict)
    """Candidates that are left out since their loss was not finite with one of the seeds, and what was said of it."""
    sentences: Sequence[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Lay out the file."""
        return dataclasses.asdict(self)


def confirmation_of(
    judgement: Judgement,
    *,
    seeds: Sequence[int],
    num_val: int,
    expected_bias: float | None,
    num_complete: int = 0,
    num_pruned: int = 0,
    diverged: Mapping[str, str] = MappingProxyType({}),
) -> Confirmation:
    """Put a judgement into the words and numbers of a file."""
    columns = ["run_a", "run_b", "difference", "low", "high", "mcnemar_p_holm", "verdict"]
    pairs = judgement.pairs[columns].rename(columns={"run_a": "a", "run_b": "b"}).to_dict("records")
    found = Confirmation(
        seeds=list(seeds),
        num_val=num_val,
        candidates=list(judgement.scored),
        chosen=judgement.chosen,
        pairs=[{key: _known(value) for key, value in pair.items()} for pair in pairs],
        expected_bias=expected_bias,
        num_complete=num_complete,
        num_pruned=num_pruned,
        diverged=dict(diverged),
    )
    return dataclasses.replace(found, sentences=describe_confirmation(found))


def with_test(found: Confirmation, test: Scored, num_test: int, num_left_out: int = 0) -> Confirmation:
    """Add what the chosen one reached on test."""
    tested = dataclasses.replace(found, test=test, num_test=num_test, num_left_out=num_left_out)
    return dataclasses.replace(tested, sentences=describe_confirmation(tested))


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def describe_confirmation(found: Confirmation) -> list[str]:
    """Say what was confirmed and what not, by rule."""
    said = []
    num = len(found.seeds)
    for each in found.candidates:
        if each.candidate.in_sweep is not None:
            said.append(_against_sweep(found, each, num))
    said += [f"{_named(name).capitalize()} is left out: {what}." for name, what in found.diverged.items()]
    if other_epochs := describe_epochs([each.candidate for each in found.candidates]):
        said.append(other_epochs)
    by_pair = {(pair["a"], pair["b"]): pair for pair in found.pairs}
    said += [_pair_words(pair) for names, pair in by_pair.items() if BASELINE in names]
    others = [pair for names, pair in by_pair.items() if BASELINE not in names]
    if unclear := [f"{pair['b']} and {pair['a']}" for pair in others if pair["verdict"] == NO_DIFFERENCE]:
        said.append(f"No difference is shown between {'; nor between '.join(unclear)}.")
    said += [_pair_words(pair) for pair in others if pair["verdict"] != NO_DIFFERENCE]
    chosen = next(each for each in found.candidates if each.candidate.name == found.chosen)
    said.append(f"Chosen: {_named(found.chosen)}, with {chosen.mean:.4f}. Rule: {RULE}.")
    if found.chosen != BASELINE and any(
        BASELINE in names and found.chosen in names and pair["verdict"] == NO_DIFFERENCE
        for names, pair in by_pair.items()
    ):
        said.append(f"That {found.chosen} is better than the baseline is not shown.")
    if found.test is not None:
        test, num = found.test, len(found.test.by_seed)
        said.append(
            f"On test, read once and for {_named(found.chosen)} alone, its accuracy is {test.mean:.4f} ({_ends(test)}) "
            f"of {found.num_test:,} images, {_over(num)}{_left_out(found.num_left_out)}. Neither the seeds nor these "
            "images had a part in the choice of trials."
        )
    return said


def describe_epochs(candidates: Sequence[Finalist]) -> str:
    """Say that candidates are trained for different epochs, by which they are more than a comparison of settings."""
    if len({each.epochs for each in candidates if each.epochs}) < 2:
        return ""
    by_name = ", ".join(f"{each.name} {each.epochs}" for each in candidates)
    return f"Epochs differ ({by_name}): a difference may be that of the epochs alone."


def _against_sweep(found: Confirmation, each: Scored, num: int) -> str:
    assert each.candidate.in_sweep is not None
    change = each.mean - each.candidate.in_sweep
    less = "less" if change < 0 else "more"
    text = (
        f"{_named(each.candidate.name).capitalize()} had {each.candidate.in_sweep:.4f} in the sweep; "
        f"{_over(num, 'other ')} it has {each.mean:.4f} ({_ends(each)}), {abs(change):.4f} {less}"
    )
    is_best = each.candidate.in_sweep == max(other.candidate.in_sweep or 0 for other in found.candidates)
    # Of a trial that is left out nobody knows here whether it was the best.
    if is_best and found.expected_bias is not None and not found.diverged.keys() - {BASELINE}:
        least = "at least " if found.num_pruned else ""
        text += f"; the choice of the best was expected to have added {least}{found.expected_bias:.4f} by the images "
        text += "alone"
    return f"{text}."


def _left_out(num: int) -> str:
    return f"; {num:,} that cannot be decoded {'is' if num == 1 else 'are'} left out" if num else ""


def _over(num: int, which: str = "") -> str:
    return f"with one {which}seed" if num == 1 else f"over {num} {which}seeds"


def _ends(scored: Scored) -> str:
    return "no interval" if math.isnan(scored.low) else f"{scored.low:.4f} to {scored.high:.4f}"


def _named(candidate: str) -> str:
    return f"the {BASELINE}" if candidate == BASELINE else candidate


def _pair_words(pair: Mapping[str, Any]) -> str:
    a, b = pair["a"], pair["b"]
    ends = "no interval" if pair["low"] is None else f"{pair['low']:+.4f} to {pair['high']:+.4f}"
    better = {"a is better": a, "b is better": b}.get(pair["verdict"])
    verdict = pair["verdict"] if better is None else f"{_named(better)} is better"
    tested = f", {text}" if (text := mcnemar_text(pair)) else ""
    return f"{b.capitalize()} against {_named(a)}: {pair['difference']:+.4f} ({ends}){tested}, {verdict}."
