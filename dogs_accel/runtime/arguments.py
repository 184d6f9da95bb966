"""The command line: types and choices of arguments, and the line that says what is wrong."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Iterable, Mapping

from dogs_accel.runtime.terminal import escaped

AMP_CHOICES = ("auto", "off", "bf16", "fp16")
DATA_HELP = "any folder of class folders, with train, val and test folders or without, or the root of Stanford Dogs"


_MOST = (1 << 31) - 1
"""Integers that every library here takes."""


def positive(text: str) -> int:
    """Read an integer from 1 on."""
    return _integer(text, least=1)


def natural(text: str) -> int:
    """Read an integer from 0 on."""
    return _integer(text, least=0)


def _integer(text: str, *, least: int) -> int:
    digits = text.strip().removeprefix("+")
    value = int(digits) if re.fullmatch("[0-9]{1,20}", digits) else -1
    if value < least or value > _MOST:
        at_most = f" and at most {_MOST:,}" if value > _MOST else ""
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an integer >= {least}{at_most}")
    return value


def is_started_by_torchrun(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun started this process, alone or beside others."""
    return "RANK" in environment or "WORLD_SIZE" in environment


def user_path(text: str) -> str:
    """Read the path of a file or folder, in which "~" is the home of the user, also after "--out="."""
    return os.path.expanduser(text)  # noqa: PTH111  (a Path would make "." of "" and lose a slash at the end)


def error_line(prog: str, error: Exception | str) -> str:
    """Say in one line what is wrong; it names the process where there are several."""
    rank = os.environ.get("RANK")
    text = escaped(describe_error(error))
    return f"{prog}: {f'rank {rank}: ' if rank is not None else ''}error: {text}\n"


def describe_error(error: Exception | str) -> str:
    """Say what an error says, one of the system without its number."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return error.strerror if error.filename is None else f"{os.fsdecode(error.filename)}: {error.strerror}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that is most like another one, None where none is."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Ask, to be put after an error, whether the nearest known name was meant; nothing where none is near.

    prefix comes before the name that is asked for: " (did you mean 'timm/resnet26d'?)".
    """
    near = nearest(name, known)
    return "" if near is None else f" (did you mean {prefix + near!r}?)"
