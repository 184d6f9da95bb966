"""What is trained to confirm a sweep, and what is said of it, where nobody trains."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dogs_accel.datasets import Dataset
from dogs_accel.datasets.facts import DatasetFacts
from dogs_accel.ending import CheckFailedError
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.experiment.plan import plan_runs
from dogs_accel.runtime.files import read_json
from dogs_accel.sweep.confirming import run as confirming
from dogs_accel.sweep.confirming.plan import (
    describe_confirm_plan,
    kept_plan,
    make_confirm_plan,
    require_same_confirmation,
)
from dogs_accel.sweep.engine.opened import Where
from dogs_accel.sweep.findings.confirmed import CONFIRMATION_FILE, confirmation_view
from dogs_accel.sweep.findings.run import read_sweep_trials
from dogs_accel.sweep.settings import SweepConfig, write_sweep
from dogs_accel.sweep.space import read_space
from dogs_accel.sweep.trials import COMPLETE, TRIALS_FILE, TrialRow, write_trials
from dogs_accel.training.trainer import DivergedError
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("val_ratio = 0.2\n", None),  # the sweep has it by its preset
        ("val_ratio = 0.3\n", "val_ratio: got 0.3, expected 0.2 as the sweep has"),
        ("seed = 7\n", "seed: got 7, expected 42 as the sweep has"),
        ('on_bad_image = "skip"\n', "on_bad_image: got skip, expected error as the sweep has"),
    ],
)
def test_a_baseline_of_another_preset_is_validated_on_the_images_of_the_sweep(tmp_path, baseline_file, text, message):
    settings = SETTINGS | {"preset": "inaturalist-cnn"}  # which has a val_ratio of its own
    file = baseline_file(f'preset = "cifar10"\nmodels = ["resnet18"]\nepochs = 1\n{text}')
    if message is None:
        found = plan_of(tmp_path, {"batch_size": [16, 32]}, settings=settings, baseline=file).planned[-1].config
        assert (found.val_ratio, found.preset) == (0.2, "cifar10")
        return
    with pytest.raises(ValueError, match=message):
        plan_of(tmp_path, {"batch_size": [16, 32]}, settings=settings, baseline=file)


def test_a_baseline_has_the_generated_pictures_of_the_sweep(tmp_path, baseline_file):
    settings = {name: value for name, value in SETTINGS.items() if name != "data"}
    file = baseline_file('preset = "demo"\nmodels = ["resnet18"]\nstrategies = ["full"]\nepochs = 1\n')
    with pytest.raises(ValueError, match="preset: got demo, expected cifar10, whose generated pictures the sweep has"):
        plan_of(tmp_path, {"batch_size": [16, 32]}, settings=settings, baseline=file)
    file = baseline_file('preset = "cifar10"\nmodels = ["resnet18"]\nepochs = 1\n')
    assert plan_of(tmp_path, {"batch_size": [16, 32]}, settings=settings, baseline=file).planned[-1].config.data is None


def test_a_baseline_that_is_several_runs_asks_for_a_file(tmp_path):
    settings = {"preset": "paper", "data": "/pictures", "strategies": ("full",), "epochs": {"": (1,)}}
    with pytest.raises(ValueError, match=r"baseline: got resnet50_full, vit_b16_full, .*; --baseline FILE says which"):
        plan_of(tmp_path, {"models": ["resnet18", "resnet34"]}, settings=settings)


def test_a_file_that_has_changed_is_no_longer_the_baseline(tmp_path, baseline_file):
    space = {"batch_size": [16, 32], "set.epochs": [1, 2]}
    own = 'preset = "cifar10"\nmodels = ["resnet18"]\n'
    (tmp_path / "confirm").mkdir()
    first = plan_of(tmp_path, space, num=1, baseline=baseline_file(own))
    kept_plan(tmp_path, first, has_own_baseline=True)
    # Other epochs are those of a trial that is the best by now.
    later = plan_of(tmp_path, space, baseline=baseline_file(own))
    assert [epochs_of(each.planned[-1]) for each in (first, later)] == [[1], [2]]
    assert kept_plan(tmp_path, later, has_own_baseline=True) == first
    later = plan_of(tmp_path, space, baseline=baseline_file(f"{own}batch_size = 8\n"))
    with pytest.raises(ValueError, match=r"baseline: .*mine.toml has changed since .*plan.json was written: what is"):
        kept_plan(tmp_path, later, has_own_baseline=True)


def test_what_is_to_be_removed_to_begin_anew_is_all_of_it(tmp_path):
    plan = plan_of(tmp_path, {"batch_size": [16, 32]})
    (tmp_path / "confirm").mkdir()
    kept_plan(tmp_path, plan, has_own_baseline=False)
    more = dataclasses.replace(plan, seeds=(43, 44))
    with pytest.raises(ValueError, match=r"remove .*/confirm and .*/confirm.json to begin anew"):
        kept_plan(tmp_path, more, has_own_baseline=False)
    found = {"seeds": [43], "candidates": [{"candidate": {"name": each.candidate.name}} for each in plan.planned]}
    require_same_confirmation(tmp_path, plan, found)
    with pytest.raises(ValueError, match="is of other candidates or seeds than the plan beside it; remove"):
        require_same_confirmation(tmp_path, more, found)


def test_fewer_trials_than_were_asked_for_are_said(tmp_path):
    plan = plan_of(tmp_path, {"batch_size": [16, 32], "set.lr": [0.1, 0.2]}, num=1, top=99)
    assert plan.num_complete == 1
    assert "         1 of 99: no other trial is complete" in describe_confirm_plan(plan)


def test_trials_that_ended_after_the_plan_are_said(tmp_path):
    plan = plan_of(tmp_path, {"batch_size": [16, 32]})
    (tmp_path / "confirm").mkdir()
    kept_plan(tmp_path, plan, has_own_baseline=False)
    later = dataclasses.replace(plan, num_complete=5, expected_bias=0.3, num_pruned=7)
    # What the choice was expected to add is that of the trials among which it was made.
    assert kept_plan(tmp_path, later, has_own_baseline=False) == plan
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


def test_answers_that_were_kept_are_those_of_the_test_images_of_now(pictures, tmp_path):
    def kept(ids, labels):
        logits = np.zeros((len(ids), 2), np.float32)
        return Predictions(logits, np.array(labels), np.array(ids))

    path = tmp_path / "kept.npz"
    confirming.require_same_test(path, kept(["2", "0", "1"], [1, 0, 1]), pictures, may_lack=False)
    confirming.require_same_test(path, kept(["0", "1"], [0, 1]), pictures, may_lack=True)
    for ids, labels in ((["0", "1"], [0, 1]), (["0", "1", "3"], [0, 1, 1]), (["0", "1", "2"], [0, 0, 1])):
        message = rf"kept.npz: got answers on other test images than there are now \({len(ids)} and 3, 2 in common\)"
        with pytest.raises(ValueError, match=message):
            confirming.require_same_test(path, kept(ids, labels), pictures, may_lack=False)


def test_a_candidate_that_diverges_with_another_seed_is_left_out(tmp_path, monkeypatch):
    plan_of(tmp_path, {"batch_size": [16, 32]})
    labels = np.arange(9) % 3
    answers = Predictions(np.eye(3, dtype=np.float32)[labels], labels, np.array([str(at) for at in range(9)]))
    run = SimpleNamespace(val_accuracy=1.0, predictions=lambda split: answers)

    def train(folder, planned, data):
        if planned.candidate.name in lost:
            raise DivergedError("the loss is nan", "so run it anew with --set lr=0.001")
        return {43: run}

    monkeypatch.setattr(confirming, "OpenedData", lambda *given: SimpleNamespace(open=lambda _: [], close=lambda: None))
    monkeypatch.setattr(confirming, "train_candidate", train)
    monkeypatch.setattr(confirming, "ask_for_test", lambda *given: ({43: answers}, 0))
    monkeypatch.setattr(confirming, "write_all_findings", lambda folder: ["report"])
    lost = {"trial 1"}
    said = list(confirming.confirm(tmp_path, Where(device="cpu"), top=1, seeds=1))
    assert "trial 1 is left out: the loss is nan" in said
    assert "Trial 1 is left out: the loss is nan." in said
    assert read_json(tmp_path / CONFIRMATION_FILE)["chosen"] == "baseline"
    assert "confirmed already, and test was read" in list(confirming.confirm(tmp_path, Where(), top=1, seeds=1))
    (tmp_path / CONFIRMATION_FILE).unlink()
    lost = {"trial 1", "baseline"}
    with pytest.raises(CheckFailedError, match="no candidate can be trained with other seeds: the loss is nan; the"):
        list(confirming.confirm(tmp_path, Where(), top=1, seeds=1))


def test_what_was_confirmed_is_in_the_report_where_test_cannot_be_read(tmp_path, monkeypatch):
    plan_of(tmp_path, {"batch_size": [16, 32]})
    labels = np.arange(9) % 3
    answers = Predictions(np.eye(3, dtype=np.float32)[labels], labels, np.array([str(at) for at in range(9)]))

    run = SimpleNamespace(val_accuracy=1.0, predictions=lambda split: answers)

    def refuse(*given):
        raise BadImageError("1 of 3 test files cannot be decoded")

    written = []
    monkeypatch.setattr(confirming, "OpenedData", lambda *given: SimpleNamespace(open=lambda _: [], close=lambda: None))
    monkeypatch.setattr(confirming, "train_candidate", lambda *given: {43: run})
    monkeypatch.setattr(confirming, "ask_for_test", refuse)
    monkeypatch.setattr(
        confirming, "write_all_findings", lambda folder: written.append(read_json(folder / CONFIRMATION_FILE))
    )
    with pytest.raises(BadImageError):
        list(confirming.confirm(tmp_path, Where(device="cpu"), top=1, seeds=1))
    assert [(found["chosen"], found["test"], found["num_complete"]) for found in written] == [("trial 1", None, 2)]
