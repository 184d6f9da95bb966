"""What is known of a model before it is built: names, families, input sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from dogs_accel.runtime.arguments import did_you_mean
from pipelines.recipe import IMAGENET_MEAN, IMAGENET_STD

TORCHVISION = {
    # name: (display name, kind, weights as in the published runs)
    "resnet18": ("ResNet-18", "cnn", "IMAGENET1K_V1"),
    "resnet50": ("ResNet-50", "cnn", "IMAGENET1K_V2"),
    "vit_b_16": ("ViT-B/16", "vit", "IMAGENET1K_V1"),
}
_SLUGS = {"vit_b_16": "vit_b16"}


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What is known of a model before it is built."""

    name: str
    """As typed: resnet50, vit_b_16, timm/<name>."""
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


def model_spec(name: str, image_size: int | None = None) -> ModelSpec:
    """Look a model up by name; image_size None is the model's own.

    Mean and standard deviation are those that its published weights were trained with. Raises ValueError for a
    name that neither torchvision's table here nor timm has.
    """
    if name in TORCHVISION:
        display, kind, _ = TORCHVISION[name]
        return ModelSpec(
            name=name,
            display=display,
            slug=_SLUGS.get(name, name),
            kind=kind,
            family=kind,
            image_size=image_size or 224,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
        )
    if name.startswith("timm/"):
        return timm_spec(name, image_size)
    hint = did_you_mean(name, TORCHVISION)
    raise ValueError(f"models: got {name!r}, expected one of {', '.join(TORCHVISION)}, or timm/<name>{hint}")


def with_family(spec: ModelSpec, families: Mapping[str, str]) -> ModelSpec:
    """Give a model the label that `families` has for its name, if any."""
    return dataclasses.replace(spec, family=families.get(spec.name, spec.family))


def timm_spec(name: str, image_size: int | None) -> ModelSpec:
    """Look up a timm model, timm/<name>; image_size None is its own. Raises ValueError for a name that timm has not."""
    import timm

    timm_name = name.removeprefix("timm/")
    if not timm.is_model(timm_name.split(".")[0]):
        raise ValueError(f"models: timm has no {timm_name!r}{did_you_mean(timm_name, timm.list_models(), 'timm/')}")
    try:
        with torch.device("meta"):
            model = timm.create_model(timm_name)
    except RuntimeError as error:  # the part behind the dot names weights that do not exist
        raise ValueError(f"models: timm has no {timm_name!r} ({error})") from error
    data = timm.data.resolve_model_data_config(model)
    kind = "vit" if _has_attention(model) else "cnn"
    slug = timm_name.replace(".", "_")
    return ModelSpec(
        name=name,
        display=timm_name,
        slug=f"timm_{slug}" if slug in TORCHVISION else slug,
        kind=kind,
        family=kind,
        image_size=image_size or data["input_size"][-1],
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )


def _has_attention(model: nn.Module) -> bool:
    """Whether a timm model mixes positions by self-attention, which is what makes a transformer here."""
    return any(hasattr(module, "qkv") or type(module).__name__.endswith("Attention") for module in model.modules())
