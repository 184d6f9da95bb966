"""What is measured against each other: loaders as functions of a workload."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from pipelines import Recipe, make_loader
from pipelines.cores import available_cores
from pipelines.store.index import made_for

STORE_BACKENDS = ("cached", "auto")
"""Backends that take a `store_dir`."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What every candidate loads, and with what."""

    paths: tuple[str, ...]
    recipe: Recipe
    batch_size: int = 32
    num_threads: int = field(default_factory=available_cores)
    """Threads, or worker processes."""
    device: str = "cpu"

    @property
    def on_gpu(self) -> bool:
        """Whether the batches end on a CUDA device."""
        return torch.device(self.device).type == "cuda"

    def finish(self) -> None:
        """Wait for the work that a GPU still has."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)


class AnyLoader(Protocol):
    """Iterable once an epoch; the first item of a batch is its images, (B, ...)."""

    def __iter__(self) -> Any:
        """Begin an epoch."""

    def close(self) -> None:
        """Let go of threads and processes."""


@dataclass(frozen=True)
class Candidate:
    """A loader to be measured."""

    name: str
    make: Callable[[Workload], AnyLoader]
    """Can be pickled, so that a process of its own can call it."""
    is_ceiling: bool = False
    """Does a part of the work only: what no loader that does it all can pass."""
    is_ours: bool = False


def project_candidates(backends: Sequence[str], store_dir: str | Path) -> list[Candidate]:
    """Return this project's loaders by the names of their backends; each workload's store is a folder in store_dir."""
    return [
        Candidate(name, functools.partial(_project_loader, backend=name, store_dir=str(store_dir)), is_ours=True)
        for name in backends
    ]


def _project_loader(workload: Workload, backend: str, store_dir: str) -> AnyLoader:
    return make_loader(
        workload.paths,
        np.zeros(len(workload.paths), dtype=np.int64),
        workload.recipe,
        backend=backend,
        batch_size=workload.batch_size,
        device=workload.device,
        shuffle=True,
        num_threads=workload.num_threads,
        store_dir=store_folder(workload, store_dir) if backend in STORE_BACKENDS else None,
    )


def store_folder(workload: Workload, store_dir: str | Path) -> Path:
    """Name the folder in store_dir of a workload's store: a store holds one set of files at one size."""
    made_of = (workload.paths, *made_for(workload.recipe))
    return Path(store_dir) / hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]


def load_epoch(loader: Iterable[Any], workload: Workload) -> None:
    """Take every batch of an epoch, to the end of the device's work.

    Raises RuntimeError for a loader that does not give each image once: a part of the work has no speed.
    """
    num_images = sum(len(batch[0]) for batch in loader)
    workload.finish()
    if num_images != len(workload.paths):
        raise RuntimeError(f"{type(loader).__name__}: gave {num_images} images, expected {len(workload.paths)}")
