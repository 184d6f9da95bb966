"""Where the rows of a store are: one after another, each of its own height and width."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.cores import available_cores
from pipelines.decoding.contents import OUT_OF_RESOURCES
from pipelines.decoding.pil import BadImageError, header_size

_CHANNELS = 3
_REMEMBERED = 1 << 18
"""Files of which the header is not read again while they stay as they are: planning a build and building are two."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RowPlaces:
    """The place of each row in the pixels of a store; squashed rows are the case of equal sizes."""

    sizes: NDArray[np.int64]
    """(N, 2) height and width in px; (0, 0) of a file whose header cannot be read."""
    offsets: NDArray[np.int64]
    """(N,) first byte of each row, counted from that of the first."""
    shape: tuple[int, ...]
    """Of the array on the disk: (N, height, width, 3) of squashed images, else (bytes of all,)."""

    @classmethod
    def of_equal(cls, num_rows: int, size: tuple[int, int]) -> RowPlaces:
        """Place rows of one (height, width), of which the array has four dimensions."""
        sizes = np.broadcast_to(np.array(size, dtype=np.int64), (num_rows, 2))
        return cls(sizes=sizes, offsets=_offsets(sizes), shape=(num_rows, *size, _CHANNELS))

    @classmethod
    def of_sizes(cls, sizes: Sequence[tuple[int, int]]) -> RowPlaces:
        """Place rows of a (height, width) each."""
        array = np.array(sizes, dtype=np.int64).reshape(-1, 2)
        return cls(sizes=array, offsets=_offsets(array), shape=(int(_num_bytes(array).sum()),))

    @property
    def row_bytes(self) -> NDArray[np.int64]:
        """(N,) bytes of each row."""
        return _num_bytes(self.sizes)

    @property
    def num_bytes(self) -> int:
        """Bytes of all rows."""
        return int(self.row_bytes.sum())

    @property
    def are_equal(self) -> bool:
        """Whether the array on the disk says the size, the same of every row."""
        return len(self.shape) > 1

    def size(self, row: int) -> tuple[int, int]:
        """(height, width) in px of a row."""
        height, width = self.sizes[row].tolist()
        return height, width


def image_at(content: torch.Tensor, offset: np.int64, size: NDArray[np.int64]) -> torch.Tensor:
    """View the image of a size (2,), height and width, that begins at a byte of content (n,): (height, width, 3)."""
    height, width = size.tolist()
    return content.as_strided((height, width, _CHANNELS), (_CHANNELS * width, _CHANNELS, 1), int(offset))


def _num_bytes(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    num_bytes: NDArray[np.int64] = sizes[:, 0] * sizes[:, 1] * _CHANNELS
    return num_bytes


def _offsets(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.cumsum(_num_bytes(sizes), dtype=np.int64) - _num_bytes(sizes)


def sizes_of_files(
    paths: Sequence[str],
    stamps: Sequence[tuple[int, int] | None],
    stored: Callable[[int, int], tuple[int, int]],
) -> list[tuple[int, int]]:
    """Read the headers of files with their stamps, and say the (height, width) in px of each in a store.

    stored: what the store makes of an image's (height, width). A file whose header cannot be read is (0, 0). Raises
    OSError where the system lacks what reading takes.
    """
    num_threads = available_cores()

    def read(part: slice) -> list[tuple[int, int]]:
        return [_size_of_file(path, stamp) for path, stamp in zip(paths[part], stamps[part], strict=True)]

    parts = [slice(at, None, num_threads) for at in range(num_threads)]
    sizes = [(0, 0)] * len(paths)
    with ThreadPoolExecutor(num_threads) as pool:
        for part, found in zip(parts, pool.map(read, parts), strict=True):
            sizes[part] = found
    return [stored(*size) if size != (0, 0) else size for size in sizes]


def _size_of_file(path: str, stamp: tuple[int, int] | None) -> tuple[int, int]:
    try:
        return (0, 0) if stamp is None else _size_at(path, stamp)
    except BadImageError:
        return 0, 0
    except OSError as error:
        if error.errno in OUT_OF_RESOURCES:  # says nothing of the file
            raise
        return 0, 0


@functools.lru_cache(maxsize=_REMEMBERED)
def _size_at(path: str, _stamp: tuple[int, int]) -> tuple[int, int]:
    return header_size(path)  # an error is not remembered: the limit of pixels may be raised meanwhile
