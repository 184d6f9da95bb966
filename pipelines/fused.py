"""What the loaders share that augment a whole batch in one pass, `dogs_accel.ops.augment`, from squashed bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dogs_accel import ops
from pipelines.augmentation import draw_packed
from pipelines.loader import Batch, Loader


class FusedLoader(Loader):
    """A loader of squashed images, which are of one size: the recipe must squash."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._device_labels = self.labels.to(self.device)

    def _check(self) -> None:
        super()._check()
        if not isinstance(self.recipe.resize, tuple):
            raise ValueError(
                f"resize: the {self.backend} loader squashes to (height, width) only, got {self.recipe.resize!r}; "
                "the torch loader has the others"
            )

    def _packed(self, epoch: int, chunks: list[NDArray[np.int64]]) -> Iterator[torch.Tensor]:
        """Draw the parameters of each chunk, on the device."""
        for packed in draw_packed(self.recipe, self.seed, epoch, chunks):
            yield self._to_device(torch.from_numpy(np.ascontiguousarray(packed)))

    def _augmented(
        self, images: torch.Tensor, rows: torch.Tensor, params: torch.Tensor, index: torch.Tensor, num_threads: int
    ) -> Batch:
        """Make a batch of the rows (B,) of images (N, H, W, 3), which are the samples `index` (B,)."""
        batch = ops.augment(
            images,
            rows,
            params,
            size=self.recipe.crop,
            mean=self.recipe.mean,
            std=self.recipe.std,
            interpolation=self.recipe.interpolation,
            dtype=self.dtype,
            num_threads=num_threads,
        )
        return Batch(batch, self._device_labels[index], index)
