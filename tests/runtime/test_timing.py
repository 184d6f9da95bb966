import itertools
import multiprocessing
import time

import pytest
import torch

from dogs_accel.runtime.timing import Timing, cpu_seconds, in_turns, interleaved, interleaved_on_gpu


def test_candidates_take_turns_and_the_warm_up_does_not_count():
    calls = []
    timings = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, warm_up=2)
    assert calls == ["a", "b"] * 5
    assert [len(timing.seconds) for timing in timings.values()] == [3, 3]


def test_seconds_are_seconds():
    timing = interleaved({"sleep": lambda: time.sleep(0.02)}, rounds=3)["sleep"]
    assert 0.02 <= timing.median < 0.2


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
    assert 0 < timings["short"].median < 0.003
    assert timings["short"].ratio_to(timings["long"])[0] == pytest.approx(20, rel=0.5)


def test_a_ratio_is_taken_round_by_round():
    slow_machine_in_round_2 = Timing((1.0, 10.0, 1.0)), Timing((2.0, 20.0, 3.0))
    assert slow_machine_in_round_2[0].ratio_to(slow_machine_in_round_2[1]) == pytest.approx((2.0, 2.0, 3.0))


def test_turns_give_what_the_candidates_return():
    counter = itertools.count()
    assert in_turns({"a": lambda: next(counter), "b": lambda: -next(counter)}, rounds=2) == {"a": [2, 4], "b": [-3, -5]}


def test_a_rate_has_the_lowest_and_the_highest_round():
    assert Timing((2.0, 1.0, 4.0)).rate(8) == (4.0, 2.0, 8.0)


def burn(seconds):
    """Use a core until this process has used so much CPU time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def burn_when_told(pipe):
    while pipe.recv():
        burn(0.3)
        pipe.send(None)


def test_cpu_time_includes_workers_that_still_run():
    ours, theirs = multiprocessing.Pipe()
    worker = multiprocessing.Process(target=burn_when_told, args=(theirs,), daemon=True)
    worker.start()

    def work():
        ours.send(True)
        ours.recv()

    timing = interleaved({"worker": work, "sleep": lambda: time.sleep(0.05)}, rounds=2, warm_up=0)
    ours.send(False)
    worker.join()
    assert all(0.29 <= seconds < 0.5 for seconds in timing["worker"].cpu_seconds)
    assert max(timing["sleep"].cpu_seconds) < 0.05


def test_cpu_time_of_a_worker_is_neither_lost_nor_counted_twice_when_it_ends():
    before = cpu_seconds()
    worker = multiprocessing.Process(target=burn, args=(0.3,))
    worker.start()
    worker.join()
    assert 0.29 <= cpu_seconds() - before < 0.6


def test_cpu_time_includes_this_process():
    before = cpu_seconds()
    burn(0.1)
    assert 0.1 <= cpu_seconds() - before < 0.2
