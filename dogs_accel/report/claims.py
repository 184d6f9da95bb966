"""The published figures beside ours, with a verdict on each: claims.json.

A verdict is one of four.
- "not measured": this folder holds nothing that could say it, such as a run that was not made.
- "cannot be compared": something stands in the way, which the reason names: other data, another model, other weights,
  another schedule or input, a head on cached features, other hardware, a figure without an interval, or the publication
  itself, where it does not say enough.
- "reproduced" and "not reproduced", by the rule of the figure's kind:
  - exact: a count, a size or a setting is the same; a rounded figure, such as a mean or a count of millions, to the
    digits published.
  - interval: the published value lies in our 95 % interval, widened by half of its last published digit. Intervals of
    accuracy, F1 and ECE are those of metrics.json, of a difference between two runs those of pairwise_comparison.csv;
    of an accuracy of one epoch, of a precision and of a recall it is Wilson's; of a class's F1 it is Wilson's of
    J = TP / (TP + FP + FN), since F1 = 2 J / (1 + J). The lowest and the highest of several runs have the interval of
    the run that is it.
  - range: from one published value to another, widened by half of the last published digit; some value of it lies in
    our 95 % interval.
  - time: on the published GPU within 10 % either way, since one run has no interval.
  - choice: the run that comes first in a measure is the published one. There is no verdict on a tie between the first
    run and the published one or, where these are one run, between it and another: their values are equal, or
    pairwise_comparison.csv, which tests accuracy and ECE, has "no difference shown" of them.
What is not measured has no figure of ours. A figure that was measured on other data is given, and not judged. What
differs and does not stand in the way, such as precision, or figures that the test images themselves chose, is in the
reason of the verdict. With several runs that could stand for a published one the first is judged. Where the publication
leaves a setting open, each that it may have meant will do. Values: the publication and the files that it was made of,
each with its stage there: x, T(x), z, g(z) or output.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dogs_accel.datasets import published_about
from dogs_accel.datasets.published.figures import Claim, Published, PublishedRun, schedule_text
from dogs_accel.datasets.splits import SPLITS
from dogs_accel.eda.files import METADATA_FILE, SPLIT_FILE
from dogs_accel.evaluation.intervals import wilson_interval
from dogs_accel.evaluation.pairwise import NO_DIFFERENCE
from dogs_accel.report.recommend import pair_verdict
from dogs_accel.results.folder import RunsFolder
from dogs_accel.results.layout import CLAIMS_FILE, METRICS_FILE, PAIRWISE_FILE, logits_file
from dogs_accel.results.reading import missing_columns
from dogs_accel.results.run import Run
from dogs_accel.runtime.files import write_json
from dogs_accel.training.phases import strategy_of
from pipelines.recipe import EVAL, Recipe

REPRODUCED, NOT_REPRODUCED, NOT_MEASURED, INCOMPARABLE = VERDICTS = (
    "reproduced",
    "not reproduced",
    "not measured",
    "cannot be compared",
)
_TIME_TOLERANCE = 0.1
_ABOUT = 0.05
"""How far a number of images may be from one that was published as a round number."""
_MOST_CARVED = 0.25
"""Share of the training images that may be validation where the publication trains on all of them."""
_LATER_FIELDS = {name: value for name, value in dataclasses.asdict(EVAL).items() if name not in EVAL.as_dict()}
"""Of a recipe, at their defaults: what a record has where it is set alone."""
_TEST_MEASURES = ("accuracy", "ece")
"""Of the test images, by which runs are put in order."""


@dataclass(frozen=True)
class Measured:
    """Ours: a figure, or a reason why there is none."""

    value: Any = None
    interval: tuple[float, float] | None = None
    reason: str = ""
    subject: str = ""
    """Of several published runs the one that it is of, where it is of one."""
    ties: Mapping[str, str] = field(default_factory=dict)
    """Of a run that comes first: the published runs from which it is not told apart, with why."""


def judge_claims(folder: RunsFolder) -> list[dict[str, Any]]:
    """Set each published figure beside ours.

    A row a claim: stage, subject, figure, published, ours, interval, verdict, reason, run (the one that was judged).
    There is none where nothing was published about the dataset.
    """
    published = published_about(folder.facts.published)
    if published is None:
        return []
    stand_in = {name: _find_run(folder, name, published) for name in published.runs}
    return [_judge(claim, published, folder, stand_in) for claim in published.claims]


def write_claims(folder: Path, claims: Sequence[Mapping[str, Any]]) -> Path:
    """Write claims.json; claims: what `judge_claims` says of the folder, one at least."""
    counts = count_verdicts(claims)
    rules = [" ".join(line.split()) for line in (__doc__ or "").strip().split("\n- ")]
    return write_json(folder / CLAIMS_FILE, {"rules": rules, "counts": counts, "claims": claims})


def count_verdicts(claims: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count the claims of each verdict."""
    return {verdict: sum(claim["verdict"] == verdict for claim in claims) for verdict in VERDICTS}


def _judge(
    claim: Claim, published: Published, folder: RunsFolder, stand_in: Mapping[str, tuple[Run | None, str]]
) -> dict[str, Any]:
    """Judge one claim; stand_in: what `_find_run` finds for each published run."""
    row = {"stage": claim.stage, "subject": claim.subject, "figure": claim.figure, "published": claim.value}
    if not claim.measure:
        return row | _verdict(claim, Measured(), "", "")
    if claim.subject == "data":
        ours = _DATA_MEASURES[claim.measure[0]](folder, *claim.measure[1:])
        return row | _verdict(claim, ours, _other_data(folder, published), claim.note)
    runs = []
    for name in claim.subject.split():
        run, missing = stand_in[name]
        if run is None:
            is_incomparable = claim.obstacle or missing.startswith("another")
            verdict, reason = INCOMPARABLE if is_incomparable else NOT_MEASURED, claim.obstacle or missing
            return row | {"ours": None, "interval": None, "verdict": verdict, "reason": reason, "run": None}
        runs.append((name, run))
    ours = _RUN_MEASURES[claim.measure[0]](folder, dict(runs), *claim.measure[1:])
    shown = [(name, run) for name, run in runs if ours.subject in ("", name)]
    if _is_setting(claim):
        obstacle, notes = "", [claim.note]
    else:
        obstacle = _first([data_obstacle(folder, published), *_run_obstacles(runs, published)])
        notes = [_first(_note(published.runs[name], run) for name, run in shown), claim.note]
        notes += [note for name, _ in shown for note in published.runs[name].notes]
        notes.append(published.test_note if _is_of_test(claim) else "")
    if _counts_parameters(claim) and folder.num_classes != published.num_classes:
        obstacle = f"{folder.facts.count(folder.num_classes)}, published {published.num_classes}"
    if not obstacle and "seconds" in claim.measure and (gpu := published.gpu) and gpu.split()[0] not in folder.device:
        obstacle = f"other hardware: {folder.device}; published: {gpu}"
    names = ", ".join(dict.fromkeys(run.name for _, run in shown))
    return row | _verdict(claim, ours, obstacle, "; ".join(dict.fromkeys(filter(None, notes)))) | {"run": names}


def _run_obstacles(runs: Sequence[tuple[str, Run]], published: Published) -> Iterable[str]:
    for name, run in runs:
        obstacle = run_obstacle(run, published.runs[name])
        yield f"{name}: {obstacle}" if obstacle and len(runs) > 1 else obstacle


def _is_setting(claim: Claim) -> bool:
    """Whether a figure is a choice, which does not depend on the pictures."""
    return claim.measure[0] in ("config", "phases", "smallest")


def _counts_parameters(claim: Claim) -> bool:
    return claim.measure in (("config", "total_params"), ("smallest",))


def _is_of_test(claim: Claim) -> bool:
    """Whether a figure is of the answers on the test images."""
    kind, *what = claim.measure
    return kind in ("test", "class", "difference", "extreme") or (kind == "first" and what[0] in _TEST_MEASURES)


def _first(texts: Iterable[str]) -> str:
    return next((text for text in texts if text), "")


def _verdict(claim: Claim, ours: Measured, obstacle: str, note: str) -> dict[str, Any]:
    found = {"ours": ours.value, "interval": None if ours.interval is None else list(ours.interval), "run": None}
    if claim.obstacle:
        return found | {"verdict": INCOMPARABLE, "reason": claim.obstacle}
    if ours.value is None:
        return found | {"verdict": NOT_MEASURED, "reason": ours.reason}
    if obstacle:
        return found | {"verdict": INCOMPARABLE, "reason": obstacle}
    if claim.kind in ("interval", "range") and ours.interval is None:
        return found | {"verdict": INCOMPARABLE, "reason": ours.reason or "no interval of ours"}
    if tie := ours.ties.get(claim.value, "") if ours.value != claim.value else _first(ours.ties.values()):
        return found | {"verdict": INCOMPARABLE, "reason": "; ".join(filter(None, (tie, ours.reason)))}
    holds, reason = _holds(claim, ours)
    return found | {
        "verdict": REPRODUCED if holds else NOT_REPRODUCED,
        "reason": "; ".join(filter(None, (reason, note))),
    }


def _holds(claim: Claim, ours: Measured) -> tuple[bool, str]:
    half = 0.5 * 10**-claim.decimals * (1 + 1e-9)
    if claim.kind == "interval":
        assert ours.interval is not None
        low, high = ours.interval
        inside = low - half <= claim.value <= high + half
        return inside, f"the published value lies {'in' if inside else 'outside'} our 95 % interval"
    if claim.kind == "range":
        assert ours.interval is not None
        low, high = ours.interval
        least, most = claim.value
        if high < least - half or low > most + half:
            return False, f"our 95 % interval lies {'below' if high < least else 'above'} the published range"
        return True, "our 95 % interval and the published range have values in common"
    if claim.kind == "time":
        ratio = ours.value / claim.value
        return abs(ratio - 1) <= _TIME_TOLERANCE, f"{ratio:.2f} of the published time, allowed 0.90 to 1.10"
    if isinstance(claim.value, str):
        return ours.value == claim.value, ours.reason
    return abs(ours.value - claim.value) <= (half if claim.decimals else 0), ours.reason


def data_obstacle(folder: RunsFolder, published: Published) -> str:
    """Say why figures that depend on the pictures cannot be compared; empty where they can."""
    other_data, ours, theirs = _other_data(folder, published), folder.num_images, published.num_images
    if other_data:
        return other_data
    # Where the publication validates on the test images, ours come out of the training images, which are the rest.
    judged = theirs if "val" in theirs else theirs.keys() & {"test"}
    if any(ours[split] != theirs[split] for split in judged):
        return f"another split: {_sizes(folder, published)}"
    carved, training = ours["val"], ours["train"] + ours["val"]
    if theirs and "val" not in theirs and carved > _MOST_CARVED * training:
        return f"another split: {carved:,} of {training:,} training images for validation; published: none"
    expected = None if published.val_share is None else published.val_share * training
    if expected is not None and abs(carved - expected) > published.num_classes:  # rounded in each class
        return f"another split: {carved:,} validation images; published: {published.val_share:.0%} of training"
    return ""


def _other_data(folder: RunsFolder, published: Published) -> str:
    """Say why what is counted and measured on the pictures themselves cannot be compared; empty where it can."""
    total, theirs, about = sum(folder.num_images.values()), published.num_images, published.about_images
    is_same_size = not theirs or total == sum(theirs.values())
    if about is not None:
        is_same_size = abs(total - about) <= _ABOUT * about
    if folder.num_classes == published.num_classes and is_same_size:
        return ""
    return f"other data: {_sizes(folder, published)}"


def _sizes(folder: RunsFolder, published: Published) -> str:
    ours, theirs = (
        " / ".join(f"{each[split]:,}" for split in SPLITS if split in each)
        for each in (folder.num_images, published.num_images)
    )
    if published.num_images and "val" not in published.num_images:
        theirs += " (training / test)"
    if not theirs:
        theirs = "" if published.about_images is None else f"about {published.about_images:,}"
    said = ", ".join(filter(None, (f"{published.num_classes}", theirs)))
    return f"{folder.facts.count(folder.num_classes)}, {ours} images; published: {said}"


def run_obstacle(run: Run, theirs: PublishedRun) -> str:
    """Say why a run cannot stand for a published one; empty where it can."""
    record, config = run.record, run.record.config
    if record.kind_of_weights != theirs.weights:
        return f"other weights: {record.weights or 'unknown weights'}"
    if not _has_schedule(run, theirs):
        return f"another schedule: {record.phase_plan or config.strategy}"
    if record.cache_features:
        return "another experiment: head on cached features without augmentation"
    sizes = theirs.batch_sizes or [config.batch_size]
    if config.batch_size not in sizes or config.image_size != theirs.image_size:
        batches = " or ".join(map(str, sizes))
        return (
            f"other input: batch {config.batch_size}, {config.image_size} px; published: {batches}, "
            f"{theirs.image_size} px"
        )
    for what, recipe, recipes in (
        ("training", record.train_recipe, theirs.train_recipes),
        ("evaluation", record.eval_recipe, theirs.eval_recipes),
    ):
        others = [_other_fields(recipe, each) for each in recipes]
        if others and all(others):
            return f"another {what} recipe: {', '.join(sorted(others, key=len)[0])}"
    return ""


def _other_fields(recipe: Mapping[str, Any], published: Recipe) -> list[str]:
    """Name the fields in which a recorded recipe is another one than a published one; none where it is unknown."""
    ours = {**_LATER_FIELDS, **recipe} if recipe else {}
    theirs = dataclasses.asdict(published)
    return [name for name, value in ours.items() if name != "name" and _as_json(value) != _as_json(theirs.get(name))]


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _has_schedule(run: Run, published: PublishedRun) -> bool:
    ours = _schedule(run.record.config.phases)
    return not published.schedules or any(ours == _schedule(phases) for phases in published.schedules)


def _schedule(phases: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{key: _as_json(value) for key, value in phase.items() if key != "name"} for phase in phases]


def _note(published: PublishedRun, run: Run) -> str:
    notes = []
    if published.precision and (run.record.amp or "float32") != published.precision:
        ours = f"mixed precision ({run.record.amp})" if run.record.amp else "float32"
        notes.append(f"{ours}, published {published.precision}")
    if published.bn_drifted and run.record.bn_when_frozen == "eval":
        notes.append("BatchNorm of the frozen backbone keeps its statistics, published it did not")
    return "; ".join(notes)


def _find_run(folder: RunsFolder, name: str, published: Published) -> tuple[Run | None, str]:
    theirs = published.runs[name]
    alike = [run for run in folder.runs if _is_alike(run, theirs)]
    if same_model := [run for run in alike if run.model in (theirs.model, *theirs.other_names)]:
        # Of several, as with settings of a user and without, one with the published ones.
        return min(same_model, key=lambda run: (not _has_schedule(run, theirs), bool(run_obstacle(run, theirs)))), ""
    # Where a family has several published models, another one of it is in place of none of them.
    is_only_one = len({each.model for each in published.runs.values() if each.family == theirs.family}) == 1
    for run in alike:
        if is_only_one and run.family == theirs.family:
            return None, f"another model: {run.model} ({run.name}), published {theirs.model}"
    return None, f"no run of {theirs.model} with the {theirs.strategy} schedule here"


def _is_alike(run: Run, published: PublishedRun) -> bool:
    """Whether the phases of a run train what those of a published one do, be they equal or not."""
    if not published.schedules:
        return True
    phases = run.record.config.phases
    if [phase["mode"] for phase in phases] != [phase["mode"] for phase in published.schedules[0]]:
        return False
    ours, theirs = (strategy_of(each) for each in (phases, published.schedules[0]))
    return ours is None or theirs is None or ours == theirs  # None: with settings of its own


def _images(folder: RunsFolder, official: str) -> Measured:
    table = folder.table(METADATA_FILE)
    if missing_columns(table, ["official_split"]):
        return Measured(reason=f"{METADATA_FILE} is absent")
    assert table is not None
    return Measured(int((table["official_split"] == official).sum()) if official else len(table))


def _split(folder: RunsFolder, split: str) -> Measured:
    return Measured(int(folder.num_images[split]))


def _batches(folder: RunsFolder, split: str, batch_size: int) -> Measured:
    ours = folder.runs[0].record.config.batch_size
    if ours != batch_size:
        return Measured(reason=f"batches of {ours} here")
    return Measured(math.ceil(folder.num_images[split] / batch_size))


def _class_size(folder: RunsFolder, how: str) -> Measured:
    table = folder.table(METADATA_FILE)
    if missing_columns(table, ["label"]):
        return Measured(reason=f"{METADATA_FILE} is absent")
    assert table is not None
    value = float(getattr(table["label"].value_counts(), how)())
    return Measured(value if how == "mean" else int(value))


def _support(folder: RunsFolder, name: str) -> Measured:
    for run in folder.runs:
        if run.classes is not None and name in list(run.classes["class_name"]):
            return Measured(int(run.classes.set_index("class_name").loc[name, "support"]))
    return Measured(reason=f"no {folder.facts.noun} {name} here")


def _mean(folder: RunsFolder, column: str) -> Measured:
    table = folder.table(METADATA_FILE)
    if missing_columns(table, [column]):
        return Measured(reason=f"{METADATA_FILE} is absent")
    assert table is not None
    return Measured(float(table[column].mean()))


def _image(folder: RunsFolder, image: str, column: str) -> Measured:
    table = folder.table(METADATA_FILE)
    if missing_columns(table, ["image_id", column]):
        return Measured(reason=f"{METADATA_FILE} is absent")
    assert table is not None
    rows = table.loc[table["image_id"] == image, column]
    return Measured(rows.iloc[0].item()) if len(rows) else Measured(reason=f"no image {image} here")


def _split_row(folder: RunsFolder, row: int) -> Measured:
    table = folder.table(SPLIT_FILE)
    if missing_columns(table, ["image_id"]):
        return Measured(reason=f"{SPLIT_FILE} is absent")
    assert table is not None
    return Measured(str(table["image_id"].iloc[row])) if len(table) > row else Measured(reason="too few images")


def _val_share(folder: RunsFolder) -> Measured:
    num = folder.num_images
    return Measured(num["val"] / (num["train"] + num["val"]))


_DATA_MEASURES: dict[str, Callable[..., Measured]] = {
    "images": _images,
    "classes": lambda folder: Measured(folder.num_classes),
    "split": _split,
    "class_size": _class_size,
    "support": _support,
    "mean": _mean,
    "image": _image,
    "split_row": _split_row,
    "batches": _batches,
    "val_share": _val_share,
}


def _config(_: RunsFolder, runs: dict[str, Run], key: str) -> Measured:
    [run] = runs.values()
    return Measured(getattr(run.record.config, key))


def _phases(_: RunsFolder, runs: dict[str, Run]) -> Measured:
    [run] = runs.values()
    return Measured(schedule_text(run.record.config.phases))


def _test(_: RunsFolder, runs: dict[str, Run], measure: str) -> Measured:
    [run] = runs.values()
    if measure not in run.metrics:
        return Measured(reason=f"{METRICS_FILE} has no {measure}")
    reason = run.why_no_interval(measure) or f"{METRICS_FILE} has no interval of it"
    return Measured(run.metrics[measure], run.interval(measure), reason)


def _seconds(_: RunsFolder, runs: dict[str, Run]) -> Measured:
    [run] = runs.values()
    return Measured(run.training_seconds)


def _difference(folder: RunsFolder, runs: dict[str, Run]) -> Measured:
    full, staged = runs.values()
    gain = staged.metrics["accuracy"] - full.metrics["accuracy"]
    table = folder.table(PAIRWISE_FILE)
    if missing_columns(table, ["run_a", "run_b", "metric", "low", "high"]):
        return Measured(gain, None, f"{PAIRWISE_FILE} is absent")
    assert table is not None
    for row in table[table["metric"] == "accuracy"].itertuples():
        if {row.run_a, row.run_b} != {full.name, staged.name}:
            continue
        if math.isnan(row.low):
            return Measured(gain, None, f"{PAIRWISE_FILE} has no interval of it")
        ends = float(row.low), float(row.high)
        return Measured(gain, ends if row.run_a == full.name else (-ends[1], -ends[0]))
    return Measured(gain, None, f"{PAIRWISE_FILE} lacks this pair")


def _epoch(folder: RunsFolder, runs: dict[str, Run], epoch: int, what: str) -> Measured:
    [run] = runs.values()
    column = what if what in ("lr", "val_loss") else f"{what}_acc"
    if missing_columns(run.history, ["epoch_total", column]):
        return Measured(reason="the history is absent")
    assert run.history is not None
    rows = run.history.loc[run.history["epoch_total"] == epoch, column]
    if rows.empty:
        return Measured(reason=f"no epoch {epoch}")
    value = float(rows.iloc[0])
    if what in ("lr", "val_loss"):
        return Measured(value, None, "" if what == "lr" else "the loss of one epoch has no interval")
    total = folder.num_images[what]
    interval = wilson_interval(round(value * total), total)
    return Measured(value, (interval.low, interval.high))


def _class(folder: RunsFolder, runs: dict[str, Run], name: str, score: str) -> Measured:
    [run] = runs.values()
    if run.classes is None or name not in list(run.classes["class_name"]):
        return Measured(reason=f"no {folder.facts.noun} {name} here")
    column = "f1-score" if score == "F1" else score
    value = float(run.classes.set_index("class_name").loc[name, column])
    if not run.has_predictions:
        return Measured(value, None, f"{logits_file('test')} is absent")
    label = list(run.classes["class_name"]).index(name)
    right = int(run.confusion[label, label])
    support, predicted = int(run.confusion[label].sum()), int(run.confusion[:, label].sum())
    total = {"recall": support, "precision": predicted, "F1": support + predicted - right}[score]
    if total == 0:
        return Measured(value, None, "no image to judge it by")
    share = wilson_interval(right, total)
    low, high = ((2 * end / (1 + end) if score == "F1" else end) for end in (share.low, share.high))
    return Measured(value, (low, high))


def _first_in(folder: RunsFolder, runs: dict[str, Run], measure: str, sign: int) -> Measured:
    values = {name: _value(run, measure) for name, run in runs.items()}
    if lacking := [name for name, value in values.items() if value is None]:
        return Measured(reason=f"{METRICS_FILE} of {lacking[0]} has no {measure}")
    order = sorted(values, key=lambda name: sign * values[name])
    first = order[0]
    table = folder.table(PAIRWISE_FILE)
    known_as = {name: {run.name, run.configuration} for name, run in runs.items()}
    ties = {}
    for name in order[1:]:
        if values[name] == values[first]:
            ties[name] = f"{first} and {name} have the same value"
        elif pair_verdict(table, known_as[first], known_as[name], measure) == NO_DIFFERENCE:
            ties[name] = f"{NO_DIFFERENCE} between {first} and {name}"
    shown = ", ".join(f"{name} {values[name]:.4f}" for name in order[:2])
    reason = f"first two: {shown}" if np.isfinite(list(values.values())).all() else ""
    return Measured(first, None, reason, ties=ties)


def _value(run: Run, measure: str) -> Any:
    match measure:
        case "seconds":
            return run.training_seconds
        case "val_accuracy":
            return run.val_accuracy
        case _:
            return run.metrics.get(measure)


def _extreme(folder: RunsFolder, runs: dict[str, Run], measure: str, sign: int) -> Measured:
    if lacking := [name for name, run in runs.items() if _value(run, measure) is None]:
        return Measured(reason=f"{METRICS_FILE} of {lacking[0]} has no {measure}")
    found = min(runs, key=lambda name: sign * _value(runs[name], measure))
    return dataclasses.replace(_test(folder, {found: runs[found]}, measure), subject=found)


def _smallest(_: RunsFolder, runs: dict[str, Run]) -> Measured:
    return Measured(min(runs, key=lambda name: runs[name].record.config.total_params))


_RUN_MEASURES: dict[str, Callable[..., Measured]] = {
    "config": _config,
    "phases": _phases,
    "test": _test,
    "seconds": _seconds,
    "difference": _difference,
    "epoch": _epoch,
    "class": _class,
    "first": _first_in,
    "extreme": _extreme,
    "smallest": _smallest,
}
