"""The data of an experiment: --data, or the generated pictures of its preset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dogs_accel.datasets import Dataset, open_dataset
from dogs_accel.datasets.splits import SPLITS
from dogs_accel.datasets.synthetic import VERSION, write_synthetic
from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.experiment.settings.presets import PRESETS
from pipelines.store.user_cache import NoCacheError, cache_folder, is_writable


def embedded_root(preset: str) -> Path:
    """Folder of the generated pictures of a preset, which later calls use again; other ones have another folder."""
    numbers = [
        "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for value in PRESETS[preset].pictures.values()
    ]
    return cache_folder() / "-".join(["synthetic", f"v{VERSION}", *numbers])


def open_data(config: BenchmarkConfig) -> Dataset:
    """Open --data, or generate what the preset has pictures of."""
    if config.data is not None:
        # A run decodes every file before it trains, and a missing one is one bad file among others.
        return open_dataset(config.data, unpack=not config.dry_run, check_files=config.dry_run)
    root = embedded_root(config.preset_name)
    if not root.exists() and not is_writable(root):
        raise NoCacheError(f"cache: nothing can be written to {root}, expected XDG_CACHE_HOME=DIR or --data DIR")
    return open_dataset(write_synthetic(root, **PRESETS[config.preset_name].pictures), unpack=True)


def describe_sizes(splits: Mapping[str, NDArray[np.int64]]) -> str:
    """Say how many images each split has."""
    return " / ".join(f"{len(splits[name]):,} {name}" for name in SPLITS if name in splits)
