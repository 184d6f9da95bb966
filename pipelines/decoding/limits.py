"""What Pillow is told while it decodes for us, and only then: its settings are those of the whole process."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, PngImagePlugin

MAX_PIXELS_VARIABLE = "DOGS_ACCEL_MAX_PIXELS"
"""Environment variable with the number of pixels of the largest picture that is decoded."""
_MOST_DIGITS = 30
_MAX_PIXELS = 178_956_970
"""Without it: as many as Pillow decodes, with a warning for half of them."""
_MAX_TEXT_CHUNK, _MAX_TEXT_MEMORY = 1 << 28, 1 << 30
"""Bytes of one unpacked text or ICC block of a PNG and of all; Pillow refuses a picture for 1 MiB and 64 MiB of it."""
_BY_PILLOW = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
"""What `warnings.filterwarnings("ignore", module=r"PIL\\.")` puts into the list of filters."""


def max_pixels() -> int:
    """Pixels of the largest picture that is decoded. Raises ValueError where the variable holds no such number."""
    text = os.environ.get(MAX_PIXELS_VARIABLE)
    if text is None:
        return _MAX_PIXELS
    # Of more digits Python makes no number.
    if not text.isascii() or not text.isdigit() or len(text) > _MOST_DIGITS or int(text) < 1:
        raise ValueError(f"{MAX_PIXELS_VARIABLE}: got {text[:50]!r}, expected an integer >= 1")
    return int(text)


@contextmanager
def pillow_settings(limit_px: int) -> Iterator[None]:
    """Let Pillow decode pictures of up to `limit_px` pixels with large texts, and without a Python warning."""
    _SETTINGS.enter(limit_px)
    try:
        yield
    finally:
        _SETTINGS.leave()


class _SharedSettings:
    """Ours while at least one thread decodes; the last one that leaves puts back what the first one found."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_inside = 0
        self._found: tuple[int | None, int, int] = (None, 0, 0)
        # A process that is forked meanwhile has the settings and the lock, and not the threads that would leave.
        os.register_at_fork(
            before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._start_anew
        )

    def enter(self, limit_px: int) -> None:
        with self._lock:
            self._num_inside += 1
            if self._num_inside > 1:
                return
            self._found = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
            Image.MAX_IMAGE_PIXELS = limit_px
            PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = _MAX_TEXT_CHUNK, _MAX_TEXT_MEMORY
            # Not by filterwarnings, after which Python shows again what it has shown once, at every file.
            if _BY_PILLOW not in warnings.filters:
                warnings.filters.insert(0, _BY_PILLOW)  # type: ignore[attr-defined]

    def leave(self) -> None:
        with self._lock:
            self._num_inside -= 1
            if not self._num_inside:
                self._put_back()

    def _put_back(self) -> None:
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = self._found
        if _BY_PILLOW in warnings.filters:  # unless somebody has put back a list without it
            warnings.filters.remove(_BY_PILLOW)  # type: ignore[attr-defined]

    def _start_anew(self) -> None:
        if self._num_inside:
            self._num_inside = 0
            self._put_back()
        self._lock.release()


_SETTINGS = _SharedSettings()
