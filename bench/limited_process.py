"""One process with a limit in seconds: its output in a file, and its whole process group ended when it is over."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended."""

    seconds: float
    exit_status: int | None
    """Negative is a signal, as subprocess has it; None where the limit came first."""
    is_gone: bool
    """Whether the group has ended; a process that hangs in a driver may outlive even SIGKILL."""


def run_limited(
    command: Sequence[str], *, limit_seconds: float, log: Path, folder: Path, env: Mapping[str, str]
) -> Ended:
    """Run a command in a folder, in a process group of its own, its output appended to `log` as it comes.

    Whatever happens here, a signal that becomes an exception included, the group is ended: SIGTERM, then SIGKILL.
    """
    start = time.perf_counter()
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=os.setpgrp,
        )
    exit_status: int | None = None
    is_gone = False
    try:
        exit_status = process.wait(max(0.0, limit_seconds))
    except subprocess.TimeoutExpired:
        pass
    finally:
        is_gone = _end_group(process)
    return Ended(seconds=time.perf_counter() - start, exit_status=exit_status, is_gone=is_gone)


def _end_group(process: subprocess.Popen[bytes]) -> bool:
    """End what is left of a process's group and tell whether it is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not _runs(process):
            return True
        os.killpg(process.pid, number)
        until = time.perf_counter() + _GRACE_SECONDS
        while _runs(process) and time.perf_counter() < until:
            time.sleep(_POLL_SECONDS)
    return not _runs(process)


def _runs(process: subprocess.Popen[bytes]) -> bool:
    """Whether any process of the group still runs; not those that only wait for somebody to read their status."""
    process.poll()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:3]
        except (OSError, ValueError):  # it has just ended
            continue
        if int(group) == process.pid and state not in "ZX":
            return True
    return False
