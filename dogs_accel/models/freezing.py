"""Which parameters train, and in which mode the frozen modules are."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from dogs_accel.models import MODES
from dogs_accel.models.heads import head_names
from dogs_accel.models.layer_groups import is_under, layer_groups
from dogs_accel.runtime.arguments import did_you_mean


def trained_names(model: nn.Module, mode: str, num_groups: int = 0, groups: Sequence[str] = ()) -> list[str]:
    """Names of the parameters that train, in the model's order.

    Those of the head ("head_only"), all ("full_finetune"), or ("partial_finetune") those of the first num_groups layer
    groups, counted from the head, or those that `groups` names by the module that they lie in, such as layer4 and fc.
    Raises ValueError for an unknown mode, more layer groups than there are, and names that no parameter has.
    """
    if mode not in MODES:
        raise ValueError(f"mode: got {mode!r}, expected one of {', '.join(MODES)}")
    names = [name for name, _ in model.named_parameters()]
    if mode == "full_finetune":
        return names
    if mode == "head_only":
        heads = head_names(model)
        return [name for name in names if is_under(name, heads)]
    if groups:
        require_names("groups", groups, names)
        return [name for name in names if is_under(name, groups)]
    every_group = layer_groups(model)
    if not 1 <= num_groups <= len(every_group):
        raise ValueError(f"num_groups: got {num_groups}, expected an integer from 1 to {len(every_group)}")
    trained = {name for group in every_group[:num_groups] for name in group}
    return [name for name in names if name in trained]


def require_names(field: str, prefixes: Sequence[str], names: Sequence[str]) -> None:
    """Raise ValueError, naming the field, where the beginning of a name is that of no parameter."""
    for prefix in prefixes:
        if not any(is_under(name, [prefix]) for name in names):
            parts = [name.split(".") for name in names]
            known = dict.fromkeys(".".join(part[:depth]) for depth in (1, 2, 3) for part in parts if depth < len(part))
            tops = dict.fromkeys(part[0] for part in parts)
            raise ValueError(
                f"{field}: got {prefix!r}, expected beginnings of the names of parameters that train, in "
                f"{', '.join(tops)}{did_you_mean(prefix, known)}"
            )


def set_trainable_stage(model: nn.Module, mode: str, num_groups: int = 0, groups: Sequence[str] = ()) -> None:
    """Freeze all but what `trained_names` says."""
    trained = set(trained_names(model, mode, num_groups, groups))
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name in trained


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
