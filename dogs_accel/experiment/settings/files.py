"""The settings as files hold them: config.json of a run, and files of settings to start one with, also in TOML."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dogs_accel.experiment.settings.config import (
    BenchmarkConfig,
    parse_epochs,
    parse_families,
    parse_model_weights,
    parse_names,
)
from dogs_accel.experiment.settings.phase_settings import parse_setting, read_settings
from dogs_accel.results.layout import CONFIG_FILE
from dogs_accel.results.record import check_kinds
from dogs_accel.runtime.arguments import as_typed, did_you_mean, natural, positive, user_path
from dogs_accel.runtime.files import read_json, read_text
from dogs_accel.runtime.terminal import escaped

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


_FROM_TEXT = (parse_names, parse_epochs, parse_families, parse_model_weights, user_path)
_BY_NAME = {"epochs": "a list of epochs by strategy"}
_OF_ONE_START = {"out", "resume", "dry_run"}
"""What config.json of a run says of how that run was started, which is nobody else's."""


def config_from_json(recorded: Any) -> BenchmarkConfig:
    """Read settings as config.json holds them, in which tuples have become lists.

    Raises ValueError, which names the file and the field, for anything else.
    """
    return BenchmarkConfig(**settings_of(recorded, CONFIG_FILE))


def read_settings_file(path: Path) -> dict[str, Any]:
    """Read the settings that a file says, but for those that it leaves open (null).

    path: JSON, or TOML, whose name ends in .toml. Text stands for what it is on the command line, as in
    epochs = "1+3". Of config.json of a run all is taken but where and how it was started.

    Raises ValueError, which names the file and the field, OSError where the file is not there.
    """
    content = read_toml(path) if path.suffix.lower() == ".toml" else read_json(path)
    if isinstance(content, Mapping):
        if content.keys() >= _OF_ONE_START:
            content = {name: value for name, value in content.items() if name not in _OF_ONE_START}
        if of_a_start := sorted(content.keys() & (_OF_ONE_START - {"out"})):
            raise ValueError(f"{path}: {of_a_start[0]}: got it in a file, expected it on the command line alone")
    settings = settings_of(content, str(path))
    return {name: value for name, value in settings.items() if value is not None}


def read_toml(path: Path) -> dict[str, Any]:
    """Read a file of TOML. Raises ValueError, which names the file, for what is none, OSError where it is not there."""
    try:
        return tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as TOML ({error})") from error


def settings_of(content: Any, file: str = "") -> dict[str, Any]:
    """Read settings by name, as a file has them. Raises ValueError, which names the file, if it is said, and the field.

    A path is relative to the current folder, and text stands for what it is on the command line.
    """
    prefix = f"{file}: " if file else ""
    if not isinstance(content, Mapping):
        raise ValueError(f"{prefix}got {str(content)[:40]!r}, expected the settings of a run")
    known = {field.name: field for field in dataclasses.fields(BenchmarkConfig)}
    if unknown := sorted(content.keys() - known.keys()):
        near = did_you_mean(unknown[0], known)
        raise ValueError(f"{prefix}got {escaped(', '.join(unknown))}, expected settings of this version{near}")
    try:
        settings = {name: _typed(known[name], value) for name, value in content.items()}
        _check_values(settings)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise ValueError(f"{prefix}{error}") from error
    return {name: _restored(value) for name, value in settings.items()}


def _typed(field: dataclasses.Field[Any], value: Any) -> Any:
    """Read a value that JSON and TOML have no kind for, or a path, as on the command line."""
    kind = field.metadata.get("type")
    if isinstance(value, Mapping) and kind is parse_setting:
        try:
            return read_settings(value)
        except ValueError as error:
            raise ValueError(f"{field.name}: {error}") from error
    if kind is parse_epochs and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or kind not in _FROM_TEXT:
        return value
    try:
        return kind(value)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"{field.name}: {error}") from error


def _restored(value: Any) -> Any:
    """Make tuples of lists, at any depth."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_restored, value))
    return {key: _restored(each) for key, each in value.items()} if isinstance(value, Mapping) else value


def _check_values(settings: Mapping[str, Any]) -> None:
    """Raise ValueError or ArgumentTypeError for values that the command line would not take."""
    check_kinds(BenchmarkConfig, settings)
    for field in dataclasses.fields(BenchmarkConfig):
        value, choices, kind = settings.get(field.name), field.metadata.get("choices"), field.metadata.get("type")
        if value is None or kind is parse_setting:
            continue
        if choices is not None and value not in choices:
            raise ValueError(f"{field.name}: got {str(value)[:40]!r}, expected one of {', '.join(choices)}")
        if kind in (positive, natural):
            _check_number(field.name, kind, value)
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
        expected = (list, tuple) if field.name == "epochs" else str
        if not all(isinstance(each, expected) for each in inner):
            wanted = "text by model" if isinstance(value, Mapping) else "a list of names"
            wanted = _BY_NAME.get(field.name, wanted)
            raise ValueError(f"{field.name}: got {as_typed(value)[:40]!r}, expected {wanted}")
    for numbers in (settings.get("epochs") or {}).values():
        for number in numbers:
            _check_number("epochs", positive, number)


def _check_number(field: str, kind: Callable[[str], int], value: Any) -> None:
    try:
        kind(str(value))
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"{field}: {error}") from error
