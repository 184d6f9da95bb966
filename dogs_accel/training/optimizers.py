"""Optimisers, the groups of parameters that they step, their rates and their state."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dogs_accel.models.freezing import require_names, trained_names
from dogs_accel.models.layer_groups import is_under, layer_groups
from dogs_accel.training.phases import Phase
from dogs_accel.training.step import StepSettings

_OF_TORCH: dict[str, type[torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD
}  # fmt: skip


def make_optimizer(
    parameters: Any, lr: float, weight_decay: float, settings: StepSettings, kind: str = "adamw", **own: Any
) -> torch.optim.Optimizer:
    """One of torch's optimisers over parameters or groups of them, with the lr before any schedule as `initial_lr`.

    kind: adamw, adam or sgd; own: what that one has beside the others, such as momentum.
    """
    # None, and not False, leaves torch its own choice among the unfused ones, which is not the slowest.
    fused = True if settings.fused_optimizer else None
    optimizer = _OF_TORCH[kind](parameters, lr=lr, weight_decay=weight_decay, fused=fused, **own)  # type: ignore[call-arg]
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def phase_optimizer(model: nn.Module, phase: Phase, settings: StepSettings) -> torch.optim.Optimizer:
    """Make the optimiser that a phase starts with. Raises ValueError as `param_groups` does."""
    own = {"momentum": phase.momentum, "nesterov": phase.nesterov} if phase.optimizer == "sgd" else {}
    groups = param_groups(model, phase)
    optimizer = make_optimizer(groups, phase.lr, phase.weight_decay, settings, phase.optimizer, **own)
    if phase.optimizer == "sgd" and phase.unfreeze_every:
        # The fused kernel fails where some parameters of a group have taken their first step and others have not. From
        # zero the first step is the same.
        for parameter in (each for group in groups for each in group["params"]):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def set_rates(optimizer: torch.optim.Optimizer, phase: Phase, epoch: int, step: int = 0, num_steps: int = 1) -> None:
    """Give each group the learning rate, and where the schedule sets it the momentum, of a step of an epoch."""
    momentum = phase.momentum_at(epoch, step, num_steps)
    for group in optimizer.param_groups:
        group["lr"] = phase.lr_at(epoch, step, num_steps, group["initial_lr"])
        if momentum is not None and "betas" in group:
            group["betas"] = (momentum, *group["betas"][1:])
        elif momentum is not None:
            group["momentum"] = momentum


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[Any, Any]) -> None:
    """Take up what an optimiser had learnt of the same parameters, under this one's own settings.

    Its tensors get the memory layout of their parameters, which may be another than they were saved in: fused
    optimisers walk through both as they lie.
    """
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter).copy_(value)


def param_groups(model: nn.Module, phase: Phase) -> list[dict[str, Any]]:
    """All that trains at some time in a phase, as torch's optimisers take it: dicts of "params" and "lr".

    One dict in the order of model.parameters(), or with layer_decay one a layer group from the head down, each with
    layer_decay times the lr of the one before, or one for each prefix of `lrs`. Where norms and biases do not decay,
    each is two, the second with a "weight_decay" of 0. Parameters that are frozen when the optimiser steps have no
    gradient, so that it neither moves nor decays them. Raises ValueError for a phase that does not fit the model: more
    layer groups than it has, or names that no parameter has that trains.
    """
    groups = layer_groups(model)
    trained = trained_names(model, *phase.stage_at(phase.epochs - 1, len(groups)))
    require_names("lrs", tuple(phase.lrs), trained)
    found: dict[tuple[str, bool], dict[str, Any]] = {}
    if phase.layer_decay != 1:
        depth_of = {name: depth for depth, group in enumerate(groups) for name in group}
        trained.sort(key=depth_of.__getitem__)
    for name in trained:
        if phase.layer_decay != 1:
            depth = depth_of[name]
            part, lr = str(depth), phase.lr * phase.layer_decay**depth
        else:
            part = max((each for each in phase.lrs if is_under(name, [each])), key=len, default="")
            lr = phase.lrs.get(part, phase.lr)
        parameter = model.get_parameter(name)
        decays = phase.decay_norms or not (parameter.ndim <= 1 or name.endswith(".bias"))
        group = found.setdefault((part, decays), {"params": [], "lr": lr} | ({} if decays else {"weight_decay": 0.0}))
        group["params"].append(parameter)
    return list(found.values())
