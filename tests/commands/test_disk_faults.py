"""Each write of each command fails: one line, nothing torn, nothing lost, and the same command ends well after it."""

import errno
import functools
import gzip
import http.server
import io
import json
import os
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dogs_accel import benchmark, cli
from dogs_accel.datasets.download import Archive, download
from dogs_accel.datasets.synthetic import write_synthetic
from dogs_accel.inference import export
from dogs_accel.runtime.files import _remove_abandoned, sha256
from dogs_accel.throughput import measure
from dogs_accel.throughput.cold_start import ColdStart
from tests.support.failing_disk import BROKEN, FORBIDDEN, FULL, READ_ONLY, FailingDisk
from tests.support.same_results import assert_same_results

FAULTS = {
    "full": {"number": errno.ENOSPC, "kinds": FULL},
    "full once": {"number": errno.ENOSPC, "kinds": FULL, "lasting": False},
    "read-only": {"number": errno.EROFS, "kinds": READ_ONLY},
    "forbidden": {"number": errno.EACCES, "kinds": FORBIDDEN, "lasting": False},
    "broken": {"number": errno.EIO, "kinds": BROKEN, "lasting": False},
}
TEMPORARY = (".partial-", ".index.json", "dogs-accel-store-", "dogs-accel-parity-")
NAMES = (
    "benchmark", "cost", "download", "eda", "export", "metadata", "parity", "predict", "prepare", "report",
    "throughput",
)  # fmt: skip
TEMPORARY_FILES = "tmp"
NO_RESULTS = (".lock", "error.log", "journal.jsonl")
"""Ends of names of what may be there or not."""
NOT_KEPT = ("run/explorer.html",)
"""What goes where it could not be made anew: an earlier one would not belong to the report."""


@dataclass(frozen=True)
class Command:
    """A command, in a folder where its faults are."""

    arguments: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]] | None = None
    """What goes on, where that is another command."""
    before: Callable[[Path], None] = lambda folder: None
    """Makes what is there before."""
    is_repeatable: bool = True
    """Whether two results have the same bytes."""
    code: int = 2
    """How it ends where a fault costs something: 1 where there are answers all the same."""


def same(one, two, is_repeatable):
    names = [files(folder, but=TEMPORARY_FILES) for folder in (one, two)]
    assert names[0].keys() == names[1].keys()
    for name, path in names[0].items():
        if is_repeatable:
            assert path.read_bytes() == names[1][name].read_bytes(), name


def files(folder, but=None):
    """The files below a folder that are results, by their names; those in another folder left out."""
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in found.items() if not name.endswith(NO_RESULTS) and name.split("/")[0] != but}


def assert_whole(path, undisturbed):
    """A file under a final name can be read to its end."""
    if path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".csv":
        assert path.read_text().endswith("\n")
        pd.read_csv(path)
        if undisturbed.exists():
            assert path.read_text().count("\n") == undisturbed.read_text().count("\n")
    elif path.suffix == ".png":
        with Image.open(path) as picture:
            picture.load()
    elif path.suffix == ".pt":
        torch.load(path, weights_only=True)
    elif path.suffix == ".npz":
        dict(np.load(path))
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>")
    elif path.suffix == ".gz":
        gzip.decompress(path.read_bytes())
    elif path.name == "pixels.npy":
        np.load(path)
    elif path.suffix in (".pt2", ".onnx", ".jpg", ".mat", ".tar"):
        assert path.read_bytes() == undisturbed.read_bytes()


def outcome(arguments):
    """Exit code, standard output and standard error of a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        main = cli.main
        if arguments[0] == "benchmark":
            main, arguments = benchmark.main, arguments[1:]
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()


def complaints(command, folder, undisturbed, fault, first):
    """What is wrong about a command of which one piece of work fails."""
    command.before(folder)
    were = files(folder)
    disk = FailingDisk((folder,), first=first, **fault)
    with disk.in_use():
        code, _, err = outcome(command.arguments(folder))
    if first >= len(disk.done):
        return
    kind, path = disk.done[first]
    here = f"{first}: {kind} {os.path.relpath(path, folder)}"
    lines = [line for line in err.splitlines() if line.strip()]
    errors = [line for line in lines if "error: " in line or "FAILED: " in line]
    said = lines[-1] if lines else ""
    if code not in (0, command.code) or "Traceback" in err or "unexpected" in err:
        yield f"{here}: ended with {code}: {err[-600:]}"
    elif code != 0 and (errors != [said] or str(folder) not in said or any(each in said for each in TEMPORARY)):
        yield f"{here}: said {err[-600:]}"
    left = [each for each in files(folder) if any(mark in each for mark in TEMPORARY)]
    if left and fault["kinds"] is not READ_ONLY:
        yield f"{here}: left behind {left}"
    for name, each in files(folder).items():
        if any(mark in name for mark in TEMPORARY):
            continue
        try:
            assert_whole(each, undisturbed / name)
        except Exception as error:
            yield f"{here}: {name} is torn: {type(error).__name__} {error}"
    for name in were:
        if name not in NOT_KEPT and not (folder / name).exists() and (undisturbed / name).exists():
            yield f"{here}: {name} is lost"
    # As another process would.
    _remove_abandoned.cache_clear()
    with FailingDisk((folder,)).in_use():
        code, _, err = outcome((command.again or command.arguments)(folder))
    if code != 0:
        yield f"{here}: the second time {code}: {err[-600:]}"
        return
    try:
        if (folder / "run" / "config.json").exists() and command.again is not None:
            assert_same_results(undisturbed / "run", folder / "run")
        else:
            same(undisturbed, folder, command.is_repeatable)
    except AssertionError as error:
        yield f"{here}: another result the second time: {str(error)[:300]}"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The smallest set: 3 classes, 6 training and 3 test pictures each."""
    root = tmp_path_factory.mktemp("photos") / "set"
    return write_synthetic(root, num_classes=3, train_per_class=6, test_per_class=3, size_px=(48, 64), num_workers=1)


@pytest.fixture(scope="module")
def archive_url(tmp_path_factory):
    """A server of one small archive, and the table that names it."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "Images" / "n1-a").mkdir(parents=True)
    for number in range(3):
        (folder / "Images" / "n1-a" / f"n1_{number}.jpg").write_bytes(bytes(range(256)) * 20)
    with tarfile.open(folder / "images.tar", "w") as tar:
        tar.add(folder / "Images", "Images")
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        path = folder / "images.tar"
        archive = Archive(file_name=path.name, size_bytes=path.stat().st_size, sha256=sha256(path), folder="Images")
        yield f"http://127.0.0.1:{server.server_port}/", {"images": archive}
        server.shutdown()
        thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def once(call):
    found = []

    def kept(*arguments, **named):
        if not found:
            found.append(call(*arguments, **named))
        return found[0]

    return kept


@pytest.fixture
def commands(photos, tiny_results, archive_url, monkeypatch):
    """Every command that writes, with the least that it can do."""
    settings = ["--preset", "demo", "--models", "resnet18", "--strategies", "full", "--epochs", "1", "--image-size",
                "32", "--device", "cpu", "--wandb", "disabled", "--loader", "cached"]  # fmt: skip
    url, table = archive_url
    monkeypatch.setitem(download.__kwdefaults__, "base_url", url)
    monkeypatch.setitem(download.__kwdefaults__, "table", table)
    monkeypatch.setattr(download, "__defaults__", (tuple(table),))
    # Following a model takes seconds, and writes nothing.
    monkeypatch.setattr(export, "_exported_program", once(export._exported_program))
    monkeypatch.setattr(torch.onnx, "export", once(torch.onnx.export))
    photo = str(next(photos.glob("Images/*/*.jpg")))
    data = ["--data", str(photos)]

    def measured(folder):
        shutil.copytree(tiny_results, folder / "run", ignore=shutil.ignore_patterns("*.pt"), dirs_exist_ok=True)

    def with_gaps(folder):
        measured(folder)
        (folder / "run" / "not_made.json").write_text('{"model_comparison.csv": "no table"}\n')
        (folder / "run" / "model_comparison.csv").unlink()
        manifest = json.loads((folder / "run" / "MANIFEST.json").read_text())
        del manifest["files"]["model_comparison.csv"]
        (folder / "run" / "MANIFEST.json").write_text(json.dumps(manifest))

    return {
        "benchmark": Command(
            lambda folder: ["benchmark", *data, *settings, "--store", f"{folder}/store", "--out", f"{folder}/run"],
            lambda folder: ["benchmark", *data, *settings, "--store", f"{folder}/store", "--resume", "--out",
                            f"{folder}/run"],
        ),
        "cost": Command(
            lambda folder: ["cost", "--models", "resnet18", "--image-size", "32", "--batch-size", "2", "--rounds", "1",
                            "--device", "cpu", "--out", f"{folder}/there"],
            is_repeatable=False,
        ),
        "download": Command(lambda folder: ["download", "--data", f"{folder}/there"]),
        "eda": Command(lambda folder: ["eda", "--metadata", f"{folder}/run"], before=measured),
        "export": Command(
            lambda folder: ["export", "--run", str(tiny_results), "--out", f"{folder}/there"], is_repeatable=False,
        ),
        "metadata": Command(
            lambda folder: ["metadata", *data, "--out", f"{folder}/there", "--store", f"{folder}/store",
                            "--image-size", "32"],
        ),
        "parity": Command(
            lambda folder: ["parity", *data, "--num-images", "4", "--recipe", "eval", "--loader", "cached", "--model",
                            "resnet18", "--device", "cpu", "--out", f"{folder}/there"],
            is_repeatable=False,
        ),
        "predict": Command(
            lambda folder: ["predict", photo, "--run", str(tiny_results), "--heatmap", f"{folder}/there", "--device",
                            "cpu"],
            code=1,
        ),
        "prepare": Command(lambda folder: ["prepare", *data, "--store", f"{folder}/store", "--image-size", "32"]),
        "report": Command(lambda folder: ["report", f"{folder}/run"], before=with_gaps),
        "throughput": Command(
            lambda folder: ["throughput", *data, "--num-images", "8", "--batch-size", "4", "--loader", "torch,cached",
                            "--model", "none", "--rounds", "1", "--image-size", "32", "--num-threads", "1", "--device",
                            "cpu", "--out", f"{folder}/there"],
            is_repeatable=False,
        ),
    }  # fmt: skip


def telling(done):
    """The places of pieces of work that differ: of many writes of one file the first, the last and one between."""
    starts = [at for at in range(len(done)) if at == 0 or done[at] != done[at - 1]]
    ends = [*(start - 1 for start in starts[1:]), len(done) - 1]
    return sorted({at for start, end in zip(starts, ends, strict=True) for at in (start, (start + end) // 2, end)})


@pytest.fixture
def sweep(commands, tmp_path, monkeypatch):
    """Let pieces of work of a command fail, one after the other: the names of a command and a fault, and which ones."""
    monkeypatch.setattr(measure, "measure_cold_start", lambda candidate, workload: ColdStart(0.25, 400.0, None))

    def there(part):
        folder = tmp_path / str(part)
        folder.mkdir()
        (folder / TEMPORARY_FILES).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder / TEMPORARY_FILES))
        return folder

    def swept(name, fault, chosen=telling):
        command, undisturbed = commands[name], there("undisturbed")
        command.before(undisturbed)
        disk = FailingDisk((undisturbed,), **FAULTS[fault])
        with disk.in_use():
            code, _, err = outcome(command.arguments(undisturbed))
        assert code == 0, err
        found = []
        places = chosen(disk.done)
        for first in places:
            folder = there(first)
            found += complaints(command, folder, undisturbed, FAULTS[fault], first)
            shutil.rmtree(folder)
        shutil.rmtree(undisturbed)
        print(f"{name}, {fault}: {len(places)} of {len(disk.done)} fail, {len(found)} complaints", *found, sep="\n")
        return found

    return swept


@pytest.mark.soak
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", NAMES)
def test_a_command_survives_each_fault(sweep, name, fault):
    assert sweep(name, fault) == []


@pytest.mark.fault(
    "Disk", "any write, rename or flush of a command fails: full, read-only, forbidden, broken",
    "one line that names what could not be written; nothing torn or lost, and the same command goes on",
)  # fmt: skip
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("name", "fault", "num"),
    [("download", "full", 9), ("download", "read-only", 9), ("prepare", "full", 8), ("prepare", "broken", 3),
     ("metadata", "read-only", 3)],
)  # fmt: skip
def test_a_command_survives_some_faults(sweep, name, fault, num):
    """What does not cost much of them; from the end on, where most is there to be lost."""
    assert sweep(name, fault, lambda done: range(len(done) - 1, -1, -max(1, len(done) // num))) == []
