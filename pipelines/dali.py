"""The streaming loader: DALI decodes, on a GPU or a CPU, and our operators resize and augment there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.augmentation import draw_params, pack_params
from pipelines.decoding.dali import HW_DECODER_LOAD
from pipelines.decoding.files import Decoder
from pipelines.fused import FusedLoader
from pipelines.loader import Batch


class _Image(NamedTuple):
    """A sample on its way to a batch."""

    sample: int
    pixels: torch.Tensor
    """(H, W, 3), of the whole image, or of the part that the crop needs."""
    params: NDArray[np.float64] | None = None
    """A row of what `pack_params` lays out, where it has been drawn already; the crop is one of these pixels."""


class DaliLoader(FusedLoader):
    """Decodes while the batch before is augmented; on a GPU the pixels stay there.

    `num_threads` threads decode, as many read, and on a CPU a quarter as many augment, at least the caller's own.
    hw_decoder_load is the share of the files that the decoder in a GPU's chip gets, where it has one.
    """

    backend = "dali"

    def __init__(self, *args: Any, hw_decoder_load: float = HW_DECODER_LOAD, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A crop straight from the photo needs that part of it alone. On a GPU nobody has measured what that saves.
        self._in_parts = self.recipe.resize is None and self.device.type == "cpu"
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
            in_parts=self._in_parts,
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
        images = self._images(epoch, order)
        for chunk in chunks:
            found = [each for each in (next(images) for _ in chunk) if each is not None]
            yield self._batch(epoch, found) if found else self._empty()

    def _images(self, epoch: int, order: NDArray[np.int64]) -> Iterator[_Image | None]:
        """Yield the images of samples, in order; None for a bad one."""
        if self._given is not None:
            yield from (_Image(at, self._to_device(self._given[at])) for at in order.tolist())
            return
        drawn: dict[int, NDArray[np.float64]] = {}

        def parts(positions: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
            params = self._draw(epoch, order[positions], sizes)
            start = np.clip(params[:, :2], 0, sizes - 1).astype(np.int64)
            end = np.clip(params[:, :2] + params[:, 2:4], start + 1, sizes).astype(np.int64)
            params[:, :2] -= start
            drawn.update(zip(positions.tolist(), params, strict=True))
            return np.concatenate([start, end - start], axis=1)

        paths = [self.paths[at] for at in order]
        for files in self._decoder.decode(paths, parts if self._in_parts else None):
            for file in files:
                at, params = int(order[file.index]), drawn.pop(file.index, None)
                if file.image is None:
                    assert file.problem is not None
                    self._leave_out(at, file.problem)
                yield None if file.image is None else _Image(at, file.image, params)

    def _draw(self, epoch: int, index: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
        return pack_params(draw_params(self.recipe, sizes, self.seed, epoch, index), self.recipe)

    def _batch(self, epoch: int, found: list[_Image]) -> Batch:
        chunk = np.array([each.sample for each in found], dtype=np.int64)
        resized = np.array([self.recipe.resized(*each.pixels.shape[:2]) for each in found], dtype=np.int64)
        drawn = [each.params for each in found if each.params is not None]
        packed = np.stack(drawn) if drawn else self._draw(epoch, chunk, resized)
        index, params = self._to_device(torch.from_numpy(chunk)), self._to_device(torch.from_numpy(packed))
        return self._augmented_ragged([each.pixels for each in found], resized, params, index, self._num_ops_threads)

    def close(self) -> None:
        """End DALI's threads and free its memory."""
        super().close()
        self._decoder.close()
