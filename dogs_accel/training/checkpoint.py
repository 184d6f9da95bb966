"""Checkpoints: the state of a run after an epoch, in one file that holds only tensors, numbers and text."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from dogs_accel.runtime.files import patient_file, replacing

BEST_WEIGHTS_FILE, LAST_CHECKPOINT_FILE = "best.pt", "last.pt"
"""Of a run's folder: the weights of the best validation accuracy, and the state after the last epoch."""
_FORMAT = 3
_SHOWN = 4


class CheckpointError(ValueError):
    """A checkpoint that is damaged, of another format or of another run; the message names the file and says which."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> Path:
    """Write a state (nested dicts and lists of tensors, numbers and text) so that no half of it is ever seen."""
    with replacing(path) as temporary, patient_file(temporary) as file:
        torch.save({"format": _FORMAT, **state}, file)
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without running any code in it.

    Raises CheckpointError for a file that is damaged, of another format or not there.
    """
    try:
        with path.open("rb") as file:
            if zipfile.ZipFile(file).testzip() is not None:  # torch.load does not look at the checksums
                raise ValueError("a checksum is wrong")
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        # torch raises all of these of damaged files, none with the file's name.
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"checkpoint: {path} cannot be read ({reason})") from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise CheckpointError(f"checkpoint: {path} is not of format {_FORMAT}")
    return state


def load_resumable(last_path: Path, best_path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Read the last checkpoint of a run that is to go on, and see to it that the best one beside it belongs to it.

    identity: what makes the run the run that it is, as nested dicts and lists of numbers and text. Raises
    CheckpointError where a checkpoint is damaged or another run's, naming what differs.
    """
    state = load_checkpoint(last_path)
    require_same_run(last_path, state["identity"], identity)
    if state["best"]["epoch_total"] == len(state["history"]):
        # The run may have been killed between writing the two.
        save_checkpoint(best_path, {"model": state["model"], "row": state["best"]})
    elif load_checkpoint(best_path)["row"] != state["best"]:
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
