"""One process at a time builds in a folder."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.store.disk import lock

_LOCK_FILE = ".lock"

_log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time build in a folder; the system frees the lock of one that dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK_FILE).open("a+") as file:
        try:
            lock(file, wait=False)
        except BlockingIOError:
            file.seek(0)
            # A warning, since a process that only waits looks like one that hangs.
            _log.warning("store %s: waiting for %s, which is building it", folder, file.read() or "another process")
            lock(file)
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
