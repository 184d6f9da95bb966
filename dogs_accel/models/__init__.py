"""The networks: their names, how they are built and loaded, and which of their parameters train."""

from __future__ import annotations

import re

MODES = ("head_only", "full_finetune", "partial_finetune")
"""What trains: the classifier on a frozen backbone, everything, or a part."""
DEFAULT_FAMILY = "cnn"
"""Networks that are of no family with settings of its own are trained as this one."""
_FAMILY_NAME = {"cnn": "CNN", "vit": "Transformer"}


def family_name(label: str) -> str:
    """Name a family as the published tables do, one that they do not have by its label.

    Example:
        >>> family_name("vit"), family_name("mixer")
        ('Transformer', 'mixer')
    """
    return _FAMILY_NAME.get(label, label)


def check_family(label: str) -> str:
    """Return a label that can name a folder; raises ValueError for another one."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", label):
        raise ValueError(f"families: got {label!r}, expected a label of up to 64 letters, digits, - and _")
    return label
