"""The reference loader: PIL, torchvision and torch's DataLoader, as the published experiment has them."""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torchvision.transforms.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode

from pipelines.augmentation import (
    RANDAUGMENT_OPERATIONS,
    SIGNED,
    AugmentParams,
    draw_params,
    randaugment_magnitudes,
)
from pipelines.decoding.pil import BadImageError, decode_rgb
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
_JITTERS = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
_OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, _: image,
    "shear_x": lambda image, tangent: _sheared(image, tangent, 0.0),
    "shear_y": lambda image, tangent: _sheared(image, 0.0, tangent),
    "translate_x": lambda image, px: F.affine(image, 0.0, [int(px), 0], 1.0, [0.0, 0.0]),
    "translate_y": lambda image, px: F.affine(image, 0.0, [0, int(px)], 1.0, [0.0, 0.0]),
    "rotate": lambda image, angle_deg: F.rotate(image, angle_deg, InterpolationMode.NEAREST),
    "brightness": lambda image, more: F.adjust_brightness(image, 1.0 + more),
    "saturation": lambda image, more: F.adjust_saturation(image, 1.0 + more),
    "contrast": lambda image, more: F.adjust_contrast(image, 1.0 + more),
    "sharpness": lambda image, more: F.adjust_sharpness(image, 1.0 + more),
    "posterize": lambda image, bits: F.posterize(image, int(bits)),
    "solarize": lambda image, threshold: F.solarize(image, threshold),
    "autocontrast": lambda image, _: F.autocontrast(image),
    "equalize": lambda image, _: F.equalize(image),
}
"""Of RandAugment, each given what `randaugment_magnitudes` says."""


def resize_image(image: Image.Image, recipe: Recipe) -> Image.Image:
    """Apply the recipe's resize step to a PIL image."""
    if recipe.resize is None:
        return image
    size = [recipe.resize] if isinstance(recipe.resize, int) else list(recipe.resize)
    return F.resize(image, size, InterpolationMode(recipe.interpolation))


def augment_image(image: Image.Image, recipe: Recipe, params: AugmentParams, row: int) -> torch.Tensor:
    """Turn a resized PIL image into (3, H, W) float32 with the parameters of one row."""
    image = crop_image(image, recipe, params.crop[row].tolist())
    if params.flip[row]:
        image = F.hflip(image)
    if recipe.randaugment is not None:
        image = _randaugmented(image, recipe, params, row)
    if not recipe.rotation_after_jitter:
        image = _rotated(image, recipe, params, row)
    if recipe.jitters:
        for which in params.order[row]:
            if which < 3 or recipe.hue:  # a hue that is not shifted is changed by the way there and back
                image = _JITTERS[which](image, float(params.factors[row, which]))
    if recipe.rotation_after_jitter:
        image = _rotated(image, recipe, params, row)
    if params.grayscale[row]:
        image = F.rgb_to_grayscale(image, num_output_channels=3)
    tensor = F.normalize(F.to_tensor(image), recipe.mean, recipe.std)
    top, left, height, width = params.erase[row].tolist()
    tensor[:, top : top + height, left : left + width] = 0
    return tensor


def crop_image(image: Image.Image, recipe: Recipe, box: list[int]) -> Image.Image:
    """Apply the recipe's crop to a resized PIL image: a box (top, left, height, width), which may lie beyond it."""
    top, left, height, width = box
    beyond = [max(0, -left), max(0, -top), max(0, left + width - image.width), max(0, top + height - image.height)]
    if any(beyond):
        image = F.pad(image, beyond, fill=recipe.fill)
        top, left = top + beyond[1], left + beyond[0]
    if recipe.random_area is None:
        return F.crop(image, top, left, height, width)
    size, mode = [recipe.crop, recipe.crop], InterpolationMode(recipe.interpolation)
    return F.resized_crop(image, top, left, height, width, size, mode)


def _randaugmented(image: Image.Image, recipe: Recipe, params: AugmentParams, row: int) -> Image.Image:
    assert recipe.randaugment is not None
    strengths = randaugment_magnitudes(recipe.randaugment[1], recipe.crop)
    for number, sign in zip(params.operations[row], params.signs[row], strict=True):
        name = RANDAUGMENT_OPERATIONS[number]
        image = _OPERATIONS[name](image, strengths[name] * (float(sign) if name in SIGNED else 1.0))
    return image


def _sheared(image: Image.Image, tangent_x: float, tangent_y: float) -> Image.Image:
    shear = [math.degrees(math.atan(tangent)) for tangent in (tangent_x, tangent_y)]
    return F.affine(image, 0.0, [0, 0], 1.0, shear, center=[0, 0])


def _rotated(image: Image.Image, recipe: Recipe, params: AugmentParams, row: int) -> Image.Image:
    if not recipe.rotation_deg:
        return image
    return F.rotate(image, float(params.angle_deg[row]), InterpolationMode.NEAREST, fill=0)


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
    if not resized:
        return torch.empty(0, 3, recipe.crop, recipe.crop, dtype=dtype)
    sizes = np.array([(image.height, image.width) for image in resized], dtype=np.int64)
    params = draw_params(recipe, sizes, seed, epoch, index)
    images = torch.stack([augment_image(image, recipe, params, row) for row, image in enumerate(resized)])
    return images.to(dtype).contiguous(memory_format=torch.channels_last)


_Arrays = tuple[NDArray[np.floating], NDArray[np.int64], NDArray[np.int64], dict[int, str]]
"""A batch on its way from a worker: images (B, H, W, 3), labels (B,), index (B,), and why others are missing."""


class _Samples(Dataset[Any]):
    """Stateless: a request carries its epoch, so workers that outlive an epoch draw the right parameters."""

    def __init__(
        self,
        files: list[str] | NDArray[np.uint8],
        labels: torch.Tensor,
        recipe: Recipe,
        seed: int,
        dtype: torch.dtype,
    ) -> None:
        self.files = files
        self.labels = labels
        self.recipe = recipe
        self.seed = seed
        self.dtype = dtype

    def _open(self, position: int) -> Image.Image:
        file = self.files[position]
        return Image.fromarray(file) if isinstance(file, np.ndarray) else decode_rgb(file)

    def batch(self, epoch: int, index: NDArray[np.int64]) -> tuple[Batch, dict[int, str]]:
        """Decode and augment the samples `index` (B,): the batch of the good ones, and why the others are bad."""
        resized, good, problems = [], [], {}
        for position in index.tolist():
            try:
                resized.append(resize_image(self._open(position), self.recipe))
                good.append(position)
            except BadImageError as error:
                problems[position] = str(error)
        found = np.array(good, dtype=np.int64)
        images = augment_images(resized, self.recipe, seed=self.seed, epoch=epoch, index=found, dtype=self.dtype)
        return Batch(images, self.labels[found], torch.from_numpy(found)), problems

    def __getitems__(self, request: list[tuple[int, NDArray[np.int64]]]) -> _Arrays | MemoryError:
        [(epoch, index)] = request
        try:
            batch, problems = self.batch(epoch, index)
        except MemoryError as error:
            # Returned, not raised: a worker's exception reaches the main process wrapped in its traceback.
            return error
        # Arrays go through a pipe. Tensors would go through /dev/shm, of which a container may have little, and a
        # descriptor each, of which a process may have few, passed by a socket whose name in TMPDIR may be too long.
        return batch.images.permute(0, 2, 3, 1).numpy(), batch.labels.numpy(), batch.index.numpy(), problems


def _from_arrays(arrays: _Arrays) -> tuple[Batch, dict[int, str]]:
    images, labels, index = map(torch.from_numpy, arrays[:3])
    return Batch(images.permute(0, 3, 1, 2), labels, index), arrays[3]


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
        files = self.paths if self.pixels is None else self.pixels
        self._samples = _Samples(files, self.labels, self.recipe, self.seed, self.dtype)
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
        for batch, problems in batches:
            for position, problem in problems.items():
                self._leave_out(position, problem)
            yield Batch(*map(self._to_device, batch))

    def _from_workers(self) -> Iterator[tuple[Batch, dict[int, str]]]:
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
            yield _from_arrays(batch)
            waits_since = time.monotonic()

    def _from_threads(self, epoch: int, chunks: list[NDArray[np.int64]]) -> Iterator[tuple[Batch, dict[int, str]]]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.num_threads)
        under_way: deque[Future[tuple[Batch, dict[int, str]]]] = deque()
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
