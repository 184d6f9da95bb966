"""The reference loader: PIL, torchvision and torch's DataLoader, as the published experiment has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from pipelines.loader import Batch, Loader
from pipelines.recipe import Recipe

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


class _Samples(Dataset[Any]):
    """Stateless: a request carries its epoch, so workers that outlive an epoch draw the right parameters."""

    def __init__(self, paths: list[str], labels: torch.Tensor, recipe: Recipe, seed: int, dtype: torch.dtype) -> None:
        self.paths = paths
        self.labels = labels
        self.recipe = recipe
        self.seed = seed
        self.dtype = dtype

    def __getitems__(self, request: list[tuple[int, NDArray[np.int64]]]) -> Batch | BadImageError:
        [(epoch, index)] = request
        try:
            resized = [resize_image(open_rgb(self.paths[i]), self.recipe) for i in index]
        except BadImageError as error:
            # Returned, not raised: a worker's exception reaches the main process wrapped in its traceback.
            return error
        images = augment_images(resized, self.recipe, seed=self.seed, epoch=epoch, index=index, dtype=self.dtype)
        return Batch(images, self.labels[index], torch.from_numpy(index))


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
    """Decodes and augments with PIL in `num_threads` worker processes."""

    backend = "torch"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._requests = _Requests()
        self._workers: Any = None
        self._loader: DataLoader[Any] | None = DataLoader(
            _Samples(self.paths, self.labels, self.recipe, self.seed, self.dtype),
            batch_sampler=self._requests,
            num_workers=self.num_threads,
            collate_fn=_as_is,
            pin_memory=self.device.type == "cuda",
            persistent_workers=True,
            # Else it would draw from torch's own generator, and dropout would depend on which loader it is.
            generator=torch.Generator(),
        )

    def _batches(self, epoch: int, chunks: list[NDArray[np.int64]]) -> Iterator[Batch]:
        assert self._loader is not None
        self._requests.epoch, self._requests.chunks = epoch, chunks
        self._workers = iter(self._loader)
        for batch in self._workers:
            if isinstance(batch, BadImageError):
                raise batch
            yield Batch(*map(self._to_device, batch))

    def close(self) -> None:
        """End the worker processes."""
        super().close()
        # DataLoader ends its workers when its last reference goes, which an abandoned iterator would keep.
        if self._workers is not None:
            self._workers._shutdown_workers()
        self._loader = self._workers = None
