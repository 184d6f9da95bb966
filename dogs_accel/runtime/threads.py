"""How many threads torch computes with on a CPU, and how they wait for each other."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping

from pipelines.cores import available_cores, cpu_quota

SPIN_COUNT = 1000
"""Turns that a waiting thread spins before it sleeps. libgomp takes this number itself where it knows of more threads
than cores; the threads of other processes it does not know of."""
_SPIN_COUNT, _WAIT_POLICY, _NUM_THREADS = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"


def bound_spinning(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Let torch's threads sleep soon where they wait for each other; says whether that was set here.

    By default a thread of libgomp spins 300,000 turns before it sleeps, longer than the system lets a thread run:
    beside another busy process each waits for one that cannot run because it spins. libgomp reads its settings once,
    when torch is imported, so this is to be called before, and does nothing after. It also leaves a user's own
    GOMP_SPINCOUNT and OMP_WAIT_POLICY as they are. Processes that this one starts inherit the setting.
    """
    if "torch" in sys.modules or any(name in environ for name in (_SPIN_COUNT, _WAIT_POLICY)):
        return False
    environ[_SPIN_COUNT] = str(SPIN_COUNT)
    return True


def bound_threads(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Let torch compute in no more threads than this process may keep busy; says whether that was set here.

    torch takes a thread for each core of the machine, also where a container has the time of a few. As
    `bound_spinning`, this is to be called before torch is imported, and leaves a user's own setting as it is.
    """
    quota = cpu_quota()
    if quota is None or quota >= (os.cpu_count() or 1) or "torch" in sys.modules or _NUM_THREADS in environ:
        return False
    environ[_NUM_THREADS] = str(available_cores())
    return True


def describe_waiting(environ: Mapping[str, str] = os.environ) -> dict[str, str | None]:
    """Read the settings in force; None is libgomp's default, as where torch was imported before `bound_spinning`."""
    return {name: environ.get(name) for name in (_SPIN_COUNT, _WAIT_POLICY)}
