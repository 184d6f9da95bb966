import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from dogs_accel.evaluation.metrics import (
    evaluate_predictions,
)
from dogs_accel.evaluation.scores import ScoreCounter, f1_scores, precision_recall_scores


@pytest.mark.parametrize("batch_size", [7, 400])
def test_scores_add_up_over_batches(predictions, batch_size):
    logits, labels = torch.from_numpy(predictions.logits), torch.from_numpy(predictions.labels)
    counter = ScoreCounter(12, torch.device("cpu"))
    for at in range(0, 400, batch_size):
        part = slice(at, at + batch_size)
        counter.add(torch.nn.functional.cross_entropy(logits[part], labels[part]), logits[part], labels[part])
    scores = counter.scores()
    assert scores.loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-6)
    assert scores.accuracy == evaluate_predictions(predictions)["accuracy"]
    assert (scores.macro_f1, scores.weighted_f1) == f1_scores(
        confusion_matrix(predictions.labels, predictions.predicted, labels=np.arange(12))
    )


def test_f1_of_nothing():
    assert f1_scores(np.zeros((3, 3), dtype=np.int64)) == (0.0, 0.0)


def test_precision_and_recall_of_nothing():
    assert set(precision_recall_scores(np.zeros((3, 3), dtype=np.int64)).values()) == {0.0}


def test_precision_and_recall_by_hand():
    """Of three classes the second is never predicted, and the last is predicted and never true."""
    counts = np.array([[3, 0, 1], [2, 0, 0], [0, 0, 0]])
    assert precision_recall_scores(counts) == pytest.approx(
        {
            "macro_precision": (3 / 5 + 0 + 0) / 3,
            "weighted_precision": (4 * 3 / 5 + 2 * 0) / 6,
            "macro_recall": (3 / 4 + 0 + 0) / 3,
            "weighted_recall": 3 / 6,
        }
    )
