import functools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dogs_accel.cli import main
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.explain.run import EXPLAINED_FILE, EXPLANATIONS_FOLDER, picture_name
from dogs_accel.report import page as report_page
from dogs_accel.report.explorer import page as explorer_page
from dogs_accel.report.explorer.answers import answers_of, explored_images
from dogs_accel.report.explorer.page import write_explorer
from dogs_accel.report.page import write_comparison_report, write_report
from dogs_accel.report.summary import run_views
from dogs_accel.results.folder import RunsFolder, read_runs_folder
from dogs_accel.results.run import Run
from dogs_accel.runtime.files import read_json
from dogs_accel.steps import Steps

LINK = '<a href="explorer.html">The explorer</a>'


@pytest.fixture
def copy(full_folder, tmp_path):
    return Path(shutil.copytree(full_folder, tmp_path / "run"))


@pytest.fixture
def reports(monkeypatch):
    """Reports are not laid out meanwhile: the explorers that they would link are given, in order."""
    given = []

    def lay_out(folders, claims, explorer=None):
        given.append(explorer and explorer.name)
        return ""

    monkeypatch.setattr(report_page, "render_report", lay_out)
    return given


def data_of(path):
    return json.loads(re.search(r'id="answers">(.*?)</script>', path.read_text(), re.DOTALL)[1])


def explored(folder):
    """The explorer of a folder, without the report."""
    return write_explorer([read_runs_folder(folder)], folder / "explorer.html", "title", "report.html")[0]


def with_runs(folder, num):
    """The folder as if it had so many runs, each with the files of one of its own."""
    runs = [folder.runs[at % len(folder.runs)] for at in range(num)]
    return RunsFolder(folder.folder, [Run(run.folder, run.record) for run in runs])


def test_the_benchmark_writes_it_beside_its_report(tiny_results):
    data = data_of(tiny_results / "explorer.html")
    assert LINK in (tiny_results / "report.html").read_text()
    files = read_json(tiny_results / "MANIFEST.json")["files"]
    assert files["explorer.html"]["bytes"] == (tiny_results / "explorer.html").stat().st_size
    assert len(data["ids"]) == 24
    assert all(data["sheets"][0]["sizes"])
    assert data["pictures"][0].startswith("data:image/webp;base64,")
    run = read_runs_folder(tiny_results).runs[0]
    shown = sorted({path.stem for path in (run.folder / EXPLANATIONS_FOLDER).iterdir()})
    assert sorted(data["ids"][int(place)] for place in data["runs"][0]["maps"]["of"]) == shown
    assert data["runs"][0]["maps"]["methods"] == ["Grad-CAM"]
    assert "http" not in re.sub(r'id="answers">.*?</script>', "", (tiny_results / "explorer.html").read_text())


def test_names_are_escaped(copy):
    html = explored(copy).read_text()
    assert "<script>alert" not in html
    assert data_of(copy / "explorer.html")["classes"][2] == "<script>alert(1)</script>"
    page = explorer_page.write_explorer(
        [read_runs_folder(copy)], copy / 'x"><script>.html', "</title><script>alert(1)", 'r"><script>alert(2).html'
    )[0]
    assert "alert(1)</h1>" in page.read_text()
    assert not re.findall(r"<script>alert|<title>Explorer: </title>", page.read_text())


@pytest.mark.parametrize("num", [1, 12])
def test_one_run_or_twelve(copy, num):
    write_explorer([with_runs(read_runs_folder(copy), num)], copy / "explorer.html", "title", "report.html")
    runs = data_of(copy / "explorer.html")["runs"]
    assert len(runs) == num
    for at, run in enumerate(runs):
        expected = read_runs_folder(copy).runs[at % 4].metrics["num_correct"]
        assert sum(rank == 1 for rank in run["rank"]) == expected


def test_heat_maps_are_those_of_the_run(copy):
    data = data_of(explored(copy))
    for at, run in enumerate(read_runs_folder(copy).runs):
        drawn = run.table(EXPLAINED_FILE)["id"].tolist()
        assert sorted(data["ids"][int(place)] for place in data["runs"][at]["maps"]["of"]) == sorted(drawn)
    (copy / "vit/vit_b16_full/explanations.csv").unlink()
    (copy / "cnn/resnet50_full" / EXPLANATIONS_FOLDER / picture_name(drawn[0])).unlink(missing_ok=True)
    (copy / "vit/vit_b16_full/explanations.json").write_text('{"method": null, "reason": "it has no feature map"}')
    maps = {run["label"]: run["maps"] for run in data_of(explored(copy))["runs"]}
    assert maps["ViT-B/16, full"] == {"reason": "it has no feature map", "methods": [], "of": {}}


def test_many_pictures_lie_beside_the_page(copy, dogs_root, reports, monkeypatch):
    photos = sorted(dogs_root.rglob("*.jpg"))
    table = (copy / "metadata_with_quality.csv").read_text()
    for number in range(3):
        table = table.replace(f"/none/Images/n000-Chihuahua/n000_test{number}.jpg", str(photos[number]))
    (copy / "metadata_with_quality.csv").write_text(table)
    folder = copy / "explorer_pictures"
    folder.mkdir()
    (folder / "of the user.txt").write_text("kept")
    with monkeypatch.context() as patch:
        patch.setattr(explorer_page, "LARGEST_PAGE_BYTES", 10_000)
        write_report(read_runs_folder(copy))
    data = data_of(copy / "explorer.html")
    assert data["sheets"][0]["sizes"][:6] != [0] * 6
    assert data["sheets"][0]["sizes"][6:] == [0] * 66
    assert sorted(data["pictures"]) == sorted(f"explorer_pictures/{path.name}" for path in folder.glob("*.webp"))
    assert data["pictures"][data["sheets"][0]["picture"]] == "explorer_pictures/sheet_0000.webp"
    listed = [name for name in read_json(copy / "MANIFEST.json")["files"] if name.startswith("explorer_pictures/")]
    assert sorted(listed) == sorted(data["pictures"])
    assert not [name for name in read_runs_folder(copy).checksums if name.startswith("explorer")]  # it is made of these
    write_report(read_runs_folder(copy))
    assert [path.name for path in folder.iterdir()] == ["of the user.txt"]
    assert not [name for name in read_json(copy / "MANIFEST.json")["files"] if name.startswith("explorer_pictures/")]


def test_120_classes_and_four_runs_fit_into_a_page_with_pictures_beside_it(full_folder, tmp_path, monkeypatch):
    """As many as Stanford Dogs: the page has what is not pictures, which are some 13 MB."""
    num, num_classes = 8580, 120
    random = np.random.default_rng(0)
    labels = np.arange(num) % num_classes
    ids = np.array([f"n02085620_{number:05}" for number in range(num)])
    logits = random.normal(size=(num, num_classes)).astype(np.float32)
    logits[np.arange(num), labels] += 4
    folder = read_runs_folder(full_folder)
    metadata = folder.table("metadata_with_quality.csv").sample(num, replace=True, random_state=0)
    metadata = metadata.assign(
        image_id=ids, image_path=[f"/data/Images/n02085620-Chihuahua/{image_id}.jpg" for image_id in ids]
    )
    known = {"metadata_with_quality.csv": metadata}
    answers = {"test_logits.npz": Predictions(logits, labels, ids)}
    runs = [Run(run.folder, run.record, answers) for run in folder.runs]
    folder = RunsFolder(folder.folder, runs, (), known)
    folder.class_names = [f"a class with a name {label:03}" for label in range(num_classes)]
    made = functools.cache(lambda: answers_of(answers["test_logits.npz"], explored_images(run_views([folder])[:1])))
    monkeypatch.setattr(explorer_page, "answers_of", lambda *_: made())  # all runs answer alike, which is quicker
    written = write_explorer([folder], tmp_path / "explorer.html", "title", "report.html")
    assert written == [tmp_path / "explorer.html"]
    assert 1_000_000 < written[0].stat().st_size < 4_000_000


@pytest.mark.parametrize("ends", [ValueError("no luck"), MemoryError()], ids=["a failure", "no memory"])
@pytest.mark.fault(
    "Scores and figures",
    "an explorer that cannot be made",
    "the report is written without a link to it, and the command names it",
)
def test_a_failing_explorer_never_costs_the_report(copy, monkeypatch, reports, ends):
    write_report(read_runs_folder(copy))
    (copy / "report.html").unlink()

    def fail(*_):
        raise ends

    monkeypatch.setattr(report_page, "write_explorer", fail)
    steps = Steps(copy, "report")
    if isinstance(ends, MemoryError):
        with pytest.raises(MemoryError):
            write_report(read_runs_folder(copy), steps.step)
    else:
        write_report(read_runs_folder(copy), steps.step)
        assert steps.failed == {"explorer.html": "ValueError: no luck"}
    assert (copy / "report.html").exists()
    assert reports == ["explorer.html", None]
    assert not (copy / "explorer.html").exists()
    files = read_json(copy / "MANIFEST.json")["files"]
    assert "report.html" in files
    assert "explorer.html" not in files


def test_the_command_says_what_it_did_not_make(copy, monkeypatch, reports, capsys):
    monkeypatch.setattr(report_page, "write_explorer", lambda *_: 1 / 0)
    assert main(["report", str(copy)]) == 0
    said = capsys.readouterr().out
    assert "not made: explorer.html (ZeroDivisionError: division by zero)" in said
    assert said.rstrip().endswith(str(copy / "report.html"))


@pytest.mark.parametrize("limit", [8_000_000, 10_000], ids=["inside", "beside"])
@pytest.mark.fault(
    "Scores and figures",
    "a report made again where the images are gone",
    "the explorer that has their pictures stays, and a line counts what a new one would lack",
)
def test_an_explorer_keeps_pictures_whose_files_are_gone(
    copy, dogs_root, tmp_path, reports, monkeypatch, capsys, limit
):
    """Three of the 40 test images have files, of which one and then all go."""
    monkeypatch.setattr(explorer_page, "LARGEST_PAGE_BYTES", limit)
    photos = [Path(shutil.copy(path, tmp_path)) for path in sorted(dogs_root.rglob("*.jpg"))[:3]]
    table = (copy / "metadata_with_quality.csv").read_text()
    for number, photo in enumerate(photos):
        table = table.replace(f"/none/Images/n000-Chihuahua/n000_test{number}.jpg", str(photo))
    (copy / "metadata_with_quality.csv").write_text(table)
    page = copy / "explorer.html"

    def remake():
        write_report(read_runs_folder(copy))
        listed = {name for name in read_json(copy / "MANIFEST.json")["files"] if name.startswith("explorer")}
        beside = {f"explorer_pictures/{path.name}" for path in copy.glob("explorer_pictures/*")}
        assert listed == {"explorer.html"} | beside
        return capsys.readouterr().out

    assert remake() == (
        "  explorer.html: 37 of 40 pictures are missing, since their files are gone or cannot be read\n"
    )
    whole = page.read_bytes()
    photos[0].unlink()
    assert remake() == (
        "  explorer.html: stays as it was, with 37 pictures missing; made again it would lack 38 of 40, whose files "
        "are gone or cannot be read\n"
    )
    assert page.read_bytes() == whole
    assert bool(list(copy.glob("explorer_pictures/sheet_*"))) == (limit == 10_000)
    if limit > 10_000:  # a page that somebody edited is none of ours
        page.write_text("of the user")
        assert "38 of 40 pictures are missing" in remake()
        return
    # Other answers are shown, whatever it costs; pictures beside the page that got lost are none that it has.
    logits = copy / "cnn/resnet50_full/test_logits.npz"
    saved = Predictions.load(logits)
    Predictions(-saved.logits, saved.labels, saved.ids).save(logits)
    assert "38 of 40 pictures are missing" in remake()
    for path in copy.glob("explorer_pictures/*"):
        path.unlink()
    photos[1].unlink()
    assert "39 of 40 pictures are missing" in remake()


def test_folders_of_the_same_test_images_share_an_explorer(copy, full_folder, tmp_path, reports):
    other = Path(shutil.copytree(full_folder, tmp_path / "another"))
    folders = [read_runs_folder(each) for each in (copy, other)]
    write_comparison_report(folders, tmp_path / "both.html")
    labels = [run["label"] for run in data_of(tmp_path / "both_explorer.html")["runs"]]
    assert len(set(labels)) == 8
    assert {"run / ResNet-50, full", "another / ResNet-50, full"} <= set(labels)
    metadata = pd.read_csv(other / "metadata_with_quality.csv", keep_default_na=False)
    metadata.assign(width=metadata["width"] + 1).to_csv(other / "metadata_with_quality.csv", index=False)
    write_comparison_report([folders[0], read_runs_folder(other)], tmp_path / "both.html")
    assert reports == ["both_explorer.html", None]
    assert not (tmp_path / "both_explorer.html").exists()


def test_without_logits_there_is_none(copy, reports):
    for path in copy.glob("*/*/test_logits.npz"):
        path.unlink()
    folder = read_runs_folder(copy)
    with pytest.raises(ValueError, match="explorer: no run has the logits of its test images"):
        write_explorer([folder], copy / "explorer.html", "title", "report.html")
    write_report(folder)
    assert reports == [None]
