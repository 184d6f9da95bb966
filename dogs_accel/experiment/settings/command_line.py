"""The settings as the command line says them: one flag for each field, and a file for all of them."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.experiment.settings.files import config_from_json, read_settings_file
from dogs_accel.experiment.settings.layers import laid_over
from dogs_accel.experiment.settings.presets import DEMO_OF, PRESETS, UNLESS_SAID, usual_preset
from dogs_accel.results.layout import CONFIG_FILE
from dogs_accel.runtime.arguments import as_typed, user_path
from dogs_accel.runtime.files import read_json
from dogs_accel.training.phases import PUBLISHED_LR

_MAY_CHANGE = {
    "gpu", "device", "data", "weights", "model_weights", "loader", "store", "num_threads", "eval_batch_size",
    "channels_last", "fused_optimizer", "compile", "cuda_graphs", "profile", "out", "wandb", "resume", "dry_run",
}  # fmt: skip
"""Settings that may change when a run goes on: they say where and how it is computed, not what. Where data and weights
lie is among them; that they are the same is seen by what they hold."""
_DEVICES = {"gpu", "device"}
"""Which say the same in two ways."""
_MOST_OTHERS = 2
"""Values of presets beside the usual one that --help lists."""
_WITHOUT = {
    "image_size": "the model's own",
    "recipes": "resnet-train, for transformers vit-train",
}
"""What holds of a field that neither a preset nor anybody says."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser one flag for each field of BenchmarkConfig, and --config."""
    parser.add_argument(
        "--config", type=user_path, metavar="FILE", default=argparse.SUPPRESS,
        help="settings as config.json of a run has them, which such a file may be, or the same in TOML; flags win over "
        "it, and paths in it are relative to the current folder",
    )  # fmt: skip
    of_presets = {name for preset in PRESETS.values() for name in preset.settings} | UNLESS_SAID.keys()
    for field in dataclasses.fields(BenchmarkConfig):
        options = dict(field.metadata)
        if isinstance(field.default, bool):
            options["action"] = argparse.BooleanOptionalAction
            options["help"] += " (default: yes)" * field.default
        elif field.default is not None:
            options["help"] += f" (default: {as_typed(field.default)})"
        elif field.name in of_presets:
            options["help"] += f" (default: {_default_of_presets(field.name)})"
        options["help"] = options["help"].replace("%", "%%")
        # What is not said stays unsaid, so that a run that goes on can tell.
        parser.add_argument(f"--{field.name.replace('_', '-')}", default=argparse.SUPPRESS, **options)
    parser.epilog = _describe_presets()


def _default_of_presets(field: str) -> str:
    """Say what holds of a field unless somebody says it, and which presets say otherwise, where that is short."""
    by_value: dict[str, list[str]] = {}
    for name, preset in PRESETS.items():
        value = preset.settings.get(field, UNLESS_SAID.get(field))
        if not name.endswith(DEMO_OF):
            by_value.setdefault(_WITHOUT.get(field, "") if value is None else as_typed(value), []).append(name)
    (most, _), *others = sorted(by_value.items(), key=lambda item: -len(item[1]))
    if len(others) > _MOST_OTHERS or not most:
        return "the preset's"
    return "; ".join([f"the preset's: {most}", *(f"{value} of {', '.join(names)}" for value, names in others)])


def _describe_presets() -> str:
    """List the presets, a line each, for --help."""
    lines = {name: preset.about for name, preset in PRESETS.items() if not name.endswith(DEMO_OF)}
    demos = [name for name in PRESETS if name.endswith(DEMO_OF)]
    lines[f"NAME{DEMO_OF}"] = "NAME on two CPU cores in about two minutes, small networks from random weights, for"
    lines[""] = ", ".join(name.removesuffix(DEMO_OF) for name in demos)
    width = max(map(len, lines))
    return "\n".join([
        "presets (docs/presets.md says what each sets, and why):",
        *(f"  {name:<{width}}  {about}" for name, about in lines.items()),
    ])  # fmt: skip


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
    """Let flags win over a file; of settings of phases in each phase by itself."""
    kept = {name: value for name, value in in_file.items() if not (name in _DEVICES and _DEVICES & given.keys())}
    both = kept | given
    if "set" not in kept:
        return both
    preset = PRESETS[both.get("preset") or usual_preset(both.get("data"))]
    strategies = both.get("strategies") or preset.settings.get("strategies", UNLESS_SAID["strategies"])
    try:
        return both | {"set": laid_over(kept["set"], given.get("set", {}), strategies, given.get("epochs"))}
    except ValueError as error:  # the names of settings have been read
        raise ValueError(f"strategies: {error}") from error


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
        if name not in _MAY_CHANGE and not _is_so_already(recorded, name, value):
            has = getattr(recorded.resolved(), name)
            raise ValueError(f"{name}: got {as_typed(value)}, but the run in {folder} has {as_typed(has)}")
    changed: dict[str, Any] = {name: value for name, value in given.items() if name in _MAY_CHANGE}
    if _DEVICES & given.keys():
        changed = dict.fromkeys(_DEVICES) | changed
    return dataclasses.replace(recorded, **changed | {"resume": folder, "out": folder})


def _is_so_already(recorded: BenchmarkConfig, name: str, value: Any) -> bool:
    """Whether a run has a setting already that is said of it now; of settings of phases, where it counts."""
    known = recorded.resolved()
    if name != "set":
        return bool(value == getattr(known, name))
    strategies = known.strategies_in_force
    changed = dataclasses.replace(known, set=laid_over(known.set or {}, value, strategies))
    kinds = PUBLISHED_LR["full_finetune"]
    return all(changed.phases(each, kind) == known.phases(each, kind) for each in strategies for kind in kinds)
