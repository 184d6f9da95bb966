"""What a finished run says of any photo: its classes with calibrated probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dogs_accel.inference.trained import TrainedModel
from pipelines import BadImageError
from pipelines.decoding.pil import decode_rgb


@dataclass(frozen=True, kw_only=True)
class ImagePrediction:
    """What is said of one file."""

    path: str
    problem: str | None = None
    """Why the file could not be read; None where it could."""
    classes: tuple[str, ...] = ()
    """The likeliest first."""
    probabilities: tuple[float, ...] = ()
    """Calibrated: the softmax of logits / temperature."""
    heatmap: str | None = None
    """Where its heat map was written."""

    def as_json(self) -> dict[str, Any]:
        """Lay out the entry of `dogs-accel predict --json`."""
        if self.problem is not None:
            return {"path": self.path, "error": self.problem}
        pairs = zip(self.classes, self.probabilities, strict=True)
        said = {"path": self.path, "predictions": [{"class": name, "probability": share} for name, share in pairs]}
        return said if self.heatmap is None else said | {"heatmap": self.heatmap}


def predict_images(trained: TrainedModel, paths: Sequence[str], *, top: int = 5) -> list[ImagePrediction]:
    """Say of each file which classes are likeliest, in the order of the paths; a bad file has its problem instead."""
    problems = {path: _problem(path) for path in paths}
    good = [path for path in paths if problems[path] is None]
    answers = [ImagePrediction(path=path, problem=problems[path]) for path in paths]
    if not good:
        return answers
    logits = torch.from_numpy(trained.logits(good).logits).double()
    values, labels = (logits / trained.temperature).softmax(dim=1).topk(min(top, len(trained.class_names)), dim=1)
    rows = iter(zip(values.tolist(), labels.tolist(), strict=True))
    return [
        answer if answer.problem is not None else _prediction(answer.path, trained.class_names, *next(rows))
        for answer in answers
    ]


def _prediction(path: str, class_names: Sequence[str], values: list[float], labels: list[int]) -> ImagePrediction:
    classes = tuple(class_names[label] for label in labels)
    return ImagePrediction(path=path, classes=classes, probabilities=tuple(values))


def _problem(path: str) -> str | None:
    """Say why a file cannot be decoded, if it cannot."""
    try:
        decode_rgb(path)
    except BadImageError as error:
        return " ".join(str(error).split())
    return None


def describe_prediction(answer: ImagePrediction) -> str:
    """Lay out what is said of one file, for people."""
    if answer.problem is not None:
        return f"{answer.path}: {answer.problem}"
    width = max(map(len, answer.classes))
    pairs = zip(answer.classes, answer.probabilities, strict=True)
    rows = [f"  {rank}  {name:<{width}}  {share:.4f}" for rank, (name, share) in enumerate(pairs, start=1)]
    if answer.heatmap is not None:
        rows.append(f"  heat map: {answer.heatmap}")
    return "\n".join([answer.path, *rows])
