"""One run of the benchmark, from a model's name to its folder of artifacts."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import confusion_matrix
from torch import nn

from dogs_accel.datasets import Dataset
from dogs_accel.eda.files import read_metadata
from dogs_accel.evaluation.figures import calibration_figure, confusion_figure
from dogs_accel.evaluation.galleries import write_misclassified
from dogs_accel.evaluation.metrics import (
    calibration_table,
    evaluate_predictions,
    evaluate_test,
    report_table,
    top_confusions,
)
from dogs_accel.evaluation.predictions import Predictions, predict
from dogs_accel.evaluation.quality_error import write_quality_error
from dogs_accel.experiment.loaders import images_loader, plain_train_loader, split_loader
from dogs_accel.experiment.plan import Plan, PlannedRun, bn_sees
from dogs_accel.explain.run import write_explanations
from dogs_accel.models.build import BuiltModel, build_model
from dogs_accel.models.flops import count_flops, peak_flops
from dogs_accel.models.freezing import count_total_params
from dogs_accel.plots import save_figure
from dogs_accel.results.comparison import RunOutcome
from dogs_accel.runtime.environment import cpu_name
from dogs_accel.runtime.files import read_json, sha256, write_csv, write_json
from dogs_accel.training.checkpoint import CheckpointError, require_same_run
from dogs_accel.training.profile_summary import profile_figure, summarise_profile
from dogs_accel.training.tracking import TrackedRun, summary_row
from dogs_accel.training.trainer import TIMING_NOTE, HistoryRow, Trainer, TrainResult
from pipelines import Loader


def execute_run(plan: Plan, run: PlannedRun) -> RunOutcome:
    """Train, evaluate and write one run into its folder, or read what it has left there if it is finished.

    What a later step needs is on disk before it starts: a failure costs that step and nothing before it. Of several
    processes the first alone writes.
    """
    folder = plan.out / run.spec.family / run.name
    metadata_path = folder / f"{run.name}_run_metadata.json"
    identity = run_identity(plan, run)
    record = plan.world.broadcast(lambda: _read_record(metadata_path, identity))
    if record is not None and record["state"] == "finished":
        print(f"\n{run.title}\n  finished already, test accuracy {record['summary']['test/accuracy']:.4f}")
        return _outcome(plan, run, folder, record)
    built = build_model(run.spec, plan.data.num_classes, _weights(plan), run.seed)
    print(f"\n{run.title}\n  {built.note}, {count_total_params(built.model):,} parameters")
    tracked = _tracked_run(plan, run, count_total_params(built.model), record)

    def begin() -> None:
        folder.mkdir(parents=True, exist_ok=plan.resumes)
        write_json(metadata_path, {**tracked.as_record(), "identity": identity})

    plan.world.broadcast(begin)
    with ExitStack() as stack:
        plan.world.on_all_ranks(lambda: stack.enter_context(tracked))
        metadata = _train_and_evaluate(plan, run, built, tracked, folder)
    record = plan.world.broadcast(lambda: {**tracked.as_record(), "identity": identity, **metadata})
    if plan.world.is_rank_zero:
        # The last file: a run that has it is finished.
        write_json(metadata_path, record)
    return _outcome(plan, run, folder, record)


def _read_record(path: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Read what a run has written of itself, if it was begun. Raises CheckpointError where it was another one."""
    if not path.exists():
        return None
    try:
        record = read_json(path)
    except ValueError as error:
        raise CheckpointError(f"checkpoint: {error}; remove it to run that run again") from error
    require_same_run(path, record.get("identity", {}), identity)
    return record


def _weights(plan: Plan) -> str:
    assert plan.config.weights is not None
    return plan.config.weights


def _tracked_run(plan: Plan, run: PlannedRun, total_params: int, record: dict[str, Any] | None) -> TrackedRun:
    """Make the run as W&B knows it, in the first process; record is what was written of it before it was stopped."""
    known = {key: record[key] for key in ("run_id", "created_at")} if record is not None else {}
    return TrackedRun(
        name=run.name,
        display_name=run.title,
        mode=plan.config.wandb if plan.world.is_rank_zero else "disabled",
        folder=plan.out,
        config={
            "seed": run.seed,
            "family": run.spec.family,
            "phases": [phase.as_dict() for phase in run.phases],
            "dataset": plan.data.name,
            "strategy": run.strategy,
            "batch_size": plan.batch_size,
            "image_size": run.spec.image_size,
            "model_name": run.spec.display,
            "num_classes": plan.data.num_classes,
            "total_params": total_params,
        },
        resumes=record is not None,
        **known,
    )


def run_identity(plan: Plan, run: PlannedRun) -> dict[str, Any]:
    """Say what makes a run the run that it is: a checkpoint of a run with another identity is not gone on with."""
    return {
        "model": run.spec.name,
        "image_size": run.spec.image_size,
        "num_classes": plan.data.num_classes,
        "weights": _weights(plan) if _weights(plan) in ("imagenet", "none") else sha256(Path(_weights(plan))),
        "seed": run.seed,
        "batch_size": plan.batch_size,
        "phases": [phase.as_dict() for phase in run.phases],
        "train_recipe": dataclasses.asdict(run.train_recipe),
        "eval_recipe": dataclasses.asdict(run.eval_recipe),
        "amp": str(plan.amp),
        "tf32": plan.config.tf32,
        "bn_when_frozen": plan.config.bn_when_frozen,
        "cache_features": plan.config.cache_features,
        "images": {split: plan.data.digest(index) for split, index in plan.splits.items()},
    }


def _train_and_evaluate(
    plan: Plan, run: PlannedRun, built: BuiltModel, tracked: TrackedRun, folder: Path
) -> dict[str, Any]:
    """Do the work of a run; returns what its metadata say beside what W&B knows."""
    with ExitStack() as stack:
        train_loader = stack.enter_context(split_loader(plan, run, "train"))
        val_loader = stack.enter_context(split_loader(plan, run, "val"))
        plain_loader = stack.enter_context(plain_train_loader(plan, run)) if plan.config.cache_features else None
        trainer = _trainer(plan, run, built.model, train_loader, val_loader, plain_loader, tracked, folder)
        trained = trainer.run(run.phases, resume=plan.resumes)
        predictions = {"val": _predict(plan, run, trainer.model, val_loader, "val")}
    # The test split is read here, once, after every choice has been made on validation.
    with split_loader(plan, run, "test") as test_loader:
        predictions["test"] = _predict(plan, run, trainer.model, test_loader, "test")
    metrics = {
        "val": evaluate_predictions(predictions["val"]),
        "test": evaluate_test(predictions["test"], predictions["val"]),
    }
    _summarise(tracked, trained, metrics)
    if plan.world.is_rank_zero:
        for split, each in predictions.items():
            each.save(folder / f"{split}_logits.npz")
        _write_artifacts(folder, run, plan.data, predictions["test"], metrics)
        save_figure(profile_figure(trained.history, run.title), folder / "training_profile.png")
        _write_analysis(plan, run, trainer.model, predictions["test"], folder)
    _print_result(trained, metrics["test"])
    backends = {"train": train_loader.backend, "val": val_loader.backend, "test": test_loader.backend}
    return _describe_run(plan, run, trained, built.note, backends)


def _trainer(
    plan: Plan,
    run: PlannedRun,
    model: nn.Module,
    train_loader: Loader,
    val_loader: Loader,
    plain_loader: Loader | None,
    tracked: TrackedRun,
    folder: Path,
) -> Trainer:
    num_epochs = sum(phase.epochs for phase in run.phases)

    def write(history: list[HistoryRow]) -> None:
        write_csv(folder / f"{run.name}_history.csv", pd.DataFrame(history))

    def on_epoch(history: list[HistoryRow]) -> None:
        write(history)
        row = history[-1]
        print(
            f"  epoch {row['epoch_total']:>2}/{num_epochs}  {row['phase']:<13}  train loss {row['train_loss']:.3f} "
            f"acc {row['train_acc']:.3f}  val loss {row['val_loss']:.3f} acc {row['val_acc']:.3f}",
            flush=True,
        )
        _log(tracked, row)

    def on_resume(history: list[HistoryRow]) -> None:
        write(history)
        print(f"  goes on after epoch {len(history)}/{num_epochs}")
        for row in history:
            _log(tracked, row)

    return Trainer(
        model,
        train_loader,
        val_loader,
        num_classes=plan.data.num_classes,
        device=plan.device,
        folder=folder,
        seed=run.seed,
        settings=plan.step,
        bn_when_frozen=plan.config.bn_when_frozen,
        plain_train_loader=plain_loader,
        world=plan.world,
        identity=run_identity(plan, run),
        session=_session(plan),
        label=run.name,
        trace=plan.config.profile,
        on_epoch=on_epoch if plan.world.is_rank_zero else None,
        on_resume=on_resume if plan.world.is_rank_zero else None,
    )


def _log(tracked: TrackedRun, row: HistoryRow) -> None:
    tracked.log(
        {
            **{f"train/{name}": row[f"train_{name}"] for name in ("loss", "acc", "macro_f1", "weighted_f1")},
            **{f"val/{name}": row[f"val_{name}"] for name in ("loss", "acc", "macro_f1", "weighted_f1")},
            "trainer/lr": row["lr"],
        },
        step=row["epoch_total"],
    )


def _predict(plan: Plan, run: PlannedRun, model: nn.Module, loader: Loader, split: str) -> Predictions:
    ids = [plan.data.ids[i] for i in plan.splits[split]]
    return predict(model, loader, ids, amp=plan.amp, world=plan.world, label=f"{run.name} {split}")


def _print_result(trained: TrainResult, test: dict[str, Any]) -> None:
    low, high = test["accuracy_ci95"]
    print(
        f"  test accuracy {test['accuracy']:.4f} (95 % interval {low:.4f} to {high:.4f}), macro F1 "
        f"{test['macro_f1']:.4f}, ECE {test['ece']:.4f} ({test['ece_bins']} bins)\n"
        f"  trained in {trained.training_seconds:.1f} s at {trained.images_per_second:,.0f} img/s, best epoch "
        f"{trained.best_epoch}"
    )


def _summarise(tracked: TrackedRun, trained: TrainResult, metrics: dict[str, dict[str, Any]]) -> None:
    test = metrics["test"]
    tracked.summarise(
        {
            **{f"test/{name}": test[name] for name in ("accuracy", "macro_f1", "weighted_f1", "ece")},
            "trainer/training_seconds": trained.training_seconds,
            "evaluation/best_epoch": trained.best_epoch,
            "evaluation/val_accuracy": metrics["val"]["accuracy"],
        }
    )


def _write_artifacts(
    folder: Path, run: PlannedRun, data: Dataset, test: Predictions, metrics: dict[str, dict[str, Any]]
) -> None:
    write_json(folder / "metrics.json", {"model": run.spec.display, **metrics["test"], "val": metrics["val"]})
    write_csv(folder / "classification_report.csv", report_table(test, data.class_names), index=True)
    counts = confusion_matrix(test.labels, test.predicted, labels=np.arange(data.num_classes))
    write_csv(folder / "top_confusions.csv", top_confusions(counts, data.class_names))
    for normalized, name in ((False, "counts"), (True, "normalized")):
        figure = confusion_figure(counts, data.class_names, run.title, normalized=normalized)
        save_figure(figure, folder / f"confusion_matrix_{name}.png")
    bins = calibration_table(test, metrics["test"]["temperature"]["value"])
    write_csv(folder / "calibration_bins.csv", bins)
    save_figure(calibration_figure(bins, metrics["test"], run.title), folder / "calibration.png")


def _write_analysis(plan: Plan, run: PlannedRun, model: nn.Module, test: Predictions, folder: Path) -> None:
    """Write what the answers on the test split tell beside scores: mistakes, their conditions, what was looked at."""
    metadata = read_metadata(plan.out)
    write_misclassified(folder, test, plan.data.class_names, metadata.splits, run.eval_recipe, run.title)
    write_quality_error(folder, test, metadata.quality, run.title)
    write_explanations(
        folder,
        model,
        lambda index: images_loader(plan, run, index),
        test,
        plan.data,
        run.eval_recipe,
        title=run.title,
        seed=run.seed,
    )


def _session(plan: Plan) -> dict[str, Any]:
    """Say where this process computes, and with which switches."""
    return {
        "device": str(plan.device),
        "device_name": torch.cuda.get_device_name(plan.device) if plan.device.type == "cuda" else cpu_name(),
        "num_processes": plan.world.size,
        "bn_sees": bn_sees(plan),
        "eval_batch_size": plan.eval_batch_size,
        "step": {name: value for name, value in dataclasses.asdict(plan.step).items() if name != "amp"},
    }


def _describe_run(
    plan: Plan, run: PlannedRun, trained: TrainResult, weights: str, backends: dict[str, str]
) -> dict[str, Any]:
    flops = [
        None
        if plan.config.cache_features and phase.mode == "head_only"
        else count_flops(run.spec, plan.data.num_classes, phase.mode)
        for phase in run.phases
    ]
    return {
        "phase_plan": " -> ".join(map(str, run.phases)),
        "weights": weights,
        "train_recipe": dataclasses.asdict(run.train_recipe),
        "eval_recipe": dataclasses.asdict(run.eval_recipe),
        "num_images": {split: len(index) for split, index in plan.splits.items()},
        "loaders": backends,
        **_session(plan),
        "amp": str(plan.amp).removeprefix("torch.") if plan.amp else None,
        "bn_when_frozen": plan.config.bn_when_frozen,
        "cache_features": plan.config.cache_features,
        "training_seconds": trained.training_seconds,
        "training_seconds_note": TIMING_NOTE,
        "checkpoint_seconds": trained.checkpoint_seconds,
        "images_per_second": trained.images_per_second,
        "best_epoch": trained.best_epoch,
        "best_val_accuracy": trained.best_val_accuracy,
        "sessions": trained.sessions,
        "profile": summarise_profile(trained.history, flops, _peak(plan, trained.sessions), plan.world.size),
        "data_notice": plan.data.notice,
    }


def _peak(plan: Plan, sessions: list[dict[str, Any]]) -> float | None:
    """Peak of one device in operations a second, where it is known and the run was always on the same ones."""
    if len({(session["device_name"], session["num_processes"]) for session in sessions}) > 1:
        return None
    return peak_flops(plan.device, plan.amp, plan.config.tf32)


def _outcome(plan: Plan, run: PlannedRun, folder: Path, record: dict[str, Any]) -> RunOutcome:
    """Read what the comparison needs of a finished run.

    Raises CheckpointError where an older version evaluated it, without the intervals that are compared.
    """
    metrics = plan.world.broadcast(lambda: read_json(folder / "metrics.json"))
    if "intervals" not in metrics:
        raise CheckpointError(
            f"checkpoint: {folder / 'metrics.json'} has no intervals, an older version wrote it; remove {folder} to "
            "run that run again"
        )
    return RunOutcome(
        model=run.spec.display,
        family=run.spec.family,
        strategy=run.strategy,
        seed=run.seed,
        total_params=record["config"]["total_params"],
        training_seconds=record["training_seconds"],
        metrics=metrics,
        tracked=summary_row(record),
    )
