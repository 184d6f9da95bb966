"""Planning and building a store: in parallel, in one process at a time, going on where an earlier build stopped."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.cores import available_cores
from pipelines.recipe import Recipe
from pipelines.store.index import (
    INDEX_FILE,
    StoreError,
    StoreRequest,
)
from pipelines.store.lock import locked
from pipelines.store.reading import find_current, remember_times
from pipelines.store.writing import read_started, removable_bytes, remove_store, write_store

_DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT}


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
    if not rebuild and (found := find_current(folder, request)) is not None:
        remember_times(folder, request, *found)
        return
    with _full_disk_errors(folder), locked(folder):
        if rebuild:
            _check_room(_plan(folder, request, rebuild=True))
            remove_store(folder)
        # Another process may have built it while this one waited.
        plan = _plan(folder, request, rebuild=False)
        if not plan.is_complete:
            _check_room(plan)
            num_threads = available_cores() if num_threads is None else num_threads
            write_store(folder, request, num_threads=num_threads, progress=progress)


def _plan(folder: Path, request: StoreRequest, rebuild: bool) -> StorePlan:
    started = None
    if not rebuild and not (folder / INDEX_FILE).exists():
        started = read_started(folder, request)
    # In this order: a store that another process finishes meanwhile is a whole one.
    is_complete = not rebuild and find_current(folder, request) is not None
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
