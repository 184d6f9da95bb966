"""Planning and building stores: in parallel, in one process at a time, going on where an earlier build stopped."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines.cores import available_cores
from pipelines.progress import progress_bar
from pipelines.recipe import Recipe
from pipelines.store.filling import StoreFiller, store_errors, store_filler
from pipelines.store.index import INDEX_FILE, StaleStoreError, StoreError, StoreRequest
from pipelines.store.lock import locked
from pipelines.store.reading import OpenStore, find_current, open_current, remember_times
from pipelines.store.user_cache import is_writable
from pipelines.store.writing import JOURNAL_FILE, StartedBuild, read_started, removable_bytes, remove_store

if TYPE_CHECKING:
    from pipelines.decoding.files import DecodedFile

_FEW = 20_000
"""Files whose headers are read in about a second."""
_SAMPLE = 1000
"""Files of which the headers tell the size of a store roughly."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class StorePlan:
    """What a build will do."""

    folder: Path
    size: str
    """Of the images, in words."""
    num_images: int
    num_done: int
    """Images that the store has already, or an interrupted build of it."""
    num_bytes: int
    """Still to be written."""
    total_bytes: int
    """Size of all images in the store."""
    free_bytes: int
    """Free for them on the disk, with what an interrupted build has reserved."""
    is_complete: bool
    """Whether the store is there, made of these files as they are now, so that there is nothing to do."""
    stale: str | None = None
    """Why what is there, in the user's cache or a build that was interrupted, is removed first."""

    @property
    def fits(self) -> bool:
        """Whether the disk has room for what is still to be written."""
        return self.num_bytes <= self.free_bytes

    def __str__(self) -> str:
        images = f"store: {self.num_images:,} images {self.size}"
        if self.is_complete:
            return f"{images} in {self.folder}, complete and current"
        to_write = f"{bytes_text(self.num_bytes)} in {self.folder}, {bytes_text(self.free_bytes)} free"
        if self.stale:
            return f"{images}, {to_write}, built anew ({self.stale})"
        return (
            f"{images}, {self.num_done:,} of them done, the others {to_write}"
            if self.num_done
            else f"{images}, {to_write}"
        )


def default_store_folder(paths: Sequence[str | Path], recipe: Recipe, *, max_side: int | None = None) -> Path:
    """Name the folder, in the user's cache, of a store for which no other is given.

    It follows from the absolute paths, in any order, the recipe's resize and interpolation, max_side as in
    `build_store`, and the format. Raises StoreError for a user who has no cache.
    """
    return StoreRequest.of(paths, recipe, max_side).default_folder


def plan_store(
    paths: Sequence[str | Path],
    recipe: Recipe,
    folder: str | Path,
    *,
    rebuild: bool = False,
    max_side: int | None = None,
) -> StorePlan:
    """Find out what `build_store` would do with the same arguments, without writing anything.

    Raises the StoreError that it would raise of a folder that holds something else.
    """
    return _plan(Path(folder), StoreRequest.of(paths, recipe, max_side), rebuild)


def rough_bytes(
    paths: Sequence[str | Path], recipe: Recipe, folder: str | Path, *, max_side: int | None = None
) -> int | None:
    """Estimate the bytes of a store from the headers of some files; None where `plan_store` soon knows all.

    A million headers take a minute, which is long where it is clear from a thousand that nobody wants such a store.
    """
    request = StoreRequest.of(paths, recipe, max_side)
    num_paths = len(request.paths)
    is_there = any((Path(folder) / name).exists() for name in (INDEX_FILE, JOURNAL_FILE))
    if num_paths <= _FEW or isinstance(recipe.resize, tuple) or is_there:
        return None
    some = replace(request, paths=request.paths[:: num_paths // _SAMPLE])
    with store_errors(Path(folder)):
        return some.places().num_bytes * num_paths // len(some.paths)


def build_store(
    paths: Sequence[str | Path],
    recipe: Recipe,
    folder: str | Path,
    *,
    num_threads: int | None = None,
    progress: bool = True,
    rebuild: bool = False,
    max_side: int | None = None,
) -> OpenStore:
    """Make the store of files in a folder, in parallel, or finish what an interrupted build has left; returns it open.

    Returns at once where the store is complete and current. Pixels are those of the recipe's resize step on a PIL
    image, bit for bit. Rows are in the order of the sorted paths, so that the bytes follow from the files alone. A file
    that cannot be decoded has a row of zeros, as large as its header says, and its reason in the index. A build that is
    killed loses at most its last 256 images; where a picture has another size since, and so the rows after it another
    place, the build starts anew, which is said. While another process builds in the folder, this one waits for it.

    num_threads None is one for each available core; progress shows a bar on stderr; rebuild first removes the store
    that is there. max_side, of a recipe that does not resize, stores so many px of the longer side of an image at most:
    smaller than the image as it is, and not exact. Raises ValueError where that cannot be; StoreError, before it writes
    pixels, where the folder holds the store of other files, of files that have changed since or of another recipe, and
    where the disk has not enough room. Only in the default folder, whose content nobody chose, is such a store removed
    and built anew.
    """
    request, folder = StoreRequest.of(paths, recipe, max_side), Path(folder)
    store = None if rebuild else find_current(folder, request)
    if store is None:
        with _to_fill(folder, request, num_threads, rebuild=rebuild, despite_bad=True) as filler:
            if filler is not None:
                _decode(filler, request, num_threads, progress)
        store = find_current(folder, request)
        assert store is not None, "a file was passed over"
    remember_times(store)
    return store


@contextmanager
def filling_stores(
    paths: Sequence[str | Path], stores: Mapping[Path, Recipe], *, num_threads: int | None = None
) -> Iterator[Callable[[Sequence[DecodedFile]], None]]:
    """Give what takes the files of one pass over all paths, as `decode_files` decodes them, and fills stores with them.

    stores: the recipe of each folder. They are filled as `build_store` would: to the same bytes, going on from what is
    there, while others that build there wait; a store that is complete is left as it is. Where files are missing when
    the block ends, a later pass or build goes on; where one is bad, a build has only to let the store appear, and until
    then a file that is repaired costs no more than itself, if its place is as large as before. num_threads None is one
    for each available core. Raises what `build_store` raises: about what is there and the room before the block is
    entered, about the disk in the block.
    """
    with ExitStack() as stack:
        # In one order, so that two processes do not wait for each other.
        to_fill = [
            stack.enter_context(_to_fill(folder, StoreRequest.of(paths, stores[folder]), num_threads))
            for folder in sorted(stores)
        ]
        fillers = [filler for filler in to_fill if filler is not None]

        def take(files: Sequence[DecodedFile]) -> None:
            for filler in fillers:
                filler.take(files)

        yield take


@contextmanager
def _to_fill(
    folder: Path, request: StoreRequest, num_threads: int | None, *, rebuild: bool = False, despite_bad: bool = False
) -> Iterator[StoreFiller | None]:
    """Lock a folder and open what there is to fill in it; None where its store is complete."""
    with ExitStack() as stack:
        if rebuild or find_current(folder, request) is None:
            with store_errors(folder):
                stack.enter_context(locked(folder))
                if rebuild:
                    _check_room(_plan(folder, request, rebuild=True))
                    remove_store(folder)
            # Another process may have built it while this one waited.
            plan = _plan(folder, request, rebuild=False)
            if not plan.is_complete:
                _check_room(plan)
                if plan.stale:
                    _log.warning("store %s: built anew (%s)", folder, plan.stale)
                    with store_errors(folder):
                        remove_store(folder)
                num_threads = available_cores() if num_threads is None else num_threads
                yield stack.enter_context(
                    store_filler(folder, request, num_threads=num_threads, despite_bad=despite_bad)
                )
                return
        yield None


def _decode(filler: StoreFiller, request: StoreRequest, num_threads: int | None, progress: bool) -> None:
    """Decode what a store lacks, and nothing else."""
    # With DALI, which takes its time to import, and which a store that is there is planned and read without.
    from pipelines.decoding.files import decode_files

    missing = filler.missing
    bar = progress_bar(
        len(request.paths),
        f"storing images {request.size_text}",
        shown=progress,
        initial=len(request.paths) - len(missing),
    )
    with bar, closing(decode_files(missing, num_threads=num_threads)) as decoded:  # type: ignore[type-var]
        for files in decoded:
            filler.take(files)
            bar.update(len(files))


def _plan(folder: Path, request: StoreRequest, rebuild: bool) -> StorePlan:
    started, store, stale = None, None, None
    if not folder.is_dir() and request.is_default(folder):
        _check_writable(folder, request)
    if not rebuild:
        try:
            started, store = _found(folder, request)
        except StaleStoreError as error:
            if not request.is_default(folder):
                raise
            stale = error.reason
    if store is None:
        _check_writable(folder, request)
    if started is not None:
        stale = started.moved
    row_bytes = _row_bytes(folder, request, started, store)
    done = [] if started is None else list(started.entries)
    reserved_bytes = removable_bytes(folder) if rebuild or stale else started.reserved_bytes if started else 0
    num_images, total_bytes = len(row_bytes), int(row_bytes.sum())
    return StorePlan(
        folder=folder,
        size=request.size_text,
        num_images=num_images,
        num_done=num_images if store is not None else len(done),
        num_bytes=0 if store is not None else total_bytes - int(row_bytes[done].sum()),
        total_bytes=total_bytes,
        free_bytes=_free_bytes(folder) + reserved_bytes,
        is_complete=store is not None,
        stale=stale,
    )


def _found(folder: Path, request: StoreRequest) -> tuple[StartedBuild | None, OpenStore | None]:
    """Look at what is in a folder: what there is of a build, and the store if it is complete and current."""
    started = None
    if not (folder / INDEX_FILE).exists():
        with store_errors(folder):
            started = read_started(folder, request)
    # In this order: a store that another process finishes meanwhile is a whole one.
    return started, open_current(folder, request)


def _row_bytes(
    folder: Path, request: StoreRequest, started: StartedBuild | None, store: OpenStore | None
) -> NDArray[np.int64]:
    """(N,) bytes of each file's row; the headers of the files are read where nothing there has said it."""
    if store is not None:
        return store.index.places.row_bytes[[store.row_of[store.names[path]] for path in request.paths]]
    if started is not None:
        return started.places.row_bytes
    with store_errors(folder):
        return request.places().row_bytes


def _check_writable(folder: Path, request: StoreRequest) -> None:
    if not is_writable(folder):
        instead = ", expected XDG_CACHE_HOME=DIR or --store DIR" if request.is_default(folder) else ""
        raise StoreError(f"store {folder}: nothing can be written there{instead}")


def _check_room(plan: StorePlan) -> None:
    if not plan.fits:
        raise StoreError(f"{plan}: too little; free some, or name a folder on another disk")


def _free_bytes(folder: Path) -> int:
    folder = folder.absolute()
    return shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free


def bytes_text(num: int) -> str:
    """Write a number of bytes in the unit that suits it."""
    unit, name = next(((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if num >= unit), (1e3, "kB"))
    return f"{num / unit:,.1f} {name}"
