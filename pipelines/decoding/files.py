"""Decoding every file once, as it is: what statistics, checks and stores are made from.

NVIDIA DALI decodes, on all cores, the JPEG files that it decodes as PIL does. PIL has the word on all others, and on
whether a file is bad. Which is which shows in the markers of a JPEG: where they are not those of a whole image, DALI
may return half of one without a word, and PIL says that it is broken.
"""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import nvidia.dali.fn as fn
import torch
from numpy.typing import NDArray
from nvidia.dali import Pipeline
from nvidia.dali.backend import ReleaseUnusedMemory  # type: ignore[attr-defined]  # missing from its stub
from PIL import Image

from pipelines.cores import available_cores
from pipelines.decoding.contents import OUT_OF_RESOURCES, read_file
from pipelines.decoding.dali import HW_DECODER_LOAD, rgb_node, shut_down
from pipelines.decoding.jpeg import is_whole_jpeg
from pipelines.decoding.pil import BadImageError, decode_rgb, image_problem, open_image

_log = logging.getLogger(__name__)
_PREFETCH = 2
_MOST_UNEXPLAINED = 2
"""Failures of a GPU in a row for which no file is to blame, after which the error is raised."""
_MOST_SHOWN = 300
"""Letters of an error of DALI, whose first lines say what happened and whose others where."""
_READ_AHEAD = 64
"""Files that are read before their batch is put together."""
_READ_AT_ONCE = 4
"""Files that a thread reads before it hands them over, which costs about as much as reading a small one."""
_MAX_BATCH_PX = 1 << 26
"""Pixels after which a batch is full: large images come in smaller batches, so that memory stays bounded."""

Parts = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]
"""Says which part of images is wanted, (n, 4) top, left, height and width within each, given their positions in the
paths (n,) and their sizes (n, 2), height and width."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DecodedFile:
    """One file: its content and its pixels, or the reason why there are none."""

    index: int
    """Position in the paths."""
    path: str | Path
    encoded: bytes
    """Content of the file; nothing where it cannot be read."""
    sha256: str | None
    """Of the content, in hex; None where it cannot be read, or nobody asked."""
    image: torch.Tensor | None
    """(H, W, 3) uint8 RGB, as `pipelines.decoding.pil.open_rgb` has it, not turned by EXIF, or the part of it that was
    asked for; None of a bad file."""
    problem: str | None
    """Why there is no image, in a few words; None where there is one."""


def decode_files(
    paths: Sequence[str | Path],
    *,
    batch_size: int = 32,
    num_threads: int | None = None,
) -> Iterator[list[DecodedFile]]:
    """Decode each file once, in order, in lists of up to `batch_size`; a bad file is in its list and ends nothing.

    Images are at their own size and equal to PIL's; large ones come in shorter lists; each has its checksum.
    num_threads None is one for each available core. Raises ValueError for a batch_size or num_threads below 1.
    """
    decoder = Decoder(batch_size=batch_size, num_threads=num_threads, checksums=True)
    return _closing(decoder, decoder.decode(paths))


def _closing(decoder: Decoder, batches: Iterator[list[DecodedFile]]) -> Iterator[list[DecodedFile]]:
    with decoder:
        yield from batches


@dataclass(kw_only=True, slots=True, eq=False)
class _File:
    """A file on its way."""

    index: int
    path: str | Path
    encoded: bytes = b""
    sha256: str | None = None
    size: tuple[int, int] = (0, 0)
    """Height and width in px; zeros of a bad file."""
    part: tuple[int, int, int, int] | None = None
    """Top, left, height and width of what is wanted of it; None for all."""
    is_for_dali: bool = False
    image: torch.Tensor | None = None
    problem: str | None = None

    def read(self, *, checksum: bool = False) -> _File:
        """Read the file and its header, and decide who decodes it."""
        try:
            self.encoded = read_file(self.path)
        except OSError as error:
            if error.errno in OUT_OF_RESOURCES:  # says nothing of the file
                raise
            self.problem = image_problem(error)
            return self
        if checksum:
            self.sha256 = hashlib.sha256(self.encoded).hexdigest()
        try:
            with open_image(io.BytesIO(self.encoded)) as image:
                self.size = image.height, image.width
                is_usual = image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L")
        except BadImageError as error:
            self.problem = str(error)
            return self
        self.is_for_dali = is_usual and is_whole_jpeg(self.encoded)
        return self

    def decode_with_pil(self) -> None:
        try:
            image = decode_rgb(io.BytesIO(self.encoded))
        except BadImageError as error:
            self.problem = str(error)
            return
        if self.part is not None:
            top, left, height, width = self.part
            image = image.crop((left, top, left + width, top + height))
        self.image = torch.from_numpy(np.array(image))

    @property
    def num_px(self) -> int:
        return self.size[0] * self.size[1]

    @property
    def is_unfinished(self) -> bool:
        return self.image is None and self.problem is None

    def finished(self) -> DecodedFile:
        return DecodedFile(
            index=self.index,
            path=self.path,
            encoded=self.encoded,
            sha256=self.sha256,
            image=self.image,
            problem=self.problem,
        )


@functools.cache
def _one_pixel() -> NDArray[np.uint8]:
    """The smallest JPEG: DALI wants something to do for each batch, also for one that PIL has done."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "JPEG")
    return np.frombuffer(file.getvalue(), np.uint8)


def _read_ahead(pool: ThreadPoolExecutor, paths: Sequence[str | Path], checksums: bool) -> Iterator[_File]:
    def read(first: int) -> list[_File]:
        some = range(first, min(first + _READ_AT_ONCE, len(paths)))
        return [_File(index=index, path=paths[index]).read(checksum=checksums) for index in some]

    reading: deque[Future[list[_File]]] = deque()
    for first in range(0, len(paths), _READ_AT_ONCE):
        reading.append(pool.submit(read, first))
        if len(reading) > _READ_AHEAD // _READ_AT_ONCE:
            yield from reading.popleft().result()
    for future in reading:
        yield from future.result()


def _in_groups(files: Iterator[_File], batch_size: int) -> Iterator[list[_File]]:
    group: list[_File] = []
    num_px = 0
    for file in files:
        if group and num_px + file.num_px > _MAX_BATCH_PX:
            yield group
            group, num_px = [], 0
        group.append(file)
        num_px += file.num_px
        if (file.index + 1) % batch_size == 0:
            yield group
            group, num_px = [], 0
    if group:
        yield group


class Decoder:
    """Decodes files in passes: a pool reads ahead of DALI, and DALI decodes ahead of whoever takes the batches.

    Its threads and memory stay for the next pass, until it is closed. On a GPU DALI decodes there; what PIL decodes is
    copied to it. Whoever asks for checksums gets them of the threads that read. With in_parts each pass says which part
    of each image it wants, and of a JPEG little else is decoded then: the pixels are those of the whole image.
    """

    def __init__(
        self,
        *,
        batch_size: int = 32,
        num_threads: int | None = None,
        device: torch.device | None = None,
        hw_decoder_load: float = HW_DECODER_LOAD,
        checksums: bool = False,
        in_parts: bool = False,
    ) -> None:
        self._num_threads = available_cores() if num_threads is None else num_threads
        self._batch_size = batch_size
        for name, value in (("batch_size", batch_size), ("num_threads", self._num_threads)):
            if value < 1:
                raise ValueError(f"{name}: got {value}, expected an integer >= 1")
        if not 0 <= hw_decoder_load <= 1:
            raise ValueError(f"hw_decoder_load: got {hw_decoder_load}, expected 0 to 1")
        self._device = torch.device("cpu") if device is None else device
        self._hw_decoder_load = hw_decoder_load
        self._checksums = checksums
        self._in_parts = in_parts
        self._parts: Parts | None = None
        self._pool = ThreadPoolExecutor(self._num_threads)
        self._pipeline: Pipeline | None = None
        self._grouped: Iterator[list[_File]] = iter(())
        self._started: deque[list[_File]] = deque()
        """Batches that have been read and not been passed on, in order."""
        self._reading_failed: Exception | None = None
        self._num_unexplained = 0

    def decode(self, paths: Sequence[str | Path], parts: Parts | None = None) -> Iterator[list[DecodedFile]]:
        """Decode each file once, in order, in lists of up to `batch_size`; no list crosses a multiple of it.

        A bad file is in its list and ends nothing. A pass ends the one before it, which is not to be continued.
        parts is asked once about each file whose header can be read, for some at a time.
        """
        assert self._in_parts == (parts is not None)
        self._drain()
        self._parts = parts
        self._grouped = _in_groups(_read_ahead(self._pool, paths, self._checksums), self._batch_size)
        while True:
            try:
                images = self._run()
            except StopIteration:
                return
            except RuntimeError as error:  # after which a DALI pipeline cannot go on
                self._end_pipeline()
                if self._reading_failed is not None:
                    raise self._reading_failed from None
                if not self._started:
                    raise
                reason = " ".join(str(error).split())[:_MOST_SHOWN]
                num_files = sum(len(files) for files in self._started)
                _log.warning("DALI stopped (%s); PIL decodes the %d files in flight, none is lost", reason, num_files)
                self._num_unexplained += 1
                while self._started:
                    finished = self._finish(self._started.popleft())
                    if any(file.problem is not None for file in finished):
                        self._num_unexplained = 0
                    yield finished
                if self._device.type == "cuda" and self._num_unexplained >= _MOST_UNEXPLAINED:
                    raise
                continue
            self._num_unexplained = 0
            files = self._started.popleft()
            for file, image in zip((file for file in files if file.is_for_dali), images, strict=False):
                # Shared, not copied: the output's memory lives as long as a tensor of it.
                file.image = torch.from_dlpack(image)
            yield self._finish(files)

    def _run(self) -> Any:
        """Take DALI's next batch: an image for each file of it that is for DALI."""
        if self._pipeline is None:
            self._pipeline = self._build()
        if self._device.type == "cpu":
            return self._pipeline.run()[0]
        # The default stream's handle means that of the current device, so that has to be this one.
        with torch.cuda.device(self._device):
            return self._pipeline.run(torch.cuda.current_stream(self._device))[0]

    def _drain(self) -> None:
        """Throw away what an abandoned pass had under way."""
        self._grouped = iter(())
        if self._pipeline is not None:
            try:
                while True:
                    self._run()
            except StopIteration:
                self._pipeline.reset()
            except RuntimeError:  # of a file of that pass; the next pipeline knows nothing of it
                self._end_pipeline()
        self._started.clear()
        self._reading_failed = None

    def _next_encoded(self) -> list[list[NDArray[Any]]]:
        """Give DALI its share of the next batch: the files, and, where not all is wanted, which part of each."""
        try:
            files = next(self._grouped)
            self._choose_parts(files)
        except Exception as error:
            # DALI passes it on as an error of its own, if at all; a StopIteration is its sign for the end.
            self._reading_failed = None if isinstance(error, StopIteration) else error
            raise
        self._started.append(files)
        share = [file for file in files if file.is_for_dali]
        encoded = [np.frombuffer(file.encoded, np.uint8) for file in share] or [_one_pixel()]
        if not self._in_parts:
            return [encoded]
        boxes = np.array([file.part for file in share] or [(0, 0, 1, 1)], dtype=np.int32)
        return [encoded, list(boxes[:, :2]), list(boxes[:, 2:])]

    def _choose_parts(self, files: list[_File]) -> None:
        good = [file for file in files if file.num_px]
        if self._parts is not None and good:
            positions = np.array([file.index for file in good], dtype=np.int64)
            boxes = self._parts(positions, np.array([file.size for file in good], dtype=np.int64))
            for file, (top, left, height, width) in zip(good, boxes.tolist(), strict=True):
                file.part = top, left, height, width

    def _build(self) -> Pipeline:
        is_gpu = self._device.type == "cuda"
        # A bound method would keep this object alive, and so the pipeline, until the garbage collector comes.
        decoder = weakref.proxy(self)
        pipeline = Pipeline(
            batch_size=self._batch_size,
            num_threads=self._num_threads,
            device_id=self._device.index if is_gpu else None,
            prefetch_queue_depth=_PREFETCH,
        )
        with pipeline:
            given = fn.external_source(
                source=lambda: decoder._next_encoded(), num_outputs=3 if self._in_parts else 1, batch=True
            )
            pipeline.set_outputs(rgb_node(*given, gpu=is_gpu, hw_decoder_load=self._hw_decoder_load))
        pipeline.build()
        return pipeline

    def _finish(self, files: list[_File]) -> list[DecodedFile]:
        """Let PIL decode what is not decoded yet."""
        by_pil = [file for file in files if file.is_unfinished]
        list(self._pool.map(_File.decode_with_pil, by_pil))
        for file in by_pil:
            if file.image is not None:
                file.image = file.image.to(self._device)
        return [file.finished() for file in files]

    def close(self) -> None:
        """End the threads and free the memory."""
        self._pool.shutdown(cancel_futures=True)
        self._end_pipeline()
        self._grouped = iter(())
        self._started.clear()
        if self._device.type == "cuda":
            ReleaseUnusedMemory()

    def _end_pipeline(self) -> None:
        if self._pipeline is not None:
            shut_down(self._pipeline)
        self._pipeline = None

    def __del__(self) -> None:
        if hasattr(self, "_pipeline"):  # else its making has failed
            self._end_pipeline()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
