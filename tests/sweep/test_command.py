"""`dogs-accel sweep`: a real sweep of small runs, what it refuses, and what W&B's agent types."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from dogs_accel import benchmark, cli
from dogs_accel.datasets import open_dataset
from dogs_accel.experiment.plan import plan_runs
from dogs_accel.results.folder import read_record
from dogs_accel.results.layout import record_paths
from dogs_accel.runtime.files import read_json
from dogs_accel.sweep import command as sweep_command
from dogs_accel.sweep.engine import trial
from dogs_accel.sweep.presets import SWEEP_PRESETS
from dogs_accel.sweep.settings import read_sweep, sweep_of
from dogs_accel.sweep.trials import TRIALS_FILE, read_trials
from dogs_accel.sweep.wandb_file import read_point
from pipelines.cores import available_cores
from tests.support.blank_figures import blank_figures
from tests.support.photo_reads import photo_reads
from tests.sweep.stubs import StubbedTrain

SWEEP = """
[settings]
data = "{data}"
models = ["cnn5:filters=4"]
strategies = ["scratch"]
recipes = ["inaturalist-train"]
epochs = "2"
image_size = 32
device = "cpu"

[space]
batch_size = [16, 32]
"set.lr" = {{low = 1e-3, high = 1e-2, log = true}}
model.activation = ["relu", "mish"]
recipe.flip = [0.0, 0.5]

[sweep]
name = "small"
trials = 2
"""


def write_sweep(folder, data):
    path = folder / "sweep.toml"
    path.write_text(SWEEP.format(data=data), encoding="utf-8")
    return path


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(["sweep", *map(str, arguments)])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.slow  # three trials, and one of them again by the benchmark, which is what it is about
def test_a_sweep_trains_ordinary_runs_whose_test_files_stay_closed(closed_root, tmp_path, capsys, undrawn):
    out, data = tmp_path / "out", open_dataset(closed_root)
    config = write_sweep(tmp_path, closed_root)
    test = {data.paths[i] for i in data.split("test")}
    command = ["sweep", "--config", str(config), "--out", str(out), "--wandb", "disabled"]
    with photo_reads(closed_root, tmp_path / "log") as reads:
        assert cli.main(command) == 0
    assert set(reads.counts("decode").values()) == {1}
    assert len(reads.counts("decode")) == len(data) - len(test)
    assert not test & (reads.counts("decode").keys() | reads.counts("open").keys())
    said = capsys.readouterr().out
    assert "2 trials: 2 complete" in said or "2 trials: 1 complete, 1 pruned" in said
    assert said.rstrip().endswith(f"report: {out / 'sweep_report.html'}")
    assert all((out / name).is_file() for name in ("sweep_report.html", "best.toml", "levels.csv", "findings.json"))
    sweep = read_sweep(out)
    table = read_trials(out / TRIALS_FILE, sweep.space)
    first = table.iloc[0]
    assert (first["state"], first["epochs"], first["num_val"], first["seed"]) == ("complete", 2, 8, 42)
    assert first["overhead_seconds"] > 0
    # A row says what its folder says.
    [path] = record_paths(out / first["run"])
    record = read_record(path)
    assert record.is_finished
    assert not record.test_was_read
    assert record.best_val_accuracy == first["value"]
    assert record.config.batch_size == first["batch_size"]
    assert record.config.phases[0]["lr"] == first["set.lr"]
    assert record.train_recipe["flip"] == first["recipe.flip"]
    # The same command finds it done; its settings alone train a trial again, to the same weights.
    assert cli.main(command) == 0
    assert read_trials(out / TRIALS_FILE, sweep.space).equals(table)
    again = tmp_path / "again"
    with blank_figures():
        benchmark.main(["--config", str(out / first["run"] / "config.json"), "--out", str(again)])
    [copy] = record_paths(again)
    assert read_record(copy).best_val_accuracy == first["value"]
    weights = [torch.load(each.parent / "best.pt", weights_only=True)["model"] for each in (path, copy)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    # Another sweep does not mix with it; a larger budget goes on.
    assert "the sweep in" in refused(capsys, *command[1:], "--seed", "7")
    assert "settings: got epochs" not in refused(capsys, *command[1:], "--epochs", "3")
    capsys.readouterr()
    more = ["--trials", "4", "--workers", "2"]
    assert cli.main(["sweep", "--resume", "--out", str(out), "--wandb", "disabled", *more]) == 0
    assert "workers  2" in capsys.readouterr().out
    table = read_trials(out / TRIALS_FILE, sweep.space)
    assert list(table["number"]) == [0, 1, 2, 3]
    assert not set(table["state"]) & {"running", "failed"}
    threads = {read_json(out / run / "config.json")["num_threads"] for run in table["run"]}
    assert threads == {None, max(1, available_cores() // 2)}


def test_what_is_wrong_is_said_in_a_line_before_anything_starts(dogs_root, tmp_path, capsys):
    config, out = write_sweep(tmp_path, dogs_root), tmp_path / "out"

    def changed(old, new):
        path = tmp_path / "changed.toml"
        path.write_text(config.read_text().replace(old, new), encoding="utf-8")
        return refused(capsys, "--config", path, "--out", out)

    assert "config: got none, expected --config FILE, --preset NAME, or --resume --out DIR" in refused(capsys)
    assert "(did you mean 'inaturalist-cnn'?)" in refused(capsys, "--preset", "inaturalist-cn")
    assert "space: got 'set.ler'" in changed('"set.lr"', '"set.ler"')
    assert "(did you mean 'batch_size'?)" in changed("batch_size =", "batchsize =")
    assert "expected low < high" in changed("high = 1e-2", "high = 1e-3")
    assert "space: model.activation = swish: models: activation of cnn5" in changed('"mish"', '"swish"')
    assert "settings: got modles" in changed("models =", "modles =")
    assert "sweep: got 'trails'" in changed("trials =", "trails =")
    assert "got 'spaec', expected the tables settings, space, sweep" in changed("[sweep]", "[spaec]")
    assert "sampler: got 'tpe', expected one of bayes, random, grid" in refused(
        capsys, "--config", config, "--out", out, "--sampler", "tpe"
    )
    assert "got 2 runs a trial" in changed('"scratch"', '"scratch", "full"')
    assert "--trails=3 (did you mean '--trials'?)" in refused(capsys, "--config", config, "--out", out, "--trails=3")
    assert "holds no sweep" in refused(capsys, "--resume", "--out", out)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file").touch()
    assert "is no sweep and not empty" in refused(capsys, "--config", config, "--out", tmp_path / "else")
    assert not out.exists()


def test_the_exported_yaml_drives_the_command(dogs_root, tmp_path, capsys):
    config, path = write_sweep(tmp_path, dogs_root), tmp_path / "wandb.yaml"
    out = tmp_path / "agents"
    cli.main(["sweep", "--config", str(config), "--out", str(out), "--export-wandb", str(path)])
    assert "wandb sweep" in capsys.readouterr().out
    content = yaml.safe_load(path.read_text())
    assert content["method"] == "bayes"
    assert content["metric"] == {"name": "evaluation/val_accuracy", "goal": "maximize"}
    assert content["parameters"] == {
        "batch_size": {"values": [16, 32]},
        "set.lr": {"distribution": "log_uniform_values", "min": 0.001, "max": 0.01},
        "model.activation": {"values": ["relu", "mish"]},
        "recipe.flip": {"values": [0.0, 0.5]},
    }
    assert content["command"][:3] == ["${env}", "dogs-accel", "sweep"]
    assert content["command"][-1] == "${args}"
    # As the agent makes the command line of a run.
    args = ["--batch_size=32", "--set.lr=0.00317", "--model.activation=mish", "--recipe.flip=0.5"]
    command = [part for part in content["command"][2:-1] if part != "${env}"]
    command[command.index("online")] = "disabled"
    assert cli.main([*command, *args]) == 0
    sweep = read_sweep(out)
    [row] = read_trials(out / TRIALS_FILE, sweep.space).to_dict("records")
    assert {name: row[name] for name in sweep.space.names} == {
        "batch_size": 32, "set.lr": 0.00317, "model.activation": "mish", "recipe.flip": 0.5,
    }  # fmt: skip
    assert row["state"] == "complete"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch_size=64"], "batch_size: got '64', expected one of 16, 32"),
        (["--batch_size=16"], "set.lr: got no value, expected one of every parameter: batch_size, set.lr"),
        (["--batch_size=16", "--batch_size=16"], "batch_size: got it twice, expected each parameter once"),
        (["--batchsize=16"], "unrecognized arguments: --batchsize=16 (did you mean '--batch_size'?)"),
        (["--set.lr=1"], "set.lr: got '1', expected a number from 0.001 to 0.01"),
        (["--batch_size", "16"], "batch_size: got --batch_size without =, expected --batch_size=VALUE"),
        (["batch_size=16"], "unrecognized arguments: batch_size=16"),
    ],
)
def test_a_point_of_the_command_line_is_checked(arguments, message):
    content = {
        "settings": {"models": ["cnn5"], "strategies": ["scratch"]},
        "space": {"batch_size": [16, 32], "set.lr": {"low": 1e-3, "high": 1e-2}},
    }
    space = sweep_of(content, {}, {}).space
    with pytest.raises(ValueError, match=re.escape(message)):
        read_point(arguments, space)


def test_the_space_of_the_assignment_has_960_points():
    for name, epochs, size in (("inaturalist-cnn", 5, 224), ("inaturalist-cnn-demo", 3, 64)):
        sweep = sweep_of(SWEEP_PRESETS[name], {}, {})
        assert sweep.space.num_points == 960
        config = sweep.config(sweep.space.point(0)).resolved()
        [run] = plan_runs(config)
        [phase] = run.phases
        assert (phase.epochs, phase.optimizer, phase.lr, phase.schedule, phase.weight_decay) == (
            epochs, "adam", 1e-3, "constant", 0.0,
        )  # fmt: skip
        assert (run.spec.image_size, config.val_ratio, config.test) == (size, 0.2, False)
        assert run.train_recipe.name == "inaturalist-train"


def test_help_answers_without_torch():
    code = "import sys; from dogs_accel.cli import main\ntry: main(['sweep', '--help'])\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules and 'optuna' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_confirming_needs_a_sweep(tmp_path, capsys):
    assert "confirm: got no folder, expected --out DIR of a sweep" in refused(capsys, "--confirm", "1")
    assert f"{tmp_path} holds no sweep" in refused(capsys, "--confirm", "1", "--out", tmp_path)
    assert "seeds: got 3 without --confirm K" in refused(capsys, "--seeds", "3", "--resume", "--out", tmp_path)
    assert "baseline: got a.toml without --confirm K" in refused(capsys, "--baseline", "a.toml", "--out", tmp_path)
    assert "got --trails=3 beside --confirm" in refused(capsys, "--confirm", "1", "--out", tmp_path, "--trails=3")


STUBBED = """
[settings]
data = "photos"
models = ["cnn5"]
strategies = ["scratch"]
recipes = ["inaturalist-train"]
wandb = "disabled"
gpu = 1

[space]
model.dense = [32, 64]
recipe.flip = [0.0, 0.5]
"""


@pytest.fixture
def stubbed(tmp_path, monkeypatch):
    """sweep.toml in the current folder, whose trials take no time; gives where each command computes them."""

    given = []

    class Runner(StubbedTrain):
        def __init__(self, folder, sweep, where):
            super().__init__(1, fails=lambda point: "fails" in sweep.name, value=lambda point: 0.5)
            given.append(where)

        def prepare(self):
            yield from ()

        def close(self):
            pass

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dogs_accel.sweep.engine.trial.TrialRunner", Runner)
    monkeypatch.setattr(sweep_command, "_findings", lambda folder: iter(["report: made"]))
    Path("sweep.toml").write_text(STUBBED, encoding="utf-8")
    return given


RUN = ["sweep", "--config", "sweep.toml", "--out", "out"]
RESUME = ["sweep", "--resume", "--out", "out"]


def test_hours_are_those_of_one_command(stubbed, capsys):
    assert cli.main([*RUN, "--trials", "2", "--hours", "1e-12"]) == 0
    said = capsys.readouterr().out
    assert "up to 2 trials or 1e-12 hours" in said
    assert "hours    1e-12 hours are over, so that no other trial was begun" in said
    assert "0 trials" in said
    assert read_sweep(Path("out")).hours is None
    assert cli.main([*RESUME]) == 0
    assert "2 trials: 2 complete; 2 epochs in" in capsys.readouterr().out
    # Those alone are a budget too, as they are of a file.
    assert cli.main([*RUN[:-1], "other", "--hours", "1e-12"]) == 0
    assert "up to 1e-12 hours" in capsys.readouterr().out
    assert "hours: got '-1.0', expected a number above 0" in refused(capsys, *RUN[1:], "--hours", "-1")


def test_another_budget_takes_the_place_of_the_trials_of_a_preset(stubbed, capsys):
    preset = ["sweep", "--preset", "inaturalist-cnn-demo", "--wandb", "disabled", "--out"]
    assert cli.main([*preset, "hours", "--hours", "1e-12"]) == 0
    assert "seed 42, up to 1e-12 hours\n" in capsys.readouterr().out
    assert cli.main([*preset, "epochs", "--total-epochs", "31", "--sampler", "random"]) == 0
    said = capsys.readouterr().out
    assert "seed 42, up to 31 epochs\n" in said
    assert "31 trials: 31 complete" in said
    assert cli.main([*preset, "both", "--hours", "1e-12", "--trials", "7"]) == 0
    assert "seed 42, up to 7 trials or 1e-12 hours\n" in capsys.readouterr().out


def test_a_command_that_has_nothing_left_to_do_says_so(stubbed, capsys):
    assert cli.main([*RUN, "--trials", "1"]) == 0
    assert "nothing is left" not in capsys.readouterr().out
    assert cli.main([*RUN, "--trials", "1"]) == 0
    assert "budget   nothing is left to begin within 1 trial; a larger budget goes on\n" in capsys.readouterr().out
    grid = [*RUN[:-1], "grid", "--sampler", "grid"]
    assert [cli.main(grid), cli.main(grid)] == [0, 0]
    assert "budget   nothing is left to begin within 4 trials\n" in capsys.readouterr().out


def test_workers_for_which_there_is_no_memory_leave_their_cores_to_the_others(stubbed, monkeypatch, capsys):
    monkeypatch.setattr(sweep_command, "available_bytes", lambda: int(3.5 * 2**30))
    monkeypatch.setattr("pipelines.cores.available_cores", lambda: 8)
    started = []

    class Other:
        def __init__(self, command, env):
            started.append((command[-2:], env["DOGS_ACCEL_SWEEP_THREADS"]))

        def poll(self):
            return 0

        wait = poll

    monkeypatch.setattr(sweep_command.subprocess, "Popen", Other)
    assert cli.main([*RUN, "--trials", "1", "--workers", "4"]) == 0
    assert "workers  2 of 4, for which there is memory at 1.5 GiB each, a flat figure: " in capsys.readouterr().out
    assert [where.num_threads for where in stubbed] == [4]
    # The other one knows whose worker it is, also where that is gone before it has begun.
    assert started == [(["--worker", str(os.getpid())], "4")]


def test_a_worker_whose_command_is_gone_stops(stubbed, capsys):
    assert cli.main([*RUN, "--trials", "1"]) == 0
    with pytest.raises(SystemExit) as caught:
        cli.main([*RESUME, "--trials", "2", "--worker", "1073741824"])
    assert caught.value.code == 130
    table = read_trials(Path("out") / TRIALS_FILE, read_sweep(Path("out")).space)
    assert list(table["state"]) == ["complete", "running"]


def test_what_makes_it_another_sweep_is_said_as_it_is_typed(stubbed, capsys):
    assert cli.main([*RUN, "--trials", "1", "--epochs", "2"]) == 0
    assert "another one: epochs: got 3, which has 2; expected" in refused(capsys, *RUN[1:], "--epochs", "3")


def test_a_sweep_that_could_not_begin_leaves_its_folder_to_another(stubbed, monkeypatch, capsys):
    def refuse(self):
        raise ValueError("data: photos is not there")
        yield

    monkeypatch.setattr(trial.TrialRunner, "prepare", refuse)
    assert "data: photos is not there" in refused(capsys, *RUN[1:], "--data", "nowhere", "--trials", "1")
    monkeypatch.setattr(trial.TrialRunner, "prepare", lambda self: iter(()))
    assert cli.main([*RUN, "--data", "pictures", "--trials", "1"]) == 0
    assert "another one: data" in refused(capsys, *RUN[1:], "--trials", "1")


def test_of_two_sweeps_that_begin_in_one_folder_the_later_one_has_it(stubbed, monkeypatch, capsys):
    def prepare(self):
        if not is_other:
            is_other.append(True)
            assert cli.main([*RUN, "--data", "others", "--trials", "1"]) == 0
        yield from ()

    is_other = []
    monkeypatch.setattr(trial.TrialRunner, "prepare", prepare)
    assert "is another one: data: got " in refused(capsys, *RUN[1:], "--trials", "1")
    assert len(read_trials(Path("out") / TRIALS_FILE, read_sweep(Path("out")).space)) == 1


def test_help_says_the_defaults_of_the_fields(capsys):
    with pytest.raises(SystemExit):
        cli.main(["sweep", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "trials in all (default: all points of a grid, else 30 where there is no other budget)" in said
    assert "every trial trains with the seed of the settings (default: 42)" in said
    assert "--worker " not in said  # of the processes that --workers starts
    assert "SUPPRESS" not in said


def test_a_relative_folder_of_data_is_the_same_one_when_a_sweep_goes_on(stubbed, capsys):
    assert cli.main([*RUN, "--trials", "1"]) == 0
    assert cli.main([*RESUME, "--data", "photos", "--trials", "2"]) == 0
    assert "another one: data" in refused(capsys, *RESUME[1:], "--data", "others")


def test_where_no_trial_is_complete_the_command_ends_with_1_after_its_report(stubbed, capsys):
    Path("sweep.toml").write_text(f'{STUBBED}[sweep]\nname = "fails"\n', encoding="utf-8")
    for trials, message in (
        ("2", "no trial is complete: 2 failed"),
        ("7", "no trial could be trained; the last one failed"),
    ):
        with pytest.raises(SystemExit) as caught:
            cli.main([*RUN, "--trials", trials])
        assert caught.value.code == 1
        said = capsys.readouterr()
        assert said.out.endswith("report: made\n")
        assert message in said.err


def test_numbers_of_one_are_said_as_such(stubbed, capsys):
    assert cli.main([*RUN, "--trials", "1", "--total-epochs", "1", "--hours", "1"]) == 0
    said = capsys.readouterr().out
    assert "4 points, bayes, seed 42, up to 1 trial or 1 epoch or 1 hour\n" in said
    assert "1 of 3 goes on after 1 epoch, and so on" in said
    assert "\n1 trial: 1 complete; 1 epoch in 1 s" in said


def test_confirming_goes_where_the_sweep_went(stubbed, monkeypatch, capsys):
    given = []
    monkeypatch.setattr(
        "dogs_accel.sweep.confirming.run.confirm", lambda folder, where, **how: given.append(where) or iter([])
    )
    assert cli.main([*RUN, "--trials", "1"]) == 0
    assert cli.main(["sweep", "--confirm", "1", "--out", "out"]) == 0
    assert cli.main(["sweep", "--confirm", "1", "--out", "out", "--wandb", "offline", "--device", "cpu"]) == 0
    assert [(where.wandb, where.device) for where in given] == [("disabled", "cuda:1"), ("offline", "cpu")]
    assert stubbed[0] == given[0]
    capsys.readouterr()
    assert "wandb: got 'onlin', expected one of" in refused(capsys, "--confirm", "1", "--out", "out", "--wandb=onlin")


@pytest.mark.parametrize(
    ("flag", "value"),
    [("config", "a.toml"), ("preset", "inaturalist-cnn"), ("data", "photos"), ("trials", 3), ("epochs", 3),
     ("total-epochs", 3), ("hours", 1.0), ("sampler", "grid"), ("seed", 0), ("workers", 1), ("export-wandb", "a")],
)  # fmt: skip
def test_confirming_refuses_what_is_of_the_sweep(flag, value, tmp_path, capsys):
    said = refused(capsys, "--confirm", "1", "--out", tmp_path, f"--{flag}={value}")
    assert f"{flag}: got {value} beside --confirm, which takes the settings of the sweep" in said


def test_the_exported_command_is_that_of_the_same_sweep(stubbed, capsys):
    flags = ["--sampler", "random", "--trials", "2", "--total-epochs", "9"]
    assert cli.main([*RUN, *flags, "--export-wandb", "w.yaml"]) == 0

    def typed():
        command = yaml.safe_load(Path("w.yaml").read_text())["command"]
        command[command.index("online")] = "disabled"
        return [*command[2:-1], "--model.dense=32", "--recipe.flip=0.5"]

    assert cli.main([*RUN, *flags]) == 0
    assert cli.main(typed()) == 0
    sweep = read_sweep(Path("out"))
    assert (sweep.sampler, sweep.trials, sweep.total_epochs) == ("random", 2, 9)
    assert cli.main([*RESUME, "--export-wandb", "w.yaml"]) == 0
    assert cli.main(typed()) == 0
    assert len(read_trials(Path("out") / TRIALS_FILE, sweep.space)) == 4
    said = refused(capsys, *RUN[1:], "--export-wandb", "absent/w.yaml")
    assert "export-wandb: got absent/w.yaml, expected a file in a folder that exists" in said
    assert not Path("absent").exists()
