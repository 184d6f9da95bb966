"""Logits of a split, and everything that follows from them without the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from dogs_accel.evaluation.intervals import (
    CALIBRATION_ERRORS,
    PRECISION_AND_RECALL,
    Interval,
    ResampledScores,
    bootstrap_scores,
    wilson_bounds,
    wilson_interval,
)
from dogs_accel.evaluation.predictions import TOP, Predictions
from dogs_accel.evaluation.scores import f1_scores, precision_recall_scores

PUBLISHED_BINS = 10
"""Bins of the published ECE; 15 is the other common choice, so both are reported."""
_OF_PROBABILITIES = (*CALIBRATION_ERRORS, "nll", "brier")
"""Scores that a temperature changes."""
_CLOSING_ROWS = ("accuracy", "macro avg", "weighted avg")
"""Of classification_report.csv."""


def evaluate_predictions(predictions: Predictions) -> dict[str, Any]:
    """Compute the scores of a split.

    accuracy (with its 95 % Wilson interval), top-5 accuracy (None of five classes or fewer, of which it would always be
    1), macro and weighted F1 as `f1_scores` has them, precision and recall as `precision_recall_scores` has them, and
    the expected calibration error with 10 bins (the published number) and with 15.
    """
    labels, predicted = predictions.labels, predictions.predicted
    num_classes = predictions.logits.shape[1]
    correct = int((labels == predicted).sum())
    counts = confusion_matrix(labels, predicted, labels=np.arange(num_classes))
    macro, weighted = f1_scores(counts)
    logits = torch.from_numpy(predictions.logits)
    return {
        "num_images": len(labels),
        "num_correct": correct,
        "accuracy": correct / len(labels),
        "accuracy_ci95": wilson_interval(correct, len(labels)).as_list(),
        "top5_accuracy": _num_in_top5(predictions) / len(labels) if num_classes > TOP else None,
        "macro_f1": macro,
        "weighted_f1": weighted,
        **precision_recall_scores(counts),
        "ece": expected_calibration_error(logits, torch.from_numpy(labels), bins=PUBLISHED_BINS),
        "ece_bins": PUBLISHED_BINS,
        "ece_15": expected_calibration_error(logits, torch.from_numpy(labels), bins=15),
    }


def _num_in_top5(predictions: Predictions) -> int:
    logits, labels = torch.from_numpy(predictions.logits), torch.from_numpy(predictions.labels)
    return int(logits.topk(TOP, dim=1).indices.eq(labels[:, None]).sum())


def evaluate_test(test: Predictions, val: Predictions) -> dict[str, Any]:
    """Compute the scores of the test split with their 95 % intervals, before and after a temperature.

    To those of `evaluate_predictions` come `nll` and `brier`; `intervals`, by score, of accuracy (which weighted recall
    is too) and top5_accuracy Wilson's and of the others those of the module `intervals`, None where there is none;
    `no_interval`, by score, why;
    `temperature`, fitted on val alone, with the ends of its interval, or None with the `reason` where
    `calibration.why_no_temperature` has one; and under `calibrated` the scores that change when the logits are divided
    by it, with intervals that take it as given, None without a temperature.
    """
    metrics = {**evaluate_predictions(test), **_probability_scores(test)}
    num, scores = len(test.labels), bootstrap_scores(test.logits, test.labels)
    resampled = ("macro_f1", "weighted_f1", *PRECISION_AND_RECALL, *_OF_PROBABILITIES)
    top5 = None if metrics["top5_accuracy"] is None else wilson_interval(_num_in_top5(test), num)
    of_accuracy = wilson_interval(metrics["num_correct"], num)
    intervals = {"accuracy": of_accuracy, "top5_accuracy": top5, "weighted_recall": of_accuracy}
    fitted = fit_temperature(torch.from_numpy(val.logits), torch.from_numpy(val.labels))
    found = {"value": fitted.temperature, "low": fitted.interval[0], "high": fitted.interval[1], "fitted_on": "val"}
    calibrated = None
    if fitted.problem is None:
        calibrated = _evaluate_probabilities(test.at_temperature(fitted.temperature))
    else:
        found |= {"value": None, "low": None, "high": None, "reason": fitted.problem}
    return {
        **metrics,
        "intervals": {
            **{name: None if interval is None else interval.as_list() for name, interval in intervals.items()},
            **_intervals(scores, metrics, resampled),
        },
        "no_interval": _reasons(scores, resampled),
        "temperature": found,
        "calibrated": calibrated,
    }


def _intervals(
    scores: ResampledScores, values: Mapping[str, float], names: Sequence[str]
) -> dict[str, list[float] | None]:
    """Give the ends of each interval, which holds the value that is shown: its arithmetic is another one."""
    found: dict[str, Interval | None] = {name: scores.interval(name) for name in names}
    return {
        name: None if interval is None else interval.including(values[name]).as_list()
        for name, interval in found.items()
    }


def _reasons(scores: ResampledScores, names: Sequence[str]) -> dict[str, str]:
    """Say of each score without an interval why it has none."""
    return {name: reason for name in names if (reason := scores.why_no_interval(name)) is not None}


def _probability_scores(predictions: Predictions) -> dict[str, float]:
    logits, labels = torch.from_numpy(predictions.logits), torch.from_numpy(predictions.labels)
    errors = {name: expected_calibration_error(logits, labels, bins) for name, bins in CALIBRATION_ERRORS.items()}
    return {**errors, "nll": negative_log_likelihood(logits, labels), "brier": brier_score(logits, labels)}


def _evaluate_probabilities(predictions: Predictions) -> dict[str, Any]:
    scores, values = bootstrap_scores(predictions.logits, predictions.labels), _probability_scores(predictions)
    return {
        **values,
        "intervals": _intervals(scores, values, _OF_PROBABILITIES),
        "no_interval": _reasons(scores, _OF_PROBABILITIES),
    }


def calibration_table(predictions: Predictions, temperature: float | None) -> pd.DataFrame:
    """Tabulate the bins of confidence, 10 and 15 of them, before and after dividing the logits by a temperature.

    Without a temperature there is no after. Columns: bins, temperature (1 or the given one), lower, upper, count,
    confidence and accuracy (means of the bin), and the ends of the accuracy's Wilson interval; a bin without images has
    none of the last four.
    """
    tables = [
        _bins_table(predictions.at_temperature(each), bins).assign(bins=bins, temperature=each)
        for each in dict.fromkeys((1.0, 1.0 if temperature is None else temperature))
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
    leave out classes that are neither true nor predicted anywhere, as those of metrics.json do. Where a class is called
    as a closing row is, the row says that it is of all images.
    """
    labels, predicted = predictions.labels, predictions.predicted
    every, present = np.arange(len(class_names)), np.union1d(labels, predicted)

    def scores(average: str | None) -> Any:
        averaged = every if average is None else present
        return precision_recall_fscore_support(labels, predicted, labels=averaged, average=average, zero_division=0.0)

    total = len(labels)
    accuracy = float((labels == predicted).mean())
    # Not scikit-learn's support, which is a float where no answer is right.
    support = np.bincount(labels, minlength=len(class_names)).tolist()
    rows = [*zip(*scores(None)[:3], support, strict=True), (None, None, accuracy, total)]
    rows += [(*scores(average)[:3], total) for average in ("macro", "weighted")]
    return pd.DataFrame(
        rows,
        columns=["precision", "recall", "f1-score", "support"],
        index=[*class_names, *(_other_name(name, class_names) for name in _CLOSING_ROWS)],
    )


def _other_name(name: str, taken: Sequence[str]) -> str:
    """Return a name that is none of those taken, the name itself where that is free."""
    while name in taken:
        name += " (all images)"
    return name


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
