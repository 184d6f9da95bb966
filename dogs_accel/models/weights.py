"""Weights from a file."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from dogs_accel.models.heads import head_names
from dogs_accel.models.torch_file import read_torch_file

_NESTED_KEYS = ("state_dict", "model", "model_state_dict", "module")


def load_weights(model: nn.Module, path: str | Path) -> str:
    """Load a state dict from a file into a model; returns one line that says what was loaded.

    A head of another size is left out. Raises ValueError where anything else is missing, left over or of another
    shape, FileNotFoundError where there is no file.
    """
    state = read_state(path)
    own = model.state_dict()
    head = tuple(f"{name}." for name in head_names(model))
    other_head = sorted(
        key for key in own if key.startswith(head) and key in state and _is_of_other_classes(state[key], own[key])
    )
    note = f"weights of {os.fspath(path)}"
    if other_head:
        note += f", without the head (file: {len(state[other_head[0]])} classes, here: {len(own[other_head[0]])})"
        state = {key: value for key, value in state.items() if not key.startswith(head)}
        state |= {key: value for key, value in own.items() if key.startswith(head)}
    _check_fits(own, state, path)
    model.load_state_dict(state)
    return note


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a state dict from a file, however it is wrapped.

    Raises FileNotFoundError where there is no file, ValueError, which names it, where it holds no state dict.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"weights: no file {os.fspath(path)!r}; expected imagenet, none, or a file")
    try:
        loaded = load_file(path) if _is_safetensors(path) else read_torch_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error).partition("\n")[0]
        raise ValueError(f"weights: cannot read {os.fspath(path)!r} as a state dict ({reason})") from error
    for key in _NESTED_KEYS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(_is_weight(name, value) for name, value in loaded.items()):
        raise ValueError(f"weights: {os.fspath(path)!r} holds no state dict, which is tensors by name")
    return {key.removeprefix("module."): value for key, value in loaded.items()}


def _is_safetensors(path: str | Path) -> bool:
    """Whether a file is one of safetensors by its ending or its beginning: eight bytes of a length, then JSON."""
    with Path(path).open("rb") as file:
        start = file.read(9)
    return start.endswith(b"{") if len(start) == 9 else Path(path).suffix == ".safetensors"


def _is_of_other_classes(given: torch.Tensor, own: torch.Tensor) -> bool:
    """Whether two tensors differ in their first size alone, the number of classes of a head."""
    return given.ndim == own.ndim > 0 and given.shape != own.shape and given.shape[1:] == own.shape[1:]


def _is_weight(name: object, value: object) -> bool:
    """Whether a part of a state dict is one that a model could take."""
    if not isinstance(name, str) or not isinstance(value, torch.Tensor):
        return False
    return value.layout == torch.strided and not value.is_complex() and not value.is_quantized


def _check_fits(own: dict[str, torch.Tensor], state: dict[str, torch.Tensor], path: str | Path) -> None:
    missing, left_over = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    # Counters of batches seen are absent from old files and change nothing.
    for key in [key for key in missing if key.endswith("num_batches_tracked")]:
        state[key] = own[key]
        missing.remove(key)
    reshaped = [key for key in own if key in state and state[key].shape != own[key].shape]
    problems = [
        f"{len(keys)} {what} (first: {keys[0]})"
        for keys, what in ((missing, "missing"), (left_over, "left over"), (reshaped, "of another shape"))
        if keys
    ]
    if problems:
        raise ValueError(f"weights: {os.fspath(path)!r} does not fit the model: {', '.join(problems)}")
