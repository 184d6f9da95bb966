"""How far a classifier's probabilities are from its frequencies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dogs_accel.ops import CalibrationBins, ClassCalibrationBins, calibration_bins, class_calibration_bins

__all__ = [
    "CalibrationBins",
    "CalibrationScores",
    "ClassCalibrationBins",
    "adaptive_calibration_error",
    "brier_score",
    "calibration_bins",
    "calibration_scores",
    "class_calibration_bins",
    "classwise_calibration_error",
    "expected_calibration_error",
    "maximum_calibration_error",
    "negative_log_likelihood",
]


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Return the expected calibration error (ECE) of top-label confidence, between 0 and 1.

    The mean over rows of |accuracy - mean confidence| of the row's bin. `logits` (N, C), `labels` (N,) int64 and the
    bins are those of `calibration_bins`; 15 bins are Guo et al.'s choice, and the published experiment has 10.

    Raises ValueError as `calibration_bins` does, and if there are no rows.

    Definition: Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI
    2015; Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    return _expected(_bins_of_rows(logits, labels, bins))


def maximum_calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Return the maximum calibration error (MCE): the largest |accuracy - mean confidence| of a bin that has rows.

    Takes and raises what `expected_calibration_error` does. Definition: the same papers; Guo et al., equation 5.
    """
    return _maximum(_bins_of_rows(logits, labels, bins))


def classwise_calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Return the classwise calibration error (also static calibration error, SCE), between 0 and 1.

    The mean over classes, and over rows, of |frequency of the class - its mean probability| in the row's bin of that
    class. It sees the probabilities of all classes where the ECE sees the largest; with many classes most are near 0,
    so its values are small and compare only between models of the same classes.

    Takes and raises what `expected_calibration_error` does. Definition: Nixon et al., "Measuring Calibration in Deep
    Learning", CVPR Workshops 2019, equation 3; Kull et al., "Beyond temperature scaling", NeurIPS 2019, section 2.
    """
    return _classwise(_bins_of_classes(logits, labels, bins))


def adaptive_calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Return the ECE over bins of equally many rows in place of equal width, between 0 and 1.

    The rows in the order of their confidence are cut into `bins` parts as equal as can be; those of equal confidence
    go where the first of them goes, so that the value does not depend on the order of the rows.

    Takes and raises what `expected_calibration_error` does. Definition: the bins of Nguyen and O'Connor, "Posterior
    calibration and exploratory analysis for natural language processing models", EMNLP 2015, with the absolute
    difference, as in Roelofs et al., "Mitigating Bias in Calibration Error Estimation", AISTATS 2022 (ECE with equal
    mass bins). Nixon et al.'s error of the same name averages over all classes besides.
    """
    return _adaptive(_bins_of_rows(logits, labels, bins), labels, bins)


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> float:
    """Return the mean negative log-likelihood (cross-entropy) of the labels in nats.

    The softmax is not materialised: -log p of a row is the gap between the largest logit and the label's, in float64,
    less the log of the confidence of `calibration_bins`. The error is below (C / 32 + 20) * 2^-24, or 1.4e-6 with 120
    classes, and in practice a tenth of that; with float64 logits 2^-53 takes the place of 2^-24.

    Takes and raises what `expected_calibration_error` does.
    """
    return _nll(_bins_of_rows(logits, labels, 1), logits, labels)


def brier_score(logits: Tensor, labels: Tensor) -> float:
    """Return the Brier score: the squared error of the probabilities, summed over classes, mean over rows.

    Between 0 and 2, which is a sure and wrong classifier's; some halve it for two classes. The error is below
    twice that of `negative_log_likelihood` and C * 2^-33.

    Takes and raises what `expected_calibration_error` does. Definition: Brier, "Verification of forecasts expressed in
    terms of probability", Monthly Weather Review 78, 1950.
    """
    return _brier(_bins_of_classes(logits, labels, 1), len(logits))


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationScores:
    """The scores of this module for one set of logits; each is named for its function."""

    expected_calibration_error: float
    maximum_calibration_error: float
    adaptive_calibration_error: float
    classwise_calibration_error: float
    negative_log_likelihood: float
    brier_score: float
    num_rows: int
    bins: int


def calibration_scores(logits: Tensor, labels: Tensor, bins: int = 15) -> CalibrationScores:
    """Compute every score from one call of each operator.

    Takes and raises what `expected_calibration_error` does.
    """
    rows = _bins_of_rows(logits, labels, bins)
    classes = class_calibration_bins(logits, labels, bins)
    return CalibrationScores(
        expected_calibration_error=_expected(rows),
        maximum_calibration_error=_maximum(rows),
        adaptive_calibration_error=_adaptive(rows, labels, bins),
        classwise_calibration_error=_classwise(classes),
        negative_log_likelihood=_nll(rows, logits, labels),
        brier_score=_brier(classes, len(logits)),
        num_rows=len(logits),
        bins=bins,
    )


def _bins_of_rows(logits: Tensor, labels: Tensor, bins: int) -> CalibrationBins:
    result = calibration_bins(logits, labels, bins)
    _check_not_empty(logits)
    return result


def _bins_of_classes(logits: Tensor, labels: Tensor, bins: int) -> ClassCalibrationBins:
    result = class_calibration_bins(logits, labels, bins)
    _check_not_empty(logits)
    return result


def _check_not_empty(logits: Tensor) -> None:
    if len(logits) == 0:
        raise ValueError(f"logits: got shape {tuple(logits.shape)}, expected (N, C) with N >= 1")


def _expected(rows: CalibrationBins) -> float:
    gap = (rows.correct - rows.confidence_sum).abs()
    return float(gap.sum() / rows.count.sum())


def _maximum(rows: CalibrationBins) -> float:
    gap = (rows.correct - rows.confidence_sum).abs()
    return float((gap / rows.count.clamp(min=1)).max())


def _classwise(classes: ClassCalibrationBins) -> float:
    gap = (classes.positives - classes.probability_sum).abs()
    return float(gap.sum() / classes.count.sum())


def _adaptive(rows: CalibrationBins, labels: Tensor, bins: int) -> float:
    # Sums of integers, for the reason of the operators' fixed-point sums: they do not depend on the order of rows.
    unit = 2.0**-32
    num_lower = torch.searchsorted(rows.confidence.sort().values, rows.confidence)
    gap = (rows.prediction == labels).long() * 2**32 - (rows.confidence.double() / unit).round().long()
    gap_of_bin = gap.new_zeros(bins).index_add_(0, num_lower * bins // len(labels), gap)
    return float(gap_of_bin.abs().sum()) * unit / len(labels)


def _nll(rows: CalibrationBins, logits: Tensor, labels: Tensor) -> float:
    highest, own = (logits.gather(1, index[:, None]).double() for index in (rows.prediction, labels))
    return float((highest - own).mean() - rows.confidence.double().log().mean())


def _brier(classes: ClassCalibrationBins, num_rows: int) -> float:
    return float(classes.squared_error.sum()) / num_rows
