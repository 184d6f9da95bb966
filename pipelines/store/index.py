"""What a store says of the files it was made from, and whether they are still the same."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from pipelines.cores import available_cores
from pipelines.decoding.contents import read_file
from pipelines.decoding.pil import is_read_now
from pipelines.recipe import Recipe
from pipelines.store.disk import flush
from pipelines.store.rows import RowPlaces, sizes_of_files
from pipelines.store.user_cache import NoCacheError, cache_folder

FORMAT_VERSION = 2
"""With the rule that says what the pixels of a file are: before 2, deep greys were clipped and hidden colours seen."""
INDEX_FILE = "index.json"
_MAX_SIDE = "max_side"
_MADE_FOR = {"resize": "the recipe {} has", _MAX_SIDE: "what is asked for is", "interpolation": "the recipe {} has"}
"""Terms beside the format, and whose they are."""
_ANEW = "to build it anew, remove the folder or use `dogs-accel prepare --rebuild`"

_log = logging.getLogger(__name__)

FileStamp = tuple[int, int]
"""Size in bytes and time of modification in ns."""


class StoreError(ValueError):
    """A store that cannot be used or built; the message names its folder, what is wrong and the way out."""


class StaleStoreError(StoreError):
    """A store that has to be built anew to be of use."""

    def __init__(self, folder: Path, reason: str, instead: str = "") -> None:
        super().__init__(f"store {folder}: {reason}; {instead}{_ANEW}")
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """One file as it was when its row was made."""

    size: int | None
    """In bytes; None, as mtime_ns, of a file that was not there."""
    mtime_ns: int | None
    sha256: str | None
    """Of the content, in hex; None of a file that could not be read."""
    problem: str | None
    """Why it cannot be decoded and its row is zeros, as far as it has one; None where it can."""

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> FileEntry:
        """Read what `asdict` laid out. Raises ValueError for anything else."""
        for name, kind in (("size", int), ("mtime_ns", int), ("sha256", str), ("problem", str)):
            if name not in content or not isinstance(content[name], kind | None):
                raise ValueError(f"{name}: got {str(content.get(name))[:40]!r}")
        if len(content) != len(fields(cls)):
            raise ValueError(f"got {', '.join(map(repr, content))}")
        return cls(**content)

    @property
    def stamp(self) -> FileStamp | None:
        """Size and time together; None of a file that was not there."""
        return None if self.size is None or self.mtime_ns is None else (self.size, self.mtime_ns)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StoreRequest:
    """The files and the recipe that somebody wants a store of."""

    terms: Mapping[str, Any]
    """Format, resize and interpolation: what a store must agree with to be of use; and `max_side`, if there is one."""
    recipe: Recipe
    paths: list[str]
    """Absolute and normalised, each once, sorted."""
    root: str
    """Their common folder."""

    @classmethod
    def of(cls, paths: Sequence[str | Path], recipe: Recipe, max_side: int | None = None) -> StoreRequest:
        """Raise ValueError for no files, and for a longest side in px of images that are resized anyway."""
        if max_side is not None and (max_side < 1 or recipe.resize is not None):
            raise ValueError(
                f"store_max_side: got {max_side} for the recipe {recipe.name}, whose resize is {recipe.resize}, "
                "expected an integer >= 1 (px), and a recipe whose resize is None"
            )
        resize, interpolation = made_for(recipe, max_side)
        absolute = sorted({absolute_path(path) for path in paths})
        if not absolute:
            raise ValueError("paths: got none, expected at least one file")
        return cls(
            terms={
                "format": FORMAT_VERSION,
                "resize": list(resize) if isinstance(resize, tuple) else resize,
                "interpolation": interpolation,
                **({} if max_side is None else {_MAX_SIDE: max_side}),
            },
            recipe=recipe,
            paths=absolute,
            root=os.path.commonpath({os.path.dirname(path) for path in absolute}),  # noqa: PTH120
        )

    @property
    def max_side(self) -> int | None:
        """Longest side in px of what is stored of an image, where it is not all of it."""
        max_side: int | None = self.terms.get(_MAX_SIDE)
        return max_side

    def row_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in px of what is stored of an image of this height and width."""
        height, width = self.recipe.resized(height, width)
        longest = max(height, width)
        if self.max_side is None or longest <= self.max_side:
            return height, width
        scale = self.max_side / longest
        return max(1, round(height * scale)), max(1, round(width * scale))

    @property
    def size_text(self) -> str:
        """Say of what size the images are."""
        resize = self.recipe.resize
        if self.max_side is not None:
            return f"with at most {self.max_side} px on the longer side"
        if resize is None:
            return "as they are"
        if isinstance(resize, int):
            return f"with a shorter side of {resize} px"
        height, width = resize
        return f"of {height} x {width} px"

    def places(self, stamps: Sequence[FileStamp | None] | None = None) -> RowPlaces:
        """Give each file its place in the store: squashed all the same, else as much as its header says.

        stamps: of the files, looked at before this; None looks now. Raises OSError where headers cannot be read.
        """
        if isinstance(self.recipe.resize, tuple):
            return RowPlaces.of_equal(len(self.paths), self.recipe.resize)
        return RowPlaces.of_sizes(sizes_of_files(self.paths, stamps or self.stamps(), self.row_size))

    def stamps(self) -> list[FileStamp | None]:
        """Look at each file."""
        return [file_stamp(path) for path in self.paths]

    @property
    def names(self) -> list[str]:
        """The paths relative to the root, in the same order."""
        start = len(_prefix(self.root))
        return [path[start:] for path in self.paths]

    @property
    def default_folder(self) -> Path:
        """Folder, in the user's cache, of the store where no other is given. Raises StoreError where there is none."""
        key = hashlib.sha256(json.dumps([dict(self.terms), self.paths]).encode()).hexdigest()[:16]
        try:
            return cache_folder() / "stores" / key
        except NoCacheError as error:
            raise StoreError(f"store: no folder for it: {error}, or --store DIR") from error

    def is_default(self, folder: Path) -> bool:
        """Whether a folder is the one in the user's cache, whose content nobody chose."""
        try:
            return absolute_path(folder) == absolute_path(self.default_folder)
        except StoreError:
            return False

    def check_terms(self, folder: Path, found: Mapping[str, Any]) -> None:
        """Raise StoreError where a store in `folder` was made on other terms."""
        if found.get("format") != FORMAT_VERSION:
            raise StaleStoreError(folder, f"made in format {found.get('format')}, expected format {FORMAT_VERSION}")
        for field, whose in _MADE_FOR.items():
            if (stored := found.get(field)) != (wanted := self.terms.get(field)):
                raise StaleStoreError(
                    folder,
                    f"made for {field} {_as_text(stored)}, {whose.format(self.recipe.name)} {_as_text(wanted)}",
                    "give each its own folder, or ",
                )


def made_for(recipe: Recipe, max_side: int | None = None) -> tuple[tuple[int, int] | int | None, str | None]:
    """What a store is made for: a recipe's resize and interpolation, of which what is not resized has none.

    Recipes of the same share a store, whatever else they do.
    """
    return recipe.resize, None if recipe.resize is None and max_side is None else recipe.interpolation


def absolute_path(path: str | Path) -> str:
    """Make a path absolute and take out "." and "..", leaving links as they are."""
    return os.path.abspath(path)  # noqa: PTH100  # Path.absolute keeps "..", Path.resolve follows links


def file_stamp(path: str) -> FileStamp | None:
    """Look at a file; None where there is none to look at."""
    try:
        found = os.stat(path)  # noqa: PTH116  # tens of thousands of them, and a Path takes longer than the call
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StoreIndex:
    """What index.json holds."""

    terms: Mapping[str, Any]
    root: str
    """Where the files were."""
    entries: Mapping[str, FileEntry]
    """One for each row, in their order; the key is the path relative to the root."""
    places: RowPlaces
    """Of the rows."""

    def find(self, folder: Path, request: StoreRequest) -> dict[str, str]:
        """Give {absolute path: path in this index}, also where the files have moved together.

        Raises StoreError where a file is not in the store.
        """
        missing = request.paths
        for root in self._possible_roots(request.paths[0]):
            prefix = _prefix(root)
            names = {path: path.removeprefix(prefix) for path in request.paths}
            not_here = [path for path, name in names.items() if name not in self.entries]
            if not not_here:
                return names
            missing = min(missing, not_here, key=len)
        raise StaleStoreError(
            folder,
            f"it lacks {_num_of(missing, request.paths)}, first: {missing[0]} (it has {len(self.entries):,}, from "
            f"{self.root})",
            "give each set of files its own folder, or ",
        )

    def _possible_roots(self, path: str) -> Iterator[str]:
        yield self.root
        parts = path.split("/")
        for at in range(1, len(parts)):
            if "/".join(parts[at:]) in self.entries:
                yield "/".join(parts[:at]) or "/"

    def check_files(self, folder: Path, names: Mapping[str, str]) -> dict[str, FileEntry]:
        """Compare files {path: name} with what they were; raises StoreError where one has changed.

        Returns the entries of files with the same content and another time of modification, with that time.
        """
        stamps = {path: file_stamp(path) for path in names}
        changes = {
            path: change
            for path, name in names.items()
            if (change := _change(self.entries[name], stamps[path])) is not None
        }
        retimed = {
            path: stamp[1]
            for path, stamp in stamps.items()
            if stamp is not None and path not in changes and stamp != self.entries[names[path]].stamp
        }
        problems = {path: self.entries[name].problem for path, name in names.items()}
        changes |= {
            path: "it can be read now, which it could not"
            for path, problem in problems.items()
            if problem is not None and path not in changes and is_read_now(path, problem)
        }
        if retimed:
            _log.info("store %s: comparing the content of %d files whose time differs", folder, len(retimed))
            changes |= self._changes_of_content({path: names[path] for path in retimed})
        if changes:
            first = min(changes)
            raise StaleStoreError(
                folder, f"{_num_of(changes, names)} changed since it was built, first: {first} ({changes[first]})"
            )
        return {names[path]: replace(self.entries[names[path]], mtime_ns=mtime) for path, mtime in retimed.items()}

    def _changes_of_content(self, names: Mapping[str, str]) -> dict[str, str]:
        with ThreadPoolExecutor(available_cores()) as pool:
            digests = dict(zip(names, pool.map(content_digest, names), strict=True))
        return {path: "other content" for path, name in names.items() if digests[path] != self.entries[name].sha256}


def content_digest(path: str) -> str | None:
    """Sha256 of a file's content in hex; None where it cannot be read."""
    try:
        return hashlib.sha256(read_file(path)).hexdigest()
    except OSError:
        return None


def _change(entry: FileEntry, stamp: FileStamp | None) -> str | None:
    """Say what is different about a file beside its time, None if nothing is."""
    if stamp is None or entry.stamp is None:
        return None if entry.stamp == stamp else "gone" if stamp is None else "not there before"
    return None if entry.size == stamp[0] else f"size {entry.size:,} -> {stamp[0]:,}"


def read_index(folder: Path, request: StoreRequest) -> StoreIndex | None:
    """Read the index of a store, None where there is none; raises StoreError for one on other terms than requested."""
    path = folder / INDEX_FILE
    try:
        content = json.loads(path.read_bytes())
        request.check_terms(folder, content)
        if not isinstance(content["root"], str) or not content["root"].startswith("/"):
            raise ValueError(f"root: got {str(content['root'])[:40]!r}")
        places = _read_places(request, content["files"])
        entries = {str(file.pop("path")): FileEntry.of(file) for file in content["files"]}
        return StoreIndex(terms=request.terms, root=content["root"], entries=entries, places=places)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"store {folder}: {INDEX_FILE} cannot be read ({error.strerror})") from error
    except StoreError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise StaleStoreError(folder, f"{INDEX_FILE} is damaged ({error})") from error


def _read_places(request: StoreRequest, files: Sequence[dict[str, Any]]) -> RowPlaces:
    """Take out of the entries of files how large each is in the store, where that is not one size of all."""
    if isinstance(request.recipe.resize, tuple):
        return RowPlaces.of_equal(len(files), request.recipe.resize)
    sizes = [(file.pop("height"), file.pop("width")) for file in files]
    for size in sizes:
        if not all(isinstance(side, int) and side >= 0 for side in size):
            raise ValueError(f"got height and width {size}, expected two integers >= 0")
    return RowPlaces.of_sizes(sizes)


def write_index(folder: Path, index: StoreIndex) -> None:
    """Write index.json, one line a file; whoever reads meanwhile sees the old one or the new one."""
    head = json.dumps({**index.terms, "root": index.root})
    files = (json.dumps(file) for file in _files_with_sizes(index))
    temporary = folder / f".{INDEX_FILE}"
    try:
        with temporary.open("w", encoding="ascii") as file:
            file.write(f'{head[:-1]}, "files": [\n')
            file.write(",\n".join(files))
            file.write("\n]}\n")
            file.flush()
            flush(file.fileno())
        temporary.replace(folder / INDEX_FILE)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _files_with_sizes(index: StoreIndex) -> Iterator[dict[str, Any]]:
    for row, (name, entry) in enumerate(index.entries.items()):
        file = {"path": name, **asdict(entry)}
        if not index.places.are_equal:
            file["height"], file["width"] = index.places.size(row)
        yield file


def _prefix(root: str) -> str:
    return root.rstrip("/") + "/"


def _as_text(value: Any) -> str:
    return str(tuple(value) if isinstance(value, list) else value)


def _num_of(some: Sequence[str] | Mapping[str, str], all_: Sequence[str] | Mapping[str, str]) -> str:
    return f"{len(some):,} of {len(all_):,} files"
