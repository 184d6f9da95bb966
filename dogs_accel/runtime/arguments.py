"""The command line: types and choices of arguments, and the line that says what is wrong."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

AMP_CHOICES = ("auto", "off", "bf16", "fp16")
DATA_HELP = "any folder of class folders, with train, val and test folders or without, or the root of Stanford Dogs"


def positive(text: str) -> int:
    """Read an integer from 1 on."""
    value = int(text) if text.strip().lstrip("+-").isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an integer >= 1")
    return value


def natural(text: str) -> int:
    """Read an integer from 0 on."""
    if not text.strip().isdigit():
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an integer >= 0")
    return int(text)


def is_started_by_torchrun(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun started this process, alone or beside others."""
    return "RANK" in environment or "WORLD_SIZE" in environment


def error_line(prog: str, error: Exception | str) -> str:
    """Say in one line what is wrong; it names the process where there are several."""
    rank = os.environ.get("RANK")
    return f"{prog}: {f'rank {rank}: ' if rank is not None else ''}error: {error}\n"
