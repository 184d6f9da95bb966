"""Photos below a folder, and some of many, evenly spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")


def spread(items: Sequence[_T], num: int) -> list[_T]:
    """Pick up to `num` items, evenly spread over all of them, the first among them."""
    count = min(num, len(items))
    return [items[i * len(items) // count] for i in range(count)]


PHOTO_SUFFIXES = (".jpg", ".jpeg")


def find_photos(root: str | Path, num_images: int) -> list[str]:
    """Paths of up to num_images JPEG files below a folder, evenly spread over all in the order of their names.

    Raises ValueError where there is none.
    """
    paths = sorted(str(path) for path in Path(root).rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES)
    if not paths:
        raise ValueError(f"data: no {' or '.join(PHOTO_SUFFIXES)} file below {root}")
    return spread(paths, num_images)
