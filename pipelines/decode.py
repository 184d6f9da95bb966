"""Decoding every file once, as it is: what statistics, checks and stores are made from.

NVIDIA DALI decodes, on all cores, the JPEG files that it decodes as PIL does. PIL has the word on all others, and on
whether a file is bad. Which is which shows in the markers of a JPEG: where they are not those of a whole image, DALI
may return half of one without a word, and PIL says that it is broken.
"""

from __future__ import annotations

import functools
import io
import logging
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import nvidia.dali.fn as fn
import nvidia.dali.types as types
import torch
from numpy.typing import NDArray
from nvidia.dali import Pipeline
from nvidia.dali.data_node import DataNode
from PIL import Image

from pipelines.batch import available_cores, image_problem

_log = logging.getLogger(__name__)

_PREFETCH = 2
_READ_AHEAD = 2
_LARGE_PX = 1 << 25
"""An image from here on is decoded by itself: DALI would make room for a batch of what their headers claim."""

_SOI, _EOI, _SOS = b"\xff\xd8", b"\xff\xd9", 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_HUFFMAN_FRAMES = {0xC0, 0xC1, 0xC2}
"""Baseline, extended and progressive; the others are lossless, hierarchical or arithmetic."""
_STUFFED_OR_RESTART = np.isin(np.arange(256), [0x00, *range(0xD0, 0xD8)])


def rgb_node(encoded: DataNode, *, gpu: bool) -> DataNode:
    """Decode in the current pipeline as the published loader does, PIL's `convert("RGB")`: not turned by EXIF."""
    return fn.decoders.image(encoded, device="mixed" if gpu else "cpu", output_type=types.RGB, adjust_orientation=False)


@dataclass(kw_only=True, slots=True, eq=False)
class DecodedFile:
    """One file: its content and its pixels, or the reason why there are none."""

    index: int
    """Position in the paths."""
    encoded: bytes = b""
    """Content of the file; nothing where it cannot be read."""
    image: torch.Tensor | None = None
    """(H, W, 3) uint8 RGB, as PIL's `convert("RGB")` has it and not turned by EXIF; None of a bad file."""
    problem: str | None = None
    """Why there is no image, in a few words; None where there is one."""


def decode_files(
    paths: Sequence[str | Path],
    *,
    batch_size: int = 32,
    num_threads: int | None = None,
) -> Iterator[list[DecodedFile]]:
    """Decode each file once, in order, in lists of up to `batch_size`; a bad file is in its list and ends nothing.

    Images are at their own size and equal to PIL's. num_threads None is one for each available core. Raises
    ValueError for a batch_size or num_threads below 1.
    """
    num_threads = available_cores() if num_threads is None else num_threads
    for name, value in (("batch_size", batch_size), ("num_threads", num_threads)):
        if value < 1:
            raise ValueError(f"{name}: got {value}, expected an integer >= 1")
    return _batches(paths, batch_size, num_threads)


def _batches(paths: Sequence[str | Path], batch_size: int, num_threads: int) -> Iterator[list[DecodedFile]]:
    with ThreadPoolExecutor(num_threads) as pool:
        yield from _Pass(pool, batch_size, num_threads).batches(paths)


def is_plain_jpeg(encoded: bytes) -> bool:
    """Say whether this is a whole JPEG of the kind that DALI decodes as PIL does.

    That is 8-bit, grey or of three components, Huffman-coded, not huge, and each of its segments and scans ends where
    the next marker is, up to the end-of-image marker. Definition: ITU-T T.81, annex B.
    """
    if not encoded.startswith(_SOI):
        return False
    content = np.frombuffer(encoded, np.uint8)
    at_ff = np.flatnonzero(content[:-1] == 0xFF)
    at_marker = at_ff[~_STUFFED_OR_RESTART[content[at_ff + 1]]]
    position, has_frame, has_scan = 2, False, False
    while position + 4 <= len(encoded):
        ff, marker, length = struct.unpack_from(">BBH", encoded, position)
        if ff != 0xFF or marker == _EOI[1] or length < 2:
            break
        if marker in _FRAMES:
            if has_frame or marker not in _HUFFMAN_FRAMES or not _is_plain_frame(encoded, position + 4):
                return False
            has_frame = True
        position += 2 + length
        if marker == _SOS:
            has_scan = True
            position = int(min(at_marker[np.searchsorted(at_marker, position) :][:1], default=len(encoded)))
    return has_frame and has_scan and encoded[position : position + 2] == _EOI


def _is_plain_frame(encoded: bytes, position: int) -> bool:
    if position + 6 > len(encoded):
        return False
    precision, height, width, num_components = struct.unpack_from(">BHHB", encoded, position)
    return precision == 8 and num_components in (1, 3) and 0 < height * width < _LARGE_PX


def _is_unfinished(file: DecodedFile) -> bool:
    return file.image is None and file.problem is None


@functools.cache
def _one_pixel() -> NDArray[np.uint8]:
    """The smallest JPEG: DALI wants something to do for each batch, also for one that PIL has done."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "JPEG")
    return np.frombuffer(file.getvalue(), np.uint8)


def _decode_with_pil(file: DecodedFile) -> None:
    try:
        with Image.open(io.BytesIO(file.encoded)) as image:
            file.image = torch.from_numpy(np.array(image.convert("RGB")))
    except Exception as error:  # PIL's readers raise what they please of a damaged file
        file.problem = image_problem(error)


def _read(index: int, path: str | Path) -> DecodedFile:
    """Read a file, and decode it where that is not DALI's work."""
    try:
        file = DecodedFile(index=index, encoded=Path(path).read_bytes())
    except OSError as error:
        return DecodedFile(index=index, problem=image_problem(error))
    if not file.encoded:
        file.problem = "an empty file"
    elif not is_plain_jpeg(file.encoded):
        _decode_with_pil(file)
    return file


class _Pass:
    """One pass over the files: a pool reads ahead of DALI, and DALI decodes ahead of whoever takes the batches."""

    def __init__(self, pool: ThreadPoolExecutor, batch_size: int, num_threads: int) -> None:
        self._pool = pool
        self._batch_size = batch_size
        self._num_threads = num_threads
        self._read: Iterator[list[DecodedFile]] = iter(())
        self._started: deque[list[DecodedFile]] = deque()
        """Batches that have been read and not been passed on, in order."""

    def batches(self, paths: Sequence[str | Path]) -> Iterator[list[DecodedFile]]:
        self._read = self._read_ahead(paths)
        pipeline = self._build()
        while True:
            try:
                [output] = pipeline.run()
            except StopIteration:
                return
            except RuntimeError as error:  # after which a DALI pipeline cannot go on
                _log.warning("DALI gave up on a batch; PIL decodes its %d files", self._decode_with_pil())
                _log.debug("%s", error)
                yield from self._started
                self._started.clear()
                pipeline = self._build()
                continue
            files = self._started.popleft()
            for file, image in zip(filter(_is_unfinished, files), output, strict=False):
                # Shared, not copied: the output's memory lives as long as a tensor of it.
                file.image = torch.from_dlpack(image)
            yield files

    def _read_ahead(self, paths: Sequence[str | Path]) -> Iterator[list[DecodedFile]]:
        starts = range(0, len(paths), self._batch_size)
        reading: deque[list[Future[DecodedFile]]] = deque()
        for start in starts:
            batch = range(start, min(start + self._batch_size, len(paths)))
            reading.append([self._pool.submit(_read, index, paths[index]) for index in batch])
            if len(reading) > _READ_AHEAD:
                yield [future.result() for future in reading.popleft()]
        for futures in reading:
            yield [future.result() for future in futures]

    def _next_encoded(self) -> list[NDArray[np.uint8]]:
        """Give DALI its part of the next batch."""
        files = next(self._read)
        self._started.append(files)
        return [np.frombuffer(file.encoded, np.uint8) for file in filter(_is_unfinished, files)] or [_one_pixel()]

    def _build(self) -> Pipeline:
        pipeline = Pipeline(
            batch_size=self._batch_size,
            num_threads=self._num_threads,
            device_id=None,
            prefetch_queue_depth=_PREFETCH,
        )
        with pipeline:
            pipeline.set_outputs(rgb_node(fn.external_source(source=self._next_encoded, batch=True), gpu=False))
        pipeline.build()
        return pipeline

    def _decode_with_pil(self) -> int:
        """Let PIL decode everything that DALI had been given; return how many files that were."""
        unfinished = [file for files in self._started for file in filter(_is_unfinished, files)]
        list(self._pool.map(_decode_with_pil, unfinished))
        return len(unfinished)
