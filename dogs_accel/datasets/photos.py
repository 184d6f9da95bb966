"""Which files are photos, those below a folder, and some of many, evenly spread."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")

PHOTO_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif",
)  # fmt: skip
"""Endings of photos, in any case."""
HIDDEN, OTHER_KIND = "hidden file", "file of another kind"
"""Why a file is left out: its name or that of a folder around it begins with a dot, or it ends as no photo does."""
_DEEPER = "file in a folder below"
_FOLDERS_OF_SYSTEMS = {"__macosx", "@eadir", "$recycle.bin"}


def spread(items: Sequence[_T], num: int) -> list[_T]:
    """Pick up to `num` items, evenly spread over all of them, the first among them."""
    count = min(num, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def why_no_photo(entry: os.DirEntry[str]) -> str | None:
    """Say why what is no folder is left out; None of a photo, and of a link to nothing that is called like one."""
    if entry.name.startswith("."):
        return HIDDEN
    is_photo = os.path.splitext(entry.name)[1].lower() in PHOTO_SUFFIXES  # noqa: PTH122
    return None if is_photo and (entry.is_symlink() or entry.is_file()) else OTHER_KIND


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_hidden_folder(name: str) -> bool:
    """Whether a folder of this name holds nothing of the user's, such as .git or __MACOSX."""
    return name.startswith(".") or name.lower() in _FOLDERS_OF_SYSTEMS


def photos_in(folder: str | os.PathLike[str], left_out: Counter[str]) -> list[str]:
    """Name the photos that lie in a folder, sorted; left_out counts what else does, and files in folders below it."""
    photos = []
    with os.scandir(folder) as found:
        for entry in found:
            if is_folder(entry):
                left_out[HIDDEN if is_hidden_folder(entry.name) else _DEEPER] += count_files(entry.path)
            elif (reason := why_no_photo(entry)) is None:
                photos.append(entry.name)
            else:
                left_out[reason] += 1
    return sorted(photos)


def counts_of(left_out: Counter[str]) -> dict[str, int]:
    """Give the counts of what was left out, in the order of its names, without what there was none of."""
    return {what: num for what, num in sorted(left_out.items()) if num}


def walk_photos(folder: str, left_out: Counter[str], around: Sequence[str] = ()) -> Iterator[str]:
    """Find the photos below a folder at any depth, in the order of their names; links are followed.

    Paths begin with `folder`. left_out counts the files that are none, by what they are. A link that leads back to a
    folder around it is not followed; `around` has the real paths of those around `folder`.
    """
    yield from _walk(folder, left_out, (*around, os.path.realpath(folder)))


def _walk(folder: str, left_out: Counter[str], around: tuple[str, ...]) -> Iterator[str]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if not is_folder(entry):
            if (reason := why_no_photo(entry)) is None:
                yield entry.path
            else:
                left_out[reason] += 1
        elif is_hidden_folder(entry.name):
            left_out[HIDDEN] += count_files(entry.path)
        elif not leads_back(entry.path, around):
            yield from _walk(entry.path, left_out, (*around, os.path.realpath(entry.path)))


def count_files(folder: str) -> int:
    """Count the files below a folder, links not followed."""
    return sum(len(files) for _, _, files in os.walk(folder))


def leads_back(path: str, around: Sequence[str]) -> bool:
    """Whether a folder is one of those around it, by their real paths, or lies around one of them: a link can be so."""
    real = os.path.realpath(path).rstrip("/")
    return any(f"{each}/".startswith(f"{real}/") for each in around)


def find_photos(root: str | Path, num_images: int) -> list[str]:
    """Paths of up to num_images photos below a folder, evenly spread over all in the order of their names.

    Raises ValueError where there is none.
    """
    if not Path(root).is_dir():
        raise ValueError(f"data: {root} is not a folder")
    paths = list(walk_photos(str(root), Counter()))
    if not paths:
        raise ValueError(f"data: no photo below {root}, looked for {', '.join(PHOTO_SUFFIXES)}")
    return spread(paths, num_images)
