"""What this process may use of a machine: its cores, and what its control groups leave it of time and memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_NO_LIMIT = 1 << 62
"""Bytes from which cgroup v1 means that there is no limit."""


def available_cores() -> int:
    """Cores that this process may keep busy: those that it may run on, or fewer where it has a quota of their time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(mounted: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> float | None:
    """Read how many cores' time the system gives this process, as to a container with --cpus; None is no limit.

    It is the least of its control group and of those around that. Definition: cpu.max of cgroup v2, cpu.cfs_quota_us
    and cpu.cfs_period_us of v1 (Linux, Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst).
    """
    quotas = (_quota(folder) for folder in control_groups("cpu", mounted, own))
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_limit(mounted: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> int | None:
    """Read how many bytes of memory the system gives this process, as to a container with --memory; None is no limit.

    It is the least of its control group and of those around that. Definition: memory.max of cgroup v2,
    memory.limit_in_bytes of v1 (Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst).
    """
    limits = (group_limit(folder) for folder in control_groups("memory", mounted, own))
    return min((limit for limit in limits if limit is not None), default=None)


def group_limit(folder: Path) -> int | None:
    """Read how many bytes the control group of a folder may have, None where it may have any number."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            limit = int((folder / name).read_text(encoding="ascii"))
        except (OSError, ValueError):  # of the other version, or "max"
            continue
        return limit if limit < _NO_LIMIT else None
    return None


def control_groups(controller: str, mounted: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> Iterator[Path]:
    """Name the folders of this process's control group and of those around it, as /proc/self/cgroup lists them.

    controller: what they share out, such as cpu. None of the folders need be there.
    """
    try:
        listed = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in listed:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and controller not in controllers.split(","):
            continue
        group = Path(path.lstrip("/"))
        for top in (mounted / controllers, mounted / controller) if controllers else (mounted, mounted / "unified"):
            # In a container the path may be that of the host, of which the container sees its own group as the top.
            yield from (top / each for each in (group, *group.parents))


def _quota(folder: Path) -> float | None:
    for read in (_quota_v2, _quota_v1):
        try:
            quota, period = read(folder)
            cores = int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):  # of another version, or "max"
            continue
        return cores if cores > 0 else None  # -1 of v1 is no limit
    return None


def _quota_v2(folder: Path) -> list[str]:
    return (folder / "cpu.max").read_text(encoding="ascii").split()


def _quota_v1(folder: Path) -> list[str]:
    return [(folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period")]
