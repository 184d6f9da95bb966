"""The decode-once store: each file decoded and squashed to one size, as bytes that a loader maps into memory.

The published recipes begin with a squash to 256 x 256 px, the same in every epoch, so a store of squashed pixels is
exact. A folder holds one store: `pixels.npy`, (N, height, width, 3) uint8, and `index.json`, which says of each row
what file it was made from, and is written last: a folder that has it holds a whole store. While a store is built there
are `building.npy` and `journal.jsonl` instead, from which an interrupted build goes on; `.lock` lets one process build.

A store knows its files by their paths relative to their common folder, and by size, time of modification and checksum.
So paths may be relative or absolute, the files may move, be copied or mounted elsewhere together, and a loader may ask
for some of them only; what they must not do is change.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import mmap
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pipelines.batch import BadImageError, available_cores
from pipelines.recipe import Recipe
from pipelines.store_build import JOURNAL_FILE, PIXELS_FILE, read_started, removable_bytes, remove_store, write_store
from pipelines.store_index import (
    ANEW,
    INDEX_FILE,
    FileEntry,
    StoreError,
    StoreIndex,
    StoreRequest,
    absolute_path,
    read_index,
    write_index,
)

__all__ = [
    "PIXELS_FILE",
    "StoreError",
    "StorePlan",
    "StoreRows",
    "build_store",
    "default_store_folder",
    "open_store",
    "plan_store",
    "store_problems",
]

_LOCK_FILE = ".lock"
_SHOWN = 10
_DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT}

# A tensor must be writable, so the mapping is: a page that is written to becomes the process's own. Without this flag,
# which Python names from 3.13 on, the system would refuse to map more than all memory could take if all was written to.
_MAP_NORESERVE = 0x4000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class StorePlan:
    """What a build will do."""

    folder: Path
    resize: tuple[int, int]
    """(height, width) in px of every image in the store."""
    num_images: int
    num_done: int
    """Images that the store has already, or an interrupted build of it."""
    num_bytes: int
    """Still to be written."""
    free_bytes: int
    """Free for them on the disk, with what an interrupted build has reserved."""
    is_complete: bool
    """Whether the store is there, made of these files as they are now, so that there is nothing to do."""

    @property
    def total_bytes(self) -> int:
        """Size of the whole store."""
        height, width = self.resize
        return self.num_images * height * width * 3

    @property
    def fits(self) -> bool:
        """Whether the disk has room for what is still to be written."""
        return self.num_bytes <= self.free_bytes

    def __str__(self) -> str:
        height, width = self.resize
        images = f"store: {self.num_images:,} images of {height} x {width} px"
        if self.is_complete:
            return f"{images} in {self.folder}, complete and current"
        to_write = f"{_bytes_text(self.num_bytes)} in {self.folder}, {_bytes_text(self.free_bytes)} free"
        return (
            f"{images}, {self.num_done:,} of them done, the others {to_write}"
            if self.num_done
            else f"{images}, {to_write}"
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StoreRows:
    """A store that is open, and where in it the files are that were asked for."""

    images: torch.Tensor
    """(N, height, width, 3) uint8: the whole store, mapped into memory. All readers share the page cache; what is
    written to the tensor is seen by its process alone and reaches no file."""
    rows: torch.Tensor
    """(n,) int64: the row of each path asked for."""


def default_store_folder(paths: Sequence[str | Path], recipe: Recipe) -> Path:
    """Name the folder, in the user's cache, of a store for which no other is given.

    It follows from the absolute paths, in any order, the recipe's resize and interpolation, and the format.
    """
    request = StoreRequest.of(paths, recipe)
    key = hashlib.sha256(json.dumps([dict(request.terms), request.paths]).encode()).hexdigest()[:16]
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "dogs_accel" / "stores" / key


def plan_store(paths: Sequence[str | Path], recipe: Recipe, folder: str | Path, *, rebuild: bool = False) -> StorePlan:
    """Find out what `build_store` would do with the same arguments, without writing anything.

    Raises the StoreError that it would raise of a folder that holds something else.
    """
    return _plan(Path(folder), StoreRequest.of(paths, recipe), rebuild)


def build_store(
    paths: Sequence[str | Path],
    recipe: Recipe,
    folder: str | Path,
    *,
    num_threads: int | None = None,
    progress: bool = True,
    rebuild: bool = False,
) -> None:
    """Make the store of files in a folder, in parallel, or finish what an interrupted build has left there.

    Returns at once where the store is complete and current. Pixels are those of `PIL.Image.resize`, bit for bit. Rows
    are in the order of the sorted paths, so that the bytes follow from the files alone. A file that cannot be decoded
    has a row of zeros, and its reason in the index. A build that is killed loses at most its last 256 images. While
    another process builds in the folder, this one waits for it.

    num_threads None is one for each available core; progress shows a bar on stderr; rebuild first removes the store
    that is there. Raises ValueError for a recipe whose resize is not (height, width); StoreError, before it writes
    pixels, where the folder holds the store of other files, of files that have changed since or of another recipe, and
    where the disk has not enough room.
    """
    request, folder = StoreRequest.of(paths, recipe), Path(folder)
    if not rebuild and (found := _find_current(folder, request)) is not None:
        _remember_times(folder, request, *found)
        return
    with _full_disk_errors(folder), _locked(folder):
        if rebuild:
            _check_room(_plan(folder, request, rebuild=True))
            remove_store(folder)
        # Another process may have built it while this one waited.
        plan = _plan(folder, request, rebuild=False)
        if not plan.is_complete:
            _check_room(plan)
            num_threads = available_cores() if num_threads is None else num_threads
            write_store(folder, request, num_threads=num_threads, progress=progress)


def open_store(folder: str | Path, paths: Sequence[str | Path], recipe: Recipe) -> StoreRows:
    """Map a store into memory and find the rows of files, having checked that it was made of them as they are now.

    Size and time of modification tell whether a file is the same; where only the time differs, its content does.
    Raises StoreError where there is no store or it is not of these files and this recipe's resize and interpolation,
    and BadImageError where one of the files cannot be decoded.
    """
    folder = Path(folder)
    index, names = _open_index(folder, StoreRequest.of(paths, recipe))
    problems = _problems(index, names)
    if problems:
        raise BadImageError(f"store {folder}: {_problems_text(problems, len(names))}")
    row_of = {name: row for row, name in enumerate(index.entries)}
    rows = [row_of[names[absolute_path(path)]] for path in paths]
    height, width = index.terms["resize"]
    images = _map_pixels(folder, (len(row_of), height, width, 3))
    return StoreRows(images=images, rows=torch.tensor(rows, dtype=torch.int64))


def store_problems(folder: str | Path, paths: Sequence[str | Path], recipe: Recipe) -> dict[str, str]:
    """Say which files of a store cannot be decoded: {absolute path: reason}. Checks and raises as `open_store` does."""
    return _problems(*_open_index(Path(folder), StoreRequest.of(paths, recipe)))


# --- reading ----------------------------------------------------------------------------------------------------------


def _open_index(folder: Path, request: StoreRequest) -> tuple[StoreIndex, dict[str, str]]:
    """Read the index and give the name in it of each path, having checked all but the pixels."""
    index = read_index(folder, request)
    if index is None:
        if (folder / JOURNAL_FILE).exists():
            raise StoreError(f"store {folder}: its build was interrupted; the same build again goes on from there")
        raise StoreError(f"store {folder}: there is none; build it with `dogs-accel prepare` or build_store")
    names = index.find(folder, request)
    index.check_files(folder, names)
    return index, names


def _find_current(folder: Path, request: StoreRequest) -> tuple[StoreIndex, dict[str, FileEntry]] | None:
    """Read the index of a store of these files, and the entries to correct in it, as `StoreIndex.check_files` says.

    None where there is no store; raises StoreError where there is one that is not of these files as they are.
    """
    index = read_index(folder, request)
    if index is None:
        return None
    retimed = index.check_files(folder, index.find(folder, request))
    _map_pixels(folder, (len(index.entries), *request.resize, 3))
    return index, retimed


def _remember_times(folder: Path, request: StoreRequest, index: StoreIndex, retimed: Mapping[str, FileEntry]) -> None:
    """Correct the times in an index, so that nobody has to compare the contents again."""
    if not retimed:
        return
    try:
        with _locked(folder):
            found = read_index(folder, request)
            if found is not None and found.entries == index.entries:
                write_index(folder, replace(index, entries={**index.entries, **retimed}))
    except OSError as error:
        _log.info("store %s: its index cannot be corrected (%s), so contents are compared again", folder, error)


def _map_pixels(folder: Path, shape: tuple[int, ...]) -> torch.Tensor:
    path = folder / PIXELS_FILE
    try:
        found = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise StoreError(f"store {folder}: {PIXELS_FILE} is missing or damaged ({error}); {ANEW}") from error
    if found.shape != shape or found.dtype != np.uint8:
        raise StoreError(
            f"store {folder}: {PIXELS_FILE} has shape {found.shape} of {found.dtype}, expected {shape} of uint8; {ANEW}"
        )
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE | _MAP_NORESERVE)
    return torch.frombuffer(content, dtype=torch.uint8, offset=found.offset, count=found.size).view(shape)


def _problems(index: StoreIndex, names: Mapping[str, str]) -> dict[str, str]:
    entries = ((path, index.entries[name]) for path, name in names.items())
    return {path: entry.problem for path, entry in entries if entry.problem is not None}


def _problems_text(problems: Mapping[str, str], num_files: int) -> str:
    shown = [f"{path}: {problem}" for path, problem in list(problems.items())[:_SHOWN]]
    more = f"; and {len(problems) - _SHOWN:,} more" if len(problems) > _SHOWN else ""
    return f"{len(problems):,} of {num_files:,} files cannot be decoded: {'; '.join(shown)}{more}"


# --- planning ---------------------------------------------------------------------------------------------------------


def _plan(folder: Path, request: StoreRequest, rebuild: bool) -> StorePlan:
    started = None
    if not rebuild and not (folder / INDEX_FILE).exists():
        started = read_started(folder, request)
    # In this order: a store that another process finishes meanwhile is a whole one.
    is_complete = not rebuild and _find_current(folder, request) is not None
    num_images = len(request.paths)
    num_done = num_images if is_complete else len(started.entries) if started else 0
    reserved_bytes = removable_bytes(folder) if rebuild else started.reserved_bytes if started else 0
    return StorePlan(
        folder=folder,
        resize=request.resize,
        num_images=num_images,
        num_done=num_done,
        num_bytes=(num_images - num_done) * request.row_bytes,
        free_bytes=_free_bytes(folder) + reserved_bytes,
        is_complete=is_complete,
    )


def _check_room(plan: StorePlan) -> None:
    if not plan.fits:
        raise StoreError(f"{plan}: too little; free some, or name a folder on another disk")


def _free_bytes(folder: Path) -> int:
    folder = folder.absolute()
    return shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free


def _bytes_text(num: int) -> str:
    unit, name = next(((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if num >= unit), (1e3, "kB"))
    return f"{num / unit:,.1f} {name}"


# --- building ---------------------------------------------------------------------------------------------------------


@contextmanager
def _full_disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_IS_FULL:
            raise
        raise StoreError(
            f"store {folder}: the disk is full ({error.strerror}); what is finished stays, and the same build goes on "
            "from there once there is room"
        ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time build in a folder; the system frees the lock of one that dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK_FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            # A warning, since a process that only waits looks like one that hangs.
            _log.warning("store %s: waiting for %s, which is building it", folder, file.read() or "another process")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
