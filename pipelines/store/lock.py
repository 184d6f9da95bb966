"""One process at a time builds in a folder."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.store.disk import LOCK_FILE, lock, open_to_lock

_log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time build in a folder; the system frees the lock of one that dies."""
    with os.fdopen(open_to_lock(folder / LOCK_FILE), "r+") as file:
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
