"""A sweep as Weights & Biases has one: the YAML from which `wandb sweep` makes it, and what its agent then types."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dogs_accel.runtime.arguments import did_you_mean
from dogs_accel.runtime.files import replacing
from dogs_accel.sweep.settings import SweepConfig
from dogs_accel.sweep.space import Parameter, Space, Value

METRIC = "evaluation/val_accuracy"
"""What a run tells W&B at its end: the accuracy of its best epoch on validation."""


def wandb_sweep(sweep: SweepConfig, command: Sequence[str]) -> dict[str, Any]:
    """Say a sweep in the words of W&B's sweep configuration.

    command: the command of a trial, to which the agent appends --NAME=VALUE of each parameter. Halving is not said: the
    command gives a trial up by itself, among those in its folder. Definition: W&B's documentation, "Sweep
    configuration".
    """
    content: dict[str, Any] = {
        "name": sweep.name,
        "method": sweep.sampler,  # W&B calls them so too
        "metric": {"name": METRIC, "goal": "maximize"},
        "parameters": {parameter.name: _words_of(parameter) for parameter in sweep.space.parameters},
        "command": ["${env}", *command, "${args}"],
    }
    if sweep.most_trials is not None:
        content["run_cap"] = sweep.most_trials
    return content


def _words_of(parameter: Parameter) -> dict[str, Any]:
    if parameter.kind == "choice":
        return {"values": list(parameter.choices)}
    ends = {"min": parameter.low, "max": parameter.high}
    if parameter.log:
        quantised = {"q": 1} if parameter.kind == "int" else {}
        return {"distribution": "q_log_uniform_values" if quantised else "log_uniform_values", **ends, **quantised}
    if parameter.step is not None and parameter.step != 1:
        return {"values": list(parameter.values or ())}
    return {"distribution": "int_uniform" if parameter.kind == "int" else "uniform", **ends}


def write_wandb_sweep(path: Path, sweep: SweepConfig, command: Sequence[str]) -> Path:
    """Write the YAML."""
    with replacing(path) as temporary:
        temporary.write_text("\n".join(_yaml_lines(wandb_sweep(sweep, command))) + "\n", encoding="utf-8")
    return path


def _yaml_lines(content: Mapping[str, Any], indent: str = "") -> list[str]:
    """Write nested mappings as YAML: text and lists as JSON has them, which is YAML too."""
    lines = []
    for key, value in content.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{key}:", *_yaml_lines(value, f"{indent}  ")]
        else:
            lines.append(f"{indent}{key}: {json.dumps(value)}")
    return lines


def read_point(arguments: Sequence[str], space: Space, flags: Sequence[str] = ()) -> dict[str, Value]:
    """Read --NAME=VALUE of every parameter, as W&B's agent types them; empty where nothing is given.

    flags: of the command, among which a wrong name is looked for too. Raises ValueError, which names the parameter.
    """
    point: dict[str, Value] = {}
    parameters = {parameter.name: parameter for parameter in space.parameters}
    for argument in arguments:
        flag, is_given, text = argument.partition("=")
        name = flag.removeprefix("--")
        if not is_given and flag != name and name in parameters:
            raise ValueError(f"{name}: got {flag} without =, expected {flag}=VALUE")
        if not is_given or flag == name or name not in parameters:
            near = did_you_mean(flag, [*flags, *(f"--{each}" for each in parameters)])
            raise ValueError(f"unrecognized arguments: {argument}{near}")
        if name in point:
            raise ValueError(f"{name}: got it twice, expected each parameter once")
        # Its numbers and truths are those of Python.
        point[name] = parameters[name].read({"True": "true", "False": "false"}.get(text, text))
    if missing := [name for name in parameters if point and name not in point]:
        raise ValueError(f"{missing[0]}: got no value, expected one of every parameter: {', '.join(parameters)}")
    return {name: point[name] for name in parameters if point}
