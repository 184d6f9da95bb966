"""Sweeps that belong to published experiments, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dogs_accel.datasets.synthetic import VERSION, write_synthetic
from pipelines.store.user_cache import cache_folder

_DEMO_PICTURES: dict[str, Any] = {
    "num_classes": 10, "train_per_class": 60, "test_per_class": 20, "size_px": (64, 96)
}  # fmt: skip

_INATURALIST_SPACE: Mapping[str, Any] = {
    "model.activation": ["relu", "gelu", "silu", "mish", "leaky_relu"],
    "model.growth": ["same", "double", "half"],
    "model.filters": [32, 64],
    "model.dense": [128, 256],
    "model.norm": ["batch", "none"],
    "model.dropout": [0.2, 0.3],
    "recipe.name": ["inaturalist-train", "inaturalist-eval"],
    "batch_size": [32, 64],
}
"""The 960 points of the assignment on iNaturalist; recipe.name is its augmentation, on and off."""
_INATURALIST_SETTINGS: Mapping[str, Any] = {
    "preset": "paper",
    "models": ["cnn5"],
    "weights": "none",
    "strategies": ["full"],
    "image_size": 224,
    "epochs": "5",
    "val_ratio": 0.2,
    "set": {"optimizer": "adam", "lr": 1e-3, "schedule": "constant", "weight_decay": 0.0},
}

SWEEP_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "inaturalist-cnn": {
        "settings": _INATURALIST_SETTINGS,
        "space": _INATURALIST_SPACE,
        "sweep": {"name": "inaturalist-cnn", "trials": 50},
    },
    "inaturalist-cnn-demo": {
        "settings": {**_INATURALIST_SETTINGS, "image_size": 64, "epochs": "3"},
        "space": _INATURALIST_SPACE,
        "sweep": {"name": "inaturalist-cnn-demo", "trials": 30},
    },
}
"""Each as the tables of a file of a sweep."""
DEMO = "inaturalist-cnn-demo"


def demo_data() -> Path:
    """Give the folder of the generated pictures of the demo, which are made where they are not there."""
    name = "-".join(["sweep", f"v{VERSION}", *map(str, list(_DEMO_PICTURES.values())[:3])])
    return write_synthetic(cache_folder() / name, **_DEMO_PICTURES)
