"""The pictures of a page: in it, or in a folder beside it."""

from __future__ import annotations

import os
import urllib.parse
from pathlib import Path

from dogs_accel.report.pictures import data_uri
from dogs_accel.runtime.files import replacing


class Media:
    """WebP pictures by number; what comes twice is there once."""

    def __init__(self) -> None:
        self._contents: list[tuple[str, bytes]] = []
        self._numbers: dict[bytes, int] = {}

    def add(self, name: str, content: bytes | None) -> int | None:
        """Take a picture under a name that no other has; returns its number, None where there is none."""
        if content is None:
            return None
        number = self._numbers.setdefault(content, len(self._contents))
        if number == len(self._contents):
            self._contents.append((f"{name}.webp", content))
        return number

    def inside(self) -> list[str]:
        """Give what a page embeds of each."""
        return [data_uri(content) for _, content in self._contents]

    def beside(self, folder: Path) -> list[str]:
        """Give the address of each from a page that lies beside the folder."""
        return [urllib.parse.quote(os.fsencode(f"{folder.name}/{name}")) for name, _ in self._contents]

    def write(self, folder: Path) -> list[Path]:
        """Write each into the folder, and return the paths."""
        for name, content in self._contents:
            with replacing(folder / name) as temporary:
                temporary.write_bytes(content)
        return [folder / name for name, _ in self._contents]
