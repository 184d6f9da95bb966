import dataclasses
import itertools
import json
import re
import shutil
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from dogs_accel.cli import main
from dogs_accel.datasets.layouts.stanford_dogs import stanford_dogs_facts
from dogs_accel.explain.run import picture_name
from dogs_accel.report.charts import Bin, Line, line_chart, nice_ticks, reliability_chart
from dogs_accel.report.claims import judge_claims
from dogs_accel.report.formats import ABSENT, breakable, listed, seconds
from dogs_accel.report.limits import limits
from dogs_accel.report.marks import Marks, mark_best
from dogs_accel.report.page import render_report, write_comparison_report, write_report
from dogs_accel.report.recommend import recommend
from dogs_accel.report.stations import _classes, _curves, input_station
from dogs_accel.report.summary import (
    SHOWN_MEASURES,
    RunView,
    _unclear,
    compared_over_folders,
    pairs_between,
    run_views,
    summary_table,
)
from dogs_accel.results.folder import RunsFolder, folder_labels, read_runs_folder
from dogs_accel.results.layout import record_path
from dogs_accel.results.run import Run
from dogs_accel.runtime.timing import describe_seconds
from dogs_accel.training.mixing import mixed_scores_note
from dogs_accel.training.phases import Phase
from tests.support.finished_folders import (
    PLAIN,
    make_older,
    picture,
    with_older_names,
    without_costs,
    write_folder,
)

NAMES = ["Chihuahua", "NA", "<script>alert(1)</script>", 'quoted "terrier"', "Maltese & dog"]


@pytest.fixture(scope="module")
def full(full_folder, tmp_path_factory):
    """A folder that has everything; its runs' classes have names that must be escaped."""
    return Path(shutil.copytree(full_folder, tmp_path_factory.mktemp("copy") / "full"))


@pytest.fixture(scope="module")
def old(full_folder, tmp_path_factory):
    """A folder of a benchmark that ended before there was any analysis, with two of its runs."""
    folder = Path(shutil.copytree(full_folder, tmp_path_factory.mktemp("old") / "old"))
    for name in ("cnn/resnet50_staged", "vit/vit_b16_full"):
        shutil.rmtree(folder / name)
    return make_older(folder)


def page(*folders):
    """The report of folders."""
    read = [read_runs_folder(folder) for folder in folders]
    return render_report(read, [judge_claims(folder) for folder in read])


def measures(folder, **by_run):
    for path in folder.glob("*/*/metrics.json"):
        content = json.loads(path.read_text())
        content |= by_run.get(path.parent.name, {})
        path.write_text(json.dumps(content))


def test_every_station_stands_in_the_published_order(full):
    html = page(full)
    order = ['id="summary"', *(f'id="station-{name}"' for name in "xTzgy"), 'id="limits"', 'id="claims"']
    assert [html.count(each) for each in order] == [1] * len(order)
    positions = [html.index(each) for each in order]
    assert positions == sorted(positions)


@pytest.mark.fault("Disk", "a finished folder of an earlier version", "its report names what it lacks")
def test_what_an_older_folder_lacks_is_named(old):
    html = page(old)
    for name in ("pairwise_comparison.csv", "gradcam_gallery.png or attention_gallery.png", "calibration_bins.csv",
                 "misclassified_gallery.png", "confusion_clusters.csv", "quality_vs_error.csv"):  # fmt: skip
        assert f"<code>{name}</code> is not in this folder" in html, name


def luminance(colour):
    """WCAG 2.2's relative luminance of #rrggbb."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_stands_out_from_what_it_is_written_on(full):
    html = page(full)
    light, _, dark = re.findall(r"(?<=color-scheme: )(?:light|dark);\s*--bg.*?(?=})", html, re.DOTALL)
    pairs = [(text, ground) for text in ("ink", "soft", "faint") for ground in ("bg", "panel", "sunk", "accent-soft")]
    pairs += [(name, f"{name}-soft") for name in ("accent", "good", "bad", "warn")]
    for theme in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", theme))
        for text, ground in pairs:
            darker, lighter = sorted(luminance(colours[each]) for each in (text, ground))
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (text, ground)


def test_names_from_data_are_escaped(full):
    html = page(full)
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    data = re.search(r'id="confusion-data">(.*?)</script>', html, re.DOTALL)
    assert json.loads(data.group(1))["runs"][0]["classes"] == NAMES


def test_the_confusion_counts_are_those_of_the_logits(full):
    html = page(full)
    runs = json.loads(re.search(r'id="confusion-data">(.*?)</script>', html, re.DOTALL).group(1))["runs"]
    assert [run["label"] for run in runs][:2] == ["ResNet-50, full", "ResNet-50, staged"]
    for run, folder in zip(runs, read_runs_folder(full).runs, strict=True):
        assert sum(n for *_, n in run["cells"]) == folder.metrics["num_images"]
        assert sum(n for t, p, n in run["cells"] if t == p) == folder.metrics["num_correct"]


def test_recommendations_follow_the_numbers(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "copy"))
    numbers = {"resnet50_full": (0.80, 0.05), "resnet50_staged": (0.85, 0.04), "vit_b16_full": (0.90, 0.01),
               "vit_b16_staged": (0.95, 0.02)}  # fmt: skip
    measures(folder, **{name: {"accuracy": a, "ece": e} for name, (a, e) in numbers.items()})
    answers = [each.winner for each in recommend(read_runs_folder(folder).runs, None)]
    assert answers == ["ViT-B/16, staged", "ViT-B/16, full", "ResNet-50, staged"]
    numbers |= {"resnet50_full": (0.99, 0.001)}
    measures(folder, **{name: {"accuracy": a, "ece": e} for name, (a, e) in numbers.items()})
    answers = recommend(read_runs_folder(folder).runs, None)
    assert [each.winner for each in answers] == ["ResNet-50, full"] * 3
    assert answers[2].rule.endswith("the faster half, which trains within 227 s, the median of the 4 training times")
    assert answers[0].caveat.startswith("Not tested against ResNet-50, staged; ")


def test_the_time_budget_leaves_out_the_slower_half_also_where_all_take_about_as_long(full):
    seconds = {"resnet50_full": 23.0, "resnet50_staged": 21.0, "vit_b16_full": 22.0, "vit_b16_staged": 20.0}
    accuracy = {"resnet50_full": 0.9, "resnet50_staged": 0.6, "vit_b16_full": 0.8, "vit_b16_staged": 0.7}
    runs = [
        Run(
            run.folder,
            dataclasses.replace(run.record, training_seconds=seconds[run.name]),
            {"metrics.json": run.metrics | {"accuracy": accuracy[run.name]}},
        )
        for run in read_runs_folder(full).runs
    ]
    assert recommend(runs, None)[2].winner == "ViT-B/16, staged"
    assert recommend(runs[:2], None)[2].winner == "ResNet-50, staged"  # the faster of two


def test_a_time_budget_over_different_hardware_is_said_to_be_one(full):
    folder = read_runs_folder(full)
    pairs = folder.table("pairwise_comparison.csv")
    assert recommend(folder.runs, pairs)[2].caveat == ""
    for run, name in zip(folder.runs, ["one", "one", "another", "one"], strict=True):
        run.record = dataclasses.replace(run.record, device_name=name)
    *answers, in_time = recommend(folder.runs, pairs)
    assert in_time.caveat == "The times are of different hardware: one and another."
    assert [answer.caveat for answer in answers] == ["", ""]


def test_short_times_have_digits(full):
    runs = [
        Run(run.folder, dataclasses.replace(run.record, training_seconds=time), {"metrics.json": run.metrics})
        for run, time in zip(read_runs_folder(full).runs, (0.31, 0.042, 9.97, 0.0), strict=True)
    ]
    answers = recommend(runs, None)
    assert "trains within 0.042 s" in answers[2].rule
    assert [describe_seconds(value) for value in (0.31, 9.97, 0.0, 1800.0)] == [
        "0.31 s", "10 s", "less than 0.01 s", "1,800 s",
    ]  # fmt: skip
    assert [seconds(value) for value in (0.0, 0.31, 1.0, 200.0)] == ["less than 0.01 s", "0.31 s", "1.0 s", "3.3 min"]


@pytest.mark.fault("Scores and figures", "a score without an interval, in the report", "said to have none, and why")
def test_what_has_no_interval_is_said_to_have_none(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "copy"))
    [path] = folder.glob("*/resnet50_full/metrics.json")
    intervals = json.loads(path.read_text())["intervals"] | {"macro_f1": None}
    measures(folder, resnet50_full={"intervals": intervals, "no_interval": {"macro_f1": "nothing varies"}})
    html = page(folder)
    assert html.count("<small>no interval</small>") == 2  # of the runs, and beside precision and recall
    assert html.count("No interval: nothing varies.") == 1
    table = pd.read_csv(folder / "pairwise_comparison.csv")
    table["reason"] = ["nothing varies either", *[None] * (len(table) - 1)]
    table.loc[0, ["low", "high"]] = None
    table.to_csv(folder / "pairwise_comparison.csv", index=False)
    html = page(folder)
    assert html.count("No interval: nothing varies either.") == 1
    assert html.count('<td class="n">none</td>') == 1


def test_scores_by_views_stand_beside_the_plain_ones(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "copy"))
    plain, seen = read_runs_folder(full).runs[0].metrics, page(full)
    gain = {"difference": 0.0125, "low": -0.01, "high": 0.02, "mcnemar_p": 0.5, "verdict": "no difference shown"}
    of_views = {"accuracy": 0.98765, "macro_f1": 0.9, "ece": 0.1, "intervals": {"accuracy": [0.91234, 0.99876]}}
    of_views |= {"views": "flip", "num_views": 2, "differences": {"accuracy": gain}}
    measures(folder, resnet50_full={"tta": of_views})
    shown = page(folder)
    for title in ("Accuracy, views", "Macro F1, views", "ECE, views"):
        assert f">{title}</button>" in shown
        assert title not in seen
    assert ">0.9877<small>0.9123 to 0.9988</small></td>" in shown
    assert "ResNet-50, full, flip, 2 views: accuracy +0.013 (-0.010 to +0.020), no difference shown." in shown
    assert read_runs_folder(folder).runs[0].metrics["accuracy"] == plain["accuracy"]


def cells_of_costs(html):
    """The table of what the models cost, row by row, as text; none where it is not there."""
    body = re.search(r'id="costs">.*?<tbody>(.*?)</tbody>', html, re.DOTALL)
    rows = [] if body is None else re.findall(r"<tr>.*?</tr>", body.group(1), re.DOTALL)
    return [
        [re.sub(r"<.*?>", "", cell.split("<small>")[0]).strip() for cell in re.split(r"</t[hd]>", row)] for row in rows
    ]


def test_what_a_model_costs_is_a_row_whatever_the_number_of_its_runs(full):
    html = page(full)
    resnet, vit = cells_of_costs(html)
    assert resnet[:10] == [
        "ResNet-50", "224 px", "23,753,912", "95.02", "4.089", "8.178", "6.20 ms", "124.0 ms", "258.1", "118.8 MB",
    ]  # fmt: skip
    assert vit[:4] == ["ViT-B/16", "224 px", "85,890,936", "343.56"]
    assert "<small>5.58 to 7.44</small>" in html
    assert ">Batch of 32<" in html
    assert "on AMD EPYC (2 threads), float32, torch 2.15.0." in html
    assert "(31 rounds of one image and 7 of a batch)" in html
    # Beside the scores too, of each run.
    assert len(re.findall(r'data-v="8178368512" title="[^"]*"><i class="star"[^>]*></i>8.18</td>', html)) == 2
    assert len(re.findall(r"</i>6.20 ms<small>5.58 to 7.44</small></td>", html)) == 3
    for title in ("Macro precision", "Macro recall", "Weighted precision"):
        assert f">{title}<" in html


@pytest.mark.fault(
    "Disk", "a finished folder of before costs were measured, or precision", "a report without them, and the reason"
)
def test_what_a_model_costs_is_blank_where_it_was_not_measured_and_the_reason_is_said(full, tmp_path):
    before = without_costs(Path(shutil.copytree(full, tmp_path / "before")))
    html = page(before)
    assert cells_of_costs(html) == []
    runs = "ResNet-50, full; ResNet-50, staged; ViT-B/16, full and ViT-B/16, staged"
    assert f"Not known of {runs}: an earlier version did not measure it." in html
    assert ">One image<" not in html
    assert ">Macro precision<" not in html
    both = page(full, before)
    assert [row[0] for row in cells_of_costs(both)] == ["full / ResNet-50", "full / ViT-B/16"]
    assert "Not known of before / ResNet-50, full; before" in both


def test_what_could_not_be_measured_is_said_and_batches_of_two_sizes_are(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "partly"))
    for name, batch_size in (("vit_b16_full", None), ("vit_b16_staged", 8)):
        record = folder / "vit" / name / f"{name}_run_metadata.json"
        content = json.loads(record.read_text())
        cost = {} if batch_size is None else content["cost"] | {"batch_size": batch_size}
        record.write_text(json.dumps(content | {"cost": cost}))
    html = page(folder)
    assert "Not known of ViT-B/16, full: it could not be measured." in html
    assert ">A batch<" in html
    assert "<small>8 images</small>" in html


def test_top_5_of_5_classes_is_no_column(full, large_folder):
    assert ">Top-5<" not in page(full)
    assert ">Top-5<" in page(large_folder)


def test_ties_are_named_as_the_pairwise_test_says(full):
    runs = read_runs_folder(full).runs
    best = max(runs, key=lambda run: run.metrics["accuracy"])
    other = next(run for run in runs if run is not best)
    pair = {"run_a": other.name, "run_b": best.name, "metric": "accuracy"}
    [tied, *_] = recommend(runs, pd.DataFrame([pair | {"verdict": "no difference shown"}]))
    assert tied.ties == (f"{other.model}, {other.schedule}",)
    [won, *_] = recommend(runs, pd.DataFrame([pair | {"verdict": "b is better"}]))
    assert won.ties == ()


def test_one_configuration_is_no_choice(full):
    assert recommend(read_runs_folder(full).runs[:1], None) == []


def test_seeds_compete_by_their_means(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "copy"))
    source = folder / "cnn" / "resnet50_full"
    for seed in (43, 44):
        copy = Path(shutil.copytree(source, folder / "cnn" / f"resnet50_full_seed{seed}"))
        record = json.loads((copy / "resnet50_full_run_metadata.json").read_text())
        record["config"]["seed"], record["run_name"] = seed, f"resnet50_full_seed{seed}"
        (copy / f"resnet50_full_seed{seed}_run_metadata.json").write_text(json.dumps(record))
        (copy / "resnet50_full_run_metadata.json").unlink()
    lucky = {"resnet50_full": 0.99, "resnet50_full_seed43": 0.5, "resnet50_full_seed44": 0.5, "resnet50_staged": 0.7,
             "vit_b16_full": 0.6, "vit_b16_staged": 0.65}  # fmt: skip
    measures(folder, **{name: {"accuracy": value} for name, value in lucky.items()})
    assert recommend(read_runs_folder(folder).runs, None)[0].winner == "ResNet-50, staged"


@pytest.mark.fault("Photos", "one picture in training and in test, in the report", "counted: 1 group, and not 1 groups")
def test_limits_count_the_test_pictures_that_were_trained_on(full):
    text = dict(limits(read_runs_folder(full)))
    assert text["Repeated pictures"].startswith(
        "1 group of pictures that are the same file or alike by their looks across training and test, with"
    )
    assert "Mirrored, rotated and cropped copies were not looked for." in text["Repeated pictures"]
    assert "with 1 test image (" in text["Repeated pictures"]
    assert text["Seeds"].startswith("One seed (42)")


def test_limits_count_repeated_pictures_of_validation_too(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "copy"))

    def said(*splits):
        rows = [(number, split) for number, own in enumerate(splits) for split in own]
        pd.DataFrame(rows, columns=["group", "split"]).to_csv(folder / "duplicates.csv", index=False)
        return dict(limits(read_runs_folder(folder)))["Repeated pictures"]

    alike = "of pictures that are the same file or alike by their looks"
    assert said(["train", "train"]).startswith(f"1 group {alike}, none across training, validation and test.")
    assert said(["val", "val", "train"], ["test", "test"]).startswith(
        f"1 group {alike} across training and validation, with 2 validation images (duplicates.csv)."
    )
    assert said(["train", "val", "test"], ["val", "test", "test"]).startswith(
        f"1 group {alike} across training and test, with 1 test image; 2 groups across validation and test, with "
        "3 test images; 1 group across training and validation, with 1 validation image (duplicates.csv)."
    )


def test_weights_of_a_file_are_not_said_to_be_published_ones(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "copy"))

    def begin(run, weights):
        path = record_path(folder / run)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": weights}))

    begin("cnn/resnet50_full", "ResNet-50: weights of mine.safetensors")
    said = dict(limits(read_runs_folder(folder)))
    assert "weights at the start (of a file or pretrained)" in said["Recipes differ"]
    assert re.match(r"ResNet-50, .* began with weights of a file\. What they", said["Weights of a file"])
    pretraining = set(said) - {"Weights of a file"}
    for run in ("cnn/resnet50_staged", "vit/vit_b16_full", "vit/vit_b16_staged"):
        begin(run, "X: weights of mine.safetensors")
    said = dict(limits(read_runs_folder(folder)))
    assert said["Weights of a file"].startswith("Every run began with weights of a file.")
    assert "Recipes differ" not in said or "weights at the start" not in said["Recipes differ"]
    assert len(set(said) & pretraining) < len(pretraining)  # nothing of ImageNet


def test_the_report_and_claims_are_in_the_manifest(full):
    path = write_report(read_runs_folder(full))
    files = json.loads((full / "MANIFEST.json").read_text())["files"]
    assert files["report.html"]["bytes"] == path.stat().st_size
    assert {"claims.json", "metrics.json"} & set(files) == {"claims.json"}


def test_several_folders_are_told_apart_by_name(full, old, tmp_path):
    html = write_comparison_report([read_runs_folder(full), read_runs_folder(old)], tmp_path / "both.html").read_text()
    assert "full / ResNet-50, full" in html
    assert "old / ResNet-50, full" in html
    with pytest.raises(ValueError, match="twice"):
        write_comparison_report([read_runs_folder(full), read_runs_folder(full)], tmp_path / "both.html")


def test_folders_of_one_name_are_told_apart_by_their_paths(full, tmp_path):
    first, second = (Path(shutil.copytree(full, tmp_path / name / "run")) for name in "ab")
    html = page(first, second)
    assert {"a/run / ResNet-50, full", "b/run / ResNet-50, full"} <= set(re.findall(r"</span><span>(.*?)</span>", html))
    assert "Run against run in test accuracy, b/run" in html
    assert "Not tested against" not in html
    assert folder_labels([Path("/x/y"), Path("/z")]) == {Path("/x/y"): "y", Path("/z"): "z"}


def test_runs_of_folders_with_the_same_test_images_are_compared(full, tmp_path):
    folders = [read_runs_folder(shutil.copytree(full, tmp_path / name)) for name in "ab"]
    views = run_views(folders)
    table = compared_over_folders(views)
    pairs = pairs_between(table, views)
    found = {(row["a_label"], row["b_label"]): row for row in pairs["rows"] if row["metric"] == "accuracy"}
    assert len(found) == 16  # of 8 runs, those that are of two folders
    same = found["a / ResNet-50, full", "b / ResNet-50, full"]
    assert (same["difference"], same["mcnemar_p"], same["verdict"]) == (0.0, 1.0, "no difference shown")
    within = folders[0].table("pairwise_comparison.csv").query("metric == 'accuracy'").iloc[0]
    across = found["a / ResNet-50, full", f"b / {views[1].label.removeprefix('a / ')}"]
    for column in ("difference", "low", "high", "mcnemar_p"):
        assert across[column] == pytest.approx(within[column])
    assert across["mcnemar_p_holm"] >= within["mcnemar_p_holm"]  # of 28 pairs
    best = recommend([view.run for view in views], table)[0]
    assert {"a", "b"} == {each.partition(" / ")[0] for each in (best.winner, *best.ties)}
    assert best.caveat == ""
    html = page(*(folder.folder for folder in folders))
    assert "Run against run in test accuracy, between the folders" in html
    assert "between the folders: In test accuracy there is no difference shown between" in html


def test_folders_of_other_test_images_are_not_ranked(full, tmp_path):
    other = write_folder(tmp_path / "other", NAMES, num_test=5)
    html = page(full, other)
    assert "not tested on the same images" in html
    assert 'class="answer"' not in html


def test_other_pictures_of_the_same_names_are_other_test_images(full, tmp_path):
    other = Path(shutil.copytree(full, tmp_path / "other"))
    table = pd.read_csv(other / "metadata_with_quality.csv", keep_default_na=False)
    at = table.index[table["official_split"] == "official_test"][0]
    table.loc[at, "r_mean"] /= 2
    table.to_csv(other / "metadata_with_quality.csv", index=False)
    assert "not tested on the same images" in page(full, other)


def test_what_else_differs_between_the_runs_is_among_the_limits(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "copy"))
    path = record_path(folder / "cnn" / "resnet50_full")
    record = json.loads(path.read_text())
    record["config"]["phases"][0] |= {"optimizer": "sgd", "mix": "cutmix"}
    path.write_text(json.dumps(record | {"weights": "ResNet-50: random weights"}))
    said = dict(limits(read_runs_folder(folder)))["Recipes differ"]
    assert "weights at the start (random or pretrained)" in said
    assert (
        "what trains (full_finetune with optimizer=sgd, mix=cutmix or head_only then full_finetune or full_fine" in said
    )


def test_classes_without_a_test_image_are_among_the_limits(tmp_path):
    folder = write_folder(tmp_path / "run", ["a", "b"], ("resnet50_full",), facts=PLAIN)
    assert "No test image" not in page(folder)
    path = folder / "cnn" / "resnet50_full" / "classification_report.csv"
    path.write_text(re.sub(r"(?m)^b,(.*),[\d.]+$", r"b,\1,0.0", path.read_text()))
    assert "No test image of b" in page(folder)


def test_the_command(full, old, tmp_path, capsys):
    assert main(["report", str(full)]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [str(full / "report.html"), str(full / "explorer.html")]
    assert main(["report", str(full), str(old), "--out", str(tmp_path / "both.html")]) == 0
    both = [tmp_path / "both.html", tmp_path / "both_explorer.html"]
    assert (
        capsys.readouterr().out.splitlines()[-2:] == [str(path) for path in both if path.exists()] == [*map(str, both)]
    )
    for arguments, message in (
        (["report", str(full), str(old)], "--out: got nothing"),
        (["report", str(tmp_path)], "found no finished run"),
        (["report", str(tmp_path / "none")], "not a folder"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
        [line] = capsys.readouterr().err.splitlines()
        assert message in line


@pytest.mark.fault("Disk", "a file of a finished run that is damaged", "`report` names it in one line")
def test_a_broken_file_is_named(old, tmp_path):
    folder = Path(shutil.copytree(old, tmp_path / "copy"))
    path = folder / "eda" / "random_class_samples.png"
    path.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"random_class_samples\.png: not a readable image"):
        page(folder)


def test_ticks_are_round():
    assert nice_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert nice_ticks(0.1, 0.95) == [0.2, 0.4, 0.6, 0.8]
    assert nice_ticks(1, 12) == [2, 4, 6, 8, 10, 12]
    assert nice_ticks(1, 2, whole=True) == [1, 2]  # epochs


def test_a_long_class_name_is_cut_in_the_confusion_explorer_and_whole_in_its_title():
    style, script = (
        (files("dogs_accel.report") / "templates" / name).read_text() for name in ("report.css", "report.js")
    )
    [cut] = [rule for rule in style.splitlines() if rule.startswith(".names bdi, .hits button {")]
    assert {"overflow: hidden", "text-overflow: ellipsis", "white-space: nowrap"} <= set(
        re.findall(r"[\w-]+: \w+", cut)
    )
    assert 'button.append(element("bdi", run.classes[label]))' in script
    assert "button.title = run.classes[label]" in script
    assert "go.title = name" in script


def test_charts_place_their_points():
    svg = line_chart("a <b>", [Line("<i>", [(0, 0.0), (10, 1.0)], 2)], x_label="epoch", width=150, height=100)
    # Within 40 to 140 px across and 66 up to 10 px, with room for the markers at the edges.
    assert 'd="M46.0 60.0 L134.0 16.0"' in svg
    assert 'x1="40" x2="140"' in svg
    ticks = re.findall(r'text-anchor="end">([^<]+)<', line_chart("one", [Line("a", [(1, 0.5)], 0)], x_label="epoch"))
    assert len(set(ticks)) == len(ticks) > 2
    assert "a &lt;b&gt;" in svg
    assert "<i>" not in svg
    filled, empty = Bin(0.5, 0.6, 4, 0.55, 0.5, 0.2, 0.8), Bin(0.6, 0.7, 0, *[float("nan")] * 4)
    svg = reliability_chart("title", [filled, empty], 0)
    assert svg.count('class="whisker"') == 1
    assert "4 images" in svg
    assert "nan" not in svg


def test_what_a_heat_map_shows_and_how_fine_it_can_be_is_said(full):
    html = page(full)
    assert html.count("7 by 7 cells") == 4
    assert html.count("where the model looked, whatever the breed") == 4


def test_reliability_is_shown_with_10_and_with_15_bins_before_and_after_temperature(full):
    html = page(full)
    [run] = [run for run in read_runs_folder(full).runs if run.name == "vit_b16_full"]
    fitted = f"temperature {run.metrics['temperature']['value']:.3f}"
    drawn = re.findall(r'aria-label="ViT-B/16, full, (as trained|temperature [0-9.]+), (10|15) bins"', html)
    assert drawn == [("as trained", "10"), (fitted, "10"), ("as trained", "15"), (fitted, "15")]
    assert html.count("<summary>With 15 bins</summary>") == 4


def test_what_differs_between_the_runs_is_said_and_what_does_not_is_not(full):
    folder = read_runs_folder(full)
    assert (
        "learning rates (0.0001 or 0.001 then 0.0001 or 3e-05 or 0.001 then 3e-05)"
        in dict(limits(folder))["Recipes differ"]
    )
    single = RunsFolder(folder.folder, folder.runs[:1])
    assert "Recipes differ" not in dict(limits(single))


def test_training_scores_of_mixed_images_are_said_to_be_so(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "mixed"))
    note = mixed_scores_note([Phase(name="tune", mode="full_finetune", epochs=1, lr=1e-3, mix="cutmix")])
    path = record_path(folder / "cnn" / "resnet50_full")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"training_scores_note": note}))
    shown = page(folder)
    assert shown.count('<p class="small">ResNet-50, full: in tune (cutmix) the training scores are of mixed') == 1
    losses, _, accuracies, *_ = curves = re.findall(r"<figure class=\"card\"><h4>.*?</figure>", shown, re.DOTALL)[-5:]
    titles = [
        "Training loss",
        "Validation loss",
        "Training accuracy",
        "Validation accuracy",
        "Learning rate at the end of each epoch",
    ]
    assert [re.search("<h4>(.*?)</h4>", curve)[1] for curve in curves] == titles
    assert "<title>ResNet-50, full, mixed images: 1, 2.0000</title>" in losses
    assert "<title>ResNet-50, full, mixed images: 1, 0.5000</title>" in accuracies
    assert shown.count("mixed images") == 1 + sum(each.count("mixed images") for each in (losses, accuracies))
    assert "mixed images" not in page(full)


def test_pairs_of_configurations_with_several_seeds_are_shown_by_their_names(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "copy"))
    for family, name in (("cnn", "resnet50_full"), ("vit", "vit_b16_full")):
        source = folder / family / name
        for seed in (42, 43):
            copy = Path(shutil.copytree(source, folder / family / f"{name}_seed{seed}"))
            record = json.loads((copy / f"{name}_run_metadata.json").read_text())
            record["config"]["seed"], record["run_name"] = seed, f"{name}_seed{seed}"
            (copy / f"{name}_run_metadata.json").unlink()
            (copy / f"{name}_seed{seed}_run_metadata.json").write_text(json.dumps(record))
        shutil.rmtree(source)
    for name in ("resnet50_staged", "vit_b16_staged"):
        shutil.rmtree(next(folder.glob(f"*/{name}")))
    row = {"run_a": "resnet50_full", "run_b": "vit_b16_full", "difference": 0.0, "low": -0.1, "high": 0.1}
    table = pd.DataFrame([row | {"metric": name, "verdict": "no difference shown"} for name in ("accuracy", "ece")])
    table.to_csv(folder / "pairwise_comparison.csv", index=False)
    html = page(folder)
    assert "there is no difference shown between ResNet-50, full and ViT-B/16, full." in html
    assert 'class="n best" data-v="0.' not in html.split("The runs</h3>")[1].split("</table>")[0].split("GFLOPs")[0]
    best = recommend(read_runs_folder(folder).runs, table)[0]
    assert len(best.ties) == 1


def test_explanations_are_summed_up_by_method(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "copy"))
    mean = {"mean": 0.25, "interval": [0.2, 0.3], "num_images": 64}
    nothing = {"mean": None, "interval": None, "num_images": 0}
    content = {"library": "own", "methods": {"gradcam": {"drop_hottest": mean, "verdict": "better than random",
                                                            "heat_in_box": nothing}}}  # fmt: skip
    (folder / "cnn/resnet50_full/explanations.json").write_text(json.dumps(content))
    html = page(folder)
    assert "<td>0.250 (0.200 to 0.300)</td>" in html
    assert "<td>better than random</td>" in html
    assert "Heat inside the annotated box" not in html


@pytest.mark.parametrize(("rates", "num"), [([0.0], 0), ([0.0, 1e-3], 1)])
def test_learning_rates_that_are_all_0_have_no_chart(rates, num):
    history = pd.DataFrame({"epoch_total": range(1, 1 + len(rates)), "phase": "full", "lr": rates})
    record = SimpleNamespace(training_scores_note=None)
    view = RunView(SimpleNamespace(history=history, record=record), None, "", "r0", "a", 0, 0)
    titles = [title for title, _ in _curves([view])["charts"]]
    assert titles == ["Learning rate at the end of each epoch"] * num


def test_a_run_stands_once_with_a_recipe_that_trains_and_evaluates(full):
    folder = read_runs_folder(full)
    views = run_views([folder])
    record = views[0].run.record
    both = SimpleNamespace(
        label=views[0].label,
        run=SimpleNamespace(
            record=SimpleNamespace(
                train_recipe=record.eval_recipe, eval_recipe=record.eval_recipe, loaders={}, config=record.config
            )
        ),
    )
    [card] = input_station(folder, [both])["recipes"]
    assert card["runs"] == [views[0].label]


def test_recipes_of_one_name_and_other_values_are_both_shown(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "copy"))
    path = folder / "vit/vit_b16_full/vit_b16_full_run_metadata.json"
    record = json.loads(path.read_text())
    record["eval_recipe"]["mean"] = [0.5, 0.5, 0.5]
    path.write_text(json.dumps(record))
    html = page(folder)
    assert html.count("<h4>eval, 224 px</h4>") == 2
    assert "normalise by mean 0.5, 0.5, 0.5 and std" in html


def test_a_table_without_rows_is_not_said_to_be_absent(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "copy"))
    clusters = pd.read_csv(folder / "confusion_clusters.csv")
    clusters[clusters["run"] != "resnet50_full"].assign(num_confusions=1).to_csv(
        folder / "confusion_clusters.csv", index=False
    )
    html = page(folder)
    assert html.count("often enough to be a group") == 1
    assert "1 confusion," in html
    clusters.head(0).to_csv(folder / "confusion_clusters.csv", index=False)
    html = page(folder)
    assert html.count("often enough to be a group") == 4
    assert "<code>confusion_clusters.csv</code>" not in html


def test_a_run_without_a_mistake_needs_no_gallery_of_mistakes(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "copy"))
    (folder / "cnn/resnet50_full/misclassified_gallery.png").unlink()
    assert "<code>misclassified_gallery.png</code>" in page(folder)
    measures(folder, resnet50_full={"accuracy": 1.0})
    html = page(folder)
    assert "<code>misclassified_gallery.png</code>" not in html
    assert "Every test image is classified correctly." in html


@pytest.mark.fault(
    "Scores and figures", "a class without a test image, in the report", "no score, where a zero would be wrong"
)
def test_a_class_without_a_test_image_has_no_score(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "copy"))
    for path in folder.glob("*/*/classification_report.csv"):
        table = pd.read_csv(path, keep_default_na=False)
        table.loc[0, ["f1-score", "support"]] = 0
        table.to_csv(path, index=False)
    html = page(folder)
    row = re.search(r'<th scope="row">Chihuahua</th><td class="n">0</td>(.*?)</tr>', html)
    assert row is not None
    assert re.findall(r"<td[^>]*>(.*?)</td>", row[1]) == [ABSENT] * 5
    assert "best" not in row[1]


@pytest.mark.fault(
    "Scores and figures", "a run without a temperature, in the report", "not called calibrated, with the reason"
)
def test_a_class_that_all_runs_know_equally_well_has_no_best():
    def view(*scores):
        table = pd.DataFrame({"class_name": ["a", "b"], "f1-score": scores, "support": [5, 5]})
        return SimpleNamespace(run=SimpleNamespace(classes=table))

    same, other = _classes([view(0.5, 0.5), view(0.5, 0.6)])["rows"]
    assert [is_best for _, is_best in same["cells"]] == [False, False]
    assert [is_best for _, is_best in other["cells"]] == [False, True]


def test_a_run_that_validation_gives_no_temperature_is_not_called_calibrated(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "copy"))
    measures(folder, resnet50_full={"temperature": {"value": 1e-6, "low": None, "high": None, "fitted_on": "val"}})
    path = folder / "cnn/resnet50_full/calibration_bins.csv"
    table = pd.read_csv(path)
    table.loc[table["temperature"] != 1, "temperature"] = 1e-6
    table.to_csv(path, index=False)
    html = page(folder)
    assert "1e-06" not in html
    reason = "the likelihood of the validation images has no optimum, so that they cannot say how sure to be"
    assert html.count(f"ResNet-50, full has none, so its probabilities are not calibrated: {reason}.") == 1
    drawn = re.findall(r'aria-label="ResNet-50, full, (as trained|temperature [^,]+), (10|15) bins"', html)
    assert drawn == [("as trained", "10"), ("as trained", "15")]
    other = json.loads((folder / "vit/vit_b16_full/metrics.json").read_text())["temperature"]
    assert f"{other['value']:.3f}<small>{other['low']:.3f} to {other['high']:.3f}</small>" in html


def test_what_the_quality_of_the_pictures_does_to_accuracy_is_said_in_words(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "copy"))
    for path in folder.glob("*/*/quality_vs_error.csv"):
        pd.read_csv(path).assign(num_images=24, accuracy=0.8).to_csv(path, index=False)
    path = folder / "cnn/resnet50_full/quality_vs_error.csv"
    table = pd.read_csv(path)
    table.loc[table["quantity"] == "brightness", "accuracy"] = [0.25, 0.25, 0.5, 0.5, 0.5, 0.75, 0.75, 1, 1, 1]
    table.to_csv(path, index=False)
    html = page(folder)
    words = "brightness: accuracy rises with it (0.250 in the darkest tenth, 1.000 in the brightest; Cochran-Armitage"
    assert html.count(words) == 1
    assert html.count("contrast: no trend shown (0.800 in the flattest tenth") == 4


ODD_NAMES = ["001", "NA", "accuracy", "macro avg", "Unnamed: 0", "1e3", "10", "None"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A folder of data about which nothing was published, whose classes have names that can be misread."""
    return write_folder(tmp_path_factory.mktemp("plain") / "plain", ODD_NAMES, facts=PLAIN)


def text_of(html):
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style)\b.*?</\1>", " ", html, flags=re.DOTALL)).split())


def test_of_other_data_nothing_is_said_that_was_published_of_stanford_dogs(plain, tmp_path):
    folder = Path(shutil.copytree(plain, tmp_path / "copy"))
    (folder / "claims.json").write_text("{}")  # an earlier version's
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    manifest["files"]["claims.json"] = {"bytes": 2, "sha256": ""}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    html = write_report(read_runs_folder(folder)).read_text()
    assert not (folder / "claims.json").exists()
    assert {"claims.json", "report.html"} & set(json.loads((folder / "MANIFEST.json").read_text())["files"]) == {
        "report.html"
    }
    assert "<title>ResNet-50 against ViT-B/16 on flowers</title>" in html
    assert 'id="claims"' not in html
    assert "#claims" not in html
    assert re.findall(r"(?i)breed|dogs?\b|imagenet\b(?! weights)|published", text_of(html)) == []
    assert "Overlap with pretraining" not in html
    assert "Pretraining" in dict(limits(read_runs_folder(folder)))


def test_the_data_station_says_how_the_data_lay_and_what_was_left_out(plain):
    text = text_of(page(plain))
    assert (
        "Layout: class folders in train/ and test/. Splits: train and test as the data have them; validation (15 %) "
        "carved out of training, seed 42, in each class alike. Left out: 2 hidden files."
    ) in text
    assert "8 classes" in text


def test_random_weights_are_said_to_be_random_whatever_the_data(plain, full):
    for folder in (plain, full):
        read = read_runs_folder(folder)
        runs = [
            Run(run.folder, dataclasses.replace(run.record, weights="ResNet-18: random weights")) for run in read.runs
        ]
        found = dict(limits(RunsFolder(read.folder, runs)))
        assert "Random weights" in found
        assert not {"Pretraining", "Overlap with pretraining"} & set(found)


def test_generated_pictures_are_said_to_be_generated(tmp_path):
    facts = stanford_dogs_facts("synthetic")
    html = page(write_folder(tmp_path / "demo", ["a", "b", "c"], ("resnet18_full",), facts=facts))
    assert html.index("<strong>Not dogs.</strong>") < html.index('id="summary"')
    assert "<title>ResNet-18 on invented animals</title>" in html
    assert "3 breeds" in text_of(html)
    assert dict(limits(read_runs_folder(tmp_path / "demo")))["Not dogs"] == facts.notice


def test_the_words_are_those_of_the_data(plain, full):
    one, other = text_of(page(plain)), text_of(page(full))
    assert "Every class" in one
    assert "Classes confused with each other" in one
    assert "Smallest class" not in one or "Smallest breed" not in one
    assert "Every breed" in other
    assert "Breeds confused with each other" in other
    assert "Overlap with pretraining" in other
    both = page(plain, full)
    assert json.loads(re.search(r'id="confusion-data">(.*?)</script>', both, re.DOTALL)[1])["plural"] == "classes"
    assert "on flowers and Stanford Dogs" in text_of(both)
    assert both.count('class="claims-table"') == 1


@pytest.mark.fault(
    "Folders and names", "classes called 001, 1e5, NA or True, in the report", "shown verbatim, and sorted as names"
)
def test_names_that_can_be_misread_are_shown_as_they_are(plain):
    html = page(plain)
    runs = json.loads(re.search(r'id="confusion-data">(.*?)</script>', html, re.DOTALL).group(1))["runs"]
    assert [run["classes"] for run in runs] == [ODD_NAMES] * 4
    every = re.search(r'id="classes-1">(.*?)</table>', html, re.DOTALL)[1]
    assert re.findall(r'<th scope="row">(.*?)</th>', every) == ODD_NAMES
    read = read_runs_folder(plain)
    assert read.class_names == ODD_NAMES
    assert read.table("per_class_comparison.csv")["class"].tolist() == ODD_NAMES
    groups = read.table("confusion_clusters.csv")["classes"]
    assert {name for names in groups for name in names.split("; ")} <= set(ODD_NAMES)
    for run in read.runs:
        table = run.table("top_confusions.csv")
        assert set(table["true_class"]) | set(table["pred_class"]) <= set(ODD_NAMES)


def test_a_group_of_one_name_that_looks_like_a_number_stays_a_name(plain, tmp_path):
    folder = Path(shutil.copytree(plain, tmp_path / "copy"))
    row = {"run": "resnet50_full", "cluster": 1, "classes": "001", "num_confusions": 2, "share_of_mistakes": 0.5}
    pd.DataFrame([row]).to_csv(folder / "confusion_clusters.csv", index=False)
    assert "<li>001 <span" in page(folder)


def test_a_folder_of_the_version_that_knew_breeds_alone_has_its_report(full, tmp_path):
    folder = with_older_names(Path(shutil.copytree(full, tmp_path / "full")))
    now = page(full)
    assert page(folder) == now
    clusters = pd.read_csv(folder / "confusion_clusters.csv", keep_default_na=False)
    assert "breeds" in clusters.columns
    assert "<code>confusion_clusters.csv</code>" not in now
    assert main(["report", str(folder)]) == 0
    assert (folder / "claims.json").exists()


def test_families_of_any_label_and_number_are_read_and_coloured(tmp_path):
    labels = {"resnet50": "residual", "resnet18": "small"}
    names = ("resnet50_full", "vit_b16_full", "resnet18_full")
    folder = write_folder(tmp_path / "three", ["a", "b", "c"], names, facts=PLAIN, families=labels)
    assert sorted(path.parent.parent.name for path in folder.glob("*/*/metrics.json")) == ["residual", "small", "vit"]
    read = read_runs_folder(folder)
    assert [run.family for run in read.runs] == ["residual", "vit", "small"]
    best = read.table("best_per_family_comparison.csv")
    assert best["Family"].tolist() == ["residual", "Transformer", "small"]
    html = page(folder)
    assert re.findall(r'<div class="name"><span class="swatch c(\d)">', html) == ["0", "2", "4"]
    assert html.count("gradcam_gallery.png or attention_gallery.png") == 0
    (folder / "residual/resnet50_full/gradcam_gallery.png").unlink()
    assert "<code>gradcam_gallery.png</code> is not in this folder" in page(folder)


def test_one_family_has_a_report(tmp_path):
    folder = write_folder(tmp_path / "one", ["a", "b"], ("resnet50_full", "resnet18_full"), facts=PLAIN)
    assert read_runs_folder(folder).table("per_class_comparison.csv")["runner_up_run"].nunique() == 1
    assert (folder / "per_class_comparison.png").exists()
    assert "ResNet-50 against ResNet-18 on flowers" in page(folder)


def test_a_right_answer_is_not_said_to_be_taken_for_itself(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "copy"))
    path = folder / "cnn" / "resnet50_full" / "explanations.csv"
    table = pd.read_csv(path, keep_default_na=False)
    table["pred_class"] = table["true_class"]
    table.to_csv(path, index=False)
    alts = re.findall(r'data-true="(.*?)" data-pred="(.*?)">.*?<img .*? alt="(.*?)"', page(folder))
    assert {true == pred for true, pred, _ in alts} == {True, False}
    assert all(alt == (true if true == pred else f"{true}, taken for {pred}") for true, pred, alt in alts)


def test_thumbnails_of_ids_that_are_paths_are_shown_and_none_from_elsewhere(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "copy"))
    run = folder / "cnn/resnet50_full"
    picture(folder / "cnn" / "outside.png")
    path = run / "explanations.csv"
    table = pd.read_csv(path, keep_default_na=False)
    table["id"] = ["train/cat/0001.jpg", "../../outside", "val/cat/0001.jpg"][: len(table)]
    table.to_csv(path, index=False)
    for name in ("train/cat/0001.jpg", "val/cat/0001.jpg"):
        picture(run / "explanations" / picture_name(name))
    html = page(folder)
    assert re.findall(r'<figure id="r0-x(\d)"', html) == ["0", "1"]


@pytest.fixture(scope="module")
def twelve(full_folder, tmp_path_factory):
    """Twelve runs, of which no pair shows a difference: ten are one run under ten names."""
    folder = Path(shutil.copytree(full_folder, tmp_path_factory.mktemp("twelve") / "twelve"))
    for name in ("cnn/resnet50_full", "vit/vit_b16_full"):
        for number in range(4):
            copy = Path(shutil.copytree(folder / name, folder / f"{name}{number}"))
            record, history = (copy / f"{Path(name).name}{suffix}" for suffix in ("_run_metadata.json", "_history.csv"))
            content = json.loads(record.read_text())
            content["run_name"], content["created_at"] = copy.name, f"2026-01-02T00:00:0{number}"
            content["config"]["model_name"] += f" no. {number}"
            for phase in content["config"]["phases"]:
                phase["lr"] *= number + 2
            record_path(copy).write_text(json.dumps(content))
            history.rename(copy / f"{copy.name}_history.csv")
            record.unlink()
    names = [run.name for run in read_runs_folder(folder).runs]
    row = {"metric": "accuracy", "difference": 0.0, "low": -0.1, "high": 0.1, "verdict": "no difference shown"}
    pairs = [row | {"run_a": a, "run_b": b, "a": 0.5, "b": 0.5} for a, b in itertools.combinations(names, 2)]
    pd.DataFrame(pairs).to_csv(folder / "pairwise_comparison.csv", index=False)
    return folder


def test_sentences_stay_short_however_many_the_runs_are(twelve):
    folder = read_runs_folder(twelve)
    html = page(twelve)
    assert "In test accuracy there is no difference shown between any two of the 12 runs. A ranking" in html
    tie = re.search(r'<span class="chip warn">tie</span> with (.*?): no difference shown', html)
    assert (tie[1].count("; "), tie[1].endswith(" and 8 more")) == (2, True)
    words = [re.sub(r"<.*?>", " ", each) for each in re.findall(r"<(?:p|dd|li)[ >].*?</(?:p|dd|li)>", html, re.DOTALL)]
    assert max(len(" ".join(each.split())) for each in words) < 900
    said = dict(limits(folder))["Recipes differ"]
    assert re.search(r"learning rates \(0.0001 or 0.001 then 0.0001 or 3e-05 or .* or 7 more\)", said)
    # Twelve curves in each panel, each drawn in its own way.
    panel = re.findall(r"<figure class=\"card\"><h4>.*?</figure>", html, re.DOTALL)[-5]
    assert panel.count('class="curve ') == 12
    keys = re.findall(r'<svg class="chart key".*?</svg>', html)
    assert len(set(keys)) == 12
    # Staged runs alone have the end of a phase.
    assert panel.count('class="end ') == 2


def test_names_are_listed_and_broken_as_they_can_be_read():
    assert [listed(list("abcdef"[:num])) for num in range(1, 6)] == [
        "a", "a and b", "a; b and c", "a; b; c and d", "a; b; c and 2 more",
    ]  # fmt: skip
    assert breakable("<b>_2") == "&lt;b&gt;_<wbr>2"


def test_pairs_without_a_difference_are_named_where_they_are_few():
    def pair(a, b, differs=False):
        return {"a_label": a, "b_label": b, "a": len(a), "b": len(b), "is_difference": differs}

    assert _unclear([pair("x", "yy", True)], "runs") == ""
    one = _unclear([pair("x", "yy"), pair("x", "zzz", True)], "runs")
    assert one == "In test accuracy there is no difference shown between x and yy."
    names = ["a" * length for length in range(1, 6)]
    pairs = [pair(a, b, "aaaaa" in (a, b)) for a, b in itertools.combinations(names, 2)]
    assert _unclear(pairs, "configurations") == (
        "In test accuracy there is no difference shown in 6 of the 10 pairs of configurations. aaaaa, which has the "
        "highest, is shown to be better than each of the others."
    )
    pairs = [pair(a, b, a == "a") for a, b in itertools.combinations(names, 2)]
    assert _unclear(pairs, "runs").endswith(
        "aaaaa, which has the highest, is not shown to differ from aa; aaa and aaaa."
    )


def test_pairs_between_folders_say_nothing_of_pairs_within_one():
    def pair(a, b, differs=False):
        return {"a_label": a, "b_label": b, "a": len(a), "b": len(b), "is_difference": differs}

    # x and yy are of one folder: their difference, if any, is none of these pairs.
    pairs = [pair("x", "zzz"), pair("yy", "zzz")]
    assert _unclear(pairs, "runs", are_of_two_folders=True) == (
        "In test accuracy there is no difference shown between any two of different folders among the 3 runs."
    )
    pairs = [pair("x" * 9, b, True) for b in "abcdef"] + [pair("x" * 8, b) for b in "abcdef"]
    assert _unclear(pairs, "runs", are_of_two_folders=True).endswith(
        "shown to be better than each of those of the other folders."
    )


def test_the_best_is_marked_where_the_numbers_say_so():
    names = ["a", "b", "c"]
    assert mark_best([1, 1, None], names, larger=True) == Marks()
    assert mark_best([1, None, None], names, larger=True) == Marks()
    assert mark_best([2, 3, 2], names, larger=False).rows == {0, 2}
    verdicts = {(1, 0): True, (1, 2): True}
    won = mark_best([0.5, 0.9, 0.8], names, larger=True, shown=lambda a, b: verdicts.get((a, b)))
    assert won.rows == {1}
    verdicts[1, 2] = False
    tied = mark_best([0.5, 0.9, 0.8], names, larger=True, shown=lambda a, b: verdicts.get((a, b)))
    assert tied.rows == frozenset()
    assert tied.title_of(1) == "highest of the column, but no difference is shown to c"
    assert (tied.title_of(0), tied.why_none) == ("", "b leads, but no difference is shown to 1 of the 2 others")
    untested = mark_best([0.5, 0.9], names, larger=False, shown=lambda a, b: None)
    assert (untested.rows, untested.why_none) == (frozenset(), "a is not tested against the others")


def stars(html, table):
    """The columns of a table, and of each row whether its cells carry the mark."""
    shown = html.split(f'id="{table}">')[1].split("</table>")[0]
    titles = re.findall(r'class="sort">(.*?)</button>', shown)[1:]
    rows = [re.findall(r"<td.*?</td>", row, re.DOTALL) for row in shown.split("<tr>")[2:]]
    marked = [["star" in cell and "n best" in cell for cell in row] for row in rows]
    return {title: [row[at] for row in marked] for at, title in enumerate(titles)}


def test_marks_of_the_runs_follow_the_pairs_and_the_intervals(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "copy"))
    measures(folder, resnet50_full={"accuracy": 0.2}, resnet50_staged={"accuracy": 0.3}, vit_b16_full={"accuracy": 0.4},
             vit_b16_staged={"accuracy": 0.9})  # fmt: skip
    table = pd.read_csv(folder / "pairwise_comparison.csv", keep_default_na=False)
    table["verdict"] = "no difference shown"
    table.to_csv(folder / "pairwise_comparison.csv", index=False)
    html = page(folder)
    marked = stars(html, "models")
    assert not any(marked["Accuracy"] + marked["Macro F1"])
    assert "Accuracy: ViT-B/16, staged leads, but no difference is shown to 3 of the 3 others" in html
    # 227, 205, 943 and 755 s; runs of one model have its size and its latency.
    assert marked["Training"] == [False, True, False, False]
    assert marked["Parameters"] == marked["GFLOPs"] == marked["One image"] == [True, True, False, False]
    of_accuracy = table["metric"] == "accuracy"
    names = ("vit_b16_staged",) * 2
    wins = of_accuracy & ((table["run_a"] == names[0]) | (table["run_b"] == names[1]))
    table.loc[wins, "verdict"] = "a is better"
    table.to_csv(folder / "pairwise_comparison.csv", index=False)
    assert stars(page(folder), "models")["Accuracy"] == [False, False, False, True]
    costs = stars(html, "costs")
    assert costs["Parameters"] == costs["One image"] == costs["Images/s"] == costs["Peak memory"] == [True, False]
    assert costs["Input"] == [False, False]
    # The latencies of two models whose intervals overlap are not told apart.
    for path in folder.glob("vit/*/*_run_metadata.json"):
        record = json.loads(path.read_text())
        record["cost"]["one_image_ms"] |= {"median": 6.3, "low": 6.0}
        path.write_text(json.dumps(record))
    html = page(folder)
    assert not any(stars(html, "models")["One image"] + stars(html, "costs")["One image"])
    assert "but its interval overlaps that of ViT-B/16, full and ViT-B/16, staged" in html


def test_runs_of_several_folders_are_marked_by_the_test_between_them(full, tmp_path):
    best = write_folder(tmp_path / "best", NAMES, ("resnet18_full",), share_right=1.1)
    low = write_folder(tmp_path / "low", NAMES, ("resnet50_full", "vit_b16_full"), share_right=0.3)
    html = page(low, best)
    marked = stars(html, "models")
    for title in ("Accuracy", "Macro F1", "Parameters", "GFLOPs", "One image"):
        assert marked[title] == [False, False, True], title
    assert any(stars(html, "precisions")["Weighted recall"])
    # Where the test images are others, what was counted and timed can still be compared.
    others = write_folder(tmp_path / "others", NAMES, ("resnet18_full",), share_right=1.1, num_test=5)
    marked = stars(page(full, others), "models")
    assert {title for title, column in marked.items() if any(column)} == {"Parameters", "GFLOPs", "One image"}


def test_times_that_were_measured_twice_or_elsewhere_are_no_winners(full, tmp_path):
    """A second measurement of the same model, 1 % apart, is no other model that it beats."""
    other = Path(shutil.copytree(full, tmp_path / "other"))

    def change(**changes):
        for path in other.glob("cnn/*/*_run_metadata.json"):
            record = json.loads(path.read_text())
            record["cost"] |= changes
            path.write_text(json.dumps(record))
        html = page(full, other)
        return stars(html, "models")["One image"], stars(html, "costs")["One image"]

    assert change() == ([True, True, False, False] * 2, [True, False] * 2)
    time = json.loads(record_path(other / "cnn" / "resnet50_full").read_text())["cost"]["one_image_ms"]
    assert not any(itertools.chain(*change(one_image_ms=time | {"median": 0.99 * time["median"]})))
    elsewhere = change(one_image_ms={"median": 1.0, "low": 0.9, "high": 1.1, "rounds": 9}, device_name="another")
    assert not any(itertools.chain(*elsewhere))


def test_a_run_among_several_seeds_is_not_marked_by_the_test_of_their_means(full, tmp_path):
    folder = Path(shutil.copytree(full, tmp_path / "copy"))
    views = run_views([read_runs_folder(folder)])
    table = pd.read_csv(folder / "pairwise_comparison.csv", keep_default_na=False)
    table["verdict"] = "a is better"
    views[2].run.metrics["accuracy"] = 0.99

    def accuracy(views):
        [at] = [each for each, (key, *_) in enumerate(SHOWN_MEASURES) if key == "accuracy"]
        return [row["cells"][at]["is_best"] for row in summary_table(views, table)["rows"]]

    assert accuracy(views) == [False, False, True, False]
    record = views[2].run.record
    config = dataclasses.replace(record.config, seed=43)
    record = dataclasses.replace(record, config=config, run_name=f"{record.run_name}_seed43")
    second = dataclasses.replace(views[2], run=Run(views[2].run.folder, record))
    assert sum(accuracy([*views, second])) == 0
