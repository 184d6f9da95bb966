"""Calibration errors against the definition and against torchmetrics."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from dogs_accel.calibration import (
    adaptive_calibration_error,
    brier_score,
    calibration_bins,
    calibration_scores,
    classwise_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
    negative_log_likelihood,
)
from tests.support.operator_cases import DTYPES

SCORES = [
    expected_calibration_error,
    maximum_calibration_error,
    classwise_calibration_error,
    adaptive_calibration_error,
    negative_log_likelihood,
    brier_score,
]


def example(num_rows: int = 3000, num_classes: int = 120) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a classifier that is often right and too sure of itself."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, num_classes, (num_rows,), generator=generator)
    logits = torch.randn(num_rows, num_classes, generator=generator) * 2
    logits[torch.arange(num_rows), labels] += 5
    return logits, labels


@pytest.mark.parametrize("bins", [1, 10, 15, 100])
def test_matches_the_definition(bins: int) -> None:
    logits, labels = example()
    softmax = logits.double().softmax(dim=1).numpy()
    confidence, correct = softmax.max(axis=1), softmax.argmax(axis=1) == labels.numpy()
    edges = np.linspace(0, 1, bins + 1)
    expected, largest = 0.0, 0.0
    for lower, upper in itertools.pairwise(edges):
        rows = (confidence > lower) & (confidence <= upper)
        if rows.any():
            gap = abs(correct[rows].mean() - confidence[rows].mean())
            expected += rows.mean() * gap
            largest = max(largest, gap)
    assert expected_calibration_error(logits, labels, bins) == pytest.approx(expected, abs=1e-7)
    assert maximum_calibration_error(logits, labels, bins) == pytest.approx(largest, abs=1e-6)


@pytest.mark.parametrize("bins", [10, 15])
@pytest.mark.parametrize("num_classes", [2, 37, 120])
def test_matches_torchmetrics(bins: int, num_classes: int) -> None:
    logits, labels = example(num_classes=num_classes)
    arguments = {"num_classes": num_classes, "n_bins": bins}
    expected = multiclass_calibration_error(logits, labels, norm="l1", **arguments).item()
    largest = multiclass_calibration_error(logits, labels, norm="max", **arguments).item()
    assert expected_calibration_error(logits, labels, bins) == pytest.approx(expected, abs=2e-6)
    assert maximum_calibration_error(logits, labels, bins) == pytest.approx(largest, abs=2e-6)


def test_by_hand() -> None:
    """Confidences 0.75, 0.75, 0.9 and 0.9; one right of the first two, both right of the others."""
    confidence = torch.tensor([0.75, 0.75, 0.9, 0.9], dtype=torch.float64)
    logits = torch.stack([torch.log(confidence / (1 - confidence)), torch.zeros(4, dtype=torch.float64)], dim=1)
    labels = torch.tensor([0, 1, 0, 0])
    assert expected_calibration_error(logits, labels, 4) == pytest.approx((abs(1 - 1.5) + abs(2 - 1.8)) / 4)
    assert maximum_calibration_error(logits, labels, 4) == pytest.approx(0.25)


def test_of_a_sure_classifier() -> None:
    logits = torch.eye(4) * 500
    assert expected_calibration_error(logits, torch.arange(4)) == 0.0
    assert expected_calibration_error(logits, (torch.arange(4) + 1) % 4) == 1.0
    assert maximum_calibration_error(logits, torch.tensor([0, 1, 2, 0])) == 0.25


@pytest.mark.parametrize("error", [*SCORES, calibration_scores])
def test_no_rows_is_an_error(error: type) -> None:
    with pytest.raises(ValueError, match=r"^logits: got shape \(0, 5\), expected \(N, C\) with N >= 1$"):
        error(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))


@pytest.mark.parametrize("error", [*SCORES, calibration_scores])
def test_bad_values_are_named(error: type) -> None:
    logits, labels = example(20)
    labels[3] = 120
    with pytest.raises(ValueError, match=r"^labels: row 3 is 120"):
        error(logits, labels)
    logits[2, 1] = float("nan")
    with pytest.raises(ValueError, match=r"^logits: row 2 holds a NaN or infinity$"):
        error(logits, labels)


def slow_classwise(softmax: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Nixon et al., equation 3, class by class and bin by bin."""
    num_rows, num_classes = softmax.shape
    total = 0.0
    for c in range(num_classes):
        for lower, upper in itertools.pairwise(np.linspace(0, 1, bins + 1)):
            rows = (softmax[:, c] > lower) & (softmax[:, c] <= upper)
            if rows.any():
                total += rows.sum() / num_rows * abs((labels[rows] == c).mean() - softmax[rows, c].mean())
    return total / num_classes


def slow_adaptive(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    """Row by row: a row's place is the number of rows of lower confidence."""
    parts: dict[int, list[float]] = {}
    for own, right in zip(confidence, correct, strict=True):
        part = int((confidence < own).sum()) * bins // len(confidence)
        parts.setdefault(part, []).append(float(right) - own)
    return sum(abs(np.sum(part)) for part in parts.values()) / len(confidence)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bins", [1, 10, 15, 100])
@pytest.mark.parametrize(("num_rows", "num_classes"), [(1, 1), (2, 5), (1500, 7), (700, 120)])
def test_every_score_matches_its_definition(dtype: torch.dtype, bins: int, num_rows: int, num_classes: int) -> None:
    logits, labels = example(num_rows, num_classes)
    logits = logits.to(dtype)
    softmax, target = logits.double().softmax(dim=1).numpy(), labels.numpy()
    scores = calibration_scores(logits, labels, bins)
    confidence = calibration_bins(logits, labels).confidence.double().numpy()  # for its ties; see test_ops.py
    adaptive = slow_adaptive(confidence, softmax.argmax(axis=1) == target, bins)
    assert scores.adaptive_calibration_error == pytest.approx(adaptive, abs=2**-32)
    assert scores.classwise_calibration_error == pytest.approx(slow_classwise(softmax, target, bins), abs=1e-6)
    nll = -np.log(softmax[np.arange(num_rows), target]).mean()
    assert scores.negative_log_likelihood == pytest.approx(nll, abs=1e-13 if dtype == torch.float64 else 3e-7)
    brier = ((softmax - np.eye(num_classes)[target]) ** 2).sum(axis=1).mean()
    assert scores.brier_score == pytest.approx(brier, abs=num_classes * 2**-33 + 5e-7)
    assert (scores.num_rows, scores.bins) == (num_rows, bins)


def test_one_call_gives_what_the_functions_give() -> None:
    logits, labels = example(500, 20)
    scores = calibration_scores(logits, labels, 10)
    for score in SCORES:
        takes_bins = score not in (negative_log_likelihood, brier_score)
        alone = score(logits, labels, 10) if takes_bins else score(logits, labels)
        assert alone == getattr(scores, score.__name__)


def test_adaptive_bins_hold_equally_many_rows() -> None:
    """Without ties it is the error of numpy.array_split's parts, when the rows divide evenly."""
    logits, labels = example(1500, 3)
    logits = logits.double() / 4
    softmax = logits.softmax(dim=1).numpy()
    confidence, correct = softmax.max(axis=1), softmax.argmax(axis=1) == labels.numpy()
    assert len(np.unique(confidence)) == 1500
    parts = np.array_split(np.argsort(confidence), 15)
    expected = sum(abs(np.sum(correct[part] - confidence[part])) for part in parts) / 1500
    assert adaptive_calibration_error(logits, labels, 15) == pytest.approx(expected, abs=1e-9)


def test_adaptive_bins_keep_ties_together() -> None:
    """Confidences 0.5 x 2, 0.6 x 3, 0.9 in two bins: the third 0.6 goes where the first does."""
    confidence = torch.tensor([0.6, 0.5, 0.6, 0.9, 0.6, 0.5], dtype=torch.float64)
    logits = torch.stack([torch.log(confidence / (1 - confidence)), torch.zeros(6, dtype=torch.float64)], dim=1)
    labels = torch.tensor([0, 0, 1, 0, 0, 0])
    expected = (abs(4 - (0.5 * 2 + 0.6 * 3)) + abs(1 - 0.9)) / 6
    assert adaptive_calibration_error(logits, labels, 2) == pytest.approx(expected, abs=1e-9)


def test_no_score_depends_on_the_order_of_rows() -> None:
    logits, labels = example(4000, 6)
    logits = (logits / 4).round()  # many ties
    scores = [dataclasses.astuple(calibration_scores(logits, labels))]
    for seed in range(5):
        order = torch.randperm(4000, generator=torch.Generator().manual_seed(seed))
        scores.append(dataclasses.astuple(calibration_scores(logits[order], labels[order])))
    for other in scores[1:]:
        assert other == pytest.approx(scores[0], rel=1e-14, abs=0)
        assert other[:4] == scores[0][:4]


def test_scores_of_a_sure_classifier() -> None:
    logits = torch.eye(4) * 500
    right = calibration_scores(logits, torch.arange(4))
    assert dataclasses.astuple(right) == (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 4, 15)
    wrong = calibration_scores(logits, (torch.arange(4) + 1) % 4)
    assert wrong.negative_log_likelihood == 500.0
    assert wrong.brier_score == 2.0
    assert wrong.adaptive_calibration_error == 1.0
    assert wrong.classwise_calibration_error == 0.5


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_scores_of_any_shape_and_scale(data: st.DataObject) -> None:
    num_rows = data.draw(st.integers(1, 50), label="rows")
    num_classes = data.draw(st.integers(1, 50), label="classes")
    dtype = data.draw(st.sampled_from(DTYPES), label="dtype")
    scale = data.draw(st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e4]), label="scale")
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31), label="seed"))
    logits = (torch.randn(num_classes, num_rows, generator=generator, dtype=torch.float64) * scale).to(dtype).t()
    labels = torch.randint(0, num_classes, (num_rows,), generator=generator)
    scores = calibration_scores(logits, labels)
    log_softmax = logits.double().log_softmax(dim=1)
    nll = -log_softmax[torch.arange(num_rows), labels].mean()
    assert scores.negative_log_likelihood == pytest.approx(float(nll), rel=1e-14, abs=5e-7)
    brier = (log_softmax.exp() - torch.eye(num_classes)[labels]).square().sum(dim=1).mean()
    assert scores.brier_score == pytest.approx(float(brier), abs=1e-6)
    assert 0 <= scores.classwise_calibration_error <= 1
    assert 0 <= scores.adaptive_calibration_error <= 1


@pytest.mark.gpu
def test_scores_are_the_same_on_cuda() -> None:
    logits, labels = example()
    cpu, cuda = (dataclasses.astuple(calibration_scores(logits.to(d), labels.to(d))) for d in ("cpu", "cuda"))
    assert cuda == pytest.approx(cpu, rel=1e-13, abs=0)
