"""Filling a store with files that somebody decodes, be it for the store alone or to look at them too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dogs_accel import ops
from pipelines.store.disk import DISK_IS_FULL
from pipelines.store.index import FileEntry, FileStamp, StoreError, StoreRequest, absolute_path
from pipelines.store.writing import RowWriter, StartedBuild, open_writer, publish, read_started

if TYPE_CHECKING:
    from pipelines.decoding.files import DecodedFile

_MOST_SQUASHED_PX = 1 << 14
"""Height or width that `ops.squash` makes at most."""


class StoreFiller:
    """Takes decoded files, in any order, and writes the rows that the store has not yet, behind the decoding."""

    def __init__(
        self,
        folder: Path,
        request: StoreRequest,
        started: StartedBuild,
        writer: RowWriter,
        pool: ThreadPoolExecutor,
        num_threads: int,
        despite_bad: bool,
    ) -> None:
        self._folder = folder
        self._request = request
        self._started = started
        self._writer = writer
        self._pool = pool
        self._num_threads = num_threads
        self._despite_bad = despite_bad
        self._row_of = {path: row for row, path in enumerate(request.paths) if row not in started.entries}
        """Of each file that is still to come."""
        self._under_way: list[Future[dict[int, FileEntry]]] = []

    @property
    def missing(self) -> list[str]:
        """Absolute paths of the files that are still to come, sorted."""
        return list(self._row_of)

    def take(self, files: Sequence[DecodedFile]) -> None:
        """Write the rows of some files while the next ones are decoded; what is not missing is passed over.

        Raises StoreError where rows cannot be written, these or those before.
        """
        new = [(row, file) for file in files if (row := self._row_of.pop(absolute_path(file.path), None)) is not None]
        with store_errors(self._folder):
            self._settle()
            parts = [new[at :: self._num_threads] for at in range(min(self._num_threads, len(new)))]
            self._under_way = [self._pool.submit(self._write_rows, part) for part in parts]

    def finish(self) -> None:
        """Wait until what was taken is on the disk, and let the store appear if that makes it whole."""
        with store_errors(self._folder):
            try:
                self._settle()
            finally:
                self._writer.flush()
            entries = {**self._started.entries, **self._writer.entries}
            is_whole = len(entries) == len(self._request.paths)
            if is_whole and (self._despite_bad or all(entry.problem is None for entry in entries.values())):
                publish(self._folder, self._request, self._started.places, entries)

    def _settle(self) -> None:
        under_way, self._under_way = self._under_way, []
        for written in under_way:
            self._writer.add(written.result())

    def _write_rows(self, part: Sequence[tuple[int, DecodedFile]]) -> dict[int, FileEntry]:
        places, request = self._started.places, self._request
        interpolation = request.terms["interpolation"]
        entries = {row: _entry(file, self._started.stamps[row]) for row, file in part}
        to_store: dict[tuple[int, int], dict[int, Tensor]] = {}
        for row, file in part:
            if file.image is None:
                continue
            height, width, _ = file.image.shape
            if (size := request.row_size(height, width)) == places.size(row):
                to_store.setdefault(size, {})[row] = file.image
            else:
                entries[row] = replace(entries[row], problem=f"{height} x {width} px, its header says another size")
        for size, images in to_store.items():
            for row, pixels in zip(images, _resized(list(images.values()), size, interpolation), strict=True):
                self._writer.write_row(row, pixels)
        # A bad file's row is written too: the file may have been good when an earlier build wrote there.
        for row, entry in entries.items():
            if entry.problem is not None:
                self._writer.write_row(row, np.zeros((*places.size(row), 3), dtype=np.uint8))
        return entries


def _resized(images: Sequence[Tensor], size: tuple[int, int], interpolation: str | None) -> list[NDArray[np.uint8]]:
    """Resize images to one (height, width) as Pillow does; without an interpolation they are left as they are."""
    if interpolation is None:
        return [image.numpy() for image in images]
    if max(size) > _MOST_SQUASHED_PX:  # a strip of pixels; Pillow knows no limit
        resampling, (height, width) = Image.Resampling[interpolation.upper()], size
        return [np.asarray(Image.fromarray(image.numpy()).resize((width, height), resampling)) for image in images]
    # One thread: others are at other files, and torch's would spin while they wait and take the cores from DALI.
    resized: NDArray[np.uint8] = ops.squash(list(images), size, interpolation, num_threads=1).numpy()
    return list(resized)


def _entry(file: DecodedFile, stamp: FileStamp | None) -> FileEntry:
    size, mtime_ns = stamp or (None, None)
    return FileEntry(
        size=size if file.sha256 is None else len(file.encoded),
        mtime_ns=mtime_ns,
        sha256=file.sha256,
        problem=file.problem,
    )


@contextmanager
def store_filler(folder: Path, request: StoreRequest, *, num_threads: int, despite_bad: bool) -> Iterator[StoreFiller]:
    """Go on with what there is of a store, or start it, in a folder that this process has locked.

    What is finished stays, however the block ends, and the store appears where it is whole then, and has no bad file or
    is to appear despite it. Files must be decoded with checksums, and read after the block was entered: if one changes
    from now on, that shows when the store is opened. Raises StoreError where the store cannot be written, and
    ValueError for num_threads below 1.
    """
    if num_threads < 1:
        raise ValueError(f"num_threads: got {num_threads}, expected an integer >= 1")
    with ExitStack() as stack:
        with store_errors(folder):
            started = read_started(folder, request)
            writer = stack.enter_context(open_writer(folder, request, started))
        pool = stack.enter_context(ThreadPoolExecutor(num_threads))
        filler = StoreFiller(folder, request, started, writer, pool, num_threads, despite_bad)
        try:
            yield filler
        except BaseException:
            with suppress(StoreError):  # what ended the block is the first that went wrong
                filler.finish()
            raise
        filler.finish()


@contextmanager
def store_errors(folder: Path) -> Iterator[None]:
    """Make a StoreError of what the system has against reading or writing a store."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno not in DISK_IS_FULL:
            raise StoreError(f"store {folder}: it cannot be used ({reason})") from error
        raise StoreError(
            f"store {folder}: the disk is full ({reason}); what is finished stays, and the same build goes on "
            "from there once there is room"
        ) from error
