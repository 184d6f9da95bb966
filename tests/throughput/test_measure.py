import dataclasses
import time

import pytest
import torch

from dogs_accel.datasets.photos import find_photos
from dogs_accel.runtime.timing import cpu_seconds
from dogs_accel.throughput.candidates import Candidate, Workload, project_candidates
from dogs_accel.throughput.measure import (
    describe_rows,
    describe_scaling,
    measure_loaders,
    measure_scaling,
    thread_counts,
    workload_at,
)
from pipelines import EVAL, RESNET_TRAIN
from tests.support.measured_loaders import ROWS
from tests.support.standing_clock import StandingClock

WORKLOAD = Workload(paths=("photo.jpg",) * 10, recipe=EVAL, batch_size=4, num_threads=2)


class Waiter:
    """Lets so many seconds pass on a clock for each image, and leaves some out."""

    def __init__(self, workload, clock, seconds_an_image, missing=0):
        self.num = len(workload.paths) - missing
        self.clock, self.seconds = clock, seconds_an_image
        self.is_closed = False

    def __iter__(self):
        for _ in range(self.num):
            self.clock.wait(self.seconds)
            yield (torch.zeros(1, 3, 8, 8),)

    def close(self):
        self.is_closed = True


def test_rates_and_ratios_are_those_of_the_rounds():
    clock, cpu_clock = StandingClock(), StandingClock()
    paces = iter([5.0, 0.5, 1.0, 0.25])  # the warm-up and three rounds, in which the whole machine is slow or quick

    class Paced(Waiter):
        def __iter__(self):
            self.seconds = next(paces)
            cpu_clock.wait(0.2)
            return super().__iter__()

    def steady(workload):
        return Waiter(workload, clock, 1.0)

    candidates = [Candidate("paced", lambda workload: Paced(workload, clock, 0.0)), Candidate("steady", steady)]
    paced, slow = measure_loaders(
        candidates, WORKLOAD, "steady", rounds=3, cold_starts=False, clock=clock, cpu_clock=cpu_clock
    )
    assert (paced.rate, paced.rate_low, paced.rate_high) == (2.0, 1.0, 4.0)
    assert (paced.ratio, paced.ratio_low, paced.ratio_high) == (2.0, 1.0, 4.0)
    assert (slow.rate, slow.rate_low, slow.rate_high) == (1.0, 1.0, 1.0)
    assert (slow.ratio, slow.ratio_low, slow.ratio_high) == (1.0, 1.0, 1.0)
    assert paced.seconds == (5.0, 10.0, 2.5)
    assert paced.cpu_seconds_per_1000 == pytest.approx(20.0)
    assert slow.cpu_seconds_per_1000 == 0.0
    assert paced.cold is None


def test_every_loader_is_closed_also_where_one_fails():
    opened = []

    def make(workload, missing):
        opened.append(Waiter(workload, StandingClock(), 0.0, missing))
        return opened[-1]

    candidates = [Candidate("whole", lambda w: make(w, 0)), Candidate("short", lambda w: make(w, 1))]
    with pytest.raises(RuntimeError, match="Waiter: gave 9 images, expected 10"):
        measure_loaders(candidates, WORKLOAD, "whole", rounds=1, cold_starts=False)
    assert [loader.is_closed for loader in opened] == [True, True]


def test_cpu_time_of_a_loader_includes_its_workers(dogs_root):
    workload = Workload(paths=tuple(find_photos(dogs_root, 48)), recipe=RESNET_TRAIN, batch_size=4, num_threads=2)
    ours = []

    def cpu_clock():
        ours.append(time.process_time())
        return cpu_seconds()

    [row] = measure_loaders(
        project_candidates(["torch"], ""), workload, "torch", rounds=1, cold_starts=False, cpu_clock=cpu_clock
    )
    counted = row.cpu_seconds_per_1000 * 48 / 1000
    assert counted > 1.2 * (ours[-1] - ours[-2])  # the workers decode, and this process collects


def test_the_numbers_of_threads_end_at_the_cores():
    assert [thread_counts(cores) for cores in (1, 2, 6, 16)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8, 16]]


def test_one_setting_changes_at_a_time():
    assert workload_at(WORKLOAD, "num_threads", 1) == dataclasses.replace(WORKLOAD, num_threads=1)
    assert workload_at(WORKLOAD, "batch_size", 8) == dataclasses.replace(WORKLOAD, batch_size=8)
    assert workload_at(WORKLOAD, "image_size", 112).recipe == EVAL.at(112)


def test_scaling_measures_each_setting_once_for_all_axes():
    made, clock = [], StandingClock()

    def make(workload):
        made.append(workload)
        return Waiter(workload, clock, 2.0 / workload.batch_size / workload.num_threads)

    axes = {"num_threads": [1, 2], "batch_size": [4, 8], "image_size": [112, 224]}
    points = measure_scaling([Candidate("waiter", make)], WORKLOAD, rounds=2, axes=axes, num_images=5, clock=clock)
    assert [(point.axis, point.value) for point in points] == [
        ("num_threads", 1), ("num_threads", 2), ("batch_size", 4), ("batch_size", 8), ("image_size", 112),
        ("image_size", 224),
    ]  # fmt: skip
    assert len(made) == len(set(made)) == 4
    assert [point.rate for point in points] == pytest.approx([2.0, 4.0, 4.0, 8.0, 4.0, 4.0])
    assert describe_scaling(points).splitlines()[0].split() == ["img/s", "by", "threads", "or", "workers", "1", "2"]


def test_scaling_takes_two_batches_for_each_thread_at_least():
    made = []

    def make(workload):
        made.append(workload)
        return Waiter(workload, StandingClock(), 0.0)

    workload = dataclasses.replace(WORKLOAD, paths=tuple(map(str, range(100))))
    axes = {"batch_size": [4, 16, 64]}
    measure_scaling([Candidate("waiter", make)], workload, rounds=1, axes=axes, num_images=20)
    assert [workload.paths for workload in made] == [workload.paths[:num] for num in (20, 64, 100)]


def test_the_table_has_every_column():
    header, published, auto, ceiling = describe_rows(ROWS, "published").splitlines()
    assert "ratio to published" in header
    for text in ("100 (90 to 110)", "1.00 (0.90 to 1.20)", "12.3", "0.50 s", "400 MB"):
        assert text in published
    assert "1,250 (1,125 to 1,375)" in auto
    assert "1,234 MB + 2,000 MB GPU" in auto
    assert auto.endswith("is cached here")
    assert ceiling.startswith("  ceiling: read only")
