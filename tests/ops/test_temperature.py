"""fit_temperature against scipy on the same likelihood, against simulation, and where there is no optimum."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from torch import Tensor

from dogs_accel.calibration import TEMPERATURE_BOUNDS, calibration_scores, fit_temperature, negative_log_likelihood
from tests.support.operator_cases import DTYPES


def slow_nll(logits: Tensor, labels: Tensor, temperature: float) -> float:
    z = logits.double().numpy() / temperature
    z -= z.max(axis=1, keepdims=True)  # else 1e10 swallows what is looked for
    return float((logsumexp(z, axis=1) - z[np.arange(len(z)), labels.numpy()]).mean())


def simulate(
    num_rows: int, num_classes: int, temperature: float, scale: float = 3.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Logits, and labels drawn from softmax(logits / temperature)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_rows, num_classes, generator=generator) * scale
    labels = torch.multinomial((logits.double() / temperature).softmax(dim=1), 1, generator=generator)[:, 0]
    return logits, labels


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("num_rows", "num_classes", "temperature", "scale"),
    [(2000, 120, 1.7, 3.0), (500, 2, 0.4, 1.0), (3000, 10, 1.0, 2.0), (1000, 5, 5000.0, 1e4), (50, 3, 30.0, 100.0)],
)
def test_finds_scipy_s_minimum(
    dtype: torch.dtype, num_rows: int, num_classes: int, temperature: float, scale: float
) -> None:
    logits, labels = simulate(num_rows, num_classes, temperature, scale)
    logits = logits.to(dtype)
    fit = fit_temperature(logits, labels)
    expected = minimize_scalar(
        lambda log_t: slow_nll(logits, labels, math.exp(log_t)),
        bounds=(math.log(temperature) - 2, math.log(temperature) + 2),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert math.log(fit.temperature) == pytest.approx(expected.x, abs=1e-6)  # a minimum is flat: 1e-8 squared is lost
    assert fit.nll_after == pytest.approx(expected.fun, rel=1e-12)
    assert fit.nll_before == pytest.approx(slow_nll(logits, labels, 1.0), rel=1e-12)
    assert (fit.at_bound, fit.num_rows) == (None, num_rows)
    assert fit.iterations < 20


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_recovers_the_temperature_of_a_simulation(temperature: float) -> None:
    logits, labels = simulate(40_000, 20, temperature)
    assert fit_temperature(logits, labels).temperature == pytest.approx(temperature, rel=0.03)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Of 300 intervals of 95 % about 285 cover; 270 and 297 are four standard deviations from that."""
    fits = [fit_temperature(*simulate(400, 8, 1.6, seed=seed)) for seed in range(300)]
    assert 270 <= sum(fit.interval[0] <= 1.6 <= fit.interval[1] for fit in fits) <= 297
    for fit in fits:
        low, high = fit.interval
        assert low * high == pytest.approx(fit.temperature**2)


def test_interval_holds_where_the_model_does_not() -> None:
    """Labels that no temperature explains: the interval agrees with the spread over resampled rows."""
    logits, labels = simulate(2000, 6, 1.0)
    noisy = torch.rand(2000, generator=torch.Generator().manual_seed(1)) < 0.3
    labels = torch.where(noisy, labels.roll(1), labels)
    fit = fit_temperature(logits, labels)
    generator = torch.Generator().manual_seed(2)
    samples = [torch.randint(0, 2000, (2000,), generator=generator) for _ in range(200)]
    spread = np.std([math.log(fit_temperature(logits[rows], labels[rows]).temperature) for rows in samples])
    assert math.log(fit.interval[1] / fit.interval[0]) / (2 * 1.96) == pytest.approx(spread, rel=0.2)


def test_standard_error_by_hand() -> None:
    """Two classes, gap g in all rows, k of n right: sigmoid(g / T) = k / n, and the scores are of two values."""
    num_rows, num_right, gap = 100, 80, 2.0
    logits = torch.tensor([[gap, 0.0]]).expand(num_rows, 2)
    labels = (torch.arange(num_rows) >= num_right).long()
    fit = fit_temperature(logits, labels)
    share = num_right / num_rows
    z = math.log(share / (1 - share))
    assert fit.temperature == pytest.approx(gap / z)
    information = num_rows * share * (1 - share) * z**2
    error = math.sqrt(information * num_rows / (num_rows - 1)) / information
    assert math.log(fit.interval[1] / fit.temperature) == pytest.approx(1.959964 * error, rel=1e-6)


def test_apply_divides_in_float32_at_least() -> None:
    logits, labels = simulate(500, 8, 2.0)
    fit = fit_temperature(logits.bfloat16(), labels)
    applied = fit.apply(logits.bfloat16())
    assert applied.dtype == torch.float32
    assert torch.equal(applied, logits.bfloat16().float() / fit.temperature)
    assert negative_log_likelihood(applied, labels) == pytest.approx(fit.nll_after, abs=1e-6)
    assert fit.apply(logits.double()).dtype == torch.float64


def test_every_prediction_right_is_at_the_lower_bound() -> None:
    logits, _ = simulate(100, 10, 1.0)
    for scale in (1.0, 1e4):
        fit = fit_temperature(logits * scale, logits.argmax(dim=1))
        assert (fit.temperature, fit.at_bound) == (TEMPERATURE_BOUNDS["lower"], "lower")
        assert fit.interval == (0.0, math.inf)
        assert fit.nll_after == pytest.approx(0.0, abs=1e-12)


def test_worse_than_chance_is_at_the_upper_bound() -> None:
    logits, _ = simulate(100, 10, 1.0)
    fit = fit_temperature(logits, logits.argmin(dim=1))
    assert (fit.temperature, fit.at_bound) == (TEMPERATURE_BOUNDS["upper"], "upper")
    assert fit.interval == (0.0, math.inf)
    assert fit.nll_after == pytest.approx(math.log(10), abs=1e-5)


@pytest.mark.parametrize("num_classes", [1, 7])
def test_equal_logits_leave_the_temperature_at_one(num_classes: int) -> None:
    logits = torch.arange(30.0)[:, None].expand(30, num_classes)
    fit = fit_temperature(logits, torch.arange(30) % num_classes)
    assert (fit.temperature, fit.at_bound, fit.interval) == (1.0, None, (0.0, math.inf))
    assert fit.nll_after == fit.nll_before == pytest.approx(math.log(num_classes))


def test_one_row_has_no_interval() -> None:
    fit = fit_temperature(torch.tensor([[3.0, 2.0, -4.0]]), torch.tensor([1]))
    assert (fit.at_bound, fit.interval, fit.num_rows) == (None, (0.0, math.inf), 1)
    assert fit.nll_after < fit.nll_before
    assert fit_temperature(torch.tensor([[3.0, 2.0, -4.0]]), torch.tensor([0])).at_bound == "lower"
    assert fit_temperature(torch.tensor([[3.0, 2.0, -4.0]]), torch.tensor([2])).at_bound == "upper"


def test_blocks_of_rows_change_nothing() -> None:
    """Rows of several blocks give what the same rows in any other order give."""
    logits, labels = simulate(5000, 120, 1.4)
    one, two = fit_temperature(logits, labels), fit_temperature(logits.flip(0), labels.flip(0))
    assert one.temperature == pytest.approx(two.temperature, rel=1e-12)
    wide = fit_temperature(*simulate(7, 70_000, 1.4))  # one row is more than a block
    assert wide.nll_after <= wide.nll_before


@pytest.mark.filterwarnings("error")
def test_logits_that_require_gradients_are_taken_as_they_are() -> None:
    logits, labels = simulate(300, 5, 2.0)
    assert fit_temperature(logits.clone().requires_grad_(), labels) == fit_temperature(logits, labels)
    assert calibration_scores(logits.clone().requires_grad_(), labels) == calibration_scores(logits, labels)


def test_bad_values_are_named() -> None:
    logits, labels = simulate(20, 4, 1.0)
    with pytest.raises(ValueError, match=r"^logits: got shape \(0, 4\), expected \(N, C\) with N >= 1$"):
        fit_temperature(logits[:0], labels[:0])
    labels[3] = 4
    with pytest.raises(ValueError, match=r"^labels: row 3 is 4, expected 0 <= label < 4$"):
        fit_temperature(logits, labels)
    logits[2, 1] = float("nan")
    with pytest.raises(ValueError, match=r"^logits: row 2 holds a NaN or infinity$"):
        fit_temperature(logits, labels)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_never_worse(data: st.DataObject) -> None:
    num_rows = data.draw(st.integers(1, 30), label="rows")
    num_classes = data.draw(st.integers(1, 12), label="classes")
    dtype = data.draw(st.sampled_from(DTYPES), label="dtype")
    scale = data.draw(st.sampled_from([0.0, 1e-7, 1e-3, 1.0, 30.0, 1e4]), label="scale")
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31), label="seed"))
    logits = (torch.randn(num_rows, num_classes, generator=generator, dtype=torch.float64) * scale).to(dtype)
    if data.draw(st.booleans(), label="ties"):
        logits = logits.round()
    labels = torch.randint(0, num_classes, (num_rows,), generator=generator)
    if data.draw(st.booleans(), label="mostly right"):
        labels = torch.where(torch.rand(num_rows, generator=generator) < 0.8, logits.argmax(dim=1), labels)
    fit = fit_temperature(logits, labels)
    assert fit.nll_after <= fit.nll_before
    assert TEMPERATURE_BOUNDS["lower"] <= fit.temperature <= TEMPERATURE_BOUNDS["upper"]
    assert 0 <= fit.interval[0] <= fit.temperature <= fit.interval[1]
    assert fit.iterations <= 60
    before, after = slow_nll(logits, labels, 1.0), slow_nll(logits, labels, fit.temperature)
    assert after <= before + 1e-12 * max(1.0, before)
    for other in (0.5, 0.9, 1.1, 2.0):  # convex in 1 / T: no neighbour is better
        if fit.at_bound is None:
            assert after <= slow_nll(logits, labels, fit.temperature * other) + 1e-9 * max(1.0, before)


@pytest.mark.gpu
def test_the_same_on_cuda() -> None:
    logits, labels = simulate(5000, 120, 1.7)
    cpu, cuda = fit_temperature(logits, labels), fit_temperature(logits.cuda(), labels.cuda())
    assert cuda.temperature == pytest.approx(cpu.temperature, rel=1e-8)
    assert cuda.interval == pytest.approx(cpu.interval, rel=1e-8)
