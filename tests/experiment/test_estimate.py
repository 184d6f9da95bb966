"""The estimate of a run, from rates that are given here instead of measured."""

import dataclasses
import shutil

import pytest
import torch

from dogs_accel.experiment import estimate, execute
from dogs_accel.experiment.describe import describe_estimates
from dogs_accel.experiment.estimate import Estimate, Rates, estimate_run
from dogs_accel.experiment.loaders import choose_loaders
from dogs_accel.experiment.plan import make_plan
from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.experiment.settings.files import config_from_json
from dogs_accel.models.specs import model_spec
from dogs_accel.runtime.files import read_json
from dogs_accel.training.checkpoint import CheckpointError
from dogs_accel.training.phases import Phase
from dogs_accel.training.step import StepSettings

HEAD = Phase(name="head_only", mode="head_only", epochs=3, lr=1e-3)
FULL = Phase(name="full_finetune", mode="full_finetune", epochs=2, lr=1e-3)


CPU = torch.device("cpu")


@dataclasses.dataclass
class Split:
    """What an estimate asks of a loader."""

    num_samples: int
    batch_size: int
    device: torch.device = CPU


LOADERS = {"train": Split(100, 4), "val": Split(20, 16), "test": Split(40, 16)}


@pytest.fixture
def probed(monkeypatch):
    """(batch size, img/s) of each probe in its order; a loader that gives 1,000 img/s."""
    seen = []
    rates = iter([100.0, 50.0, 10.0])

    def rate(work, images):
        work(images[:2])
        seen.append((len(images), next(rates)))
        return Rates(fast=seen[-1][1], slow=seen[-1][1] / 2)

    monkeypatch.setattr(estimate, "_rate", rate)
    monkeypatch.setattr(estimate, "_loader_rate", lambda loader: Rates(fast=1000.0, slow=500.0))
    return seen


def minutes(**how):
    return estimate_run(model_spec("resnet18", 32), [HEAD, FULL], LOADERS, 4, StepSettings(), **how)


def test_the_time_is_that_of_every_epoch_and_of_the_evaluation_after_them(probed):
    found = minutes()
    # Forward at the batch size of evaluation, then the steps of each phase at that of training.
    assert probed == [(16, 100.0), (4, 50.0), (4, 10.0)]
    evaluation = (20 + 40) / 100 + (20 + 40) / 1000
    validation = 20 / 100 + 20 / 1000
    head, full = 100 / 50 + 100 / 1000, 100 / 10 + 100 / 1000
    expected = (evaluation + 3 * (head + validation) + 2 * (full + validation)) / 60
    assert found.minutes == pytest.approx((expected, 2 * expected))
    assert found.train_rate == 10.0


def test_each_part_that_trains_is_timed_once(probed, monkeypatch):
    parts, set_stage = [], estimate.set_trainable_stage

    def watched(model, *stage):
        parts.append(stage)
        set_stage(model, *stage)

    monkeypatch.setattr(estimate, "set_trainable_stage", watched)
    named = {"name": "part", "mode": "partial_finetune", "epochs": 1, "lr": 1e-3}
    last, parted = Phase(**named, num_groups=2, optimizer="sgd", clip_norm=1.0), Phase(**named, groups=("layer4", "fc"))
    estimate_run(model_spec("resnet18", 32), [last, last, parted], LOADERS, 4, StepSettings())
    assert parts == [("partial_finetune", 2, ()), ("partial_finetune", 0, ("layer4", "fc"))]


def test_a_head_on_cached_features_costs_one_forward(probed):
    found = minutes(cache_features=True)
    evaluation = (20 + 40) / 100 + (20 + 40) / 1000
    features = (100 + 20) / 100 + (100 + 20) / 1000
    full = 100 / 10 + 100 / 1000 + 20 / 100 + 20 / 1000
    assert found.minutes[0] == pytest.approx((evaluation + features + 2 * full) / 60)


def test_views_make_the_evaluation_after_them_longer(probed):
    found = minutes(num_views=5)
    validation = 20 / 100 + 20 / 1000
    evaluation = 5 * ((20 + 40) / 100 + (20 + 40) / 1000)
    expected = evaluation + 3 * (100 / 50 + 100 / 1000 + validation) + 2 * (100 / 10 + 100 / 1000 + validation)
    assert found.minutes[0] == pytest.approx(expected / 60)


@pytest.mark.fault(
    "Command line",
    "`--dry-run` while other work slows the machine down",
    "a range: by the fast steps, and by the median one",
)
def test_what_slows_most_probes_down_does_not_make_the_estimate_too_long(monkeypatch):
    """A step of 10 ms beside other work, which takes the machine for ten times as long in two steps of three."""
    now, steps = [0.0], [0]

    def step(images):
        steps[0] += 1
        now[0] += 0.01 if steps[0] % 3 == 0 else 0.1

    monkeypatch.setattr(estimate.time, "perf_counter", lambda: now[0])
    found = estimate._rate(step, torch.zeros(4, 1))
    assert (found.fast, found.slow) == (pytest.approx(400), pytest.approx(40))


def test_nothing_is_compiled_for_an_estimate(probed, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *args, **how: pytest.fail("it compiles"))
    estimate_run(model_spec("resnet18", 32), [FULL], LOADERS, 4, StepSettings(compile=True))


def test_seeds_of_a_configuration_are_estimated_once(dogs_root, tmp_path, monkeypatch, capsys):
    asked = []

    def estimated(spec, phases, loaders, num_classes, settings, cache_features, num_views, epochs_left):
        assert epochs_left == [phase.epochs for phase in phases]
        asked.append((len(phases), settings.channels_last, cache_features, num_views, loaders["val"].batch_size))
        return Estimate((1.5, 4.0), 1000.0, 50.0)

    monkeypatch.setattr(execute, "estimate_run", estimated)
    settings = {"models": ("resnet18",), "image_size": 32, "seeds": 3, "channels_last": False, "eval_batch_size": 7}
    config = BenchmarkConfig(data=str(dogs_root), preset="demo", device="cpu", out=str(tmp_path / "out"),
                             cache_features=True, tta="five-crop", loader="cached",
                             store=str(tmp_path / "store"), **settings)  # fmt: skip
    plan = make_plan(config)
    execute.dry_run(plan, choose_loaders(plan))
    assert asked == [(1, False, True, 5, 7), (2, False, True, 5, 7)]
    printed = capsys.readouterr().out
    # The plan has named the loader of the runs; what the estimate has in its place is no second one.
    first, *others = printed.splitlines()
    assert first.startswith("estimate dali for resnet-train, eval, ")
    assert first.endswith(": the store of the run is not built yet, so its time is estimated by streaming")
    assert not [line for line in others if " for resnet-train" in line]
    assert "loader  " not in printed
    assert not (tmp_path / "store").exists()
    assert "  resnet18_full: 3 x 1.5 to 4.0 min (loader 1,000 img/s, training 50.0 img/s)\n" in printed
    assert "  in all: 9.0 to 24.0 min" in printed
    one = dataclasses.replace(plan, runs=plan.runs[:1])
    said = describe_estimates(one, {"resnet18_full": Estimate((1.5, 1.5), 1000.0, 50.0)})
    assert "  resnet18_full: 1.5 min (" in said
    short = describe_estimates(one, {"resnet18_full": Estimate((0.01, 0.04), 1000.0, 50.0)})
    assert "  in all: less than 0.1 min" in short


def test_of_a_run_that_goes_on_only_what_is_left_is_estimated(tiny_results, tmp_path, monkeypatch, capsys):
    """Of three seeds one is finished, one has trained an epoch of three, and one has not begun."""
    out = tmp_path / "run"
    shutil.copytree(tiny_results, out)
    folder = out / "cnn" / "resnet18_full"
    for name in ("resnet18_full_seed42", "resnet18_full_seed43"):
        shutil.copytree(folder, out / "cnn" / name)
        for file in ("run_metadata.json", "history.csv"):
            (out / "cnn" / name / f"resnet18_full_{file}").rename(out / "cnn" / name / f"{name}_{file}")
    begun = out / "cnn" / "resnet18_full_seed43" / "resnet18_full_seed43_run_metadata.json"
    begun.write_text(begun.read_text().replace('"state": "finished"', '"state": "running"'))
    asked = []

    def estimated(*_, epochs_left, **__):
        asked.append(epochs_left)
        return Estimate((1.0, 2.0), 1000.0, 50.0)

    monkeypatch.setattr(execute, "estimate_run", estimated)
    config = config_from_json(read_json(out / "config.json"))
    resumed = dataclasses.replace(config, seeds=3, epochs={"": (3,)}, resume=str(out), out=str(out), loader="torch",
                                  tta="none", dry_run=True)  # fmt: skip
    plan = make_plan(resumed)
    execute.dry_run(plan, choose_loaders(plan))
    assert asked == [[2], [3]]
    printed = capsys.readouterr().out
    assert "what is left of training and tests, estimated from a few steps" in printed
    assert "  resnet18_full_seed42: finished already\n" in printed
    assert "  in all: 2.0 to 4.0 min" in printed
    begun.write_text("{")
    with pytest.raises(CheckpointError, match="remove it to run that run again"):
        execute.dry_run(plan, choose_loaders(plan))


def test_an_estimate_is_of_the_epochs_that_are_left(probed):
    found = minutes(epochs_left=[0, 1])
    assert probed == [(16, 100.0), (4, 50.0)]  # a phase of which nothing is left is not timed
    evaluation = (20 + 40) / 100 + (20 + 40) / 1000
    expected = (evaluation + 100 / 50 + 100 / 1000 + 20 / 100 + 20 / 1000) / 60
    assert found.minutes == pytest.approx((expected, 2 * expected))
