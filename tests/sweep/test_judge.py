"""What is said of retrained candidates whose answers are made."""

import dataclasses

import numpy as np
import pytest

from dogs_accel.evaluation.intervals import t_half_width
from dogs_accel.evaluation.pairwise import NO_DIFFERENCE
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.sweep.confirming.judge import (
    BASELINE,
    Finalist,
    confirmation_of,
    describe_confirmation,
    judge,
    score_of,
    with_test,
)
from dogs_accel.sweep.findings.confirmed import confirmation_view

NUM, CLASSES = 400, 5
LABELS = np.arange(NUM) % CLASSES


def answers(share_right, seed, num=NUM):
    """Predictions of which this share is right; those of one seed have the same hard images."""
    random = np.random.default_rng(seed)
    labels = LABELS[:num].astype(np.int64)
    right = random.random(num) < share_right
    logits = random.normal(size=(num, CLASSES)).astype(np.float32)
    logits[np.arange(num), np.where(right, labels, (labels + 1) % CLASSES)] += 8
    return Predictions(logits, labels, np.array([f"{at:04}" for at in range(num)]))


def candidates(shares, seeds=(43, 44, 45)):
    """By name: the value that it had in the sweep, and the share that it has right now."""
    return {
        name: (Finalist(name=name, in_sweep=in_sweep), {seed: answers(share, seed) for seed in seeds})
        for name, (in_sweep, share) in shares.items()
    }


SHARES = {"trial 13": (0.8, 0.75), "trial 4": (0.78, 0.74), BASELINE: (None, 0.5)}


def test_the_highest_mean_is_chosen_and_compared_with_the_baseline():
    given = candidates(SHARES)
    found = judge(given)
    means = {
        name: np.mean([np.mean(each.predicted == each.labels) for each in by_seed.values()])
        for name, (_, by_seed) in given.items()
    }
    assert {each.candidate.name: each.mean for each in found.scored} == pytest.approx(means)
    assert found.chosen == max(means, key=means.get) == "trial 13"
    assert found.pairs[["run_a", "run_b"]].to_numpy().tolist() == [
        [BASELINE, "trial 13"], [BASELINE, "trial 4"], ["trial 13", "trial 4"],
    ]  # fmt: skip
    assert found.pairs["verdict"].tolist() == ["b is better", "b is better", NO_DIFFERENCE]


def test_of_equals_the_better_one_of_the_sweep_is_chosen():
    given = candidates({"trial 9": (0.8, 0.7), "trial 1": (0.7, 0.7)})
    assert judge(given).chosen == "trial 9"
    # The baseline has the settings of the best trial.
    given = candidates({"trial 9": (0.8, 0.7), "trial 1": (0.7, 0.7), BASELINE: (0.9, 0.7)})
    assert judge(given).chosen == BASELINE
    given = candidates({"trial 9": (0.8, 0.7), BASELINE: (None, 0.7)})
    assert judge(given).chosen == "trial 9"


def test_the_interval_of_a_mean_holds_seeds_and_images():
    by_seed = {seed: answers(share, seed) for seed, share in ((43, 0.6), (44, 0.7), (45, 0.8))}
    found = score_of(Finalist(name="trial 1", in_sweep=0.7), by_seed)
    half = t_half_width(np.array([*found.by_seed.values()]))
    assert found.mean - found.low >= half
    images = 1.96 * np.sqrt(found.mean * (1 - found.mean) / NUM)
    assert found.mean - found.low <= np.hypot(half, images)
    alone = score_of(Finalist(name="trial 1", in_sweep=0.7), {43: by_seed[43]})
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * np.sqrt(0.24 / NUM), rel=0.1)


def test_the_words_follow_from_the_numbers():
    found = confirmation_of(judge(candidates(SHARES)), seeds=(43, 44, 45), num_val=NUM, expected_bias=0.02)
    first, second, *pairs, chosen = found.sentences
    assert first.startswith("Trial 13 had 0.8000 in the sweep; over 3 other seeds it has 0.7")
    assert first.endswith("less; the choice of the best was expected to have added 0.0200 by the images alone.")
    assert second.startswith("Trial 4 had 0.7800 in the sweep")
    assert "expected" not in second
    assert [each.partition(":")[0] for each in pairs[:2]] == [
        "Trial 13 against the baseline",
        "Trial 4 against the baseline",
    ]
    assert pairs[0].endswith("trial 13 is better.")
    assert pairs[2] == "No difference is shown between trial 4 and trial 13."
    assert chosen.startswith("Chosen: trial 13, with 0.7")
    tested = with_test(found, score_of(Finalist(name="trial 13", in_sweep=0.8), {43: answers(0.7, 1)}), 400)
    assert tested.sentences[:-1] == found.sentences
    assert tested.sentences[-1].startswith("On test, read once and for trial 13 alone, its accuracy is 0.7")
    assert "of 400 images, with one seed. Neither" in tested.sentences[-1]
    # Over several seeds no single runs are tested.
    assert not any("McNemar" in text for text in found.sentences)
    left_out = dataclasses.replace(tested, num_test=399, num_left_out=1, num_pruned=1)
    said = describe_confirmation(left_out)
    assert "expected to have added at least 0.0200 by the images alone." in said[0]
    assert "of 399 images, with one seed; 1 that cannot be decoded is left out. Neither" in said[-1]


def test_what_is_not_better_than_the_baseline_is_said_not_to_be():
    found = judge(candidates({"trial 2": (0.8, 0.7), BASELINE: (None, 0.7)}))
    said = confirmation_of(found, seeds=(43, 44, 45), num_val=NUM, expected_bias=None).sentences
    assert said[-1] == "That trial 2 is better than the baseline is not shown."
    found = judge(candidates({"trial 2": (0.8, 0.4), BASELINE: (0.7, 0.7)}))
    said = confirmation_of(found, seeds=(43, 44, 45), num_val=NUM, expected_bias=None, diverged={"trial 3": "nan"})
    _, baseline, left_out, pair, chosen = said.sentences
    assert baseline.startswith("The baseline had 0.7000 in the sweep; over 3 other seeds it has 0.")
    assert left_out == "Trial 3 is left out: nan."
    assert pair.endswith(", the baseline is better.")
    assert chosen.startswith("Chosen: the baseline, with 0.")


def test_candidates_of_other_images_are_refused():
    given = candidates({"trial 2": (0.8, 0.71)})
    given[BASELINE] = (Finalist(name=BASELINE, in_sweep=None), {43: answers(0.5, 43, 300)})
    with pytest.raises(ValueError, match="tested on other images"):
        judge(given)


def test_with_one_seed_the_test_that_decides_is_named():
    shares = {"trial 13": (0.8, 0.76), "trial 4": (0.78, 0.74), BASELINE: (None, 0.72)}
    found = confirmation_of(judge(candidates(shares, (43,))), seeds=(43,), num_val=NUM, expected_bias=None)
    tested = {(pair["a"], pair["b"]): pair["mcnemar_p_holm"] for pair in found.pairs}
    p_value = tested[BASELINE, "trial 4"]
    assert p_value > 0.001
    [said] = [text for text in found.sentences if text.startswith("Trial 4 against the baseline")]
    assert f", McNemar's test p = {p_value:.3f} after Holm, " in said
    shown = {(pair["a"], pair["b"]): pair for pair in confirmation_view(found.as_json(), 0)["pairs"]}
    assert shown[BASELINE, "trial 4"]["test"] == f"McNemar's test p = {p_value:.3f} after Holm"
