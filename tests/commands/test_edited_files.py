"""Files of a finished benchmark that somebody edited, or that were copied by half: one line that names the file."""

import json
import re
import shutil

import pandas as pd
import pytest

from dogs_accel.cli import main
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.results.folder import naming_changed_files
from dogs_accel.results.layout import logits_file
from dogs_accel.runtime.files import MANIFEST, changed_files, read_json, write_json

RUN = "cnn/resnet50_full"


def without(*keys):
    """Take a key out of a JSON file."""

    def edit(path):
        content = inner = read_json(path)
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        write_json(path, content)

    return edit


def replaced(value, *keys):
    def edit(path):
        content = inner = read_json(path)
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        path.write_text(json.dumps(content))

    return edit


def text(content):
    return lambda path: path.write_text(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[100] ^= 0xFF
    path.write_bytes(content)


def without_column(name):
    return lambda path: pd.read_csv(path, keep_default_na=False).drop(columns=name).to_csv(path, index=False)


def without_header(path):
    path.write_text(path.read_text().partition("\n")[2])


def refused(capsys, *arguments):
    """The one line with which a command ends, of something that the user can put right."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert stop.value.code == 2, said
    return said


@pytest.fixture
def results(full_folder, tmp_path):
    return shutil.copytree(full_folder, tmp_path / "results")


@pytest.mark.fault(
    "Disk",
    "`dogs-accel report` where a file of a finished folder was edited, cut off or damaged",
    "one line that names the file, and no traceback",
)
@pytest.mark.parametrize(
    ("name", "edit", "reason"),
    [
        (f"{RUN}/metrics.json", cut, "cannot be read as JSON"),
        (f"{RUN}/metrics.json", text("[" * 100_000), "cannot be read as JSON"),
        (f"{RUN}/metrics.json", without("accuracy"), "changed since the benchmark wrote it, and of no use as it is"),
        (f"{RUN}/metrics.json", replaced("high", "temperature"), "changed since the benchmark wrote it"),
        (f"{RUN}/classification_report.csv", without_column("f1-score"), "changed since the benchmark wrote it"),
        (f"{RUN}/classification_report.csv", without_header, "changed since the benchmark wrote it|got 4 classes"),
        (f"{RUN}/top_confusions.csv", without_header, "changed since the benchmark wrote it"),
        (f"{RUN}/explanations.json", text("3"), "changed since the benchmark wrote it"),
        (f"{RUN}/test_logits.npz", flipped, "not the logits of a run"),
        (f"{RUN}/resnet50_full_run_metadata.json", replaced([1], "config", "num_classes"), "config.num_classes: got"),
        (f"{RUN}/resnet50_full_run_metadata.json", replaced("x", "num_images"), "num_images: got 'x', expected values"),
        (f"{RUN}/resnet50_full_run_metadata.json", text("{}"), "expected the record of a run"),
        ("dataset.json", replaced(3, "noun"), "noun: got 3, expected text"),
        ("dataset.json", replaced({"hidden file": "2"}, "left_out"), "left_out: got .*, expected counts"),
        ("config.json", text("[3]"), "changed since the benchmark wrote it"),
        (MANIFEST, cut, "cannot be read as JSON"),
        (MANIFEST, replaced(3, "files"), "expected a list of files"),
        (MANIFEST, replaced({"bytes": "x"}, "files", "config.json"), "config.json: got .* expected bytes and sha256"),
    ],
)
def test_a_report_names_the_file_that_was_edited(results, name, edit, reason, capsys):
    edit(results / name)
    said = refused(capsys, "report", results)
    assert said.startswith(f"dogs-accel report: error: {results / name}")
    assert re.search(reason, said)


def test_a_file_that_was_not_edited_is_blamed_for_nothing(results):
    with pytest.raises(KeyError, match="a bug"), naming_changed_files([results]):
        raise KeyError("a bug")
    (results / "config.json").write_text("{}")
    (results / "environment.json").unlink()
    assert changed_files(results) == ["config.json", "environment.json"]
    with (
        pytest.raises(ValueError, match=r"config\.json, .*environment\.json: changed .* \(KeyError: 'a bug'\)$"),
        naming_changed_files([results]),
    ):
        raise KeyError("a bug")
    with pytest.raises(ValueError, match=r"^config\.json: a reason$"), naming_changed_files([results]):
        raise ValueError("config.json: a reason")


@pytest.mark.parametrize("command", ["predict", "export"])
@pytest.mark.parametrize(
    ("name", "edit", "reason"),
    [
        ("metrics.json", replaced("x", "temperature"), "changed since the benchmark wrote it"),
        ("metrics.json", cut, "cannot be read as JSON"),
        ("resnet18_full_run_metadata.json", without("identity", "model"), "changed since the benchmark wrote it"),
        ("resnet18_full_run_metadata.json", replaced({}, "eval_recipe"), "changed since the benchmark wrote it"),
        ("classification_report.csv", cut, "classes, expected 4|changed since"),
        ("best.pt", cut, "cannot be read"),
    ],
)
def test_an_answer_names_the_file_that_was_edited(tiny_results, tmp_path, command, name, edit, reason, capsys):
    results = shutil.copytree(tiny_results, tmp_path / "results")
    path = results / "cnn/resnet18_full" / name
    edit(path)
    arguments = ["predict", path, "--device", "cpu"] if command == "predict" else ["export", "--out", tmp_path / "out"]
    said = refused(capsys, *arguments, "--run", results)
    assert str(path) in said
    assert re.search(reason, said)
    assert not (tmp_path / "out").exists()


def test_logits_of_another_shape_or_labels_out_of_range_are_refused(full_folder, tmp_path):
    path = tmp_path / "logits.npz"
    whole = Predictions.load(full_folder / RUN / logits_file("test"))
    for changed in (
        {"logits": whole.logits[:-1]},
        {"logits": whole.logits.astype(complex)},
        {"labels": whole.labels + 1},
        {"labels": whole.labels[:, None]},
        {"ids": whole.labels},
    ):
        Predictions(**{"logits": whole.logits, "labels": whole.labels, "ids": whole.ids, **changed}).save(path)
        with pytest.raises(ValueError, match=r"expected logits|labels: got"):
            Predictions.load(path)
