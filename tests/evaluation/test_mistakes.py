"""Mistakes and clusters against values worked out by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from dogs_accel.evaluation.mistakes import confident_mistakes, confusion_clusters, misclassified_table, most_confused
from dogs_accel.evaluation.predictions import Predictions

NAMES = ["akita", "beagle", "chow"]


def predictions(predicted, labels, sure=None):
    sure = np.full(len(labels), 3.0) if sure is None else np.asarray(sure)
    logits = np.zeros((len(labels), len(NAMES)), dtype=np.float32)
    logits[np.arange(len(labels)), predicted] = sure
    ids = np.array([f"image_{at}" for at in range(len(labels))])
    return Predictions(logits, np.asarray(labels, dtype=np.int64), ids)


def split_rows(rows):
    """(id, label, split) as the columns of split_metadata.csv that are read."""
    table = pd.DataFrame(rows, columns=["image_id", "label", "split"])
    return table.assign(image_path="/photos/" + table["image_id"] + ".jpg")


SPLITS = split_rows(
    [("train_b1", 1, "train"), ("train_a", 0, "train"), ("val_b", 1, "val"), ("train_b2", 1, "train")]
    + [(f"image_{at}", 0, "test") for at in range(5)]
)


def test_the_most_confident_mistakes_come_first_and_equals_in_their_order():
    test = predictions([1, 0, 1, 1, 2], [0, 0, 0, 0, 0], sure=[1, 9, 4, 4, 6])
    assert confident_mistakes(test).tolist() == [4, 2, 3, 0]
    assert confident_mistakes(test, num=2).tolist() == [4, 2]


def test_a_mistake_has_a_training_image_of_the_class_it_was_taken_for():
    test = predictions([1, 0, 1, 1, 2], [0, 0, 0, 0, 0], sure=[1, 9, 4, 3, 6])
    table = misclassified_table(test, NAMES, SPLITS)
    assert table["id"].tolist() == ["image_4", "image_2", "image_3", "image_0"]
    assert table["pred_class"].tolist() == ["chow", "beagle", "beagle", "beagle"]
    assert set(table["true_class"]) == {"akita"}
    # chow has no training image; beagle has two, and the third mistake starts again with the first
    assert table["example_path"].tolist() == [
        "", "/photos/train_b1.jpg", "/photos/train_b2.jpg", "/photos/train_b1.jpg"
    ]  # fmt: skip
    assert table["image_path"].tolist()[0] == "/photos/image_4.jpg"
    np.testing.assert_allclose(table["confidence"], [softmax([s, 0, 0])[0] for s in (6, 4, 3, 1)], rtol=1e-6)


def test_without_metadata_rows_the_paths_are_empty():
    table = misclassified_table(predictions([1], [0]), NAMES, SPLITS.iloc[:0])
    assert table[["image_path", "example_path"]].to_numpy().tolist() == [["", ""]]


def test_no_mistakes_are_an_empty_table():
    table = misclassified_table(predictions([0, 1], [0, 1]), NAMES, SPLITS)
    assert table.empty
    assert table.columns.tolist() == ["id", "image_path", "true_class", "pred_class", "confidence", "example_path"]


def test_clusters_are_the_classes_that_are_mistaken_for_each_other():
    names = list("abcdef")
    counts = np.diag([90, 90, 90, 100, 97, 0])
    counts[0, 1], counts[1, 0] = 10, 8  # a and b: 18 of 200
    counts[1, 2], counts[2, 1] = 2, 10  # b and c: 12 of 200
    counts[4, 3] = 3  # d and e: 3 of 200, too few; f has no image
    table = confusion_clusters(counts, names, share=0.05)
    # c joins a and b only if (0 + 0.06) / 2 reaches the share: it does not
    assert table.to_dict("records") == [
        {"cluster": 1, "classes": "a; b", "num_confusions": 18, "share_of_mistakes": 18 / 33}
    ]
    table = confusion_clusters(counts, names, share=0.03)
    assert table[["classes", "num_confusions"]].to_numpy().tolist() == [["a; b; c", 30]]
    table = confusion_clusters(counts, names, share=0.015)
    assert table[["cluster", "classes", "num_confusions"]].to_numpy().tolist() == [[1, "a; b; c", 30], [2, "d; e", 3]]


def test_clusters_do_not_depend_on_the_order_of_the_classes():
    counts = np.random.default_rng(0).integers(0, 9, (8, 8)) + np.diag([60] * 8)
    names = np.array(list("abcdefgh"))
    shuffled = np.random.default_rng(1).permutation(8)
    one = confusion_clusters(counts, list(names), share=0.05)
    two = confusion_clusters(counts[np.ix_(shuffled, shuffled)], list(names[shuffled]), share=0.05)
    groups = [{frozenset(names.split("; ")) for names in table["classes"]} for table in (one, two)]
    assert groups[0] == groups[1]
    assert one["num_confusions"].tolist() == two["num_confusions"].tolist()
    assert len(one) >= 2


@pytest.mark.parametrize("counts", [np.diag([5, 5]), np.array([[5]]), np.zeros((3, 3), dtype=np.int64)])
def test_without_confusions_there_is_no_cluster(counts):
    assert confusion_clusters(counts, NAMES[: len(counts)]).empty


def test_the_classes_shown_are_those_with_the_most_mistakes_between_them():
    """Against every choice of four classes of eight, where one group stands out."""
    random = np.random.default_rng(0)
    counts = random.integers(0, 3, (8, 8))
    group = [1, 3, 4, 6]
    counts[np.ix_(group, group)] += 5
    np.fill_diagonal(counts, 1000)
    mistakes = counts - np.diag(counts.diagonal())
    best = max(itertools.combinations(range(8), 4), key=lambda labels: mistakes[np.ix_(labels, labels)].sum())
    assert most_confused(counts, 4).tolist() == list(best) == group
    assert most_confused(counts, 8).tolist() == most_confused(counts, 40).tolist() == list(range(8))
    # Of classes that nothing is mistaken for the first are shown.
    assert most_confused(np.diag([5, 5, 5, 5]), 2).tolist() == [0, 1]
    # A class with many mistakes to a class that is left out alone is not kept for them.
    lone = np.zeros((5, 5), dtype=np.int64)
    lone[np.ix_([0, 1, 2], [0, 1, 2])] = 4
    lone[3, 4] = 10
    assert most_confused(lone, 3).tolist() == [0, 1, 2]
    assert lone[0, 0] == 4
