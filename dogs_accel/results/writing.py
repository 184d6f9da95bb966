"""What follows from the predictions of a run, written into its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from dogs_accel.evaluation.figures import calibration_figure, confusion_figure
from dogs_accel.evaluation.metrics import (
    calibration_table,
    evaluate_predictions,
    evaluate_test,
    report_table,
    top_confusions,
)
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.plots import save_figure
from dogs_accel.results.layout import (
    CALIBRATION_FIGURE,
    CALIBRATION_FILE,
    CLASSES_FILE,
    CONFUSION_COUNTS_FIGURE,
    CONFUSION_SHARES_FIGURE,
    CONFUSIONS_FILE,
    METRICS_FILE,
    logits_file,
)
from dogs_accel.runtime.files import write_csv, write_json
from dogs_accel.steps import Step, any_failure_ends


def score_predictions(model: str, val: Predictions, test: Predictions) -> dict[str, Any]:
    """Compute what metrics.json holds: the scores of the test split, and under "val" those of validation."""
    return {"model": model, **evaluate_test(test, val), "val": evaluate_predictions(val)}


def write_evaluation(
    folder: Path,
    title: str,
    class_names: Sequence[str],
    val: Predictions,
    test: Predictions,
    metrics: dict[str, Any],
    *,
    noun: str = "class",
    step: Step = any_failure_ends,
) -> dict[str, Any]:
    """Write logits, scores, and the tables and figures of the test split.

    metrics: what `score_predictions` says; noun: what a class is called in the figures; step: the block of each thing
    that nothing else needs. Returns what a `Run` of the folder then knows of its files.
    """
    known = {logits_file("val"): val, logits_file("test"): test, METRICS_FILE: metrics}
    # The logits first, from which all the rest can be made again.
    val.save(folder / logits_file("val"))
    test.save(folder / logits_file("test"))
    write_json(folder / METRICS_FILE, metrics)
    write_csv(folder / CLASSES_FILE, report_table(test, class_names), index=True)
    counts = confusion_matrix(test.labels, test.predicted, labels=np.arange(len(class_names)))
    with step(CONFUSIONS_FILE):
        write_csv(folder / CONFUSIONS_FILE, top_confusions(counts, class_names))
    for name, normalized in ((CONFUSION_COUNTS_FIGURE, False), (CONFUSION_SHARES_FIGURE, True)):
        with step(name):
            save_figure(confusion_figure(counts, class_names, title, noun=noun, normalized=normalized), folder / name)
    with step(CALIBRATION_FIGURE):
        bins = calibration_table(test, metrics["temperature"]["value"])
        write_csv(folder / CALIBRATION_FILE, bins)
        save_figure(calibration_figure(bins, metrics, title, noun=noun), folder / CALIBRATION_FIGURE)
    return known
