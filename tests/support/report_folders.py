"""Folders as the benchmark leaves them, made without training: for the tests of what reads them."""

import dataclasses
import json

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.stats import binomtest

from dogs_accel.calibration import calibration_bins
from dogs_accel.evaluation.metrics import evaluate_predictions, report_table, top_confusions
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.runtime.files import write_csv, write_json, write_manifest
from dogs_accel.training.phases import PUBLISHED_LR, cosine_factor, strategy_phases
from pipelines.recipe import EVAL, RESNET_TRAIN, VIT_TRAIN

NOTICE = (
    "These are generated pictures of invented animals, not dogs: no result on them says anything about real photos."
)
MODELS = {
    "resnet50": ("cnn", "ResNet-50", 23_753_912),
    "vit_b16": ("vit", "ViT-B/16", 85_890_936),
    "resnet18": ("cnn", "ResNet-18", 11_182_668),
}
LABELS = {"full": "Full fine-tuning for 12 epochs", "staged": "Head 3 + full fine-tune 8 epochs"}
SECONDS = {"resnet50_full": 227.0, "resnet50_staged": 205.0, "vit_b16_full": 943.0, "vit_b16_staged": 755.0}


def write_folder(root, class_names, names=tuple(SECONDS), *, notice=NOTICE, share_right=0.8, num_test=8, weights=None):
    """A finished benchmark: each run's record, history, metrics and logits, and the tables of the data."""
    num = len(class_names)
    labels = np.repeat(np.arange(num), num_test)
    ids = np.array([f"n{label:08}_{i}" for i, label in enumerate(labels)])
    sizes = {"train": 10 * num, "val": 2 * num, "test": len(labels)}
    write_json(root / "config.json", {"seed": 42, "seeds": 1, "data": None, "preset": "paper"})
    write_json(
        root / "environment.json",
        {
            "cpu": "AMD EPYC",
            "cores": 2,
            "memory_gib": 4.0,
            "gpus": [],
            "python": "3.11",
            "packages": {"torch": "2.15.0"},
            "command": ["benchmark.py"],
        },
    )
    for order, name in enumerate(names):
        _write_run(
            root,
            name,
            class_names,
            Predictions(_logits(labels, num, share_right, order), labels, ids),
            sizes,
            order,
            notice,
            weights,
        )
    _write_metadata(root, class_names, sizes, ids)
    write_manifest(root)
    return root


def _logits(labels, num, share_right, seed):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(len(labels), num)).astype(np.float32)
    wrong = random.random(len(labels)) > share_right
    shown = np.where(wrong, (labels + 1) % num, labels)
    logits[np.arange(len(labels)), shown] += 6
    return logits


def _write_run(root, name, class_names, predictions, sizes, order, notice, weights):
    model, strategy = name.rsplit("_", 1)
    family, display, params = MODELS[model]
    folder = root / family / name
    phases = strategy_phases(strategy, family, PUBLISHED_LR)
    recipe = RESNET_TRAIN if family == "cnn" else VIT_TRAIN
    record = {
        "run_id": f"id{order}",
        "run_name": name,
        "state": "finished",
        "created_at": f"2026-01-01T00:00:0{order}",
        "updated_at": "2026-01-01T01:00:00",
        "config": {
            "seed": 42,
            "family": family,
            "phases": [phase.as_dict() for phase in phases],
            "dataset": "synthetic",
            "strategy": LABELS[strategy],
            "batch_size": 32,
            "image_size": 224,
            "model_name": display,
            "num_classes": len(class_names),
            "total_params": params,
        },
        "summary": {},
        "phase_plan": " -> ".join(map(str, phases)),
        "weights": weights or f"{display}: ImageNet weights, new head",
        "train_recipe": dataclasses.asdict(recipe),
        "eval_recipe": dataclasses.asdict(EVAL),
        "num_images": sizes,
        "loaders": {"train": "cached"},
        "device": "cpu",
        "amp": None,
        "bn_when_frozen": "eval",
        "cache_features": False,
        "training_seconds": SECONDS.get(name, 60.0),
        "data_notice": notice,
        "profile": {
            "phases": [
                {
                    "phase": phase.name,
                    "epochs": phase.epochs,
                    "seconds": 30.0,
                    "parts_s": {"data_wait": 3.0, "forward": 10.0, "backward": 17.0},
                    "train_images_per_second": 100.0,
                    "median_step_ms": 50.0,
                    "training_flops_per_image": None,
                    "share_of_peak": None,
                }
                for phase in phases
            ],
            "peak_memory_mib": 900.0,
            "seconds_to_val_accuracy": {"0.5": 12.0, "0.9": None},
        },
    }
    write_json(folder / f"{name}_run_metadata.json", json.loads(json.dumps(record)))
    write_json(folder / "metrics.json", {"model": display, **evaluate_predictions(predictions)})
    write_csv(folder / "classification_report.csv", report_table(predictions, class_names), index=True)
    counts = np.zeros((len(class_names),) * 2, dtype=np.int64)
    np.add.at(counts, (predictions.labels, predictions.predicted), 1)
    write_csv(folder / "top_confusions.csv", top_confusions(counts, class_names))
    predictions.save(folder / "test_logits.npz")
    write_csv(folder / f"{name}_history.csv", _history(phases))


def _history(phases):
    rows, total = [], 0
    for stage, phase in enumerate(phases, start=1):
        for epoch in range(1, phase.epochs + 1):
            total += 1
            rows.append(
                {
                    "stage": stage,
                    "epoch": epoch,
                    "epoch_total": total,
                    "train_loss": 2 / total,
                    "train_acc": 1 - 0.5 / total,
                    "val_loss": 2.2 / total,
                    "val_acc": 1 - 0.6 / total,
                    "lr": phase.lr * cosine_factor(epoch, phase.epochs),
                    "phase": phase.name,
                }
            )
    return pd.DataFrame(rows)


def _write_metadata(root, class_names, sizes, test_ids):
    labels = np.resize(np.arange(len(class_names)), sum(sizes.values()))
    ids = [f"train_{i}" for i in range(len(labels) - len(test_ids))] + list(test_ids)
    splits = np.repeat(list(sizes), list(sizes.values()))
    table = pd.DataFrame(
        {
            "image_id": ids,
            "label": labels,
            "class_name": np.asarray(class_names)[labels],
            "official_split": np.where(splits == "test", "official_test", "official_train"),
            "width": 360,
            "height": 300,
            "aspect_ratio": 1.2,
            "brightness_mean": 0.45,
            "contrast_std": 0.22,
            "saturation_mean": 0.3,
            "r_mean": 0.47,
            "g_mean": 0.45,
            "b_mean": 0.39,
        }
    )
    write_csv(root / "metadata_with_quality.csv", table)
    write_csv(
        root / "split_metadata.csv", table[["image_id", "label", "class_name", "official_split"]].assign(split=splits)
    )
    duplicates = [(1, "near", 0, ids[0], "a", "train", "p"), (1, "near", 3, ids[-1], "a", "test", "p")]
    columns = ["group", "kind", "distance", "image_id", "class_name", "split", "image_path"]
    write_csv(root / "duplicates.csv", pd.DataFrame(duplicates, columns=columns))
    for name in ("random_class_samples.png", "augmented_batch_preview.png"):
        picture(root / "eda" / name)


def picture(path, size=(320, 240), colour=(90, 130, 160)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def add_analysis(root):
    """What the analysis after training adds, hand-made where it would need the model or the pictures."""
    folders = sorted(path.parent for path in root.glob("*/*/metrics.json"))
    for folder in folders:
        _add_to_run(folder)
    rows = []
    for i, a in enumerate(folders):
        for b in folders[i + 1 :]:
            rows += _pair(a, b)
    write_csv(root / "pairwise_comparison.csv", pd.DataFrame(rows))
    clusters = [
        {"run": folder.name, "cluster": 0, "breeds": "first, second", "num_confusions": 5, "share_of_mistakes": 0.4}
        for folder in folders
    ]
    write_csv(root / "confusion_clusters.csv", pd.DataFrame(clusters))
    write_manifest(root)
    return root


def _add_to_run(folder):
    predictions = Predictions.load(folder / "test_logits.npz")
    metrics = json.loads((folder / "metrics.json").read_text())
    names = ("top5_accuracy", "macro_f1", "weighted_f1", "ece", "ece_15")
    metrics |= {"nll": 0.42, "brier": 0.2}
    metrics["intervals"] = {
        "accuracy": metrics["accuracy_ci95"],
        **{name: [max(metrics[name] - 0.02, 0), metrics[name] + 0.02] for name in names},
    }
    metrics["temperature"] = {"value": 1.31, "low": 1.2, "high": 1.43, "fitted_on": "val"}
    metrics["calibrated"] = {"ece": metrics["ece"] / 2, "nll": 0.4, "intervals": {"ece": [0.01, metrics["ece"]]}}
    write_json(folder / "metrics.json", metrics)
    write_csv(
        folder / "calibration_bins.csv", pd.concat([_bins(predictions, t, n) for t in (1.0, 1.31) for n in (10, 15)])
    )
    vit = folder.parent.name == "vit"
    for name in (
        "attention_gallery.png" if vit else "gradcam_gallery.png",
        "misclassified_gallery.png",
        "quality_vs_error.png",
    ):
        picture(folder / name, (1200, 700))
    names = pd.read_csv(folder / "classification_report.csv", keep_default_na=False).iloc[:-3, 0].tolist()
    rows = []
    for i in np.flatnonzero(predictions.predicted != predictions.labels)[:3]:
        rows.append(
            {
                "id": predictions.ids[i],
                "group": "confident_wrong",
                "true_class": names[predictions.labels[i]],
                "pred_class": names[predictions.predicted[i]],
                "confidence": 0.9,
                "method": "rollout",
                "drop_hottest": 0.4,
                "drop_random": 0.1,
                "heat_in_box": 0.6,
            }
        )
        picture(folder / "explanations" / f"{predictions.ids[i]}.png", (448, 224))
    write_csv(folder / "explanations.csv", pd.DataFrame(rows))
    write_json(
        folder / "explanations.json",
        {
            "method": "rollout",
            "library": "ours",
            "shows": "where the model looked, whatever the breed",
            "grid": [7, 7],
            "methods": {
                "rollout": {
                    "drop_hottest": {"mean": 0.41, "low": 0.32, "high": 0.5},
                    "drop_random": {"mean": 0.1, "low": 0.05, "high": 0.15},
                },
            },
        },
    )
    mistakes = [
        {
            "id": row["id"],
            "image_path": "p",
            **{key: row[key] for key in ("true_class", "pred_class", "confidence")},
            "example_path": "q",
        }
        for row in rows
    ]
    write_csv(folder / "misclassified.csv", pd.DataFrame(mistakes))
    quality = [
        {
            "quantity": quantity,
            "tenth": tenth,
            "low": 0.1 * tenth,
            "high": 0.1 * tenth + 0.1,
            "num_images": 24,
            "accuracy": 0.8,
            "accuracy_low": 0.6,
            "accuracy_high": 0.9,
        }
        for quantity in ("brightness", "contrast", "saturation", "area")
        for tenth in range(1, 11)
    ]
    write_csv(folder / "quality_vs_error.csv", pd.DataFrame(quality))


def _bins(predictions, temperature, num_bins):
    logits = torch.from_numpy(predictions.logits) / temperature
    bins = calibration_bins(logits, torch.from_numpy(predictions.labels), num_bins)
    rows = []
    for i, (count, confidence, correct) in enumerate(
        zip(bins.count.tolist(), bins.confidence_sum.tolist(), bins.correct.tolist(), strict=True)
    ):
        interval = binomtest(correct, count).proportion_ci(method="wilson") if count else None
        rows.append(
            {
                "bins": num_bins,
                "temperature": temperature,
                "lower": i / num_bins,
                "upper": (i + 1) / num_bins,
                "count": count,
                "confidence": confidence / count if count else None,
                "accuracy": correct / count if count else None,
                "accuracy_low": interval and interval.low,
                "accuracy_high": interval and interval.high,
            }
        )
    return pd.DataFrame(rows)


def _pair(a, b):
    values = [json.loads((folder / "metrics.json").read_text()) for folder in (a, b)]
    rows = []
    for metric in ("accuracy", "macro_f1", "ece"):
        difference = values[1][metric] - values[0][metric]
        better = (difference < 0) == (metric == "ece")
        verdict = "no difference shown" if abs(difference) < 0.05 else "b is better" if better else "a is better"
        rows.append(
            {
                "run_a": a.name,
                "run_b": b.name,
                "metric": metric,
                "a": values[0][metric],
                "b": values[1][metric],
                "difference": difference,
                "low": difference - 0.05,
                "high": difference + 0.05,
                "mcnemar_p_holm": 0.2 if metric == "accuracy" else None,
                "verdict": verdict,
            }
        )
    return rows
