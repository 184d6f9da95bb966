"""How far something is, for people who watch."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


def progress_bar(total: int, title: str, *, unit: str = " img", shown: bool = True, **looks: Any) -> tqdm[Any]:
    """Make a bar on stderr with rate and time left, where that is a terminal: a log file would get its every step.

    looks: of `tqdm`, beyond these.
    """
    return tqdm(total=total, desc=title, unit=unit, disable=None if shown else True, **looks)


def passing_bar(total: int, title: str, *, shown: bool = True) -> tqdm[Any]:
    """Make a bar of what may be over before anybody would read it, and which leaves no line behind."""
    return progress_bar(total, title, shown=shown, leave=False, delay=0.5)
