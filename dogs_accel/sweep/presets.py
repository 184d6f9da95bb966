"""Sweeps that belong to published experiments, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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

SWEEP_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "inaturalist-cnn": {
        "settings": {"preset": "inaturalist-cnn", "models": ["cnn5"], "epochs": "5"},
        "space": _INATURALIST_SPACE,
        "sweep": {"name": "inaturalist-cnn", "trials": 50},
    },
    "inaturalist-cnn-demo": {
        "settings": {"preset": "inaturalist-cnn-demo", "models": ["cnn5"], "epochs": "3"},
        "space": _INATURALIST_SPACE,
        "sweep": {"name": "inaturalist-cnn-demo", "trials": 30},
    },
}
"""Each as the tables of a file of a sweep; the settings are those of a preset of the benchmark, but for the model."""
