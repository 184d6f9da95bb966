"""Scores that an earlier version wrote, by the rules of now."""

import pytest

from dogs_accel.results.older import with_scores_of_now

VAL = {"num_images": 20, "num_correct": 15}


def metrics(**changes):
    temperature = {"value": 1.5, "low": 1.1, "high": 2.0, "fitted_on": "val"}
    calibrated = {"ece": 0.1, "intervals": {"ece": [0.05, 0.2]}}
    intervals = {"accuracy": [0.7, 0.9], "macro_f1": [0.7, 0.9]}
    return {"accuracy": 0.8, "macro_f1": 0.8, "temperature": temperature, "calibrated": calibrated, "val": VAL,
            "intervals": intervals} | changes  # fmt: skip


def test_what_holds_today_stays_as_it_is():
    assert with_scores_of_now(metrics(), 4) == metrics()


@pytest.mark.fault("Scores and figures", "a recorded temperature at its bound (1e-6, 844)", "taken for none")
def test_a_temperature_that_says_nothing_is_none_and_nothing_is_calibrated():
    for temperature, val in (
        ({"value": 1e-6, "low": None, "high": None}, VAL),
        ({"value": 844.0, "low": 2.0, "high": 9e5}, VAL),
        ({"value": 1.5, "low": None, "high": None}, VAL),
        ({"value": 1.5, "low": 1.1, "high": 2.0}, {"num_images": 20, "num_correct": 20}),
    ):
        now = with_scores_of_now(metrics(temperature=temperature, val=val), 4)
        assert now["temperature"]["value"] is None
        assert "validation image" in now["temperature"]["reason"]
        assert now["calibrated"] is None


def test_intervals_hold_their_values_and_those_without_a_width_are_none():
    now = with_scores_of_now(metrics(intervals={"accuracy": [0.7, 0.9], "macro_f1": [0.8, 0.8]}), 4)
    assert now["intervals"] == {"accuracy": [0.7, 0.9], "macro_f1": None}
    now = with_scores_of_now(metrics(intervals={"macro_f1": [0.8 + 2e-16, 0.9]}), 4)
    assert now["intervals"] == {"macro_f1": [0.8, 0.9]}


def test_of_five_classes_there_is_no_top_5():
    first = metrics(top5_accuracy=1.0, intervals={"top5_accuracy": [0.56, 1.0]})
    now = with_scores_of_now(first, 5)
    assert (now["top5_accuracy"], now["intervals"]["top5_accuracy"]) == (None, None)
    assert with_scores_of_now(first, 6)["top5_accuracy"] == 1.0
