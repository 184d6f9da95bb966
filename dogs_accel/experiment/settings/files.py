"""The settings as files hold them: config.json of a run."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.results.layout import CONFIG_FILE
from dogs_accel.results.record import check_kinds
from dogs_accel.runtime.arguments import natural, positive
from dogs_accel.runtime.terminal import escaped


def config_from_json(recorded: Any) -> BenchmarkConfig:
    """Read settings as config.json holds them, in which tuples have become lists.

    Raises ValueError, which names the file and the field, for anything else.
    """

    def restored(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(map(restored, value))
        return {key: restored(each) for key, each in value.items()} if isinstance(value, dict) else value

    if not isinstance(recorded, Mapping):
        raise ValueError(f"{CONFIG_FILE}: got {str(recorded)[:40]!r}, expected the settings of a run")
    known = {field.name for field in dataclasses.fields(BenchmarkConfig)}
    if unknown := sorted(recorded.keys() - known):
        raise ValueError(f"{CONFIG_FILE}: got {escaped(', '.join(unknown))}, expected settings of this version")
    try:
        _check_recorded(recorded)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise ValueError(f"{CONFIG_FILE}: {error}") from error
    return BenchmarkConfig(**{name: restored(value) for name, value in recorded.items()})


def _check_recorded(recorded: Mapping[str, Any]) -> None:
    """Raise ValueError or ArgumentTypeError for values that the command line would not take."""
    check_kinds(BenchmarkConfig, recorded)
    for field in dataclasses.fields(BenchmarkConfig):
        value, choices, kind = recorded.get(field.name), field.metadata.get("choices"), field.metadata.get("type")
        if value is None:
            continue
        if choices is not None and value not in choices:
            raise ValueError(f"{field.name}: got {str(value)[:40]!r}, expected one of {', '.join(choices)}")
        if kind in (positive, natural):
            kind(str(value))
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
        expected = list if field.name == "epochs" else str
        if not all(isinstance(each, expected) for each in inner):
            raise ValueError(f"{field.name}: got {str(value)[:40]!r}, expected other values")
    for numbers in (recorded.get("epochs") or {}).values():
        for number in numbers:
            positive(str(number))
