"""What is made of the data and of a run's answers, step by step: one that fails costs itself alone, and is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from dogs_accel.ending import write_traceback
from dogs_accel.runtime.files import UnwritableError, is_disk_full
from dogs_accel.runtime.out_of_memory import BatchTooLargeError, is_out_of_memory
from dogs_accel.runtime.terminal import escaped

Step = Callable[[str], AbstractContextManager[None]]
"""Gives the block of a step, by the name of what it makes."""


def any_failure_ends(name: str) -> AbstractContextManager[None]:
    """Give the block of a step whose failure is everybody's."""
    return nullcontext()


class Steps:
    """Steps of which each may fail for itself: why it did is kept by its name, and the traceback is logged.

    log_folder: whose error log has the tracebacks; title: whose steps they are.
    """

    def __init__(self, log_folder: Path, title: str) -> None:
        self.failed: dict[str, str] = {}
        self._log_folder, self._title = log_folder, title

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Keep what goes wrong in the block from the rest, but for a lack of memory or of a disk to write to."""
        try:
            yield
        except Exception as error:
            # An OSError may be of one file alone; a folder that cannot be written is no matter of one step.
            is_general = isinstance(error, (UnwritableError, BatchTooLargeError)) or is_disk_full(error)
            if is_general or is_out_of_memory(error):
                raise
            first = next(iter(str(error).strip().splitlines()), "")
            self.failed[name] = f"{type(error).__name__}{f': {first}' if first else ''}"
            where = write_traceback(self._log_folder, f"{self._title}: {name}", error)
            print(f"  not made: {name} ({escaped(self.failed[name])}); the rest goes on, and {where}", flush=True)
