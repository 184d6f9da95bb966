"""The bytes of a file, where there is a regular one: a pipe without a writer would be waited for without end."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""What the system says where it lacks what opening a file takes: nothing is wrong with the file."""


def require_regular(path: str | Path) -> None:
    """Raise OSError for what is neither a regular file nor a folder, which says itself what it is when it is read."""
    mode = os.stat(path).st_mode  # noqa: PTH116  # tens of thousands of them, and a Path takes longer than the call
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_file(path: str | Path) -> bytes:
    """Read a whole file. Raises OSError, at once where it is a named pipe, a socket or a device."""
    require_regular(path)
    with io.FileIO(os.fspath(path)) as file:  # half as long as Path.read_bytes, of small files
        return file.readall()
