"""Optimisers, the groups of parameters that they step, and their state."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dogs_accel.models.layer_groups import layer_groups
from dogs_accel.training.phases import Phase
from dogs_accel.training.step import StepSettings


def make_optimizer(parameters: Any, lr: float, weight_decay: float, settings: StepSettings) -> torch.optim.AdamW:
    """AdamW over parameters or groups of them; a group's `initial_lr` is its lr before any schedule."""
    # None, and not False, leaves torch its own choice among the unfused ones, which is not the slowest.
    fused = True if settings.fused_optimizer else None
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=fused)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[Any, Any]) -> None:
    """Take up what an optimiser had learnt of the same parameters, under this one's own settings.

    Its tensors get the memory layout of their parameters, which may be another than they were saved in: fused AdamW
    walks through both as they lie.
    """
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter).copy_(value)


def param_groups(model: nn.Module, phase: Phase) -> list[dict[str, Any]]:
    """All that trains at some time in a phase, as torch's optimisers take it: dicts of "params" and "lr".

    One dict in the order of model.parameters(), or with layer_decay one a layer group from the head down, each with
    layer_decay times the lr of the one before. Parameters that are frozen when the optimiser steps have no gradient,
    so AdamW neither moves nor decays them.
    """
    groups = layer_groups(model)
    groups = groups[: phase.num_trainable_groups(phase.epochs - 1, len(groups))]
    if phase.layer_decay == 1:
        trained = {name for group in groups for name in group}
        return [{"params": [value for name, value in model.named_parameters() if name in trained], "lr": phase.lr}]
    return [
        {"params": [model.get_parameter(name) for name in group], "lr": phase.lr * phase.layer_decay**depth}
        for depth, group in enumerate(groups)
    ]
