"""Folders of finished runs that nobody made and no disk holds: what their records and scores say is up to the test."""

import dataclasses
from pathlib import Path

import pandas as pd

from dogs_accel.datasets.facts import DATASET_FILE, DatasetFacts
from dogs_accel.eda.files import METADATA_FILE, SPLIT_FILE
from dogs_accel.results.folder import RunsFolder
from dogs_accel.results.layout import (
    CLASSES_FILE,
    ENVIRONMENT_FILE,
    METRICS_FILE,
    PAIRWISE_FILE,
    history_file,
    logits_file,
)
from dogs_accel.results.record import FINISHED, RunConfig, RunRecord
from dogs_accel.results.run import Run

NOWHERE = Path("nowhere")


def made_up_run(published, name, *, num_images, num_classes, params=0, val=(), recall=None, config=None, **record):
    """Make a run with the settings of a published one, but for those of config and record.

    Scores of the test split are given by name as (value, low, high); val: accuracy of each epoch; recall: by class.
    """
    theirs = published.runs[name]
    scores = {key: record.pop(key) for key in ("accuracy", "macro_f1", "top5_accuracy") if key in record}
    metrics = {key: value for key, (value, _, _) in scores.items()}
    metrics["intervals"] = {key: [low, high] for key, (_, low, high) in scores.items()}
    settings = {
        "seed": 42, "family": theirs.family, "dataset": "made-up", "strategy": theirs.strategy,
        "phases": list(theirs.schedules[0]) if theirs.schedules else [],
        "batch_size": theirs.batch_sizes[0] if theirs.batch_sizes else 32, "image_size": theirs.image_size,
        "model_name": theirs.model, "num_classes": num_classes, "total_params": params,
    }  # fmt: skip
    known = {
        "run_id": name, "run_name": name, "display_name": name, "state": FINISHED,
        "weights": {"imagenet": "ImageNet weights, new head", "none": "random weights"}[theirs.weights],
        "train_recipe": dataclasses.asdict(theirs.train_recipes[0]) if theirs.train_recipes else {},
        "eval_recipe": dataclasses.asdict(theirs.eval_recipes[0]), "num_images": num_images, "device": "cpu",
        "bn_when_frozen": "eval", "best_val_accuracy": max(val, default=0.0),
        "amp": None if theirs.precision in ("", "float32") else theirs.precision,
    }  # fmt: skip
    run = RunRecord(**known | {"config": RunConfig(**settings | (config or {}))} | record)
    epochs = [{"epoch_total": epoch, "val_acc": accuracy} for epoch, accuracy in enumerate(val, start=1)]
    classes = None
    if recall:
        rows = [{"Unnamed: 0": each, "precision": 0.5, "recall": share, "f1-score": 0.5, "support": 10}
                for each, share in recall.items()]  # fmt: skip
        classes = pd.DataFrame(rows + 3 * [{"Unnamed: 0": "accuracy"}])
    files = {
        METRICS_FILE: metrics, history_file(name): pd.DataFrame(epochs), CLASSES_FILE: classes,
        logits_file("test"): None,
    }  # fmt: skip
    return Run(NOWHERE, run.recorded(), files)


def made_up_folder(key, runs, official=None, pairwise=None, **facts):
    """Make the folder of these runs on data about which something was published; official: images by official part;
    pairwise: the table of pairs."""
    parts = [part for part, num in (official or {}).items() for _ in range(num)]
    files = {
        DATASET_FILE: DatasetFacts(name=key, title=key, layout="made up", published=key, **facts).as_json(),
        METADATA_FILE: pd.DataFrame({"official_split": parts}), SPLIT_FILE: None, PAIRWISE_FILE: pairwise,
        ENVIRONMENT_FILE: {},
    }  # fmt: skip
    return RunsFolder(NOWHERE, runs, known=files)
