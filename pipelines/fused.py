"""What the loaders share that make a whole batch in one pass of an operator, from bytes to what a model takes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dogs_accel import ops
from pipelines.augmentation import draw_packed
from pipelines.loader import Batch, Loader


class FusedLoader(Loader):
    """A loader whose batches `dogs_accel.ops.augment` or `augment_ragged` makes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._device_labels = self.labels.to(self.device)
        self._given = None if self.pixels is None else _as_tensor(self.pixels)
        """The images, (N, H, W, 3), where they were given as such."""

    def _packed(
        self, epoch: int, chunks: Sequence[NDArray[np.int64]], sizes: NDArray[np.int64]
    ) -> Iterator[torch.Tensor]:
        """Draw the parameters of each chunk, on the device, for resized images of sizes (2,) or (N, 2), by position."""
        for packed in draw_packed(self.recipe, self.seed, epoch, chunks, sizes):
            yield self._to_device(torch.from_numpy(np.ascontiguousarray(packed)))

    def _augmented(
        self, images: torch.Tensor, rows: torch.Tensor, params: torch.Tensor, index: torch.Tensor, num_threads: int
    ) -> Batch:
        """Make a batch of the rows (B,) of images (N, H, W, 3), which are the samples `index` (B,)."""
        batch = ops.augment(images, rows, params, num_threads=num_threads, **self._settings)
        return Batch(batch, self._device_labels[index], index)

    def _augmented_ragged(
        self,
        images: Sequence[torch.Tensor],
        resized: NDArray[np.int64],
        params: torch.Tensor,
        index: torch.Tensor,
        num_threads: int,
    ) -> Batch:
        """Make a batch of images (H, W, 3), each resized to its row of resized (B, 2) first: the samples `index`."""
        batch = ops.augment_ragged(images, torch.from_numpy(resized), params, num_threads=num_threads, **self._settings)
        return Batch(batch, self._device_labels[index], index)

    @property
    def _settings(self) -> dict[str, Any]:
        recipe = self.recipe
        return {
            "size": recipe.crop,
            "mean": recipe.mean,
            "std": recipe.std,
            "interpolation": recipe.interpolation,
            "dtype": self.dtype,
            "fill": recipe.fill,
        }

    def _empty(self) -> Batch:
        """Make the batch of no image."""
        size = self.recipe.crop
        images = torch.empty(0, 3, size, size, dtype=self.dtype, device=self.device)
        index = torch.empty(0, dtype=torch.int64, device=self.device)
        return Batch(images, self._device_labels[index], index)


def _as_tensor(pixels: NDArray[np.uint8]) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an array that cannot be written to; nobody does
        return torch.from_numpy(pixels)
