"""The compiled operators against what people use instead."""

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from dogs_accel.calibration import expected_calibration_error
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
