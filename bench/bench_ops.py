"""The compiled operators against what people use instead."""

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from dogs_accel.calibration import (
    brier_score,
    class_calibration_bins,
    classwise_calibration_error,
    expected_calibration_error,
)
from dogs_accel.timing import interleaved

BINS = 15


def published_ece(logits, labels):
    """The way of the published experiment: softmax, then a loop over bins, in NumPy."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    ece = 0.0
    for low, high in zip(np.arange(BINS) / BINS, np.arange(1, BINS + 1) / BINS, strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            ece += abs(correct[inside].mean() - confidence[inside].mean()) * inside.mean()
    return ece


def test_expected_calibration_error(bench):
    num = 1_000_000 if bench.measure else 1_000
    logits = torch.randn(num, 120) * 3
    labels = torch.randint(0, 120, (num,))
    probabilities = logits.softmax(dim=1)
    candidates = {
        "torchmetrics": lambda: multiclass_calibration_error(
            probabilities, labels, 120, n_bins=BINS, validate_args=False
        ),
        "NumPy": lambda: published_ece(logits.numpy(), labels.numpy()),
        "dogs_accel": lambda: expected_calibration_error(logits, labels, bins=BINS),
        "ceiling: read the logits once": lambda: logits.sum(),
    }
    values = [float(candidates[name]()) for name in ("torchmetrics", "NumPy", "dogs_accel")]
    assert max(values) - min(values) < 1e-4
    timings = interleaved(candidates, bench.rounds)
    title = f"ECE of {num:,} x 120 float32 logits, {BINS} bins (torchmetrics is given the softmax)"
    bench.report("ece", title, timings, "torchmetrics", num, "rows")


def torch_class_bins(logits, labels):
    """Softmax, then every probability into a bin of its class: classwise error and Brier score."""
    probabilities = logits.softmax(dim=1)
    num_rows, num_classes = probabilities.shape
    inner_edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64)[1:-1]
    cells = torch.bucketize(probabilities, inner_edges)
    cells += torch.arange(num_classes) * BINS
    positives = torch.bincount(cells.gather(1, labels[:, None])[:, 0], minlength=num_classes * BINS)
    sums = torch.bincount(cells.flatten(), weights=probabilities.flatten(), minlength=num_classes * BINS)
    del cells
    probabilities[torch.arange(num_rows), labels] -= 1
    brier = probabilities.square_().sum(dim=1).mean()
    return float((positives - sums).abs().sum() / (num_rows * num_classes)), float(brier)


def numpy_class_bins(logits, labels):
    """The same class by class in NumPy."""
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    num_rows, num_classes = probabilities.shape
    gap = brier = 0.0
    for c in range(num_classes):
        own, positive = np.ascontiguousarray(probabilities[:, c]), labels == c
        bin_of = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], own, side="left")
        gap += np.abs(np.bincount(bin_of, weights=positive - own, minlength=BINS)).sum()
        brier += np.square(positive - own).sum()
    return gap / (num_rows * num_classes), brier / num_rows


def test_class_calibration_bins(bench):
    num = 1_000_000 if bench.measure else 1_000
    logits = torch.randn(num, 120) * 3
    labels = torch.randint(0, 120, (num,))
    candidates = {
        "torch": lambda: torch_class_bins(logits, labels),
        "NumPy": lambda: numpy_class_bins(logits.numpy(), labels.numpy()),
        "dogs_accel": lambda: class_calibration_bins(logits, labels, BINS),
        "ceiling: read the logits once": lambda: logits.sum(),
    }
    ours = (classwise_calibration_error(logits, labels, BINS), brier_score(logits, labels))
    np.testing.assert_allclose(candidates["NumPy"](), ours, rtol=1e-5)
    np.testing.assert_allclose(candidates["torch"](), ours, rtol=1e-3)  # its bincount adds up in float32
    timings = interleaved(candidates, bench.rounds)
    title = f"classwise bins and Brier score of {num:,} x 120 float32 logits, {BINS} bins a class"
    bench.report("class_bins", title, timings, "torch", num, "rows")
