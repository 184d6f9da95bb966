"""Scores a class against scikit-learn's, and the table of a folder of runs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from dogs_accel.evaluation.per_class import class_scores
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.results.folder import read_runs_folder
from dogs_accel.results.layout import CLASSES_FILE, METRICS_FILE, logits_file
from dogs_accel.results.per_class import per_class_figure, per_class_table, write_per_class
from dogs_accel.results.reading import read_table
from dogs_accel.results.record import FINISHED, RunConfig, RunRecord
from dogs_accel.results.run import Run
from tests.support.finished_folders import PLAIN, STANFORD_DOGS

NAMES = ["001", "NA", "accuracy", "Unnamed: 0"]
LABELS = np.repeat(np.arange(4), 6)


def predictions(logits, labels, ids=None):
    ids = np.array([f"n{at}" for at in range(len(labels))]) if ids is None else ids
    return Predictions(np.asarray(logits, dtype=np.float32), np.asarray(labels, dtype=np.int64), ids)


def run(name, family, num_right, ids=None):
    """A run on 24 images of 4 classes, of which it has the first ones right and the others one class too far."""
    config = RunConfig(seed=42, family=family, phases=[], dataset="none", strategy=name, batch_size=32, image_size=224,
                       model_name=name, num_classes=4, total_params=1)  # fmt: skip
    record = RunRecord(run_id=name, run_name=name, display_name=f"The {name}", state=FINISHED, config=config)
    answers = np.where(np.arange(24) < num_right, LABELS, (LABELS + 1) % 4)
    report = pd.DataFrame({"Unnamed: 0": [*NAMES, "accuracy", "macro avg", "weighted avg"]})
    known = {
        METRICS_FILE: {"accuracy": num_right / 24},
        CLASSES_FILE: report,
        logits_file("test"): predictions(np.eye(4)[answers], LABELS, ids),
    }
    return Run(Path("/none") / name, record, known)


def test_the_scores_are_scikit_learns_where_they_are_defined():
    random = np.random.default_rng(0)
    labels = random.integers(0, 9, 400)  # class 9 has no image
    logits = random.normal(size=(400, 10)) + 2 * np.eye(10)[labels]
    logits[:, 8] -= 100  # class 8 is never predicted
    test = predictions(logits, labels)
    scores = class_scores(confusion_matrix(labels, test.predicted, labels=range(10)))
    expected = precision_recall_fscore_support(labels, test.predicted, labels=range(10), zero_division=np.nan)
    np.testing.assert_allclose(scores.precision, expected[0])
    np.testing.assert_allclose(scores.recall, expected[1])
    np.testing.assert_allclose(scores.f1[:9], expected[2][:9])
    assert scores.num_images.tolist() == expected[3].tolist()
    assert np.isnan(scores.precision[8])
    assert scores.f1[8] == 0
    assert np.isnan([scores.recall[9], scores.f1[9]]).all()
    assert scores.precision[9] == 0


def test_all_runs_stand_side_by_side_and_the_best_against_the_runner_up(tmp_path):
    runs = [run("net", "cnn", 12), run("former", "vit", 20), run("mixer", "mixer", 18)]
    written = write_per_class(tmp_path, runs, PLAIN)
    assert [path.name for path in written] == ["per_class_comparison.csv", "per_class_comparison.png"]
    table = read_table(written[0])
    assert table.columns.tolist() == [
        "class", "num_images", "net_precision", "net_recall", "net_f1", "former_precision", "former_recall",
        "former_f1", "mixer_precision", "mixer_recall", "mixer_f1", "best_run", "best_f1", "runner_up_run",
        "runner_up_f1", "f1_difference",
    ]  # fmt: skip
    assert table["class"].tolist() == NAMES
    assert table["num_images"].tolist() == [6] * 4
    assert set(table["best_run"]) == {"former"}
    assert set(table["runner_up_run"]) == {"mixer"}
    # 20 right of 24: the last four images of the last class are taken for the first one.
    assert table["former_recall"].tolist() == pytest.approx([1, 1, 1, 2 / 6])
    assert table["former_precision"].tolist() == pytest.approx([6 / 10, 1, 1, 1])
    assert table["best_f1"].tolist() == pytest.approx([12 / 16, 1, 1, 4 / 8])
    assert table["runner_up_f1"].tolist() == pytest.approx([12 / 18, 1, 1, 0])
    assert table["f1_difference"].tolist() == pytest.approx([12 / 16 - 12 / 18, 0, 0, 0.5])


def test_two_of_one_family_are_compared_and_one_alone_is_not(tmp_path):
    first, *_ = write_per_class(tmp_path, [run("net", "cnn", 12), run("other", "cnn", 20)], PLAIN)
    assert read_table(first)[["best_run", "runner_up_run"]].drop_duplicates().to_numpy().tolist() == [["other", "net"]]
    assert (tmp_path / "per_class_comparison.png").exists()
    [written] = write_per_class(tmp_path, [run("net", "cnn", 12)], PLAIN)
    assert read_table(written).columns[-2:].tolist() == ["best_run", "best_f1"]
    assert not (tmp_path / "per_class_comparison.png").exists()


def test_runs_of_other_images_are_refused():
    other = run("other", "vit", 12, ids=np.array([f"m{at}" for at in range(24)]))
    with pytest.raises(ValueError, match="other has other classes or test images than net"):
        per_class_table([run("net", "cnn", 12), other])


def table_of(names, best, runner_up, num_images=70):
    best, runner_up = np.asarray(best), np.asarray(runner_up)
    return pd.DataFrame({"class": names, "num_images": num_images, "best_f1": best, "runner_up_f1": runner_up,
                         "f1_difference": best - runner_up})  # fmt: skip


def test_a_class_without_test_images_is_left_out_of_the_picture():
    table = table_of(["a", "b$x$", "c"], [0.6, 0.7, np.nan], [0.5, 0.7, np.nan], [5, 7, 0])
    figure = per_class_figure(table, ["A ViT", "A CNN"], ["vit", "cnn"], PLAIN)
    scatter, largest = figure.axes
    assert scatter.get_title() == "1 class above the line, 0 below, 1 on it"
    assert (scatter.get_ylabel(), scatter.get_xlabel()) == ("F1 of A ViT", "F1 of A CNN")
    assert [label.get_text() for label in largest.get_yticklabels()] == ["a (5)"]
    with pytest.raises(ValueError, match="no class with a test image"):
        per_class_figure(table.iloc[2:], ["A ViT", "A CNN"], ["vit", "cnn"], PLAIN)


def test_of_120_classes_the_15_largest_gaps_are_named():
    random = np.random.default_rng(0)
    cnn, vit = random.uniform(0.5, 1, (2, 120))
    figure = per_class_figure(table_of([f"{at}" for at in range(120)], vit, cnn), ["a", "b"], ["vit", "cnn"], PLAIN)
    named = {label.get_text() for label in figure.axes[1].get_yticklabels()}
    assert named == {f"{at} (70)" for at in np.argsort(-np.abs(vit - cnn))[:15]}


@pytest.mark.parametrize(
    ("families", "title"),
    [
        (["vit", "cnn"], "F1 of the 2 breeds: the best run against the best one of another family"),
        (["cnn", "cnn"], "F1 of the 2 breeds: the best run against the runner-up"),
        (["mixer", "residual"], "F1 of the 2 breeds: the best run against the best one of another family"),
    ],
)
def test_the_picture_has_the_words_of_the_data_and_a_colour_for_each_of_the_two(families, title):
    figure = per_class_figure(table_of(["a", "b"], [0.9, 0.4], [0.5, 0.6]), ["x", "y"], families, STANFORD_DOGS)
    assert figure.get_suptitle() == title
    best, runner_up = (to_hex(label.get_color()) for label in (figure.axes[0].yaxis.label, figure.axes[0].xaxis.label))
    assert best != runner_up
    assert [to_hex(line.get_color()) for line in figure.axes[1].get_lines()] == [best, runner_up]
    assert "Test images a breed: 70." in figure.get_supxlabel()


def test_a_finished_folder_is_compared_from_its_files(full_folder):
    runs = read_runs_folder(full_folder).runs
    table = per_class_table(runs)
    assert table["class"].tolist() == runs[0].class_names
    for each in runs:
        test = each.predictions("test")
        scores = class_scores(confusion_matrix(test.labels, test.predicted, labels=range(5)))
        for name in ("precision", "recall", "f1"):
            np.testing.assert_allclose(table[f"{each.name}_{name}"], getattr(scores, name))
