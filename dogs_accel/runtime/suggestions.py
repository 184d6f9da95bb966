"""What somebody who mistyped a name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that is most like another one, None where none is."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Ask, to be put after an error, whether the nearest known name was meant; nothing where none is near.

    prefix comes before the name that is asked for: " (did you mean 'timm/resnet26d'?)".
    """
    near = nearest(name, known)
    return "" if near is None else f" (did you mean {prefix + near!r}?)"
