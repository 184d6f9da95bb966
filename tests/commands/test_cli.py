import subprocess
import sys
from pathlib import Path

import pytest

from dogs_accel.cli import main
from dogs_accel.runtime.files import only_process_in


@pytest.mark.fault("Machine and environment", "`download` without a network", "one line")
def test_download_without_a_network_is_one_line(tmp_path, monkeypatch, capsys):
    from dogs_accel.datasets import download as module

    monkeypatch.setattr(
        module.download, "__kwdefaults__", module.download.__kwdefaults__ | {"base_url": "http://127.0.0.1:9/"}
    )
    with pytest.raises(SystemExit) as stop:
        main(["download", "--data", str(tmp_path)])
    assert stop.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert line.startswith("dogs-accel download: error: ")
    assert "http://127.0.0.1:9/images.tar" in line


@pytest.mark.fault(
    "Signals and processes", "a second `metadata`, `parity`, `throughput` or `cost` into the folder of one that works",
    "refused by name before it measures or writes anything",
)  # fmt: skip
@pytest.mark.parametrize(
    "arguments",
    [
        ["metadata", "--data", "{data}", "--no-store"],
        ["parity", "--data", "{data}", "--loader", "dali", "--recipe", "eval", "--model", "cnn5"],
        ["throughput", "--data", "{data}", "--num-images", "8", "--batch-size", "4", "--model", "none"],
        ["cost", "--models", "cnn5", "--image-size", "32"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_two_commands_do_not_write_into_one_folder(dogs_root, tmp_path, capsys, arguments):
    with only_process_in(tmp_path), pytest.raises(SystemExit) as stop:
        main([*(each.format(data=dogs_root) for each in arguments), "--out", str(tmp_path)])
    assert stop.value.code == 2
    said = f"dogs-accel {arguments[0]}: error: out: another process works in {tmp_path}, expected none\n"
    assert capsys.readouterr().err == said
    assert list(tmp_path.iterdir()) == []


def test_both_spellings_of_the_command_exist():
    for command in ([sys.executable, "-m", "dogs_accel"], [Path(sys.executable).with_name("dogs-accel")]):
        done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
        assert "download" in done.stdout


@pytest.mark.fault("Machine and environment", "another package called pipelines", "one line that names its file")
def test_a_foreign_package_named_pipelines_is_named(tmp_path):
    (tmp_path / "pipelines.py").write_text("")
    found = (
        f"pipelines: found {tmp_path / 'pipelines.py'}, expected the package of that name that comes with dogs_accel"
    )
    for command, start in {
        ("-c", "import dogs_accel"): "ImportError: ",
        ("-m", "dogs_accel.benchmark"): "dogs-accel: error: ",
    }.items():
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(start + found)
        assert (len(done.stderr.splitlines()) == 1) is (command[0] == "-m")
