"""The published figures beside ours, with a verdict on each: claims.json.

A verdict is one of four.
- "not measured": this folder holds nothing that could say it, such as a run that was not made.
- "cannot be compared": something stands in the way, which the reason names: generated or other data, another model,
  other weights, another schedule or input, a head on cached features, other hardware, or a figure without an interval.
- "reproduced" and "not reproduced", by the rule of the figure's kind:
  - exact: a count, a size or a setting is the same; a rounded figure, such as a mean, to the digits published.
  - interval: the published value lies in our 95 % interval, widened by half of its last published digit. Intervals of
    accuracy, F1 and ECE are those of metrics.json, of a difference between two runs those of pairwise_comparison.csv;
    of an accuracy of one epoch, of a precision and of a recall it is Wilson's; of a breed's F1 it is Wilson's of
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

from dogs_accel.datasets.stanford_dogs_published import (
    MODELS,
    NUM_BREEDS,
    NUM_IMAGES,
    PUBLISHED,
    PUBLISHED_GPU,
    RUNS,
    Claim,
)
from dogs_accel.eda.files import METADATA_FILE, SPLIT_FILE
from dogs_accel.evaluation.intervals import wilson_interval
from dogs_accel.results.folder import RunsFolder
from dogs_accel.results.layout import CLAIMS_FILE, METRICS_FILE, PAIRWISE_FILE, logits_file
from dogs_accel.results.reading import missing_columns
from dogs_accel.results.run import Run
from dogs_accel.runtime.files import write_json
from dogs_accel.training.phases import strategy_phases
from pipelines.recipe import RESNET_TRAIN, VIT_TRAIN

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
    """
    return [_judge(claim, folder) for claim in PUBLISHED]


def write_claims(folder: Path, claims: Sequence[Mapping[str, Any]]) -> Path:
    """Write claims.json; claims: what `judge_claims` says of the folder."""
    counts = count_verdicts(claims)
    rules = [" ".join(line.split()) for line in (__doc__ or "").strip().split("\n- ")]
    return write_json(folder / CLAIMS_FILE, {"rules": rules, "counts": counts, "claims": claims})


def count_verdicts(claims: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count the claims of each verdict."""
    return {verdict: sum(claim["verdict"] == verdict for claim in claims) for verdict in VERDICTS}


def _judge(claim: Claim, folder: RunsFolder) -> dict[str, Any]:
    row = {"stage": claim.stage, "subject": claim.subject, "figure": claim.figure, "published": claim.value}
    if claim.subject == "data":
        ours = _DATA_MEASURES[claim.measure[0]](folder, *claim.measure[1:])
        return row | _verdict(claim, ours, _other_data(folder), "")
    runs = []
    for name in claim.subject.split():
        run, missing = _find_run(folder, name)
        if run is None:
            verdict = INCOMPARABLE if missing.startswith("another") else NOT_MEASURED
            return row | {"ours": None, "interval": None, "verdict": verdict, "reason": missing, "run": None}
        runs.append((name, run))
    ours = _RUN_MEASURES[claim.measure[0]](folder, dict(runs), *claim.measure[1:])
    obstacle = "" if _is_setting(claim) else _first([data_obstacle(folder), *(run_obstacle(*each) for each in runs)])
    if _is_setting(claim) and claim.measure[1:] == ("total_params",) and folder.num_classes != NUM_BREEDS:
        obstacle = f"{folder.num_classes} breeds, published {NUM_BREEDS}"
    if not obstacle and "seconds" in claim.measure and PUBLISHED_GPU.split()[0] not in folder.device:
        obstacle = f"other hardware: {folder.device}; published: {PUBLISHED_GPU}"
    names = ", ".join(run.name for _, run in runs)
    note = "" if _is_setting(claim) else _first(_note(run) for _, run in runs)
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


def data_obstacle(folder: RunsFolder) -> str:
    """Say why figures that depend on the pictures cannot be compared; empty where they can."""
    return _other_data(folder) or ("" if folder.num_images == NUM_IMAGES else f"another split: {_sizes(folder)}")


def _other_data(folder: RunsFolder) -> str:
    """Say why what is counted and measured on the pictures themselves cannot be compared; empty where it can."""
    if folder.notice:
        return "generated pictures, not Stanford Dogs"
    if folder.num_classes != NUM_BREEDS or sum(folder.num_images.values()) != sum(NUM_IMAGES.values()):
        return f"other data: {_sizes(folder)}"
    return ""


def _sizes(folder: RunsFolder) -> str:
    ours, published = (
        " / ".join(f"{each[split]:,}" for split in NUM_IMAGES) for each in (folder.num_images, NUM_IMAGES)
    )
    return f"{folder.num_classes} breeds, {ours} images; published: {NUM_BREEDS}, {published}"


def run_obstacle(name: str, run: Run) -> str:
    """Say why a run cannot stand for the published one of this name; empty where it can."""
    family, strategy = RUNS[name]
    record, config = run.record, run.record.config
    if "ImageNet weights" not in record.weights:
        return f"other weights: {record.weights or 'unknown weights'}"
    if _schedule(config.phases) != _schedule(each.as_dict() for each in strategy_phases(strategy, family)):
        return f"another schedule: {record.phase_plan or config.strategy}"
    if record.cache_features:
        return "another experiment: head on cached features without augmentation"
    if (config.batch_size, config.image_size) != (32, 224):
        return f"other input: batch {config.batch_size}, {config.image_size} px; published: 32, 224 px"
    recipe = dataclasses.asdict(RESNET_TRAIN if family == "cnn" else VIT_TRAIN)
    ours = record.train_recipe
    other = [key for key, value in recipe.items() if key in ours and _as_json(value) != _as_json(ours[key])]
    return f"another training recipe: {', '.join(other)}" if other else ""


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _schedule(phases: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in phase.items() if key != "name"} for phase in phases]


def _note(run: Run) -> str:
    notes = []
    if run.record.amp:
        notes.append(f"mixed precision ({run.record.amp}), published float32")
    if run.record.bn_when_frozen == "eval" and run.family == "cnn" and len(run.record.config.phases) > 1:
        notes.append("BatchNorm of the frozen backbone keeps its statistics, published it did not")
    return "; ".join(notes)


def _find_run(folder: RunsFolder, name: str) -> tuple[Run | None, str]:
    family, strategy = RUNS[name]
    modes = [phase.mode for phase in strategy_phases(strategy, family)]
    alike = [
        run
        for run in folder.runs
        if run.family == family and [phase["mode"] for phase in run.record.config.phases] == modes
    ]
    for run in alike:
        if run.model == MODELS[family]:
            return run, ""
    if alike:
        return None, f"another model: {alike[0].model} ({alike[0].name}), published {MODELS[family]}"
    return None, f"no run of {MODELS[family]} with the {strategy} schedule here"


def _images(folder: RunsFolder, official: str) -> Measured:
    table = folder.table(METADATA_FILE)
    if missing_columns(table, ["official_split"]):
        return Measured(reason=f"{METADATA_FILE} is absent")
    assert table is not None
    return Measured(int((table["official_split"] == official).sum()) if official else len(table))


def _split(folder: RunsFolder, split: str) -> Measured:
    return Measured(int(folder.num_images[split]))


def _batches(folder: RunsFolder, split: str) -> Measured:
    batch = folder.runs[0].record.config.batch_size
    if batch != 32:
        return Measured(reason=f"batches of {batch} here")
    return Measured(math.ceil(folder.num_images[split] / batch))


def _breed_size(folder: RunsFolder, how: str) -> Measured:
    table = folder.table(METADATA_FILE)
    if missing_columns(table, ["label"]):
        return Measured(reason=f"{METADATA_FILE} is absent")
    assert table is not None
    value = float(getattr(table["label"].value_counts(), how)())
    return Measured(value if how == "mean" else int(value))


def _support(folder: RunsFolder, breed: str) -> Measured:
    for run in folder.runs:
        if run.classes is not None and breed in list(run.classes["class_name"]):
            return Measured(int(run.classes.set_index("class_name").loc[breed, "support"]))
    return Measured(reason=f"no breed {breed} here")


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
    "breeds": lambda folder: Measured(folder.num_classes),
    "split": _split,
    "breed_size": _breed_size,
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
    return Measured(run.metrics[measure], run.interval(measure), f"{METRICS_FILE} has no interval of it")


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
        if (row.run_a, row.run_b) == (full.name, staged.name):
            return Measured(gain, (float(row.low), float(row.high)))
        if (row.run_b, row.run_a) == (full.name, staged.name):
            return Measured(gain, (-float(row.high), -float(row.low)))
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


def _breed(folder: RunsFolder, runs: dict[str, Run], breed: str, score: str) -> Measured:
    [run] = runs.values()
    if run.classes is None or breed not in list(run.classes["class_name"]):
        return Measured(reason=f"no breed {breed} here")
    column = "f1-score" if score == "F1" else score
    value = float(run.classes.set_index("class_name").loc[breed, column])
    if not run.has_predictions:
        return Measured(value, None, f"{logits_file('test')} is absent")
    label = list(run.classes["class_name"]).index(breed)
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
    "breed": _breed,
    "first": _first_in,
}
