"""The streaming loader: DALI decodes, on a GPU or a CPU, and our operators resize and augment there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.augmentation import draw_params, pack_params
from pipelines.decoding.dali import HW_DECODER_LOAD
from pipelines.decoding.files import Decoder
from pipelines.fused import FusedLoader
from pipelines.loader import Batch


class DaliLoader(FusedLoader):
    """Decodes while the batch before is augmented; on a GPU the pixels stay there.

    `num_threads` threads decode, as many read, and on a CPU a quarter as many augment, at least the caller's own.
    hw_decoder_load is the share of the files that the decoder in a GPU's chip gets, where it has one.
    """

    backend = "dali"

    def __init__(self, *args: Any, hw_decoder_load: float = HW_DECODER_LOAD, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._decoder = Decoder(
            batch_size=self.batch_size,
            num_threads=self.num_threads,
            device=self.device,
            hw_decoder_load=hw_decoder_load,
        )
        # Decoding takes five times as long as the rest, and torch's threads spin while they wait, beside DALI's.
        self._num_ops_threads = max(1, self.num_threads // 4)

    def _batches(self, epoch: int, chunks: list[NDArray[np.int64]]) -> Iterator[Batch]:
        order = np.concatenate([np.zeros(0, dtype=np.int64), *chunks])
        decoded = self._decoded(order)
        for chunk in chunks:
            good = []
            images = []
            for position in chunk:
                image = next(decoded)
                if image is not None:
                    good.append(position)
                    images.append(image)
            yield self._batch(epoch, np.array(good, dtype=np.int64), images)

    def _decoded(self, order: NDArray[np.int64]) -> Iterator[torch.Tensor | None]:
        """Yield the pixels (H, W, 3) of samples, in order; None for a bad one."""
        if self.pixels is not None:
            yield from (self._to_device(torch.from_numpy(self.pixels[position])) for position in order)
            return
        for files in self._decoder.decode([self.paths[position] for position in order]):
            for file in files:
                if file.problem is not None:
                    self._leave_out(order[file.index], file.problem)
                yield file.image

    def _batch(self, epoch: int, chunk: NDArray[np.int64], images: list[torch.Tensor]) -> Batch:
        if not images:
            return self._empty()
        resized = np.array([self.recipe.resized(*image.shape[:2]) for image in images], dtype=np.int64)
        packed = pack_params(draw_params(self.recipe, resized, self.seed, epoch, chunk), self.recipe)
        index, params = self._to_device(torch.from_numpy(chunk)), self._to_device(torch.from_numpy(packed))
        return self._augmented_ragged(images, resized, params, index, self._num_ops_threads)

    def close(self) -> None:
        """End DALI's threads and free its memory."""
        super().close()
        self._decoder.close()
