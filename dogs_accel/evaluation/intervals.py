"""How sure a score of a split is: Wilson's interval of a share, and a stratified bootstrap of what is no share.

The images of a split are resampled within each true class, since the split was drawn so; every score but the share of
right answers comes from the same resamples. Of a class with n images n - 1 are drawn, with repeats, each of which
counts n / (n - 1): with n draws the spread would be too small by (n - 1) / n, which is 17 % of the variance with 6
images (Rao and Wu, "Resampling Inference with Complex Survey Data", JASA 83, 1988). An image that is alone in its class
stays as it is, and so adds nothing to the spread; neither do classes in which every answer is right. Where nothing adds
to it, a score is the same in every resample, which says nothing of how sure it is: it has no interval then.

F1, precision, recall, negative log-likelihood and Brier score have the percentile interval (Efron and Tibshirani, "An
Introduction to the Bootstrap", 1993, chapter 13). The expected calibration error has not: it sums absolute gaps, so
noise makes it larger, in the sample as well as, once more, in each resample. Where predictions are calibrated, the
percentile interval never held the true value in simulations, and the basic one (twice the estimate less the
percentiles) in 47 to 77 % of them. Its interval comes from inverting a test, as `calibration_error_range` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack
from scipy.special import ndtri, stdtrit

from dogs_accel.calibration import calibration_bins

LEVEL = 0.95
"""Of every interval, where nothing else is said."""
NUM_RESAMPLES = 2_000
CALIBRATION_ERRORS = {"ece": 10, "ece_15": 15}
"""Names of the expected calibration errors and their bins."""
PRECISION_AND_RECALL = ("macro_precision", "weighted_precision", "macro_recall")
"""Those that are resampled; weighted recall is the accuracy."""
ALONE_IN_THEIR_CLASSES = "no class has a second test image, so that resampling has nothing to vary"
ALIKE_IN_THEIR_CLASSES = "within each class all answers are alike, so that resampling has nothing to vary"
"""Why a score has no interval."""
_BLOCK = 2**20
"""Weights, and probabilities, that are in memory at once."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A range that holds the true value with a stated confidence."""

    low: float
    high: float

    def including(self, value: float) -> Interval:
        """Return the interval, widened where the value is outside."""
        return Interval(min(self.low, value), max(self.high, value))

    def as_list(self) -> list[float]:
        """Return low and high, for JSON."""
        return [self.low, self.high]


def t_half_width(values: NDArray[np.float64], level: float = LEVEL) -> float:
    """Half the width of Student's t interval of the mean of at least two values (N,)."""
    return float(stdtrit(len(values) - 1, 0.5 + level / 2) * values.std(ddof=1) / np.sqrt(len(values)))


def wilson_interval(num_right: int, num: int, level: float = LEVEL) -> Interval:
    """Return Wilson's interval of the share num_right / num.

    Raises ValueError unless 0 <= num_right <= num and num >= 1. Definition: Wilson, "Probable Inference, the Law of
    Succession, and Statistical Inference", JASA 22, 1927, without continuity correction.
    """
    if not (num >= 1 and 0 <= num_right <= num):
        raise ValueError(f"num_right: got {num_right} of {num}, expected 0 <= num_right <= num and num >= 1")
    low, high = wilson_bounds(np.array([num_right]), np.array([num]), level)
    return Interval(float(low[0]), float(high[0]))


def wilson_bounds(
    num_right: NDArray[np.int64], num: NDArray[np.int64], level: float = LEVEL
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of Wilson's interval of each share num_right / num; NaN where num is 0."""
    z_squared = ndtri(0.5 + level / 2) ** 2
    total = np.where(num > 0, num, np.nan)
    share = num_right / total
    centre = share + z_squared / (2 * total)
    half = np.sqrt(z_squared * (share * (1 - share) / total + z_squared / (4 * total**2)))
    shrunk = 1 + z_squared / total
    # At the ends of the range the two terms are equal, but for their rounding.
    low = np.where(num_right == 0, 0 * total, (centre - half) / shrunk)
    high = np.where(num_right == num, 1 + 0 * total, (centre + half) / shrunk)
    return low, high


@dataclass(frozen=True, kw_only=True, eq=False)
class BinGaps:
    """Share of right answers less confidence, summed over the images of each bin and divided by all images."""

    estimate: NDArray[np.float64]
    """(bins,)"""
    resampled: NDArray[np.float64]
    """(R, bins)"""

    @property
    def vary(self) -> bool:
        """Whether any gap differs from resample to resample."""
        return any(varies(gap) for gap in self.resampled.T)


@dataclass(frozen=True, kw_only=True, eq=False)
class ResampledScores:
    """The scores of a split, and those of its R resamples.

    Their names are accuracy, macro_f1, weighted_f1, those of PRECISION_AND_RECALL, ece (10 bins), ece_15, nll and
    brier.
    """

    estimate: dict[str, float]
    resampled: dict[str, NDArray[np.float64]]
    """Each (R,)"""
    gaps: dict[str, BinGaps]
    """Of the calibration errors."""
    largest_class: int
    """Images of the class that has most of them."""

    def interval(self, name: str, level: float = LEVEL) -> Interval | None:
        """Return the interval of a score, which holds the estimate; None where `why_no_interval` says why.

        A calibration error may overstate the true one so much that the test rejects it too; the interval is then
        widened to it.
        """
        if self.why_no_interval(name) is not None:
            return None
        if name in self.gaps:
            low, _, high = calibration_error_range(self.gaps[name], level)
            return Interval(low, high).including(self.estimate[name])
        return percentile_interval(self.resampled[name], level).including(self.estimate[name])

    def why_no_interval(self, name: str) -> str | None:
        """Say why a score has no interval; None where it has one."""
        has_one = self.gaps[name].vary if name in self.gaps else varies(self.resampled[name])
        return None if has_one else self.why_nothing_varies()

    def why_nothing_varies(self) -> str:
        """Say why a score may be the same in every resample."""
        return ALIKE_IN_THEIR_CLASSES if self.largest_class > 1 else ALONE_IN_THEIR_CLASSES


def varies(resampled: NDArray[np.float64]) -> bool:
    """Whether resampled values (R,) differ by more than rounding."""
    return bool(np.ptp(resampled) > 1e-10 * max(1.0, float(np.abs(resampled).max())))


def percentile_interval(resampled: NDArray[np.float64], level: float = LEVEL) -> Interval:
    """Return the central part of resampled values (R,) that holds the level."""
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def bootstrap_scores(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> ResampledScores:
    """Resample a split within each true class and score every resample; logits (N, C), labels (N,).

    Equal labels, seed and numbers give equal resamples, so scores of two models on the same images are paired. Raises
    ValueError if there are no rows, as `calibration_bins` does, or if num_resamples is below 1.
    """
    if len(logits) == 0 or num_resamples < 1:
        raise ValueError(
            f"num_resamples: got {num_resamples} of logits {logits.shape}, expected 1 or more of (N, C) with N >= 1"
        )
    columns = _columns(logits, labels)
    support = np.bincount(labels, minlength=logits.shape[1])
    sums = np.concatenate([weights @ columns for weights in stratified_weights(labels, num_resamples, seed)])
    return _scores(columns.sum(axis=0), sums, support)


def stratified_weights(strata: NDArray[np.int64], num_resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield how often each image of each resample counts, (rows, N) at a time and num_resamples rows in all.

    Within each stratum the weights of a resample add up to its images.
    """
    order = np.argsort(strata, kind="stable")
    sizes = np.bincount(strata)[np.unique(strata)]
    num_draws = np.maximum(sizes - 1, 1)
    first = np.repeat(np.cumsum(sizes) - sizes, num_draws)
    range_of_draw = np.repeat(sizes, num_draws)
    weight_of_draw = np.repeat(sizes / num_draws, sizes)
    random = np.random.default_rng(seed)
    block = max(1, _BLOCK // len(strata))
    for begin in range(0, num_resamples, block):
        num_rows = min(block, num_resamples - begin)
        drawn = (random.random((num_rows, len(first))) * range_of_draw).astype(np.int64)
        drawn += first
        drawn += np.arange(num_rows)[:, None] * len(strata)
        counts = np.bincount(drawn.ravel(), minlength=num_rows * len(strata)).reshape(num_rows, -1)
        weights = np.empty(counts.shape)
        weights[:, order] = counts * weight_of_draw
        yield weights


def _columns(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> csr_array:
    """Per image what every score is made of, (N, K): right and predicted by class, gap by bin, loss, squared error."""
    num_rows, num_classes = logits.shape
    bins = calibration_bins(torch.from_numpy(logits), torch.from_numpy(labels))
    predicted, confidence = bins.prediction.numpy(), bins.confidence.double().numpy()
    right = (predicted == labels).astype(np.float64)
    parts = [_one_a_row(right, labels, num_classes), _one_a_row(np.ones(num_rows), predicted, num_classes)]
    for num_bins in CALIBRATION_ERRORS.values():
        bin_of_row = np.searchsorted(np.linspace(0, 1, num_bins + 1)[1:-1], confidence)
        parts.append(_one_a_row(right - confidence, bin_of_row, num_bins))
    return hstack([*parts, csr_array(_losses(logits, labels))], format="csr")


def _one_a_row(values: NDArray[np.float64], column: NDArray[np.int64], num_columns: int) -> csr_array:
    return csr_array((values, column, np.arange(len(values) + 1)), shape=(len(values), num_columns))


def _losses(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """-log p of the label and squared error of the probabilities of each row, (N, 2)."""
    block = max(1, _BLOCK // logits.shape[1])
    losses = []
    for begin in range(0, len(logits), block):
        rows = slice(begin, begin + block)
        log_p = torch.from_numpy(logits[rows]).double().log_softmax(dim=1)
        own = log_p.gather(1, torch.from_numpy(labels[rows])[:, None])[:, 0]
        squared_error = log_p.exp().square().sum(dim=1) - 2 * own.exp() + 1
        losses.append(torch.stack([-own, squared_error], dim=1).numpy())
    return np.concatenate(losses)


def _scores(total: NDArray[np.float64], sums: NDArray[np.float64], support: NDArray[np.int64]) -> ResampledScores:
    """Turn the sums of the columns, total (K,) and of the resamples (R, K), into scores."""
    num = int(support.sum())
    every = np.vstack([total, sums])
    ends = np.cumsum([len(support), len(support), *CALIBRATION_ERRORS.values()])
    right, predicted, *by_bin, losses = np.split(every, ends, axis=1)
    macro, weighted = _f1(right, predicted, support)
    values = {"accuracy": right.sum(axis=1) / num, "macro_f1": macro, "weighted_f1": weighted}
    values |= zip(PRECISION_AND_RECALL, _precision_and_recall(right, predicted, support), strict=True)
    gaps = {name: part / num for name, part in zip(CALIBRATION_ERRORS, by_bin, strict=True)}
    values |= {name: np.abs(gap).sum(axis=1) for name, gap in gaps.items()}
    values |= {"nll": losses[:, 0] / num, "brier": losses[:, 1] / num}
    return ResampledScores(
        estimate={name: float(value[0]) for name, value in values.items()},
        resampled={name: value[1:] for name, value in values.items()},
        gaps={name: BinGaps(estimate=gap[0], resampled=gap[1:]) for name, gap in gaps.items()},
        largest_class=int(support.max()),
    )


def _f1(
    right: NDArray[np.float64], predicted: NDArray[np.float64], support: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Macro and weighted F1 of rows of counts (R, C), as `dogs_accel.evaluation.scores.f1_scores` defines them."""
    total = support + predicted
    f1 = 2 * right / np.where(total > 0, total, 1)
    return f1.sum(axis=1) / (total > 0).sum(axis=1), f1 @ support / support.sum()


def _precision_and_recall(
    right: NDArray[np.float64], predicted: NDArray[np.float64], support: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Macro and weighted precision and macro recall of rows of counts (R, C).

    As `dogs_accel.evaluation.scores.precision_recall_scores` defines them.
    """
    num_present = ((support + predicted) > 0).sum(axis=1)
    precision = right / np.where(predicted > 0, predicted, 1)
    recall = right / np.maximum(support, 1)
    return (
        precision.sum(axis=1) / num_present,
        precision @ support / support.sum(),
        recall.sum(axis=1) / num_present,
    )


def calibration_error_range(gaps: BinGaps, level: float = LEVEL) -> tuple[float, float, float]:
    """Return the low end, the median-unbiased estimate and the high end of an expected calibration error.

    A true error t is in the interval unless the estimate is in an outer tail of (1 - level) / 2 of what is seen where
    the error is t: sum of |g + d| over bins, with the deviations d of the resampled gaps from their mean, and the
    gaps g that sum to t and are nearest the estimated ones, in units of their spread. The middle value is the t for
    which the estimate is the median of what is seen. All are 0 where even a calibrated model would show as much.

    Definition: the test-inversion bootstrap, with the nuisance parameters at their restricted estimate (DiCiccio and
    Romano, "Nonparametric Confidence Limits by Resampling Methods and Least Favorable Families", International
    Statistical Review 58, 1990; Carpenter, "Test inversion bootstrap confidence intervals", JRSS B 61, 1999).
    """
    family = _GapFamily(gaps)
    low, middle, high = (family.error_whose_quantile_is_seen(p) for p in ((1 + level) / 2, 0.5, (1 - level) / 2))
    return low, middle, high


class _GapFamily:
    """Gaps of every total size, each the nearest to the estimated ones; a smaller `shrinkage` gives larger gaps.

    The nearest by squared distance over variance: each is shrunk towards 0 by a multiple of its variance.
    """

    def __init__(self, gaps: BinGaps) -> None:
        self.deviation = gaps.resampled - gaps.resampled.mean(axis=0)
        self.variance = self.deviation.var(axis=0)
        self.size, self.sign = np.abs(gaps.estimate), np.where(gaps.estimate < 0, -1.0, 1.0)
        self.seen = float(self.size.sum())

    def error_whose_quantile_is_seen(self, probability: float) -> float:
        """Find the true error for which the estimate is that quantile, or 0 if none is so small."""
        # What varies less than rounding does not vary: empty bins, and bins that are in every resample the same.
        varies = self.variance > 1e-24
        if not varies.any():
            return self.seen
        most = float((self.size[varies] / self.variance[varies]).max())
        if self._quantile(most, probability) >= self.seen:
            return float(self._gaps(most).sum())
        high, step = most, max(most, 1 / float(self.variance.max()))
        while self._quantile(high - step, probability) < self.seen:
            high, step = high - step, 2 * step
        low = high - step
        while high - low > 1e-6 * step:
            middle = (low + high) / 2
            low, high = (low, middle) if self._quantile(middle, probability) < self.seen else (middle, high)
        return float(self._gaps((low + high) / 2).sum())

    def _gaps(self, shrinkage: float) -> NDArray[np.float64]:
        return np.maximum(self.size - shrinkage * self.variance, 0)

    def _quantile(self, shrinkage: float, probability: float) -> float:
        seen = np.abs(self.sign * self._gaps(shrinkage) + self.deviation).sum(axis=1)
        return float(np.quantile(seen, probability))


def mean_interval(values: pd.Series) -> tuple[float, float]:
    """95 % interval of the mean of repeated runs, by Student's t; a pair of NaN for a single one, or for equal ones.

    It covers what changes with the seed alone: the split, and so the test images, are the same in every run.
    """
    if len(values) < 2 or not varies(values.to_numpy(dtype=np.float64)):
        return float("nan"), float("nan")
    half = t_half_width(values.to_numpy(dtype=np.float64))
    return float(values.mean()) - half, float(values.mean()) + half
