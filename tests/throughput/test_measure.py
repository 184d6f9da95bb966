import dataclasses
import json
import time

import pytest
import torch
from PIL import Image

from dogs_accel.cli import main
from dogs_accel.datasets.photos import find_photos
from dogs_accel.runtime.timing import cpu_seconds
from dogs_accel.throughput import measure, run
from dogs_accel.throughput.bottleneck import LoaderWithModel
from dogs_accel.throughput.candidates import Candidate, Workload, load_epoch, project_candidates
from dogs_accel.throughput.cold_start import ColdStart
from dogs_accel.throughput.figures import loaders_figure
from dogs_accel.throughput.measure import (
    Row,
    ScalingPoint,
    describe_rows,
    describe_scaling,
    measure_loaders,
    measure_scaling,
    thread_counts,
    workload_at,
)
from pipelines import BACKENDS, EVAL, RESNET_TRAIN, make_loader
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
    workload = Workload(paths=tuple(find_photos(dogs_root, 48)), recipe=RESNET_TRAIN, batch_size=4, num_threads=1)
    ours = []

    def cpu_clock():
        ours.append(time.process_time())
        return cpu_seconds()

    [row] = measure_loaders(
        project_candidates(["torch"], ""), workload, "torch", rounds=1, cold_starts=False, cpu_clock=cpu_clock
    )
    counted = row.cpu_seconds_per_1000 * 48 / 1000
    assert counted > 1.2 * (ours[-1] - ours[-2])  # the one worker decodes, and this process collects


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


def row(name, ratio, is_ceiling=False, is_ours=False, cold=None, note=""):
    return Row(
        candidate=name, rate=100 * ratio, rate_low=90 * ratio, rate_high=110 * ratio, ratio=ratio,
        ratio_low=0.9 * ratio, ratio_high=1.2 * ratio, cpu_seconds_per_1000=12.345, cold=cold, is_ceiling=is_ceiling,
        is_ours=is_ours, note=note, seconds=(1.0,),
    )  # fmt: skip


ROWS = [
    row("published", 1.0, cold=ColdStart(0.5, 400.4, None)),
    row("auto", 12.5, is_ours=True, cold=ColdStart(0.25, 1234.0, 2000.0), note="is cached here"),
    row("read only", 80.0, is_ceiling=True),
]


def test_the_table_has_every_column():
    header, published, auto, ceiling = describe_rows(ROWS, "published").splitlines()
    assert "ratio to published" in header
    for text in ("100 (90 to 110)", "1.00 (0.90 to 1.20)", "12.3", "0.50 s", "400 MB"):
        assert text in published
    assert "1,250 (1,125 to 1,375)" in auto
    assert "1,234 MB + 2,000 MB GPU" in auto
    assert auto.endswith("is cached here")
    assert ceiling.startswith("  ceiling: read only")


def test_the_bars_are_the_ratios_from_one_on():
    figure = loaders_figure({"eval": ROWS, "train": ROWS}, "published")
    [part] = figure.subfigs
    for axes in part.axes:
        assert [patch.get_width() for patch in axes.patches] == pytest.approx([0, 11.5, 79])
        assert [patch.get_x() for patch in axes.patches] == [1, 1, 1]
        assert axes.get_xscale() == "log"
        assert [text.get_text() for text in axes.texts] == ["1.00 x", "12.5 x", "80 x"]


def test_the_lines_and_the_dots_are_the_rates():
    rates = {1: 100.0, 2: 180.0}
    points = [
        ScalingPoint(candidate=name, axis="num_threads", value=value, rate=rate * scale, rate_low=rate, rate_high=rate)
        for name, scale in (("published: PIL", 1), ("dali", 3))
        for value, rate in rates.items()
    ]
    with_model = {
        "dali": LoaderWithModel(loader_rate=540.0, compute_rate=200.0, end_to_end_rate=150.0, wait_share=0.25)
    }
    figure = loaders_figure({"eval": ROWS}, "published", points, with_model, "ResNet-18")
    scaling, model = figure.subfigs[1].axes
    assert [line.get_label() for line in scaling.lines] == ["published", "dali"]
    assert [line.get_ydata().tolist() for line in scaling.lines] == [[100, 180], [300, 540]]
    assert [line.get_xdata()[0] for line in model.lines] == [540, 200, 150]
    assert [text.get_text() for text in model.texts] == ["waits 25 %"]


def test_photos_are_spread_over_all_folders_in_order(tmp_path):
    for breed in "abcd":
        (tmp_path / breed).mkdir()
        for i in range(10):
            Image.new("RGB", (4, 4)).save(tmp_path / breed / f"{i}.{'JPG' if i % 2 else 'jpeg'}")
    paths = find_photos(tmp_path, 20)
    assert len(set(paths)) == 20
    assert paths == sorted(paths) == find_photos(tmp_path, 20)
    assert {path.split("/")[-2] for path in paths} == set("abcd")
    assert len(find_photos(tmp_path, 100)) == 40
    with pytest.raises(ValueError, match=r"data: no .jpg or .jpeg file below"):
        find_photos(tmp_path / "nothing", 1)


def test_a_loader_of_the_project_loads_the_workload(dogs_root, tmp_path):
    workload = Workload(paths=tuple(find_photos(dogs_root, 6)), recipe=EVAL.at(32), batch_size=4, num_threads=1)
    for candidate in project_candidates(BACKENDS, tmp_path):
        loader = candidate.make(workload)
        load_epoch(loader, workload)
        assert loader.batch_size == 4
        assert loader.num_threads == 1
        loader.close()


def test_a_loader_with_other_pixels_gets_no_speed(dogs_root, tmp_path, monkeypatch):
    def make_wrong(*arguments, backend, seed, **settings):
        return make_loader(
            *arguments, backend="torch", seed=seed + (backend == "dali"), **settings | {"store_dir": None}
        )

    monkeypatch.setattr(run, "make_loader", make_wrong)
    workload = Workload(paths=tuple(find_photos(dogs_root, 6)), recipe=RESNET_TRAIN.at(32), batch_size=4, num_threads=1)
    rival = Candidate("rival", Waiter)
    candidates = [rival, *project_candidates(["torch", "dali", "auto"], tmp_path)]
    passing, measured = run.pass_parity(candidates, workload, tmp_path)
    assert [each.name for each in passing] == ["rival", "torch", "auto"]
    assert [each.passes for each in measured] == [False, True]
    assert all(each.num_images == 6 for each in measured)


@pytest.mark.slow
def test_the_command_writes_what_it_says(dogs_root, tmp_path, monkeypatch, capsys):
    # What test_cold_start.py measures takes the start of a process for each loader.
    monkeypatch.setattr(measure, "measure_cold_start", lambda candidate, workload: ColdStart(0.25, 400.0, None))
    out = tmp_path / "out"
    options = ["--loader", "torch,auto", "--num-images", "24", "--batch-size", "4", "--image-size", "32"]
    assert main(["throughput", "--data", str(dogs_root), *options, "--rounds", "1", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "resnet-train recipe at 32 px, 24 images of" in text
    assert "img/s with ResNet-18 at 32 px:" in text
    report = json.loads((out / "throughput.json").read_text())
    assert [row["candidate"] for row in report["rows"]][:2] == ["torch", "auto"]
    assert [row["cold"] and row["cold"]["first_batch_seconds"] for row in report["rows"]] == [
        None if row["is_ceiling"] else 0.25 for row in report["rows"]
    ]
    assert report["baseline"] == "torch"
    assert report["verdict"] in text
    assert all(each["wait_share"] <= 1 for each in report["with_model"].values())
    assert report["environment"]["packages"]["torch"] == torch.__version__.partition("+")[0]
    with Image.open(out / "throughput.png") as picture:
        assert picture.width > 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--loader", "torch,cachd"], "loader: got 'cachd', expected one of"),
        (["--recipe", "evil"], "recipe: got 'evil', expected one of eval, resnet-train, vit-train (did you"),
        (["--model", "resnet51"], "models: got 'resnet51'"),
        (["--device", "cuda:77"], "--device cuda:77: torch"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_line(dogs_root, options, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["throughput", "--data", str(dogs_root), *options])
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dogs-accel throughput: error: {message}")
