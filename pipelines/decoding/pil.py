"""PIL's decoding, the reference: which files are bad, and what the pixels of the others are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError


class BadImageError(ValueError):
    """A file that cannot be decoded; the message names it and says why."""


def open_rgb(path: str) -> Image.Image:
    """Decode a file to an RGB PIL image as the published experiment does: no EXIF turn, grey made RGB.

    Raises BadImageError, which names the file and the reason.
    """
    try:
        return decode_rgb(path)
    except BadImageError as error:
        raise BadImageError(f"{path}: {error}") from error


def decode_rgb(file: str | BinaryIO) -> Image.Image:
    """Do what `open_rgb` does, also for a file in memory; its BadImageError has the reason alone."""
    with bad_image_errors(), Image.open(file) as image:
        return image.convert("RGB")


@contextmanager
def bad_image_errors() -> Iterator[None]:
    """Make a BadImageError, with the reason alone, of whatever PIL raises of a damaged file."""
    try:
        yield
    except MemoryError:  # says nothing of the file
        raise
    except Exception as error:  # PIL's readers raise what they please
        raise BadImageError(image_problem(error)) from error


def image_problem(error: Exception) -> str:
    """Say in a few words why a file could not be read or PIL could not decode it."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
