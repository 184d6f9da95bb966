"""Layer groups, from the head down to the stem: what unfreezes together and learns at one rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torchvision
from torch import nn

from dogs_accel.models.freezing import set_trainable_stage
from dogs_accel.models.heads import head_names


def layer_groups(model: nn.Module) -> list[list[str]]:
    """Names of a model's parameters by layer group, from the head down to the stem, each name once.

    The head is what head_names says. Below it come the four stages of a torchvision ResNet, the blocks of a
    torchvision ViT, or timm's own coarse groups; what lies between them and the head, such as a last norm, belongs to
    the uppermost, what lies before them is the stem. In any other model all but the head is one group.
    """
    names = [name for name, _ in model.named_parameters()]
    head = tuple(f"{name}." for name in head_names(model))
    groups = {0: [name for name in names if name.startswith(head)]}
    depth_of = _body_depth(model)
    for name in names:
        if not name.startswith(head):
            groups.setdefault(1 + depth_of(name), []).append(name)
    return [group for _, group in sorted(groups.items()) if group]


def _body_depth(model: nn.Module) -> Callable[[str], int]:
    """How deep below the head a parameter of the body lies: 0 for the stage next to the head."""
    if isinstance(model, torchvision.models.ResNet):
        return _depth_by_prefix([("layer4.", "fc."), ("layer3.",), ("layer2.",), ("layer1.",)])
    if isinstance(model, torchvision.models.VisionTransformer):
        *below, last = [f"encoder.layers.{name}." for name, _ in model.encoder.layers.named_children()]
        return _depth_by_prefix([(last, "encoder.ln.", "heads."), *((block,) for block in reversed(below))])
    if hasattr(model, "group_matcher"):
        return _timm_depth(model)
    return lambda name: 0


def _depth_by_prefix(stages: list[tuple[str, ...]]) -> Callable[[str], int]:
    def depth(name: str) -> int:
        return next((depth for depth, prefixes in enumerate(stages) if name.startswith(prefixes)), len(stages))

    return depth


def _timm_depth(model: Any) -> Callable[[str], int]:
    from timm.models import group_parameters

    try:
        matcher = model.group_matcher(coarse=True)
    except AssertionError:  # RDNet has no stages, only blocks
        matcher = model.group_matcher(coarse=False)
    layer_of: dict[str, int] = group_parameters(model, matcher, reverse=True)
    # timm puts a norm or a neck before the head into the head's own layer, the last. It trains with the stage below
    # it: alone it would be a group of a few hundred numbers.
    top = max(layer_of.values()) - 1
    return lambda name: max(0, top - layer_of[name])


def set_trainable_groups(model: nn.Module, num_groups: int) -> None:
    """Freeze all but the first num_groups layer groups, counted from the head; 1 is the stage head_only.

    Raises ValueError where the model does not have that many.
    """
    groups = layer_groups(model)
    if not 1 <= num_groups <= len(groups):
        raise ValueError(f"num_groups: got {num_groups}, expected an integer from 1 to {len(groups)}")
    set_trainable_stage(model, "head_only")
    for group in groups[1:num_groups]:
        for name in group:
            model.get_parameter(name).requires_grad = True
