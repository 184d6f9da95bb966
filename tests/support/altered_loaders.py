"""Loaders that are deliberately wrong, and a comparison that fits them."""

import torch
from torchvision.transforms import functional as F

from dogs_accel.parity.gates import Gate, Limit
from dogs_accel.parity.measure import check_parity
from pipelines import EVAL, Batch, Loader
from pipelines.torchloader import TorchLoader

SMALL = EVAL.at(64)

RESAMPLED = Gate("another resampling", (Limit("p999", "<=", 3),))


class Altered(TorchLoader):
    """The reference, but for what `alter` does to a batch."""

    backend = "altered"

    def __init__(self, *arguments, alter, **settings):
        super().__init__(*arguments, **settings)
        self.alter = alter

    def _batches(self, epoch, chunks):
        return map(self.alter, super()._batches(epoch, chunks))


class Reading(Loader):
    """Centre crops of what `read` makes of a file, a PIL image of 73 x 73 px, which is what the recipe SMALL has."""

    backend = "reading"

    def __init__(self, *arguments, read, **settings):
        super().__init__(*arguments, **settings)
        self.read = read

    def _batches(self, epoch, chunks):
        recipe = self.recipe
        for index in chunks:
            tensors = [F.to_tensor(F.center_crop(self.read(self.paths[i]), recipe.crop)) for i in index]
            images = torch.stack([F.normalize(tensor, recipe.mean, recipe.std) for tensor in tensors])
            yield Batch(images, self.labels[index], torch.from_numpy(index))


def made_by(loader, **more):
    """What `make` may be: gives a loader of this class, whatever backend is asked for."""

    def make(paths, labels, recipe, *, backend, device, **settings):
        settings = {"seed": 0, "rank": 0, "world_size": 1, "dtype": torch.float32} | settings
        return loader(paths, labels, recipe, device=torch.device(device), **settings, **more)

    return make


def check(paths, recipe=SMALL, **settings):
    return check_parity(
        paths, recipe, **{"backend": "torch", "device": "cpu", "batch_size": 5, "num_threads": 1} | settings
    )


def altered(paths, alter, recipe=SMALL, **settings):
    return check(paths, recipe, make=made_by(Altered, alter=alter), **settings)


def add_levels(batch, flat_index, levels):
    """Add levels to values of each image, by their place in (3, H, W)."""
    images = batch.images.contiguous().flatten(1)
    std = torch.tensor(SMALL.std).repeat_interleave(images.shape[1] // 3)
    images[:, flat_index] += levels / 255 / std[flat_index]
    return batch._replace(images=images.reshape(batch.images.shape))
