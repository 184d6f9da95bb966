"""The settings as the command line says them: one flag for each field, and a file for all of them."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.experiment.settings.files import config_from_json, read_settings_file
from dogs_accel.results.layout import CONFIG_FILE
from dogs_accel.runtime.arguments import user_path
from dogs_accel.runtime.files import read_json

_MAY_CHANGE = {
    "gpu", "device", "data", "weights", "model_weights", "loader", "store", "num_threads", "eval_batch_size",
    "channels_last", "fused_optimizer", "compile", "cuda_graphs", "profile", "out", "wandb", "resume", "dry_run",
}  # fmt: skip
"""Settings that may change when a run goes on: they say where and how it is computed, not what. Where data and weights
lie is among them; that they are the same is seen by what they hold."""
_DEVICES = {"gpu", "device"}
"""Which say the same in two ways."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser one flag for each field of BenchmarkConfig, and --config."""
    parser.add_argument(
        "--config", type=user_path, metavar="FILE", default=argparse.SUPPRESS,
        help="settings as config.json of a run has them, which such a file may be, or the same in TOML; flags win over "
        "it, and paths in it are relative to the current folder",
    )  # fmt: skip
    for field in dataclasses.fields(BenchmarkConfig):
        options = dict(field.metadata)
        if isinstance(field.default, bool):
            options["action"] = argparse.BooleanOptionalAction
            options["help"] += " (default: yes)" * field.default
        elif field.default is not None:
            shown = ",".join(field.default) if isinstance(field.default, tuple) else field.default
            options["help"] += f" (default: {shown})"
        options["help"] = options["help"].replace("%", "%%")
        # What is not said stays unsaid, so that a run that goes on can tell.
        parser.add_argument(f"--{field.name.replace('_', '-')}", default=argparse.SUPPRESS, **options)


def parse_config(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> BenchmarkConfig:
    """Read the command line; a flag that is wrong by itself ends the program with one line and exit code 2.

    Raises ValueError for settings that contradict each other, or those of the run that is to go on, and for a file of
    settings that cannot be read.
    """
    given = vars(parser.parse_args(arguments))
    if (path := given.pop("config", None)) is None:
        return _config_of(given)
    in_file = read_settings_file(Path(path))
    try:
        return _config_of(_with_flags(in_file, given))
    except ValueError as error:
        if str(error) == _problem_of(in_file):
            raise ValueError(f"{path}: {error}") from error
        raise


def _config_of(given: dict[str, Any]) -> BenchmarkConfig:
    return BenchmarkConfig(**given) if given.get("resume") is None else _resumed_config(given)


def _with_flags(in_file: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Let flags win over a file; of settings of phases each by itself."""
    kept = {name: value for name, value in in_file.items() if not (name in _DEVICES and _DEVICES & given.keys())}
    both = {"set": kept["set"] | given["set"]} if "set" in kept and "set" in given else {}
    return kept | given | both


def _problem_of(settings: dict[str, Any]) -> str:
    """What is wrong with settings by themselves."""
    try:
        BenchmarkConfig(**settings)
    except ValueError as error:
        return str(error)
    return ""


def _resumed_config(given: dict[str, Any]) -> BenchmarkConfig:
    """Take the settings of a run that is to go on, and of those that were said now the ones that may change."""
    folder = given["resume"] or given.get("out")
    if folder is None:
        raise ValueError("resume: got no folder, expected --resume DIR, or --out DIR beside it")
    if Path(given.get("out", folder)) != Path(folder):
        raise ValueError(f"resume: got {folder} and --out {given['out']}, expected one folder")
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        if given["resume"]:
            raise ValueError(f"resume: {folder} holds no run ({CONFIG_FILE} is missing); start it with --out {folder}")
        return BenchmarkConfig(**given | {"resume": None})
    recorded = config_from_json(read_json(path))
    for name, value in given.items():
        if name not in _MAY_CHANGE and value != getattr(recorded, name):
            raise ValueError(f"{name}: got {value}, but the run in {folder} has {getattr(recorded, name)}")
    changed: dict[str, Any] = {name: value for name, value in given.items() if name in _MAY_CHANGE}
    if _DEVICES & given.keys():
        changed = dict.fromkeys(_DEVICES) | changed
    return dataclasses.replace(recorded, **changed | {"resume": folder, "out": folder})
