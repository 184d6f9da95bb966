"""The parts of an epoch's time, from the marks of its steps."""

import shutil
import time
from pathlib import Path

import pytest
import torch

from dogs_accel.runtime import files
from dogs_accel.runtime.files import FullDiskError
from dogs_accel.training.step_profile import PARTS, EpochProfile, step_seconds, traced_steps
from pipelines.clock import StepClock

CPU = torch.device("cpu")


@pytest.fixture
def passing(monkeypatch):
    """A clock of the host that stands still but for what is asked of it: call with seconds."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def passing(seconds):
        now[0] += seconds

    return passing


def test_a_clock_gives_each_part_the_time_since_the_mark_before(passing):
    clock = StepClock(CPU)
    clock.mark("start")
    for part, seconds in (("data_wait", 0.02), ("forward", 0.05)):
        passing(seconds)
        clock.mark(part)
    assert clock.read() == [("data_wait", pytest.approx(0.02)), ("forward", pytest.approx(0.05))]
    assert clock.read() == []


@pytest.mark.gpu
def test_a_clock_of_a_gpu_times_the_gpu_and_not_the_host():
    clock = StepClock(torch.device("cuda"))
    factor = torch.randn(4096, 4096, device="cuda")
    factor = factor @ factor / 64  # the host loads the library and its kernel once
    torch.cuda.synchronize()
    clock.mark("start")
    start = time.perf_counter()
    for _ in range(20):
        factor = factor @ factor
    clock.mark("forward")
    launched = time.perf_counter() - start
    [(_, seconds)] = clock.read()
    assert seconds > 2 * launched


def test_steps_end_with_their_optimizer():
    marks = [
        ("data_wait", 1.0),
        ("forward", 2.0),
        ("optimizer", 3.0),
        ("transfer", 0.5),
        ("graph", 4.0),
        ("optimizer", 1.0),
    ]
    assert step_seconds([*marks, ("data_wait", 9.0)]).tolist() == [6.0, 5.5]


def test_the_columns_of_an_epoch_add_up(passing):
    clock = StepClock(CPU)
    profile = EpochProfile(clock, CPU)
    clock.mark("start")
    for seconds in (0.06, 0.01, 0.02, 0.03):  # the first step is slow, as where kernels are chosen
        passing(seconds)
        clock.mark("forward")
        clock.mark("optimizer")
    passing(0.03)
    profile.end_training()
    passing(0.04)
    row = profile.row(num_images=30)
    assert row["forward_s"] == pytest.approx(0.12)
    assert row["other_s"] == pytest.approx(0.03)
    assert row["validation_s"] == pytest.approx(0.04)
    assert (row["first_step_ms"], row["median_step_ms"]) == (pytest.approx(60), pytest.approx(20))
    assert row["p95_step_ms"] == pytest.approx(29)
    assert row["epoch_seconds"] == pytest.approx(sum(row[f"{part}_s"] for part in (*PARTS, "other", "validation")))
    assert row["train_images_per_second"] == pytest.approx(30 / 0.15)


@pytest.mark.fault(
    "Disk", "--profile onto a full disk, which the profiler does not say", "one line, and no half of a trace"
)
def test_a_trace_that_is_cut_off_is_not_kept(tmp_path, monkeypatch):
    def cut_off(self, path):
        Path(path).write_text('{"traceEvents": [{"name": "x"')

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage._replace(free=0))
    monkeypatch.setattr(torch.profiler.profile, "export_chrome_trace", cut_off)
    path = tmp_path / "trace.json.gz"

    def trace():
        with traced_steps(path, 2) as step_done:
            for _ in range(2):
                step_done()

    with pytest.raises(FullDiskError, match=f"^{path} cannot be written: no space left on its disk"):
        trace()
    assert list(tmp_path.iterdir()) == []
