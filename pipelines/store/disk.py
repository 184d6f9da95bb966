"""What a network's file system may lack: locks, and waiting until something is on the disk."""

from __future__ import annotations

import errno
import fcntl
import functools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT}
LOCK_FILE = ".lock"
"""Of a folder in which one process works at a time."""
_LACKING = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
_log = logging.getLogger(__name__)


def open_to_lock(path: Path) -> int:
    """Open a file to be locked, which is made where there is none, as is its folder.

    For writing, without which a network's file system locks none; folders it may not lock at all.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)


def lock(file: IO[Any] | int, *, wait: bool = True) -> bool:
    """Keep other processes that ask for the same lock out, until the file is closed.

    Raises BlockingIOError where another process has it and this one does not wait. Where the file system has no locks,
    that is said once, nobody is kept out, and the answer is False.
    """
    with _unless_lacking("locks, so nothing keeps two processes from writing the same files at once"):
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def flush(handle: int, *, data_only: bool = False) -> None:
    """Wait until an open file, or its content alone, is on the disk, where the file system can say so."""
    with _unless_lacking("a way to wait for the disk, so a loss of power may cost what was just written"):
        (os.fdatasync if data_only else os.fsync)(handle)


def flush_path(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk, where the file system can say so."""
    handle = os.open(path, os.O_RDONLY)
    try:
        flush(handle)
    finally:
        os.close(handle)


def reserve(handle: int, num_bytes: int) -> None:
    """Take room on the disk for a file of so many bytes, or only give it that length where there is no taking it."""
    with _unless_lacking("a way to reserve room, so a full disk shows only while writing"):
        os.posix_fallocate(handle, 0, num_bytes)
        return
    os.ftruncate(handle, max(num_bytes, os.fstat(handle).st_size))


@contextmanager
def _unless_lacking(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _LACKING:
            raise
        _say_once(what, error.strerror)


@functools.cache
def _say_once(what: str, reason: str) -> None:
    _log.warning("the file system lacks %s (%s)", what, reason)
