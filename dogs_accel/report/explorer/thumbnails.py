"""Small pictures of many files, some to a sheet: one file is quicker to read, and smaller, than its many parts."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from dogs_accel.report.pictures import webp
from pipelines import BadImageError
from pipelines.cores import available_cores
from pipelines.decoding.pil import open_image
from pipelines.decoding.rgb import to_rgb

SIDE_PX = 112
"""The longer side of a small picture, at most."""
COLUMNS, PER_SHEET = 6, 36
_THUMBNAIL_QUALITY = 60


@dataclass(frozen=True)
class Sheet:
    """Up to PER_SHEET small pictures, COLUMNS a row, each at the upper left of a square of SIDE_PX."""

    content: bytes | None
    """A WebP file; None where there is no picture at all."""
    sizes_px: list[tuple[int, int]]
    """Width and height of each; zeros of a file that is not there or cannot be read."""


def make_sheets(paths: Sequence[str]) -> list[Sheet]:
    """Make the small pictures of some files, in their order, on all available cores; "" is a file that is not known."""
    groups = [paths[at : at + PER_SHEET] for at in range(0, len(paths), PER_SHEET)]
    with ThreadPoolExecutor(available_cores()) as pool:
        return list(pool.map(_make_sheet, groups))


def _make_sheet(paths: Sequence[str]) -> Sheet:
    small = [_small_picture(path) for path in paths]
    sizes = [(0, 0) if picture is None else picture.size for picture in small]
    if not any(small):
        return Sheet(None, sizes)
    sheet = Image.new("RGB", (SIDE_PX * min(COLUMNS, len(small)), SIDE_PX * -(-len(small) // COLUMNS)))
    for at, picture in enumerate(small):
        if picture is not None:
            row, column = divmod(at, COLUMNS)
            sheet.paste(picture, (SIDE_PX * column, SIDE_PX * row))
    return Sheet(webp(sheet, _THUMBNAIL_QUALITY), sizes)


def _small_picture(path: str) -> Image.Image | None:
    if not path:
        return None
    try:
        with open_image(path) as image:
            # A JPEG file is then decoded at the smallest of its own scales that suffices.
            image.draft("RGB", (SIDE_PX, SIDE_PX))
            picture = to_rgb(image)
    except BadImageError:
        return None
    picture.thumbnail((SIDE_PX, SIDE_PX))
    return picture
