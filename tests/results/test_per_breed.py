"""Scores a breed against scikit-learn's, and the table of a folder of runs."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from dogs_accel.evaluation.per_breed import breed_scores
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.results.folder import read_runs_folder
from dogs_accel.results.layout import logits_file
from dogs_accel.results.per_breed import best_of_families, per_breed_figure, per_breed_table, write_per_breed
from dogs_accel.results.run import Run


def predictions(logits, labels, ids=None):
    ids = np.array([f"n{at}" for at in range(len(labels))]) if ids is None else ids
    return Predictions(np.asarray(logits, dtype=np.float32), np.asarray(labels, dtype=np.int64), ids)


def test_the_scores_are_scikit_learns_where_they_are_defined():
    random = np.random.default_rng(0)
    labels = random.integers(0, 9, 400)  # breed 9 has no image
    logits = random.normal(size=(400, 10)) + 2 * np.eye(10)[labels]
    logits[:, 8] -= 100  # breed 8 is never predicted
    test = predictions(logits, labels)
    scores = breed_scores(confusion_matrix(labels, test.predicted, labels=range(10)))
    expected = precision_recall_fscore_support(labels, test.predicted, labels=range(10), zero_division=np.nan)
    np.testing.assert_allclose(scores.precision, expected[0])
    np.testing.assert_allclose(scores.recall, expected[1])
    np.testing.assert_allclose(scores.f1[:9], expected[2][:9])
    assert scores.num_images.tolist() == expected[3].tolist()
    assert np.isnan(scores.precision[8])
    assert scores.f1[8] == 0
    assert np.isnan([scores.recall[9], scores.f1[9]]).all()
    assert scores.precision[9] == 0


@pytest.fixture
def two_families(tiny_results, tmp_path):
    """The tiny run, and another one of the other family, with its own logits."""
    out = tmp_path / "two"
    shutil.copytree(tiny_results, out)
    folder = out / "vit" / "vit_full"
    shutil.copytree(out / "cnn" / "resnet18_full", folder)
    record = json.loads((folder / "resnet18_full_run_metadata.json").read_text())
    (folder / "resnet18_full_run_metadata.json").unlink()
    record |= {"run_name": "vit_full", "created_at": "2999-01-01", "display_name": "A ViT"}
    record["config"]["family"] = "vit"
    (folder / "vit_full_run_metadata.json").write_text(json.dumps(record))
    test = Predictions.load(folder / "test_logits.npz")
    logits = np.random.default_rng(0).normal(size=test.logits.shape) + np.eye(4)[test.labels]
    predictions(logits, test.labels, test.ids).save(folder / "test_logits.npz")
    return out


@pytest.mark.slow
def test_all_runs_stand_side_by_side(two_families):
    written = write_per_breed(two_families, read_runs_folder(two_families).runs)
    assert [path.name for path in written] == ["per_breed_comparison.csv", "per_breed_comparison.png"]
    table = pd.read_csv(written[0])
    assert table["breed"].tolist() == read_runs_folder(two_families).runs[0].class_names
    assert table["num_images"].tolist() == [6] * 4
    assert set(table["best_cnn_run"]) == {"resnet18_full"}
    assert set(table["best_vit_run"]) == {"vit_full"}
    for run in read_runs_folder(two_families).runs:
        test = run.predictions("test")
        scores = breed_scores(confusion_matrix(test.labels, test.predicted, labels=range(4)))
        for name in ("precision", "recall", "f1"):
            np.testing.assert_allclose(table[f"{run.name}_{name}"], getattr(scores, name))
    np.testing.assert_allclose(table["f1_difference"], table["vit_full_f1"] - table["resnet18_full_f1"])


@pytest.mark.slow
def test_one_family_has_a_table_and_no_picture(tiny_results, two_families):
    write_per_breed(two_families, read_runs_folder(two_families).runs)
    shutil.rmtree(two_families / "vit")
    [written] = write_per_breed(two_families, read_runs_folder(two_families).runs)
    assert "f1_difference" not in pd.read_csv(written)
    assert not (two_families / "per_breed_comparison.png").exists()


@pytest.mark.slow
def test_runs_of_other_images_are_refused(two_families):
    path = two_families / "vit" / "vit_full" / "test_logits.npz"
    test = Predictions.load(path)
    predictions(test.logits[1:], test.labels[1:], test.ids[1:]).save(path)
    with pytest.raises(ValueError, match="vit_full has other breeds or test images than resnet18_full"):
        per_breed_table(read_runs_folder(two_families).runs)


@pytest.mark.slow
def test_of_repeats_the_configuration_of_highest_mean_is_the_best(two_families):
    """One lucky seed does not win: the single run of accuracy 0.6 does, against 0.9 and 0.1."""
    [first, _] = read_runs_folder(two_families).runs
    labels, ids = first.predictions("test").labels, first.predictions("test").ids

    def run(name, strategy, seed, share):
        right = np.arange(len(labels)) < round(share * len(labels))
        test = predictions(np.eye(4)[np.where(right, labels, (labels + 1) % 4)], labels, ids)
        config = replace(first.record.config, strategy=strategy, seed=seed)
        record = replace(first.record, run_name=name, config=config)
        return Run(first.folder, record, {logits_file("test"): test})

    repeats = [run("a_seed1", "a", 1, 0.1), run("a_seed2", "a", 2, 0.9), run("b", "b", 1, 0.6), run("c", "c", 1, 0.6)]
    assert best_of_families(repeats) == {"cnn": "b"}


def test_a_breed_without_test_images_is_left_out_of_the_picture():
    table = pd.DataFrame({"breed": ["a", "b$x$", "c"], "num_images": [5, 7, 0], "best_cnn_f1": [0.5, 0.7, np.nan],
                          "best_vit_f1": [0.6, 0.7, np.nan], "f1_difference": [0.1, 0.0, np.nan]})  # fmt: skip
    figure = per_breed_figure(table, {"cnn": "A CNN", "vit": "A ViT"})
    scatter, largest = figure.axes
    assert scatter.get_title() == "1 breeds above the line, 0 below, 1 on it"
    assert [label.get_text() for label in largest.get_yticklabels()] == ["a (5)"]
    with pytest.raises(ValueError, match="no breed with a test image"):
        per_breed_figure(table.iloc[2:], {"cnn": "A CNN", "vit": "A ViT"})


def test_of_120_breeds_the_15_largest_gaps_are_named():
    random = np.random.default_rng(0)
    cnn, vit = random.uniform(0.5, 1, (2, 120))
    table = pd.DataFrame({"breed": [f"breed {at}" for at in range(120)], "num_images": 70, "best_cnn_f1": cnn,
                          "best_vit_f1": vit, "f1_difference": vit - cnn})  # fmt: skip
    figure = per_breed_figure(table, {"cnn": "A CNN", "vit": "A ViT"})
    named = {label.get_text() for label in figure.axes[1].get_yticklabels()}
    assert named == {f"breed {at} (70)" for at in np.argsort(-np.abs(vit - cnn))[:15]}
