"""The words that a sweep's report says, on made sweeps."""

import numpy as np
import pandas as pd

from dogs_accel.sweep.findings.importance import Importance
from dogs_accel.sweep.findings.levels import find_levels
from dogs_accel.sweep.findings.selection import selection_bias
from dogs_accel.sweep.findings.sentences import CAUTION, SHOWN, write_sentences
from tests.support.made_sweeps import DOCUMENT, SMALL, drawn, made_trials


def said_of(trials, importance=()):
    bias = selection_bias(trials.values, 2000, num_pruned=trials.num_pruned) if len(trials.values) else None
    return write_sentences(trials, find_levels(trials, 499), importance, bias)


def noise(num):
    return np.random.default_rng(0).normal(0.5, 0.02, num)


def texts(sentences, subject):
    return [each.text for each in sentences if each.subject == subject]


def test_the_published_conclusions_do_not_follow():
    parameters = pd.DataFrame(
        {
            "activation": ["mish"] * 9 + ["relu"] * 6 + ["gelu"] * 5,
            "batch_norm": [True] * 7 + [False] * 2 + [True] * 2 + [False] * 4 + [True] + [False] * 4,
        }
    )
    values = np.random.default_rng(0).normal(0.4, 0.01, 20) + 0.05 * parameters["batch_norm"]
    [mish] = [
        text for text in texts(said_of(made_trials(SMALL[:2], parameters, values)), "activation") if "mish" in text
    ]
    assert mish.startswith("activation=mish: tried 9 times; its mean is 0.0")
    assert "higher, interval 0.0" in mish
    assert mish.endswith("but 7 of the 9 had batch_norm=true (3 of the other 11): nothing follows of activation alone.")


def test_a_level_that_was_tried_once_says_nothing():
    parameters = drawn(DOCUMENT, 30)
    parameters["organisation"] = ["half"] + ["same"] * 16 + ["double"] * 13
    said = texts(said_of(made_trials(DOCUMENT, parameters, noise(30))), "organisation")
    assert said[0] == "organisation=half: tried once: nothing follows."


def test_what_is_shown_is_said_once_of_two_levels():
    parameters = drawn(SMALL, 40)
    values = np.random.default_rng(0).normal(0.5, 0.005, 40) + 0.03 * parameters["batch_norm"]
    said = said_of(made_trials(SMALL, parameters, values))
    [batch_norm] = texts(said, "batch_norm")
    num = int(parameters["batch_norm"].sum())
    assert batch_norm.startswith(
        f"batch_norm=true: tried {num} times; with the other parameters held equal its accuracy"
    )
    assert "higher (0.02" in batch_norm
    assert batch_norm.endswith(
        f"p = 0.014 after Holm) than that of the other {40 - num} trials: shown, of the points that were tried."
    )
    assert [each.subject for each in said if each.kind == SHOWN] == ["batch_norm"]


def test_noise_is_said_to_show_nothing():
    said = said_of(made_trials(SMALL, drawn(SMALL, 30), noise(30)))
    assert said[0].text == "Of no single parameter do these 30 complete trials show that it matters."
    assert not any(each.kind == SHOWN for each in said)


def test_what_limits_a_sweep_is_said():
    parameters = drawn(DOCUMENT, 24)
    states = np.array(["complete"] * 20 + ["pruned"] * 3 + ["failed"])
    values = noise(24)
    said = said_of(made_trials(DOCUMENT, parameters, values, state=states, epochs=5, sampler="bayes"))
    cautions = {each.subject: each.text for each in said if each.kind == CAUTION}
    assert list(cautions) == ["the best trial", "the sampler", "pruning", "failures", "the budget", "the seeds"]
    assert (
        "with a standard error of 0.011 by its 2,000 images, is the highest of 20 complete trials, and 3 more were "
        "given up by the same images: the choice alone is expected to raise it by at least 0.0"
    ) in cautions["the best trial"]
    assert "if all 23 trials are equally good" in cautions["the best trial"]
    assert "the luck of that choice is larger" in cautions["pruning"]
    assert cautions["pruning"].startswith("3 of 24 trials were pruned: their values are of fewer epochs")
    assert cautions["failures"] == "1 trial failed and is in no mean."
    assert "5 epochs: dropout and augmentation may be worse in so few" in cautions["the budget"]


def test_importance_is_measured_by_that_of_noise():
    trials = made_trials(SMALL, drawn(SMALL, 30), noise(30))
    lr = {"parameter": "lr", "share": 0.6, "high": 0.8, "of_noise": 0.5}
    [weak] = texts(said_of(trials, [Importance(low=0.4, **lr)]), "importance")
    assert weak.startswith(
        "In importance no parameter stands out: the highest, lr with 0.60 (0.40 to 0.80), is not clear"
    )
    [strong] = texts(said_of(trials, [Importance(low=0.51, **lr)]), "importance")
    assert strong == "In importance lr 0.60 (0.51 to 0.80) stands out from what shuffled values give."


def test_the_luck_of_a_choice_is_that_of_pruned_trials_too():
    states = np.array(["complete"] + ["pruned"] * 6)
    [text] = texts(said_of(made_trials(SMALL, drawn(SMALL, 7), noise(7), state=states)), "the best trial")
    assert "the highest of 1 complete trial, and 6 more were given up by the same images" in text
    assert "raise it by at least 0.000, and by 0.015 if all 7 trials are equally good" in text


def test_one_complete_trial_was_not_chosen():
    said = said_of(made_trials(SMALL, drawn(SMALL, 1), noise(1)))
    assert "is that of the one complete trial: none was chosen" in texts(said, "the best trial")[0]
    assert "0.000" not in texts(said, "the best trial")[0]
    assert said[0].text == "Of no single parameter does this one complete trial show that it matters."


def test_no_complete_trial_shows_nothing():
    said = said_of(made_trials(SMALL, drawn(SMALL, 2), np.full(2, np.nan), state="failed"))
    assert said[0].text == "No trial is complete: nothing follows of any parameter."


def test_the_sampler_is_said_to_look_at_values_only_where_it_did():
    def said(num, state="complete"):
        return texts(
            said_of(made_trials(SMALL, drawn(SMALL, num), noise(num), state=state, sampler="bayes")), "the sampler"
        )

    assert said(10) == []
    assert said(11)[0].startswith("From trial 10 on the sampler chose its points by earlier values (TPE)")
    assert said(11, ["failed"] + ["complete"] * 10) == []


def test_epochs_that_differ_are_said_to_be_the_most():
    def said(epochs):
        return texts(said_of(made_trials(SMALL, drawn(SMALL, 3), noise(3), epochs=epochs)), "the budget")[0]

    assert said([2, 2, 2]).startswith("Every complete trial had 2 epochs")
    assert said([1, 2, 2]).startswith("No complete trial had more than 2 epochs")
