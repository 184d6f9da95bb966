"""What a sweep shows and what it does not, in sentences that follow from its tables by rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dogs_accel.runtime.terminal import count_text
from dogs_accel.sweep.engine.samplers import STARTUP_TRIALS
from dogs_accel.sweep.findings.importance import Importance
from dogs_accel.sweep.findings.levels import HIGHER, LOWER, NOT_SHOWN, LevelFinding
from dogs_accel.sweep.findings.selection import SelectionBias
from dogs_accel.sweep.findings.trials import SweepTrials
from dogs_accel.sweep.trials import FAILED, PRUNED, RUNNING

SHOWN, NOT_SHOWN_KIND, CAUTION = "shown", "not shown", "caution"
"""Kinds of sentences."""
SHORT_EPOCHS = 10
"""Epochs up to which what slows training down cannot be judged."""
_SLOW = ("recipe", "augment", "dropout", "decay", "smoothing", "mix", "erasing", "stochastic", "drop_path", "ema")
"""Parts of the names of parameters that trade speed of learning for generalisation."""


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One sentence, what it is about, and whether it says that something is shown."""

    kind: str
    subject: str
    text: str


def write_sentences(
    trials: SweepTrials,
    levels: Sequence[LevelFinding],
    importance: Sequence[Importance],
    bias: SelectionBias | None,
) -> list[Sentence]:
    """Say what the trials show: of each parameter in the order of the space, then what limits all of it."""
    said: list[Sentence] = []
    for parameter in trials.space.parameters:
        said += _of_parameter([each for each in levels if each.parameter == parameter.name])
    if levels and not any(each.kind == SHOWN for each in said):
        said.insert(0, _nothing_shown(trials))
    return [*said, *_of_importance(importance), *_of_best(bias), *_of_design(trials)]


def _nothing_shown(trials: SweepTrials) -> Sentence:
    num = len(trials.values)
    text = f"Of no single parameter do these {num} complete trials show that it matters."
    if num == 1:
        text = "Of no single parameter does this one complete trial show that it matters."
    if not num:
        text = "No trial is complete: nothing follows of any parameter."
    return Sentence(kind=NOT_SHOWN_KIND, subject="all parameters", text=text)


def _of_parameter(levels: Sequence[LevelFinding]) -> list[Sentence]:
    name = levels[0].parameter
    seen = [each for each in levels if each.num_complete]
    if len(levels) == 2 and len(seen) == 2:
        # One test, said of the better one.
        levels = [max(levels, key=lambda each: each.mean if each.verdict != LOWER else -math.inf)]
        if levels[0].verdict == NOT_SHOWN:
            return [_no_difference(name, seen)]
        return [_of_level(levels[0])]
    said = [_of_level(each) for each in levels if each.verdict != NOT_SHOWN]
    if quiet := [each for each in levels if each.verdict == NOT_SHOWN]:
        said.append(_no_difference(name, quiet))
    return said


def _no_difference(name: str, levels: Sequence[LevelFinding]) -> Sentence:
    of = "; ".join(f"{each.level}: {_mean(each)}" for each in levels)
    p_value = min(each.p_holm for each in levels)
    text = f"{name}: no difference is shown ({of}); smallest p {_p(p_value)} after Holm."
    return Sentence(kind=NOT_SHOWN_KIND, subject=name, text=text)


def _of_level(found: LevelFinding) -> Sentence:
    tried = f"{found.name}: tried {_times(found.num_trials)}{_not_counted(found)}"
    if found.verdict in (HIGHER, LOWER):
        text = (
            f"{tried}; with the other parameters held equal its accuracy is {_by(found.adjusted)} "
            f"({_range(found.adjusted_low, found.adjusted_high, found.adjusted)}; p {_p(found.p_holm)} after Holm) "
            f"than that of the other {count_text(found.num_others, 'trial')}: shown, of the points that were tried."
        )
        return Sentence(kind=SHOWN, subject=found.parameter, text=text)
    if not math.isfinite(found.difference) or found.num_complete < 3:
        text = f"{tried}: nothing follows."
    elif found.confounded:
        text = (
            f"{tried}; its mean is {_by(found.difference)}{_interval(found)}, but {found.confounded}: nothing follows "
            f"of {found.parameter} alone."
        )
    else:
        text = f"{tried}; its mean is {_by(found.difference)}{_interval(found)}, but {found.reason}: nothing follows."
    return Sentence(kind=NOT_SHOWN_KIND, subject=found.parameter, text=text)


def _not_counted(found: LevelFinding) -> str:
    others = found.num_trials - found.num_complete
    if not others:
        return ""
    parts = [(found.num_pruned, "pruned"), (found.num_failed, "failed")]
    parts.append((others - found.num_pruned - found.num_failed, "not ended or a repeat"))
    why = ", ".join(f"{num} {word}" for num, word in parts if num)
    return f", {found.num_complete or 'none'} of them to the end ({why})"


def _interval(found: LevelFinding) -> str:
    if not math.isfinite(found.difference_low):
        return ""
    return f", interval {_range(found.difference_low, found.difference_high, found.difference)}"


def _range(low: float, high: float, middle: float) -> str:
    """Both ends as they are said of "higher" or "lower", from the smaller effect."""
    if middle < 0:
        low, high = -high, -low
    return f"{low:.3f} to {high:.3f}"


def _by(difference: float) -> str:
    return f"{abs(difference):.3f} {'higher' if difference >= 0 else 'lower'}"


def _mean(found: LevelFinding) -> str:
    interval = "" if math.isnan(found.low) else f" ({found.low:.3f} to {found.high:.3f})"
    return f"{found.mean:.3f}{interval}, {count_text(found.num_complete, 'trial')}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _times(num: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(num, f"{num} times")


def _of_importance(importance: Sequence[Importance]) -> list[Sentence]:
    if not importance:
        return []
    above = [each for each in importance if each.stands_out]
    if above:
        named = ", ".join(f"{each.parameter} {each.share:.2f} ({each.low:.2f} to {each.high:.2f})" for each in above)
        text = f"In importance {named} {'stand' if len(above) > 1 else 'stands'} out from what shuffled values give."
        return [Sentence(kind=SHOWN, subject="importance", text=text)]
    first = importance[0]
    text = (
        f"In importance no parameter stands out: the highest, {first.parameter} with {first.share:.2f} "
        f"({first.low:.2f} to {first.high:.2f}), is not clear of the {first.of_noise:.2f} that shuffled values give "
        "it. The shares add up to 1 whatever the values are."
    )
    return [Sentence(kind=NOT_SHOWN_KIND, subject="importance", text=text)]


def _of_best(bias: SelectionBias | None) -> list[Sentence]:
    if bias is None:
        return []
    error = f"a standard error of {bias.standard_error:.3f} by its {bias.num_val:,} images"
    value = f"The best trial's validation accuracy of {bias.value:.3f}"
    raised = f"the choice alone is expected to raise it by {expected_text(bias)}, and by {bias.if_all_equal:.3f} if all"
    if bias.num_trials + bias.num_pruned == 1:
        text = (
            f"{value}, with {error}, is that of the one complete trial: none was chosen, so that no luck of a choice "
        )
        text += "is in it. "
    elif bias.num_pruned:
        text = (
            f"{value}, with {error}, is the highest of {count_text(bias.num_trials, 'complete trial')}, and "
            f"{bias.num_pruned} more {'was' if bias.num_pruned == 1 else 'were'} given up by the same images: {raised} "
            f"{bias.num_trials + bias.num_pruned} trials are equally good. "
        )
    else:
        text = (
            f"{value} is the highest of {bias.num_trials} noisy values, each with {error}: {raised} trials are equally "
        )
        text += "good. "
    text += (
        "What the seed does comes on top, and that each value is the best of its epochs. Confirming with other seeds "
        "takes away what was luck of the seed; the test split, read once, what was luck of these images."
    )
    return [Sentence(kind=CAUTION, subject="the best trial", text=text)]


def expected_text(bias: SelectionBias) -> str:
    """Write what the choice is expected to add, which is more where trials were pruned than the complete ones tell."""
    return f"{'at least ' if bias.num_pruned else ''}{bias.expected:.3f}"


def _of_design(trials: SweepTrials) -> list[Sentence]:
    said = []
    if trials.sampler == "bayes" and (first := _first_by_values(trials)) is not None:
        text = (
            f"From trial {first} on the sampler chose its points by earlier values (TPE), so the levels are not "
            "balanced: means of levels are of the points that it preferred, and a level that was unlucky early was "
            "hardly tried again."
        )
        said.append(Sentence(kind=CAUTION, subject="the sampler", text=text))
    said += _of_states(trials)
    epochs = sorted({int(each) for each in trials.counted["epochs"]})
    if epochs and epochs[-1] <= SHORT_EPOCHS:
        slow = [each.name for each in trials.space.parameters if any(part in each.name.lower() for part in _SLOW)]
        of_slow = (
            f": {' and '.join(slow)} may be worse in so few and better in more, so nothing follows of longer training"
            if slow
            else ", and nothing follows of longer training"
        )
        had = "Every complete trial had" if len(epochs) == 1 else "No complete trial had more than"
        text = f"{had} {count_text(epochs[-1], 'epoch')}{of_slow}."
        said.append(Sentence(kind=CAUTION, subject="the budget", text=text))
    text = (
        "Each point was trained once, so what the seed does is a part of every difference. Effects are taken to add "
        "up: a level that is good with one setting and bad with another is not seen."
    )
    said.append(Sentence(kind=CAUTION, subject="the seeds", text=text))
    return said


def _first_by_values(trials: SweepTrials) -> int | None:
    """Number of the first trial that bayes drew by earlier ones; those that failed are none of what it begins with."""
    has_value = trials.states != FAILED
    before = np.cumsum(has_value) - has_value
    by_values = np.flatnonzero(before >= STARTUP_TRIALS)
    return int(trials.table["number"].iloc[by_values[0]]) if len(by_values) else None


def _of_states(trials: SweepTrials) -> list[Sentence]:
    counts = {state: int(np.sum(trials.states == state)) for state in (PRUNED, FAILED, RUNNING)}
    said = []
    if counts[PRUNED]:
        text = (
            f"{counts[PRUNED]} of {count_text(len(trials.states), 'trial')} {'was' if counts[PRUNED] == 1 else 'were'} "
            "pruned: their values are of fewer epochs and are in no mean. What is left was chosen for being good, so "
            "differences look smaller than they are; and it was chosen by the same images as the best trial is, so the "
            "luck of that choice is larger than the complete trials alone tell."
        )
        said.append(Sentence(kind=CAUTION, subject="pruning", text=text))
    if counts[FAILED]:
        text = f"{count_text(counts[FAILED], 'trial')} failed and {'is' if counts[FAILED] == 1 else 'are'} in no mean."
        said.append(Sentence(kind=CAUTION, subject="failures", text=text))
    if counts[RUNNING]:
        text = f"{count_text(counts[RUNNING], 'trial')} had not ended: all of this may change."
        said.append(Sentence(kind=CAUTION, subject="the end", text=text))
    if num := int(trials.repeats.sum()):
        had = f"{count_text(num, 'trial')} had the settings and the seed of an earlier one"
        text = f"{had}, and so its value: counted once."
        said.append(Sentence(kind=CAUTION, subject="repeats", text=text))
    return said
