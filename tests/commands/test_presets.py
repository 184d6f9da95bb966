"""Each preset as a command: its demo from end to end in the smallest form."""

import dataclasses

import pytest

from dogs_accel.benchmark import main
from dogs_accel.experiment.plan import plan_runs
from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.experiment.settings.presets import DEMO_OF, PRESETS
from dogs_accel.results.folder import read_runs_folder

DEMOS = [name for name in PRESETS if name.endswith(DEMO_OF)]


@pytest.fixture
def few_pictures(monkeypatch):
    """Let a preset generate seven training and two test pictures a class, of 64 px."""

    def shrink(name):
        pictures = PRESETS[name].pictures
        size_px = pictures.get("size_px", (48, 64))
        few = {**pictures, "train_per_class": 7, "test_per_class": 3, "size_px": size_px}
        monkeypatch.setitem(PRESETS, name, dataclasses.replace(PRESETS[name], pictures=few))

    return shrink


@pytest.mark.slow  # each trains, explains and reports a run
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", DEMOS)
def test_a_demo_runs_from_its_pictures_to_its_report(name, few_pictures, tmp_path, capsys):
    few_pictures(name)
    out = tmp_path / "run"
    first, *_ = plan_runs(BenchmarkConfig(preset=name).resolved())
    arguments = ["--preset", name, "--runs", first.name, "--image-size", "32", "--epochs", "1", "--device", "cpu"]
    assert main([*arguments, "--wandb", "disabled", "--val-ratio", "0.3", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("These are generated pictures of invented animals, not those of ")
    folder = read_runs_folder(out)
    layout = PRESETS[name].pictures["layout"]
    assert (folder.facts.name, folder.facts.published) == (f"synthetic-{layout}", None)
    assert folder.facts.noun == ("breed" if layout == "oxford-iiit-pet" else "class")
    assert folder.config["preset"] == name
    assert [run.name for run in folder.runs] == [first.name]
    assert folder.facts.title in (out / "report.html").read_text(encoding="utf-8")
