"""What no loader can pass: parts of its work, done alone and with all threads.

Each is iterated like a loader, an epoch at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dogs_accel.throughput.candidates import Candidate, Workload

_RING = 4
"""Batches that are written in turn, more than a cache holds."""


class ReadOnly:
    """Reads every file, from the page cache where it is there, and looks at nothing."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._pool = ThreadPoolExecutor(workload.num_threads)

    def __iter__(self) -> Iterator[tuple[list[bytes]]]:
        contents = self._pool.map(_read, self._workload.paths)
        for batch in _chunks(self._workload):
            yield ([next(contents) for _ in batch],)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def _read(path: str) -> bytes:
    return Path(path).read_bytes()


def _chunks(workload: Workload) -> list[tuple[str, ...]]:
    return [workload.paths[at : at + workload.batch_size] for at in range(0, len(workload.paths), workload.batch_size)]


class DecodeOnly:
    """DALI's decoder, fed with file names, with nothing behind it: the ceiling of a loader that decodes.

    With a CUDA device it is the mixed decoder, which decodes there.
    """

    def __init__(self, workload: Workload) -> None:
        import nvidia.dali.fn as fn
        from nvidia.dali import Pipeline

        from pipelines.decoding.dali import rgb_node

        self._chunks = [[np.frombuffer(path.encode(), dtype=np.uint8) for path in chunk] for chunk in _chunks(workload)]
        self._work: Iterator[list[Any]] = iter(())
        self._pipeline: Any = Pipeline(
            batch_size=workload.batch_size,
            num_threads=workload.num_threads,
            device_id=torch.device(workload.device).index or 0 if workload.on_gpu else None,
        )
        with self._pipeline:
            encoded = fn.io.file.read(fn.external_source(source=lambda: next(self._work), batch=True))
            self._pipeline.set_outputs(rgb_node(encoded, gpu=workload.on_gpu))
        self._pipeline.build()

    def __iter__(self) -> Iterator[tuple[Any]]:
        self._work = iter(self._chunks)
        for _ in self._chunks:
            yield tuple(self._pipeline.run())
        try:
            self._pipeline.run()
        except StopIteration:
            self._pipeline.reset()

    def close(self) -> None:
        """End DALI's threads."""
        from pipelines.decoding.dali import shut_down

        shut_down(self._pipeline)


class WriteOnly:
    """Writes every number of every float32 batch once and reads nothing: memory bandwidth, the ceiling of them all."""

    def __init__(self, workload: Workload) -> None:
        shape = (workload.batch_size, 3, workload.recipe.crop, workload.recipe.crop)
        self._workload = workload
        self._batches = [torch.zeros(shape, device=workload.device, dtype=torch.float32) for _ in range(_RING)]

    def __iter__(self) -> Iterator[tuple[torch.Tensor]]:
        for i, chunk in enumerate(_chunks(self._workload)):
            yield (self._batches[i % _RING][: len(chunk)].fill_(i),)

    def close(self) -> None:
        """Free the batches."""
        self._batches = []


def ceiling_candidates(has_dali: bool = True) -> list[Candidate]:
    """Return the ceilings, from the lowest; decoding alone needs DALI."""
    ceilings: dict[str, Callable[[Workload], Any]] = {
        "decode only": DecodeOnly,
        "read only": ReadOnly,
        "write the batches to memory": WriteOnly,
    }
    return [
        Candidate(name, functools.partial(make), is_ceiling=True)
        for name, make in ceilings.items()
        if has_dali or make is not DecodeOnly
    ]
