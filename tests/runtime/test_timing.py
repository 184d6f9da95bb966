import itertools
import multiprocessing
import time

import numpy as np
import pytest
import torch
from scipy.stats import quantile_test

from dogs_accel.runtime.timing import (
    Timing,
    cpu_seconds,
    in_turns,
    interleaved,
    interleaved_on_gpu,
    median_interval,
)
from tests.support.standing_clock import StandingClock


def test_candidates_take_turns_and_the_warm_up_does_not_count():
    calls = []
    timings = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, warm_up=2)
    assert calls == ["a", "b"] * 5
    assert [len(timing.seconds) for timing in timings.values()] == [3, 3]


def test_seconds_are_those_of_the_clocks_while_a_candidate_works():
    clock, cpu_clock = StandingClock(), StandingClock()
    durations = iter([9.0, 2.0, 5.0, 3.0])

    def work():
        clock.wait(next(durations))
        cpu_clock.wait(0.5)

    timing = interleaved({"work": work}, rounds=3, clock=clock, cpu_clock=cpu_clock)["work"]
    assert timing == Timing((2.0, 5.0, 3.0), (0.5, 0.5, 0.5))
    assert timing.median == 3.0


@pytest.mark.gpu
def test_the_clock_of_a_gpu_leaves_the_launches_out():
    device = torch.device("cuda", 0)

    def short_work_launched_slowly():
        torch.cuda._sleep(100_000)
        time.sleep(0.004)
        torch.cuda._sleep(100_000)

    def long_work():
        torch.cuda._sleep(4_000_000)

    timings = interleaved_on_gpu({"short": short_work_launched_slowly, "long": long_work}, device, rounds=3)
    assert timings["short"].ratio_to(timings["long"])[0] == pytest.approx(20, rel=0.5)


def test_a_ratio_is_taken_round_by_round():
    slow_machine_in_round_2 = Timing((1.0, 10.0, 1.0)), Timing((2.0, 20.0, 3.0))
    assert slow_machine_in_round_2[0].ratio_to(slow_machine_in_round_2[1]) == pytest.approx((2.0, 2.0, 3.0))


def test_turns_give_what_the_candidates_return():
    counter = itertools.count()
    assert in_turns({"a": lambda: next(counter), "b": lambda: -next(counter)}, rounds=2) == {"a": [2, 4], "b": [-3, -5]}


def test_a_rate_has_the_lowest_and_the_highest_round():
    assert Timing((2.0, 1.0, 4.0)).rate(8) == (4.0, 2.0, 8.0)


@pytest.mark.parametrize("num", [6, 7, 20, 41, 100])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_of_a_median_is_that_of_scipy(num, level):
    values = np.random.default_rng(num).exponential(size=num)
    theirs = quantile_test(values, q=0.0, p=0.5).confidence_interval(level)
    assert median_interval(values.tolist(), level) == (theirs.low, theirs.high)


def test_the_interval_of_a_median_of_few_values_is_all_of_them():
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)
    assert median_interval([5.0]) == (5.0, 5.0)


def burn():
    """Use much more CPU time than a process needs to start and to end."""
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass


def burn_when_told(pipe):
    """Work each time that a message asks for it, and answer with the CPU time so far."""
    while pipe.recv():
        burn()
        pipe.send(time.process_time())


@pytest.fixture
def burner():
    """The pipe to a process that burns when it is told to."""
    ours, theirs = multiprocessing.Pipe()
    worker = multiprocessing.Process(target=burn_when_told, args=(theirs,), daemon=True)
    worker.start()
    yield ours
    ours.send(False)
    worker.join()


def test_cpu_time_includes_workers_that_still_run(burner):
    burner.send(True)
    so_far = burner.recv()
    ours, counted = time.process_time(), cpu_seconds()
    burner.send(True)
    theirs = burner.recv() - so_far
    counted = cpu_seconds() - counted
    ours = time.process_time() - ours
    assert counted == pytest.approx(theirs + ours, rel=0.1)
    assert theirs > 10 * ours


def test_cpu_time_of_a_worker_is_neither_lost_nor_counted_twice_when_it_ends():
    pipe, theirs = multiprocessing.Pipe()
    worker = multiprocessing.Process(target=burn_when_told, args=(theirs,))
    ours, before = time.process_time(), cpu_seconds()
    worker.start()
    pipe.send(True)
    burned = pipe.recv()
    pipe.send(False)
    worker.join()
    counted = cpu_seconds() - before - (time.process_time() - ours)
    assert burned <= counted < 1.5 * burned  # it also has to end


def test_cpu_time_includes_this_process():
    ours, before = time.process_time(), cpu_seconds()
    burn()
    counted = cpu_seconds() - before
    assert counted == pytest.approx(time.process_time() - ours, rel=0.1)
