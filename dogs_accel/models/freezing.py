"""Which parameters train, and in which mode the frozen modules are."""

from __future__ import annotations

from torch import nn

from dogs_accel.models.heads import head_names


def set_trainable_stage(model: nn.Module, mode: str) -> None:
    """Freeze all but the head ("head_only") or nothing ("full_finetune")."""
    for parameter in model.parameters():
        parameter.requires_grad = mode == "full_finetune"
    for name in head_names(model):
        for parameter in model.get_submodule(name).parameters():
            parameter.requires_grad = True


def set_train_mode(model: nn.Module, bn_when_frozen: str = "eval") -> None:
    """Put a model into train mode, with BatchNorm of frozen parts in eval mode so that its statistics stay.

    bn_when_frozen "train" lets them drift, as the published runs did.
    """
    model.train()
    if bn_when_frozen == "train":
        return
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and own and not own[0].requires_grad:
            module.eval()


def count_total_params(model: nn.Module) -> int:
    """Parameters of a model, frozen ones included."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_trainable_params(model: nn.Module) -> int:
    """Parameters that the optimiser changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
