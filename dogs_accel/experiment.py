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
from dogs_accel.models import build_model, count_total_params
from dogs_accel.plan import SPLITS, Plan, PlannedRun
from dogs_accel.plots import calibration_figure, confusion_figure, save_figure
from dogs_accel.tracking import GROUP, JOB_TYPE, TrackedRun
from dogs_accel.train import TIMING_NOTE, HistoryRow, Trainer, TrainResult
from pipelines import Loader, make_loader


def run_loaders(plan: Plan, run: PlannedRun) -> dict[str, Loader]:
    """Make the loaders of the three splits."""
    assert plan.config.batch_size is not None
    loaders = {}
    for split in SPLITS:
        index = plan.splits[split]
        loaders[split] = make_loader(
            [plan.data.paths[i] for i in index],
            plan.data.labels[index],
            run.train_recipe if split == "train" else run.eval_recipe,
            backend=plan.config.loader,
            batch_size=plan.config.batch_size,
            device=plan.device,
            seed=plan.config.seed,
            shuffle=split == "train",
            num_threads=plan.config.num_threads,
        )
    return loaders


def execute_run(plan: Plan, run: PlannedRun) -> RunOutcome:
    """Train, evaluate and write one run into its folder."""
    config, data = plan.config, plan.data
    assert config.weights is not None
    folder = plan.out / run.spec.family / run.name
    folder.mkdir(parents=True)
    torch.manual_seed(config.seed)
    built = build_model(run.spec, data.num_classes, config.weights, config.seed)
    total_params = count_total_params(built.model)
    print(f"\n{run.title}\n  {built.note}, {total_params:,} parameters")
    tracked = TrackedRun(
        name=run.name,
        display_name=run.title,
        mode=config.wandb,
        folder=plan.out / "wandb",
        config={
            "seed": config.seed,
            "family": run.spec.family,
            "phases": [dataclasses.asdict(phase) for phase in run.phases],
            "dataset": data.name,
            "strategy": run.strategy,
            "batch_size": config.batch_size,
            "image_size": run.spec.image_size,
            "model_name": run.spec.display,
            "num_classes": data.num_classes,
            "total_params": total_params,
        },
    )
    loaders = run_loaders(plan, run)
    try:
        with tracked:
            trained = _train(plan, run, built.model, loaders, tracked, folder)
            # The test split is read here, once, after every choice has been made on validation.
            predictions = {
                split: predict(
                    built.model,
                    loaders[split],
                    [data.ids[i] for i in plan.splits[split]],
                    amp=plan.amp,
                    label=f"{run.name} {split}",
                )
                for split in ("val", "test")
            }
            metrics = {split: evaluate_predictions(predictions[split]) for split in predictions}
            _summarise(tracked, trained, metrics)
    finally:
        for loader in loaders.values():
            loader.close()
    _write_run(folder, run, data, trained, predictions, metrics)
    _write_run_metadata(folder, run, plan, trained, tracked, built.note, {s: loaders[s].backend for s in SPLITS})
    test = metrics["test"]
    low, high = test["accuracy_ci95"]
    print(
        f"  test accuracy {test['accuracy']:.4f} (95 % interval {low:.4f} to {high:.4f}), macro F1 "
        f"{test['macro_f1']:.4f}, ECE {test['ece']:.4f} ({test['ece_bins']} bins)\n"
        f"  trained in {trained.training_seconds:.1f} s at {trained.images_per_second:,.0f} img/s, best epoch "
        f"{trained.best_epoch}"
    )
    return RunOutcome(
        model=run.spec.display,
        family=run.spec.family,
        strategy=run.strategy,
        total_params=total_params,
        training_seconds=trained.training_seconds,
        metrics=test,
        tracked=tracked.as_row(),
    )


def _train(
    plan: Plan, run: PlannedRun, model: nn.Module, loaders: dict[str, Loader], tracked: TrackedRun, folder: Path
) -> TrainResult:
    num_epochs = sum(phase.epochs for phase in run.phases)

    def on_epoch(row: HistoryRow) -> None:
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
        loaders["train"],
        loaders["val"],
        num_classes=plan.data.num_classes,
        device=plan.device,
        folder=folder,
        amp=plan.amp,
        bn_when_frozen=plan.config.bn_when_frozen,
        label=run.name,
        on_epoch=on_epoch,
    )
    return trainer.run(run.phases)


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


def _write_run(
    folder: Path,
    run: PlannedRun,
    data: Dataset,
    trained: TrainResult,
    predictions: dict[str, Predictions],
    metrics: dict[str, dict[str, Any]],
) -> None:
    test = predictions["test"]
    for split, saved in predictions.items():
        saved.save(folder / f"{split}_logits.npz")
    write_csv(folder / f"{run.name}_history.csv", pd.DataFrame(trained.history))
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
