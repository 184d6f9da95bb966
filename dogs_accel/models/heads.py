"""The classifier of a model, and a new one for the classes at hand."""

from __future__ import annotations

from torch import nn


def head_names(model: nn.Module) -> list[str]:
    """Dotted names of the classifier's layers.

    fc in ResNets, heads.head in torchvision's ViTs, and what timm calls the classifier of its models; that of a
    distilled model has two layers.
    """
    get_classifier = getattr(model, "get_classifier", None)
    if not callable(get_classifier):
        return ["fc" if hasattr(model, "fc") else "heads.head"]
    classifier = get_classifier()
    layers = classifier if isinstance(classifier, tuple) else (classifier,)
    return [name for name, module in model.named_modules() if any(module is layer for layer in layers)]


def with_new_head(model: nn.Module, num_classes: int) -> nn.Module:
    """Replace the linear head of a torchvision model."""
    [name] = head_names(model)
    parent, _, leaf = name.rpartition(".")
    owner = model.get_submodule(parent)
    setattr(owner, leaf, nn.Linear(getattr(owner, leaf).in_features, num_classes))
    return model
