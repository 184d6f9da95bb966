"""The memory that there is for this process, and how it handles what it has freed."""

from __future__ import annotations

import ctypes
import os
import re
import resource
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.cores import control_groups, group_limit

# Parameters of glibc's mallopt, from its malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_KEEP_BYTES = 2**31 - 1
_MEMINFO = Path("/proc/meminfo")


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


def available_bytes(groups: Iterable[Path] | None = None) -> int | None:
    """Read how much memory this process could take without swapping; None where the system does not say.

    That is what the machine has, or less where its control group, or one around that, may have less. groups: their
    folders, for tests.
    """
    machine = _in_meminfo("MemAvailable")
    groups = control_groups("memory") if groups is None else groups
    rooms = [room for folder in groups if (room := _room_in(folder)) is not None]
    return machine if machine is None else min([machine, *rooms])


def obtainable_bytes() -> int | None:
    """Read the most memory that this process could have: what needs more than this cannot fit.

    That is what is available, what is left of the swap, and what it has already, some of which it may have freed. None
    where the system does not say.
    """
    available = available_bytes()
    return None if available is None else available + (_in_meminfo("SwapFree") or 0) + _own_pages(1)


def _in_meminfo(name: str) -> int | None:
    """Read a number of bytes in /proc/meminfo."""
    try:
        found = re.search(rf"^{name}: +(\d+) kB$", _MEMINFO.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else 1024 * int(found[1])


def _room_in(group: Path) -> int | None:
    """Read how much of its limit a control group leaves: what it keeps of files the system takes back."""
    if (limit := group_limit(group)) is None:
        return None
    for used, begins in (("memory.current", ""), ("memory.usage_in_bytes", "total_")):
        try:
            num_used = int((group / used).read_text(encoding="ascii"))
            content = (group / "memory.stat").read_text(encoding="ascii")
        except (OSError, ValueError):  # of the other version
            continue
        files = re.findall(rf"^{begins}(?:in)?active_file (\d+)$", content, re.MULTILINE)
        return max(0, limit - num_used + sum(map(int, files)))
    return None


def _own_pages(column: int) -> int:
    """Bytes of this process, in its address space (0) or in memory (1)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[column]) * os.sysconf("SC_PAGE_SIZE")


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
    most = _own_pages(0) + available
    if soft != resource.RLIM_INFINITY:
        most = min(most, soft)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
