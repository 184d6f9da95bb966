"""Settings that belong together, by name: what is trained, and what is generated for it where no data are named."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dogs_accel.training.phases import PUBLISHED_LR

_Rates = Mapping[str, Mapping[str, float]]
"""Learning rates by mode, head_only or full_finetune, and by kind of network."""

UNLESS_SAID: Mapping[str, Any] = {
    "strategies": ("full", "staged"),
    "val_ratio": 0.15,
    "test_ratio": 0.2,
    "weights": "imagenet",
    "batch_size": 32,
}
"""What holds where neither the user nor the preset says it."""
DEMO_OF = "-demo"
"""How the name of the small sibling of a preset ends."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings that belong together; whatever else is said, on the command line or in a file, wins over them."""

    about: str
    """A line for --help."""
    settings: Mapping[str, Any]
    """Fields of `BenchmarkConfig` by name, of those that are None where nobody says them; of `set` each by itself."""
    lr: _Rates = dataclasses.field(default_factory=lambda: PUBLISHED_LR)
    pictures: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What is generated where no data are named, as `datasets.synthetic.write_synthetic` takes it."""


_ADAM = {"optimizer": "adam", "schedule": "constant", "weight_decay": 0.0}
"""Adam as torch has it by default, at one rate."""
_CIFAR_VIT = "vit:patch=4:dim=256:depth=6:heads=8"
_FROM_SCRATCH_AS_FULL = {"scratch.warmup_epochs": 0, "scratch.decay_norms": True}
"""What the strategy `scratch` has beside random weights, taken away."""
_EMBEDDED = {"num_classes": 12, "train_per_class": 40, "test_per_class": 20}
_PETS_PICTURES = {"layout": "oxford-iiit-pet", "num_classes": 9, "train_per_class": 40, "test_per_class": 20}
_CALTECH_PICTURES = {"layout": "caltech-256", "num_classes": 12, "train_per_class": 40, "test_per_class": 20}
_CIFAR_PICTURES = {
    "layout": "cifar-10", "num_classes": 10, "train_per_class": 100, "test_per_class": 30, "size_px": (32, 32),
}  # fmt: skip
_CATS_AND_DOGS_PICTURES = {"layout": "cats-and-dogs", "num_classes": 2, "train_per_class": 240, "test_per_class": 120}
_INATURALIST_PICTURES = {"layout": "inaturalist-12k", "num_classes": 10, "train_per_class": 50, "test_per_class": 20}

_SMALL_LR: _Rates = {"head_only": {"cnn": 3e-3, "vit": 3e-3}, "full_finetune": {"cnn": 1e-3, "vit": 5e-4}}
"""Of small networks with random weights, which want larger steps."""

PRESETS: dict[str, Preset] = {
    "paper": Preset(
        about="the published comparison: ResNet-50 and ViT-B/16, fully fine-tuned and head first",
        settings={"models": ("resnet50", "vit_b_16")},
        pictures=_EMBEDDED,
    ),
    "demo": Preset(
        about="the same on a CPU: small siblings of the two, from random weights",
        settings={
            "models": ("resnet18", "timm/vit_tiny_patch16_224"), "image_size": 64, "weights": "none", "batch_size": 16,
        },
        lr=_SMALL_LR,
        pictures=_EMBEDDED,
    ),
    "pets": Preset(
        about="five CNNs with frozen backbones on Oxford-IIIT Pet, with and without augmentation",
        settings={
            "models": ("vgg16", "resnet50", "mobilenet_v3_large", "efficientnet_b3", "timm/legacy_xception"),
            "strategies": ("head",),
            "recipes": ("pets-train", "imagenet-eval"),
            "set": {**_ADAM, "head.epochs": 40, "patience": 5, "min_delta": 0.001},
        },
        pictures=_PETS_PICTURES,
    ),
    "caltech256": Preset(
        about="ResNet-50 on Caltech-256 and its clutter, 257 classes, fully fine-tuned and head first",
        settings={"models": ("resnet50",), "recipes": ("imagenet-train",)},
        pictures=_CALTECH_PICTURES,
    ),
    "cifar10": Preset(
        about="ResNet-18 and a small ViT on CIFAR-10 at 32 px, from random weights, 50 epochs",
        settings={
            "models": ("resnet18_cifar", _CIFAR_VIT),
            "strategies": ("scratch",),
            "recipes": ("cifar-train",),
            "weights": "none",
            "image_size": 32,
            "batch_size": 128,
            "set": {**_FROM_SCRATCH_AS_FULL, "lr": 1e-3, "weight_decay": 0.05},
        },
        pictures=_CIFAR_PICTURES,
    ),
    "cats-dogs": Preset(
        about="a CNN and a ViT of one size, ResNet-50 and DeiT-S, on Kaggle's photos, pretrained and from scratch",
        settings={
            "models": ("resnet50", "timm/deit_small_patch16_224"),
            "strategies": ("full", "scratch"),
            "recipes": ("standard-train",),
            "set": {"full.weight_decay": 0.01},
        },
        pictures=_CATS_AND_DOGS_PICTURES,
    ),
    "inaturalist-cnn": Preset(
        about="a CNN of five blocks on iNaturalist-12K, from random weights, in the best setting of its sweep",
        settings={
            "models": ("cnn5:activation=mish:norm=batch:dropout=0.3",),
            "strategies": ("scratch",),
            "recipes": ("inaturalist-eval",),
            "weights": "none",
            "batch_size": 64,
            "val_ratio": 0.2,
            "set": {**_ADAM, **_FROM_SCRATCH_AS_FULL, "scratch.epochs": 10, "lr": 1e-3},
        },
        pictures=_INATURALIST_PICTURES,
    ),
    "inaturalist-finetune": Preset(
        about="ResNet-50 on iNaturalist-12K: its head alone, its last two groups of layers, all of it",
        settings={
            "models": ("resnet50",),
            "strategies": ("head", "partial", "full"),
            "recipes": ("inaturalist-eval",),
            "batch_size": 64,
            "val_ratio": 0.2,
            "set": {"optimizer": "adam", "schedule": "constant", "epochs": 5},
        },
        pictures=_INATURALIST_PICTURES,
    ),
}  # fmt: skip


def _demo(of: str, own: Mapping[str, Any]) -> Preset:
    """Make the small sibling of a preset: small networks at 64 px with random weights, since no others are at hand."""
    preset = PRESETS[of]
    small = {"weights": "none", "image_size": 64, "batch_size": 16}
    return Preset(
        about=f"{of} on two CPU cores in about two minutes, small networks from random weights",
        settings={**preset.settings, **small, **own, "set": preset.settings.get("set", {}) | own.get("set", {})},
        lr=_SMALL_LR,
        pictures=preset.pictures,
    )


_DEMOS: dict[str, dict[str, Any]] = {
    "pets": {"models": ("resnet18", "cnn5:norm=batch"), "strategies": ("full",), "set": {"epochs": 8}},
    "caltech256": {"models": ("resnet18",)},
    "cifar10": {
        "models": ("cnn5:norm=batch", "vit:patch=4:dim=96:depth=4:heads=4:dropout=0"), "image_size": 32,
        "batch_size": 32, "set": {"epochs": 20},
    },
    "cats-dogs": {
        "models": ("resnet18", "timm/vit_tiny_patch16_224"), "set": {"full.epochs": 6, "scratch.epochs": 8},
    },
    "inaturalist-cnn": {},
    "inaturalist-finetune": {"models": ("resnet18",)},
}  # fmt: skip
"""What the small sibling of a preset has of its own."""
PRESETS |= {f"{of}{DEMO_OF}": _demo(of, own) for of, own in _DEMOS.items()}


def usual_preset(data: str | None) -> str:
    """Name the preset that holds where none is said, by whether data are named."""
    return "paper" if data else "demo"
