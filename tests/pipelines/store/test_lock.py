"""Processes that build one store: one builds, the others wait, and a killed one costs what it had begun."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import EVAL
from tests.support.small_stores import assert_same_store, build, journalled

BUILDER = """
import logging, sys, time
from pathlib import Path
from dogs_accel import ops
from pipelines import EVAL
from pipelines.decoding import files
from pipelines.store import writing
from pipelines.store.build import build_store
from pipelines.store.reading import open_store

logging.basicConfig(level=logging.WARNING, format="%(message)s")
folder, delay_s, paths = sys.argv[1], float(sys.argv[2]), sorted(Path(sys.argv[3]).rglob("*.jpg"))
writing._CHUNK = 4
files.decode_files.__kwdefaults__["batch_size"] = 4
squash, rows = ops.squash, []

def slow_squash(images, *args, **settings):
    time.sleep(delay_s)
    rows.extend(images)
    return squash(images, *args, **settings)

ops.squash = slow_squash
print("ready", flush=True)
sys.stdin.readline()
build_store(paths, EVAL.at(16), folder, num_threads=1, progress=False)
print(len(rows), int(open_store(folder, paths, EVAL.at(16)).images.sum()))
"""


@pytest.fixture
def start_builders(tmp_path):
    """Start processes that each build one store, with its delays in s a batch, when they are told to."""
    started = []

    def start(folder, *delays_s):
        for delay_s in delays_s:
            arguments = [folder, delay_s, tmp_path / "set"]
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", BUILDER, *map(str, arguments)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                    cwd=Path(__file__).parents[3],
                )
            )  # fmt: skip
        for process in started:
            assert process.stdout.readline() == "ready\n"
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


def tell(process):
    process.stdin.write("\n")
    process.stdin.flush()


def wait_for_rows(folder, num, process):
    end = time.monotonic() + 60
    while not (folder / "journal.jsonl").exists() or len(journalled(folder)) < num:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.fault(
    "Signals and processes",
    "a store's build that is killed again and again",
    "goes on where it was; the same bytes in the end",
)
def test_killed_builds_end_in_the_same_bytes(photos, tmp_path, start_builders, decoded):
    folder, recipe = tmp_path / "killed", EVAL.at(16)
    num_done = 0
    for process in start_builders(folder, 0.1, 0.1):
        tell(process)
        wait_for_rows(folder, num_done + 4, process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (folder / "index.json").exists()
        assert len(set(journalled(folder))) == len(journalled(folder)) >= num_done + 4
        num_done = len(journalled(folder))
    assert num_done < 30
    build(photos, recipe, folder)
    assert decoded == list(map(str, photos[num_done:]))
    assert_same_store(folder, build(photos, recipe, tmp_path / "whole"))


@pytest.mark.fault(
    "Signals and processes", "several processes that want one store", "one builds it, and the others wait for it"
)
def test_one_process_builds_and_the_others_wait(photos, tmp_path, start_builders):
    folder = tmp_path / "shared"
    first, *others = start_builders(folder, 0.1, 0, 0)
    tell(first)
    wait_for_rows(folder, 1, first)
    for process in others:
        tell(process)
    (out, err), *waited = [process.communicate(timeout=60) for process in (first, *others)]
    num_built, total = out.split()
    assert int(num_built) == 30
    assert err == ""
    for other_out, other_err in waited:
        assert other_out.split() == ["0", total]
        assert other_err.startswith(f"store {folder}: waiting for process {first.pid} on ")
        assert other_err.count("\n") == 1


def test_a_process_that_waited_for_a_killed_one_goes_on(photos, tmp_path, start_builders):
    folder = tmp_path / "shared"
    first, second = start_builders(folder, 0.1, 0)
    tell(first)
    wait_for_rows(folder, 4, first)
    tell(second)
    assert "waiting for process" in second.stderr.readline()
    first.kill()
    first.communicate()
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    num_built = int(out.split()[0])
    assert 0 < num_built <= 26
    assert_same_store(folder, build(photos, EVAL.at(16), tmp_path / "whole"))
