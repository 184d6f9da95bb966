"""Calibration errors against the definition and against torchmetrics."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from dogs_accel.calibration import expected_calibration_error, maximum_calibration_error


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


@pytest.mark.parametrize("error", [expected_calibration_error, maximum_calibration_error])
def test_no_rows_is_an_error(error: type) -> None:
    with pytest.raises(ValueError, match=r"^logits: got shape \(0, 5\), expected \(N, C\) with N >= 1$"):
        error(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))


def test_bad_values_are_named() -> None:
    logits, labels = example(20)
    labels[3] = 120
    with pytest.raises(ValueError, match=r"^labels: row 3 is 120"):
        expected_calibration_error(logits, labels)
