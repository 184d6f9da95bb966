"""Weights from a file, however it is wrapped."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dogs_accel.models.heads import head_names
from dogs_accel.models.positions import fit_positions
from dogs_accel.models.torch_file import read_torch_file

_AVERAGED_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
_NESTED_KEYS = (*_AVERAGED_KEYS, "state_dict", "model", "model_state_dict", "net", "weights", "module")
"""Under which checkpoints keep the weights, the averaged ones first: those are what their authors evaluate."""
_MOST_NESTED = 4
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, FSDP and activation checkpointing put into the names of a model's entries, wherever they are."""


def load_weights(model: nn.Module, path: str | Path, left_out: tuple[str, ...] = ()) -> str:
    """Load a state dict from a file into a model; returns one line that says what was loaded.

    The file is read as `read_state` says. A head that is of another kind or size, or not there, is left out, and tables
    of positions of another input size are resampled as `fit_positions` says. left_out: what names of entries that the
    model does without begin with. Raises ValueError where anything else is missing, left over, of another shape or
    without finite numbers, FileNotFoundError where there is no file.
    """
    own = model.state_dict()
    state, how = read_state(path, own)
    note = f"weights of {os.fspath(path)}{how}"
    if dropped := [key for key in state if key not in own and key.startswith(left_out)] if left_out else []:
        note += f", without {len(dropped)} entries of auxiliary classifiers"
        state = {key: value for key, value in state.items() if key not in dropped}
    names = tuple(f"{name}." for name in head_names(model))
    head = [key for key in own if key.startswith(names)]
    # What the file has there, which may be a head of other layers.
    given = [key for key in state if key.startswith(names)]
    is_other = set(_without_counters(given)) != set(_without_counters(head))
    if is_other or any(_is_of_other_classes(state[key], own[key]) for key in _without_counters(head)):
        note += f", without the head (file: {_head_in_words(state, given)}, here: {_head_in_words(own, head, '')})"
        state = {key: value for key, value in state.items() if key not in given} | {key: own[key] for key in head}
    state, resampled = fit_positions(model, state)
    note += f", {resampled}" if resampled else ""
    _check_fits(own, state, path)
    model.load_state_dict(state)
    return note


def _without_counters(keys: Sequence[str]) -> list[str]:
    """Leave out counters of batches seen, which are absent from old files and change nothing."""
    return [key for key in keys if not key.endswith("num_batches_tracked")]


def _head_in_words(state: Mapping[str, Tensor], keys: Sequence[str], noun: str = " classes") -> str:
    """Count the classes of a head, and the layers that it has before the one that tells them apart."""
    weights = [key for key in keys if key.endswith(".weight")] or list(keys)
    if not weights:
        return f"no{noun}"
    hidden = sum(state[key].ndim > 1 for key in weights) - 1
    return f"{num_rows(state[weights[-1]])}{noun}" + f" behind {hidden} hidden layer{'s' * (hidden > 1)}" * (hidden > 0)


def read_state(path: str | Path, names: Collection[str]) -> tuple[dict[str, Tensor], str]:
    """Read the entries of a model from a file; returns them by the model's names, and how they lay there, in words.

    names: of the model's entries. They may lie under keys such as model or state_dict, of which averaged weights are
    preferred, and their names may have what wraps a model before or in them, such as module. or _orig_mod.; no code
    that the file holds is run. Raises FileNotFoundError where there is no file, ValueError, which names it, where it
    holds no state dict.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"weights: no file {os.fspath(path)!r}; expected imagenet, none, or a file")
    try:
        loaded = load_file(path) if _is_safetensors(path) else read_torch_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error).partition("\n")[0]
        raise ValueError(f"weights: cannot read {os.fspath(path)!r} as a state dict ({reason})") from error
    loaded, keys = _unwrap(loaded)
    state = _tensors(loaded)
    if not state:
        raise ValueError(f"weights: {os.fspath(path)!r} holds no state dict, which is tensors by name")
    for wrapper in _WRAPPERS:
        state = {key.replace(wrapper, ""): value for key, value in state.items()}
    prefix = _prefix(state, names)
    if part := _part(state, names, sum(key.startswith(prefix) and key.removeprefix(prefix) in names for key in state)):
        state = {part + key: value for key, value in state.items()}
        how = [f"under {'.'.join(keys)}"] if keys else []
        return state, f" ({', '.join([*how, f'the part {part[:-1]}'])})"
    others = [key for key in state if not key.startswith(prefix)]
    how = [f"under {'.'.join(keys)}"] if keys else []
    how += [f"behind {prefix}"] if prefix else []
    how += [f"{len(others)} other entries left out, the first {others[0]}"] if others else []
    state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return state, f" ({', '.join(how)})" if how else ""


def _is_of_other_classes(given: Tensor, own: Tensor) -> bool:
    """Whether two tensors differ in their first size alone, the number of classes of a head."""
    return given.ndim == own.ndim > 0 and given.shape != own.shape and given.shape[1:] == own.shape[1:]


def num_rows(tensor: Tensor) -> int:
    """Count the rows of a head's weight or bias, one a class; 0 of what has none."""
    return len(tensor) if tensor.ndim else 0


def _is_safetensors(path: str | Path) -> bool:
    """Whether a file is one of safetensors by its ending or its beginning: eight bytes of a length, then JSON."""
    with Path(path).open("rb") as file:
        start = file.read(9)
    return start.endswith(b"{") if len(start) == 9 else Path(path).suffix == ".safetensors"


def _unwrap(loaded: Any) -> tuple[Any, list[str]]:
    """Go down to the state dict, by known keys, or by the only key that leads to tensors; returns it and the keys."""
    keys: list[str] = []
    while isinstance(loaded, dict) and len(keys) < _MOST_NESTED:
        nested = [key for key in _NESTED_KEYS if isinstance(loaded.get(key), dict)]
        if not nested and not _tensors(loaded):
            nested = [key for key, value in loaded.items() if isinstance(key, str) and _tensors(value)]
            nested = nested if len(nested) == 1 else []
        if not nested:
            break
        keys.append(nested[0])
        loaded = loaded[nested[0]]
    return loaded, keys


def _tensors(loaded: Any) -> dict[str, Tensor]:
    if not isinstance(loaded, Mapping):
        return {}
    return {key: value for key, value in loaded.items() if isinstance(key, str) and _is_weight(value)}


def _is_weight(value: Any) -> bool:
    """Say whether a model could take what a file has."""
    if not isinstance(value, Tensor):
        return False
    return value.layout == torch.strided and not value.is_complex() and not value.is_quantized


def _prefix(state: Collection[str], names: Collection[str]) -> str:
    """Find what stands before a model's names in a state, so that most of them are there; of equals averaged ones."""
    known = set(names)
    counts: Counter[str] = Counter()
    for key in state:
        starts = [0, *(dot.end() for dot in re.finditer(r"\.", key))]
        counts.update(key[:start] for start in starts if key[start:] in known)
    return max(counts, key=lambda prefix: (counts[prefix], "ema" in prefix, -len(prefix)), default="")


def _part(state: Collection[str], names: Collection[str], num_known: int) -> str:
    """Find what the names of a state lack to be a model's, if more of them are then known: they are of a part of it."""
    wanted = set(state)
    counts: Counter[str] = Counter()
    for name in names:
        counts.update(name[: dot.end()] for dot in re.finditer(r"\.", name) if name[dot.end() :] in wanted)
    part, count = max(counts.items(), key=lambda item: (item[1], -len(item[0])), default=("", 0))
    return part if count > num_known else ""


def _check_fits(own: Mapping[str, Tensor], state: dict[str, Tensor], path: str | Path) -> None:
    missing, left_over = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    state.update((key, own[key]) for key in missing if not _without_counters([key]))
    missing = _without_counters(missing)
    reshaped = [
        f"{key}, {tuple(state[key].shape)} in the file and {tuple(own[key].shape)} here"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    broken = [key for key in own if key in state and not _has_numbers(state[key])]
    problems = [
        f"{len(keys)} {what} (first: {keys[0]})"
        for keys, what in (
            (missing, "missing"), (left_over, "left over"), (reshaped, "of another shape"),
            (broken, "without finite numbers"),
        )
        if keys
    ]  # fmt: skip
    if problems:
        raise ValueError(f"weights: {os.fspath(path)!r} does not fit the model: {', '.join(problems)}")


def _has_numbers(tensor: Tensor) -> bool:
    """Whether it is a plain tensor of finite numbers, and not one that is quantised, sparse or without values."""
    if tensor.is_meta or tensor.is_quantized or tensor.is_complex() or tensor.layout is not torch.strided:
        return False
    return not tensor.is_floating_point() or bool(tensor.float().isfinite().all())
