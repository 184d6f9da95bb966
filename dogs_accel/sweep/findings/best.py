"""best.toml: the settings of a sweep's best trial, as `benchmark --config` takes them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.runtime.files import replacing

BEST_SETTINGS_FILE = "best.toml"
_OF_A_TRIAL = {"out", "resume", "dry_run", "test", "profile", "runs", "seeds", "wandb"}
"""Settings that say how a trial was run, which is nobody else's."""


def write_settings_toml(path: Path, config: BenchmarkConfig, notes: Sequence[str] = ()) -> Path:
    """Write the settings that differ from the defaults, so that the file runs as it is; notes stand above, as comments.

    What says how a trial was run is left out, so that a benchmark of the file reads the test split.
    """
    given = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in _OF_A_TRIAL and getattr(config, field.name) not in (None, field.default)
    }
    lines = [*(f"# {note}" for note in notes), *(f"{name} = {_value(name, value)}" for name, value in given.items())]
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _value(name: str, value: Any) -> str:
    if name == "epochs":
        # As on the command line, where the strategy "" is not named.
        parts = [f"{key}=" * bool(key) + "+".join(map(str, numbers)) for key, numbers in value.items()]
        return _toml(",".join(parts))
    return _toml(value)


def _toml(value: Any) -> str:
    """Write a value of settings in TOML, whose text, numbers and lists are JSON's."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if value is None:
        return _toml("none")  # of a phase's field
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
