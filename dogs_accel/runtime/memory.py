"""How this process handles memory that it has freed."""

from __future__ import annotations

import ctypes

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
