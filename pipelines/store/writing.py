"""A store while it is built: its pixels under another name, and a journal of the rows that have reached the disk."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipelines.decoding.pil import is_read_now
from pipelines.store.disk import flush, flush_path, reserve
from pipelines.store.index import (
    INDEX_FILE,
    FileEntry,
    FileStamp,
    StaleStoreError,
    StoreIndex,
    StoreRequest,
    file_stamp,
    write_index,
)
from pipelines.store.rows import RowPlaces

PIXELS_FILE = "pixels.npy"
BUILDING_FILE = "building.npy"
JOURNAL_FILE = "journal.jsonl"

_CHUNK = 128
"""Rows that are flushed to the disk, and then journalled, together."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StartedBuild:
    """What earlier builds have left of a store that is not whole; nothing, of one that was never started."""

    stamps: list[FileStamp | None]
    """Of each file now, before any is read: if it changes from now on, that shows when the store is opened."""
    entries: Mapping[int, FileEntry]
    """Of each row that is finished and whose file is still the same."""
    places: RowPlaces
    """Of all rows, as the files are now."""
    pixels: Path | None
    """The file that they are in; None where there is nothing to go on from."""
    num_journal_bytes: int
    """Length of the journal without what the end of the build has cut off."""
    reserved_bytes: int
    """What the file has of the disk beyond the rows that are finished."""
    moved: str | None = None
    """Why nothing of what is there can be gone on from, although it is of these files."""


def read_started(folder: Path, request: StoreRequest) -> StartedBuild:
    """Look at what is in a folder that has no index; raises StaleStoreError where it is the build of something else."""
    stamps = request.stamps()
    lines, num_journal_bytes = _whole_lines(folder / JOURNAL_FILE)
    if lines:
        request.check_terms(folder, lines[0])
    places = request.places(stamps)
    moved = None
    if lines:
        first = _first_line(request, places)
        if lines[0] | {"sizes": None} != first | {"sizes": None}:
            raise StaleStoreError(folder, "an interrupted build of other files is there")
        if lines[0] != first:
            moved = "pictures have other sizes than when its build was started"
    elif (folder / PIXELS_FILE).exists() and not (folder / INDEX_FILE).exists():
        raise StaleStoreError(folder, f"{PIXELS_FILE} is there without {INDEX_FILE}")
    pixels = _started_pixels(folder, places) if lines and not moved else None
    entries: dict[int, FileEntry] = {}
    for line in lines[1:] if pixels else ():
        row = line.pop("row", None)
        try:
            entries[range(len(stamps))[row]] = FileEntry.of(line)
        except (ValueError, TypeError, LookupError) as error:  # not cut off, but edited
            raise StaleStoreError(folder, f"{JOURNAL_FILE} is damaged (row {row}: {error})") from error
    entries = {
        row: entry
        for row, entry in entries.items()
        if entry.stamp == stamps[row] and not (entry.problem and is_read_now(request.paths[row], entry.problem))
    }
    return StartedBuild(
        stamps=stamps,
        entries=entries,
        places=places,
        pixels=pixels,
        num_journal_bytes=num_journal_bytes,
        reserved_bytes=max(0, _bytes_on_disk(folder / BUILDING_FILE) - int(places.row_bytes[list(entries)].sum())),
        moved=moved,
    )


def _whole_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Read a journal up to where it was cut off: its lines, and their length in bytes."""
    lines: list[dict[str, Any]] = []
    num_bytes = 0
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        return lines, num_bytes
    for line in found.splitlines(keepends=True):
        try:
            content = json.loads(line) if line.endswith(b"\n") else None
        except (ValueError, RecursionError):  # a disk that lost its power may leave anything after what was flushed
            content = None
        if not isinstance(content, dict):
            break
        lines.append(content)
        num_bytes += len(line)
    return lines, num_bytes


def _first_line(request: StoreRequest, places: RowPlaces) -> dict[str, Any]:
    first = {**request.terms, "files": hashlib.sha256(json.dumps(request.names).encode()).hexdigest()}
    if not places.are_equal:
        first["sizes"] = hashlib.sha256(places.sizes.astype("<i8").tobytes()).hexdigest()
    return first


def _started_pixels(folder: Path, places: RowPlaces) -> Path | None:
    num_bytes = len(_npy_header(places)) + places.num_bytes
    # The last steps of a build are to rename the pixels and to write the index; it may have stopped in between.
    for path in (folder / BUILDING_FILE, folder / PIXELS_FILE):
        if (stamp := file_stamp(str(path))) is not None and stamp[0] == num_bytes:
            return path
    return None


def _npy_header(places: RowPlaces) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": places.shape})
    return file.getvalue()


def _bytes_on_disk(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def removable_bytes(folder: Path) -> int:
    """Say how much of the disk `remove_store` would free."""
    return sum(_bytes_on_disk(folder / name) for name in (PIXELS_FILE, BUILDING_FILE))


def remove_store(folder: Path) -> None:
    """Remove a store, or what there is of one."""
    # The index first: without it nothing here passes for a store.
    for name in (INDEX_FILE, PIXELS_FILE, JOURNAL_FILE, BUILDING_FILE):
        (folder / name).unlink(missing_ok=True)


@contextmanager
def open_writer(folder: Path, request: StoreRequest, started: StartedBuild) -> Iterator[RowWriter]:
    """Open what there is of a store to write rows of it; those that were flushed stay, however this ends."""
    building, journal = folder / BUILDING_FILE, folder / JOURNAL_FILE
    header = _npy_header(started.places)
    if started.pixels is None:
        journal.unlink(missing_ok=True)
        building.unlink(missing_ok=True)
        building.touch()
    else:
        started.pixels.replace(building)
    # Without buffers, which would fail once more when they are closed.
    with building.open("r+b", buffering=0) as pixels, journal.open("ab", buffering=0) as lines:
        try:
            # Room for all of it is taken now, so that a disk without it is found out before the work.
            reserve(pixels.fileno(), len(header) + started.places.num_bytes)
        except OSError:
            if started.pixels is None:
                building.unlink()
            raise
        _write_all(pixels, header)
        if started.pixels is None:
            flush(pixels.fileno())
            _append(lines, [_first_line(request, started.places)])
        else:
            lines.truncate(started.num_journal_bytes)
        with ThreadPoolExecutor(1) as flusher:
            yield RowWriter(pixels, lines, flusher, len(header), started.places)


class RowWriter:
    """Writes rows, from any thread, and journals them when they have reached the disk, behind the decoding."""

    def __init__(
        self, pixels: BinaryIO, lines: BinaryIO, flusher: ThreadPoolExecutor, first_byte: int, places: RowPlaces
    ) -> None:
        self.entries: dict[int, FileEntry] = {}
        """Of each row that was written."""
        self._pixels = pixels
        self._lines = lines
        self._flusher = flusher
        self._flushing: Future[None] | None = None
        self._not_flushed: list[int] = []
        self._first_byte = first_byte
        self._places = places

    def write_row(self, row: int, pixels: NDArray[np.uint8]) -> None:
        """Write the pixels of a row, (height, width, 3) as it has a place for."""
        left, offset = np.ascontiguousarray(pixels).reshape(-1).data, self._first_byte + int(self._places.offsets[row])
        while left:
            num_written = os.pwrite(self._pixels.fileno(), left, offset)
            left, offset = left[num_written:], offset + num_written

    def add(self, entries: Mapping[int, FileEntry]) -> None:
        """Take note of rows that have been written."""
        self.entries.update(entries)
        self._not_flushed += entries
        if len(self._not_flushed) >= _CHUNK:
            self._start_flush()

    def flush(self) -> None:
        """Wait until every row that was added is on the disk and in the journal."""
        self._start_flush()
        assert self._flushing is not None
        self._flushing.result()

    def _start_flush(self) -> None:
        if self._flushing is not None:
            self._flushing.result()
        lines = [{"row": row, **asdict(self.entries[row])} for row in self._not_flushed]
        self._flushing = self._flusher.submit(self._flush, lines)
        self._not_flushed = []

    def _flush(self, lines: Sequence[Mapping[str, Any]]) -> None:
        flush(self._pixels.fileno(), data_only=True)
        _append(self._lines, lines)


def _append(file: BinaryIO, lines: Sequence[Mapping[str, Any]]) -> None:
    _write_all(file, "".join(f"{json.dumps(line)}\n" for line in lines).encode("ascii"))
    flush(file.fileno(), data_only=True)


def _write_all(file: BinaryIO, data: bytes) -> None:
    """Write to a file without a buffer, which may take less at a time."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def publish(folder: Path, request: StoreRequest, places: RowPlaces, entries: Mapping[int, FileEntry]) -> None:
    """Give the pixels their name and write the index, in this order on the disk too."""
    (folder / BUILDING_FILE).replace(folder / PIXELS_FILE)
    flush_path(folder)
    files = {name: entries[row] for row, name in enumerate(request.names)}
    write_index(folder, StoreIndex(terms=request.terms, root=request.root, entries=files, places=places))
    flush_path(folder)
    (folder / JOURNAL_FILE).unlink()
