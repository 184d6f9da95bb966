"""Intervals against other people's code and slow loops, and what they cover of simulated truths."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score, recall_score
from statsmodels.stats.proportion import proportion_confint

from dogs_accel.calibration import brier_score, expected_calibration_error, negative_log_likelihood
from dogs_accel.evaluation.intervals import (
    BinGaps,
    Interval,
    bootstrap_scores,
    calibration_error_range,
    percentile_interval,
    stratified_weights,
    wilson_bounds,
    wilson_interval,
)
from tests.support.populations import Population


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
@pytest.mark.parametrize(("num_right", "num"), [(0, 1), (1, 1), (0, 40), (40, 40), (7, 40), (8021, 8580)])
def test_wilson_is_that_of_scipy_and_statsmodels(num_right, num, level):
    interval = wilson_interval(num_right, num, level)
    theirs = binomtest(num_right, num).proportion_ci(level, method="wilson")
    assert interval.as_list() == pytest.approx([theirs.low, theirs.high], abs=1e-14)
    assert interval.as_list() == pytest.approx(proportion_confint(num_right, num, 1 - level, "wilson"), abs=1e-14)


def test_wilson_at_the_ends_is_exact_and_of_nothing_is_unknown():
    low, high = wilson_bounds(np.array([0, 5, 0]), np.array([5, 5, 0]))
    assert (low[0], high[1]) == (0.0, 1.0)
    assert np.isnan([low[2], high[2]]).all()


@pytest.mark.parametrize(("num_right", "num"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_of_no_share(num_right, num):
    with pytest.raises(ValueError, match=rf"^num_right: got {num_right} of {num}, expected 0 <= num_right <= num"):
        wilson_interval(num_right, num)


STRATA = np.array([3, 0, 0, 3, 0, 5, 3, 0, 1, 1])


def test_weights_keep_the_size_of_each_stratum():
    weights = np.concatenate(list(stratified_weights(STRATA, 5000, seed=1)))
    assert weights.shape == (5000, 10)
    for stratum in np.unique(STRATA):
        inside = weights[:, stratum == STRATA]
        size = inside.shape[1]
        np.testing.assert_allclose(inside.sum(axis=1), size)
        # Multiples of n / (n - 1); of one image the weight is always 1.
        unit = size / max(size - 1, 1)
        np.testing.assert_allclose(inside / unit, np.round(inside / unit), atol=1e-12)
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.06)


def test_spread_of_a_stratified_mean_is_the_unbiased_one():
    """The variance of a stratified mean, sum of n_h^2 s_h^2 / n_h / N^2 with s_h^2 over n_h - 1."""
    random = np.random.default_rng(0)
    strata = np.repeat(np.arange(5), [3, 4, 6, 10, 2])
    values = random.normal(size=25)
    weights = np.concatenate(list(stratified_weights(strata, 200_000, seed=2)))
    expected = (
        sum(len(inside) * inside.var(ddof=1) for inside in (values[strata == stratum] for stratum in range(5))) / 25**2
    )
    assert (weights @ values / 25).var() == pytest.approx(expected, rel=0.015)


def test_blocks_and_seeds(monkeypatch):
    whole = np.concatenate(list(stratified_weights(STRATA, 30, seed=1)))
    np.testing.assert_array_equal(whole, np.concatenate(list(stratified_weights(STRATA, 30, seed=1))))
    assert (whole != np.concatenate(list(stratified_weights(STRATA, 30, seed=2)))).any()
    monkeypatch.setattr("dogs_accel.evaluation.intervals._BLOCK", 75)
    parts = list(stratified_weights(STRATA, 30, seed=1))
    assert [len(part) for part in parts] == [7, 7, 7, 7, 2]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def example(num_rows=300, num_classes=12, seed=0):
    """A classifier that is too sure; of the last class there is no row, of the one before a single one."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, num_classes - 2, size=num_rows)
    labels[17] = num_classes - 2
    logits = random.normal(size=(num_rows, num_classes)).astype(np.float32) * 2
    logits[np.arange(num_rows), labels] += 3
    logits[5, num_classes - 1] = 20
    return logits, labels


def precision_and_recall(true, predicted):
    return {
        "macro_precision": precision_score(true, predicted, average="macro", zero_division=0),
        "weighted_precision": precision_score(true, predicted, average="weighted", zero_division=0),
        "macro_recall": recall_score(true, predicted, average="macro", zero_division=0),
    }


def test_estimates_are_the_scores():
    logits, labels = example()
    estimate = bootstrap_scores(logits, labels, num_resamples=1).estimate
    predicted, tensors = logits.argmax(axis=1), (torch.from_numpy(logits), torch.from_numpy(labels))
    expected = {
        "accuracy": accuracy_score(labels, predicted),
        "macro_f1": f1_score(labels, predicted, average="macro", zero_division=0),
        "weighted_f1": f1_score(labels, predicted, average="weighted", zero_division=0),
        **precision_and_recall(labels, predicted),
        "ece": expected_calibration_error(*tensors, bins=10),
        "ece_15": expected_calibration_error(*tensors, bins=15),
        "nll": log_loss(labels, torch.from_numpy(logits).double().softmax(dim=1), labels=np.arange(12)),
        "brier": brier_score(*tensors),
    }
    assert estimate == pytest.approx(expected, abs=1e-6)
    assert estimate["nll"] == pytest.approx(negative_log_likelihood(*tensors), abs=1e-6)


def test_resamples_are_what_scikit_learn_says_of_the_repeated_rows():
    """Classes of 5 images each: a weight of 5 / 4 is five rows, of a set four times as large."""
    random = np.random.default_rng(3)
    labels = np.repeat(np.arange(8), 5)
    logits = random.normal(size=(40, 8)).astype(np.float32) * 2
    logits[np.arange(40), labels] += 2
    scores = bootstrap_scores(logits, labels, num_resamples=25, seed=4)
    weights = np.concatenate(list(stratified_weights(labels, 25, seed=4)))
    for at, weight in enumerate(weights):
        rows = np.repeat(np.arange(40), np.round(weight * 4).astype(int))
        assert len(rows) == 160
        true, picked = labels[rows], logits[rows]
        predicted, tensors = picked.argmax(axis=1), (torch.from_numpy(picked), torch.from_numpy(true))
        slow = {
            "accuracy": accuracy_score(true, predicted),
            "macro_f1": f1_score(true, predicted, average="macro", zero_division=0),
            "weighted_f1": f1_score(true, predicted, average="weighted", zero_division=0),
            **precision_and_recall(true, predicted),
            "ece": expected_calibration_error(*tensors, bins=10),
            "ece_15": expected_calibration_error(*tensors, bins=15),
            "nll": negative_log_likelihood(*tensors),
            "brier": brier_score(*tensors),
        }
        assert {name: values[at] for name, values in scores.resampled.items()} == pytest.approx(slow, abs=1e-6)


def test_blocks_do_not_change_the_scores(monkeypatch):
    logits, labels = example()
    whole = bootstrap_scores(logits, labels, num_resamples=40)
    monkeypatch.setattr("dogs_accel.evaluation.intervals._BLOCK", 1000)
    parts = bootstrap_scores(logits, labels, num_resamples=40)
    for name, values in whole.resampled.items():
        np.testing.assert_allclose(parts.resampled[name], values, rtol=1e-12)


def test_confidence_one_is_in_the_last_bin():
    logits = np.eye(3, dtype=np.float32) * 500
    scores = bootstrap_scores(logits[[0, 0, 1, 1]], np.array([0, 1, 1, 0]), num_resamples=5)
    assert scores.estimate["ece"] == scores.estimate["ece_15"] == 0.5
    assert scores.gaps["ece"].estimate.tolist() == [0.0] * 9 + [-0.5]


@pytest.mark.parametrize(("num_rows", "num_resamples"), [(0, 10), (4, 0)])
def test_nothing_to_resample(num_rows, num_resamples):
    with pytest.raises(ValueError, match=r"^num_resamples: got "):
        bootstrap_scores(np.zeros((num_rows, 3), np.float32), np.zeros(num_rows, np.int64), num_resamples=num_resamples)


def test_percentiles_and_widening():
    assert percentile_interval(np.arange(1001.0), 0.9).as_list() == pytest.approx([50, 950])
    assert Interval(1.0, 2.0).including(0.5) == Interval(0.5, 2.0)
    assert Interval(1.0, 2.0).including(2.5) == Interval(1.0, 2.5)


def test_error_range_with_one_bin_is_that_of_a_gap():
    """One bin whose gap is far from 0: its test inverted is the reflected percentile interval of the gap."""
    resampled = np.random.default_rng(0).gamma(2, 0.01, size=(4000, 1))
    resampled += 0.2 - resampled.mean()
    low, middle, high = calibration_error_range(BinGaps(estimate=np.array([-0.3]), resampled=resampled))
    deviation = np.quantile(resampled[:, 0] - 0.2, [0.025, 0.5, 0.975])
    # The gap is negative, so its size is seen as |-g + d| = g - d.
    assert [low, middle, high] == pytest.approx(list(0.3 + deviation), abs=1e-5)


def test_error_range_of_calibrated_predictions_begins_at_0():
    random = np.random.default_rng(1)
    noise = random.normal(size=(2000, 10)) * 0.01
    low, middle, high = calibration_error_range(BinGaps(estimate=noise[0], resampled=noise[0] + noise))
    assert low == 0.0
    assert 0 <= middle <= high < 0.15


@pytest.mark.fault("Scores and figures", "calibration errors that no resample changes", "no interval, with the reason")
def test_error_range_where_nothing_varies():
    gaps = BinGaps(estimate=np.array([0.0, -0.25]), resampled=np.tile([0.0, -0.25], (50, 1)))
    assert calibration_error_range(gaps) == (0.25, 0.25, 0.25)


def test_error_range_by_a_slow_search():
    """Every candidate on a grid, its nearest gaps found by scipy."""
    from scipy.optimize import minimize

    random = np.random.default_rng(5)
    spread = np.array([0.01, 0.02, 0.03])
    estimate, resampled = np.array([0.05, -0.01, 0.02]), random.normal(size=(3000, 3)) * spread
    deviation = resampled - resampled.mean(axis=0)
    variance = deviation.var(axis=0)

    def tail(error):
        """Share of what is seen at that error that is above the estimate."""
        sizes = minimize(
            lambda size: ((size - np.abs(estimate)) ** 2 / variance).sum(),
            np.full(3, error / 3),
            bounds=[(0, None)] * 3,
            constraints={"type": "eq", "fun": lambda size: size.sum() - error},
            method="SLSQP",
        ).x
        return (np.abs(np.sign(estimate) * sizes + deviation).sum(axis=1) >= 0.08).mean()

    grid = np.arange(0, 0.2, 0.002)
    kept = [error for error in grid if 0.025 <= tail(error) <= 0.975]
    low, middle, high = calibration_error_range(BinGaps(estimate=estimate, resampled=resampled))
    assert [low, high] == pytest.approx([min(kept), max(kept)], abs=0.003)
    assert tail(middle) == pytest.approx(0.5, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("images_per_class", "sharpness"), [(20, 1.0), (20, 1.3), (60, 1.3), (8, 2.0)])
def test_intervals_cover_the_truth(images_per_class, sharpness):
    """Calibrated (sharpness 1) and ever surer predictions of 10 classes."""
    population = Population(10, 1.2, sharpness)
    num_sets = 200
    covered = dict.fromkeys(population.true, 0)
    for at in range(num_sets):
        logits, labels = population.sample(images_per_class, np.random.default_rng(1000 + at))
        scores = bootstrap_scores(logits, labels, num_resamples=300, seed=at)
        for name, true in population.true.items():
            interval = scores.interval(name)
            covered[name] += interval.low <= true <= interval.high
    shares = {name: count / num_sets for name, count in covered.items()}
    assert all(0.90 <= share <= 0.99 for share in shares.values()), shares


@pytest.mark.slow
def test_percentiles_of_the_calibration_error_would_not_cover_it():
    """Why its interval inverts a test."""
    population = Population(10, 1.2, 1.0)
    covered = 0
    for at in range(100):
        logits, labels = population.sample(20, np.random.default_rng(1000 + at))
        interval = percentile_interval(bootstrap_scores(logits, labels, num_resamples=300).resampled["ece"])
        covered += interval.low <= population.true["ece"] <= interval.high
    assert covered == 0
