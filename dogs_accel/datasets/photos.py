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
_FOLDERS_OF_SYSTEMS = {"__macosx", "@eadir", "$recycle.bin"}


def spread(items: Sequence[_T], num: int) -> list[_T]:
    """Pick up to `num` items, evenly spread over all of them, the first among them."""
    count = min(num, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def why_no_photo(name: str) -> str | None:
    """Say why a file of this name is left out; None of a photo."""
    if name.startswith("."):
        return HIDDEN
    return None if os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES else OTHER_KIND  # noqa: PTH122


def is_hidden_folder(name: str) -> bool:
    """Whether a folder of this name holds nothing of the user's, such as .git or __MACOSX."""
    return name.startswith(".") or name.lower() in _FOLDERS_OF_SYSTEMS


def walk_photos(folder: str, left_out: Counter[str]) -> Iterator[str]:
    """Find the photos below a folder at any depth, in the order of their names; links are followed.

    Paths begin with `folder`. left_out counts the files that are none, by the reason. A link that leads back to a
    folder around it is not followed again.
    """
    yield from _walk(folder, left_out, (os.path.realpath(folder),))


def _walk(folder: str, left_out: Counter[str], around: tuple[str, ...]) -> Iterator[str]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if not entry.is_dir():
            reason = why_no_photo(entry.name)
            if reason is None:
                yield entry.path
            else:
                left_out[reason] += 1
        elif is_hidden_folder(entry.name):
            left_out[HIDDEN] += sum(len(files) for _, _, files in os.walk(entry.path))
        elif (real := os.path.realpath(entry.path)) not in around:
            yield from _walk(entry.path, left_out, (*around, real))


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
