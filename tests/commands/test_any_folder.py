"""A folder of class folders with everything untidy in it, through every command."""

import json
import re

import pandas as pd
import pytest
import torch

from dogs_accel import benchmark, cli
from dogs_accel.datasets import open_dataset
from dogs_accel.eda.files import read_metadata
from dogs_accel.throughput import measure
from dogs_accel.throughput.cold_start import ColdStart
from tests.support.blank_figures import blank_figures
from tests.support.random_models import build
from tests.support.untidy_folder import CLASSES, write_untidy_folder

SAID = (
    "layout   class folders, no parts\n"
    "left out 1 class folder without a photo, 3 files of another kind, 9 hidden files, 1 photo in no class folder\n"
    "splits   test (20 %) and then validation (15 %) carved out of all, seed 42, in each class alike\n"
)
DOGS = ("breed", "dog", "Stanford")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_untidy_folder(tmp_path_factory.mktemp("data") / "things", per_class=12)


@pytest.fixture(scope="module")
def results(folder, tmp_path_factory):
    """A benchmark of two models on it, with what the command said."""
    out = tmp_path_factory.mktemp("results") / "run"
    arguments = [
        "--data", str(folder), "--models", "resnet18,timm/vit_tiny_patch16_224", "--weights", "none", "--strategies",
        "head", "--epochs", "1", "--image-size", "32", "--batch-size", "16", "--device", "cpu", "--wandb", "disabled",
        "--out", str(out),
    ]  # fmt: skip
    with blank_figures(find_fonts=True):  # that have the letters of the names
        assert benchmark.main(arguments) == 0
    return out


def said_by(capsys, *arguments):
    assert cli.main([*map(str, arguments)]) == 0
    return capsys.readouterr().out


def without_paths(text, *paths):
    for path in paths:
        text = text.replace(str(path), "")
    return text.replace("dogs_accel", "").replace("dogs-accel", "")


def test_the_results_call_classes_by_their_names_and_nothing_a_dog(results, folder):
    names = sorted(CLASSES)
    for path in results.rglob("*"):
        assert not any(word.lower() in path.name.lower() for word in DOGS), path
        if path.suffix in (".csv", ".json", ".html") and "wandb" not in path.parts:
            text = without_paths(path.read_text(encoding="utf-8"), folder, results)
            text = re.sub(r"data:image/[^\"]*", "", text)
            assert not any(word in text for word in DOGS), path
    reports = list(results.glob("*/*/classification_report.csv"))
    assert len(reports) == 2
    for path in reports:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        assert table.iloc[:5, 0].tolist() == names
    metadata = read_metadata(results)
    assert sorted(set(metadata.quality["class_name"])) == names
    assert set(metadata.quality["official_split"]) == {"none"}
    assert len(set(metadata.quality["image_id"])) == 60 == len(metadata.splits)
    assert metadata.facts == open_dataset(folder).facts
    per_class = pd.read_csv(results / "per_class_comparison.csv", dtype={"class": str}, keep_default_na=False)
    assert per_class["class"].tolist() == names
    assert not (results / "claims.json").exists()
    report = (results / "report.html").read_text(encoding="utf-8")
    assert all(f">{name}<" in report for name in names)
    assert "on things" in report


def test_the_report_is_made_again_byte_for_byte(results, capsys):
    written = (results / "report.html").read_bytes()
    said_by(capsys, "report", results)
    assert (results / "report.html").read_bytes() == written


def test_predict_answers_with_the_names(results, folder, tmp_path, capsys):
    photos = open_dataset(folder).paths[:3]
    content = json.loads(said_by(capsys, "predict", *photos, "--run", results, "--json", "--heatmap", tmp_path))
    assert [image["path"] for image in content["images"]] == photos
    for image in content["images"]:
        assert {each["class"] for each in image["predictions"]} == set(CLASSES)
    assert len(list(tmp_path.iterdir())) == 3
    text = said_by(capsys, "predict", photos[0], "--run", results)
    assert not any(word in without_paths(text, folder) for word in DOGS)


def test_metadata_and_its_figures(folder, tmp_path, capsys):
    text = said_by(capsys, "metadata", "--data", folder, "--out", tmp_path)
    assert text.startswith(SAID)
    assert "decoded 60 of 60 files" in text
    with blank_figures(find_fonts=True):  # that have the letters of the names
        text = said_by(capsys, "eda", "--metadata", tmp_path)
    assert "5 classes, 12 images a class\n" in text
    assert not any(word in without_paths(text, folder, tmp_path) for word in DOGS)
    assert (tmp_path / "eda" / "class_quality_boxplots.png").is_file()


def test_prepare(folder, tmp_path, capsys):
    text = said_by(capsys, "prepare", "--data", folder, "--store", tmp_path, "--image-size", 32)
    assert text.startswith(SAID[: SAID.index("splits")])
    assert "bad files: 0 of 60" in text


def test_parity(folder, tmp_path, capsys):
    torch.save(build("resnet18", 7).state_dict(), tmp_path / "weights.pth")
    text = said_by(
        capsys, "parity", "--data", folder, "--loader", "cached", "--recipe", "eval", "--num-images", 10, "--model",
        "resnet18", "--weights", tmp_path / "weights.pth", "--out", tmp_path / "out",
    )  # fmt: skip
    assert text.startswith(SAID[: SAID.index("splits")])
    assert "10 of 60 images in" in text


@pytest.mark.fault(
    "Folders and names",
    "`throughput` on a folder with hidden files and other files between the photos",
    "the photos are found by the same rule as everywhere",
)
def test_throughput_takes_photos_of_every_ending(folder, tmp_path, capsys, monkeypatch):
    # What test_cold_start.py measures takes the start of a process for each loader.
    monkeypatch.setattr(measure, "measure_cold_start", lambda candidate, workload: ColdStart(0.25, 400.0, None))
    text = said_by(
        capsys, "throughput", "--data", folder, "--loader", "torch", "--model", "none", "--image-size", 32,
        "--num-images", 60, "--rounds", 1, "--batch-size", 8, "--num-threads", 1, "--out", tmp_path,
    )  # fmt: skip
    assert "60 images of" in text
