"""Logits of a split, and everything that follows from them without the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from dogs_accel.calibration import (
    brier_score,
    calibration_bins,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
)
from dogs_accel.evaluation.intervals import CALIBRATION_ERRORS, bootstrap_scores, wilson_bounds, wilson_interval
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.evaluation.scores import f1_scores

PUBLISHED_BINS = 10
"""Bins of the published ECE; 15 is the other common choice, so both are reported."""
_OF_PROBABILITIES = (*CALIBRATION_ERRORS, "nll", "brier")
"""Scores that a temperature changes."""


def evaluate_predictions(predictions: Predictions) -> dict[str, Any]:
    """Compute the scores of a split.

    accuracy (with its 95 % Wilson interval), top-5 accuracy, macro and weighted F1 as `f1_scores` has them, and the
    expected calibration error with 10 bins (the published number) and with 15.
    """
    labels, predicted = predictions.labels, predictions.predicted
    num_classes = predictions.logits.shape[1]
    correct = int((labels == predicted).sum())
    macro, weighted = f1_scores(confusion_matrix(labels, predicted, labels=np.arange(num_classes)))
    logits = torch.from_numpy(predictions.logits)
    return {
        "num_images": len(labels),
        "num_correct": correct,
        "accuracy": correct / len(labels),
        "accuracy_ci95": wilson_interval(correct, len(labels)).as_list(),
        "top5_accuracy": _num_in_top5(predictions) / len(labels),
        "macro_f1": macro,
        "weighted_f1": weighted,
        "ece": expected_calibration_error(logits, torch.from_numpy(labels), bins=PUBLISHED_BINS),
        "ece_bins": PUBLISHED_BINS,
        "ece_15": expected_calibration_error(logits, torch.from_numpy(labels), bins=15),
    }


def _num_in_top5(predictions: Predictions) -> int:
    logits, labels = torch.from_numpy(predictions.logits), torch.from_numpy(predictions.labels)
    return int(logits.topk(min(5, logits.shape[1]), dim=1).indices.eq(labels[:, None]).sum())


def evaluate_test(test: Predictions, val: Predictions) -> dict[str, Any]:
    """Compute the scores of the test split with their 95 % intervals, before and after a temperature.

    To those of `evaluate_predictions` come `nll` and `brier`; `intervals`, by score, of accuracy and top5_accuracy
    Wilson's and of the others those of the module `intervals`; `temperature`, fitted on val alone, with
    the ends of its interval, null where there is none; and under `calibrated` the scores that change when the logits
    are divided by it, with intervals that take it as given.
    """
    metrics = evaluate_predictions(test)
    num, scores = len(test.labels), bootstrap_scores(test.logits, test.labels)
    intervals = {
        "accuracy": wilson_interval(metrics["num_correct"], num),
        "top5_accuracy": wilson_interval(_num_in_top5(test), num),
        **{name: scores.interval(name) for name in ("macro_f1", "weighted_f1", *_OF_PROBABILITIES)},
    }
    fitted = fit_temperature(torch.from_numpy(val.logits), torch.from_numpy(val.labels))
    low, high = fitted.interval
    return {
        **metrics,
        **_probability_scores(test),
        "intervals": {name: interval.as_list() for name, interval in intervals.items()},
        "temperature": {
            "value": fitted.temperature,
            "low": low if math.isfinite(high) else None,
            "high": high if math.isfinite(high) else None,
            "fitted_on": "val",
        },
        "calibrated": _evaluate_probabilities(test.at_temperature(fitted.temperature)),
    }


def _probability_scores(predictions: Predictions) -> dict[str, float]:
    logits, labels = torch.from_numpy(predictions.logits), torch.from_numpy(predictions.labels)
    errors = {name: expected_calibration_error(logits, labels, bins) for name, bins in CALIBRATION_ERRORS.items()}
    return {**errors, "nll": negative_log_likelihood(logits, labels), "brier": brier_score(logits, labels)}


def _evaluate_probabilities(predictions: Predictions) -> dict[str, Any]:
    scores = bootstrap_scores(predictions.logits, predictions.labels)
    intervals = {name: scores.interval(name).as_list() for name in _OF_PROBABILITIES}
    return {**_probability_scores(predictions), "intervals": intervals}


def calibration_table(predictions: Predictions, temperature: float) -> pd.DataFrame:
    """Tabulate the bins of confidence, 10 and 15 of them, before and after dividing the logits by a temperature.

    Columns: bins, temperature (1 or the given one), lower, upper, count, confidence and accuracy (means of the bin),
    and the ends of the accuracy's Wilson interval; a bin without images has none of the last four.
    """
    tables = [
        _bins_table(predictions.at_temperature(each), bins).assign(bins=bins, temperature=each)
        for each in dict.fromkeys((1.0, temperature))
        for bins in CALIBRATION_ERRORS.values()
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[["bins", "temperature", *table.columns.drop(["bins", "temperature"])]]


def _bins_table(predictions: Predictions, bins: int) -> pd.DataFrame:
    sums = calibration_bins(torch.from_numpy(predictions.logits), torch.from_numpy(predictions.labels), bins)
    count, correct = sums.count.numpy(), sums.correct.numpy()
    edges = np.linspace(0, 1, bins + 1)
    low, high = wilson_bounds(correct, count)
    images = np.where(count > 0, count, np.nan)
    return pd.DataFrame(
        {
            "lower": edges[:-1],
            "upper": edges[1:],
            "count": count,
            "confidence": sums.confidence_sum.numpy() / images,
            "accuracy": correct / images,
            "accuracy_low": low,
            "accuracy_high": high,
        }
    )


def report_table(predictions: Predictions, class_names: Sequence[str]) -> pd.DataFrame:
    """Tabulate precision, recall, F1 and support of each class, with scikit-learn's closing rows.

    The accuracy row has a score and the number of images; the published file repeated the score in every column. Means
    leave out classes that are neither true nor predicted anywhere, as those of metrics.json do.
    """
    labels, predicted = predictions.labels, predictions.predicted
    every, present = np.arange(len(class_names)), np.union1d(labels, predicted)

    def scores(average: str | None) -> Any:
        averaged = every if average is None else present
        return precision_recall_fscore_support(labels, predicted, labels=averaged, average=average, zero_division=0.0)

    total = len(labels)
    accuracy = float((labels == predicted).mean())
    rows = [*zip(*scores(None), strict=True), (None, None, accuracy, total)]
    rows += [(*scores(average)[:3], total) for average in ("macro", "weighted")]
    return pd.DataFrame(
        rows,
        columns=["precision", "recall", "f1-score", "support"],
        index=[*class_names, "accuracy", "macro avg", "weighted avg"],
    )


def top_confusions(counts: NDArray[np.int64], class_names: Sequence[str], most: int = 20) -> pd.DataFrame:
    """List the commonest mistakes of a confusion matrix (C, C): true_class, pred_class, count, row_normalized."""
    mistakes = counts.copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:most]
    true, predicted = np.unravel_index(order[mistakes.ravel()[order] > 0], counts.shape)
    return pd.DataFrame(
        {
            "true_class": [class_names[i] for i in true],
            "pred_class": [class_names[i] for i in predicted],
            "count": counts[true, predicted],
            "row_normalized": counts[true, predicted] / counts.sum(axis=1)[true],
        }
    )
