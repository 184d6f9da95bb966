"""The streaming loader: DALI decodes, on a GPU or a CPU, and our operators squash and augment there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dogs_accel import ops
from pipelines.decoding.dali import HW_DECODER_LOAD
from pipelines.decoding.files import Decoder
from pipelines.decoding.pil import BadImageError
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
        self._hw_decoder_load = hw_decoder_load
        self._decoder = self._new_decoder()
        # Decoding takes five times as long as the rest, and torch's threads spin while they wait, beside DALI's.
        self._num_ops_threads = max(1, self.num_threads // 4)

    def _new_decoder(self) -> Decoder:
        return Decoder(
            batch_size=self.batch_size,
            num_threads=self.num_threads,
            device=self.device,
            hw_decoder_load=self._hw_decoder_load,
        )

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        del state["_decoder"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        self._decoder = self._new_decoder()

    def _batches(self, epoch: int, chunks: list[NDArray[np.int64]]) -> Iterator[Batch]:
        self._stay_in_process()
        order = np.concatenate([np.zeros(0, dtype=np.int64), *chunks])
        squashed = self._squashed([self.paths[i] for i in order])
        ready = torch.empty(0, device=self.device)
        for chunk, params in zip(chunks, self._packed(epoch, chunks), strict=True):
            # Files come in batches of the size that the decoder was made for, of which this one's may have become
            # another.
            while len(ready) < len(chunk):
                more = next(squashed)
                ready = torch.cat([ready, more]) if len(ready) else more
            images, ready = ready[: len(chunk)], ready[len(chunk) :]
            index = self._to_device(torch.from_numpy(chunk))
            rows = torch.arange(len(chunk), device=self.device)
            yield self._augmented(images, rows, params, index, self._num_ops_threads)

    def _squashed(self, paths: list[str]) -> Iterator[torch.Tensor]:
        """Yield (n, height, width, 3) uint8, in order; no n crosses a multiple of the batch size."""
        assert isinstance(self.recipe.resize, tuple)
        for files in self._decoder.decode(paths):
            images = []
            for file in files:
                if file.image is None:
                    raise BadImageError(f"{paths[file.index]}: {file.problem}")
                images.append(file.image)
            yield ops.squash(images, self.recipe.resize, self.recipe.interpolation, self._num_ops_threads)

    def close(self) -> None:
        """End DALI's threads and free its memory."""
        super().close()
        self._decoder.close()
