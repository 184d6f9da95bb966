"""Processes that build one store: one builds, the others wait, and a killed one costs what it had begun."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import EVAL
from tests.support.small_stores import EACH_KIND, assert_same_store, build, journalled

BUILDER = """
import json, logging, os, sys, time, traceback
from dataclasses import replace
from pathlib import Path
from pipelines import EVAL
from pipelines.decoding import files
from pipelines.store import filling, writing
from pipelines.store.build import build_store
from pipelines.store.reading import open_store

logging.basicConfig(level=logging.WARNING, format="%(message)s")
writing._CHUNK = 4
files.decode_files.__kwdefaults__["batch_size"] = 4

def build(root, folder, delay_s, resize):
    def slowly_resized(images, *args):
        time.sleep(delay_s)
        rows.extend(images)
        return resized(images, *args)

    resized, rows = filling._resized, []
    filling._resized = slowly_resized
    paths = sorted(Path(root).rglob("*.jpg"))
    recipe = replace(EVAL.at(16), resize=tuple(resize) if isinstance(resize, list) else resize)
    print("building", os.getpid(), flush=True)
    build_store(paths, recipe, folder, num_threads=1, progress=False)
    print(len(rows), int(open_store(folder, paths, recipe).content.sum()), flush=True)

print("ready", flush=True)
while line := sys.stdin.readline():
    if (child := os.fork()) == 0:  # what is killed need not import torch again
        try:
            build(*json.loads(line))
        except Exception:
            traceback.print_exc()
        os._exit(0)
    print("ended", os.waitpid(child, 0)[1], flush=True)
"""


class Builder:
    """A process that builds stores of the photos below a folder, one after the other."""

    def __init__(self, root):
        self.root = root
        self.process = subprocess.Popen(
            [sys.executable, "-c", BUILDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=Path(__file__).parents[3],
        )  # fmt: skip

    def tell(self, folder, delay_s, recipe):
        """Let it build a store with a delay in s a batch."""
        self.process.stdin.write(json.dumps([str(self.root), str(folder), delay_s, recipe.resize]) + "\n")
        self.process.stdin.flush()
        word, pid = self.process.stdout.readline().split()
        assert word == "building"
        self.pid = int(pid)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        assert self.process.stdout.readline() == f"ended {signal.SIGKILL:d}\n"

    def result(self):
        """Wait for it: (how many images it resized, sum of the pixels in the store), and what it said on stderr."""
        out, err = self.process.communicate(timeout=60)
        built, ended = out.splitlines()
        assert ended == "ended 0"
        return built.split(), err


@pytest.fixture
def start_builders(tmp_path):
    started = []

    def start(num):
        started.extend(Builder(tmp_path / "set") for _ in range(num))
        for builder in started:
            assert builder.process.stdout.readline() == "ready\n"
        return started

    yield start
    for builder in started:
        builder.process.kill()
        builder.process.communicate()


def wait_for_rows(folder, num, builder):
    end = time.monotonic() + 60
    while not (folder / "journal.jsonl").exists() or len(journalled(folder)) < num:
        os.kill(builder.pid, 0)  # it is there
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.fault(
    "Signals and processes",
    "a store's build that is killed again and again",
    "goes on where it was; the same bytes in the end",
)
def test_killed_builds_end_in_the_same_bytes(photos, tmp_path, start_builders, decoded):
    [builder] = start_builders(1)
    for kind, recipe in EACH_KIND.items():
        folder, num_done = tmp_path / kind, 0
        for _ in range(2):
            builder.tell(folder, 0.1, recipe)
            wait_for_rows(folder, num_done + 4, builder)
            builder.kill()
            assert not (folder / "index.json").exists()
            assert len(set(journalled(folder))) == len(journalled(folder)) >= num_done + 4
            num_done = len(journalled(folder))
        assert num_done < 30
        del decoded[:]
        build(photos, recipe, folder)
        assert decoded == list(map(str, photos[num_done:]))
        assert_same_store(folder, build(photos, recipe, tmp_path / f"{kind} whole"))


@pytest.mark.fault(
    "Signals and processes", "several processes that want one store", "one builds it, and the others wait for it"
)
def test_one_process_builds_and_the_others_wait(photos, tmp_path, start_builders):
    folder, recipe = tmp_path / "shared", EVAL.at(16)
    first, *others = start_builders(3)
    first.tell(folder, 0.1, recipe)
    wait_for_rows(folder, 1, first)
    for builder in others:
        builder.tell(folder, 0, recipe)
    ((num_built, total), err), *waited = [builder.result() for builder in (first, *others)]
    assert int(num_built) == 30
    assert err == ""
    for built, other_err in waited:
        assert built == ["0", total]
        assert other_err.startswith(f"store {folder}: waiting for process {first.pid} on ")
        assert other_err.count("\n") == 1


def test_a_process_that_waited_for_a_killed_one_goes_on(photos, tmp_path, start_builders):
    folder, recipe = tmp_path / "shared", EVAL.at(16)
    first, second = start_builders(2)
    first.tell(folder, 0.1, recipe)
    wait_for_rows(folder, 4, first)
    second.tell(folder, 0, recipe)
    assert "waiting for process" in second.process.stderr.readline()
    first.kill()
    (num_built, _), err = second.result()
    assert 0 < int(num_built) <= 26, err
    assert_same_store(folder, build(photos, recipe, tmp_path / "whole"))
