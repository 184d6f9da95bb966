"""`dogs-accel throughput`."""

import json

import pytest
import torch
from PIL import Image

from dogs_accel.cli import main
from dogs_accel.datasets.photos import find_photos
from dogs_accel.throughput import measure, run
from dogs_accel.throughput.candidates import Candidate, Workload, project_candidates
from dogs_accel.throughput.cold_start import ColdStart
from pipelines import RESNET_TRAIN, make_loader


def test_a_loader_with_other_pixels_gets_no_speed(dogs_root, tmp_path, monkeypatch):
    def make_wrong(*arguments, backend, seed, **settings):
        return make_loader(
            *arguments, backend="torch", seed=seed + (backend == "dali"), **settings | {"store_dir": None}
        )

    monkeypatch.setattr(run, "make_loader", make_wrong)
    workload = Workload(paths=tuple(find_photos(dogs_root, 6)), recipe=RESNET_TRAIN.at(32), batch_size=4, num_threads=1)
    rival = Candidate("rival", lambda workload: pytest.fail("only the project's own are compared"))
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
    assert all(0 <= each["wait_share"] <= 1 for each in report["with_model"].values())
    assert report["environment"]["packages"]["torch"] == torch.__version__.partition("+")[0]
    with Image.open(out / "throughput.png") as picture:
        assert picture.width > 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--loader", "torch,cachd"], "loader: got 'cachd', expected one of"),
        (["--recipe", "evil"], "recipe: got 'evil', expected one of eval, resnet-train, vit-train, imagenet-eval, "),
        (["--model", "resnet51"], "models: got 'resnet51'"),
        (["--device", "cuda:77"], "--device cuda:77: torch"),
        (["--model", "resnet18", "--image-size", "32", "--batch-size", "1"], "batch_size: got 1, which leaves one of "),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_line(dogs_root, options, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["throughput", "--data", str(dogs_root), *options])
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dogs-accel throughput: error: {message}")
