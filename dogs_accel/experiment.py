"""One run of the benchmark, from a model's name to its folder of artifacts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import confusion_matrix
from torch import nn

from dogs_accel.calibration import calibration_bins
from dogs_accel.comparison import RunOutcome
from dogs_accel.datasets import Dataset
from dogs_accel.evaluate import PUBLISHED_BINS, Predictions, evaluate_predictions, predict, report_table, top_confusions
from dogs_accel.files import write_csv, write_json
from dogs_accel.loading import split_loader
from dogs_accel.models import build_model, count_total_params
from dogs_accel.plan import Plan, PlannedRun
from dogs_accel.plots import calibration_figure, confusion_figure, save_figure
from dogs_accel.tracking import GROUP, JOB_TYPE, TrackedRun
from dogs_accel.train import TIMING_NOTE, HistoryRow, Trainer, TrainResult
from pipelines import Loader


def execute_run(plan: Plan, run: PlannedRun) -> RunOutcome:
    """Train, evaluate and write one run into its folder.

    What a later step needs is on disk before it starts: a failure costs that step and nothing before it.
    """
    config, data = plan.config, plan.data
    assert config.weights is not None
    folder = plan.out / run.spec.family / run.name
    folder.mkdir(parents=True)
    torch.manual_seed(run.seed)
    built = build_model(run.spec, data.num_classes, config.weights, run.seed)
    total_params = count_total_params(built.model)
    print(f"\n{run.title}\n  {built.note}, {total_params:,} parameters")
    with _tracked_run(plan, run, total_params) as tracked:
        with split_loader(plan, run, "train") as train_loader, split_loader(plan, run, "val") as val_loader:
            trained = _train(plan, run, built.model, train_loader, val_loader, tracked, folder)
            predictions = {"val": _predict(plan, run, built.model, val_loader, "val", folder)}
        # The test split is read here, once, after every choice has been made on validation.
        with split_loader(plan, run, "test") as test_loader:
            predictions["test"] = _predict(plan, run, built.model, test_loader, "test", folder)
        metrics = {split: evaluate_predictions(predictions[split]) for split in predictions}
        _summarise(tracked, trained, metrics)
        _write_artifacts(folder, run, data, predictions["test"], metrics)
        backends = {"train": train_loader.backend, "val": val_loader.backend, "test": test_loader.backend}
        _write_run_metadata(folder, run, plan, trained, tracked, built.note, backends)
    _print_result(trained, metrics["test"])
    return RunOutcome(
        model=run.spec.display,
        family=run.spec.family,
        strategy=run.strategy,
        seed=run.seed,
        total_params=total_params,
        training_seconds=trained.training_seconds,
        metrics=metrics["test"],
        tracked=tracked.as_row(),
    )


def _tracked_run(plan: Plan, run: PlannedRun, total_params: int) -> TrackedRun:
    return TrackedRun(
        name=run.name,
        display_name=run.title,
        mode=plan.config.wandb,
        folder=plan.out,
        config={
            "seed": run.seed,
            "family": run.spec.family,
            "phases": [dataclasses.asdict(phase) for phase in run.phases],
            "dataset": plan.data.name,
            "strategy": run.strategy,
            "batch_size": plan.config.batch_size,
            "image_size": run.spec.image_size,
            "model_name": run.spec.display,
            "num_classes": plan.data.num_classes,
            "total_params": total_params,
        },
    )


def _train(
    plan: Plan,
    run: PlannedRun,
    model: nn.Module,
    train_loader: Loader,
    val_loader: Loader,
    tracked: TrackedRun,
    folder: Path,
) -> TrainResult:
    num_epochs = sum(phase.epochs for phase in run.phases)
    history: list[HistoryRow] = []

    def on_epoch(row: HistoryRow) -> None:
        history.append(row)
        write_csv(folder / f"{run.name}_history.csv", pd.DataFrame(history))
        tracked.log(
            {
                **{f"train/{name}": row[f"train_{name}"] for name in ("loss", "acc", "macro_f1", "weighted_f1")},
                **{f"val/{name}": row[f"val_{name}"] for name in ("loss", "acc", "macro_f1", "weighted_f1")},
                "trainer/lr": row["lr"],
            },
            step=row["epoch_total"],
        )
        print(
            f"  epoch {row['epoch_total']:>2}/{num_epochs}  {row['phase']:<13}  train loss {row['train_loss']:.3f} "
            f"acc {row['train_acc']:.3f}  val loss {row['val_loss']:.3f} acc {row['val_acc']:.3f}",
            flush=True,
        )

    trainer = Trainer(
        model,
        train_loader,
        val_loader,
        num_classes=plan.data.num_classes,
        device=plan.device,
        folder=folder,
        amp=plan.amp,
        bn_when_frozen=plan.config.bn_when_frozen,
        label=run.name,
        on_epoch=on_epoch,
    )
    return trainer.run(run.phases)


def _predict(plan: Plan, run: PlannedRun, model: nn.Module, loader: Loader, split: str, folder: Path) -> Predictions:
    ids = [plan.data.ids[i] for i in plan.splits[split]]
    predictions = predict(model, loader, ids, amp=plan.amp, label=f"{run.name} {split}")
    predictions.save(folder / f"{split}_logits.npz")
    return predictions


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
    bins = calibration_bins(torch.from_numpy(test.logits), torch.from_numpy(test.labels), PUBLISHED_BINS)
    figure = calibration_figure(
        bins.count.numpy(),
        bins.confidence_sum.numpy(),
        bins.correct.numpy(),
        metrics["test"]["ece"],
        run.title,
    )
    save_figure(figure, folder / "calibration.png")


def _write_run_metadata(
    folder: Path,
    run: PlannedRun,
    plan: Plan,
    trained: TrainResult,
    tracked: TrackedRun,
    weights: str,
    backends: dict[str, str],
) -> None:
    write_json(
        folder / f"{run.name}_run_metadata.json",
        {
            "run_id": tracked.run_id,
            "group": GROUP,
            "job_type": JOB_TYPE,
            "phase_plan": " -> ".join(map(str, run.phases)),
            "config": tracked.config,
            "summary": tracked.summary,
            "weights": weights,
            "train_recipe": dataclasses.asdict(run.train_recipe),
            "eval_recipe": dataclasses.asdict(run.eval_recipe),
            "num_images": {split: len(index) for split, index in plan.splits.items()},
            "loaders": backends,
            "device": str(plan.device),
            "amp": str(plan.amp).removeprefix("torch.") if plan.amp else None,
            "bn_when_frozen": plan.config.bn_when_frozen,
            "training_seconds": trained.training_seconds,
            "training_seconds_note": TIMING_NOTE,
            "checkpoint_seconds": trained.checkpoint_seconds,
            "images_per_second": trained.images_per_second,
            "best_epoch": trained.best_epoch,
            "best_val_accuracy": trained.best_val_accuracy,
            "data_notice": plan.data.notice,
        },
    )
