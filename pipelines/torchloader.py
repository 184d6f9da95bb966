"""The reference loader: PIL, torchvision and torch's DataLoader, as the published experiment has them."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torchvision.transforms.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode

from pipelines.augmentation import AugmentParams, draw_params
from pipelines.decoding.pil import BadImageError, open_rgb
from pipelines.loader import Batch, Loader, WorkerError
from pipelines.recipe import Recipe

_TIMEOUT_S = 600
"""How long a worker may take for a batch: it is an error then, and no hang."""
_LOOK_EVERY_S = 5
"""How often DataLoader looks whether its workers live, where the system does not tell it, as with a forkserver."""
_NO_GUARD = (
    "torch loader: its workers run the script again, which starts its loop anew; put the loop below "
    "if __name__ == '__main__': or take another loader, which has no worker processes"
)
_log = logging.getLogger(__name__)
_JITTERS = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)


def resize_image(image: Image.Image, recipe: Recipe) -> Image.Image:
    """Apply the recipe's resize step to a PIL image."""
    if recipe.resize is None:
        return image
    size = [recipe.resize] if isinstance(recipe.resize, int) else list(recipe.resize)
    return F.resize(image, size, InterpolationMode(recipe.interpolation))


def augment_image(image: Image.Image, recipe: Recipe, params: AugmentParams, row: int) -> torch.Tensor:
    """Turn a resized PIL image into (3, H, W) float32 with the parameters of one row."""
    top, left, height, width = params.crop[row].tolist()
    if recipe.random_area is None:
        image = F.crop(image, top, left, height, width)
    else:
        mode = InterpolationMode(recipe.interpolation)
        image = F.resized_crop(image, top, left, height, width, [recipe.crop, recipe.crop], mode)
    if params.flip[row]:
        image = F.hflip(image)
    if recipe.rotation_deg:
        image = F.rotate(image, float(params.angle_deg[row]), InterpolationMode.NEAREST, fill=0)
    if recipe.jitters:
        for which in params.order[row]:
            image = _JITTERS[which](image, float(params.factors[row, which]))
    tensor = F.normalize(F.to_tensor(image), recipe.mean, recipe.std)
    top, left, height, width = params.erase[row].tolist()
    tensor[:, top : top + height, left : left + width] = 0
    return tensor


def augment_images(
    resized: Sequence[Image.Image],
    recipe: Recipe,
    *,
    seed: int,
    epoch: int,
    index: NDArray[np.int64],
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Make the batch (B, 3, H, W), channels-last, of B resized PIL images, which are the samples `index` (B,)."""
    sizes = np.array([(image.height, image.width) for image in resized], dtype=np.int64)
    params = draw_params(recipe, sizes, seed, epoch, index)
    images = torch.stack([augment_image(image, recipe, params, row) for row, image in enumerate(resized)])
    return images.to(dtype).contiguous(memory_format=torch.channels_last)


_Arrays = tuple[NDArray[np.floating], NDArray[np.int64], NDArray[np.int64]]
"""A batch on its way from a worker: images (B, H, W, 3), labels (B,), index (B,)."""


class _Samples(Dataset[Any]):
    """Stateless: a request carries its epoch, so workers that outlive an epoch draw the right parameters."""

    def __init__(self, paths: list[str], labels: torch.Tensor, recipe: Recipe, seed: int, dtype: torch.dtype) -> None:
        self.paths = paths
        self.labels = labels
        self.recipe = recipe
        self.seed = seed
        self.dtype = dtype

    def batch(self, epoch: int, index: NDArray[np.int64]) -> Batch:
        """Decode and augment the samples `index` (B,). Raises BadImageError."""
        resized = [resize_image(open_rgb(self.paths[i]), self.recipe) for i in index]
        images = augment_images(resized, self.recipe, seed=self.seed, epoch=epoch, index=index, dtype=self.dtype)
        return Batch(images, self.labels[index], torch.from_numpy(index))

    def __getitems__(self, request: list[tuple[int, NDArray[np.int64]]]) -> _Arrays | BadImageError | MemoryError:
        [(epoch, index)] = request
        try:
            images, labels, _ = self.batch(epoch, index)
        except (BadImageError, MemoryError) as error:
            # Returned, not raised: a worker's exception reaches the main process wrapped in its traceback.
            return error
        # Arrays go through a pipe. Tensors would go through /dev/shm, of which a container may have little, and a
        # descriptor each, of which a process may have few, passed by a socket whose name in TMPDIR may be too long.
        return images.permute(0, 2, 3, 1).numpy(), labels.numpy(), index


def _as_batch(arrays: _Arrays) -> Batch:
    images, labels, index = map(torch.from_numpy, arrays)
    return Batch(images.permute(0, 3, 1, 2), labels, index)


class _Requests:
    """The batch sampler: one (epoch, positions) request a batch, of whatever epoch is set before iterating."""

    def __init__(self) -> None:
        self.epoch = 0
        self.chunks: list[NDArray[np.int64]] = []

    def __iter__(self) -> Iterator[list[tuple[int, NDArray[np.int64]]]]:
        return iter([[(self.epoch, chunk)] for chunk in self.chunks])

    def __len__(self) -> int:
        return len(self.chunks)


def _as_is(batch: Any) -> Any:
    return batch


class TorchLoader(Loader):
    """Decodes and augments with PIL in `num_threads` worker processes.

    In as many threads of this process where a worker would have less than a batch, or nobody to be parallel to, and
    where the system does not let workers start, which is said once. The batches are the same.
    """

    backend = "torch"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._samples = _Samples(self.paths, self.labels, self.recipe, self.seed, self.dtype)
        self._requests = _Requests()
        self._workers: Any = None
        self._pool: ThreadPoolExecutor | None = None
        # A worker's death is told to the main thread alone, so another one might wait for it for long.
        in_main_thread = threading.current_thread() is threading.main_thread()
        with_workers = in_main_thread and self.num_threads > 1 and len(self) >= self.num_threads
        self._loader: DataLoader[Any] | None = self._data_loader() if with_workers else None

    def _data_loader(self) -> DataLoader[Any]:
        return DataLoader(
            self._samples,
            batch_sampler=self._requests,
            num_workers=self.num_threads,
            collate_fn=_as_is,
            persistent_workers=True,
            timeout=_LOOK_EVERY_S,
            # Else it would draw from torch's own generator, and dropout would depend on which loader it is.
            generator=torch.Generator(),
        )

    def _batches(self, epoch: int, chunks: list[NDArray[np.int64]]) -> Iterator[Batch]:
        self._stay_in_process()
        if self._loader is not None:
            self._requests.epoch, self._requests.chunks = epoch, chunks
            try:
                with torch.device("cpu"):  # whatever device torch is told to make tensors on
                    self._workers = iter(self._loader)
            except (OSError, RuntimeError) as error:
                if "bootstrapping" in str(error):
                    # This is a worker that runs the script again, as it is started by spawn or forkserver.
                    print(_NO_GUARD, file=sys.stderr, flush=True)
                    sys.exit(1)
                self._loader = self._workers = None
                _log.warning(
                    "torch loader: %d worker processes cannot start (%s), so as many threads of this process decode",
                    self.num_threads, _first_line(error),
                )  # fmt: skip
        batches = self._from_threads(epoch, chunks) if self._loader is None else self._from_workers()
        for batch in batches:
            yield Batch(*map(self._to_device, batch))

    def _from_workers(self) -> Iterator[Batch]:
        waits_since = time.monotonic()
        while True:
            try:
                batch = next(self._workers)
            except StopIteration:
                return
            except RuntimeError as error:
                if "timed out" in str(error):  # all workers live, and the batch is still to come
                    if time.monotonic() < waits_since + _TIMEOUT_S:
                        continue
                    raise WorkerError(f"torch loader: a worker gave nothing for {_TIMEOUT_S} s") from None
                if (text := describe_lost_worker(error)) is None:
                    raise
                raise WorkerError(text) from None  # three tracebacks of DataLoader's insides say no more
            if isinstance(batch, Exception):
                raise batch
            yield _as_batch(batch)
            waits_since = time.monotonic()

    def _from_threads(self, epoch: int, chunks: list[NDArray[np.int64]]) -> Iterator[Batch]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.num_threads)
        under_way: deque[Future[Batch]] = deque()
        try:
            for chunk in chunks:
                under_way.append(self._pool.submit(self._samples.batch, epoch, chunk))
                if len(under_way) > self.num_threads:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()

    def __getstate__(self) -> dict[str, Any]:
        # A copy decodes in threads: it may be in a worker process, which can have none itself.
        return super().__getstate__() | {"_loader": None, "_workers": None, "_pool": None}

    def close(self) -> None:
        """End the worker processes, or the threads."""
        super().close()
        # DataLoader ends its workers when its last reference goes, which an abandoned iterator would keep.
        if self._workers is not None:
            self._workers._shutdown_workers()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._loader = self._workers = None


def describe_lost_worker(error: BaseException) -> str | None:
    """Say that a worker process of a loader is gone; None where an error is another one.

    torch raises it in the main thread wherever that happens to be, so that a step of training may raise it too.
    """
    if not isinstance(error, RuntimeError) or not str(error).startswith("DataLoader "):
        return None
    return (
        f"torch loader: {_first_line(error)}; a system that runs out of memory ends processes like that: fewer threads "
        "(--num-threads) need less memory, and the other loaders (--loader) have no worker processes"
    )


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
