"""How the report writes numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup, escape

from dogs_accel.runtime.arguments import as_typed
from dogs_accel.runtime.timing import describe_seconds

ABSENT = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def score(value: Any, decimals: int = 4) -> str:
    """Write a score with its decimals."""
    return ABSENT if _is_missing(value) else f"{float(value):.{decimals}f}"


def probability(value: Any) -> str:
    """Write a p value, which is never 0."""
    return "< 0.0001" if not _is_missing(value) and float(value) < 5e-5 else score(value)


def percent(value: Any, decimals: int = 1) -> str:
    """Write a share of 1 as percent."""
    return ABSENT if _is_missing(value) else f"{100 * float(value):.{decimals}f} %"


def interval(ends: Any, decimals: int = 4) -> str:
    """Write both ends of an interval."""
    if ends is None or any(_is_missing(end) for end in ends):
        return ""
    return f"{float(ends[0]):.{decimals}f} to {float(ends[1]):.{decimals}f}".replace("-", MINUS)


def signed(value: Any) -> str:
    """Write a difference with its sign."""
    return ABSENT if _is_missing(value) else f"{float(value):+.4f}".replace("-", MINUS)


def count(value: Any) -> str:
    """Write an integer with separators."""
    return ABSENT if _is_missing(value) else f"{int(value):,}"


def seconds(value: Any) -> str:
    """Write a time of seconds, of minutes where it is long."""
    if _is_missing(value):
        return ABSENT
    number = float(value)
    if number < 1:
        return describe_seconds(number)
    return f"{number:.1f} s" if number < 120 else f"{number / 60:.1f} min"


def figure(value: Any) -> str:
    """Write whatever a claim is of: a count, a score, a name, or both ends of a range."""
    if _is_missing(value):
        return ABSENT
    if isinstance(value, list | tuple):
        decimals = max(len(figure(end).partition(".")[2]) for end in value)
        return " to ".join(score(end, decimals) for end in value)
    if isinstance(value, bool | str):
        return str(value)
    number = float(value)
    if isinstance(value, int) or (number.is_integer() and abs(number) >= 1):
        return f"{int(number):,}" if abs(number) >= 1 else "0"
    return f"{number:.5g}"


def size(num_bytes: int) -> str:
    """Write a file's size."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes} B"


def capitalized(text: str) -> str:
    """Begin a heading with a capital letter and leave the rest as it is."""
    return text[:1].upper() + text[1:]


def breakable(name: str) -> Markup:
    """Let a long name break after its underscores, rather than within a word."""
    return Markup("_<wbr>").join(escape(part) for part in name.split("_"))


def listed(names: Sequence[str], most: int = 3, more: str = "more") -> str:
    """Name some things, all of them if they are few: A and B; or A; B; C and 9 more."""
    if len(names) < 3:
        return " and ".join(names)
    if len(names) <= most + 1:
        return f"{'; '.join(names[:-1])} and {names[-1]}"
    return f"{'; '.join(names[:most])} and {len(names) - most:,} {more}"


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


FILTERS: dict[str, Callable[..., str]] = {
    "score": score,
    "percent": percent,
    "interval": interval,
    "signed": signed,
    "probability": probability,
    "count_": count,
    "seconds": seconds,
    "figure": figure,
    "typed": as_typed,
    "size": size,
    "capitalized": capitalized,
    "listed": listed,
    "breakable": breakable,
}
