"""The cores that this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


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
    try:
        listed = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    quotas = [quota for folder in _folders(mounted, listed) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def _folders(mounted: Path, listed: list[str]) -> Iterator[Path]:
    """Name the folders of a process's group and of those around it, as /proc/self/cgroup lists them."""
    for line in listed:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = Path(path.lstrip("/"))
        for top in (mounted / controllers, mounted / "cpu") if controllers else (mounted, mounted / "unified"):
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
