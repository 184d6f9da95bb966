import dataclasses
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from dogs_accel.datasets.layouts.stanford_dogs import stanford_dogs_facts
from dogs_accel.datasets.published.stanford_dogs import STANFORD_DOGS
from dogs_accel.report.claims import INCOMPARABLE, NOT_MEASURED, NOT_REPRODUCED, REPRODUCED, judge_claims, write_claims
from dogs_accel.results.folder import read_runs_folder
from dogs_accel.training.phases import strategy_phases
from tests.support.finished_folders import PLAIN, write_folder

BREEDS = ["Chihuahua", "Japanese spaniel", "Maltese dog", "Pekinese", "Shih-Tzu"]


def judged(folder):
    return {(row["subject"], row["figure"]): row for row in judge_claims(read_runs_folder(folder))}


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def paper(large_folder, tmp_path):
    """As if the published experiment had been run: its sizes, its accuracies, an interval of 1 % either way."""
    folder = Path(shutil.copytree(large_folder, tmp_path / "paper"))
    published = {row.subject: row.value for row in STANFORD_DOGS.claims if row.figure == "test accuracy"}
    for path in folder.glob("*/*/*_run_metadata.json"):
        edit(path, lambda record: record.update(num_images=dict(STANFORD_DOGS.num_images)))

        def set_accuracy(metrics, name=path.parent.name):
            value = published[name]
            metrics["accuracy"] = value + 0.004
            metrics["intervals"]["accuracy"] = [value - 0.006, value + 0.014]

        edit(path.parent / "metrics.json", set_accuracy)
    return folder


def test_a_run_of_another_strategy_does_not_stand_for_the_published_one(paper):
    path = paper / "cnn" / "resnet50_full" / "resnet50_full_run_metadata.json"
    [layerwise], [full] = (strategy_phases(strategy, "cnn") for strategy in ("layerwise", "full"))
    for phase, reason in (
        (layerwise, "no run of ResNet-50 with the full schedule here"),
        (dataclasses.replace(full, label_smoothing=0.1), "another schedule: "),
    ):
        written = [phase.as_dict()]
        edit(path, lambda record, written=written: record["config"].update(phases=written))
        row = judged(paper)["resnet50_full", "test accuracy"]
        assert row["reason"].startswith(reason)
        assert row["verdict"] in (INCOMPARABLE, NOT_MEASURED)


@pytest.mark.parametrize("facts", [PLAIN, stanford_dogs_facts("synthetic")], ids=lambda facts: facts.name)
def test_of_data_about_which_nothing_was_published_nothing_is_claimed(facts, tmp_path):
    assert judged(write_folder(tmp_path / "demo", ["a", "b", "c"], ("resnet18_full",), facts=facts)) == {}


def test_of_a_subset_nothing_is_judged(tmp_path):
    facts = stanford_dogs_facts("stanford-dogs-subset")
    names = ("resnet18_full", "resnet18_staged")
    rows = judged(write_folder(tmp_path / "demo", ["a", "b", "c"], names, facts=facts))
    assert {row["verdict"] for (subject, _), row in rows.items() if subject != "data"} == {INCOMPARABLE, NOT_MEASURED}
    data = [row for (subject, _), row in rows.items() if subject == "data"]
    assert {row["verdict"] for row in data} == {INCOMPARABLE, NOT_MEASURED}
    assert rows["data", "breeds"]["ours"] == 3
    assert rows["data", "breeds"]["reason"] == (
        "other data: 3 breeds, 12 / 6 / 24 images; published: 120, 10,200 / 1,800 / 8,580"
    )
    other = rows["resnet50_full", "test accuracy"]
    assert (other["verdict"], other["ours"]) == (INCOMPARABLE, None)
    assert other["reason"] == "another model: ResNet-18 (resnet18_full), published ResNet-50"
    absent = rows["vit_b16_full", "test accuracy"]
    assert (absent["verdict"], absent["ours"], absent["interval"]) == (NOT_MEASURED, None, None)


def test_what_was_not_measured_has_no_figure(tmp_path):
    for row in judged(write_folder(tmp_path / "demo", ["a", "b", "c"])).values():
        assert row["verdict"] != NOT_MEASURED or row["ours"] is None
        assert row["verdict"] == REPRODUCED or row["reason"], row


def test_accuracy_is_reproduced_where_the_published_value_lies_in_our_interval(paper):
    rows = judged(paper)
    assert rows["vit_b16_staged", "test accuracy"]["verdict"] == REPRODUCED
    assert rows["vit_b16_staged", "test accuracy"]["run"] == "vit_b16_staged"
    assert rows["data", "test images"]["verdict"] == REPRODUCED
    assert rows["resnet50_full", "parameters"]["verdict"] == REPRODUCED
    assert rows["resnet50_staged", "phases"]["ours"] == "head_only(3, 0.001) -> full_finetune(8, 0.0001)"
    assert rows["resnet50_staged", "learning rate after epoch 1"]["verdict"] == REPRODUCED
    every = " ".join(("resnet50_full", "resnet50_staged", "vit_b16_full", "vit_b16_staged"))
    # The saved answers, which were not set to the published accuracies, tell the runs not apart.
    assert rows[every, "highest test accuracy"]["verdict"] == INCOMPARABLE
    assert rows[every, "highest test accuracy"]["reason"].startswith("no difference shown between vit_b16_staged and ")
    (paper / "pairwise_comparison.csv").unlink()
    assert judged(paper)[every, "highest test accuracy"]["verdict"] == REPRODUCED
    # The interval's end, and half of the last published digit beyond it.
    for low, verdict in ((0.93484, REPRODUCED), (0.93486, NOT_REPRODUCED)):
        edit(paper / "vit/vit_b16_staged/metrics.json",
             lambda metrics, low=low: metrics["intervals"].update(accuracy=[low, 0.95]))  # fmt: skip
        assert judged(paper)["vit_b16_staged", "test accuracy"]["verdict"] == verdict


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda record: record.update(weights="ResNet-50: random weights"), "other weights: ResNet-50: random weights"),
        (lambda record: record["config"]["phases"][0].update(lr=1e-3), "another schedule"),
        (lambda record: record["config"].update(batch_size=64), "other input: batch 64, 224 px; published: 32, 224 px"),
        (lambda record: record["train_recipe"].update(flip=0.0), "another training recipe: flip"),
        (
            lambda record: record.update(num_images={"train": 1, "val": 2, "test": 3}),
            "other data: 120 breeds, 1 / 2 / 3",
        ),
        (lambda record: record.update(cache_features=True), "another experiment"),
    ],
)
def test_another_experiment_cannot_be_compared(paper, change, reason):
    edit(paper / "cnn/resnet50_full/resnet50_full_run_metadata.json", change)
    row = judged(paper)["resnet50_full", "test accuracy"]
    assert row["verdict"] == INCOMPARABLE
    assert row["reason"].startswith(reason)
    assert row["ours"] == pytest.approx(0.8597)


def test_of_runs_of_one_model_the_one_with_the_published_schedule_is_judged(paper):
    own, other = (paper / "cnn" / name for name in ("resnet50_full", "resnet50_full-hot"))
    shutil.copytree(own, other)
    (other / "resnet50_full_run_metadata.json").rename(other / "resnet50_full-hot_run_metadata.json")

    def as_first(record):
        record["config"]["phases"][0].update(lr=1e-3)
        record.update(run_name="resnet50_full-hot", created_at="")

    edit(other / "resnet50_full-hot_run_metadata.json", as_first)
    row = judged(paper)["resnet50_full", "test accuracy"]
    assert (row["verdict"], row["run"]) == (REPRODUCED, "resnet50_full")


def test_time_is_judged_on_the_published_hardware_only(paper):
    assert judged(paper)["vit_b16_full", "training seconds"]["reason"].startswith("other hardware: AMD EPYC")
    edit(paper / "environment.json", lambda env: env.update(gpus=[{"name": "NVIDIA A100 80GB PCIe"}]))
    for path in paper.glob("*/*/*_run_metadata.json"):
        edit(path, lambda record: record.update(device="cuda"))
    assert judged(paper)["vit_b16_full", "training seconds"]["verdict"] == REPRODUCED
    edit(paper / "vit/vit_b16_full/vit_b16_full_run_metadata.json", lambda record: record.update(training_seconds=300))
    assert judged(paper)["vit_b16_full", "training seconds"]["verdict"] == NOT_REPRODUCED


def test_a_run_stands_for_the_published_one_whatever_its_family_is_called(paper):
    edit(paper / "cnn/resnet50_staged/resnet50_staged_run_metadata.json",
         lambda record: record["config"].update(family="residual"))  # fmt: skip
    row = judged(paper)["resnet50_staged", "test accuracy"]
    assert (row["verdict"], row["run"]) == (REPRODUCED, "resnet50_staged")
    assert row["reason"].endswith("; BatchNorm of the frozen backbone keeps its statistics, published it did not")
    assert "BatchNorm" not in judged(paper)["vit_b16_staged", "test accuracy"]["reason"]


def test_a_figure_without_an_interval_is_not_judged(paper):
    edit(paper / "cnn/resnet50_full/metrics.json", lambda metrics: metrics["intervals"].pop("ece"))
    row = judged(paper)["resnet50_full", "ECE, 10 bins"]
    assert (row["verdict"], row["reason"]) == (INCOMPARABLE, "metrics.json has no interval of it")


def test_a_gain_is_judged_by_the_paired_interval_in_either_order(paper):
    path = paper / "pairwise_comparison.csv"
    table = pd.DataFrame([{"run_a": "resnet50_staged", "run_b": "resnet50_full", "metric": "accuracy", "low": -0.02,
                           "high": -0.001}])  # fmt: skip
    table.to_csv(path, index=False)
    row = judged(paper)["resnet50_full resnet50_staged", "gain of accuracy by the staged schedule"]
    assert (row["interval"], row["verdict"]) == ([0.001, 0.02], REPRODUCED)


def test_the_file_has_every_claim_and_its_rules(paper):
    content = json.loads(write_claims(paper, judge_claims(read_runs_folder(paper))).read_text())
    assert len(content["claims"]) == len(STANFORD_DOGS.claims) == sum(content["counts"].values())
    assert "exact" in " ".join(content["rules"])
    # Items 0.9's table of results: five figures of four runs.
    results = [claim for claim in STANFORD_DOGS.claims if claim.measure[0] in ("test", "seconds")]
    assert len(results) == 20
    # Three scores of five breeds for two runs, and F1 of the six that are hardest for one of them.
    breeds = [claim for claim in STANFORD_DOGS.claims if claim.measure[0] == "class"]
    assert len(breeds) == 36
    [hardest] = [claim for claim in breeds if claim.value == 0.390]
    assert (hardest.subject, hardest.figure, hardest.decimals) == ("resnet50_staged", "F1 of Eskimo dog", 3)


def test_another_split_of_the_published_images_is_not_reproduced(paper):
    for path in paper.glob("*/*/*_run_metadata.json"):
        edit(path, lambda record: record.update(num_images={"train": 9_600, "val": 2_400, "test": 8_580}))
    rows = judged(paper)
    assert rows["data", "train images"]["verdict"] == NOT_REPRODUCED
    assert rows["data", "test images"]["verdict"] == REPRODUCED
    assert rows["resnet50_full", "macro F1"]["verdict"] == INCOMPARABLE
    assert rows["resnet50_full", "macro F1"]["reason"].startswith("another split: 120 breeds, 9,600 / 2,400 / 8,580")
