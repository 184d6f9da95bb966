"""Thousands of epochs of each loader: every sample once in each, and nothing held that was not held at half time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines import RESNET_TRAIN, STANDARD_TRAIN, make_loader
from pipelines.loader import Loader
from pipelines.recipe import Recipe
from tests.support.picture_files import encoded, picture
from tests.support.soaking import held, repetitions, soak

pytestmark = pytest.mark.soak

NUM_PHOTOS, BATCH_SIZE, RANKS = 27, 4, 2
SQUASHED, AS_THEY_ARE = RESNET_TRAIN.at(32), STANDARD_TRAIN.at(32)
"""The second crops from the photos themselves, each of another size."""


@dataclass(frozen=True)
class Case:
    """A loader and how many epochs of it."""

    backend: str
    num_epochs: int
    recipe: Recipe = SQUASHED
    num_threads: int = 2
    """Of torch's loader two are worker processes and one is none."""
    takes_array: bool = False


LOADERS = {
    "torch": Case("torch", 2000),
    "torch in one thread": Case("torch", 2000, num_threads=1),
    "dali": Case("dali", 3000),
    "dali, photos as they are": Case("dali", 3000, AS_THEY_ARE),
    "cached": Case("cached", 10_000),
    "cached, rows of different sizes": Case("cached", 10_000, AS_THEY_ARE),
    "cached, an array": Case("cached", 10_000, takes_array=True),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Tiny ones, each of another size, in the formats that DALI decodes and that only PIL does."""
    folder = tmp_path_factory.mktemp("photos")
    paths = []
    for number in range(NUM_PHOTOS):
        kind = "PNG" if number % 9 == 0 else "JPEG"
        paths.append(folder / f"{number}.{kind.lower()}")
        paths[-1].write_bytes(encoded(picture(40 + number, 60 - number, seed=number), kind))
    return paths


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def opened(name: str, photos: list[Path], store: Path, rank: int) -> Loader:
    case = LOADERS[name]
    images = np.asarray(picture(60, NUM_PHOTOS * 40)).reshape(NUM_PHOTOS, 40, 60, 3) if case.takes_array else photos
    return make_loader(
        images, np.arange(NUM_PHOTOS) * 10, case.recipe, backend=case.backend, batch_size=BATCH_SIZE, device="cpu",
        seed=5, shuffle=True, num_threads=case.num_threads, rank=rank, world_size=RANKS,
        store_dir=store if case.backend == "cached" and not case.takes_array else None,
    )  # fmt: skip


def indices_of_an_epoch(loader: Loader, epoch: int) -> Iterator[torch.Tensor]:
    loader.set_epoch(epoch)
    for images, labels, index in loader:
        assert images.shape == (len(index), 3, 32, 32)
        assert bool(images.isfinite().all())
        assert torch.equal(labels, index * 10)
        yield index


def check_an_epoch(loaders: list[Loader], epoch: int) -> None:
    """Every sample of all ranks exactly once, after a beginning that nobody went on with in every third epoch."""
    seen = np.zeros(NUM_PHOTOS, dtype=int)
    for loader in loaders:
        if epoch % 3 == 0:
            loader.set_epoch(epoch + 1)
            next(iter(loader))
        for index in indices_of_an_epoch(loader, epoch):
            np.add.at(seen, index.numpy(), 1)
    assert seen.tolist() == [1] * NUM_PHOTOS


@pytest.mark.parametrize("name", LOADERS)
def test_epochs(name: str, photos: list[Path], store: Path) -> None:
    with ExitStack() as stack:
        loaders = [stack.enter_context(opened(name, photos, store, rank)) for rank in range(RANKS)]
        soak(
            f"{name}, epochs of {RANKS} ranks",
            repetitions(LOADERS[name].num_epochs),
            lambda epoch: check_an_epoch(loaders, epoch),
            bytes_each=1000,
        )


@pytest.mark.parametrize("name", LOADERS)
def test_opening_and_closing(name: str, photos: list[Path], store: Path) -> None:
    """With an epoch in between, or the beginning of one."""

    def once(epoch: int) -> None:
        with ExitStack() as stack:
            loaders = [stack.enter_context(opened(name, photos, store, rank)) for rank in range(RANKS)]
            check_an_epoch(loaders, epoch)
            if epoch % 2:
                for loader in loaders:
                    next(iter(loader))

    once(0)
    before = held()
    soak(f"{name}, opened and closed", repetitions(300), once, bytes_each=5000)
    assert held().counted == before.counted
