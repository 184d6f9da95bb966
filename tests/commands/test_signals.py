"""Commands that are stopped or killed at any moment: an exit code, one line, nothing torn, nobody left behind."""

import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

import dogs_accel
from dogs_accel import benchmark, cli
from dogs_accel.datasets import open_dataset
from tests.commands.test_disk_faults import TEMPORARY, assert_whole, files
from tests.support.blank_figures import blank_figures

SEED, MOMENTS, MOST_SECONDS = 20261130, 4, 6
CODES = {
    signal.SIGINT: (130,),
    signal.SIGTERM: (143, -signal.SIGTERM),  # the second one before a command has begun, which is the same to a shell
    signal.SIGKILL: (-signal.SIGKILL,),
}


def run(arguments, said):
    """The body of a process: a command in a session of its own, as a shell has it, that says what it says to a file."""
    os.setsid()
    for stream in (1, 2):
        os.dup2(os.open(f"{said}.{stream}", os.O_WRONLY | os.O_CREAT), stream)
    multiprocessing.set_start_method("fork", force=True)
    os.environ.pop("WANDB_SERVICE", None)
    signal.signal(signal.SIGINT, dogs_accel.end_early)  # as it is in a command from the first import on
    said.touch()
    main, given = (benchmark.main, arguments[1:]) if arguments[0] == "benchmark" else (cli.main, arguments)
    with blank_figures():
        raise SystemExit(main(given))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Start a command in a process that is forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.preloaded"])

    def started(arguments):
        said = tmp_path_factory.mktemp("said") / "said"
        process = context.Process(target=run, args=(arguments, said))
        process.start()
        while not said.exists():
            time.sleep(0.01)
        return process, said

    return started


def commands(dogs_root, tiny_results, folder):
    settings = ["--preset", "demo", "--models", "resnet18", "--strategies", "full", "--epochs", "2", "--image-size",
                "32", "--device", "cpu", "--wandb", "disabled", "--resume", "--out", str(folder / "run")]  # fmt: skip
    data = ["--data", str(dogs_root)]
    photos = open_dataset(dogs_root).paths[:40]
    out = ["--out", str(folder / "there")]
    return {
        "benchmark cached": ["benchmark", *data, *settings, "--store", str(folder / "store")],
        "benchmark torch": ["benchmark", *data, *settings, "--loader", "torch", "--batch-size", "4"],
        "metadata": ["metadata", *data, *out, "--store", str(folder / "store")],
        "prepare": ["prepare", *data, "--store", str(folder / "store")],
        "predict": ["predict", *photos, "--run", str(tiny_results), "--device", "cpu", "--heatmap", out[1]],
        "export": ["export", "--run", str(tiny_results), *out],
        "parity": ["parity", *data, *out, "--num-images", "8", "--recipe", "eval", "--model", "resnet18"],
        "throughput": ["throughput", *data, *out, "--num-images", "24", "--batch-size", "4", "--image-size", "32",
                       "--loader", "torch,cached", "--rounds", "1", "--model", "none"],
    }  # fmt: skip


@pytest.mark.soak
@pytest.mark.fault(
    "Signals and processes", "Ctrl-C, SIGTERM or SIGKILL at any moment of any command",
    "130 or 143 in one line, no process and no half of a file left; the same command goes on",
)  # fmt: skip
@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
@pytest.mark.parametrize(
    "name",
    ["benchmark cached", "benchmark torch", "metadata", "prepare", "predict", "export", "parity", "throughput"],
)
def test_a_command_that_is_stopped_at_any_moment(start, dogs_root, tiny_results, tmp_path, name, number):
    arguments = commands(dogs_root, tiny_results, tmp_path)[name]
    chance = random.Random(f"{SEED} {name} {number}")
    for moment in range(MOMENTS):
        process, said = start(arguments)
        process.join(timeout=chance.uniform(0.2, MOST_SECONDS * (1 + moment) / MOMENTS))
        there = psutil.Process(process.pid).children(recursive=True) if process.is_alive() else []
        if process.is_alive():
            os.killpg(process.pid, number) if number == signal.SIGINT else os.kill(process.pid, number)
        process.join(timeout=60)
        assert process.exitcode in (0, *CODES[number]), Path(f"{said}.2").read_text()
        errors = [line for line in Path(f"{said}.2").read_text().splitlines() if line.strip()]
        assert not any("Traceback" in line or "unexpected" in line for line in errors), errors
        if process.exitcode > 0:
            assert errors[-1].startswith("stopped")
        until = time.monotonic() + 20  # workers look for their parent every few seconds
        while any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in there):
            assert time.monotonic() < until, [each.cmdline() for each in there if each.is_running()]
            time.sleep(0.1)
        for each, path in files(tmp_path).items():
            if any(mark in each for mark in TEMPORARY):
                assert number == signal.SIGKILL, each
            elif path.suffix in (".json", ".csv", ".png", ".pt", ".npz", ".html"):
                assert_whole(path, tmp_path / "nothing")
    process, said = start(arguments)
    process.join()
    assert process.exitcode == 0, Path(f"{said}.2").read_text()
    assert not [each for each in files(tmp_path) if any(mark in each for mark in TEMPORARY)]
    shutil.rmtree(tmp_path)
