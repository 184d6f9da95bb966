"""What follows from the predictions of a run, written into its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from dogs_accel.evaluation.figures import calibration_figure, confusion_figure
from dogs_accel.evaluation.metrics import (
    calibration_table,
    evaluate_predictions,
    evaluate_test,
    report_table,
    top_confusions,
)
from dogs_accel.evaluation.pairwise import compare_runs, compared_run
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


@dataclass(frozen=True, kw_only=True)
class ViewPredictions:
    """What a model says by the mean over views of each image."""

    tta: str
    """As `evaluation.tta` names the views."""
    num_views: int
    val: Predictions
    test: Predictions


def score_predictions(
    model: str, val: Predictions, test: Predictions, views: ViewPredictions | None = None
) -> dict[str, Any]:
    """Compute what metrics.json holds: the scores of the test split, and under "val" those of validation.

    Where there are views, "tta" holds the same scores of their mean, and under "differences", by score, how much it is
    above the plain one, with a paired interval and the verdict of `evaluation.pairwise`.
    """
    scores = {"model": model, **evaluate_test(test, val), "val": evaluate_predictions(val)}
    if views is None:
        return scores
    of_views = {**evaluate_test(views.test, views.val), "val": evaluate_predictions(views.val)}
    differences = compare_runs([compared_run("plain", "plain", 0, test), compared_run("tta", "tta", 0, views.test)])
    of_views |= {"views": views.tta, "num_views": views.num_views, "differences": _differences(differences)}
    return {**scores, "tta": of_views}


def validation_metrics(model: str, val: Predictions) -> dict[str, Any]:
    """Compute what metrics.json holds of a run that has not read the test split: the scores of validation alone."""
    return {"model": model, "test_was_read": False, "val": evaluate_predictions(val)}


def write_validation(folder: Path, val: Predictions, metrics: dict[str, Any]) -> dict[str, Any]:
    """Write the logits and scores of validation; returns what a `Run` of the folder then knows of its files."""
    val.save(folder / logits_file("val"))
    write_json(folder / METRICS_FILE, metrics)
    return {logits_file("val"): val, METRICS_FILE: metrics}


def _differences(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Lay out the comparison of the plain scores, a, and those of views, b, by score; None of what there is not."""
    words = {"a is better": "better without", "b is better": "better with"}
    rows = table.set_index("metric")[["difference", "low", "high", "mcnemar_p", "verdict"]]
    rows = rows.assign(verdict=rows["verdict"].replace(words)).astype(object)
    return {str(metric): row for metric, row in rows.where(rows.notna(), None).to_dict("index").items()}


def write_evaluation(
    folder: Path,
    title: str,
    class_names: Sequence[str],
    val: Predictions,
    test: Predictions,
    metrics: dict[str, Any],
    *,
    views: ViewPredictions | None = None,
    noun: str = "class",
    step: Step = any_failure_ends,
) -> dict[str, Any]:
    """Write logits, scores, and the tables and figures of the test split.

    metrics: what `score_predictions` says; views: the same as there; noun: what a class is called in the figures; step:
    the block of each thing that nothing else needs. Returns what a `Run` of the folder then knows of its files.
    """
    known: dict[str, Any] = {logits_file("val"): val, logits_file("test"): test, METRICS_FILE: metrics}
    if views is not None:
        known |= {logits_file("val", tta=True): views.val, logits_file("test", tta=True): views.test}
    # The logits first, from which all the rest can be made again.
    for name, predictions in known.items():
        if isinstance(predictions, Predictions):
            predictions.save(folder / name)
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
