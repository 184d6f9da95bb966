"""The loader over the decode-once store: no epoch touches a JPEG."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.fused import FusedLoader
from pipelines.loader import Batch
from pipelines.store.build import build_store, default_store_folder
from pipelines.store.reading import MappedPixels, OpenStore
from pipelines.store.rows import image_at

_GPU_SHARE = 0.25
"""Of the GPU's memory, what the images of one loader may take: there are others, and a model. The rest stays on the
host."""


_log = logging.getLogger(__name__)


@functools.cache
def _say_once(folder: Path, size: str) -> None:
    _log.warning("loader: its pixels are not the photos', of which the store %s has images %s", folder, size)


class CachedLoader(FusedLoader):
    """Augments from images in memory: an array, a store that is open, or one that is built first where there is none.

    On a GPU its images live there where they fit; else those of a batch are copied to it. On a CPU the store is mapped
    into memory and `num_threads` threads augment, as far as torch uses so many.
    """

    backend = "cached"

    def __init__(
        self,
        *args: Any,
        store_dir: str | Path | None = None,
        store_max_side: int | None = None,
        store: OpenStore | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.store_dir: Path | None = None
        self._mapped: MappedPixels | None = None
        """What the images of each batch are read from."""
        self._images: torch.Tensor | None
        """(N, height, width, 3) where the images have one size and no first resize is left to do."""
        if self._given is None:
            self._take_store(store_dir, store_max_side, store)
        else:
            self._take_array(self._given)
        if self.device.type == "cuda" and self._fits_on_gpu():
            self._move_to_gpu()

    def _take_store(self, store_dir: str | Path | None, max_side: int | None, store: OpenStore | None) -> None:
        if store is None:
            folder = store_dir or default_store_folder(self.paths, self.recipe, max_side=max_side)
            store = build_store(self.paths, self.recipe, folder, num_threads=self.num_threads, max_side=max_side)
        self.store_dir, self.is_exact = store.folder, store.is_exact
        if not self.is_exact:
            _say_once(store.folder, store.request.size_text)
        taken = store.take(self.paths, self.recipe, on_bad_image=self.on_bad_image)
        for position, problem in taken.problems.items():
            self._leave_out(position, problem)
        self._mapped = taken.mapped
        self._images, self._rows = taken.images, taken.rows
        self._content, self._offsets, self._sizes, self._resized = (
            taken.content, taken.offsets, taken.sizes, taken.sizes,
        )  # fmt: skip

    def _take_array(self, images: torch.Tensor) -> None:
        num, height, width, _ = images.shape
        resized = self.recipe.resized(height, width)
        self._images = images if resized == (height, width) else None
        self._rows = torch.arange(num)
        self._content, self._offsets = images.view(-1), np.arange(num) * (3 * height * width)
        self._sizes, self._resized = np.tile((height, width), (num, 1)), np.tile(resized, (num, 1))

    def _fits_on_gpu(self) -> bool:
        free_bytes, total_bytes = torch.cuda.mem_get_info(self.device)
        num_bytes = int(self._num_bytes.sum())
        return num_bytes <= _GPU_SHARE * total_bytes and num_bytes <= free_bytes / 2

    @property
    def _num_bytes(self) -> NDArray[np.int64]:
        """Of each sample's image, (N,)."""
        return 3 * self._sizes.prod(axis=1)

    def _move_to_gpu(self) -> None:
        """Copy the images to the GPU, some at a time, since they pass through memory of the host."""
        ends = np.cumsum(self._num_bytes)
        content = torch.empty(int(ends[-1]) if len(ends) else 0, dtype=torch.uint8, device=self.device)
        offsets = ends - self._num_bytes
        positions = np.arange(len(offsets))
        for some in np.array_split(positions, -(-len(positions) // 1024) or 1):
            if len(some):
                content[offsets[some[0]] : ends[some[-1]]].copy_(self._gathered(some))
        if self._images is not None:
            good = np.flatnonzero(self._num_bytes)
            self._images = content.view(len(good), *self._images.shape[1:])
            rows = np.full(len(positions), -1, dtype=np.int64)
            rows[good] = np.arange(len(good))
            self._rows = torch.from_numpy(rows).to(self.device)
        self._content, self._offsets, self._mapped = content, offsets, None

    def _gathered(self, positions: NDArray[np.int64]) -> torch.Tensor:
        """Put the bytes of some images behind one another."""
        return torch.cat([self._view(position).reshape(-1) for position in positions])

    def _view(self, position: int) -> torch.Tensor:
        return image_at(self._content, self._offsets[position], self._sizes[position])

    def _batches(self, epoch: int, chunks: list[NDArray[np.int64]]) -> Iterator[Batch]:
        bad = np.array(sorted(self._left_out), dtype=np.int64)
        good = [chunk[~np.isin(chunk, bad)] for chunk in chunks] if len(bad) else chunks
        for chunk, params in zip(good, self._packed(epoch, good, self._resized), strict=True):
            if self._mapped is not None:
                self._mapped.check_whole()
            yield self._batch(chunk, params) if len(chunk) else self._empty()

    def _batch(self, chunk: NDArray[np.int64], params: torch.Tensor) -> Batch:
        index = self._to_device(torch.from_numpy(chunk))
        if self._images is not None:
            if self._images.device == self.device:
                return self._augmented(self._images, self._rows[index], params, index, self.num_threads)
            images = self._to_device(self._images[self._rows[torch.from_numpy(chunk)]])
            rows = torch.arange(len(chunk), device=self.device)
            return self._augmented(images, rows, params, index, self.num_threads)
        return self._augmented_ragged(self._on_device(chunk), self._resized[chunk], params, index, self.num_threads)

    def _on_device(self, chunk: NDArray[np.int64]) -> Sequence[torch.Tensor]:
        if self._content.device == self.device:
            return [self._view(position) for position in chunk]
        parts = self._to_device(self._gathered(chunk)).split(self._num_bytes[chunk].tolist())
        return [part.view(*size, 3) for part, size in zip(parts, self._sizes[chunk].tolist(), strict=True)]

    def __getstate__(self) -> dict[str, Any]:
        """Let a copy have the images in its own memory."""
        return super().__getstate__() | {"_mapped": None}

    def close(self) -> None:
        """Let go of the images."""
        super().close()
        self._images = self._mapped = None
        self._content = self._rows = torch.empty(0)
