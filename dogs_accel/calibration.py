"""How far a classifier's probabilities are from its frequencies, and the temperature that brings them closer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dogs_accel.ops import CalibrationBins, ClassCalibrationBins, calibration_bins, class_calibration_bins

__all__ = [
    "CalibrationBins",
    "CalibrationScores",
    "ClassCalibrationBins",
    "Temperature",
    "adaptive_calibration_error",
    "brier_score",
    "calibration_bins",
    "calibration_scores",
    "class_calibration_bins",
    "classwise_calibration_error",
    "expected_calibration_error",
    "fit_temperature",
    "maximum_calibration_error",
    "negative_log_likelihood",
    "why_no_temperature",
]

TEMPERATURE_BOUNDS = {"lower": 1e-6, "upper": 1e6}
"""Where `fit_temperature` looks."""
SENSIBLE_TEMPERATURES = (0.05, 20.0)
"""Beyond them a fit says more of its rows than of the model: softmax(logits / T) is all 0 and 1, or all alike."""

NORMAL_QUANTILE = 1.959963984540054
"""Of a 95 % interval."""


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Return the expected calibration error (ECE) of top-label confidence, between 0 and 1.

    The mean over rows of |accuracy - mean confidence| of the row's bin.

    Args:
        logits: (N, C), as for `calibration_bins`.
        labels: (N,) int64.
        bins: how many; 15 are Guo et al.'s choice, and the published experiment has 10.

    Returns:
        The error.

    Raises:
        ValueError: as of `calibration_bins`, and if there are no rows.

    Definition: Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI
    2015; Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.

    Example:
        >>> import torch
        >>> from dogs_accel.calibration import expected_calibration_error
        >>> sure = torch.tensor([[9.0, 0.0], [9.0, 0.0]])  # and right in one of two rows
        >>> round(expected_calibration_error(sure, torch.tensor([0, 1])), 3)
        0.5
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
    less the log of the confidence of `calibration_bins`. The error is below 2^-49 of the value + (C / 32 + 20) * 2^-24,
    or 1.4e-6 with 120 classes, and in practice a tenth of that; with float64 logits 2^-53 takes the place of 2^-24.

    Takes and raises what `expected_calibration_error` does.
    """
    return _nll(_bins_of_rows(logits, labels, 1), logits, labels)


def brier_score(logits: Tensor, labels: Tensor) -> float:
    """Return the Brier score: the squared error of the probabilities, summed over classes, mean over rows.

    Between 0 and 2, which is a sure and wrong classifier's; some halve it for two classes. The error is below
    (C / 16 + 40) * 2^-24 + C * 2^-33; with float64 logits 2^-53 takes the place of 2^-24.

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
    classes = _bins_of_classes(logits, labels, bins)
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
    result = calibration_bins(logits.detach(), labels, bins)
    _check_not_empty(logits)
    return result


def _bins_of_classes(logits: Tensor, labels: Tensor, bins: int) -> ClassCalibrationBins:
    result = class_calibration_bins(logits.detach(), labels, bins)
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
    highest, own = (logits.detach().gather(1, index[:, None]).double() for index in (rows.prediction, labels))
    return float((highest - own).mean() - rows.confidence.double().log().mean())


def _brier(classes: ClassCalibrationBins, num_rows: int) -> float:
    return float(classes.squared_error.sum()) / num_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Temperature:
    """What `fit_temperature` found."""

    temperature: float
    interval: tuple[float, float]
    """95 %, symmetrical in log T; (0, inf) where the rows give none: at a bound, of one row, of logits all equal."""
    at_bound: Literal["lower", "upper"] | None
    """Which of TEMPERATURE_BOUNDS the temperature is, if it is one: the optimum lies there or beyond, at 0 or at
    infinity if every prediction is right or they are worse than chance."""
    nll_before: float
    """Mean negative log-likelihood of the logits as they were, in nats."""
    nll_after: float
    """That of the logits / temperature, never above nll_before."""
    num_rows: int
    num_mistakes: int
    """Rows whose largest logit is not the label's."""
    iterations: int
    """Passes over the logits."""

    @property
    def problem(self) -> str | None:
        """Why the temperature should not be used, as `why_no_temperature` says; None where it may be."""
        return why_no_temperature(self.temperature, self.interval, self.num_mistakes)

    def apply(self, logits: Tensor) -> Tensor:
        """Return logits / temperature, in float32 at least."""
        return logits.to(torch.promote_types(logits.dtype, torch.float32)) / self.temperature


def fit_temperature(logits: Tensor, labels: Tensor) -> Temperature:
    """Fit the temperature T that minimises the negative log-likelihood of softmax(logits / T).

    The likelihood is computed in float64, in blocks of rows, on the device of the logits. It is convex in 1 / T, so the
    optimum is where its slope changes sign; Newton's steps in log T find it, bisection where they would leave the
    bracket. T is within TEMPERATURE_BOUNDS: the lower one where every prediction is right, 1 if no other is better or
    if the logits of each row are all equal.

    The interval is T * exp(+-1.96 s), with the standard error s of log T that holds without the model being true (the
    "sandwich": Huber, 1967; White, "Maximum Likelihood Estimation of Misspecified Models", Econometrica 50, 1982), its
    variance times N / (N - 1). It needs a large N and rows that are independent of each other.

    A temperature is worth using where the rows can say how sure to be: there is at least one mistake, the optimum lies
    inside TEMPERATURE_BOUNDS, the interval is finite, and the temperature is within SENSIBLE_TEMPERATURES (0.05 to 20).
    Else `problem` of what is returned says which of these fails, and the probabilities are better left as they are.

    Args:
        logits: of a validation set, (N, C), as for `calibration_bins`.
        labels: (N,) int64.

    Returns:
        The temperature, its interval, and the likelihood before and after.

    Raises:
        ValueError: as of `expected_calibration_error`.

    Definition: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.

    Example:
        >>> from dogs_accel.calibration import expected_calibration_error, fit_temperature
        >>> fitted = fit_temperature(logits, labels)
        >>> fitted.nll_after <= fitted.nll_before
        True
        >>> calibrated = fitted.apply(logits).softmax(dim=1)
    """
    logits = logits.detach()
    prediction = _bins_of_rows(logits, labels, 1).prediction
    likelihood = _Likelihood(logits, labels, logits.gather(1, prediction[:, None]).double())
    before = likelihood.at(0.0)
    best, at_bound = _find_minimum(likelihood, before)
    if best.nll > before.nll:
        best, at_bound = before, None
    temperature = TEMPERATURE_BOUNDS[at_bound] if at_bound else math.exp(best.log_temperature)
    return Temperature(
        temperature=temperature,
        interval=(0.0, math.inf) if at_bound else _interval(best, len(logits)),
        at_bound=at_bound,
        nll_before=before.nll,
        nll_after=best.nll,
        num_rows=len(logits),
        num_mistakes=int((prediction != labels).sum()),
        iterations=likelihood.num_passes,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Point:
    """The likelihood at a temperature. z = (logit - largest logit) / T and E, Var are the softmax's of a row."""

    log_temperature: float
    nll: float
    """mean of -log p"""
    slope: float
    """of the sum of -log p by log T: sum of z_label - E z, a row's score"""
    curvature: float
    """sum of Var z: at the minimum, the second derivative by log T"""
    squared_scores: float


class _Likelihood:
    """The likelihood of logits / T, one pass over the logits a temperature."""

    def __init__(self, logits: Tensor, labels: Tensor, highest: Tensor) -> None:
        self.logits, self.labels, self.highest = logits, labels[:, None], highest
        self.num_passes = 0

    def at(self, log_temperature: float) -> _Point:
        sums = self.highest.new_zeros(4)
        in_cache = 2**22 if self.logits.is_cuda else 2**16
        block = max(1, in_cache // self.logits.shape[1])
        for begin in range(0, len(self.logits), block):
            rows = slice(begin, begin + block)
            sums += self._sums_of_rows(rows, math.exp(-log_temperature))
        self.num_passes += 1
        nll, slope, curvature, squared_scores = sums.tolist()
        return _Point(
            log_temperature=log_temperature,
            nll=nll / len(self.logits),
            slope=slope,
            curvature=curvature,
            squared_scores=squared_scores,
        )

    def _sums_of_rows(self, rows: slice, inverse_temperature: float) -> Tensor:
        z = (self.logits[rows].double() - self.highest[rows]).mul_(inverse_temperature)
        own = z.gather(1, self.labels[rows])[:, 0]
        z.clamp_(min=-800)  # exp is 0 there, and 0 * z stays 0
        weight = z.exp()
        total = weight.sum(dim=1)
        mean = weight.mul_(z).sum(dim=1) / total
        variance = (weight.mul_(z).sum(dim=1) / total - mean.square()).clamp_(min=0)
        score = own - mean
        return torch.stack([(total.log() - own).sum(), score.sum(), variance.sum(), score.square().sum()])

    def is_flat(self) -> bool:
        """Whether no temperature changes anything."""
        return bool((self.logits.amin(dim=1, keepdim=True) == self.highest).all())


def _find_minimum(likelihood: _Likelihood, start: _Point) -> tuple[_Point, Literal["lower", "upper"] | None]:
    """Find where the slope changes sign, or the bound beyond which that is."""
    if start.slope == start.curvature == 0 and likelihood.is_flat():
        return start, None
    low, high = (math.log(bound) for bound in TEMPERATURE_BOUNDS.values())
    if (lowest := likelihood.at(low)).slope >= 0:
        return lowest, "lower"
    if (highest := likelihood.at(high)).slope <= 0:
        return highest, "upper"
    point, last, before_last = start, math.inf, math.inf
    while point.slope != 0:
        low, high = (point.log_temperature, high) if point.slope < 0 else (low, point.log_temperature)
        step = -point.slope / point.curvature if point.curvature > 0 else math.inf
        # Newton's steps must stay between the bounds and get shorter, by half in two; bisection always does.
        if not low <= point.log_temperature + step <= high or abs(step) > abs(before_last) / 2:
            step = (low + high) / 2 - point.log_temperature
        if abs(step) < 1e-9:
            break
        point, last, before_last = likelihood.at(point.log_temperature + step), step, last
    return point, None


def _interval(point: _Point, num_rows: int) -> tuple[float, float]:
    if num_rows == 1 or point.curvature == 0:
        return 0.0, math.inf
    standard_error = math.sqrt(point.squared_scores * num_rows / (num_rows - 1)) / point.curvature
    width = NORMAL_QUANTILE * standard_error
    if width > 700:  # exp would overflow
        return 0.0, math.inf
    temperature = math.exp(point.log_temperature)
    return temperature * math.exp(-width), temperature * math.exp(width)


def why_no_temperature(temperature: float, interval: tuple[float, float], num_mistakes: int) -> str | None:
    """Say why a fitted temperature should not be used, by the rule of `fit_temperature`; None where it may be.

    interval: its 95 % interval, (0, inf) where there is none; num_mistakes: wrong answers among the rows of the fit.
    """
    low, high = SENSIBLE_TEMPERATURES
    if num_mistakes == 0:
        return "no validation image is answered wrongly, so that these images cannot say how sure to be"
    if temperature in TEMPERATURE_BOUNDS.values():
        return "the likelihood of the validation images has no optimum, so that they cannot say how sure to be"
    if not math.isfinite(interval[1]):
        return "the validation images leave every temperature possible"
    if not low <= temperature <= high:
        return f"the validation images ask for {temperature:.3g}, which is outside {low:g} to {high:g}"
    if interval[0] < low or interval[1] > high:
        return f"the validation images leave it anywhere from {interval[0]:.3g} to {interval[1]:.3g}"
    return None
