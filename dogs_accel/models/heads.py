"""The classifier of a model, and a new one for the classes at hand."""

from __future__ import annotations

from torch import nn

from dogs_accel.models.names import HeadOptions


class Head(nn.Sequential):
    """Layers that stand where a model had its last one."""


def head_names(model: nn.Module) -> list[str]:
    """Dotted names of the classifier's layers: what trains where the backbone is frozen.

    Of a timm model what timm calls its classifier; that of a distilled one has two layers. Of any other model what
    stands where its last layer was, so fc in ResNets, heads.head in torchvision's ViTs, classifier.6 in its VGGs, whose
    two pretrained dense layers before it are of the backbone.
    """
    get_classifier = getattr(model, "get_classifier", None)
    if not callable(get_classifier):
        return [_last_layer(model)]
    classifier = get_classifier()
    layers = classifier if isinstance(classifier, tuple) else (classifier,)
    return [name for name, module in model.named_modules() if any(module is layer for layer in layers)]


def _last_layer(model: nn.Module) -> str:
    """Name the layer that gives the logits: a `Head`, fc, or the last one with weights that are a matrix."""
    modules = dict(model.named_modules())
    heads = [name for name, module in modules.items() if isinstance(module, Head)]
    if heads:
        return heads[-1]
    if "fc" in modules:
        return "fc"
    for kind in (nn.Linear, nn.Conv2d):  # SqueezeNets end in a convolution
        if names := [name for name, module in modules.items() if isinstance(module, kind)]:
            return names[-1]
    raise ValueError(f"model: {type(model).__name__} has no layer that could be its head")


def with_new_head(model: nn.Module, num_classes: int, options: HeadOptions | None = None) -> nn.Module:
    """Replace the last layer of a model, of each of its classifiers where it has two, by one for num_classes classes.

    options: what to put there, by default one linear layer.
    """
    for name in head_names(model):
        _replace(model, _inner_layer(model, name), num_classes, options or HeadOptions())
    return model


def _inner_layer(model: nn.Module, name: str) -> str:
    """Name the layer that gives the logits within a classifier, which may have a norm of its own before it."""
    inner = [
        each for each, module in model.get_submodule(name).named_modules() if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    if not inner:
        raise ValueError(f"model: {name} of {type(model).__name__} holds no layer that could be replaced")
    return f"{name}.{inner[-1]}" if inner[-1] else name


def _replace(model: nn.Module, name: str, num_classes: int, options: HeadOptions) -> None:
    parent, _, leaf = name.rpartition(".")
    owner = model.get_submodule(parent)
    setattr(owner, leaf, _new_layers(getattr(owner, leaf), num_classes, options))


def _new_layers(old: nn.Linear | nn.Conv2d, num_classes: int, options: HeadOptions) -> nn.Module:
    """Make the layers of a head with as many inputs as an old one; where that is a 1 x 1 convolution, so are they."""
    layers: list[nn.Module] = []
    num_inputs = old.in_features if isinstance(old, nn.Linear) else old.in_channels
    for width in options.widths:
        layers += [_layer_like(old, num_inputs, width), nn.ReLU(), nn.Dropout(options.dropout)]
        num_inputs = width
    if options.dropout and not options.widths:
        layers.append(nn.Dropout(options.dropout))
    # Some have no bias, such as MaxViT's.
    layers.append(_layer_like(old, num_inputs, num_classes, bias=bool(options.widths) or old.bias is not None))
    return Head(*layers) if len(layers) > 1 else layers[0]


def _layer_like(old: nn.Linear | nn.Conv2d, num_inputs: int, num_outputs: int, bias: bool = True) -> nn.Module:
    if isinstance(old, nn.Linear):
        return nn.Linear(num_inputs, num_outputs, bias)
    return nn.Conv2d(num_inputs, num_outputs, 1, bias=bias)
