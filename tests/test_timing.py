import time

import pytest

from dogs_accel.timing import Timing, interleaved


def test_candidates_take_turns_and_the_warm_up_does_not_count():
    calls = []
    timings = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, warm_up=2)
    assert calls == ["a", "b"] * 5
    assert [len(timing.seconds) for timing in timings.values()] == [3, 3]


def test_seconds_are_seconds():
    timing = interleaved({"sleep": lambda: time.sleep(0.02)}, rounds=3)["sleep"]
    assert 0.02 <= timing.median < 0.2


def test_a_ratio_is_taken_round_by_round():
    slow_machine_in_round_2 = Timing((1.0, 10.0, 1.0)), Timing((2.0, 20.0, 3.0))
    assert slow_machine_in_round_2[0].ratio_to(slow_machine_in_round_2[1]) == pytest.approx((2.0, 2.0, 3.0))
