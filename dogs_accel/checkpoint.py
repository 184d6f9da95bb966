"""Checkpoints: the state of a run after an epoch, in one file that holds only tensors, numbers and text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dogs_accel.files import replacing

_FORMAT = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> Path:
    """Write a state (nested dicts and lists of tensors, numbers and text) so that no half of it is ever seen."""
    with replacing(path) as temporary:
        torch.save({"format": _FORMAT, **state}, temporary)
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without running any code in it. Raises ValueError for another format."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise ValueError(f"checkpoint: {path} is not of format {_FORMAT}")
    return state
