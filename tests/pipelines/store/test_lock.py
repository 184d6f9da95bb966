"""Processes that build one store: one builds, the others wait, and a killed one costs what it had begun."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import EVAL
from tests.support.small_stores import EACH_KIND, assert_same_store, build, journalled

BUILDER = """
import json, logging, sys, time
from dataclasses import replace
from pathlib import Path
from pipelines import EVAL
from pipelines.decoding import files
from pipelines.store import filling, writing
from pipelines.store.build import build_store
from pipelines.store.reading import open_store

logging.basicConfig(level=logging.WARNING, format="%(message)s")
folder, delay_s, paths = sys.argv[1], float(sys.argv[2]), sorted(Path(sys.argv[3]).rglob("*.jpg"))
recipe = replace(EVAL.at(16), resize=tuple(resize) if isinstance(resize := json.loads(sys.argv[4]), list) else resize)
writing._CHUNK = 4
files.decode_files.__kwdefaults__["batch_size"] = 4
resized, rows = filling._resized, []

def slowly_resized(images, *args):
    time.sleep(delay_s)
    rows.extend(images)
    return resized(images, *args)

filling._resized = slowly_resized
print("ready", flush=True)
sys.stdin.readline()
build_store(paths, recipe, folder, num_threads=1, progress=False)
print(len(rows), int(open_store(folder, paths, recipe).content.sum()))
"""


@pytest.fixture
def start_builders(tmp_path):
    """Start processes that each build a store in a folder, with its delay in s a batch, when they are told to."""
    started = []

    def start(*builds):
        for folder, delay_s, recipe in builds:
            arguments = [folder, delay_s, tmp_path / "set", json.dumps(recipe.resize)]
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


def kill_after(process, folder, num):
    """Let a process build until so many rows are in the journal, and kill it."""
    tell(process)
    wait_for_rows(folder, num, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "index.json").exists()
    assert len(set(journalled(folder))) == len(journalled(folder)) >= num


def wait_for_rows(folder, num, process):
    end = time.monotonic() + 60
    while not (folder / "journal.jsonl").exists() or len(journalled(folder)) < num:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.fault(
    "Signals and processes", "kill -9 while a store of any kind is built", "the next build goes on, to the same bytes"
)
def test_killed_builds_end_in_the_same_bytes(photos, tmp_path, start_builders, decoded):
    stores = [(tmp_path / recipe.name, recipe) for recipe in EACH_KIND.values()]
    builders = [(*stores[0], 2), (*stores[1], 1), (*stores[2], 1)]
    killed = start_builders(*((folder, 0.1, recipe) for folder, recipe, times in builders for _ in range(times)))
    for folder, recipe, times in builders:
        num_done = 0
        for _ in range(times):
            kill_after(killed.pop(0), folder, num_done + 4)
            num_done = len(journalled(folder))
        assert num_done < 30
        del decoded[:]
        build(photos, recipe, folder)
        assert decoded == list(map(str, photos[num_done:]))
        assert_same_store(folder, build(photos, recipe, tmp_path / f"whole {recipe.name}"))


def test_one_process_builds_and_the_others_wait(photos, tmp_path, start_builders):
    folder = tmp_path / "shared"
    first, *others = start_builders(*((folder, delay_s, EVAL.at(16)) for delay_s in (0.1, 0, 0)))
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
    first, second = start_builders((folder, 0.1, EVAL.at(16)), (folder, 0, EVAL.at(16)))
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
