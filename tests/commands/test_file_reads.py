"""How often each file of a finished run is opened to be read."""

import shutil
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from dogs_accel import benchmark, cli
from dogs_accel.runtime import files

OPENED = Counter()
_WATCHED = []


def _watch(event, arguments):
    """Count what is opened for reading below the folder that is watched."""
    if event != "open" or not _WATCHED or not isinstance(arguments[0], str | bytes):
        return
    path, mode, _ = arguments
    name = path.decode() if isinstance(path, bytes) else path
    if (mode is None or "r" in mode) and Path(name).is_file() and Path(name).is_relative_to(_WATCHED[-1]):
        OPENED[str(Path(name).relative_to(_WATCHED[-1]))] += 1


sys.addaudithook(_watch)


@contextmanager
def reads_of(folder, monkeypatch):
    """Count the reads of a folder's files; the manifest's checksums, which read every file once, are left out."""
    sha256 = files.sha256

    def unwatched(*arguments):
        watched, _WATCHED[:] = _WATCHED[:], []
        try:
            return sha256(*arguments)
        finally:
            _WATCHED[:] = watched

    monkeypatch.setattr(files, "sha256", unwatched)
    monkeypatch.setattr("dogs_accel.report.page.sha256", unwatched)
    OPENED.clear()
    _WATCHED.append(folder)
    try:
        yield OPENED
    finally:
        _WATCHED.clear()


def finished_files(reads):
    """Files that other commands may read too: not partial ones, and not those of W&B and of training's own."""
    return {name: number for name, number in reads.items() if ".partial-" not in name and not name.startswith("wandb/")}


def test_a_report_reads_each_file_at_most_once(full_folder, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(full_folder, tmp_path / "run"))
    with reads_of(folder, monkeypatch) as reads:
        assert cli.main(["report", str(folder)]) == 0
    counts = finished_files(reads)
    assert set(counts.values()) == {1}, counts
    # Four runs: record, scores, logits, history, classes and what the page shows of each.
    assert len([name for name in counts if name.endswith("_run_metadata.json")]) == 4
    assert len([name for name in counts if name.endswith("test_logits.npz")]) == 4


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_benchmark_reads_each_file_at_most_once(dogs_root, tmp_path, monkeypatch):
    out = tmp_path / "out"
    arguments = ["--data", str(dogs_root), "--preset", "demo", "--models", "resnet18", "--image-size", "32"]
    arguments += ["--epochs", "1", "--device", "cpu", "--wandb", "disabled", "--out", str(out)]
    with reads_of(out, monkeypatch) as reads:
        assert benchmark.main(arguments) == 0
    counts = finished_files(reads)
    assert {name: number for name, number in counts.items() if number > 1} == {}
    written = (out / "report.html").read_bytes()
    assert cli.main(["report", str(out)]) == 0
    assert (out / "report.html").read_bytes() == written  # from the files as from memory
    # What the benchmark has in memory is not read at all.
    assert not [name for name in counts if name.endswith(("metrics.json", "logits.npz", "_run_metadata.json"))]
