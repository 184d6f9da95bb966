"""The networks: torchvision's ResNets and ViTs and any timm model, with a new head for the classes at hand."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import nn

from dogs_accel.models.heads import head_names, with_new_head
from dogs_accel.models.specs import TORCHVISION, ModelSpec, timm_spec
from dogs_accel.models.weights import load_weights, num_rows, read_state


def create_resnet50(num_classes: int, weights: Any = None) -> nn.Module:
    """ResNet-50 with a new head: 23,753,912 parameters at 120 classes. weights: a torchvision weights entry."""
    return with_new_head(torchvision.models.resnet50(weights=weights), num_classes)


def create_vit_b16(num_classes: int, weights: Any = None, image_size: int = 224) -> nn.Module:
    """ViT-B/16 with a new head: 85,890,936 parameters at 120 classes and 224 px."""
    model = torchvision.models.vit_b_16(image_size=image_size)
    if weights is not None:
        state = weights.get_state_dict(progress=True, check_hash=True)
        model.load_state_dict(_fit_positions(state, image_size))
    return with_new_head(model, num_classes)


def _fit_positions(state: dict[str, torch.Tensor], image_size: int) -> dict[str, torch.Tensor]:
    """Resample torchvision's ViT position embedding to another input size."""
    from torchvision.models.vision_transformer import interpolate_embeddings

    return interpolate_embeddings(image_size, 16, state, interpolation_mode="bicubic")


@dataclass(frozen=True)
class BuiltModel:
    """A model and what became of the weights that were asked for."""

    model: nn.Module
    note: str
    """One line: where the weights come from and what was left out."""


def build_model(spec: ModelSpec, num_classes: int, weights: str = "imagenet", seed: int = 0) -> BuiltModel:
    """Build a model with a fresh head of num_classes outputs.

    weights: "imagenet" downloads the published weights, "none" starts at random (from the seed, as the head always
    does), anything else is a file of a state dict (.pth, .pt or .safetensors), whose head is left out where its
    size differs. Raises ValueError for a file that does not fit, OSError where a download fails.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = _create(spec, num_classes, pretrained=weights == "imagenet")
        except (URLError, OSError) as error:
            raise OSError(
                f"weights: cannot download the ImageNet weights of {spec.name} ({error}); "
                "give a file with --weights PATH, or start at random with --weights none"
            ) from error
    if weights == "imagenet":
        return BuiltModel(model, f"{spec.display}: ImageNet weights, new head for {num_classes} classes")
    if weights == "none":
        return BuiltModel(model, f"{spec.display}: random weights")
    return BuiltModel(model, f"{spec.display}: {load_weights(model, weights)}")


def build_pretrained(spec: ModelSpec, weights: str = "imagenet") -> BuiltModel:
    """Build a model with the head that its weights were trained with.

    weights: "imagenet" downloads the published weights, which are for the model's own input size; anything else is a
    file of a state dict, which says how many classes there are. Raises ValueError for "none" or a file that does not
    fit, OSError where a download fails.
    """
    if weights == "none":
        raise ValueError("weights: got none, expected imagenet or a file: random weights say nothing")
    if weights != "imagenet":
        return build_model(spec, _num_classes_of_file(spec, weights), weights)
    try:
        model = _create_pretrained(spec)
    except (URLError, OSError) as error:
        raise OSError(f"weights: cannot download the ImageNet weights of {spec.name} ({error})") from error
    return BuiltModel(model, f"{spec.display}: ImageNet weights")


def _create_pretrained(spec: ModelSpec) -> nn.Module:
    if spec.name.startswith("timm/"):
        import timm

        return timm.create_model(spec.name.removeprefix("timm/"), pretrained=True)
    return torchvision.models.get_model(spec.name, weights=TORCHVISION[spec.name][2])


def _num_classes_of_file(spec: ModelSpec, path: str) -> int:
    with torch.device("meta"):
        model = _create(spec, 1, pretrained=False)
    *_, head = head_names(model)
    state, _ = read_state(path, model.state_dict())
    if f"{head}.weight" not in state or not (num_classes := num_rows(state[f"{head}.weight"])):
        raise ValueError(f"weights: {path!r} holds no head {head!r} of {spec.name}")
    return num_classes


def _create(spec: ModelSpec, num_classes: int, pretrained: bool) -> nn.Module:
    try:
        if spec.name.startswith("timm/"):
            return _create_timm(spec, num_classes, pretrained)
        entry = torchvision.models.get_model_weights(spec.name)[TORCHVISION[spec.name][2]] if pretrained else None
        if spec.name == "resnet50":
            return create_resnet50(num_classes, entry)
        if spec.name == "vit_b_16":
            return create_vit_b16(num_classes, entry, spec.image_size)
        return with_new_head(torchvision.models.get_model(spec.name, weights=entry), num_classes)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ValueError(f"models: cannot build {spec.name} at {spec.image_size} px ({error})") from error


def _create_timm(spec: ModelSpec, num_classes: int, pretrained: bool) -> nn.Module:
    import timm

    # Models that keep a table of positions are built for one input size; the others take any.
    own_size = timm_spec(spec.name, None).image_size
    size: dict[str, Any] = {"img_size": spec.image_size} if spec.image_size != own_size else {}
    create = functools.partial(
        timm.create_model, spec.name.removeprefix("timm/"), pretrained=pretrained, num_classes=num_classes
    )
    try:
        model = create(**size)
    except TypeError:
        if not size:
            raise
        model = create()
    # Some of timm's heads start so large that a short head-only phase does not get over it (0.89 against 0.93 of
    # validation accuracy on 30 classes), so every model here starts with torch's own initialisation.
    for name in head_names(model):
        for module in model.get_submodule(name).modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return model
