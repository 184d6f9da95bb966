"""How far a classifier's confidence is from its accuracy."""

from __future__ import annotations

from torch import Tensor

from dogs_accel.ops import CalibrationBins, calibration_bins

__all__ = ["CalibrationBins", "calibration_bins", "expected_calibration_error", "maximum_calibration_error"]


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Return the expected calibration error (ECE) of top-label confidence, between 0 and 1.

    The mean over rows of |accuracy - mean confidence| of the row's bin. `logits` (N, C), `labels` (N,) int64 and the
    bins are those of `calibration_bins`; 15 bins are Guo et al.'s choice, and the published experiment has 10.

    Raises ValueError as `calibration_bins` does, and if there are no rows.

    Definition: Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI
    2015; Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    result = _bins_of_rows(logits, labels, bins)
    gap = (result.correct - result.confidence_sum).abs()
    return float(gap.sum() / result.count.sum())


def maximum_calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Return the maximum calibration error (MCE): the largest |accuracy - mean confidence| of a bin that has rows.

    Takes and raises what `expected_calibration_error` does. Definition: the same papers; Guo et al., equation 5.
    """
    result = _bins_of_rows(logits, labels, bins)
    gap = (result.correct - result.confidence_sum).abs()
    return float((gap / result.count.clamp(min=1)).max())


def _bins_of_rows(logits: Tensor, labels: Tensor, bins: int) -> CalibrationBins:
    result = calibration_bins(logits, labels, bins)
    if len(logits) == 0:
        raise ValueError(f"logits: got shape {tuple(logits.shape)}, expected (N, C) with N >= 1")
    return result
