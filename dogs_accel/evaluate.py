"""Logits of a split, and everything that follows from them without the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import nn
from tqdm import tqdm

from dogs_accel.amp import autocast
from dogs_accel.calibration import expected_calibration_error
from dogs_accel.distributed import ALONE, World, gather_samples
from dogs_accel.files import replacing
from dogs_accel.scores import f1_scores
from pipelines.batch import Loader

PUBLISHED_BINS = 10
"""Bins of the published ECE; 15 is the other common choice, so both are reported."""


@dataclass(frozen=True)
class Predictions:
    """What a model says of a split: enough to answer every later question without it."""

    logits: NDArray[np.float32]
    """(N, C)"""
    labels: NDArray[np.int64]
    """(N,)"""
    ids: NDArray[np.str_]
    """(N,) image ids."""

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) class with the largest logit, the first of equals."""
        return self.logits.argmax(axis=1).astype(np.int64)

    def save(self, path: Path) -> Path:
        """Write an .npz with the arrays logits, labels and ids."""
        with replacing(path) as temporary:
            np.savez_compressed(temporary, logits=self.logits, labels=self.labels, ids=self.ids)
        return path

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["logits"], arrays["labels"], arrays["ids"])


@torch.inference_mode()
def predict(
    model: nn.Module,
    loader: Loader,
    ids: Sequence[str],
    *,
    amp: torch.dtype | None = None,
    world: World = ALONE,
    label: str = "",
) -> Predictions:
    """Run a model over an evaluation loader; ids are those of the loader's dataset, in its order.

    The processes of a world share the samples, and each returns the predictions of all, in the dataset's order.
    """
    model.eval()
    logits, labels, index = [], [], []
    quiet = None if world.is_first else True
    with tqdm(total=loader.num_samples, desc=label, unit=" img", leave=False, disable=quiet, delay=0.5) as bar:
        for batch in loader:
            with autocast(loader.device, amp):
                logits.append(model(batch.images).float())
            labels.append(batch.labels)
            index.append(batch.index)
            bar.update(len(batch.labels))
    every_logit, every_label = gather_samples(world, index, (logits, labels), loader.dataset_size)
    return Predictions(every_logit.numpy(), every_label.numpy(), np.asarray(ids, dtype=np.str_))


def evaluate_predictions(predictions: Predictions) -> dict[str, Any]:
    """Compute the scores of a split.

    accuracy (with its 95 % Wilson interval), top-5 accuracy, macro and weighted F1 over all classes, and the
    expected calibration error with 10 bins (the published number) and with 15.
    """
    labels, predicted = predictions.labels, predictions.predicted
    num_classes = predictions.logits.shape[1]
    correct = int((labels == predicted).sum())
    interval = binomtest(correct, len(labels)).proportion_ci(0.95, method="wilson")
    macro, weighted = f1_scores(confusion_matrix(labels, predicted, labels=np.arange(num_classes)))
    logits = torch.from_numpy(predictions.logits)
    top5 = logits.topk(min(5, num_classes), dim=1).indices.eq(torch.from_numpy(labels)[:, None]).any(dim=1)
    return {
        "num_images": len(labels),
        "num_correct": correct,
        "accuracy": correct / len(labels),
        "accuracy_ci95": [float(interval.low), float(interval.high)],
        "top5_accuracy": float(top5.double().mean()),
        "macro_f1": macro,
        "weighted_f1": weighted,
        "ece": expected_calibration_error(logits, torch.from_numpy(labels), bins=PUBLISHED_BINS),
        "ece_bins": PUBLISHED_BINS,
        "ece_15": expected_calibration_error(logits, torch.from_numpy(labels), bins=15),
    }


def report_table(predictions: Predictions, class_names: Sequence[str]) -> pd.DataFrame:
    """Tabulate precision, recall, F1 and support of each class, with scikit-learn's closing rows.

    The accuracy row has a score and the number of images; the published file repeated the score in every column.
    """
    labels, predicted = predictions.labels, predictions.predicted
    every = np.arange(len(class_names))

    def scores(average: str | None) -> Any:
        return precision_recall_fscore_support(labels, predicted, labels=every, average=average, zero_division=0.0)

    total = len(labels)
    accuracy = float((labels == predicted).mean())
    rows = [*zip(*scores(None), strict=True), (None, None, accuracy, total)]
    rows += [(*scores(average)[:3], total) for average in ("macro", "weighted")]
    return pd.DataFrame(
        rows,
        columns=["precision", "recall", "f1-score", "support"],
        index=[*class_names, "accuracy", "macro avg", "weighted avg"],
    )


def top_confusions(counts: NDArray[np.int64], class_names: Sequence[str], most: int = 20) -> pd.DataFrame:
    """List the commonest mistakes of a confusion matrix (C, C): true_class, pred_class, count, row_normalized."""
    mistakes = counts.copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:most]
    true, predicted = np.unravel_index(order[mistakes.ravel()[order] > 0], counts.shape)
    return pd.DataFrame(
        {
            "true_class": [class_names[i] for i in true],
            "pred_class": [class_names[i] for i in predicted],
            "count": counts[true, predicted],
            "row_normalized": counts[true, predicted] / counts.sum(axis=1)[true],
        }
    )
