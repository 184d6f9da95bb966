"""Types and choices of command-line arguments."""

from __future__ import annotations

import argparse

AMP_CHOICES = ("auto", "off", "bf16", "fp16")


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
