"""A disk of which one piece of work fails, or all from one on: what Python code writes below some folders, counted."""

import builtins
import errno
import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

FULL = ("open", "write", "mkdir", "flush", "reserve")
"""What a full disk refuses."""
READ_ONLY = ("open", "mkdir", "rename", "remove", "chmod")
"""What a disk refuses that was mounted anew for reading alone, after the system has found an error on it."""
FORBIDDEN = ("open", "mkdir", "rename")
"""What somebody may not do in a folder of another user's."""
BROKEN = ("write", "flush")
"""Where a disk that breaks shows it."""


@dataclass
class FailingDisk:
    """Counts what is done below the folders; the work of number `first` fails, if that is given, of those in `kinds`.

    With `lasting` all that follows fails too. What a library writes by C code of its own is counted as it opens.
    """

    folders: tuple[Path, ...]
    number: int = errno.ENOSPC
    kinds: tuple[str, ...] = FULL
    first: int | None = None
    lasting: bool = True
    done: list[tuple[str, str]] = field(default_factory=list)
    """(kind, path) of each piece of work of these kinds, in its order."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._watched = tuple(f"{folder.absolute()}{os.sep}" for folder in self.folders)

    def _is_watched(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and str(Path(path).absolute()).startswith(self._watched)

    def _work(self, kind: str, path: Any) -> None:
        if kind not in self.kinds or not self._is_watched(path):
            return
        with self._lock:
            at = len(self.done)
            self.done.append((kind, os.fspath(path)))
        if self.first is not None and (at >= self.first if self.lasting else at == self.first):
            # Of a file that is open the system does not say which one it is.
            named = () if kind in ("write", "flush", "reserve") else (os.fspath(path),)
            raise OSError(self.number, os.strerror(self.number), *named)

    @contextmanager
    def in_use(self) -> Iterator["FailingDisk"]:
        """Let what this process writes meanwhile go to this disk."""
        names = {
            "mkdir": "mkdir", "replace": "rename", "rename": "rename", "unlink": "remove", "remove": "remove",
            "chmod": "chmod",
        }  # fmt: skip
        of_handles = {"write": "write", "pwrite": "write", "posix_fallocate": "reserve", "ftruncate": "reserve"}
        # Waiting for a real disk would take most of the time, and whoever wants to know asks for its result alone.
        flush = self._on_handle("flush", lambda handle: None)
        with patch.multiple(
            os,
            open=self._os_open,
            fsync=flush,
            fdatasync=flush,
            **{name: self._on_path(kind, getattr(os, name)) for name, kind in names.items()},
            **{name: self._on_handle(kind, getattr(os, name)) for name, kind in of_handles.items()},
        ), patch.object(builtins, "open", self._open), patch.object(io, "open", self._open), patch.object(
            tarfile, "bltn_open", self._open
        ):  # fmt: skip
            yield self

    def _on_path(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def checked(path: Any, *more: Any, **named: Any) -> Any:
            self._work(kind, path)
            return call(path, *more, **named)

        return checked

    def _on_handle(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def checked(handle: Any, *more: Any, **named: Any) -> Any:
            self._work(kind, _path_of(handle))
            return call(handle, *more, **named)

        return checked

    def _os_open(self, path: Any, flags: int, *more: Any, _open: Callable[..., int] = os.open, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            self._work("open", path)
        return _open(path, flags, *more, **named)

    def _open(
        self, file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, errors: str | None = None,
        newline: str | None = None, closefd: bool = True, opener: Any = None, _open: Callable[..., Any] = io.open,
    ) -> Any:  # fmt: skip
        if not set(mode) & set("wax+") or not self._is_watched(file):
            return _open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        self._work("open", file)
        raw = _CountedFile(file, mode.replace("t", "").replace("b", ""), closefd, opener)
        raw.disk = self
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        text = io.TextIOWrapper(buffered, encoding, errors, newline, line_buffering=buffering == 1)
        text.mode = mode
        return text


class _CountedFile(io.FileIO):
    disk: FailingDisk

    def write(self, data: Any) -> int | None:
        self.disk._work("write", self.name)
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        self.disk._work("reserve", self.name)
        return super().truncate(size)


def _path_of(handle: Any) -> Any:
    try:
        return Path(f"/proc/self/fd/{handle if isinstance(handle, int) else handle.fileno()}").readlink()
    except (OSError, ValueError):
        return None
