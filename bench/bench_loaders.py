"""Loaders on real files: the published one, ours, and decoding alone, in one interleaved run."""

import numpy as np
import nvidia.dali.fn as fn
import nvidia.dali.types as types
import pytest
import torch
from nvidia.dali import Pipeline
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from dogs_accel.timing import interleaved
from pipelines import EVAL, RESNET_TRAIN, VIT_TRAIN, make_loader
from pipelines.batch import available_cores

BATCH_SIZE = 32
RECIPES = {recipe.name: recipe for recipe in (EVAL, RESNET_TRAIN, VIT_TRAIN)}


class PublishedDataset(Dataset):
    """PIL and torchvision's transform classes, one image a call, as the published experiment has it."""

    def __init__(self, paths, recipe):
        self.paths = paths
        crop = transforms.CenterCrop(recipe.crop)
        if recipe.random_area is not None:
            crop = transforms.RandomResizedCrop(recipe.crop, recipe.random_area)
        self.transform = transforms.Compose(
            [
                transforms.Resize(recipe.resize),
                crop,
                *([transforms.RandomHorizontalFlip(recipe.flip)] if recipe.flip else []),
                *([transforms.RandomRotation(recipe.rotation_deg)] if recipe.rotation_deg else []),
                *(
                    [transforms.ColorJitter(recipe.brightness, recipe.contrast, recipe.saturation)]
                    if recipe.jitters
                    else []
                ),
                transforms.ToTensor(),
                transforms.Normalize(recipe.mean, recipe.std),
                *([transforms.RandomErasing(recipe.erasing)] if recipe.erasing else []),
            ]
        )  # fmt: skip

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return self.transform(Image.open(self.paths[index]).convert("RGB")), 0


def decode_only(paths):
    """DALI's decoder with nothing behind it: what no streaming loader can pass."""
    names = [np.frombuffer(str(path).encode(), dtype=np.uint8) for path in paths]
    work = iter(())
    pipeline = Pipeline(batch_size=BATCH_SIZE, num_threads=available_cores(), device_id=None)
    with pipeline:
        encoded = fn.io.file.read(fn.external_source(source=lambda: next(work), batch=True))
        pipeline.set_outputs(fn.decoders.image(encoded, output_type=types.RGB, adjust_orientation=False))

    def epoch():
        nonlocal work
        work = iter([names[at : at + BATCH_SIZE] for at in range(0, len(names), BATCH_SIZE)])
        try:
            while True:
                pipeline.run()
        except StopIteration:
            pipeline.reset()

    return epoch


def drain(loader):
    for batch in loader:
        assert len(batch[0])


def in_order(loader):
    """Epoch 0 of a loader as (N, 3, H, W) in the order of its files."""
    loader.set_epoch(0)
    batches = list(loader)
    return torch.cat([batch.images for batch in batches])[torch.cat([batch.index for batch in batches]).argsort()]


def parity(ours, theirs, recipe):
    """Mean and 99.9th percentile of the difference in levels of 0 to 255; a loader that fails gets no speed."""
    std = 255 * torch.tensor(recipe.std)[:, None, None]
    difference = ((in_order(ours) - in_order(theirs)) * std).abs().numpy()
    measured = {"mean": float(difference.mean()), "p999": float(np.quantile(difference, 0.999))}
    assert measured["mean"] < 1, measured
    assert measured["p999"] < 3.01, measured
    return measured


@pytest.mark.parametrize("name", RECIPES)
def test_loaders(bench, photos, name):
    recipe, labels = RECIPES[name], np.zeros(len(photos))
    workers = available_cores()
    published = DataLoader(
        PublishedDataset(photos, recipe), BATCH_SIZE, shuffle=True, num_workers=workers, persistent_workers=True
    )
    settings = {"batch_size": BATCH_SIZE, "device": "cpu", "shuffle": True, "num_threads": workers}
    ours = {backend: make_loader(photos, labels, recipe, backend=backend, **settings) for backend in ("torch", "dali")}
    candidates = {
        "published: PIL, torchvision, DataLoader": lambda: drain(published),
        "dogs_accel torch": lambda: drain(ours["torch"]),
        "dogs_accel dali": lambda: drain(ours["dali"]),
        "ceiling: DALI decodes, nothing else": decode_only(photos),
    }
    agreement = parity(ours["dali"], ours["torch"], recipe)
    timings = interleaved(candidates, bench.rounds)
    for loader in ours.values():
        loader.close()
    title = f"{name} recipe, {len(photos)} images, batch {BATCH_SIZE}, {workers} threads or workers, on the CPU"
    bench.report(
        f"loaders_{name}",
        title,
        timings,
        "published: PIL, torchvision, DataLoader",
        len(photos),
        "img",
        parity_of_dali=agreement,
    )
