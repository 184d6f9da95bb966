"""Layer groups, from the head down to the stem: what unfreezes together and learns at one rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torchvision
from torch import nn

from dogs_accel.models.heads import head_names


def layer_groups(model: nn.Module) -> list[list[str]]:
    """Names of a model's parameters by layer group, from the head down to the stem, each name once.

    The head is what head_names says. Below it come the blocks of a torchvision ViT, timm's own coarse groups, or in any
    other model the layers of its body, last to first: the children of the model that do not hold the head, or those of
    the only such child, and in place of the only chain among them (nn.ModuleList, else nn.Sequential) the links of the
    chain. So the groups of a ResNet are its four stages and the stem, those of a VGG its convolutions, those of an
    EfficientNet, a ConvNeXt or a Swin the parts of `features`. What has no parameter of two dimensions, such as a norm,
    belongs to the layer before it; what lies between the layers and the head, such as a hidden dense layer, to the
    uppermost; and parameters of the model itself to the stem.
    """
    names = [name for name, _ in model.named_parameters()]
    heads = head_names(model)
    groups = {0: [name for name in names if is_under(name, heads)]}
    depth_of = _body_depth(model, heads)
    for name in names:
        if not is_under(name, heads):
            groups.setdefault(1 + depth_of(name), []).append(name)
    return [group for _, group in sorted(groups.items()) if group]


def is_under(name: str, prefixes: Sequence[str]) -> bool:
    """Whether a parameter is one of those named, or lies in a module that is.

    Example:
        >>> is_under("layer4.0.conv1.weight", ["layer4", "fc"]), is_under("layer40.weight", ["layer4"])
        (True, False)
    """
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _body_depth(model: nn.Module, heads: Sequence[str]) -> Callable[[str], int]:
    """How deep below the head a parameter of the body lies: 0 for the layer next to the head."""
    if isinstance(model, torchvision.models.VisionTransformer):
        blocks = [f"encoder.layers.{name}" for name, _ in model.encoder.layers.named_children()]
        return _depth_in([[block] for block in blocks], above=["encoder.ln", "heads"])
    if hasattr(model, "group_matcher"):
        return _timm_depth(model)
    layers = _layers(model, heads)
    above = [name for name, _ in model.named_children() if any(is_under(head, [name]) for head in heads)]
    # The first layer is the stem, where the model's own parameters belong too.
    return _depth_in(layers[1:], above=above) if layers else lambda name: 0


def _depth_in(layers: Sequence[Sequence[str]], above: Sequence[str]) -> Callable[[str], int]:
    """Depth by layers, given first to last by the names of their modules; what is above them counts to the last."""
    stages = [list(layer) for layer in reversed(layers)]

    def depth(name: str) -> int:
        if is_under(name, above):
            return 0
        return next((depth for depth, stage in enumerate(stages) if is_under(name, stage)), len(stages))

    return depth


def _layers(model: nn.Module, heads: Sequence[str]) -> list[list[str]]:
    """Layers of the body, first to last, each as the names of its modules."""
    children = [(name, child) for name, child in model.named_children() if any(True for _ in child.parameters())]
    found = [(name, child) for name, child in children if not any(is_under(head, [name]) for head in heads)]
    is_chain = False
    while not is_chain and (opened := _to_open(found)) is not None:
        (name, child), at = opened, found.index(opened)
        is_chain = _num_links(child) > 1 and isinstance(child, (nn.ModuleList, nn.Sequential))
        found[at : at + 1] = [(f"{name}.{each}", link) for each, link in child.named_children()]
    layers: list[list[str]] = []
    for name, child in found:
        if _has_weights(child) or not layers:
            layers.append([name])
        else:
            layers[-1].append(name)  # a norm, or what has no parameters
    return layers


def _to_open(found: Sequence[tuple[str, nn.Module]]) -> tuple[str, nn.Module] | None:
    """The module in whose place its children are layers: the only one that has weights, or the only chain."""
    weighty = [pair for pair in found if _has_weights(pair[1])]
    if len(weighty) == 1:
        return weighty[0] if list(weighty[0][1].children()) else None
    for kind in (nn.ModuleList, nn.Sequential):
        if chains := [pair for pair in weighty if isinstance(pair[1], kind) and _num_links(pair[1]) > 1]:
            return chains[0] if len(chains) == 1 else None
    return None


def _has_weights(module: nn.Module) -> bool:
    """Whether it has a parameter of two dimensions, which norms and biases have not."""
    return any(parameter.ndim > 1 for parameter in module.parameters())


def _num_links(chain: nn.Module) -> int:
    return sum(_has_weights(child) for child in chain.children())


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
