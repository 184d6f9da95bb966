"""One call that makes a loader."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines import BACKENDS
from pipelines.cores import available_cores, memory_limit
from pipelines.loader import Images, Loader, are_pixels, file_paths
from pipelines.recipe import Recipe

if TYPE_CHECKING:
    from pipelines.store.reading import OpenStore

_MEMORY_SHARE = 0.5
"""Of the memory, what a store may take so that it stays there between epochs."""

_log = logging.getLogger(__name__)


def has_dali() -> bool:
    """Whether DALI is installed."""
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


def choose_backend(
    paths: Images,
    recipe: Recipe,
    device: torch.device,
    store_dir: str | Path | None = None,
    store_max_side: int | None = None,
) -> tuple[str, str]:
    """Pick the backend for images, a recipe and a device: (name, the reason in a few words)."""
    if are_pixels(paths):
        return "cached", "the images are decoded already, in an array"
    if not has_dali():
        return "torch", "DALI is not installed"
    files = file_paths(paths)
    if not files:
        return "dali", "there are no files"
    from pipelines.store.build import bytes_text, default_store_folder, plan_store, rough_bytes
    from pipelines.store.index import StoreError

    kept_bytes = _MEMORY_SHARE * _memory_bytes()
    decoder = "decodes on the GPU" if device.type == "cuda" else "decodes on all cores"
    try:
        folder = store_dir or default_store_folder(files, recipe, max_side=store_max_side)
        roughly = rough_bytes(files, recipe, folder, max_side=store_max_side)
        if roughly is not None and roughly > 2 * kept_bytes:
            return "dali", f"it {decoder}; more than half of the memory would go to a store of {bytes_text(roughly)}"
        plan = plan_store(files, recipe, folder, max_side=store_max_side)
    except StoreError as error:
        if store_dir is not None:  # somebody means that one
            raise
        return "dali", f"it {decoder}; {error}"
    if plan.is_complete:
        return "cached", f"the files are decoded already, in {plan.folder}"
    if not plan.fits:
        return "dali", f"it {decoder}; too little room for a {plan}"
    if plan.total_bytes > kept_bytes:
        return "dali", f"it {decoder}; more than half of the memory would go to a {plan}"
    return "cached", f"every file is decoded once; {plan}"


def _memory_bytes() -> int:
    """Count the memory of the machine, or less where this process may have less: what it reads counts there too."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(machine, memory_limit() or machine)


@functools.cache
def _say_once(recipe: str, backend: str, reason: str) -> None:
    _log.info("loader for %s: %s (%s)", recipe, backend, reason)


def make_loader(
    paths: Images,
    labels: Iterable[int] | NDArray[np.int64] | torch.Tensor,
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
    store_dir: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    store: OpenStore | None = None,
    on_bad_image: str = "error",
    store_max_side: int | None = None,
) -> Loader:
    """Make a loader that yields `Batch(images, labels, index)`.

    Every sample comes once an epoch, and the last batch is as small as it must be. Order and augmentation depend on
    (seed, epoch, sample) alone.

    Args:
        paths: N image files, in any iterable, or N images, (N, H, W, 3) uint8 RGB.
        labels: (N,) integers, one an image.
        recipe: what happens to an image between the file and the model.
        backend: "torch", "dali", "cached", or "auto", which picks one of them and logs which, and why.
        batch_size: images a batch, of this rank.
        device: where the batches are; None is the GPU where there is one, else the CPU.
        seed: of the order and of the augmentation, from 0 to 2**64 - 1.
        shuffle: whether each epoch has an order of its own; else it is that of the paths.
        num_threads: threads, for "torch" worker processes; None is one for each available core.
        rank: which share of the samples this process gets, from 0 to world_size - 1.
        world_size: how many processes share the samples.
        store_dir: folder of the store that "cached" and "auto" read, and build where there is none; None is a folder
            in the user's cache that follows from the paths and the recipe.
        store: a store that is open already, which "cached" and "auto" read then, without another look at its files.
        dtype: of the images, torch.float32 or torch.float16.
        on_bad_image: "error", or "skip", which names each file that cannot be decoded once, in the log, and leaves it
            out of its batch.
        store_max_side: at most so many px on the longer side of what the store that is built or read has of an image,
            which is not exact: the loader says so, and its `is_exact` is False. Only for files, and for a recipe whose
            resize is None.

    Returns:
        The loader; `with` closes it.

    Raises:
        ValueError: a setting cannot be; the message names it, what it got and what it expects.
        BadImageError: a file cannot be decoded, and on_bad_image is "error"; at once where there is a store, else
            while iterating.

    Example:
        >>> from pipelines import EVAL, make_loader
        >>> with make_loader(paths, labels, EVAL, batch_size=32, device="cpu") as loader:
        ...     shapes = [tuple(images.shape) for images, labels, index in loader]
        >>> shapes
        [(32, 3, 224, 224), (28, 3, 224, 224)]
    """
    if backend not in BACKENDS:
        near = difflib.get_close_matches(backend, BACKENDS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"backend: got {backend!r}, expected one of {', '.join(BACKENDS)}{hint}")
    target = _resolve_device(device)
    images = paths if are_pixels(paths) else file_paths(paths)
    if backend == "auto" and store is not None:
        backend = "cached"
    if backend == "auto":
        backend, reason = choose_backend(images, recipe, target, store_dir, store_max_side)
        _say_once(recipe.name, backend, reason)
    elif backend != "cached":
        of_store = {"store_dir": store_dir, "store_max_side": store_max_side, "store": store and store.folder}
        for name, value in of_store.items():
            if value is not None:
                raise ValueError(f"{name}: got {value} for the {backend} loader, expected none: it has no store")
    if store_max_side is not None and (are_pixels(images) or store is not None):
        beside = "an open store" if store is not None else "an array"
        raise ValueError(f"store_max_side: got {store_max_side} beside {beside}, expected none: no store is made")
    more: dict[str, Any] = {}
    if backend == "cached":
        from pipelines.cached import CachedLoader as Chosen

        more |= {"store_dir": store_dir, "store_max_side": store_max_side, "store": store}
    elif backend == "dali":
        from pipelines.dali import DaliLoader as Chosen  # type: ignore[assignment]
    else:
        from pipelines.torchloader import TorchLoader as Chosen  # type: ignore[assignment]
    return Chosen(
        images,
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
        on_bad_image=on_bad_image,
        **more,
    )
