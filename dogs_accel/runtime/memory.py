"""The memory that there is for this process, and how it handles what it has freed."""

from __future__ import annotations

import ctypes
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Parameters of glibc's mallopt, from its malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_KEEP_BYTES = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keep freed memory for the next allocation instead of giving it back to the system; False without glibc.

    A training step on a CPU frees and allocates the same large activations again and again. By default glibc maps
    and unmaps each, and the system clears every page anew: with EfficientNet-Lite0 at 224 px, batch 32, on 2 cores
    that was about half of the time of a step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES))


def available_bytes() -> int | None:
    """Read how much memory programs could take without swapping; None where the system does not say."""
    try:
        found = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else 1024 * int(found[1])


@contextmanager
def refusing_more_than_available() -> Iterator[None]:
    """Let the system refuse memory beyond what is available now, for the length of the block.

    It promises more than it has, and ends the process that comes for it. Nothing is done where it does not say how
    much there is.
    """
    available, (soft, hard) = available_bytes(), resource.getrlimit(resource.RLIMIT_AS)
    if available is None:
        yield
        return
    own_bytes = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    most = own_bytes + available
    if soft != resource.RLIM_INFINITY:
        most = min(most, soft)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
