"""Classification scores that need only the counts of a confusion matrix, summed up where the logits are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dogs_accel.runtime.processes import ALONE, World


@dataclass(frozen=True)
class Scores:
    """Scores of one pass over a split."""

    loss: float
    accuracy: float
    macro_f1: float
    weighted_f1: float

    def as_columns(self, split: str) -> dict[str, float]:
        """Return the scores under the names of the published histories, such as val_acc."""
        values = {"loss": self.loss, "acc": self.accuracy, "macro_f1": self.macro_f1, "weighted_f1": self.weighted_f1}
        return {f"{split}_{name}": value for name, value in values.items()}


class ScoreCounter:
    """Adds up loss and confusion counts on the device of the logits; only `scores` waits for the device."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.num_classes = num_classes
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self._counts = torch.zeros(num_classes * num_classes, dtype=torch.float64, device=device)

    def add(
        self,
        loss: torch.Tensor,
        logits: torch.Tensor,
        labels: torch.Tensor,
        mixed: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        """Add a batch: its mean loss, logits (B, C) and labels (B,).

        mixed: where images were mixed, the labels (B,) of those mixed in and lam (). An image then counts lam in the
        row of its own label and 1 - lam in that of the other, so that its accuracy is lam [answer = label] +
        (1 - lam) [answer = other].
        """
        self._loss_sum += loss.detach().double() * len(labels)
        predicted = logits.detach().argmax(dim=1)
        if mixed is None:
            self._count(labels, predicted, torch.ones_like(predicted, dtype=torch.float64))
            return
        others, lam = mixed[0][: len(labels)], mixed[1].double().expand(len(labels))
        self._count(labels, predicted, lam)
        self._count(others, predicted, 1 - lam)

    def _count(self, labels: torch.Tensor, predicted: torch.Tensor, weights: torch.Tensor) -> None:
        # bincount would copy its largest value to the host, and so wait for the device.
        self._counts.index_add_(0, labels * self.num_classes + predicted, weights)

    def scores(self, world: World = ALONE) -> Scores:
        """Read the scores of everything added, in all processes; once only."""
        world.all_reduce(self._counts, self._loss_sum)
        counts = self._counts.cpu().numpy().reshape(self.num_classes, self.num_classes)
        total = round(counts.sum())  # the two weights of a mixed image add up to 1
        macro, weighted = f1_scores(counts)
        return Scores(
            loss=self._loss_sum.item() / max(total, 1),
            accuracy=float(counts.trace()) / max(total, 1),
            macro_f1=macro,
            weighted_f1=weighted,
        )


def f1_scores(counts: NDArray[np.int64] | NDArray[np.float64]) -> tuple[float, float]:
    """Macro and support-weighted F1 of a confusion matrix (C, C), rows true, columns predicted; counts may be weighted.

    As scikit-learn's f1_score: classes that are neither true nor predicted anywhere do not count.
    """
    support, predicted = counts.sum(axis=1), counts.sum(axis=0)
    present = (support + predicted) > 0
    f1 = 2 * counts.diagonal()[present] / (support + predicted)[present]
    if not present.any():
        return 0.0, 0.0
    return float(f1.mean()), float((f1 * support[present]).sum() / support.sum())


def precision_recall_scores(counts: NDArray[np.int64]) -> dict[str, float]:
    """Macro and support-weighted precision and recall of a confusion matrix (C, C), rows true, columns predicted.

    As scikit-learn's precision_score and recall_score with zero_division=0: a class that is true somewhere and never
    predicted has a precision of 0, one that is predicted somewhere and never true a recall of 0, and both count in the
    macro means; classes that are neither do not. Weighted recall is the accuracy.
    """
    support, predicted = counts.sum(axis=1), counts.sum(axis=0)
    present = (support + predicted) > 0
    if not present.any():
        return dict.fromkeys(("macro_precision", "weighted_precision", "macro_recall", "weighted_recall"), 0.0)
    right = counts.diagonal()
    precision, recall = right / np.maximum(predicted, 1), right / np.maximum(support, 1)
    total = support.sum()
    return {
        "macro_precision": float(precision[present].mean()),
        "weighted_precision": float((precision * support).sum() / total),
        "macro_recall": float(recall[present].mean()),
        "weighted_recall": float(right.sum() / total),
    }
