"""PIL's decoding, the reference: which files are bad, and what the pixels of the others are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from pipelines.decoding.contents import require_regular
from pipelines.decoding.kinds import NOT_READ, NUM_FIRST_BYTES, POSTSCRIPT, describe_no_image
from pipelines.decoding.limits import MAX_PIXELS_VARIABLE, max_pixels, pillow_settings
from pipelines.decoding.rgb import to_rgb


class BadImageError(ValueError):
    """A file that cannot be decoded; the message names it and says why."""


def open_rgb(path: str) -> Image.Image:
    """Decode a file to an RGB PIL image as the published experiment does: no EXIF turn, grey made RGB.

    Grey of 16 bits is scaled to 8, and what is transparent is laid over white, as `to_rgb` says. Raises BadImageError,
    which names the file and the reason.
    """
    try:
        return decode_rgb(path)
    except BadImageError as error:
        raise BadImageError(f"{path}: {error}") from error


def decode_rgb(file: str | BinaryIO) -> Image.Image:
    """Do what `open_rgb` does, also for a file in memory; its BadImageError has the reason alone."""
    with open_image(file) as image:
        return to_rgb(image)


@contextmanager
def open_image(file: str | BinaryIO) -> Iterator[Image.Image]:
    """Read the header of a file, and the rest for who asks for pixels; nothing is warned of meanwhile.

    Raises BadImageError, with the reason alone, of whatever PIL raises of a damaged file, and of a picture of more
    pixels than the limit; ValueError where the limit is no number.
    """
    limit_px = max_pixels()
    try:
        with pillow_settings(limit_px), _identified(file) as image:
            if image.format == "EPS":
                raise BadImageError(POSTSCRIPT)
            if image.width * image.height > limit_px:
                raise Image.DecompressionBombError
            yield image
    except (MemoryError, BadImageError):  # the first says nothing of the file
        raise
    except Image.DecompressionBombError as error:
        raise BadImageError(
            f"more than {limit_px:,} px, the limit, which the environment variable {MAX_PIXELS_VARIABLE} raises"
        ) from error
    except Exception as error:  # PIL's readers raise what they please
        raise BadImageError(image_problem(error)) from error


def header_size(path: str) -> tuple[int, int]:
    """Read (height, width) in px from the header of a file; nothing is decoded.

    Raises BadImageError, with the reason alone, where it is no picture, and OSError where it cannot be opened.
    """
    require_regular(path)
    with Path(path).open("rb") as file, open_image(file) as image:
        return image.height, image.width


def is_read_now(path: str, problem: str) -> bool:
    """Whether the header of a file can be read of which it was said that it cannot, by this Pillow or up to this limit.

    Of any other problem, which lies in the file, it is False, and the file is not looked at.
    """
    if NOT_READ not in problem and MAX_PIXELS_VARIABLE not in problem:
        return False
    try:
        header_size(path)
    except (BadImageError, OSError):
        return False
    return True


def _identified(file: str | BinaryIO) -> Image.Image:
    if isinstance(file, str):
        require_regular(file)
    try:
        return Image.open(file)
    except UnidentifiedImageError as error:
        raise BadImageError(describe_no_image(_first_bytes(file))) from error


def _first_bytes(file: str | BinaryIO) -> bytes:
    if isinstance(file, str):
        with Path(file).open("rb") as opened:
            return opened.read(NUM_FIRST_BYTES)
    file.seek(0)
    return file.read(NUM_FIRST_BYTES)


def image_problem(error: Exception) -> str:
    """Say in a few words why a file could not be read or PIL could not decode it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
