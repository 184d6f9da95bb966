"""Importance and correlation on made objectives."""

import math

import numpy as np
import pytest
from scipy.stats import pointbiserialr, spearmanr

from dogs_accel.sweep.findings import importance
from dogs_accel.sweep.findings.importance import find_correlations, find_importance
from dogs_accel.sweep.findings.selection import selection_bias
from tests.support.made_sweeps import DOCUMENT, SMALL, drawn, made_trials


def test_the_parameter_that_matters_is_the_important_one_and_noise_is_not():
    parameters = drawn(SMALL, 40)
    random = np.random.default_rng(0)
    values = random.normal(0.5, 0.005, 40) + 0.1 * parameters["batch_norm"]
    first, *others = find_importance(made_trials(SMALL, parameters, values), num_forests=2)
    assert first.parameter == "batch_norm"
    assert first.share > 0.8
    assert first.stands_out
    assert not any(each.stands_out for each in others)
    assert first.share + sum(each.share for each in others) == pytest.approx(1)
    assert all(each.low <= each.share <= each.high for each in (first, *others))


def test_few_trials_or_equal_ones_have_no_importance():
    parameters = drawn(SMALL, 30)
    assert find_importance(made_trials(SMALL, parameters, np.full(30, 0.5))) == []
    assert find_importance(made_trials(SMALL, parameters[:7], np.linspace(0.4, 0.5, 7))) == []
    assert find_correlations(made_trials(SMALL, parameters, np.full(30, 0.5))) == []


def test_a_forest_that_sees_one_value_alone_gives_no_parameter_a_share():
    values = np.full(20, 0.125)
    values[3] = 0.25
    columns = {"a": np.arange(20) % 2.0, "b": np.arange(20) / 19}
    shares = [importance._shares(columns, {"a": 2}, values, seed, 2) for seed in (11, 12)]
    assert [sum(each.values()) for each in shares] == pytest.approx([1, 0])


def test_correlations_are_scipys():
    parameters = drawn(SMALL, 40)
    values = np.random.default_rng(0).normal(0.5, 0.01, 40) + 0.01 * np.log10(parameters["lr"])
    found = {each.name: each for each in find_correlations(made_trials(SMALL, parameters, values))}
    assert found["lr"].kind == "Spearman"
    assert found["lr"].value == pytest.approx(spearmanr(parameters["lr"], values).statistic)
    has = parameters["activation"] == "mish"
    assert found["activation=mish"].value == pytest.approx(pointbiserialr(has, values).statistic)
    assert found["activation=mish"].num_trials == has.sum()
    # Fisher's interval is another one of the same correlation.
    middle, half = math.atanh(found["lr"].value), 1.96 / math.sqrt(40 - 3)
    fisher = math.tanh(middle - half), math.tanh(middle + half)
    assert (found["lr"].low, found["lr"].high) == pytest.approx(fisher, abs=0.1)


def test_a_level_of_one_trial_has_no_interval():
    parameters = drawn(DOCUMENT, 12)
    parameters["activation"] = ["mish"] + ["relu"] * 11
    found = find_correlations(made_trials(DOCUMENT, parameters, np.random.default_rng(0).normal(0.5, 0.01, 12)))
    [mish] = [each for each in found if each.name == "activation=mish"]
    assert mish.num_trials == 1
    assert math.isnan(mish.low)


def test_the_best_of_equal_trials_is_better_by_luck_alone():
    """The expected highest of 20 standard normal values is 1.867 (Harter, Biometrika 48, 1961)."""
    random = np.random.default_rng(0)
    values = random.binomial(1000, 0.5, 20) / 1000
    bias = selection_bias(values, 1000)
    assert bias.standard_error == pytest.approx(math.sqrt(0.25 / 1000), rel=0.01)
    assert bias.if_all_equal == pytest.approx(1.867 * bias.standard_error, rel=0.03)
    assert 0 <= bias.expected <= bias.if_all_equal * 1.02


def test_the_best_of_trials_that_differ_much_is_the_best():
    bias = selection_bias(np.linspace(0.1, 0.9, 9), 1000)
    assert bias.expected < 0.002
    alone = selection_bias(np.array([0.5]), 100)
    assert (alone.expected, alone.if_all_equal) == (0, 0)
    # Of as many normal values, the highest is 1.352 standard errors above their mean.
    pruned = selection_bias(np.array([0.5]), 1000, num_pruned=6)
    assert pruned.if_all_equal == pytest.approx(1.352 * pruned.standard_error, rel=0.05)
    with pytest.raises(ValueError, match="num_val: got 0 for 1 trials"):
        selection_bias(np.array([0.5]), 0)


def test_the_bias_is_what_a_simulation_of_it_says():
    random = np.random.default_rng(1)
    true = random.normal(0.5, 0.01, (2000, 20))
    seen = random.binomial(500, true) / 500
    rows = np.arange(2000)
    really = (seen.max(axis=1) - true[rows, seen.argmax(axis=1)]).mean()
    assert np.mean([selection_bias(row, 500).expected for row in seen[:20]]) == pytest.approx(really, rel=0.15)
