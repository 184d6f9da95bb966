"""The command: models by name, built at random on the device, measured in turns, and laid out for a reader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from dogs_accel.cost.measure import MeasuredModel, measure_costs, time_stages
from dogs_accel.cost.model_cost import Latency, ModelCost
from dogs_accel.models.architecture.table import Architecture
from dogs_accel.models.build import build_model
from dogs_accel.models.input_size import describe_input_size
from dogs_accel.models.specs import ModelSpec, model_spec
from dogs_accel.runtime.environment import describe_environment, package_version
from dogs_accel.runtime.files import write_csv, write_json
from dogs_accel.runtime.out_of_memory import Demand, within_memory

COST_FILE, COST_TABLE_FILE = "cost.json", "cost.csv"
_IMAGENET_CLASSES = 1000
_SECONDS = 2.0
"""For which a model is measured with one image, and again with a batch, where its rounds are not given."""
_MAKERS = ("torchvision", "timm")
"""Packages whose versions say what a model's name stands for."""


@dataclass(frozen=True, kw_only=True)
class CostRun:
    """What is measured, and how."""

    specs: Sequence[ModelSpec]
    num_classes: int | None
    """None leaves each model the head of its published weights."""
    batch_size: int
    device: torch.device
    amp: torch.dtype | None
    rounds: int | None
    """None takes as many as fit, as `measure_costs` says."""

    def classes_of(self, spec: ModelSpec) -> int:
        """Say how many classes a model is measured with."""
        return own_num_classes(spec) if self.num_classes is None else self.num_classes


def named_models(names: str, image_size: int | None = None) -> list[ModelSpec]:
    """Look models up by their names, separated by commas; image_size None leaves each its own.

    Raises ValueError for an unknown name or none, and for a size that a model cannot have.
    """
    specs = [model_spec(name, image_size) for name in dict.fromkeys(filter(None, map(str.strip, names.split(","))))]
    if not specs:
        raise ValueError(f"models: got {names!r}, expected names such as resnet50,timm/vit_tiny_patch16_224")
    return specs


def own_num_classes(spec: ModelSpec) -> int:
    """Count the classes of a model's published weights, those of ImageNet where it has none."""
    if not spec.name.startswith("timm/"):
        return _IMAGENET_CLASSES
    import timm

    name, _, _ = spec.name.removeprefix("timm/").partition(":")
    published = timm.models.get_pretrained_cfg(name)
    return _IMAGENET_CLASSES if published is None else int(published.num_classes)


def measure_models(run: CostRun) -> list[ModelCost]:
    """Build the models with random weights on the device and measure them.

    Raises ValueError for a size that a model cannot have, and BatchTooLargeError, which names a batch that fits, where
    the memory does not suffice.
    """
    models = [_built(run, spec) for spec in run.specs]

    def measure(batch_size: int, rounds: int | None) -> list[ModelCost]:
        return measure_costs(
            models, device=run.device, amp=run.amp, batch_size=batch_size, rounds=rounds, seconds=_SECONDS
        )

    demand = Demand(
        work=f"the cost of {len(run.specs)} model{'s' * (len(run.specs) != 1)}",
        num_images=run.batch_size,
        image_size_px=max(spec.image_size for spec in run.specs),
        device=run.device,
        flag="--batch-size",
    )
    return within_memory(lambda: measure(run.batch_size, run.rounds), demand, lambda num: measure(num, 1))


def _built(run: CostRun, spec: ModelSpec) -> MeasuredModel:
    num_classes = run.classes_of(spec)
    return MeasuredModel(spec=spec, model=_random_model(spec, num_classes, run.device), num_classes=num_classes)


def _random_model(spec: ModelSpec, num_classes: int, device: torch.device) -> nn.Module:
    """Build a model with random weights, ready for evaluation on a device."""
    with device:
        model = build_model(spec, num_classes, "none").model
    laid_out: nn.Module = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return laid_out.eval()


def stages_in_time(
    spec: ModelSpec, architecture: Architecture, device: torch.device, rounds: int | None
) -> Architecture:
    """Build a model with random weights on the device and time its stages, in float32, for one image.

    rounds: None takes as many as fit. Raises BatchTooLargeError where the memory does not suffice.
    """
    demand = Demand(
        work=f"the time of {spec.display}", num_images=1, image_size_px=spec.image_size, device=device, flag=None
    )

    def measure() -> Architecture:
        model = _random_model(spec, architecture.num_classes, device)
        return time_stages(architecture, model, device, rounds=rounds)

    return within_memory(measure, demand, lambda _: measure())


def describe_run(run: CostRun) -> Iterator[str]:
    """Say in lines what is measured.

    Raises ValueError, which names sizes that work, for a size that a model cannot have.
    """
    for spec in run.specs:
        if (note := describe_input_size(spec)) is not None:
            yield note
    makers = ", ".join(f"{name} {version}" for name in _MAKERS if (version := package_version(name)) is not None)
    num = f"{len(run.specs)} models" if len(run.specs) != 1 else "one model"
    yield f"measuring {num} with random weights; {makers}"


def describe_costs(costs: Sequence[ModelCost]) -> Iterator[str]:
    """Lay out the costs of models that were measured together: what they are, how fast, and what the columns are."""
    first = costs[0].setting
    yield f"on {first.where}, weights of convolutions and images channels-last\n"
    yield _table(
        ["model", "px", "classes", "parameters", "MB", "GMACs", "GFLOPs"],
        [
            [cost.display, cost.setting.image_size, f"{cost.setting.num_classes:,}", f"{cost.parameters:,}",
             f"{cost.megabytes:.2f}", f"{cost.macs / 1e9:.3f}", f"{cost.flops / 1e9:.3f}"]
            for cost in costs
        ],
    )  # fmt: skip
    batch = f"batch of {first.batch_size}"
    yield "\n" + _table(
        ["model", "one image, ms", f"{batch}, ms", "images/s", "peak MB"],
        [
            [cost.display, _with_interval(cost.one_image_ms), _with_interval(cost.batch_ms),
             f"{cost.images_per_second:,.1f}", f"{cost.peak_memory_bytes / 1e6:,.1f}"]
            for cost in costs
        ],
    )  # fmt: skip
    yield "\n" + "\n".join(_explained(costs[0], batch))


def _explained(cost: ModelCost, batch: str) -> Iterator[str]:
    rounds = f"{cost.one_image_ms.rounds} rounds of one image and {cost.batch_ms.rounds} of a {batch}"
    yield "MB       the parameters as float32, 4 bytes each, in 10^6 bytes; statistics of BatchNorm are not among them"
    yield "GMACs    10^9 multiply-accumulates for one image, in convolutions and matrix products"
    yield "GFLOPs   two operations a multiply-accumulate; papers and torchvision often print GMACs and call them FLOPs"
    yield "ms       median (95 % interval) to the end of the device's work, models in turns, after a warm-up;"
    yield f"         {rounds}"
    yield f"peak MB  weights, buffers, and what torch allocates for a {batch} at most"


def _with_interval(latency: Latency) -> str:
    return f"{latency.text} ({latency.interval_text})"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Align columns, the first to the left and the others to the right."""
    lines = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [f"{line[0]:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def costs_as_json(costs: Sequence[ModelCost]) -> dict[str, Any]:
    """Lay out what cost.json holds: hardware and versions, and each model."""
    return {"environment": describe_environment(), "models": [cost.as_json() for cost in costs]}


def write_costs(folder: Path, costs: Sequence[ModelCost]) -> list[Path]:
    """Write cost.json, and cost.csv with a row a model."""
    content = costs_as_json(costs)
    table = pd.json_normalize(content["models"], sep="_")
    return [write_json(folder / COST_FILE, content), write_csv(folder / COST_TABLE_FILE, table)]
