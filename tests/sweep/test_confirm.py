"""Confirming a sweep whose trials are made, on real pictures: what is trained, compared, tested, and done once."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from dogs_accel.experiment.settings.files import read_settings_file
from dogs_accel.results.layout import logits_file, record_paths
from dogs_accel.results.reading import read_predictions
from dogs_accel.runtime.files import read_json
from dogs_accel.sweep.confirming import run as confirming
from dogs_accel.sweep.confirming.plan import make_confirm_plan
from dogs_accel.sweep.engine import opened
from dogs_accel.sweep.engine.opened import Where
from dogs_accel.sweep.findings.confirmed import CONFIRMATION_FILE
from dogs_accel.sweep.findings.run import read_sweep_trials, write_all_findings
from dogs_accel.sweep.presets import SWEEP_PRESETS
from dogs_accel.sweep.settings import SweepConfig, read_sweep, sweep_of, write_sweep
from dogs_accel.sweep.space import read_space
from dogs_accel.sweep.trials import COMPLETE, TRIALS_FILE, TrialRow, write_trials
from tests.support.blank_figures import blank_figures

pytestmark = pytest.mark.slow  # four trainings, which are what is confirmed
HERE = Where(device="cpu", wandb="disabled")
VALUES = (0.5, 0.75, 0.5, 0.25)


def made_sweep(folder, data, **sweep):
    """A sweep of four trials, which nobody trained."""
    settings = {
        "preset": "demo", "data": str(data), "models": ("cnn5:filters=4:dense=8",), "strategies": ("full",),
        "image_size": 32, "epochs": {"": (1,)}, "loader": "cached", "val_ratio": 0.25,
    }  # fmt: skip
    space = read_space({"batch_size": [8, 16], "set.lr": [1e-3, 1e-2]}, settings)
    config = SweepConfig(settings=settings, space=space, **sweep)
    folder.mkdir()
    write_sweep(folder, config)
    rows = [
        TrialRow(
            number=number, state=COMPLETE, run=f"trials/{number:04}", started=f"2026-01-01T00:00:0{number}+00:00",
            seconds=1.0, overhead_seconds=0.1, epochs=1, value=value, num_val=12, seed=42,
            point=config.space.point(number),
        )
        for number, value in enumerate(VALUES)
    ]  # fmt: skip
    write_trials(folder / TRIALS_FILE, rows, space)
    return config


@pytest.fixture(scope="module")
def confirmed(dogs_root, tmp_path_factory):
    """A sweep that was confirmed, stopped once in between; what was done in what order, and what was said at last."""
    folder = tmp_path_factory.mktemp("confirm") / "sweep"
    made_sweep(folder, dogs_root)
    done, train, decide, plan = [], confirming.execute_run, confirming.judge, opened.make_plan

    def trained(own, run, *others):
        if done == [("trial_0001", 43), ("trial_0001", 44)]:
            done.append("stopped")
            raise KeyboardInterrupt
        found = train(own, run, *others)
        done.append((own.out.name, run.seed))
        return found

    with pytest.MonkeyPatch.context() as patch, blank_figures():
        patch.setattr(confirming, "execute_run", trained)
        patch.setattr(confirming, "judge", lambda answers: done.append("chosen") or decide(answers))
        patch.setattr(opened, "make_plan", lambda config: (config.test and done.append("test opened")) or plan(config))
        with pytest.raises(KeyboardInterrupt):
            list(confirming.confirm(folder, HERE, top=1, seeds=2))
        assert not (folder / CONFIRMATION_FILE).exists()
        times = {path: path.stat().st_mtime_ns for path in folder.rglob("best.pt")}
        said = list(confirming.confirm(folder, HERE, top=1, seeds=2))
    assert {path: path.stat().st_mtime_ns for path in times} == times
    return folder, done, said


def test_the_best_trial_and_the_baseline_are_trained_with_other_seeds(confirmed):
    folder, _, _ = confirmed
    names = sorted(path.parent.name for path in record_paths(folder / "confirm" / "trial_0001"))
    assert names == [f"{name.split('_seed')[0]}_seed{seed}" for name, seed in zip(names, (43, 44), strict=True)]
    found = read_json(folder / CONFIRMATION_FILE)
    assert [each["candidate"]["name"] for each in found["candidates"]] == ["trial 1", "baseline"]
    assert found["seeds"] == [43, 44]
    for each, run in zip(found["candidates"], ("trial_0001", "baseline"), strict=True):
        folders = [path.parent for path in record_paths(folder / "confirm" / run)]
        answers = [read_predictions(path / logits_file("val")) for path in folders]
        values = [float(np.mean(one.predicted == one.labels)) for one in answers]
        assert list(each["by_seed"].values()) == pytest.approx(values)
        assert each["mean"] == pytest.approx(np.mean(values))


def test_test_is_read_once_after_the_choice_and_for_the_chosen_one_alone(confirmed):
    folder, done, said = confirmed
    again = [("trial_0001", 43), ("trial_0001", 44)]
    assert done == [*again, "stopped", *again, ("baseline", 43), ("baseline", 44), "chosen", "test opened"]
    chosen = read_json(folder / CONFIRMATION_FILE)["chosen"]
    place = {"baseline": "baseline", "trial 1": "trial_0001"}
    tested = {path.parents[2].name for path in folder.rglob(logits_file("test"))}
    assert tested == {place[chosen]}
    found = read_json(folder / CONFIRMATION_FILE)
    answers = [read_predictions(path) for path in sorted(folder.rglob(logits_file("test")))]
    assert found["num_test"] == len(answers[0].labels) == 24
    assert found["test"]["mean"] == pytest.approx(np.mean([np.mean(one.predicted == one.labels) for one in answers]))
    named = {"baseline": "the baseline"}.get(chosen, chosen)
    assert any(line.startswith(f"On test, read once and for {named} alone") for line in said)


def test_the_report_says_what_was_confirmed(confirmed):
    folder, _, _ = confirmed
    page = (folder / "sweep_report.html").read_text(encoding="utf-8")
    assert "On test, read once and for" in page
    assert "Trial 1 against the baseline" in page
    assert "Nothing was confirmed" not in page


def test_it_is_done_once(confirmed, monkeypatch):
    folder, _, _ = confirmed
    monkeypatch.setattr(confirming, "execute_run", lambda *given: pytest.fail("it trains again"))
    before = read_json(folder / CONFIRMATION_FILE)
    with blank_figures():
        said = list(confirming.confirm(folder, HERE, top=1, seeds=2))
    assert "confirmed already, and test was read" in said
    assert read_json(folder / CONFIRMATION_FILE) == before


def test_more_seeds_afterwards_are_refused(confirmed):
    folder, _, _ = confirmed
    with pytest.raises(ValueError, match=r"confirm: got seeds 3, which .* has as 2: what is compared is fixed"):
        list(confirming.confirm(folder, HERE, top=1, seeds=3))


def plan_of(folder, **options):
    sweep = read_sweep(folder)
    return make_confirm_plan(
        sweep, read_sweep_trials(folder, sweep), **{"top": 2, "seeds": 2, "baseline": None, **options}
    )


def test_a_baseline_of_a_file_has_the_images_of_the_sweep(confirmed, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('preset = "demo"\nmodels = ["resnet18"]\nstrategies = ["full"]\nepochs = "1"\n')
    found = plan_of(confirmed[0], baseline=file).planned[-1].config
    sweep = read_sweep(confirmed[0])
    assert found.models == ("resnet18",)
    assert (found.data, found.image_size, found.test) == (sweep.settings["data"], 32, False)
    file.write_text("seed = 7\n")
    with pytest.raises(ValueError, match=r"baseline: .*mine.toml: seed: got 7, expected 42 as the sweep has"):
        plan_of(confirmed[0], baseline=file)


def test_the_baseline_of_a_preset_is_its_own_setting(tmp_path):
    """The published sweep ended with mish, batch norm, dropout 0.3, 64 a batch and no augmentation."""
    sweep = sweep_of(SWEEP_PRESETS["inaturalist-cnn"], {}, {})
    best = {
        "model.activation": "mish", "model.growth": "same", "model.filters": 32, "model.dense": 256,
        "model.norm": "batch", "model.dropout": 0.3, "recipe.name": "inaturalist-eval", "batch_size": 64,
    }  # fmt: skip
    rows = [
        TrialRow(number=number, state=COMPLETE, run="", started="2026-01-01", value=0.5 - 0.1 * number, num_val=9,
                 seed=42, point=best | {"model.dropout": dropout})
        for number, dropout in enumerate((0.3, 0.2))
    ]  # fmt: skip
    write_trials(tmp_path / TRIALS_FILE, rows, sweep.space)
    found = make_confirm_plan(sweep, read_sweep_trials(tmp_path, sweep), top=1, seeds=3, baseline=None)
    trial, baseline = found.planned
    assert found.seeds == (43, 44, 45)
    assert baseline.config.resolved().models == ("cnn5:activation=mish:norm=batch:dropout=0.3",)
    assert baseline.config.epochs == sweep.settings["epochs"]
    # The best trial is at the point of the baseline, so the next one is confirmed.
    assert (trial.candidate.name, baseline.candidate.in_sweep) == ("trial 1", 0.5)


def test_best_toml_has_the_settings_of_the_best_trial(confirmed):
    folder, _, _ = confirmed
    sweep = read_sweep(folder)
    settings = read_settings_file(folder / "best.toml")
    best = sweep.config(sweep.space.point(1))
    assert settings["batch_size"] == 8
    assert settings["set"] == {"lr": 0.01}
    assert type(best)(**settings) == dataclasses.replace(best, test=True)


def test_findings_of_a_sweep_that_was_not_confirmed(dogs_root, tmp_path):
    made_sweep(tmp_path / "sweep", dogs_root, sampler="grid")
    with blank_figures():
        written = write_all_findings(tmp_path / "sweep")
    assert all(path.is_file() for path in written)
    assert pd.read_csv(tmp_path / "sweep" / "levels.csv")["num_complete"].tolist() == [2, 2, 2, 2]
    page = (tmp_path / "sweep" / "sweep_report.html").read_text(encoding="utf-8")
    assert "Nothing was confirmed" in page
    assert "two complete trials had it" in page
