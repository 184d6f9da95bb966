"""What will run and how long it will take, as text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from dogs_accel.evaluation.tta import NO_TTA, describe_views
from dogs_accel.experiment.data import describe_sizes
from dogs_accel.experiment.plan import Plan, PlannedRun
from dogs_accel.runtime.terminal import escaped

if TYPE_CHECKING:
    from dogs_accel.experiment.estimate import Estimate

_SHOWN = 5
"""Classes that are named of many."""


def describe_plan(plan: Plan) -> str:
    """Say what will run, on what, as text for a terminal."""
    config, facts = plan.config, plan.data.facts
    amp = {None: "float32", torch.bfloat16: "bf16 AMP", torch.float16: "fp16 AMP"}[plan.amp]
    device = torch.cuda.get_device_name(plan.device) if plan.device.type == "cuda" else "CPU"
    lines = [
        *([escaped(facts.notice)] if facts.notice else []),
        f"preset   {config.preset_name}",
        f"data     {escaped(facts.name)}: {facts.count(plan.data.num_classes)}, {describe_sizes(plan.splits)} images, "
        f"in {escaped(plan.data.root)}",
        *facts.layout_lines(),
        f"splits   {plan.carving}",
        *([] if config.test else ["         the test split is left out: its files stay closed"]),
        *_describe_absent(plan),
        f"device   {plan.device} ({device}), {amp}, batch {_describe_batch(plan)}",
        f"results  {escaped(plan.out)}",
        *([] if config.tta == NO_TTA else [f"tta      {describe_views(config.tta, len(plan.runs[0].views))}"]),
        *([f"world    {_describe_world(plan)}"] if plan.world.size > 1 else []),
        "runs",
    ]
    configurations: dict[str, list[PlannedRun]] = {}
    for run in plan.runs:
        configurations.setdefault(run.configuration, []).append(run)
    width = max(map(len, configurations))
    for name, (run, *others) in configurations.items():
        phases = " -> ".join(map(str, run.phases))
        model = f"{run.spec.display} at {run.spec.image_size} px, {_describe_weights(run.weights)}"
        lines.append(f"  {name:<{width}}  {model}  {phases}")
        if config.seeds > 1:
            lines[-1] += f"  seed {', '.join(str(each.seed) for each in (run, *others))}"
    lines += [f"notice   {notice}" for notice in plan.notices]
    return "\n".join(lines)


def _describe_weights(weights: str) -> str:
    return {"imagenet": "ImageNet weights", "none": "random weights"}.get(weights, f"weights of {escaped(weights)}")


def _describe_absent(plan: Plan) -> list[str]:
    """Name the classes that have no image in a split, a line a split."""
    lines = []
    for split, index in plan.splits.items():
        if names := plan.data.absent_from(index):
            more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
            what = plan.data.facts.count(len(names))
            lines.append(f"         {split} has no image of {what}: {', '.join(map(escaped, names[:_SHOWN]))}{more}")
    return lines


def _describe_world(plan: Plan) -> str:
    return f"{plan.world.size} processes, learning rates as for the whole batch; BatchNorm sees {plan.bn_sees}"


def _describe_batch(plan: Plan) -> str:
    world = plan.world
    shared = f" ({plan.batch_size // world.size} in each of {world.size} processes)" if world.size > 1 else ""
    return f"{plan.batch_size}{shared}, {plan.eval_batch_size} in evaluation"


def describe_estimates(plan: Plan, estimates: Mapping[str, Estimate]) -> str:
    """Lay out the times of a dry run, by configuration, as text for a terminal."""
    lines = ["estimated from a few steps on this machine: by the fast ones, as where it is idle, to by the median one"]
    num_runs = Counter(run.configuration for run in plan.runs)
    for name, estimate in estimates.items():
        times = f"{num_runs[name]} x " if num_runs[name] > 1 else ""
        lines.append(
            f"  {name}: {times}{_describe_minutes(*estimate.minutes)} "
            f"(loader {estimate.loader_rate:,.0f} img/s, training {estimate.train_rate:,.1f} img/s)"
        )
    low, high = (sum(num_runs[name] * estimate.minutes[end] for name, estimate in estimates.items()) for end in (0, 1))
    lines.append(f"  in all: {_describe_minutes(low, high)}")
    return "\n".join(lines)


def _describe_minutes(low: float, high: float) -> str:
    """Write both ends where a tenth of a minute tells them apart."""
    if high < 0.1:
        return "less than 0.1 min"
    ends = f"{max(low, 0.1):.1f}", f"{high:.1f}"
    return f"{ends[0]} min" if ends[0] == ends[1] else f"{ends[0]} to {ends[1]} min"
