"""What a loader yields, in which order, and what it promises."""

from __future__ import annotations

import abc
import logging
import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.clock import StepClock
from pipelines.decoding.pil import BadImageError
from pipelines.philox import words
from pipelines.recipe import Recipe

_SHUFFLE_STREAM = 0
ON_BAD_IMAGE = ("error", "skip")
Images = Iterable[str | Path] | NDArray[np.uint8]
"""Files, or the images themselves, (N, H, W, 3)."""
_PATH_KINDS = "OSU"
"""Of an array's dtype: objects, bytes and text."""

_MAX_SEED, _MAX_EPOCH = 2**64 - 1, 2**32 - 1
"""What the random numbers have room for; beyond it other seeds and epochs would be the same ones."""

_log = logging.getLogger(__name__)


class WorkerError(OSError):
    """A worker process of a loader has ended, or gives nothing; the message is one line."""


class Batch(NamedTuple):
    """One step's input: what every loader yields.

    Example:
        >>> from pipelines import EVAL, make_loader
        >>> with make_loader(paths, labels, EVAL, batch_size=4, device="cpu") as loader:
        ...     batch = next(iter(loader))
        >>> batch.images.shape, batch.labels.dtype, batch.index.tolist()
        (torch.Size([4, 3, 224, 224]), torch.int64, [0, 1, 2, 3])
    """

    images: torch.Tensor
    """(B, 3, H, W), normalised, channels-last, on the target device."""
    labels: torch.Tensor
    """(B,) int64 on the target device."""
    index: torch.Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody wants of a batch
    """(B,) int64 on the target device: positions in the dataset."""


def are_pixels(images: Images) -> TypeGuard[NDArray[np.uint8]]:
    """Say whether images are given as an array of their pixels; an array of paths is one of files."""
    return isinstance(images, np.ndarray) and images.dtype.kind not in _PATH_KINDS


def epoch_order(
    num_samples: int, *, seed: int, epoch: int, shuffle: bool, rank: int = 0, world_size: int = 1
) -> NDArray[np.int64]:
    """Positions in the order in which one rank sees them in one epoch, (n,) int64.

    The ranks' orders together hold each sample exactly once. The permutation depends on (seed, epoch) alone.
    """
    order = np.arange(num_samples, dtype=np.int64)
    if shuffle:
        high, low = words(seed, epoch, order, 2, _SHUFFLE_STREAM).T
        order = np.argsort((high << np.uint64(32)) | low, kind="stable")
    return order[rank::world_size]


def file_paths(paths: Iterable[str | bytes | os.PathLike[str]]) -> list[str]:
    """Read the paths of files, of which there may be any iterable but one path alone. Raises ValueError."""
    if isinstance(paths, str | bytes | os.PathLike):
        raise ValueError(f"paths: got {paths!r}, expected a list of files")
    listed = list(paths)
    try:
        return [os.fsdecode(path) for path in listed]
    except TypeError:
        odd = next(path for path in listed if not isinstance(path, str | bytes | os.PathLike))
        raise ValueError(f"paths: got {odd!r} among them, expected paths of files") from None


def _as_labels(labels: Any, num: int) -> torch.Tensor:
    """Read labels as (num,) int64 on the CPU. Raises ValueError for what is no integer, as a float may be."""
    if isinstance(labels, torch.Tensor):
        labels = labels.detach().cpu().numpy()
    elif isinstance(labels, Iterator):
        labels = list(labels)
    given = np.asarray(labels)
    if given.shape != (num,):
        raise ValueError(f"labels: got shape {given.shape}, expected ({num},), one an image")
    if given.dtype.kind not in "iubf":
        odd = [each for each in given if not isinstance(each, Integral) or abs(int(each)) >> 63]
        if odd:
            raise ValueError(f"labels: got {odd[0]!r} among them, expected integers")
    with np.errstate(invalid="ignore"):
        whole = given.astype(np.int64)
    # NaN, and what int64 has no room for, comes out as something else; so does 2**64 - 1, which -1 equals.
    if (wrong := np.flatnonzero((whole != given) | ((whole < 0) != (given < 0)))).size:
        raise ValueError(f"labels: got {given[wrong[0]]} at {wrong[0]}, expected integers")
    return torch.from_numpy(whole)


def _integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Read an integer of any library as Python's. Raises ValueError."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or (most is not None and number > most):
        expected = f"an integer >= {least}" if most is None or number < least else f"an integer up to {most}"
        raise ValueError(f"{name}: got {value!r}, expected {expected}")
    return number


class Loader(abc.ABC):
    """From files to batches, one epoch an iteration.

    Every sample of this rank comes once an epoch; the last batch is as small as it must be. Iterating again is
    the next epoch, with another order and other augmentations; `set_epoch` says which one comes next. With
    on_bad_image "skip", what cannot be decoded is missing from its batch, and a batch of nothing else is left out.
    """

    backend: str
    is_exact: bool = True
    """Whether it shows the images' own pixels; False of a store that was told to keep less of them."""
    clock: StepClock | None = None
    """Told what waiting and what copying to the device is, where somebody times that."""

    def __init__(
        self,
        paths: Images,
        labels: Sequence[int] | NDArray[np.int64] | torch.Tensor,
        recipe: Recipe,
        *,
        batch_size: int,
        device: torch.device,
        seed: int,
        shuffle: bool,
        num_threads: int,
        rank: int,
        world_size: int,
        dtype: torch.dtype,
        on_bad_image: str = "error",
    ) -> None:
        # Row by row in memory, as of a picture whose channels somebody has turned round.
        self.pixels = np.ascontiguousarray(paths) if are_pixels(paths) else None
        """The images, (N, H, W, 3) uint8, where they were given as such; there are no paths then."""
        self.paths = [] if are_pixels(paths) else file_paths(paths)
        self.labels = _as_labels(labels, self.dataset_size)
        self.recipe = recipe
        self.batch_size = _integer("batch_size", batch_size, 1)
        self.device = device
        self.seed = _integer("seed", seed, 0, _MAX_SEED)
        if shuffle not in (True, False):
            raise ValueError(f"shuffle: got {shuffle!r}, expected True or False")
        self.shuffle = bool(shuffle)
        self.num_threads = _integer("num_threads", num_threads, 1)
        self.world_size = _integer("world_size", world_size, 1)
        self.rank = _integer("rank", rank, 0)
        self.dtype = dtype
        self.on_bad_image = on_bad_image
        self._left_out: set[int] = set()
        """Positions of bad images that have been named."""
        self._next_epoch = 0
        self._iteration = 0
        self._is_closed = False
        self._user: int | None = None
        self._check()

    def _check(self) -> None:
        if self.rank >= self.world_size:
            raise ValueError(f"rank: got {self.rank}, expected 0 <= rank < world_size = {self.world_size}")
        if self.pixels is not None and (self.pixels.ndim != 4 or self.pixels.shape[3] != 3):
            raise ValueError(f"paths: got an array of shape {self.pixels.shape}, expected (N, H, W, 3)")
        if self.pixels is not None and self.pixels.dtype != np.uint8:
            raise ValueError(f"paths: got an array of {self.pixels.dtype}, expected uint8")
        if self.on_bad_image not in ON_BAD_IMAGE:
            raise ValueError(f"on_bad_image: got {self.on_bad_image!r}, expected one of {', '.join(ON_BAD_IMAGE)}")
        if self.dtype not in (torch.float32, torch.float16):
            raise ValueError(f"dtype: got {self.dtype}, expected torch.float32 or torch.float16")

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration.

        Args:
            epoch: an integer from 0 to 2**32 - 1; without a call the first iteration is epoch 0, the next
                one epoch 1, and so on.

        Example:
            >>> from pipelines import VIT_TRAIN, make_loader
            >>> with make_loader(paths, labels, VIT_TRAIN, device="cpu", shuffle=True) as loader:
            ...     loader.set_epoch(3)
            ...     first = next(iter(loader)).index
            ...     loader.set_epoch(3)
            ...     again = next(iter(loader)).index
            >>> bool((first == again).all())
            True
        """
        self._next_epoch = _integer("epoch", epoch, 0, _MAX_EPOCH)

    @property
    def num_samples(self) -> int:
        """Samples of this rank in an epoch."""
        return len(range(self.rank, self.dataset_size, self.world_size))

    @property
    def dataset_size(self) -> int:
        """Samples of all ranks in an epoch."""
        return len(self.paths) if self.pixels is None else len(self.pixels)

    def __len__(self) -> int:
        """Batches of this rank in an epoch, the same in every epoch.

        Ranks may differ by one where the samples do not divide evenly.
        """
        return -(-self.num_samples // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        epoch = self._next_epoch
        self._next_epoch = epoch + 1
        order = epoch_order(
            self.dataset_size,
            seed=self.seed,
            epoch=epoch,
            shuffle=self.shuffle,
            rank=self.rank,
            world_size=self.world_size,
        )
        chunks = [order[at : at + self.batch_size] for at in range(0, len(order), self.batch_size)]
        self._iteration += 1
        return self._while_current(self._iteration, epoch, self._batches(epoch, chunks))

    def _stay_in_process(self) -> None:
        """Raise ValueError where another process has begun to use it, whose threads and workers a fork lacks."""
        if self._user not in (None, os.getpid()):
            raise ValueError(
                "loader: another process has begun to use it, expected one that is made in this process, such as in "
                "the dataset's __iter__ or in worker_init_fn"
            )
        self._user = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        """Let a copy, or a process that gets it pickled, begin its own use."""
        return self.__dict__ | {"_user": None}

    def _while_current(self, iteration: int, epoch: int, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Pass batches on until the loader is closed or iterated again, which ends the use of this iterator."""
        num_empty = 0
        while True:
            if self._is_closed:
                raise ValueError("loader: closed, expected an open one")
            if iteration != self._iteration:
                raise ValueError("loader: iterated again since, expected one iterator at a time")
            try:
                batch = next(batches)
            except StopIteration:
                break
            if len(batch.index):
                yield batch
            else:
                num_empty += 1
        if num_empty:
            _log.warning(
                "epoch %d has %d of %d batches: no image of the others can be decoded",
                epoch, len(self) - num_empty, len(self),
            )  # fmt: skip

    @abc.abstractmethod
    def _batches(self, epoch: int, chunks: list[NDArray[np.int64]]) -> Iterator[Batch]:
        """Yield a batch for each chunk of positions, without the bad images, if it goes on without them."""

    def _leave_out(self, position: int, problem: str) -> None:
        """Raise BadImageError for a bad image, or name it, once, where the loader goes on without it."""
        if self.on_bad_image == "error":
            raise BadImageError(f"{self.paths[position]}: {problem}")
        if position not in self._left_out:
            self._left_out.add(position)
            _log.warning("left out: %s: %s", self.paths[position], problem)

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy a tensor to the device, without waiting for the copy."""
        if self.device.type != "cuda":
            return tensor
        if self.clock is not None:
            self.clock.mark("data_wait")
        moved = tensor.pin_memory().to(self.device, non_blocking=True)
        if self.clock is not None:
            self.clock.mark("transfer")
        return moved

    def pairs(self) -> Pairs:
        """Return the same loader with batches of (images, labels), as the loops of timm and many others want them."""
        return Pairs(self)

    def close(self) -> None:
        """Let go of threads, processes and memory; the loader cannot be iterated afterwards.

        Example:
            >>> from pipelines import EVAL, make_loader
            >>> loader = make_loader(paths, labels, EVAL, device="cpu")
            >>> loader.close()
            >>> next(iter(loader))
            Traceback (most recent call last):
                ...
            ValueError: loader: closed, expected an open one
        """
        self._is_closed = True

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()


class Pairs:
    """A loader whose batches are (images, labels)."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.loader.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return ((batch.images, batch.labels) for batch in self.loader)
