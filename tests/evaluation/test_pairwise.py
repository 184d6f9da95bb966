"""Pairs of runs against other people's tests and slow loops, and what their intervals cover of simulated truths."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from dogs_accel.evaluation.intervals import ALONE_IN_THEIR_CLASSES, Interval, bootstrap_scores, stratified_weights
from dogs_accel.evaluation.pairwise import (
    COLUMNS,
    NO_DIFFERENCE,
    SEED_COLUMNS,
    ComparedRun,
    compare_runs,
    compared_run,
    describe_difference,
    difference_verdict,
    make_pairs,
)
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.evaluation.significance import holm, mcnemar
from tests.support.populations import Population


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_mcnemar_is_that_of_statsmodels(share):
    random = np.random.default_rng(0)
    a, b = random.random(500) < 0.8, random.random(500) < 0.8
    b = np.where(random.random(500) < share, b, a)
    ours = mcnemar(a, b)
    table = pd.crosstab(pd.Categorical(a, [True, False]), pd.Categorical(b, [True, False]), dropna=False)
    assert (ours.only_a_right, ours.only_b_right) == (table.loc[True, False], table.loc[False, True])
    expected = 1.0 if share == 0 else statsmodels_mcnemar(table, exact=True).pvalue
    assert ours.p_value == pytest.approx(expected, rel=1e-12)


def test_mcnemar_by_hand():
    """1 against 5: 2 * (C(6, 0) + C(6, 1)) / 2^6."""
    a = np.array([1, 0, 0, 0, 0, 0, 1, 0], dtype=bool)
    b = np.array([0, 1, 1, 1, 1, 1, 1, 0], dtype=bool)
    assert mcnemar(a, b).p_value == pytest.approx(14 / 64)


@pytest.mark.parametrize("num", [0, 1, 2, 6, 40])
def test_holm_is_that_of_statsmodels(num):
    p_values = np.random.default_rng(num).random(num) ** 4
    p_values[num // 2 :] = p_values[: num - num // 2]  # ties
    expected = multipletests(p_values, method="holm")[1].tolist() if num else []
    assert holm(p_values) == pytest.approx(expected)


LABELS = np.repeat(np.arange(12), 25)
IDS = np.array([f"n{at:04}" for at in range(300)])


def predictions(skill, seed, labels=LABELS, ids=IDS):
    """`skill` raises the right logit."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(len(labels), 12)).astype(np.float32)
    logits[np.arange(len(labels)), labels] += skill
    return Predictions(logits, labels, ids)


@pytest.fixture(scope="module")
def runs():
    """The second is better, the third as good as the first."""
    return [
        compared_run(name, name, 42, predictions(skill, seed))
        for name, skill, seed in (("one", 2.0, 0), ("two", 4.5, 1), ("three", 2.0, 2))
    ]


def test_rows_of_single_runs(runs):
    table = compare_runs(runs)
    assert tuple(table.columns) == COLUMNS
    pairs = [("one", "two"), ("one", "three"), ("two", "three")]
    assert list(zip(table["run_a"], table["run_b"], strict=True)) == [pair for pair in pairs for _ in range(3)]
    assert table["metric"].tolist() == ["accuracy", "macro_f1", "ece"] * 3
    assert (table["difference"] == table["b"] - table["a"]).all()
    assert ((table["low"] <= table["difference"]) & (table["difference"] <= table["high"])).all()
    of_accuracy = table[table["metric"] == "accuracy"]
    assert of_accuracy["verdict"].tolist() == ["b is better", NO_DIFFERENCE, "a is better"]
    tests = [mcnemar(*(run.right for run in pair)) for pair in itertools.combinations(runs, 2)]
    assert of_accuracy["mcnemar_p"].tolist() == [test.p_value for test in tests]
    assert of_accuracy["mcnemar_p_holm"].tolist() == holm([test.p_value for test in tests])
    assert of_accuracy["only_a_right"].tolist() == [test.only_a_right for test in tests]
    others = table[table["metric"] != "accuracy"]
    assert others[["only_a_right", "only_b_right", "mcnemar_p", "mcnemar_p_holm"]].isna().all(axis=None)


def test_the_difference_of_f1_is_resampled_in_pairs(runs):
    """Against a loop over the same resamples; classes of 25, so a weight is a multiple of 25 / 24."""
    one, two = predictions(2.0, 0), predictions(4.5, 1)
    differences = []
    for weight in itertools.chain.from_iterable(stratified_weights(LABELS, 2000, seed=0)):
        rows = weight > 0
        f1 = [
            f1_score(LABELS[rows], run.predicted[rows], average="macro", sample_weight=weight[rows])
            for run in (one, two)
        ]
        differences.append(f1[1] - f1[0])
        if len(differences) == 100:
            break
    resampled = runs[1].scores.resampled["macro_f1"] - runs[0].scores.resampled["macro_f1"]
    assert resampled[:100] == pytest.approx(differences, abs=1e-12)
    row = compare_runs(runs[:2]).iloc[1]
    assert [row.low, row.high] == pytest.approx(np.quantile(resampled, [0.025, 0.975]))


def test_a_run_against_itself_shows_no_difference():
    same = [compared_run(name, name, 42, predictions(2.0, 0)) for name in ("one", "two")]
    table = compare_runs(same)
    assert table["verdict"].tolist() == [NO_DIFFERENCE] * 3
    assert table["difference"].tolist() == [0, 0, 0]
    assert table["mcnemar_p"][0] == 1


def test_the_order_of_the_images_does_not_matter(runs):
    order = np.random.default_rng(0).permutation(300)
    shuffled = [
        compared_run(name, name, 42, Predictions(each.logits[order], each.labels[order], each.ids[order]))
        for name, each in (("one", predictions(2.0, 0)), ("two", predictions(4.5, 1)))
    ]
    pd.testing.assert_frame_equal(compare_runs(shuffled), compare_runs(runs[:2]))


def test_one_run_has_no_pairs(runs):
    assert compare_runs(runs[:1]).empty
    assert tuple(compare_runs([]).columns) == COLUMNS


@pytest.mark.fault("Scores and figures", "two runs that were tested on different images", "not compared, by name")
def test_other_images_are_refused(runs):
    fewer = compared_run("fewer", "fewer", 42, predictions(2.0, 0, LABELS[:100], IDS[:100]))
    with pytest.raises(ValueError, match=r"^fewer: tested on other images than one \(100 and 300, 100 in common\)"):
        compare_runs([runs[0], fewer])
    other = LABELS.copy()
    other[7] = 3
    relabelled = compared_run("other", "other", 42, predictions(2.0, 0, other))
    with pytest.raises(ValueError, match=r"^other: label of n0007 is 3, expected 0 as one has$"):
        compare_runs([runs[0], relabelled])


@pytest.mark.parametrize(
    ("metric", "low", "high", "shown", "words"),
    [
        ("accuracy", 0.1, 0.2, True, "b is better"),
        ("accuracy", -0.2, -0.1, True, "a is better"),
        ("ece", 0.1, 0.2, True, "a is better"),
        ("ece", -0.2, -0.1, True, "b is better"),
        ("accuracy", 0.1, 0.2, False, NO_DIFFERENCE),
        ("accuracy", 0.0, 0.2, True, NO_DIFFERENCE),
        ("macro_f1", -0.1, 0.2, True, NO_DIFFERENCE),
    ],
)
def test_words(metric, low, high, shown, words):
    assert difference_verdict(metric, Interval(low, high), shown) == words


def seeded(configuration, skill, seeds):
    return [
        compared_run(
            f"{configuration}_seed{seed}", configuration, seed, predictions(skill, 100 * seed + int(skill * 9))
        )
        for seed in seeds
    ]


def test_several_seeds_by_hand():
    runs = [*seeded("one", 2.0, [7, 8, 9]), *seeded("two", 4.5, [7, 8, 9])]
    table = compare_runs(runs)
    assert tuple(table.columns) == (*COLUMNS, *SEED_COLUMNS)
    assert table[["run_a", "run_b"]].drop_duplicates().values.tolist() == [["one", "two"]]
    assert table["num_seeds"].tolist() == [3, 3, 3]
    assert table["mcnemar_p"].isna().all()
    accuracy = np.array([run.right.mean() for run in runs])
    differences = accuracy[3:] - accuracy[:3]
    row = table.iloc[0]
    assert row.a == pytest.approx(accuracy[:3].mean())
    assert row.difference == pytest.approx(differences.mean())
    half = (
        4.302653 * differences.std(ddof=1) / math.sqrt(3)
    )  # Student's t with 2 degrees of freedom, as tables print it
    assert [row.seeds_low, row.seeds_high] == pytest.approx([differences.mean() - half, differences.mean() + half])
    resampled = np.mean([run.scores.resampled["accuracy"] for run in runs[3:]], axis=0)
    resampled -= np.mean([run.scores.resampled["accuracy"] for run in runs[:3]], axis=0)
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert row.low == pytest.approx(row.difference - math.hypot(row.difference - low, half))
    assert row.high == pytest.approx(row.difference + math.hypot(high - row.difference, half))
    assert row.verdict == "b is better"


@pytest.mark.fault(
    "Scores and figures", "two seeds that differ much", "the interval of a difference stays within -1 and 1"
)
def test_an_interval_of_two_seeds_has_possible_differences_alone():
    table = compare_runs([*seeded("one", 0.5, [7, 8]), *seeded("two", 9.0, [7]), *seeded("two", 0.1, [8])])
    row = table.iloc[0]
    # Student's t with one degree of freedom is 12.7, so that half the interval is more than the whole range.
    assert (row.low, row.high, row.seeds_low, row.seeds_high) == (-1, 1, -1, 1)
    assert row.verdict == "no difference shown"


def test_seeds_that_both_have_are_compared():
    runs = [*seeded("one", 2.0, [7, 8, 9]), *seeded("two", 4.5, [8]), *seeded("three", 2.0, [5, 6])]
    pairs = [([run.name for run in pair.runs_a], [run.name for run in pair.runs_b]) for pair in make_pairs(runs)]
    assert pairs == [
        (["one_seed8"], ["two_seed8"]),
        (["one_seed7", "one_seed8"], ["three_seed5", "three_seed6"]),
        (["two_seed8"], ["three_seed5"]),
    ]
    table = compare_runs(runs)
    assert table["run_a"][0] == "one_seed8"
    assert table["num_seeds"].tolist() == [1] * 3 + [2] * 3 + [1] * 3
    assert table["mcnemar_p"].notna().tolist() == [True, False, False] + [False] * 3 + [True, False, False]


def few(name, answers, labels, num_classes=3):
    logits = np.eye(num_classes, dtype=np.float32)[answers] * (4 - np.arange(len(labels))[:, None] / 10)
    return compared_run(
        name, name, 42, Predictions(logits.astype(np.float32), np.array(labels), np.arange(len(labels)).astype(np.str_))
    )


@pytest.mark.fault(
    "Scores and figures", "two models compared on three pictures", "no difference shown, whatever resampling says"
)
def test_three_pictures_show_no_difference():
    """One image a class leaves nothing to resample; with two of one class every resample speaks for the same run."""
    table = compare_runs([few("a", [1, 2, 1], [0, 1, 2]), few("b", [0, 1, 2], [0, 1, 2])])
    assert table["verdict"].tolist() == [NO_DIFFERENCE] * 3
    assert table[["low", "high"]].isna().all(axis=None)
    assert set(table["reason"]) == {ALONE_IN_THEIR_CLASSES}
    assert (
        describe_difference(table.iloc[0]) == f"b against a: +1.000 (no interval), McNemar p = 0.250, {NO_DIFFERENCE}"
    )
    table = compare_runs([few("a", [1, 0, 0], [0, 0, 1]), few("b", [0, 0, 1], [0, 0, 1])])
    assert table["low"][1] > 0
    assert table["verdict"].tolist() == [NO_DIFFERENCE] * 3


def test_mcnemar_shows_a_difference_where_resampling_cannot():
    labels = list(range(10))
    table = compare_runs([few("a", [9, *labels[:9]], labels, 10), few("b", labels, labels, 10)])
    assert table["mcnemar_p"][0] == 2**-9
    assert table["verdict"].tolist() == ["b is better", NO_DIFFERENCE, NO_DIFFERENCE]


def test_lines_for_people(runs):
    table = compare_runs(runs)
    better, none = table.iloc[0], table.iloc[3]
    assert describe_difference(better) == (
        f"two against one: {better.difference:+.3f} ({better.low:.3f} to {better.high:.3f}), McNemar p < 0.001"
    )
    assert describe_difference(none) == (
        f"three against one: {none.difference:+.3f} ({none.low:.3f} to {none.high:.3f}), "
        f"McNemar p = {none.mcnemar_p_holm:.3f}, {NO_DIFFERENCE}"
    )


def quick_run(name, seed, logits, labels):
    """As `compared_run`, with few resamples."""
    scores = bootstrap_scores(logits, labels, num_resamples=200)
    predicted = logits.argmax(axis=1)
    return ComparedRun(
        name=name,
        configuration=name,
        seed=seed,
        ids=np.arange(len(labels)).astype(np.str_),
        labels=labels,
        predicted=predicted,
        right=predicted == labels,
        scores=scores,
    )


@pytest.mark.slow
@pytest.mark.parametrize("sharpness", [(1.0, 1.3), (1.3, 1.3)])
def test_intervals_of_differences_cover_the_truth(sharpness):
    """Two classifiers whose mistakes are alike, as they see the same points with some noise of their own."""
    populations = [Population(10, 1.2, each) for each in sharpness]
    num_sets = 120
    covered = dict.fromkeys(("accuracy", "macro_f1", "ece"), 0)
    for at in range(num_sets):
        runs = [_alike(population, at, own) for own, population in enumerate(populations)]
        (pair,) = make_pairs(runs)
        for metric in covered:
            interval = pair.interval(metric)
            true = populations[1].true[metric] - populations[0].true[metric]
            covered[metric] += interval.low <= true <= interval.high
    shares = {name: count / num_sets for name, count in covered.items()}
    assert all(0.90 <= share <= 0.99 for share in shares.values()), shares


def _alike(population, at, own):
    labels = np.repeat(np.arange(10), 60)
    common = np.random.default_rng(9000 + at).normal(size=(600, 5))
    points = 0.7 * common + math.sqrt(0.51) * np.random.default_rng([at, own]).normal(size=(600, 5))
    points += population.centres[labels]
    posterior = points @ population.centres.T - (population.centres**2).sum(axis=1) / 2
    return quick_run(f"run {own}", 0, (posterior * population.sharpness).astype(np.float32), labels)


@pytest.mark.slow
@pytest.mark.parametrize(("num_seeds", "spread"), [(2, 0.05), (3, 0.05)])
def test_intervals_over_seeds_cover_the_truth(num_seeds, spread):
    """Two classes; each image has its difficulty, and each training its luck. Both configurations are as good."""
    num_sets, covered = 100, 0
    for at in range(num_sets):
        random = np.random.default_rng(at)
        difficulty = random.normal(size=300) * 0.2
        runs = []
        for name in ("one", "two"):
            for seed in range(num_seeds):
                right = random.random(300) < np.clip(0.75 + difficulty + random.normal() * spread, 0, 1)
                logits = np.where(right[:, None] == np.array([True, False]), 1, 0).astype(np.float32)
                runs.append(quick_run(name, seed, logits, np.zeros(300, dtype=np.int64)))
        (pair,) = make_pairs(runs)
        interval = pair.interval("accuracy")
        covered += interval.low <= 0 <= interval.high
    assert 0.92 <= covered / num_sets <= 1.0
