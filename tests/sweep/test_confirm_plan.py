"""What is trained to confirm a sweep, and what is said of it, where nobody trains."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dogs_accel.datasets import Dataset
from dogs_accel.datasets.facts import DatasetFacts
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.experiment.plan import plan_runs
from dogs_accel.runtime.files import read_json
from dogs_accel.sweep.confirming import run as confirming
from dogs_accel.sweep.confirming.plan import describe_confirm_plan, kept_plan, make_confirm_plan
from dogs_accel.sweep.engine.trial import Where
from dogs_accel.sweep.findings.confirmed import CONFIRMATION_FILE, confirmation_view
from dogs_accel.sweep.findings.run import read_sweep_trials
from dogs_accel.sweep.settings import SweepConfig, write_sweep
from dogs_accel.sweep.space import read_space
from dogs_accel.sweep.trials import COMPLETE, TRIALS_FILE, TrialRow, write_trials
from pipelines import BadImageError

SETTINGS = {
    "preset": "cifar10", "data": "/pictures", "models": ("cnn5:filters=4:dense=8",), "strategies": ("scratch",),
    "image_size": 32,
}  # fmt: skip


def plan_of(folder, space, *, settings=SETTINGS, num=None, top=2, baseline=None):
    """The plan for a sweep of which the last point of the space is the best."""
    sweep = SweepConfig(settings=settings, space=read_space(space, settings))
    points = list(sweep.space.points())[:num]
    rows = [
        TrialRow(number=at, state=COMPLETE, run="", started="2026-01-01", value=0.5 + 0.01 * at, num_val=9, seed=42,
                 point=point)
        for at, point in enumerate(points)
    ]  # fmt: skip
    write_sweep(folder, sweep)
    write_trials(folder / TRIALS_FILE, rows, sweep.space)
    return make_confirm_plan(sweep, read_sweep_trials(folder, sweep), top=top, seeds=1, baseline=baseline)


def epochs_of(planned):
    [run] = plan_runs(planned.config.resolved())
    return [phase.epochs for phase in run.phases]


@pytest.fixture
def baseline_file(tmp_path):
    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_baseline_has_the_epochs_of_the_best_trial(tmp_path):
    plan = plan_of(tmp_path, {"batch_size": [16, 32], "set.epochs": [1, 2]})
    assert [epochs_of(each) for each in plan.planned] == [[2], [1], [2]]
    assert [each.candidate.epochs for each in plan.planned] == [2, 1, 2]
    said = describe_confirm_plan(plan)
    assert said[0] == "confirm  3 candidates with the seed 43, without test"
    assert said[1].endswith(", 2 epochs")
    assert "Epochs differ (trial 3 2, trial 2 1, baseline 2)" in said[4]


def test_a_baseline_of_a_file_has_the_epochs_of_the_best_trial_unless_it_says_them(tmp_path, baseline_file):
    space, own = {"batch_size": [16, 32], "set.epochs": [2]}, 'preset = "cifar10"\nmodels = ["resnet18"]\n'
    file = baseline_file(own)
    assert epochs_of(plan_of(tmp_path, space, baseline=file).planned[-1]) == [2]
    file = baseline_file(own + "epochs = 7\n")
    plan = plan_of(tmp_path, space, baseline=file)
    assert epochs_of(plan.planned[-1]) == [7]
    assert any("Epochs differ" in line for line in describe_confirm_plan(plan))
    file = baseline_file(own + 'strategies = ["staged"]\n')
    with pytest.raises(
        ValueError, match=r"mine.toml: epochs: got none for 2 phases, expected them, since a trial has 1"
    ):
        plan_of(tmp_path, space, baseline=file)


def test_a_relative_folder_of_data_is_the_same_one(tmp_path, baseline_file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = SETTINGS | {"data": str(tmp_path / "parts")}
    file = baseline_file('preset = "cifar10"\nmodels = ["resnet18"]\ndata = "parts"\n')
    plan = plan_of(tmp_path, {"batch_size": [16, 32]}, settings=settings, baseline=file)
    assert plan.planned[-1].config.data == settings["data"]


def test_fewer_trials_than_were_asked_for_are_said(tmp_path):
    plan = plan_of(tmp_path, {"batch_size": [16, 32], "set.lr": [0.1, 0.2]}, num=1, top=99)
    assert plan.num_complete == 1
    assert "         1 of 99: no other trial is complete" in describe_confirm_plan(plan)


def test_trials_that_ended_after_the_plan_are_said(tmp_path):
    plan = plan_of(tmp_path, {"batch_size": [16, 32]})
    (tmp_path / "confirm").mkdir()
    kept_plan(tmp_path, plan)
    later = dataclasses.replace(plan, num_complete=5)
    assert kept_plan(tmp_path, later).num_complete == 2
    content = {"candidates": [], "seeds": [43], "num_val": 9, "pairs": [], "sentences": [], "num_complete": 2}
    assert confirmation_view(content, 2)["sentences"] == []
    assert confirmation_view(content, 5)["sentences"] == [
        "The trials were chosen among 2 complete trials. There are 5 now, and the later ones had no part in it."
    ]


@pytest.fixture
def pictures(tmp_path):
    """Three files, the second of which is no picture."""
    for number in range(3):
        Image.new("RGB", (8, 8), (90 * number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"no picture")
    return Dataset(
        facts=DatasetFacts(name="squares", title="squares", layout="made here"), root=tmp_path, image_root=tmp_path,
        ids=["0", "1", "2"], paths=[str(tmp_path / f"{number}.png") for number in range(3)],
        labels=np.array([0, 1, 1]), class_names=["a", "b"], folder_names=["a", "b"],
        official_split=["official_test"] * 3,
    )  # fmt: skip


def test_test_files_that_cannot_be_decoded_are_left_out_or_refused(pictures):
    found = confirming.readable_images(pictures, skip=True, num_threads=1)
    assert (found.ids, found.labels.tolist()) == (["0", "2"], [0, 1])
    with pytest.raises(BadImageError, match=r"1 of 3 test files cannot be decoded, such as .*/1.png: .*; mend it"):
        confirming.readable_images(pictures, skip=False, num_threads=1)
    with pytest.raises(BadImageError, match="1 of 1 test file cannot be decoded"):
        confirming.readable_images(pictures.subset(np.array([1])), skip=True, num_threads=1)


def test_what_was_confirmed_is_in_the_report_where_test_cannot_be_read(tmp_path, monkeypatch):
    plan_of(tmp_path, {"batch_size": [16, 32]})
    labels = np.arange(9) % 3
    answers = Predictions(np.eye(3, dtype=np.float32)[labels], labels, np.array([str(at) for at in range(9)]))

    class Trainer:
        def __init__(self, *where):
            pass

        def prepare(self, first):
            return iter(())

        def train(self, planned):
            return {43: SimpleNamespace(val_accuracy=1.0, predictions=lambda split: answers)}

        def test(self, planned, runs):
            raise BadImageError("1 of 3 test files cannot be decoded")

    written = []
    monkeypatch.setattr(confirming, "_CandidateTrainer", Trainer)
    monkeypatch.setattr(
        confirming, "write_all_findings", lambda folder: written.append(read_json(folder / CONFIRMATION_FILE))
    )
    with pytest.raises(BadImageError):
        list(confirming.confirm(tmp_path, Where(device="cpu"), top=1, seeds=1))
    assert [(found["chosen"], found["test"], found["num_complete"]) for found in written] == [("trial 1", None, 2)]
