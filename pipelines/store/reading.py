"""Reading a store: its index against the files, and its pixels mapped into memory."""

from __future__ import annotations

import logging
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.decoding.pil import BadImageError
from pipelines.recipe import Recipe
from pipelines.store.index import (
    FileEntry,
    StaleStoreError,
    StoreError,
    StoreIndex,
    StoreRequest,
    absolute_path,
    read_index,
    write_index,
)
from pipelines.store.lock import locked
from pipelines.store.rows import RowPlaces, image_at
from pipelines.store.writing import JOURNAL_FILE, PIXELS_FILE

_SHOWN = 10

# A tensor must be writable, so the mapping is: a page that is written to becomes the process's own. Without this flag,
# which Python names from 3.13 on, the system would refuse to map more than all memory could take if all was written to.
_MAP_NORESERVE = 0x4000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MappedPixels:
    """The file of a store's pixels that a process has mapped into its memory."""

    folder: Path
    mapping: mmap.mmap

    def check_whole(self) -> None:
        """Raise StoreError where the file was cut off since: the system ends a process that reads beyond its end.

        It asks the system for the size, which takes about a microsecond, so that each batch can be checked.
        """
        size, expected = self.mapping.size(), len(self.mapping)
        if size < expected:
            raise StaleStoreError(
                self.folder, f"{PIXELS_FILE} was cut off while it was in use, to {size:,} of {expected:,} bytes"
            )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StoreRows:
    """A store that is open, and where in it the files are that were asked for."""

    content: torch.Tensor
    """One-dimensional uint8: the whole store, mapped into memory. All readers share the page cache; what is written to
    the tensor is seen by its process alone and reaches no file."""
    images: torch.Tensor | None
    """(N, height, width, 3) uint8, the same memory, where all rows have one size."""
    rows: torch.Tensor
    """(n,) int64: the row of each path asked for; -1 of a bad file."""
    offsets: NDArray[np.int64]
    """(n,) where each image begins in the content; 0 of a bad file."""
    sizes: NDArray[np.int64]
    """(n, 2) height and width in px of each image; (0, 0) of a bad file."""
    problems: Mapping[int, str]
    """Why files cannot be decoded, by their positions in the paths asked for."""
    mapped: MappedPixels | None
    """What the content is mapped from; None of a store without pixels."""

    def image(self, position: int) -> torch.Tensor:
        """Return the image of a path asked for, (height, width, 3) uint8, in the same memory."""
        return image_at(self.content, self.offsets[position], self.sizes[position])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OpenStore:
    """A store that was checked against its files when it was opened: whoever wants some of them takes their rows."""

    folder: Path
    request: StoreRequest
    """What it was opened for."""
    index: StoreIndex
    names: Mapping[str, str]
    """Of each file, by its absolute path, the path in the index."""
    retimed: Mapping[str, FileEntry]
    """Entries to correct in the index, as `StoreIndex.check_files` gives them."""
    content: torch.Tensor
    """As in StoreRows."""
    images: torch.Tensor | None
    """As in StoreRows."""
    row_of: Mapping[str, int]
    """Of each path in the index."""
    mapped: MappedPixels | None
    """As in StoreRows."""

    @property
    def is_exact(self) -> bool:
        """Whether its pixels are those of the recipe, and not of a smaller image."""
        return self.request.max_side is None

    @property
    def problems(self) -> dict[str, str]:
        """Why files cannot be decoded: {absolute path: reason}."""
        return _problems(self.index, self.names)

    def take(self, paths: Sequence[str | Path], recipe: Recipe, on_bad_image: str = "error") -> StoreRows:
        """Find the rows of some of the files, in any order and number.

        on_bad_image "skip" leaves the files that cannot be decoded to the caller, "error" raises BadImageError, which
        names them. Raises StoreError where one is none of the files or the recipe has another resize or interpolation,
        and ValueError for another on_bad_image.
        """
        if on_bad_image not in ("error", "skip"):
            raise ValueError(f"on_bad_image: got {on_bad_image!r}, expected 'error' or 'skip'")
        max_side = self.request.max_side if recipe.resize is None else None
        request = StoreRequest.of(paths, recipe, max_side)
        request.check_terms(self.folder, self.index.terms)
        if unknown := [path for path in request.paths if path not in self.names]:
            raise StoreError(
                f"store {self.folder}: opened for {len(self.names):,} files, which lack {len(unknown):,} of "
                f"{len(request.paths):,}, first: {unknown[0]}"
            )
        names = {path: self.names[path] for path in request.paths}
        problems = _problems(self.index, names)
        if problems and on_bad_image == "error":
            raise BadImageError(_problems_text(problems, len(names)))
        asked = [absolute_path(path) for path in paths]
        rows = np.array([-1 if path in problems else self.row_of[names[path]] for path in asked], dtype=np.int64)
        is_good = rows >= 0
        places = self.index.places
        return StoreRows(
            content=self.content,
            images=self.images,
            rows=torch.from_numpy(rows),
            offsets=np.where(is_good, places.offsets[rows], 0),
            sizes=np.where(is_good[:, None], places.sizes[rows], 0),
            problems={at: problems[path] for at, path in enumerate(asked) if path in problems},
            mapped=self.mapped,
        )


def open_store(folder: str | Path, paths: Sequence[str | Path], recipe: Recipe) -> StoreRows:
    """Map a store into memory and find the rows of files, having checked that it was made of them as they are now.

    Size and time of modification tell whether a file is the same; where only the time differs, its content does.
    Raises StoreError where there is no store or it is not of these files and this recipe's resize and interpolation,
    and BadImageError where one of the files cannot be decoded.
    """
    folder, request = Path(folder), StoreRequest.of(paths, recipe)
    store = find_current(folder, request)
    if store is None:
        if (folder / JOURNAL_FILE).exists():
            raise StoreError(f"store {folder}: its build was interrupted; the same build again goes on from there")
        raise StoreError(f"store {folder}: there is none; build it with `dogs-accel prepare` or build_store")
    return store.take(paths, recipe)


def find_store(folder: str | Path, paths: Sequence[str | Path], recipe: Recipe) -> OpenStore | None:
    """Open the store of files in a folder, checked as `open_store` does; None where there is none that is whole.

    One in the user's cache that is stale counts as none, since nobody chose it and a build makes it anew.
    """
    return find_current(Path(folder), StoreRequest.of(paths, recipe))


def find_current(folder: Path, request: StoreRequest) -> OpenStore | None:
    """Do what `find_store` does for a request."""
    try:
        return open_current(folder, request)
    except StaleStoreError:
        if request.is_default(folder):
            return None
        raise


def open_current(folder: Path, request: StoreRequest) -> OpenStore | None:
    """Do what `find_current` does, but raise StaleStoreError also of a store in the user's cache."""
    index = read_index(folder, request)
    if index is None:
        return None
    names = index.find(folder, request)
    retimed = index.check_files(folder, names)
    pixels, mapped = _map_pixels(folder, index.places.shape)
    content = pixels.view(-1)
    return OpenStore(
        folder=folder,
        request=request,
        index=index,
        names=names,
        retimed=retimed,
        content=content,
        images=_of_one_size(content, index.places),
        row_of={name: row for row, name in enumerate(index.entries)},
        mapped=mapped,
    )


def remember_times(store: OpenStore) -> None:
    """Correct the times in the index of a store, so that nobody has to compare the contents again."""
    folder, index = store.folder, store.index
    if not store.retimed:
        return
    try:
        with locked(folder):
            found = read_index(folder, store.request)
            if found is not None and found.entries == index.entries:
                write_index(folder, replace(index, entries={**index.entries, **store.retimed}))
    except OSError as error:
        _log.info("store %s: its index cannot be corrected (%s), so contents are compared again", folder, error)


def _map_pixels(folder: Path, shape: tuple[int, ...]) -> tuple[torch.Tensor, MappedPixels | None]:
    path = folder / PIXELS_FILE
    try:
        found = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise StaleStoreError(folder, f"{PIXELS_FILE} is missing or damaged ({error})") from error
    if found.shape != shape or found.dtype != np.uint8:
        raise StaleStoreError(
            folder, f"{PIXELS_FILE} has shape {found.shape} of {found.dtype}, expected {shape} of uint8"
        )
    if found.size == 0:
        return torch.empty(shape, dtype=torch.uint8), None
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE | _MAP_NORESERVE)
    pixels = torch.frombuffer(content, dtype=torch.uint8, offset=found.offset, count=found.size).view(shape)
    return pixels, MappedPixels(folder, content)


def _of_one_size(content: torch.Tensor, places: RowPlaces) -> torch.Tensor | None:
    sizes = places.sizes
    return content.view(len(sizes), *places.size(0), 3) if (sizes == sizes[0]).all() else None


def _problems(index: StoreIndex, names: Mapping[str, str]) -> dict[str, str]:
    entries = ((path, index.entries[name]) for path, name in names.items())
    return {path: entry.problem for path, entry in entries if entry.problem is not None}


def _problems_text(problems: Mapping[str, str], num_files: int) -> str:
    shown = [f"{path}: {problem}" for path, problem in list(problems.items())[:_SHOWN]]
    more = f"; and {len(problems) - _SHOWN:,} more" if len(problems) > _SHOWN else ""
    return f"{len(problems):,} of {num_files:,} files cannot be decoded: {'; '.join(shown)}{more}"
