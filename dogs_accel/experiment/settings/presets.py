"""Settings that belong together, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dogs_accel.training.phases import PUBLISHED_LR


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings that belong together; each can be overridden."""

    models: tuple[str, ...]
    image_size: int | None
    weights: str
    batch_size: int
    lr: Mapping[str, Mapping[str, float]]


PRESETS = {
    "paper": Preset(
        models=("resnet50", "vit_b_16"), image_size=None, weights="imagenet", batch_size=32, lr=PUBLISHED_LR
    ),
    # The same experiment for a CPU: small siblings of the two, from random weights, which want larger steps.
    "demo": Preset(
        models=("resnet18", "timm/vit_tiny_patch16_224"),
        image_size=64,
        weights="none",
        batch_size=16,
        lr={"head_only": {"cnn": 3e-3, "vit": 3e-3}, "full_finetune": {"cnn": 1e-3, "vit": 5e-4}},
    ),
}
