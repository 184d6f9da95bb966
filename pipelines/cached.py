"""The loader over the decode-once store: no epoch touches a JPEG."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.fused import FusedLoader
from pipelines.loader import Batch
from pipelines.store.build import build_store, default_store_folder
from pipelines.store.reading import OpenStore

_GPU_SHARE = 0.25
"""Of the GPU's memory, what the images of one loader may take: there are others, and a model. The rest stays on the
host."""


class CachedLoader(FusedLoader):
    """Augments from a store of squashed images: one that is open, or one that is built first where there is none.

    On a GPU its images live there where they fit; else the rows of a batch are copied to it. On a CPU the store is
    mapped into memory and `num_threads` threads augment, as far as torch uses so many.
    """

    backend = "cached"

    def __init__(
        self, *args: Any, store_dir: str | Path | None = None, store: OpenStore | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if store is None:
            folder = store_dir or default_store_folder(self.paths, self.recipe)
            store = build_store(self.paths, self.recipe, folder, num_threads=self.num_threads)
        self.store_dir = store.folder
        taken = store.take(self.paths, self.recipe)
        assert taken.images is not None
        self._images, self._rows = taken.images, taken.rows
        if self.device.type == "cuda" and self._fits_on_gpu():
            self._images = _copied(self._images, taken.rows, self.device)
            self._rows = torch.arange(len(taken.rows), device=self.device)

    def _fits_on_gpu(self) -> bool:
        free_bytes, total_bytes = torch.cuda.mem_get_info(self.device)
        num_bytes = len(self._rows) * self._images[0].numel()
        return num_bytes <= _GPU_SHARE * total_bytes and num_bytes <= free_bytes / 2

    def _batches(self, epoch: int, chunks: list[NDArray[np.int64]]) -> Iterator[Batch]:
        for chunk, params in zip(chunks, self._packed(epoch, chunks), strict=True):
            index = self._to_device(torch.from_numpy(chunk))
            if self._images.device == self.device:
                images, rows = self._images, self._rows[index]
            else:
                images = self._to_device(self._images[self._rows[torch.from_numpy(chunk)]])
                rows = torch.arange(len(chunk), device=self.device)
            yield self._augmented(images, rows, params, index, self.num_threads)

    def close(self) -> None:
        """Let go of the store."""
        super().close()
        self._images = self._rows = torch.empty(0)


def _copied(images: torch.Tensor, rows: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy rows to the GPU, some at a time, since they pass through memory of the host."""
    copied = torch.empty((len(rows), *images.shape[1:]), dtype=torch.uint8, device=device)
    for part, into in zip(rows.split(1024), copied.split(1024), strict=True):
        into.copy_(images[part])
    return copied
