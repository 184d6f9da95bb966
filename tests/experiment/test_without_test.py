"""A run without test: an ordinary run whose test files stay closed, and a folder that says so."""

import json

import pytest

from dogs_accel import benchmark, cli
from dogs_accel.datasets import open_dataset
from dogs_accel.results.folder import read_record
from dogs_accel.results.layout import record_paths
from tests.support.blank_figures import blank_figures
from tests.support.photo_reads import photo_reads


def test_a_run_without_test_is_the_ordinary_one_with_its_test_files_closed(closed_root, tiny_results, tmp_path, capsys):
    out, data = tmp_path / "out", open_dataset(closed_root)
    test = {data.paths[i] for i in data.split("test")}
    settings = ["--config", str(tiny_results / "config.json"), "--data", str(closed_root), "--tta", "none", "--no-test"]
    with blank_figures(), photo_reads(closed_root, tmp_path / "log") as reads:
        benchmark.main([*settings, "--out", str(out)])
    assert len(reads.counts("decode")) == len(data) - len(test)
    assert not test & (reads.counts("decode").keys() | reads.counts("open").keys())
    said = capsys.readouterr().out
    assert "its files stay closed" in said
    assert "the test split was not read" in said
    [path], [ordinary] = record_paths(out), map(read_record, record_paths(tiny_results))
    record, metrics = read_record(path), json.loads((path.parent / "metrics.json").read_text())
    assert record.is_finished
    assert ordinary.test_was_read
    assert not record.test_was_read
    assert record.best_val_accuracy == metrics["val"]["accuracy"] == ordinary.best_val_accuracy
    assert record.summary["val/loss"] == ordinary.summary["val/loss"]
    assert record.identity["contents"] == {name: ordinary.identity["contents"][name] for name in ("train", "val")}
    assert set(record.num_images) == set(record.loaders) == {"train", "val"}
    assert set(metrics) == {"model", "test_was_read", "val"}
    assert json.loads((out / "config.json").read_text())["test"] is False
    with pytest.raises(SystemExit) as caught:
        cli.main(["report", str(out)])
    assert caught.value.code == 2
    assert "resnet18_full has not read the test split (--no-test), expected runs that have" in capsys.readouterr().err


def test_views_of_test_are_refused(capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--no-test", "--tta", "flip"])
    assert "tta: got flip with --no-test, expected none" in capsys.readouterr().err
