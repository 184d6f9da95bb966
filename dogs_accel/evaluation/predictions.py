"""What a model says of a split: logits, labels and image ids."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dogs_accel.runtime.files import replacing
from dogs_accel.runtime.out_of_memory import Demand, within_memory
from dogs_accel.runtime.precision import autocast
from dogs_accel.runtime.processes import ALONE, World, gather_samples
from pipelines.loader import Loader
from pipelines.progress import passing_bar

TOP = 5
"""Classes among which the right one is, for top-5 accuracy; of so many classes or fewer there is none."""


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

    @property
    def confidence(self) -> NDArray[np.float64]:
        """(N,) softmax probability of the predicted class, at temperature 1."""
        logits = torch.from_numpy(self.logits).double()
        return (logits.amax(dim=1) - logits.logsumexp(dim=1)).exp().numpy()

    def at_temperature(self, temperature: float) -> Predictions:
        """Return the predictions with the logits divided by a temperature."""
        return dataclasses.replace(self, logits=(self.logits / temperature).astype(np.float32))

    def save(self, path: Path) -> Path:
        """Write an .npz with the arrays logits, labels and ids."""
        with replacing(path) as temporary:
            np.savez_compressed(temporary, logits=self.logits, labels=self.labels, ids=self.ids)
        return path

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what `save` wrote. Raises ValueError for arrays of other shapes or kinds, and whatever NumPy does."""
        with np.load(path, allow_pickle=False) as arrays:
            logits, labels, ids = (np.asarray(arrays[name]) for name in ("logits", "labels", "ids"))
        kinds = logits.dtype.kind, labels.dtype.kind, ids.dtype.kind
        if kinds != ("f", "i", "U") or logits.ndim != 2 or not labels.shape == ids.shape == logits.shape[:1]:
            shapes = ", ".join(f"{each.shape} {each.dtype}" for each in (logits, labels, ids))
            raise ValueError(f"got {shapes}, expected logits (N, C), labels (N,) and ids (N,)")
        if labels.size and not 0 <= labels.min() <= labels.max() < logits.shape[1]:
            raise ValueError(f"labels: got {labels.min()} to {labels.max()} of {logits.shape[1]} classes")
        return cls(logits, labels, ids)


class MeanOfViews:
    """The mean of what a model says of several views of the same samples, in the memory of one.

    Of the probabilities, in double precision, as logarithms: no small one becomes 0.
    """

    def __init__(self) -> None:
        self.num_views = 0
        self._log_sum: torch.Tensor | None = None

    def add(self, view: Predictions) -> None:
        """Add a view's predictions, of the same samples in the same order as those of the others."""
        log_p = torch.from_numpy(view.logits).double().log_softmax(dim=1)
        self._log_sum = log_p if self._log_sum is None else torch.logaddexp(self._log_sum, log_p, out=self._log_sum)
        self.num_views += 1

    def logits(self) -> NDArray[np.float32]:
        """(N, C) logarithms of the mean probabilities, whose softmax is that mean."""
        assert self._log_sum is not None
        return (self._log_sum - math.log(self.num_views)).float().numpy()


@torch.inference_mode()
def predict(
    model: nn.Module,
    loader: Loader,
    ids: Sequence[str],
    *,
    amp: torch.dtype | None = None,
    world: World = ALONE,
    label: str = "",
    flag: str | None = "--eval-batch-size",
) -> Predictions:
    """Run a model over an evaluation loader; ids are those of the loader's dataset, in its order.

    The processes of a world share the samples, and each returns the predictions of all, in the dataset's order. Raises
    BatchTooLargeError, which names a batch that fits, where the memory does not suffice; flag is what sets it.
    """
    model.eval()

    def try_batch(num_images: int) -> None:
        images = torch.zeros(
            num_images, 3, loader.recipe.crop, loader.recipe.crop, device=loader.device, dtype=torch.float32
        )
        with autocast(loader.device, amp):
            model(images.contiguous(memory_format=torch.channels_last))

    demand = Demand(
        work=f"the evaluation of {label or 'the model'}",
        num_images=min(loader.batch_size, loader.num_samples),
        image_size_px=loader.recipe.crop,
        device=loader.device,
        flag=flag,
        num_processes=world.size,
    )
    logits, labels, index = within_memory(lambda: _run_model(model, loader, amp, world, label), demand, try_batch)
    every_logit, every_label = gather_samples(world, index, (logits, labels), loader.dataset_size)
    return Predictions(every_logit.numpy(), every_label.numpy(), np.asarray(ids, dtype=np.str_))


def _run_model(
    model: nn.Module, loader: Loader, amp: torch.dtype | None, world: World, label: str
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """Return logits, labels and positions, batch by batch."""
    logits, labels, index = [], [], []
    with passing_bar(loader.num_samples, label, shown=world.is_rank_zero) as bar:
        for batch in loader:
            with autocast(loader.device, amp):
                logits.append(model(batch.images).float())
            labels.append(batch.labels)
            index.append(batch.index)
            bar.update(len(batch.labels))
    return logits, labels, index
