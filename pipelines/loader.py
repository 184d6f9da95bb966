"""One call that makes a loader."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.batch import Loader, available_cores
from pipelines.recipe import Recipe

BACKENDS = ("auto", "torch", "dali")

_log = logging.getLogger(__name__)


def _has_dali() -> bool:
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:  # not even a package named nvidia
        return False


def _resolve_device(device: torch.device | str | None) -> torch.device:
    """Name the device with its index: the current CUDA device where only "cuda" or nothing is said."""
    target = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    if target.type == "cuda" and target.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return target


def choose_backend(recipe: Recipe, device: torch.device) -> tuple[str, str]:
    """Pick the backend for a recipe and a device: (name, the reason in a few words)."""
    if not _has_dali():
        return "torch", "DALI is not installed"
    if isinstance(recipe.resize, int) or recipe.resize is None:
        return "torch", "DALI has only the squash resize"
    if device.type == "cuda":
        return "dali", "it decodes and augments on the GPU"
    if recipe.jitters:
        return "torch", "without a GPU, DALI takes longer over colour jitter than PIL does"
    return "dali", "as fast as PIL here, without worker processes"


@functools.cache
def _say_once(recipe: str, backend: str, reason: str) -> None:
    _log.info("loader for %s: %s (%s)", recipe, backend, reason)


def make_loader(
    paths: Sequence[str | Path],
    labels: Sequence[int] | NDArray[np.int64] | torch.Tensor,
    recipe: Recipe,
    *,
    backend: str = "auto",
    batch_size: int = 32,
    device: torch.device | str | None = None,
    seed: int = 0,
    shuffle: bool = False,
    num_threads: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Loader:
    """Make a loader that yields `Batch(images, labels, index)`.

    paths: N image files; labels: (N,) integers. device None is the GPU where there is one, else the CPU.
    num_threads (worker processes for "torch") None is one for each available core. Raises ValueError for a
    setting that cannot be, and BadImageError while iterating for a file that cannot be decoded.
    """
    if backend not in BACKENDS:
        near = difflib.get_close_matches(backend, BACKENDS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"backend: got {backend!r}, expected one of {', '.join(BACKENDS)}{hint}")
    target = _resolve_device(device)
    if backend == "auto":
        backend, reason = choose_backend(recipe, target)
        _say_once(recipe.name, backend, reason)
    if backend == "dali":
        from pipelines.dali import DaliLoader as Chosen
    else:
        from pipelines.torchloader import TorchLoader as Chosen  # type: ignore[assignment]
    return Chosen(
        paths,
        labels,
        recipe,
        batch_size=batch_size,
        device=target,
        seed=seed,
        shuffle=shuffle,
        num_threads=available_cores() if num_threads is None else num_threads,
        rank=rank,
        world_size=world_size,
        dtype=dtype,
    )
