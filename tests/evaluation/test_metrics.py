import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_score, recall_score, top_k_accuracy_score
from statsmodels.stats.proportion import proportion_confint

from dogs_accel.calibration import (
    brier_score,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    why_no_temperature,
)
from dogs_accel.evaluation.figures import calibration_figure
from dogs_accel.evaluation.intervals import (
    ALIKE_IN_THEIR_CLASSES,
    ALONE_IN_THEIR_CLASSES,
    PRECISION_AND_RECALL,
    bootstrap_scores,
)
from dogs_accel.evaluation.metrics import (
    calibration_table,
    evaluate_predictions,
    evaluate_test,
    report_table,
    top_confusions,
)
from dogs_accel.evaluation.predictions import Predictions


def test_metrics_agree_with_scikit_learn(predictions):
    labels, predicted = predictions.labels, predictions.predicted
    metrics = evaluate_predictions(predictions)
    assert metrics["accuracy"] == (labels == predicted).mean()
    assert metrics["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"), abs=1e-12)
    assert metrics["weighted_f1"] == pytest.approx(f1_score(labels, predicted, average="weighted"), abs=1e-12)
    assert metrics["top5_accuracy"] == top_k_accuracy_score(labels, predictions.logits, k=5, labels=np.arange(12))
    assert metrics["num_images"] == 400


@pytest.mark.parametrize("never_said", [(), (4,), (4, 11)])
def test_precision_and_recall_are_those_of_scikit_learn(predictions, never_said):
    """Class 11 is never true: predicted or not, it counts or not; class 4 is true and, the second time, never said."""
    logits = predictions.logits.copy()
    logits[:, list(never_said)] = -100
    changed = Predictions(logits, predictions.labels, predictions.ids)
    metrics, answers = evaluate_predictions(changed), (changed.labels, changed.predicted)
    assert (11 in changed.predicted) is (11 not in never_said)
    for name, score in (("precision", precision_score), ("recall", recall_score)):
        for average in ("macro", "weighted"):
            expected = score(*answers, average=average, zero_division=0)
            assert metrics[f"{average}_{name}"] == pytest.approx(expected, abs=1e-12)
    assert metrics["weighted_recall"] == metrics["accuracy"]
    table = report_table(changed, [f"class {i}" for i in range(12)])
    for average in ("macro", "weighted"):
        row = table.loc[f"{average} avg"]
        assert row["precision"] == pytest.approx(metrics[f"{average}_precision"], abs=1e-12)
        assert row["recall"] == pytest.approx(metrics[f"{average}_recall"], abs=1e-12)


def test_ece_is_the_slow_and_obvious_one(predictions):
    logits = predictions.logits.astype(np.float64)
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    confidence, correct = probs.max(axis=1), predictions.predicted == predictions.labels
    metrics = evaluate_predictions(predictions)
    for key, bins in (("ece", 10), ("ece_15", 15)):
        expected = 0.0
        for b in range(bins):
            inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
            if inside.any():
                expected += abs(correct[inside].mean() - confidence[inside].mean()) * inside.mean()
        assert metrics[key] == pytest.approx(expected, abs=1e-6)


# Published correct counts of 8,580 with their Wilson intervals.
@pytest.mark.parametrize(
    ("correct", "low", "high"),
    [(7342, 0.8481, 0.8630), (7426, 0.8581, 0.8726), (7788, 0.9014, 0.9136), (8021, 0.9294, 0.9399)],
)
def test_wilson_interval_of_the_published_accuracies(correct, low, high):
    labels = np.zeros(8580, dtype=np.int64)
    logits = np.zeros((8580, 2), dtype=np.float32)
    logits[:correct, 0] = 1
    logits[correct:, 1] = 1
    metrics = evaluate_predictions(Predictions(logits, labels, labels.astype(np.str_)))
    assert [round(value, 4) for value in metrics["accuracy_ci95"]] == [low, high]


@pytest.fixture
def validation():
    random = np.random.default_rng(1)
    labels = random.integers(0, 12, size=200)
    logits = random.normal(size=(200, 12)).astype(np.float32)
    logits[np.arange(200), labels] += 1.5
    return Predictions(logits, labels, np.array([f"val{i}" for i in range(200)]))


def test_the_test_split_has_intervals(predictions, validation):
    metrics = evaluate_test(predictions, validation)
    plain = evaluate_predictions(predictions)
    assert {name: metrics[name] for name in plain} == plain
    assert metrics["intervals"]["accuracy"] == metrics["accuracy_ci95"]
    top5 = proportion_confint(round(400 * metrics["top5_accuracy"]), 400, method="wilson")
    assert metrics["intervals"]["top5_accuracy"] == pytest.approx(top5)
    assert metrics["intervals"]["weighted_recall"] == metrics["accuracy_ci95"]  # which is the accuracy
    names = ["macro_f1", "weighted_f1", *PRECISION_AND_RECALL, "ece", "ece_15", "nll", "brier"]
    assert list(metrics["intervals"]) == ["accuracy", "top5_accuracy", "weighted_recall", *names]
    scores = bootstrap_scores(predictions.logits, predictions.labels)
    for name in names:
        low, high = metrics["intervals"][name]
        assert [low, high] == scores.interval(name).as_list()
        assert low < metrics[name] < high
    tensors = torch.from_numpy(predictions.logits), torch.from_numpy(predictions.labels)
    assert metrics["nll"] == negative_log_likelihood(*tensors)
    assert metrics["brier"] == brier_score(*tensors)


def test_the_temperature_is_that_of_the_validation_split(predictions, validation):
    metrics = evaluate_test(predictions, validation)
    fitted = fit_temperature(torch.from_numpy(validation.logits), torch.from_numpy(validation.labels))
    low, high = fitted.interval
    assert metrics["temperature"] == {"value": fitted.temperature, "low": low, "high": high, "fitted_on": "val"}
    scaled = torch.from_numpy(predictions.logits / fitted.temperature).float()
    labels = torch.from_numpy(predictions.labels)
    calibrated = metrics["calibrated"]
    for name, bins in (("ece", 10), ("ece_15", 15)):
        assert calibrated[name] == pytest.approx(expected_calibration_error(scaled, labels, bins), abs=1e-6)
    assert calibrated["nll"] == pytest.approx(negative_log_likelihood(scaled, labels), abs=1e-6)
    assert calibrated["nll"] < metrics["nll"]
    assert metrics["no_interval"] == calibrated["no_interval"] == {}
    assert list(calibrated["intervals"]) == ["ece", "ece_15", "nll", "brier"]
    assert all(low <= calibrated[name] <= high for name, (low, high) in calibrated["intervals"].items())


@pytest.mark.fault(
    "Scores and figures",
    "validation without a mistake, or after one epoch from scratch: no best temperature",
    "none is used, and nothing is called calibrated",
)
def test_where_validation_cannot_say_how_sure_to_be_nothing_is_called_calibrated(predictions):
    sure = Predictions(np.eye(12, dtype=np.float32), np.arange(12), np.arange(12).astype(np.str_))
    metrics = evaluate_test(predictions, sure)
    reason = "no validation image is answered wrongly, so that these images cannot say how sure to be"
    assert metrics["temperature"] == {"value": None, "low": None, "high": None, "fitted_on": "val", "reason": reason}
    assert metrics["calibrated"] is None
    assert set(calibration_table(predictions, None)["temperature"]) == {1.0}


@pytest.mark.parametrize(
    ("value", "interval", "num_mistakes", "reason"),
    [
        (1.7, (1.2, 2.4), 3, None),
        (1.7, (1.2, 2.4), 0, "no validation image is answered wrongly"),
        (1e6, (0.0, math.inf), 9, "has no optimum"),
        (1.7, (0.0, math.inf), 9, "leave every temperature possible"),
        (844.0, (1.5, 4e5), 9, "ask for 844, which is outside 0.05 to 20"),
        (0.049, (0.03, 0.07), 9, "ask for 0.049, which is outside 0.05 to 20"),
        (2.168, (2.8e-13, 1.7e13), 9, "leave it anywhere from 2.8e-13 to 1.7e+13"),
        (15.0, (0.078, 2876.0), 9, "leave it anywhere from 0.078 to 2.88e+03"),
    ],
)
def test_the_rule_of_the_temperature(value, interval, num_mistakes, reason):
    said = why_no_temperature(value, interval, num_mistakes)
    assert said is None if reason is None else reason in said


def few(answers, labels, num_classes, scale=3.0):
    """Predictions that answer so, a little less sure from image to image."""
    logits = np.eye(num_classes, dtype=np.float32)[answers] * (scale - np.arange(len(labels))[:, None] / 10)
    return Predictions(logits.astype(np.float32), np.array(labels), np.arange(len(labels)).astype(np.str_))


OF_COUNTS = ["macro_f1", "weighted_f1", *PRECISION_AND_RECALL]


@pytest.mark.fault(
    "Scores and figures",
    "one test image a class, or a model that says one thing always",
    "a score without an interval, with the reason",
)
@pytest.mark.parametrize(
    ("answers", "labels", "without", "reason"),
    [
        ([0, 1, 0], [0, 1, 2], [*OF_COUNTS, "ece", "ece_15", "nll", "brier"], ALONE_IN_THEIR_CLASSES),
        ([0] * 6, [0, 0, 1, 1, 2, 2], OF_COUNTS, ALIKE_IN_THEIR_CLASSES),
        ([0, 0, 1, 1], [0, 0, 1, 1], OF_COUNTS, ALIKE_IN_THEIR_CLASSES),
    ],
)
def test_a_score_that_no_resample_changes_has_no_interval_and_the_reason(answers, labels, without, reason):
    test = few(answers, labels, 3)
    metrics = json.loads(json.dumps(evaluate_test(test, few([0, 1, 2, 0], [0, 1, 2, 2], 3))))
    assert metrics["no_interval"] == dict.fromkeys(without, reason)
    for name, ends in metrics["intervals"].items():
        if name in without or name == "top5_accuracy":
            assert ends is None
        else:
            assert ends[0] <= metrics[name] <= ends[1]
    assert metrics["top5_accuracy"] is None
    calibration_figure(calibration_table(test, metrics["temperature"]["value"]), metrics, "few").canvas.draw()


@pytest.mark.fault(
    "Scores and figures", "few images, of which an interval would leave out its own value", "the interval holds it"
)
def test_an_interval_holds_its_value_to_the_last_bit():
    random = np.random.default_rng(0)
    for num in range(3, 11):
        labels = np.arange(num) % 3
        logits = (30 * random.normal(size=(num, 6))).astype(np.float32)
        metrics = evaluate_test(Predictions(logits, labels, labels.astype(np.str_)), few([0, 1], [0, 0], 6))
        for name, ends in metrics["intervals"].items():
            assert ends is None or ends[0] <= metrics[name] <= ends[1]


def test_bins_before_and_after_the_temperature(predictions):
    table = calibration_table(predictions, 2.0)
    assert list(table.columns) == [
        "bins", "temperature", "lower", "upper", "count", "confidence", "accuracy", "accuracy_low", "accuracy_high",
    ]  # fmt: skip
    assert table.groupby(["temperature", "bins"])["count"].agg(["size", "sum"]).values.tolist() == [
        [10, 400], [15, 400], [10, 400], [15, 400],
    ]  # fmt: skip
    right = predictions.predicted == predictions.labels
    for (temperature, _), rows in table.groupby(["temperature", "bins"]):
        logits = predictions.logits.astype(np.float64) / temperature
        confidence = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).max(axis=1)
        for row in rows.itertuples():
            inside = (confidence > row.lower) & (confidence <= row.upper)
            assert row.count == inside.sum()
            seen = [row.confidence, row.accuracy, row.accuracy_low, row.accuracy_high]
            if row.count == 0:
                assert np.isnan(seen).all()
                continue
            ends = proportion_confint(right[inside].sum(), row.count, method="wilson")
            assert seen == pytest.approx([confidence[inside].mean(), right[inside].mean(), *ends], abs=1e-6)
    assert len(calibration_table(predictions, 1.0)) == 25


def test_report_has_accuracy_once_and_supports_that_add_up(predictions):
    names = [f"class {i}" for i in range(12)]
    table = report_table(predictions, names)
    assert list(table.columns) == ["precision", "recall", "f1-score", "support"]
    assert list(table.index) == [*names, "accuracy", "macro avg", "weighted avg"]
    assert table.loc["accuracy", "f1-score"] == evaluate_predictions(predictions)["accuracy"]
    assert math.isnan(table.loc["accuracy", "precision"])
    assert table.loc["accuracy", "support"] == table["support"].iloc[:12].sum() == 400
    for i, name in enumerate(names):
        expected = f1_score(predictions.labels == i, predictions.predicted == i, zero_division=0.0)
        assert table.loc[name, "f1-score"] == pytest.approx(expected)


@pytest.mark.fault(
    "Folders and names", "a class called accuracy or macro avg", "a row of its own in the classification report"
)
def test_a_class_called_as_a_closing_row_has_its_name_alone(predictions):
    names = ["accuracy", "macro avg", "weighted avg", "accuracy (all images)", *(f"class {i}" for i in range(8))]
    table = report_table(predictions, names)
    assert list(table.index[:12]) == names
    closing = ["accuracy (all images) (all images)", "macro avg (all images)", "weighted avg (all images)"]
    assert list(table.index[12:]) == closing
    assert table.loc["accuracy", "support"] == (predictions.labels == 0).sum()
    assert table.loc[closing[0], "f1-score"] == evaluate_predictions(predictions)["accuracy"]


def test_supports_are_integers_also_where_no_answer_is_right():
    table = report_table(few([1, 1, 1], [0, 0, 2], 3), ["a", "b", "c"])
    assert table["support"].tolist() == [2, 0, 1, 3, 3, 3]
    assert table["support"].dtype == np.int64
    assert table.to_csv().splitlines()[1].endswith(",2")


@pytest.mark.fault(
    "Scores and figures", "a class that no test image has", "left out of the means, in the report as in the metrics"
)
def test_report_and_metrics_have_the_same_means_where_a_class_does_not_occur(predictions):
    logits = predictions.logits.copy()
    logits[:, 3] = -100
    kept = predictions.labels != 3
    part = Predictions(logits[kept], predictions.labels[kept], predictions.ids[kept])
    table, metrics = report_table(part, [f"class {i}" for i in range(12)]), evaluate_predictions(part)
    assert table.loc["macro avg", "f1-score"] == pytest.approx(metrics["macro_f1"], abs=1e-12)
    assert table.loc["weighted avg", "f1-score"] == pytest.approx(metrics["weighted_f1"], abs=1e-12)
    assert table.loc["class 3"].tolist() == [0, 0, 0, 0]


def test_top_confusions():
    counts = np.array([[5, 3, 0], [1, 9, 0], [0, 4, 0]])
    table = top_confusions(counts, ["a", "b", "c"])
    assert table.values.tolist() == [["c", "b", 4, 1.0], ["a", "b", 3, 3 / 8], ["b", "a", 1, 0.1]]
    assert len(top_confusions(counts, ["a", "b", "c"], most=2)) == 2
