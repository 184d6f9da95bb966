"""What a command settles before it imports the libraries that read it once, when they are imported."""

from __future__ import annotations

import logging
import os
from collections.abc import MutableMapping

from dogs_accel.runtime.threads import bound_spinning, bound_threads


def begin_command(environ: MutableMapping[str, str] = os.environ) -> None:
    """Settle how torch's threads wait and how many there are, and that matplotlib shows no window.

    A standard stream that was closed is opened, onto nothing.

    A notebook's MPLBACKEND names a module that another Python need not have, and without it matplotlib cannot even be
    imported. What it warns of is where it keeps its own cache.
    """
    _hold_standard_streams()
    bound_spinning(environ)
    bound_threads(environ)
    environ["MPLBACKEND"] = "agg"
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def _hold_standard_streams() -> None:
    """Open what was closed of the standard streams: the next file would get its number, and what a library prints."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which gets the least number that is free
