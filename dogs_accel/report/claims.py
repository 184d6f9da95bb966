"""The published figures beside ours, with a verdict on each: claims.json.

A verdict is one of four.
- "not measured": this folder holds nothing that could say it, such as a run that was not made.
- "cannot be compared": something stands in the way, which the reason names: other data, another model, other weights,
  another schedule or input, a head on cached features, other hardware, or a figure without an interval.
- "reproduced" and "not reproduced", by the rule of the figure's kind:
  - exact: a count, a size or a setting is the same; a rounded figure, such as a mean, to the digits published.
  - interval: the published value lies in our 95 % interval, widened by half of its last published digit. Intervals of
    accuracy, F1 and ECE are those of metrics.json, of a difference between two runs those of pairwise_comparison.csv;
    of an accuracy of one epoch, of a precision and of a recall it is Wilson's; of a class's F1 it is Wilson's of
    J = TP / (TP + FP + FN), since F1 = 2 J / (1 + J).
  - time: on the published GPU within 10 % either way, since one run has no interval.
  - choice: the run that comes first in a measure is the published one.
What is not measured has no figure of ours. A figure that was measured on other data is given, and not judged.
Two settings may differ, and the reason says so: precision and BatchNorm while the backbone is frozen. With several
seeds the first run of a configuration is judged. Values: the public page of the experiment and the files that it
was made of, each with its stage there: x, T(x), z, g(z) or output.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dogs_accel.datasets import published_about
from dogs_accel.datasets.published import Claim, Published, PublishedRun
from dogs_accel.eda.files import METADATA_FILE, SPLIT_FILE
from dogs_accel.evaluation.intervals import wilson_interval
from dogs_accel.results.folder import RunsFolder
from dogs_accel.results.layout import CLAIMS_FILE, METRICS_FILE, PAIRWISE_FILE, logits_file
from dogs_accel.results.reading import missing_columns
from dogs_accel.results.run import Run
from dogs_accel.runtime.files import write_json
from dogs_accel.training.phases import strategy_of, strategy_phases

REPRODUCED, NOT_REPRODUCED, NOT_MEASURED, INCOMPARABLE = VERDICTS = (
    "reproduced",
    "not reproduced",
    "not measured",
    "cannot be compared",
)
_TIME_TOLERANCE = 0.1


@dataclass(frozen=True)
class Measured:
    """Ours: a figure, or a reason why there is none."""

    value: Any = None
    interval: tuple[float, float] | None = None
    reason: str = ""


def judge_claims(folder: RunsFolder) -> list[dict[str, Any]]:
    """Set each published figure beside ours.

    A row a claim: stage, subject, figure, published, ours, interval, verdict, reason, run (the one that was judged).
    There is none where nothing was published about the dataset.
    """
    published = published_about(folder.facts.published)
    return [] if published is None else [_judge(claim, published, folder) for claim in published.claims]


def write_claims(folder: Path, claims: Sequence[Mapping[str, Any]]) -> Path:
    """Write claims.json; claims: what `judge_claims` says of the folder, one at least."""
    counts = count_verdicts(claims)
    rules = [" ".join(line.split()) for line in (__doc__ or "").strip().split("\n- ")]
    return write_json(folder / CLAIMS_FILE, {"rules": rules, "counts": counts, "claims": claims})


def count_verdicts(claims: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count the claims of each verdict."""
    return {verdict: sum(claim["verdict"] == verdict for claim in claims) for verdict in VERDICTS}


def _judge(claim: Claim, published: Published, folder: RunsFolder) -> dict[str, Any]:
    row = {"stage": claim.stage, "subject": claim.subject, "figure": claim.figure, "published": claim.value}
    if claim.subject == "data":
        ours = _DATA_MEASURES[claim.measure[0]](folder, *claim.measure[1:])
        return row | _verdict(claim, ours, _other_data(folder, published), "")
    runs = []
    for name in claim.subject.split():
        run, missing = _find_run(folder, published.runs[name])
        if run is None:
            verdict = INCOMPARABLE if missing.startswith("another") else NOT_MEASURED
            return row | {"ours": None, "interval": None, "verdict": verdict, "reason": missing, "run": None}
        runs.append((name, run))
    ours = _RUN_MEASURES[claim.measure[0]](folder, dict(runs), *claim.measure[1:])
    if _is_setting(claim):
        obstacle = note = ""
    else:
        obstacle = _first(
            [data_obstacle(folder, published), *(run_obstacle(name, run, published) for name, run in runs)]
        )
        note = _first(_note(published.runs[name], run) for name, run in runs)
    if claim.measure == ("config", "total_params") and folder.num_classes != published.num_classes:
        obstacle = f"{folder.facts.count(folder.num_classes)}, published {published.num_classes}"
    if not obstacle and "seconds" in claim.measure and published.gpu.split()[0] not in folder.device:
        obstacle = f"other hardware: {folder.device}; published: {published.gpu}"
    names = ", ".join(run.name for _, run in runs)
    return row | _verdict(claim, ours, obstacle, note) | {"run": names}


def _is_setting(claim: Claim) -> bool:
    """Whether a figure is a choice, which does not depend on the pictures."""
    return claim.measure[0] in ("config", "phases")


def _first(texts: Iterable[str]) -> str:
    return next((text for text in texts if text), "")


def _verdict(claim: Claim, ours: Measured, obstacle: str, note: str) -> dict[str, Any]:
    found = {"ours": ours.value, "interval": None if ours.interval is None else list(ours.interval), "run": None}
    if ours.value is None:
        return found | {"verdict": NOT_MEASURED, "reason": ours.reason}
    if obstacle:
        return found | {"verdict": INCOMPARABLE, "reason": obstacle}
    if claim.kind == "interval" and ours.interval is None:
        return found | {"verdict": INCOMPARABLE, "reason": ours.reason or "no interval of ours"}
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
    if claim.kind == "time":
        ratio = ours.value / claim.value
        return abs(ratio - 1) <= _TIME_TOLERANCE, f"{ratio:.2f} of the published time, allowed 0.90 to 1.10"
    if isinstance(claim.value, str):
        return ours.value == claim.value, ours.reason
    return abs(ours.value - claim.value) <= (half if claim.decimals else 0), ours.reason


def data_obstacle(folder: RunsFolder, published: Published) -> str:
    """Say why figures that depend on the pictures cannot be compared; empty where they can."""
    is_same_split = folder.num_images == published.num_images
    return _other_data(folder, published) or ("" if is_same_split else f"another split: {_sizes(folder, published)}")


def _other_data(folder: RunsFolder, published: Published) -> str:
    """Say why what is counted and measured on the pictures themselves cannot be compared; empty where it can."""
    is_same_size = sum(folder.num_images.values()) == sum(published.num_images.values())
    if folder.num_classes == published.num_classes and is_same_size:
        return ""
    return f"other data: {_sizes(folder, published)}"


def _sizes(folder: RunsFolder, published: Published) -> str:
    ours, theirs = (
        " / ".join(f"{each[split]:,}" for split in published.num_images)
        for each in (folder.num_images, published.num_images)
    )
    return f"{folder.facts.count(folder.num_classes)}, {ours} images; published: {published.num_classes}, {theirs}"


def run_obstacle(name: str, run: Run, published: Published) -> str:
    """Say why a run cannot stand for the published one of this name; empty where it can."""
    theirs, record, config = published.runs[name], run.record, run.record.config
    if "ImageNet weights" not in record.weights:
        return f"other weights: {record.weights or 'unknown weights'}"
    if not _has_schedule(run, theirs):
        return f"another schedule: {record.phase_plan or config.strategy}"
    if record.cache_features:
        return "another experiment: head on cached features without augmentation"
    if (config.batch_size, config.image_size) != (published.batch_size, published.image_size):
        ours, expected = (f"{each.batch_size}, {each.image_size} px" for each in (config, published))
        return f"other input: batch {ours}; published: {expected}"
    recipe = dataclasses.asdict(theirs.train_recipe)
    other = [key for key, value in record.train_recipe.items() if _as_json(value) != _as_json(recipe.get(key))]
    return f"another training recipe: {', '.join(other)}" if other else ""


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _has_schedule(run: Run, published: PublishedRun) -> bool:
    phases = [phase.as_dict() for phase in strategy_phases(published.strategy, published.family)]
    return _schedule(run.record.config.phases) == _schedule(phases)


def _schedule(phases: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in phase.items() if key != "name"} for phase in phases]


def _note(published: PublishedRun, run: Run) -> str:
    notes = []
    if run.record.amp:
        notes.append(f"mixed precision ({run.record.amp}), published float32")
    if published.bn_drifted and run.record.bn_when_frozen == "eval":
        notes.append("BatchNorm of the frozen backbone keeps its statistics, published it did not")
    return "; ".join(notes)


def _find_run(folder: RunsFolder, published: PublishedRun) -> tuple[Run | None, str]:
    modes = [phase.mode for phase in strategy_phases(published.strategy, published.family)]
    alike = [
        run
        for run in folder.runs
        if [phase["mode"] for phase in run.record.config.phases] == modes
        and strategy_of(run.record.config.phases) in (published.strategy, None)  # None: with settings of its own
    ]
    if same_model := [run for run in alike if run.model == published.model]:
        # Of several, as with settings of a user and without, the one with the published ones.
        return next((run for run in same_model if _has_schedule(run, published)), same_model[0]), ""
    for run in alike:
        if run.family == published.family:
            return None, f"another model: {run.model} ({run.name}), published {published.model}"
    return None, f"no run of {published.model} with the {published.strategy} schedule here"


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
}


def _config(_: RunsFolder, runs: dict[str, Run], key: str) -> Measured:
    [run] = runs.values()
    return Measured(getattr(run.record.config, key))


def _phases(_: RunsFolder, runs: dict[str, Run]) -> Measured:
    [run] = runs.values()
    phases = run.record.config.phases
    return Measured(" -> ".join(f"{phase['mode']}({phase['epochs']}, {phase['lr']:g})" for phase in phases))


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


def _first_in(_: RunsFolder, runs: dict[str, Run], measure: str, sign: int) -> Measured:
    values = {
        name: run.training_seconds if measure == "seconds" else run.metrics[measure] for name, run in runs.items()
    }
    order = sorted(values, key=lambda name: sign * values[name])
    shown = ", ".join(f"{name} {values[name]:.4f}" for name in order[:2])
    return Measured(order[0], None, f"first two: {shown}" if np.isfinite(list(values.values())).all() else "")


_RUN_MEASURES: dict[str, Callable[..., Measured]] = {
    "config": _config,
    "phases": _phases,
    "test": _test,
    "seconds": _seconds,
    "difference": _difference,
    "epoch": _epoch,
    "class": _class,
    "first": _first_in,
}
