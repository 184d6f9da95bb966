"""Finished benchmarks of answers that nobody trained for, written by what writes real ones."""

import dataclasses

import numpy as np
import pandas as pd
from PIL import Image

from dogs_accel.cost.model_cost import CostSetting, Latency, ModelCost
from dogs_accel.datasets.facts import DATASET_FILE, DatasetFacts
from dogs_accel.datasets.layouts.stanford_dogs import stanford_dogs_facts
from dogs_accel.eda.files import AUGMENTED_FIGURE, DUPLICATES_FILE, SAMPLES_FIGURE, read_metadata
from dogs_accel.evaluation.galleries import MISCLASSIFIED_FIGURE, MISCLASSIFIED_FILE, write_misclassified
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.evaluation.quality_error import QUALITY_ERROR_FIGURE, QUALITY_ERROR_FILE, write_quality_error
from dogs_accel.experiment.plan import plan_runs
from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.explain.run import EXPLAINED_FILE, EXPLANATIONS_FILE, EXPLANATIONS_FOLDER, GALLERY, picture_name
from dogs_accel.results.folder import read_runs_folder
from dogs_accel.results.layout import (
    CALIBRATION_FIGURE,
    CALIBRATION_FILE,
    CLUSTERS_FILE,
    CONFIG_FILE,
    EDA_FOLDER,
    ENVIRONMENT_FILE,
    METRICS_FILE,
    PAIRWISE_FILE,
    history_file,
    record_path,
    record_paths,
    run_folder,
)
from dogs_accel.results.record import FINISHED, RunConfig, RunRecord
from dogs_accel.results.tables import write_tables
from dogs_accel.results.writing import score_predictions, write_evaluation
from dogs_accel.runtime.files import read_json, write_csv, write_json, write_manifest
from dogs_accel.training.phases import cosine_factor
from tests.support.blank_figures import blank_figures
from tests.support.metadata_frames import quality_frame, write_metadata

STANFORD_DOGS = stanford_dogs_facts("stanford-dogs")
PLAIN = DatasetFacts(
    name="flowers", title="flowers", layout="class folders in train/ and test/", left_out={"hidden file": 2}
)
"""Of data about which nothing was published."""
MACS = {"ResNet-50": 4_089_184_256, "ViT-B/16": 17_563_828_224, "ResNet-18": 1_814_073_344}
ONE_IMAGE_MS = {"ResNet-50": 6.2, "ViT-B/16": 9.15, "ResNet-18": 3.4}
PARAMS = {"ResNet-50": 23_753_912, "ViT-B/16": 85_890_936, "ResNet-18": 11_182_668}
SECONDS = {"resnet50_full": 227.0, "resnet50_staged": 205.0, "vit_b16_full": 943.0, "vit_b16_staged": 755.0}
OF_NEWER_VERSIONS = ("intervals", "temperature", "calibrated", "nll", "brier")
"""Scores that the first versions did not have."""


def write_folder(
    root, class_names, names=tuple(SECONDS), *, facts=STANFORD_DOGS, families=None, share_right=0.8, num_test=8
):
    """A finished benchmark of the published runs of these names; the explanations alone are written by hand."""
    num = len(class_names)
    write_metadata(root, quality_frame([6] * num, [num_test] * num, class_names))
    metadata = read_metadata(root)
    write_json(root / DATASET_FILE, facts.as_json())
    settings = {"seed": 42, "seeds": 1, "data": None, "preset": "paper", "val_ratio": 0.15, "test_ratio": 0.2}
    write_json(root / CONFIG_FILE, settings)
    write_json(
        root / ENVIRONMENT_FILE,
        {"cpu": "AMD EPYC", "cores": 2, "memory_gib": 4.0, "gpus": [], "python": "3.11",
         "packages": {"torch": "2.15.0"}, "command": ["benchmark.py"]},
    )  # fmt: skip
    config = BenchmarkConfig(preset="paper", models=("resnet50", "vit_b_16", "resnet18"), families=families)
    planned = {run.name: run for run in plan_runs(config.resolved())}
    with blank_figures():
        for order, name in enumerate(names):
            _write_run(root, planned[name], class_names, metadata, order, facts, share_right)
        write_tables(root, read_runs_folder(root).runs, facts)
    _write_duplicates(root, metadata.splits)
    for name in (SAMPLES_FIGURE, AUGMENTED_FIGURE):
        picture(root / EDA_FOLDER / name)
    write_manifest(root)
    return root


def with_older_names(folder):
    """Give a folder the names that files and columns had while breeds were all the classes there were."""
    (folder / DATASET_FILE).unlink()
    for suffix in ("csv", "png"):
        (folder / f"per_class_comparison.{suffix}").rename(folder / f"per_breed_comparison.{suffix}")
    for name, (new, old) in {
        "per_breed_comparison.csv": ("class", "breed"),
        CLUSTERS_FILE: ("classes", "breeds"),
    }.items():
        table = pd.read_csv(folder / name, keep_default_na=False)
        write_csv(folder / name, table.rename(columns={new: old}))
    return folder


def without_costs(folder):
    """Take from a folder what was written before costs were measured, and precision and recall."""
    for path in record_paths(folder):
        write_json(path, {key: value for key, value in read_json(path).items() if key != "cost"})
    for path in folder.glob(f"*/*/{METRICS_FILE}"):
        metrics = read_json(path)
        kept = {key: value for key, value in metrics.items() if not key.endswith(("_precision", "_recall"))}
        write_json(path, kept)
    return folder


def make_older(folder):
    """Take from a folder what the first versions did not write."""
    without_costs(folder)
    (folder / DATASET_FILE).unlink(missing_ok=True)
    for path in folder.glob(f"*/*/{METRICS_FILE}"):
        metrics = {key: value for key, value in read_json(path).items() if key not in OF_NEWER_VERSIONS}
        write_json(path, metrics)
        for name in (CALIBRATION_FILE, CALIBRATION_FIGURE, MISCLASSIFIED_FILE, MISCLASSIFIED_FIGURE, QUALITY_ERROR_FILE,
                     QUALITY_ERROR_FIGURE, EXPLAINED_FILE, EXPLANATIONS_FILE, *GALLERY.values()):  # fmt: skip
            (path.parent / name).unlink(missing_ok=True)
    for name in (PAIRWISE_FILE, CLUSTERS_FILE):
        (folder / name).unlink()
    return folder


def _write_run(root, planned, class_names, metadata, order, facts, share_right):
    folder = run_folder(root, planned.spec.family, planned.name)
    folder.mkdir(parents=True)
    answers = {
        split: _answers(metadata.splits[metadata.splits["split"] == split], len(class_names), share_right, order)
        for split in ("val", "test")
    }
    metrics = score_predictions(planned.spec.display, answers["val"], answers["test"])
    write_evaluation(folder, planned.title, class_names, answers["val"], answers["test"], metrics, noun=facts.noun)
    write_csv(folder / history_file(planned.name), _history(planned.phases))
    write_misclassified(folder, answers["test"], class_names, metadata.splits, planned.eval_recipe, planned.title)
    write_quality_error(folder, answers["test"], metadata.quality, planned.title)
    _write_explanations(folder, planned, class_names, answers["test"], facts.noun)
    record = _record(planned, len(class_names), metadata.splits, order, facts)
    write_json(record_path(folder), record.as_json())


def _answers(rows, num_classes, share_right, seed):
    """Predictions of the images of a split, of which about this share is right."""
    random = np.random.default_rng(seed)
    labels = np.array(rows["label"], dtype=np.int64)
    logits = random.normal(size=(len(labels), num_classes)).astype(np.float32)
    wrong = random.random(len(labels)) > share_right
    logits[np.arange(len(labels)), np.where(wrong, (labels + 1) % num_classes, labels)] += 6
    return Predictions(logits, labels, rows["image_id"].to_numpy().astype(np.str_))


def _record(planned, num_classes, splits, order, facts):
    return RunRecord(
        run_id=f"id{order}",
        run_name=planned.name,
        display_name=planned.title,
        state=FINISHED,
        created_at=f"2026-01-01T00:00:0{order}",
        updated_at="2026-01-01T01:00:00",
        config=RunConfig(
            seed=42,
            family=planned.spec.family,
            phases=[phase.as_dict() for phase in planned.phases],
            dataset=facts.name,
            strategy=planned.strategy,
            batch_size=32,
            image_size=224,
            model_name=planned.spec.display,
            num_classes=num_classes,
            total_params=PARAMS[planned.spec.display],
        ),
        phase_plan=" -> ".join(map(str, planned.phases)),
        weights=f"{planned.spec.display}: ImageNet weights, new head",
        train_recipe=dataclasses.asdict(planned.train_recipe),
        eval_recipe=dataclasses.asdict(planned.eval_recipe),
        num_images={split: int((splits["split"] == split).sum()) for split in ("train", "val", "test")},
        loaders={"train": "cached"},
        device="cpu",
        bn_when_frozen="eval",
        training_seconds=SECONDS.get(planned.name, 60.0),
        profile={
            "phases": [
                {"phase": phase.name, "epochs": phase.epochs, "seconds": 30.0,
                 "parts_s": {"data_wait": 3.0, "forward": 10.0, "backward": 17.0}, "train_images_per_second": 100.0,
                 "median_step_ms": 50.0, "training_flops_per_image": None, "share_of_peak": None}
                for phase in planned.phases
            ],
            "peak_memory_mib": 900.0,
            "seconds_to_val_accuracy": {"0.5": 12.0, "0.9": None},
        },
        cost=_cost(planned.spec, num_classes).as_json(),
        data_notice=facts.notice,
    )  # fmt: skip


def _cost(spec, num_classes):
    setting = CostSetting(
        model=spec.name, image_size=224, num_classes=num_classes, batch_size=32, device="cpu", device_name="AMD EPYC",
        precision="float32", num_threads=2, channels_last=True, torch="2.15.0",
    )  # fmt: skip
    median = ONE_IMAGE_MS[spec.display]
    return ModelCost(
        setting=setting,
        display=spec.display,
        parameters=PARAMS[spec.display],
        buffer_bytes=0,
        macs=MACS[spec.display],
        one_image_ms=Latency(median=median, low=0.9 * median, high=1.2 * median, rounds=31),
        batch_ms=Latency(median=20 * median, low=19 * median, high=22 * median, rounds=7),
        peak_memory_bytes=5 * PARAMS[spec.display],
    )


def _history(phases):
    rows, total = [], 0
    for stage, phase in enumerate(phases, start=1):
        for epoch in range(1, phase.epochs + 1):
            total += 1
            rows.append(
                {"stage": stage, "epoch": epoch, "epoch_total": total, "train_loss": 2 / total,
                 "train_acc": 1 - 0.5 / total, "val_loss": 2.2 / total, "val_acc": 1 - 0.6 / total,
                 "lr": phase.lr * cosine_factor(epoch, phase.epochs), "phase": phase.name}
            )  # fmt: skip
    return pd.DataFrame(rows)


def _write_explanations(folder, planned, class_names, test, noun):
    method = "gradcam" if planned.spec.kind == "cnn" else "attention"
    picture(folder / GALLERY[method], (1200, 700))
    rows = []
    for at in np.flatnonzero(test.predicted != test.labels)[:3]:
        rows.append(
            {"id": test.ids[at], "group": "confident_wrong", "true_class": class_names[test.labels[at]],
             "pred_class": class_names[test.predicted[at]], "confidence": 0.9, "method": "rollout",
             "drop_hottest": 0.4, "drop_random": 0.1, "heat_in_box": 0.6}
        )  # fmt: skip
        picture(folder / EXPLANATIONS_FOLDER / picture_name(test.ids[at]), (448, 224))
    columns = ["id", "group", "true_class", "pred_class", "confidence", "method", "drop_hottest", "drop_random",
               "heat_in_box"]  # fmt: skip
    write_csv(folder / EXPLAINED_FILE, pd.DataFrame(rows, columns=columns))
    means = {"drop_hottest": {"mean": 0.41, "low": 0.32, "high": 0.5},
             "drop_random": {"mean": 0.1, "low": 0.05, "high": 0.15}}  # fmt: skip
    write_json(
        folder / EXPLANATIONS_FILE,
        {"method": method, "library": "ours", "shows": f"where the model looked, whatever the {noun}",
         "grid": [7, 7], "methods": {"rollout": means}},
    )  # fmt: skip


def _write_duplicates(root, splits):
    """One training image and one test image that look alike."""
    ids = [splits.loc[splits["split"] == split, "image_id"].iloc[0] for split in ("train", "test")]
    rows = [
        (1, "near", 3 * at, each, "a", split, "p")
        for at, (each, split) in enumerate(zip(ids, ("train", "test"), strict=True))
    ]
    columns = ["group", "kind", "distance", "image_id", "class_name", "split", "image_path"]
    write_csv(root / DUPLICATES_FILE, pd.DataFrame(rows, columns=columns))


def picture(path, size=(320, 240), colour=(90, 130, 160)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
