"""The table of a network's stages: what each puts out, sees and costs."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from dogs_accel.models.architecture.receptive_field import Field, ReceptiveField, following_fields
from dogs_accel.models.architecture.stages import (
    ModelStages,
    ModuleOutput,
    find_stages,
    recording_outputs,
    stage_kind,
    watching,
)
from dogs_accel.models.build import build_model
from dogs_accel.models.flops import counting_macs
from dogs_accel.models.specs import ModelSpec
from dogs_accel.runtime.timing import Clock

_FEWEST_ROUNDS, _MOST_ROUNDS = 5, 50


@dataclass(frozen=True, kw_only=True)
class ModelStage:
    """A stage of a network, for one image in evaluation."""

    name: str
    modules: tuple[str, ...]
    kind: str
    """What it is made of, such as "3 Bottleneck"."""
    output: tuple[int, ...]
    """Shape of its last map, without the axis of the images: (C, h, w), (h, w, C) or (tokens, C); of a stage without a
    map that of what it puts out, and () of one that an evaluation does not run."""
    parameters: int
    macs: int
    """Multiply-accumulates, as `models.flops.count_macs` counts them."""
    field: Field | None
    """Receptive fields of the cells of that map, or why there are none; None where nothing was put out."""
    milliseconds: float | None = None
    """Median of its time, None where it was not measured."""

    @property
    def flops(self) -> int:
        """Operations of one image: two a multiply-accumulate."""
        return 2 * self.macs


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The stages of a network, first to last."""

    name: str
    """Of the model, as typed."""
    display: str
    image_size: int
    num_classes: int
    stages: tuple[ModelStage, ...]
    rounds: int = 0
    """Of the measurement of time; 0 where there was none."""
    measured_on: str = ""

    @property
    def parameters(self) -> int:
        """All parameters of the network."""
        return sum(stage.parameters for stage in self.stages)

    @property
    def macs(self) -> int:
        """All multiply-accumulates of one image."""
        return sum(stage.macs for stage in self.stages)

    @property
    def flops(self) -> int:
        """Operations of one image: two a multiply-accumulate."""
        return 2 * self.macs

    def time_share(self, stage: ModelStage) -> float | None:
        """Share of a stage in the time of all; None where it was not measured."""
        if stage.milliseconds is None:
            return None
        return stage.milliseconds / sum(each.milliseconds or 0.0 for each in self.stages)


def count_stages(spec: ModelSpec, num_classes: int) -> Architecture:
    """Lay out a model by its stages.

    The model is built on torch's meta device, which knows shapes and no values, so this takes neither memory nor time;
    one that needs values runs on the CPU. Parameters and multiply-accumulates add up to those of the model. The global
    random state stays as it is. Raises ValueError for an unknown model.
    """
    try:
        stages = _counted_on("meta", spec, num_classes)
    except RuntimeError:  # an operator without a meta kernel, or a value that is read
        stages = _counted_on("cpu", spec, num_classes)
    return Architecture(
        name=spec.name, display=spec.display, image_size=spec.image_size, num_classes=num_classes, stages=stages
    )


def _counted_on(device: str, spec: ModelSpec, num_classes: int) -> tuple[ModelStage, ...]:
    with torch.random.fork_rng(devices=[]), torch.device(device):
        model = build_model(spec, num_classes, "none").model.eval()
        return stages_of(model, torch.zeros(1, 3, spec.image_size, spec.image_size))


@torch.no_grad()
def stages_of(model: nn.Module, images: Tensor) -> tuple[ModelStage, ...]:
    """Lay out a model in evaluation mode by its stages, for an image (1, 3, S, S), both perhaps on the meta device."""
    stages = find_stages(model, images)
    macs = [0] * len(stages.names)
    now, before = 0, 0
    with counting_macs() as counted:

        def enter(stage: int) -> None:
            nonlocal now, before
            macs[now] += counted() - before
            now, before = stage, counted()

        with (
            watching(model, stages, enter),
            recording_outputs(model, stages) as outputs,
            following_fields(images) as field_of,
        ):
            model(images)
        enter(now)
    of_parameter = dict(model.named_parameters())
    shown = {stage: last_map(of_stage) for stage, of_stage in outputs.items()}
    return tuple(
        ModelStage(
            name=name,
            modules=stages.modules[at],
            kind=stage_kind(model, stages.modules[at]),
            output=tuple(shown[at].tensor.shape[1:]) if at in shown else (),
            parameters=sum(of_parameter[each].numel() for each in stages.parameters[at]),
            macs=macs[at],
            field=field_of(shown[at].tensor) if at in shown else None,
        )
        for at, name in enumerate(stages.names)
    )


def last_map(outputs: Sequence[ModuleOutput]) -> ModuleOutput:
    """Give the last of a stage's outputs that has cells, (N, C, h, w), (N, h, w, C) or (N, T, C); else the last one."""
    return next((each for each in reversed(outputs) if has_cells(each.tensor)), outputs[-1])


def has_cells(output: Tensor) -> bool:
    """Whether a tensor is a map, and not one vector an image."""
    if output.ndim == 3:
        return output.shape[1] > 1
    return output.ndim == 4 and (output.shape[2:] != (1, 1)) and output.shape[1:3] != (1, 1)


@torch.no_grad()
def with_times(
    architecture: Architecture,
    model: nn.Module,
    images: Tensor,
    *,
    where: str,
    rounds: int | None = None,
    seconds: float = 1.0,
    clock: Clock = time.perf_counter,
) -> Architecture:
    """Measure how long each stage of a model computes in a forward of images (B, 3, S, S), and return it with that.

    The device finishes a stage before the next one begins, so on a GPU the times add up to more than a forward takes
    that is not watched; their shares are what they are for. Two forwards before the first round do not count. rounds:
    None takes as many as fit into about so many seconds, from 5 to 50. where: on what it is measured, for the reader.
    Raises ValueError where the model has other stages.
    """
    model.eval()
    stages = find_stages(model, images)
    if stages.names != (names := tuple(stage.name for stage in architecture.stages)):
        raise ValueError(f"model: got stages {', '.join(stages.names)}, expected {', '.join(names)}")
    _round(model, stages, images, clock)
    first = _round(model, stages, images, clock)
    if rounds is None:
        rounds = min(_MOST_ROUNDS, max(_FEWEST_ROUNDS, int(seconds / max(sum(first), 1e-9))))
    measured = [_round(model, stages, images, clock) for _ in range(rounds)]
    medians = [1e3 * median(values) for values in zip(*measured, strict=True)]
    timed = tuple(
        dataclasses.replace(stage, milliseconds=own) for stage, own in zip(architecture.stages, medians, strict=True)
    )
    return dataclasses.replace(architecture, stages=timed, rounds=rounds, measured_on=where)


def _round(model: nn.Module, stages: ModelStages, images: Tensor, clock: Clock) -> list[float]:
    """Seconds of each stage in one forward."""
    seconds = [0.0] * len(stages.names)
    now, before = 0, 0.0

    def enter(stage: int) -> None:
        nonlocal now, before
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)
        at = clock()
        seconds[now] += at - before
        now, before = stage, at

    before = clock()
    with watching(model, stages, enter):
        model(images)
    enter(now)
    return seconds


def as_table(architecture: Architecture) -> pd.DataFrame:
    """Lay the stages out, a row each, with the columns of architecture.csv."""
    return pd.DataFrame(
        [
            {
                "stage": stage.name,
                "modules": " ".join(stage.modules),
                "kind": stage.kind,
                "output": shape_text(stage.output),
                "parameters": stage.parameters,
                "macs": stage.macs,
                "flops": stage.flops,
                "field_px": field_text(stage.field),
                "milliseconds": stage.milliseconds,
                "time_share": architecture.time_share(stage),
            }
            for stage in architecture.stages
        ]
    )


def as_json(architecture: Architecture) -> dict[str, Any]:
    """Lay the network out for programs: totals, and each stage with its fields."""
    return {
        "model": architecture.name,
        "display": architecture.display,
        "image_size": architecture.image_size,
        "num_classes": architecture.num_classes,
        "parameters": architecture.parameters,
        "macs": architecture.macs,
        "flops": architecture.flops,
        "time": {"rounds": architecture.rounds, "on": architecture.measured_on} if architecture.rounds else None,
        "stages": [
            {
                "name": stage.name,
                "modules": list(stage.modules),
                "kind": stage.kind,
                "output": list(stage.output),
                "parameters": stage.parameters,
                "macs": stage.macs,
                "flops": stage.flops,
                "receptive_field": _field_as_json(stage.field),
                "milliseconds": stage.milliseconds,
                "time_share": architecture.time_share(stage),
            }
            for stage in architecture.stages
        ],
    }


def _field_as_json(field: Field | None) -> dict[str, Any] | None:
    if field is None:
        return None
    if isinstance(field, str):
        return {"size_px": None, "reason": field}
    return {
        "size_px": list(field.size),
        "first_px": {"down": [field.low[0], field.high[0]], "across": [field.low[1], field.high[1]]},
        "step_px": list(field.step),
        "is_gated": field.is_gated,
    }


def shape_text(shape: Sequence[int]) -> str:
    """Write a shape; that of a stage that an evaluation does not run as such."""
    return " x ".join(map(str, shape)) if shape else "not run"


def field_text(field: Field | None) -> str:
    """Write how large the fields of a map are in px; + where their values are scaled by the whole image too."""
    if not isinstance(field, ReceptiveField):
        return "" if field is None else field
    sides = [f"{side:g}" for side in field.size]
    return (sides[0] if sides[0] == sides[1] else " x ".join(sides)) + "+" * field.is_gated


def describe_architecture(architecture: Architecture) -> str:
    """Lay the table out for people, with its totals, and what its columns are."""
    is_timed = architecture.rounds > 0
    head = ["stage", "made of", "output", "parameters", "MFLOPs", "field, px", *["time"] * is_timed]
    rows = [
        [stage.name, stage.kind, shape_text(stage.output), f"{stage.parameters:,}", f"{stage.flops / 1e6:,.1f}",
         field_text(stage.field), *([_percent(architecture.time_share(stage))] * is_timed)]
        for stage in architecture.stages
    ]  # fmt: skip
    rows.append(
        ["all", "", "", f"{architecture.parameters:,}", f"{architecture.flops / 1e6:,.1f}", "", *["100 %"] * is_timed]
    )
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    right = (3, 4, 6)
    lines = [
        "  ".join(
            f"{cell:>{width}}" if at in right else f"{cell:<{width}}"
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]
    notes = [
        "MFLOPs     10^6 operations for one image, two a multiply-accumulate, in convolutions and matrix products",
        "field, px  side of the part of the image from which a cell of the output is computed, what pads it included,",
        "           or why there is none such; + where its values are also scaled by something of the whole image",
    ]
    if is_timed:
        notes.append(f"time       median of {architecture.rounds} rounds of one image, on {architecture.measured_on}")
    return "\n".join([*lines, "", *notes])


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def runs_of_equals(architecture: Architecture) -> list[list[ModelStage]]:
    """Gather stages in a row that are alike but for their names and times, such as the blocks of a ViT."""

    def what(stage: ModelStage) -> tuple[Any, ...]:
        return stage.kind, stage.output, stage.parameters, stage.macs, field_text(stage.field)

    return [list(group) for _, group in itertools.groupby(architecture.stages, what)]
