"""What is said of levels, on spaces whose answers are known."""

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy.stats import ttest_ind
from statsmodels.stats.outliers_influence import variance_inflation_factor

from dogs_accel.sweep.findings.levels import HIGHER, LOWER, NOT_SHOWN, NOTHING_FOLLOWS, find_levels
from dogs_accel.sweep.findings.trials import level_text, levels_of
from dogs_accel.sweep.space import Parameter
from dogs_accel.sweep.trials import FAILED, PRUNED
from tests.support.made_sweeps import DOCUMENT, SMALL, balanced, choice, drawn, made_trials


def by_name(found):
    return {each.name: each for each in found}


def noise(num, seed=0, size=0.01):
    return np.random.default_rng(seed).normal(0.5, size, num)


def test_a_real_effect_is_shown_and_others_are_not():
    parameters = drawn(DOCUMENT, 60)
    values = noise(60) + 0.03 * parameters["batch_norm"] - 0.04 * (parameters["organisation"] == "half")
    found = by_name(find_levels(made_trials(DOCUMENT, parameters, values)))
    assert found["batch_norm=true"].verdict == HIGHER
    assert found["batch_norm=false"].verdict == LOWER
    assert found["organisation=half"].verdict == LOWER
    assert found["batch_norm=true"].adjusted == pytest.approx(0.03, abs=0.01)
    others = [each for name, each in found.items() if not name.startswith(("batch_norm", "organisation"))]
    assert {each.verdict for each in others} <= {NOT_SHOWN, NOTHING_FOLLOWS}


def test_the_numbers_are_those_of_others():
    """Welch's interval is scipy's, the adjusted difference and the inflation are statsmodels'."""
    parameters = drawn(SMALL[:2], 40, seed=3)
    values = noise(40, seed=4) + 0.02 * parameters["batch_norm"]
    found = by_name(find_levels(made_trials(SMALL[:2], parameters, values)))["batch_norm=true"]
    has = parameters["batch_norm"].to_numpy(dtype=bool)
    welch = ttest_ind(values[has], values[~has], equal_var=False)
    interval = welch.confidence_interval()
    assert found.difference == pytest.approx(values[has].mean() - values[~has].mean())
    assert (found.difference_low, found.difference_high) == pytest.approx((interval.low, interval.high))
    frame = pd.DataFrame({"y": values, "bn": has.astype(float), "act": parameters["activation"]})
    fit = smf.ols("y ~ bn + C(act)", frame).fit()
    assert found.adjusted == pytest.approx(fit.params["bn"])
    assert (found.adjusted_low, found.adjusted_high) == pytest.approx(tuple(fit.conf_int().loc["bn"]))
    assert found.p_value == pytest.approx(fit.pvalues["bn"], abs=0.01)
    place = fit.model.exog_names.index("bn")
    assert found.inflation == pytest.approx(variance_inflation_factor(fit.model.exog, place))


def test_a_level_that_came_with_another_is_called_confounded():
    """The published reading: seven of nine trials of one activation had batch norm, which is what helps."""
    parameters = pd.DataFrame(
        {
            "activation": ["mish"] * 9 + ["relu"] * 6 + ["gelu"] * 5,
            "batch_norm": [True] * 7 + [False] * 2 + [True] * 2 + [False] * 4 + [True] + [False] * 4,
        }
    )
    found = by_name(find_levels(made_trials(SMALL[:2], parameters, noise(20) + 0.05 * parameters["batch_norm"])))
    mish = found["activation=mish"]
    assert mish.difference_low > 0
    assert mish.verdict == NOTHING_FOLLOWS
    assert mish.confounded == "7 of the 9 had batch_norm=true (3 of the other 11)"
    assert (mish.came_with, mish.together) == ("batch_norm=true", 7)
    # The same 2 x 2 table by hand: (7 * 8 - 2 * 3) / sqrt(9 * 11 * 10 * 10).
    assert mish.cramers_v == pytest.approx(50 / math.sqrt(9900))


@pytest.mark.parametrize("better", ["mish", "relu"])
def test_of_two_levels_both_are_confounded_or_none_is(better):
    """Of the others eight of eleven had no batch norm, which by itself is just not often enough."""
    parameters = pd.DataFrame(
        {
            "activation": ["mish"] * 9 + ["relu"] * 11,
            "batch_norm": [True] * 7 + [False] * 2 + [True] * 3 + [False] * 8,
        }
    )
    values = noise(20, size=0.002) + 0.05 * (parameters["activation"] == better)
    found = by_name(find_levels(made_trials(SMALL[:2], parameters, values)))
    mish, relu = found["activation=mish"], found["activation=relu"]
    assert mish.confounded == "7 of the 9 had batch_norm=true (3 of the other 11)"
    assert relu.confounded == relu.reason == "of mish 7 of the 9 had batch_norm=true (3 of the other 11)"
    assert {mish.verdict, relu.verdict} == {NOTHING_FOLLOWS}


def test_levels_that_always_come_together_are_aliases():
    parameters = drawn(SMALL[:2], 30)
    parameters["batch_norm"] = parameters["activation"] == "mish"
    found = find_levels(made_trials(SMALL[:2], parameters, noise(30) + 0.1 * parameters["batch_norm"]))
    assert {each.verdict for each in found if each.level in ("mish", "true", "false")} == {NOTHING_FOLLOWS}
    assert math.isinf(by_name(found)["activation=mish"].inflation)


def test_other_parameters_that_together_decide_a_level_are_seen():
    """Which no pair of levels shows: a parity of the others."""
    space = tuple(choice(name=name, choices=(0, 1)) for name in "abcd")
    parameters = pd.DataFrame(np.array(np.meshgrid(*[[0, 1]] * 3)).reshape(3, -1).T, columns=list("abc"))
    parameters = pd.concat([parameters] * 4, ignore_index=True)
    parameters["d"] = (parameters[["a", "b", "c"]].sum(axis=1) >= 2).astype(int)  # what most of the three say
    found = by_name(find_levels(made_trials(space, parameters, noise(32) + 0.05 * parameters["d"])))
    assert found["d=1"].inflation == pytest.approx(4.0)
    assert found["d=1"].confounded == "12 of the 16 had a=1 (4 of the other 16)"


def test_an_effect_that_changes_its_sign_is_called_confounded():
    space = (choice(name="a", choices=(0, 1)), choice(name="b", choices=(0, 1, 2, 3)))
    rows = [(1, 3)] * 6 + [(1, 2)] * 4 + [(1, 1)] * 2 + [(0, 2)] * 2 + [(0, 1)] * 4 + [(0, 0)] * 6
    parameters = pd.DataFrame(rows, columns=["a", "b"])
    values = noise(24, size=0.004) + 0.05 * parameters["b"] - 0.03 * parameters["a"]
    found = by_name(find_levels(made_trials(space, parameters, values)))["a=1"]
    assert found.difference_low > 0
    assert found.adjusted == pytest.approx(-0.03, abs=0.01)
    assert "with the other parameters held equal" in found.confounded
    assert found.verdict == NOTHING_FOLLOWS


def test_a_balanced_design_is_not_confounded():
    space = DOCUMENT[:5]
    parameters = balanced(space)
    found = find_levels(made_trials(space, parameters, noise(len(parameters))))
    assert {each.confounded for each in found} == {""}
    assert [each.inflation for each in found] == pytest.approx([1.0] * len(found))
    assert [each.adjusted for each in found] == pytest.approx([each.difference for each in found])
    assert max(each.cramers_v for each in found) < 1e-9


def preferring(space, values, seed):
    """Parameters that a sampler draws after it has seen the values of earlier trials: often the best level so far."""
    random = np.random.default_rng(seed)
    columns = {}
    for parameter in space:
        chosen = []
        for at in range(len(values)):
            means = [
                np.mean([value for value, level in zip(values, chosen, strict=False) if level == each] or [0.5])
                for each in parameter.choices
            ]
            place = int(np.argmax(means)) if at >= 8 and random.random() < 0.6 else random.integers(len(means))
            chosen.append(parameter.choices[place])
        columns[parameter.name] = chosen
    return pd.DataFrame(columns)


@pytest.mark.parametrize("kind", ["random", "balanced", "skewed", "preferring"])
def test_noise_shows_nothing_in_95_of_100_sweeps(kind):
    """Over all levels together, whatever the noise is, though some differ from the others by their own intervals."""
    num_sweeps, false = 100, 0
    space = SMALL if kind in ("random", "skewed") else SMALL[:2]
    for seed in range(num_sweeps):
        random = np.random.default_rng(1000 + seed)
        values = 0.5 - 0.1 * random.exponential(size=24) if kind == "skewed" else random.normal(0.5, 0.02, 24)
        parameters = {
            "balanced": lambda: balanced(space, 4),
            "preferring": lambda values=values, seed=seed: preferring(space, values, seed),
        }.get(kind, lambda seed=seed: drawn(space, 24, seed))()
        found = find_levels(made_trials(space, parameters, values), num_permutations=199)
        false += any(each.verdict in (HIGHER, LOWER) for each in found)
    assert false / num_sweeps <= 0.05


def test_few_trials_say_nothing():
    parameters = drawn(SMALL[:2], 20, seed=1)
    parameters["activation"] = ["mish"] + ["relu"] * 17 + ["gelu"] * 2
    found = by_name(find_levels(made_trials(SMALL[:2], parameters, noise(20))))
    assert found["activation=mish"].reason == "one complete trial had it"
    assert found["activation=gelu"].reason == "two complete trials had it"
    assert math.isnan(found["activation=mish"].low)
    too_few = find_levels(made_trials(DOCUMENT, drawn(DOCUMENT, 12), noise(12)))
    assert {each.verdict for each in too_few} == {NOTHING_FOLLOWS}


def test_pruned_and_failed_trials_are_counted_and_their_values_are_not():
    parameters = drawn(SMALL, 30)
    values, states = noise(30), np.array(["complete"] * 20 + [PRUNED] * 8 + [FAILED] * 2)
    values[states == PRUNED] = 0.99  # of fewer epochs
    values[states == FAILED] = np.nan
    found = find_levels(made_trials(SMALL, parameters, values, state=states))
    for parameter in ("activation", "batch_norm", "lr"):
        own = [each for each in found if each.parameter == parameter]
        counts = [[each.num_trials, each.num_complete, each.num_pruned, each.num_failed] for each in own]
        assert np.sum(counts, axis=0).tolist() == [30, 20, 8, 2]
    assert max(each.best for each in found) < 0.9


def test_a_repeated_trial_counts_once():
    parameters = pd.concat([drawn(SMALL[:2], 1)] * 10 + [drawn(SMALL[:2], 10, seed=5)], ignore_index=True)
    trials = made_trials(SMALL[:2], parameters, noise(20))
    trials.table["seed"] = 42
    assert trials.repeats[:10].tolist() == [False] + [True] * 9
    assert len(trials.values) == 20 - trials.repeats.sum()


def test_ranges_are_cut_by_the_space_alone():
    lr = SMALL[2]
    found = levels_of(lr, pd.Series([1e-4, 9.9e-4, 1.1e-3, 0.011, 0.1, np.nan]))
    assert found.labels == ("0.0001 to 0.001", "0.001 to 0.01", "0.01 to 0.1")
    assert found.index.tolist() == [0, 0, 1, 2, 2, -1]
    depth = Parameter(name="depth", kind="int", low=2, high=5)
    assert levels_of(depth, pd.Series([5, 2, 3])).index.tolist() == [3, 0, 1]


def test_a_value_that_is_no_choice_is_refused():
    numbers = choice(name="p", choices=(0.2, 0.3))
    assert levels_of(numbers, pd.Series([0.3, None, 0.2], dtype=object)).index.tolist() == [1, -1, 0]
    with pytest.raises(ValueError, match=r"p: got '0.5', expected one of 0.2, 0.3"):
        levels_of(numbers, pd.Series([0.5]))


def test_a_range_of_few_steps_has_its_values_as_levels():
    flip = Parameter(name="recipe.flip", kind="float", low=0.0, high=0.5, step=0.25)
    found = levels_of(flip, pd.Series([0.25, 0.0, 0.5, None], dtype=object))
    assert (found.labels, found.index.tolist()) == (("0", "0.25", "0.5"), [1, 0, 2, -1])
    tenths = Parameter(name="recipe.flip", kind="float", low=0.0, high=0.3, step=0.1)
    assert levels_of(tenths, pd.Series([0.1 + 0.2, 0.1])).labels == ("0", "0.1", "0.2", "0.3")
    assert levels_of(tenths, pd.Series([0.1 + 0.2, 0.1])).index.tolist() == [3, 1]
    even = Parameter(name="batch_size", kind="int", low=2, high=6, step=2)
    assert levels_of(even, pd.Series([6, 2])).labels == ("2", "4", "6")
    many = Parameter(name="lr", kind="float", low=0.0, high=1.0, step=1e-9)
    assert len(levels_of(many, pd.Series([0.5])).labels) == 3


def test_a_number_is_written_alike_in_sentences_and_tables():
    choices = choice("set.num_groups", (900000.0, 0.12345))
    labels = levels_of(choices, pd.Series([900000.0], dtype=object)).labels
    assert labels == ("900000", "0.12345")
    assert [level_text(value, is_choice=True) for value in choices.choices] == [*labels]
    assert (level_text(912345.6), level_text(1e-5), level_text(3.0)) == ("912000", "1e-05", "3")
