"""Checkpoints: the state of a run after an epoch, in one file that holds only tensors, numbers and text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from dogs_accel.models.torch_file import read_torch_file
from dogs_accel.runtime.files import patient_file, replacing

BEST_WEIGHTS_FILE, LAST_CHECKPOINT_FILE = "best.pt", "last.pt"
"""Of a run's folder: the weights of the best epoch, and the state after the last one."""
OF_BEST = MappingProxyType({"model": dict, "row": dict})
"""What a checkpoint of the best weights has."""
EMA = "ema"
"""Where the last checkpoint has averages of weights by name, if the phase keeps any; what is validated."""
_OF_LAST = {
    "identity": dict, "model": dict, "optimizer": dict, "scaler": dict, "history": list, "best": dict,
    "training_seconds": float, "checkpoint_seconds": float, "sessions": list,
}  # fmt: skip
_FORMAT = 3
_SHOWN = 4


class CheckpointError(ValueError):
    """A checkpoint that is damaged, of another format or of another run; the message names the file and says which."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> Path:
    """Write a state (nested dicts and lists of tensors, numbers and text) so that no half of it is ever seen."""
    with replacing(path) as temporary, patient_file(temporary) as file:
        torch.save({"format": _FORMAT, **state}, file)
    return path


def load_checkpoint(path: Path, expected: Mapping[str, type] = MappingProxyType({})) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without running any code in it.

    expected: what it must have, by name. Raises CheckpointError for a file that is damaged, of another format or not
    there, or lacks something.
    """
    try:
        state = read_torch_file(path, checksums=True)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise CheckpointError(f"checkpoint: {path} cannot be read ({reason})") from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise CheckpointError(f"checkpoint: {path} is not of format {_FORMAT}")
    if wrong := [name for name, kind in expected.items() if not isinstance(state.get(name), kind)]:
        raise CheckpointError(f"checkpoint: {path} is incomplete: {', '.join(wrong)} is absent or of another kind")
    return state


def load_weights_of(path: Path, model: nn.Module, state: Mapping[str, Any], title: str) -> None:
    """Give a model the weights that a checkpoint has. Raises CheckpointError, which names both, where they do not fit.

    state: what the checkpoint has under "model".
    """
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"checkpoint: {path} does not fit {title} (its weights are no tensors)")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"checkpoint: {path} does not fit {title} ({reason[:200]})") from error


def load_resumable(last_path: Path, best_path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Read the last checkpoint of a run that is to go on, and see to it that the best one beside it belongs to it.

    identity: what makes the run the run that it is, as nested dicts and lists of numbers and text. Raises
    CheckpointError where a checkpoint is damaged or another run's, naming what differs.
    """
    state = load_checkpoint(last_path, _OF_LAST)
    require_same_run(last_path, state["identity"], identity)
    if state["best"].get("epoch_total") == len(state["history"]):
        # The run may have been killed between writing the two.
        save_checkpoint(best_path, {"model": state["model"] | state.get(EMA, {}), "row": state["best"]})
    elif load_checkpoint(best_path, OF_BEST)["row"] != state["best"]:
        raise CheckpointError(f"checkpoint: {best_path} does not belong to {last_path}")
    return state


def require_same_run(path: Path, recorded: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise CheckpointError, naming what differs, where a file was written by a run of another identity.

    What an older version did not record of it is not compared.
    """
    identity = {key: value for key, value in identity.items() if key in recorded}
    if differing := list(_differences(*(json.loads(json.dumps(each)) for each in (recorded, identity)))):
        more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        raise CheckpointError(f"checkpoint: {path} is of another run: {'; '.join(differing[:_SHOWN])}{more}")


def _differences(recorded: Any, now: Any, name: str = "") -> Iterator[str]:
    """Name what differs between two nested dicts and lists."""
    if isinstance(recorded, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*recorded, *now]):
            yield from _differences(recorded.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif isinstance(recorded, list) and isinstance(now, list) and len(recorded) == len(now):
        for i, (one, other) in enumerate(zip(recorded, now, strict=True)):
            yield from _differences(one, other, f"{name}[{i}]")
    elif recorded != now:
        yield f"{name} {recorded!r} there, {now!r} here"
