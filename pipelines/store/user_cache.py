"""The folder in the user's cache for what can be made again: stores and generated pictures."""

from __future__ import annotations

import os
from pathlib import Path


class NoCacheError(ValueError):
    """There is no folder to keep things in, or nothing can be written there; the message is one line."""


def cache_folder() -> Path:
    """Name this project's folder in the user's cache. Raises NoCacheError for a user without a home."""
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        cache = Path(given) if given else Path.home() / ".cache"
    except RuntimeError as error:
        raise NoCacheError("cache: this user has no home folder, expected one or XDG_CACHE_HOME=DIR") from error
    return cache / "dogs_accel"


def is_writable(folder: Path) -> bool:
    """Whether a folder can be written into, or can be made."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(each))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
