"""How the tests that make up their inputs are run, and what a parser may say of them: a value or one line."""

import os
from collections.abc import Callable
from typing import TypeVar

from hypothesis import settings

Value = TypeVar("Value")
TIMES = int(os.environ.get("FUZZ", "0"))
"""`FUZZ=50 pytest ...` tries fifty times as many inputs, and other ones with each call."""


def fuzz(num_examples: int) -> settings:
    """Settings of a test that tries so many inputs, which are the same with each call of pytest."""
    return settings(max_examples=num_examples * max(1, TIMES), derandomize=not TIMES, deadline=None, database=None)


def value_or_line(parse: Callable[[], Value], *refused: type[Exception]) -> tuple[Value | None, str]:
    """Give what a parser gives, or None and what it says in one line: a ValueError, or of another kind of these."""
    try:
        return parse(), ""
    except (ValueError, *refused) as error:
        line = str(error)
    assert line
    assert "\n" not in line
    return None, line
