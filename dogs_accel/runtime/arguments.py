"""The command line: types and choices of arguments, and the line that says what is wrong."""

from __future__ import annotations

import argparse
import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from dogs_accel.runtime.terminal import escaped

AMP_CHOICES = ("auto", "off", "bf16", "fp16")
_MOST = 2**31 - 1
"""Of every integer: every library here takes as much."""
_SHOWN = 40
DATA_HELP = "any folder of class folders, with train, val and test folders or without, or a known set (docs/data.md)"


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line, not after a page of usage, and asks which flag was meant."""

    def error(self, message: str) -> NoReturn:
        """End the program with that line and exit code 2."""
        unknown = message.removeprefix("unrecognized arguments: ").split()[0] if "unrecognized" in message else ""
        meant = did_you_mean(unknown.partition("=")[0], self._option_string_actions) if unknown[:1] == "-" else ""
        self.exit(2, error_line(self.prog, message + meant))


def add_device_flag(parser: argparse.ArgumentParser) -> None:
    """Give a command --device NAME."""
    parser.add_argument(
        "--device", metavar="NAME", help="such as cpu or cuda:1 (default: the first CUDA device, else the CPU)"
    )


def positive(text: str) -> int:
    """Read an integer from 1 on."""
    return _integer(text, 1)


def natural(text: str) -> int:
    """Read an integer from 0 on."""
    return _integer(text, 0)


def _integer(text: str, least: int) -> int:
    # Digits alone: int() also reads those of other scripts and 1_0, and refuses thousands of them in words of its own.
    is_number = re.fullmatch(r"\+?[0-9]{1,99}", text.strip()) is not None
    value = int(text) if is_number else least - 1
    if not least <= value <= _MOST:
        expected = f"an integer up to {_MOST:,}" if value > _MOST else f"an integer >= {least}"
        raise argparse.ArgumentTypeError(f"got {_short(text)}, expected {expected}")
    return value


def share(text: str) -> float:
    """Read a number between 0 and 1, both excluded."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"got {_short(text)}, expected a number between 0 and 1, both excluded")
    return value


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def is_started_by_torchrun(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun started this process, alone or beside others."""
    return "RANK" in environment or "WORLD_SIZE" in environment


def user_path(text: str) -> str:
    """Read the path of a file or folder, in which "~" is the home of the user, also after "--out=".

    None is refused: a script's variable that is not set would mean the current folder, or nothing at all.
    """
    if not text:
        raise argparse.ArgumentTypeError("got '', expected a path")
    if "\0" in text:  # which a file of settings may hold
        raise argparse.ArgumentTypeError(f"got {_short(text)}, expected a path")
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
    """Find the known name that is most like another one, if need be in other cases of letters; None where none is."""
    candidates = list(known)
    by_lower = {each.lower(): each for each in reversed(candidates)}
    found = difflib.get_close_matches(name, candidates, n=1)
    found = found or [by_lower[each] for each in difflib.get_close_matches(name.lower(), by_lower, n=1)]
    return next(iter(found), None)


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Ask, to be put after an error, whether the nearest known name was meant; nothing where none is near.

    prefix comes before the name that is asked for: " (did you mean 'timm/resnet26d'?)".
    """
    near = nearest(name, known)
    return "" if near is None else f" (did you mean {prefix + near!r}?)"


def as_typed(value: Any) -> str:
    """Write a setting as a command line says it, whether it was read from there or from JSON.

    Several are joined by "," and values by name by "="; below that by "+" and ":".

    Example:
        >>> as_typed(("resnet50", "vit_b_16")), as_typed({"full": (4,), "staged": (1, 3)}), as_typed({"": (2,)})
        ('resnet50,vit_b_16', 'full=4,staged=1+3', '2')
        >>> as_typed({"lr": 0.0003, "full.lrs": {"fc": 0.001, "layer4": 1e-05}}), as_typed(False), as_typed(None)
        ('lr=0.0003,full.lrs=fc:0.001+layer4:1e-05', 'no', 'none')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (Mapping, list, tuple)) and not value:
        return "none"
    return _typed_values(value, ",", "=")


def _typed_values(value: Any, between: str, is_: str) -> str:
    if isinstance(value, Mapping):
        return between.join(f"{name}{is_}" * bool(name) + _typed_values(each, "+", ":") for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return between.join(_typed_values(each, "+", ":") for each in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.12g}"
    return "none" if value is None else str(value)
