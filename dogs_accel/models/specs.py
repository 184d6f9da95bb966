"""What is known of a model before it is built: names, families, input sizes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models import WeightsEnum

from dogs_accel.models.names import NETWORKS, ModelName, parse_model_name
from dogs_accel.runtime.arguments import did_you_mean
from pipelines.recipe import IMAGENET_MEAN, IMAGENET_STD

_PUBLISHED = {
    # name: (display name, slug, weights as in the published runs)
    "resnet18": ("ResNet-18", "resnet18", "IMAGENET1K_V1"),
    "resnet50": ("ResNet-50", "resnet50", "IMAGENET1K_V2"),
    "vit_b_16": ("ViT-B/16", "vit_b16", "IMAGENET1K_V1"),
}
_WITH_ATTENTION = ("vit", "swin", "maxvit")
"""How the names of torchvision's models that have attention begin, and the one of this project."""
_OWN_SIZE_PX = {"resnet18_cifar": 32}
_DEFAULT_SIZE_PX = 224
_CIFAR_MEAN, _CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


@functools.cache
def torchvision_names() -> frozenset[str]:
    """Names of torchvision's classifiers."""
    return frozenset(torchvision.models.list_models(module=torchvision.models))


def torchvision_weights(base: str) -> WeightsEnum:
    """Return the ImageNet weights of a torchvision model: torchvision's best, or those of the published runs."""
    entries = torchvision.models.get_model_weights(base)
    return entries[_PUBLISHED[base][2]] if base in _PUBLISHED else entries.DEFAULT


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What is known of a model before it is built."""

    name: str
    """As typed, with its fields in one order: resnet50, timm/<name>, cnn5:filters=64:norm=batch."""
    display: str
    slug: str
    """For file and folder names."""
    kind: str
    """What it is built of, by which its training settings are chosen: vit where it has attention, else cnn."""
    family: str
    """Label under which its runs are gathered: its kind, where no other is given."""
    image_size: int
    """Side of the input in px."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    has_own_normalisation: bool = True
    """Whether published weights want mean and std; else another one does as well."""


def model_spec(name: str, image_size: int | None = None) -> ModelSpec:
    """Look a model up by name, NAME[:FIELD=VALUE]...; image_size None is the model's own.

    Size, mean and standard deviation are those that its published weights were trained with. Raises ValueError for a
    name that neither torchvision nor timm nor this project has, and for fields as `parse_model_name` says.
    """
    return _named_spec(parse_model_name(name), image_size)


def with_family(spec: ModelSpec, families: Mapping[str, str]) -> ModelSpec:
    """Give a model the label that `families` has for its name, if any."""
    labels = {str(parse_model_name(name)): label for name, label in families.items()}
    return dataclasses.replace(spec, family=labels.get(spec.name, spec.family))


def _named_spec(name: ModelName, image_size: int | None) -> ModelSpec:
    if name.base in torchvision_names():
        return _torchvision_spec(name, image_size)
    if name.base.startswith("timm/"):
        return _timm_spec(name, image_size)
    if name.base in NETWORKS:
        is_cifar = name.base in _OWN_SIZE_PX
        return _spec(
            name,
            display=name.base,
            slug=name.base,
            kind=_kind_by_name(name.base),
            image_size=image_size or _OWN_SIZE_PX.get(name.base, _DEFAULT_SIZE_PX),
            mean=_CIFAR_MEAN if is_cifar else IMAGENET_MEAN,
            std=_CIFAR_STD if is_cifar else IMAGENET_STD,
            has_own_normalisation=False,
        )
    raise ValueError(
        f"models: got {name.base!r}, expected a classifier of torchvision, timm/<name>, "
        f"{', '.join(NETWORKS)}{_hint(name.base)}"
    )


def _spec(name: ModelName, *, display: str, slug: str, kind: str, **known: Any) -> ModelSpec:
    return ModelSpec(
        name=str(name), display=name.with_fields(display), slug=name.slug(slug), kind=kind, family=kind, **known
    )


def _kind_by_name(base: str) -> str:
    return "vit" if base.startswith(_WITH_ATTENTION) else "cnn"


def _torchvision_spec(name: ModelName, image_size: int | None) -> ModelSpec:
    display, slug, _ = _PUBLISHED.get(name.base, (name.base, name.base, ""))
    transforms = torchvision_weights(name.base).transforms()
    return _spec(
        name,
        display=display,
        slug=slug,
        kind=_kind_by_name(name.base),
        image_size=image_size or transforms.crop_size[0],
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def _hint(base: str) -> str:
    """Ask whether timm's model of that name was meant, or the nearest one."""
    import timm

    if timm.is_model(base):
        return f" (did you mean 'timm/{base}'?)"
    return did_you_mean(base, [*sorted(torchvision_names()), *NETWORKS])


@dataclass(frozen=True)
class TimmFacts:
    """What timm says of a model."""

    kind: str
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def _timm_spec(name: ModelName, image_size: int | None) -> ModelSpec:
    timm_name = name.base.removeprefix("timm/")
    facts = timm_facts(timm_name)
    slug = timm_name.replace(".", "_")
    is_torchvisions_too = slug in torchvision_names()
    return _spec(
        name,
        display=name.base if is_torchvisions_too and slug not in _PUBLISHED else timm_name,
        slug=f"timm_{slug}" if is_torchvisions_too else slug,
        kind=facts.kind,
        image_size=image_size or facts.image_size,
        mean=facts.mean,
        std=facts.std,
    )


@functools.cache
def timm_facts(timm_name: str) -> TimmFacts:
    """Ask timm for a model, without timm/; raises ValueError for a name that timm has not."""
    import timm

    if not timm.is_model(timm_name.split(".")[0]):
        raise ValueError(f"models: timm has no {timm_name!r}{did_you_mean(timm_name, timm.list_models(), 'timm/')}")
    try:
        with torch.device("meta"):
            model = timm.create_model(timm_name)
    except RuntimeError as error:  # the part behind the dot names weights that do not exist
        raise ValueError(f"models: timm has no {timm_name!r} ({error})") from error
    data = timm.data.resolve_model_data_config(model)
    kind = "vit" if has_attention(model) else "cnn"
    return TimmFacts(kind, data["input_size"][-1], tuple(data["mean"]), tuple(data["std"]))


def has_attention(model: nn.Module) -> bool:
    """Whether a model mixes positions by self-attention, which is what makes a transformer here."""
    return any(
        hasattr(module, "qkv") or type(module).__name__.endswith(("Attention", "AttentionV2"))
        for module in model.modules()
    )
