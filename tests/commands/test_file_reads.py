"""How often each file of a finished run is opened to be read, and each photo of the data to be decoded."""

import shutil
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from dogs_accel import benchmark, cli
from dogs_accel.datasets import open_dataset
from dogs_accel.eda.files import read_metadata
from dogs_accel.eda.galleries import NUM_AUGMENTED, brightness_extremes, random_class_samples
from dogs_accel.evaluation.galleries import GRID_COLUMNS, GRID_ROWS, balanced_sample
from dogs_accel.runtime import files
from dogs_accel.training.trainer import Trainer
from pipelines.store import reading
from tests.support.blank_figures import blank_figures
from tests.support.photo_reads import photo_reads

OPENED = Counter()
_WATCHED = []


def _watch(event, arguments):
    """Count what is opened for reading below the folder that is watched."""
    if event != "open" or not _WATCHED or not isinstance(arguments[0], str | bytes):
        return
    path, mode, _ = arguments
    name = path.decode() if isinstance(path, bytes) else path
    # Without a mode it is os.open, which is said a second time of a file that is opened by it.
    if mode is not None and "r" in mode and Path(name).is_file() and Path(name).is_relative_to(_WATCHED[-1]):
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


@pytest.fixture(scope="module")
def benchmark_reads(dogs_root, tmp_path_factory):
    """A whole benchmark with a new store.

    Gives its folder, how often it read each file there, and what it did to photos.
    """
    out, photo_log = tmp_path_factory.mktemp("reads") / "out", tmp_path_factory.mktemp("log") / "photos"
    store, opened, map_pixels = tmp_path_factory.mktemp("store"), [], reading._map_pixels
    arguments = ["--data", str(dogs_root), "--preset", "demo", "--models", "resnet18", "--image-size", "32"]
    arguments += ["--epochs", "1", "--device", "cpu", "--wandb", "disabled", "--out", str(out)]
    arguments += ["--store", str(store), "--loader", "cached"]
    with pytest.MonkeyPatch.context() as patch, blank_figures(), photo_reads(dogs_root / "Images", photo_log) as photos:
        train = Trainer.run

        def marked(*given, **settings):
            photos.begin("training")
            result = train(*given, **settings)
            photos.begin("after training")
            return result

        patch.setattr(Trainer, "run", marked)
        patch.setattr(reading, "_map_pixels", lambda folder, shape: opened.append(folder) or map_pixels(folder, shape))
        with reads_of(out, patch) as reads:
            assert benchmark.main(arguments) == 0
    assert opened == [store]  # once, for the loaders of all splits of all runs
    return out, finished_files(reads), photos


@pytest.mark.slow
def test_a_benchmark_reads_each_file_at_most_once(benchmark_reads):
    out, counts, _ = benchmark_reads
    assert {name: number for name, number in counts.items() if number > 1} == {}
    written = (out / "report.html").read_bytes()
    assert cli.main(["report", str(out)]) == 0
    assert (out / "report.html").read_bytes() == written  # from the files as from memory
    # What the benchmark has in memory is not read at all.
    assert not [name for name in counts if name.endswith(("metrics.json", "logits.npz", "_run_metadata.json"))]


@pytest.mark.slow
def test_a_benchmark_decodes_each_photo_once(benchmark_reads, dogs_root):
    out, _, photos = benchmark_reads
    data = read_metadata(out)
    once = Counter(open_dataset(dogs_root).paths)
    # Figures show a few photos, larger than a store has them.
    drawn = [
        random_class_samples(data.quality),  # one of each breed, twelve at most
        brightness_extremes(data.quality, darkest=True),  # eight
        brightness_extremes(data.quality, darkest=False),  # eight
        data.splits[data.splits["split"] == "train"].head(NUM_AUGMENTED),  # eight, as the model gets them
    ]
    before = once + Counter(path for rows in drawn for path in rows["image_path"])
    assert len(once) == 72
    assert photos.counts("decode") == before
    assert photos.counts("open") == before
    for what in ("decode", "open"):
        assert photos.counts(what, "training") == {}
    mistakes = pd.concat(pd.read_csv(path) for path in out.glob("cnn/*/misclassified.csv"))
    shown = Counter([*mistakes["image_path"], *mistakes["example_path"].dropna()])
    test = data.splits[data.splits["split"] == "test"]
    grid = balanced_sample(test["label"].to_numpy(), GRID_COLUMNS * GRID_ROWS, seed=42)  # of each run the same
    shown += Counter(len(list(out.glob("cnn/*"))) * list(test["image_path"].iloc[grid]))
    shown += Counter(test["image_path"])  # small, in the explorer
    # Explanations open more of them, to read from the header how large a photo is that boxes are annotated on.
    assert photos.counts("decode", "after training") == shown


def test_metadata_and_prepare_decode_each_photo_once_in_all(dogs_root, tmp_path, capsys):
    settings = ["--data", str(dogs_root), "--store", str(tmp_path / "store"), "--image-size", "32"]
    with photo_reads(dogs_root / "Images", tmp_path / "log") as photos:
        assert cli.main(["metadata", *settings, "--out", str(tmp_path / "out")]) == 0
        assert cli.main(["prepare", *settings]) == 0
    assert "complete and current" in capsys.readouterr().out
    once = Counter(open_dataset(dogs_root).paths)
    assert photos.counts("decode") == photos.counts("open") == once


@pytest.mark.slow
@pytest.mark.parametrize("heatmap", [True, False])
def test_predict_decodes_each_photo_once(tiny_results, dogs_root, tmp_path, heatmap):
    paths = open_dataset(dogs_root).paths[:7]
    more = ["--heatmap", str(tmp_path / "maps")] if heatmap else []
    with photo_reads(dogs_root / "Images", tmp_path / "log") as photos:
        assert cli.main(["predict", *paths, "--run", str(tiny_results), "--device", "cpu", *more]) == 0
    assert photos.counts("decode") == photos.counts("open") == Counter(paths)
