"""How commands end where the world is untidy: one line, an exit code, nothing lost and nothing torn."""

import argparse
import builtins
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from dogs_accel import benchmark, cli, ending
from dogs_accel.datasets import open_dataset
from dogs_accel.eda import run as eda
from dogs_accel.ending import ending_in_a_line, write_traceback
from dogs_accel.experiment import command, execute, run
from dogs_accel.experiment.settings.command_line import add_arguments, parse_config
from dogs_accel.inference import export
from dogs_accel.results import comparison
from dogs_accel.runtime import files
from dogs_accel.runtime.files import FullDiskError, UnwritableError, patient_file, replacing, sha256
from dogs_accel.runtime.terminal import escaped, terminal_output
from dogs_accel.training.trainer import DivergedError, Trainer

FULL = Path("/dev/full")
ODD = "a\x1b[31m\x7f\tred\nfox"
SHOWN = r"a\x1b[31m\x7f\tred\nfox"


def ended(main, arguments, capsys):
    """Exit code and standard error of a command that ends early."""
    with pytest.raises(SystemExit) as stop:
        main([str(each) for each in arguments])
    return stop.value.code, capsys.readouterr().err


def arguments_of(dogs_root, *more):
    return [
        "--data", str(dogs_root), "--preset", "demo", "--models", "resnet18", "--image-size", "32", "--epochs", "1",
        "--device", "cpu", "--wandb", "disabled", *map(str, more),
    ]  # fmt: skip


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.fault(
    "Training and models",
    "a step after training fails (explanations, comparison, figures, report)",
    "the others are made; run and report name it; `dogs-accel report` makes it once the cause is gone",
)
@pytest.mark.fault(
    "Command line",
    "an error that nobody expected",
    "one line with what had ended, how to go on and where the traceback lies; exit code 1",
)
@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_what_fails_after_training_costs_itself_alone(dogs_root, tmp_path, monkeypatch, capsys):
    """Three steps of the first run fail, then the second run, of which nobody expected it."""
    out, execute_run = tmp_path / "out", execute.execute_run

    def broken_in_the_second_run(plan, planned, *work):
        if planned.name == "resnet18_staged":
            raise KeyError(ODD)
        return execute_run(plan, planned, *work)

    with monkeypatch.context() as patch:
        patch.setattr(execute, "execute_run", broken_in_the_second_run)
        patch.setattr(run, "write_explanations", failing(ValueError("no map today")))
        patch.setattr(run, "measure_costs", failing(RuntimeError("no clock today")))
        patch.setattr(comparison, "compare_runs", failing(ValueError("no pairs today")))
        patch.setattr(eda, "quality_distributions_figure", failing(ValueError("no figure today")))
        code, errors = ended(benchmark.main, arguments_of(dogs_root, "--out", out), capsys)
    assert code == 1
    assert errors.splitlines()[-1] == (
        f"python -m dogs_accel.benchmark: error: unexpected KeyError: {ODD!r}; what had ended is in {out}, and "
        f"--resume {out} goes on; the traceback is in {out / 'error.log'}"
    )
    assert "Traceback" not in errors
    logged = (out / "error.log").read_text()
    assert logged.count("Traceback (most recent call last)") == 5
    assert "in broken_in_the_second_run" in logged
    folder = out / "cnn" / "resnet18_full"
    record = json.loads((folder / "resnet18_full_run_metadata.json").read_text())
    assert record["state"] == "finished"
    assert record["not_made"] == {"explanations": "ValueError: no map today", "cost": "RuntimeError: no clock today"}
    assert record["cost"] == {}
    assert (folder / "quality_vs_error.png").exists()
    assert pd.read_csv(out / "model_comparison.csv")["Model"].tolist() == ["ResNet-18"]
    assert json.loads((out / "not_made.json").read_text()) == {
        "eda/quality_distributions.png": "ValueError: no figure today",
        "pairwise_comparison.csv": "ValueError: no pairs today",
    }
    assert not (out / "pairwise_comparison.csv").exists()
    assert not (out / "eda" / "quality_distributions.png").exists()
    preview = (out / "eda" / "augmented_batch_preview.png").read_bytes()
    assert_manifest_holds(out)
    # The report names them as long as the cause is there, and makes what it can once it is gone.
    with monkeypatch.context() as patch:
        patch.setattr(comparison, "compare_runs", failing(ValueError("no pairs today")))
        assert cli.main(["report", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert "explanations of resnet18_full (ValueError: no map today)" in page
    assert "Not known of ResNet-18, full: it could not be measured." in page
    assert "pairwise_comparison.csv (ValueError: no pairs today)" in page
    assert cli.main(["report", str(out)]) == 0
    assert (out / "pairwise_comparison.csv").exists()
    assert (out / "eda" / "quality_distributions.png").exists()
    assert (out / "eda" / "augmented_batch_preview.png").read_bytes() == preview
    assert not (out / "not_made.json").exists()
    assert "no pairs today" not in (out / "report.html").read_text()
    assert_manifest_holds(out)


def assert_manifest_holds(out):
    listed = json.loads((out / "MANIFEST.json").read_text())["files"]
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert set(listed) == there - {"MANIFEST.json", "error.log"}
    assert all(sha256(out / name) == entry["sha256"] for name, entry in listed.items())


@pytest.mark.fault(
    "Disk",
    "the disk is full while the results are written",
    "one line that names the file; --resume goes on once there is room",
)
@pytest.mark.usefixtures("undrawn")
def test_a_full_disk_is_one_line_that_says_how_to_go_on(dogs_root, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    monkeypatch.setattr(execute, "examine_data", lambda *_: files.write_json(out / "late.json", {}))
    monkeypatch.setattr(Path, "write_text", failing_below(out / "late", Path.write_text))
    code, errors = ended(benchmark.main, arguments_of(dogs_root, "--out", out), capsys)
    assert code == 2
    assert errors == (
        f"python -m dogs_accel.benchmark: error: {out / 'late.json'} cannot be written: no space left on its disk; "
        f"make room, and --resume {out} goes on\n"
    )
    assert sorted(path.name for path in out.iterdir()) == ["MANIFEST.json", "config.json", "environment.json"]


def failing_below(path, write):
    def write_text(self, *arguments, **named):
        if path.name in self.name:
            raise OSError(28, "No space left on device")
        return write(self, *arguments, **named)

    return write_text


EARLY = """
import importlib.abc, os, signal, sys

class Early(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            {what}

sys.meta_path.insert(0, Early())
from dogs_accel.{module} import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.fault(
    "Signals and processes",
    "Ctrl-C or SIGTERM in the first seconds, while torch is imported",
    "one line, exit code 130 or 143",
)
@pytest.mark.fault(
    "Machine and environment", "torch cannot be imported", "one line and a log with the traceback, exit code 1"
)
@pytest.mark.parametrize(
    ("module", "arguments", "what", "code", "said"),
    [
        ("benchmark", [], "os.kill(os.getpid(), signal.SIGINT)", 130, "\nstopped; nothing was written\n"),
        ("benchmark", [], "os.kill(os.getpid(), signal.SIGTERM)", 143, "\nstopped; nothing was written\n"),
        ("cli", ["predict", "a", "--run", "b"], "os.kill(os.getpid(), signal.SIGTERM)", 143, "\nstopped\n"),
        (
            "benchmark", [], "raise ImportError('libtorch.so: not there')", 1,
            "python -m dogs_accel.benchmark: error: unexpected ImportError: libtorch.so: not there; the traceback is",
        ),
    ],
)  # fmt: skip
def test_an_end_while_torch_is_imported_is_one_line(tmp_path, module, arguments, what, code, said):
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, "-c", EARLY.format(what=what, module=module), *arguments],
        capture_output=True, text=True, check=False, env=environment | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(said)
    assert done.stderr.strip().count("\n") == 0
    [*logs] = tmp_path.iterdir()
    assert len(logs) == (code == 1)
    assert all(done.stderr.endswith(f" {log}\n") and "libtorch.so" in log.read_text() for log in logs)


@pytest.mark.fault(
    "Machine and environment",
    "somebody's link under the name of the log in a shared temporary folder",
    "not followed; the traceback is said not to be written",
)
def test_a_log_is_written_through_no_link(tmp_path, monkeypatch):
    monkeypatch.setattr("dogs_accel.ending.tempfile.gettempdir", lambda: str(tmp_path))
    log = tmp_path / f"dogs-accel-{os.getuid()}-error.log"
    assert write_traceback(None, "it", KeyError("\udcff")) == f"the traceback is in {log}"
    assert log.read_text().endswith("KeyError: '\\udcff'\n\n")
    precious = log.rename(tmp_path / "precious")
    before = precious.read_text()
    log.symlink_to(precious)
    assert write_traceback(None, "it", KeyError("a")) == "its traceback could not be written anywhere"
    assert precious.read_text() == before


AT_IMPORT = """
import importlib.abc, os, signal, sys

class AtImport(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "{name}":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, AtImport())
"""
MODULE, SCRIPT = [sys.executable, "-m", "dogs_accel.benchmark"], [Path(sys.executable).with_name("dogs-accel")]


@pytest.mark.fault("Signals and processes", "Ctrl-C in the first moments, while Python still imports", "one line, 130")
@pytest.mark.parametrize(
    ("command", "name"),
    [(MODULE, "dogs_accel.benchmark"), (MODULE, "dogs_accel.ending"), (SCRIPT, "dogs_accel.cli")],
)
def test_ctrl_c_at_the_first_import_is_one_line(tmp_path, command, name):
    (tmp_path / "sitecustomize.py").write_text(AT_IMPORT.format(name=name))
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [*command, "--help"], capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path}
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nstopped\n")


def test_a_program_that_imports_a_part_keeps_its_own_ctrl_c():
    code = "import signal, dogs_accel; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.fault("Command line", "output piped into `head`", "silence, and the exit code of the work")
def test_a_reader_that_has_gone_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "dogs_accel.benchmark", "--help"], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    # Also in the middle of the work, which goes on.
    code = "from dogs_accel.ending import ending_in_a_line\nwith ending_in_a_line('it'):\n"
    code += "    for _ in range(9999): print('line', flush=True)\n    import sys; print('done', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"done\n")


@pytest.mark.fault("Disk", "the disk under a redirected output is full", "one line that says so")
def test_a_full_disk_under_the_output_is_named():
    code = "from dogs_accel.ending import ending_in_a_line\nwith ending_in_a_line('it'): print('line')"
    with FULL.open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "it: error: no space left on the disk of standard output; make room and run it again\n"


@pytest.mark.fault(
    "Command line",
    "a terminal or pipe that cannot show a letter",
    "the letter as an escape, and the exit code of the work",
)
@pytest.mark.fault(
    "Folders and names", "control characters and terminal escapes in names", "shown as escapes on the terminal"
)
@pytest.mark.parametrize(("encoding", "written"), [("ascii", r"caf\xe9 \u732b"), ("utf-8", "café 猫")])
def test_letters_and_control_characters_are_escaped(monkeypatch, encoding, written):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with terminal_output():
        print("café 猫")
        print("\x1b[31m\x9b\r\udcff")
        print(escaped(ODD))
    assert sys.stdout is stream
    lines = stream.buffer.getvalue().decode(encoding).splitlines()
    assert lines == [written, r"\x1b[31m\x9b\r\udcff", SHOWN]


@pytest.mark.fault(
    "Command line",
    "`predict --json` for a reader of any encoding",
    "ASCII that every JSON reader takes, also of names that are no UTF-8",
)
@pytest.mark.slow
def test_predict_escapes_names_and_its_json_is_ascii(tiny_results, dogs_root, tmp_path, capsys):
    photo = tmp_path / f"{ODD}é\udcff.jpg"
    shutil.copy(next(dogs_root.glob("Images/*/*.jpg")), photo)
    asked = ["predict", str(photo), "--run", str(tiny_results), "--device", "cpu"]
    assert cli.main(asked) == 0
    printed = capsys.readouterr().out
    assert f"{tmp_path}/{SHOWN}é\\udcff.jpg" in printed.splitlines()
    assert "\x1b" not in printed
    assert cli.main([*asked, "--json"]) == 0
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert json.loads(printed)["images"][0]["path"] == str(photo)


def test_errors_are_escaped_too(capsys):
    code, errors = ended(cli.main, ["report", f"/nowhere/{ODD}"], capsys)
    assert (code, errors) == (2, f"dogs-accel report: error: /nowhere/{SHOWN}: not a folder\n")


@pytest.mark.fault(
    "Disk",
    "an output folder that is a file, lies below one, or is read-only",
    "one line that names it, before the work",
)
def test_a_file_where_a_folder_goes_is_said_before_the_work(tmp_path, monkeypatch, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    for flag, arguments in {
        "heatmap": ["predict", "a.jpg", "--run", "/nowhere", "--heatmap"],
        "out": ["metadata", "--data", "/nowhere", "--out"],
    }.items():
        code, errors = ended(cli.main, [*arguments, file], capsys)
        assert (code, errors) == (
            2, f"dogs-accel {arguments[0]}: error: {flag}: {file} is a file, expected a folder\n"
        )  # fmt: skip
        assert (
            f"{flag}: {file}/a lies below {file}, which is a file"
            in ended(cli.main, [*arguments, file / "a"], capsys)[1]
        )
    monkeypatch.setattr(os, "access", lambda *_: False)
    _, errors = ended(cli.main, ["export", "--run", "/nowhere", "--out", tmp_path / "new"], capsys)
    assert f"out: {tmp_path / 'new'} cannot be written, {tmp_path} is read-only here" in errors
    assert file.read_text() == "mine"


@pytest.mark.slow  # a benchmark in this process
@pytest.mark.usefixtures("undrawn")
@pytest.mark.fault("Disk", "the folder of results is removed while a run trains", "one line after that epoch")
def test_a_folder_that_is_removed_in_training_is_one_line(dogs_root, tmp_path, monkeypatch, capsys):
    out, run_epoch = tmp_path / "out", Trainer._run_epoch

    def remove(*arguments):
        shutil.rmtree(out)
        return run_epoch(*arguments)

    monkeypatch.setattr(Trainer, "_run_epoch", remove)
    code, errors = ended(benchmark.main, arguments_of(dogs_root, "--strategies", "full", "--out", out), capsys)
    assert code == 2
    assert errors.splitlines()[-1] == (
        f"python -m dogs_accel.benchmark: error: {out} was removed while the run wrote to it, and what had ended with "
        "it; another --out starts anew"
    )


@pytest.mark.fault(
    "Training and models", "a rate at which every run becomes NaN",
    "the run stops, and a smaller rate is advised, not --resume with the same one",
)  # fmt: skip
def test_a_lost_training_is_not_advised_to_go_on(dogs_root, tmp_path, monkeypatch, capsys):
    def lost(plan, _):
        plan.out.mkdir()
        (plan.out / "config.json").write_text("{}")
        raise DivergedError("resnet18_full: the loss is nan")

    monkeypatch.setattr(execute, "run_plan", lost)
    code, errors = ended(benchmark.main, arguments_of(dogs_root, "--out", tmp_path / "out"), capsys)
    assert code == 2
    assert errors.splitlines()[-1] == "python -m dogs_accel.benchmark: error: resnet18_full: the loss is nan"


@pytest.mark.slow  # a benchmark in this process, and the rest of it
@pytest.mark.usefixtures("undrawn")
@pytest.mark.fault(
    "Photos", "a photo vanishes after the check, while a run trains", "named; --resume goes on with it back"
)
def test_a_photo_that_vanishes_in_training_costs_what_had_not_ended(dogs_root, tmp_path, monkeypatch, capsys):
    root, out, run_epoch = shutil.copytree(dogs_root, tmp_path / "set"), tmp_path / "out", Trainer._run_epoch
    data = open_dataset(root)
    photo = Path(data.paths[data.split("train")[0]])

    def remove(trainer, *arguments):
        if len(trainer.history) == 1:
            photo.rename(tmp_path / "photo")
        return run_epoch(trainer, *arguments)

    arguments = [*arguments_of(root, "--strategies", "full", "--loader", "dali", "--out", out), "--epochs", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_run_epoch", remove)
        code, errors = ended(benchmark.main, arguments, capsys)
    assert code == 2
    assert errors.splitlines()[-1] == f"python -m dogs_accel.benchmark: error: {photo}: No such file or directory"
    (tmp_path / "photo").rename(photo)
    assert benchmark.main(["--resume", str(out)]) == 0
    assert "  goes on after epoch 1/2" in capsys.readouterr().out.splitlines()


class Mean(torch.nn.Module):
    def forward(self, images):
        return images.mean(dim=(2, 3))


@pytest.mark.fault("Disk", "the disk is full while `export` writes", "the earlier export stays whole")
@pytest.mark.slow
def test_an_export_onto_a_full_disk_leaves_the_earlier_one(tiny_results, tmp_path, monkeypatch, capsys):
    earlier = {name: f"earlier {name}" for name in ("model.pt2", "model.onnx", "preprocessing.json")}
    for name, text in earlier.items():
        (tmp_path / name).write_text(text)
    dim = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(Mean(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=dim)
    monkeypatch.setattr(export, "_exported_program", lambda *_: program)
    monkeypatch.setattr(export, "patient_file", lambda path: patient_file(FULL))
    code, errors = ended(cli.main, ["export", "--run", tiny_results, "--out", tmp_path], capsys)
    assert (code, errors) == (
        2,
        f"dogs-accel export: error: {tmp_path / 'model.pt2'} cannot be written: no space left on its disk; "
        "make room and run it again\n",
    )
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == earlier


@pytest.mark.fault(
    "Disk", "the disk is full while torch writes a checkpoint", "an error like any other, and no abort of the process"
)
def test_torch_saves_onto_a_full_disk_without_ending_the_process():
    with pytest.raises(OSError, match="No space left"), patient_file(FULL) as file:
        torch.save({"weights": torch.zeros(100_000)}, file)


@pytest.mark.fault(
    "Disk", "a write that fails halfway", "the file is named by its own name and left as it was; no torn file"
)
@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError(28, "No space left on device"), FullDiskError, "cannot be written: no space left on its disk"),
        (OSError("encoder error -2 when writing image file"), FullDiskError, "no space left on its disk"),
        (RuntimeError("iostream error"), FullDiskError, "no space left on its disk"),
        (ValueError("a bug"), ValueError, "a bug"),
    ],
)
def test_a_file_that_cannot_be_written_is_named_by_its_own_name(tmp_path, monkeypatch, error, kind, message):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage._replace(free=0))
    path = tmp_path / "best.pt"
    path.write_text("earlier")
    with pytest.raises(kind, match=message) as stop, replacing(path):
        raise error
    assert kind is ValueError or str(stop.value).startswith(f"{path} cannot")
    assert [each.read_text() for each in tmp_path.iterdir()] == ["earlier"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "result.json"
    with pytest.raises(UnwritableError, match=f"{path} cannot be written: ") as stop, replacing(path):
        pass
    assert ".partial" not in str(stop.value)


@pytest.mark.fault("Command line", "several starts in one second", "a folder each")
def test_starts_of_one_second_get_a_folder_each(dogs_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dogs_accel.experiment.settings.config.time.strftime", lambda _: "20261122-171958")
    outs = []
    monkeypatch.setattr(command, "_carry_out", lambda ending, plan, loaders: outs.append((plan.out, plan.config.out)))
    for _ in range(3):
        assert benchmark.main(arguments_of(dogs_root)) == 0
        (outs[-1][0] / "config.json").write_text("{}")
    names = ["demo-20261122-171958", "demo-20261122-171958-2", "demo-20261122-171958-3"]
    assert outs == [(Path("runs") / name, f"runs/{name}") for name in names]


@pytest.mark.fault("Command line", "a ~ in any path flag", "the home folder")
def test_a_tilde_is_the_home_in_every_path(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    for flag, arguments in {
        "data": ["benchmark", "--device=cpu", "--data=~/there"],
        "resume": ["benchmark", "--resume=~/there"],
        "run": ["predict", "a.jpg", "--run=~/there"],
        "metadata": ["eda", "--metadata=~/there"],
    }.items():
        _, errors = ended(cli.main, arguments, capsys)
        assert f"{tmp_path}/there" in errors, flag
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    named = parse_config(parser, ["--out=~/there", "--store=~/there", "--weights=~/there"])
    assert (named.out, named.store, named.weights) == (f"{tmp_path}/there",) * 3
    (tmp_path / "there").write_text("")
    for arguments in (["predict", "a.jpg", "--run=r", "--heatmap=~/there"], ["export", "--run=r", "--out=~/there"]):
        assert f"{tmp_path}/there is a file" in ended(cli.main, arguments, capsys)[1]


@pytest.mark.fault(
    "Signals and processes",
    "SIGTERM to a worker process",
    "the worker ends, and the command does not take it for its own end",
)
def test_sigterm_in_a_forked_worker_is_not_an_interruption():
    def work():
        if (worker := os.fork()) == 0:
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == -signal.SIGTERM
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as stop, ending_in_a_line("it"):
        work()
    assert stop.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.fault("Command line", "`--out` is a link to nothing", "said before the work")
def test_a_link_to_nothing_is_said_before_the_work(tmp_path, capsys):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "gone")
    code, errors = ended(cli.main, ["metadata", "--data", "/nowhere", "--out", link], capsys)
    assert code == 2
    assert errors == f"dogs-accel metadata: error: out: {link} is a link to nothing, expected a folder\n"


def shell(command, **more):
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, **more)


@pytest.mark.fault(
    "Machine and environment", "PYTHONOPTIMIZE=2, which drops docstrings", "the commands say what they do"
)
@pytest.mark.parametrize("module", ["dogs_accel", "dogs_accel.benchmark"])
def test_without_docstrings_help_is_the_same(module):
    plain, stripped = (
        shell(f"{flags} {shlex.quote(sys.executable)} -m {module} --help") for flags in ("", "PYTHONOPTIMIZE=2")
    )
    assert (stripped.returncode, stripped.stdout, stripped.stderr) == (0, plain.stdout, "")
    assert len(plain.stdout.splitlines()) > 10


CLOSED = """
import os, sys
from dogs_accel.ending import ending_in_a_line
from dogs_accel.runtime.start import begin_command
begin_command()
with ending_in_a_line("it"):
    from pipelines.progress import passing_bar
    with passing_bar(3, "bar") as bar:
        bar.update(3)
    print("said"), print("warned", file=sys.stderr)
    opened = os.open("work", os.O_CREAT | os.O_WRONLY)
    os.write(2, b"a library's words")
    os.write(opened, b"done")
"""


@pytest.mark.fault(
    "Machine and environment", "standard input, output or error closed, as by some schedulers",
    "the work is done, and no file gets what is printed",
)  # fmt: skip
@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_error(tmp_path, closed):
    done = shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(CLOSED)} {closed}", cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "work").read_bytes() == b"done"
    assert done.stdout == ("" if ">&-" in closed.split() else "said\n")


@pytest.mark.fault("Machine and environment", "the current folder has been removed", "one line, before the work")
def test_a_current_folder_that_is_gone_is_one_line(tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(gone)
        gone.rmdir()
        for main, prog in ((cli.main, "dogs-accel"), (benchmark.main, "python -m dogs_accel.benchmark")):
            code, errors = ended(main, ["report", "x"], capsys)
            assert code == 2
            assert errors == f"{prog}: error: the current folder is gone, expected one that is there; cd to another\n"


def test_a_lack_of_memory_for_the_error_itself_is_one_line(tmp_path, monkeypatch, capsys):
    def no_memory(name, *_):
        if "out_of_memory" in name:
            raise MemoryError
        return imported(name, *_)

    imported = builtins.__import__

    def run(_):
        with ending_in_a_line("it"):
            raise MemoryError("of the work")

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", no_memory)
        code, errors = ended(run, [], capsys)
    assert (code, errors) == (2, "it: error: out of memory (of the work)\n")


@pytest.mark.fault("Signals and processes", "Ctrl-C where Python drops it, such as around a fork", "it comes again")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_that_python_drops_comes_again(number, code, monkeypatch):
    """Also where the main thread is slow to leave the hook that is told of it, as on a busy machine."""
    monkeypatch.setattr(ending, "_AGAIN_AFTER_S", 0)

    class Freed:
        def __del__(self):
            signal.raise_signal(number)

    def work():
        freed = Freed()
        del freed
        time.sleep(20)

    start = time.monotonic()
    with pytest.raises(SystemExit) as stop, ending_in_a_line("it"):
        work()
    assert stop.value.code == code
    assert time.monotonic() - start < 20
