"""The data of an experiment: --data, or the embedded default."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dogs_accel.datasets import Dataset, open_dataset
from dogs_accel.datasets.splits import SPLITS
from dogs_accel.datasets.synthetic import VERSION, write_synthetic
from dogs_accel.experiment.settings.config import BenchmarkConfig
from pipelines.store.user_cache import NoCacheError, cache_folder, is_writable

EMBEDDED: dict[str, Any] = {"num_classes": 12, "train_per_class": 40, "test_per_class": 20}
"""The embedded default: how many classes and pictures are generated where no --data is given."""


def embedded_root() -> Path:
    """Folder of the generated pictures, which later calls use again; another set of them has another folder."""
    return cache_folder() / "-".join(["synthetic", f"v{VERSION}", *map(str, EMBEDDED.values())])


def open_data(config: BenchmarkConfig) -> Dataset:
    """Open --data, or generate the embedded default."""
    if config.data is not None:
        # A run decodes every file before it trains, and a missing one is one bad file among others.
        return open_dataset(config.data, unpack=not config.dry_run, check_files=config.dry_run)
    root = embedded_root()
    if not root.exists() and not is_writable(root):
        raise NoCacheError(f"cache: nothing can be written to {root}, expected XDG_CACHE_HOME=DIR or --data DIR")
    return open_dataset(write_synthetic(root, **EMBEDDED))


def describe_sizes(splits: Mapping[str, NDArray[np.int64]]) -> str:
    """Say how many images each split has."""
    return " / ".join(f"{len(splits[name]):,} {name}" for name in SPLITS if name in splits)
