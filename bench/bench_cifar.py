"""An epoch of CIFAR-10's ResNet-18 on images in memory: the document's DataLoader against `cached`, and the step alone.

The document's loader is torchvision's CIFAR10 dataset, which makes a PIL image of each array, with its transforms in a
DataLoader of two workers that start anew each epoch. A model computes for so long that few batches are trained; each
loader is measured alone too, on more images.
"""

import dataclasses
import functools
import statistics
import time

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from dogs_accel.models.specs import model_spec
from dogs_accel.runtime.timing import interleaved
from dogs_accel.throughput.bottleneck import training_step
from pipelines import CIFAR_TRAIN, make_loader

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DOCUMENT, CACHED, MODEL = "document: PIL, torchvision, DataLoader with 2 workers", "cached", "the step alone"
NUM_WORKERS, BATCH_SIZE, ROUNDS = 2, 128, 3
NUM_TRAINED, NUM_LOADED = 3 * BATCH_SIZE, 32 * BATCH_SIZE


class ArrayImages(Dataset):
    """Images (N, 32, 32, 3) uint8 as torchvision's CIFAR10 gives them; every label is 0."""

    def __init__(self, images, transform):
        self.images = images
        self.transform = transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index])), 0


def document_loader(images, batch_size):
    """The loader of the document."""
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(CIFAR_TRAIN.mean, CIFAR_TRAIN.std),
        ]
    )
    return DataLoader(
        ArrayImages(images, transform), batch_size, shuffle=True, num_workers=NUM_WORKERS, pin_memory=DEVICE == "cuda"
    )


def cached_loader(images, batch_size):
    """Ours, with as many threads."""
    return make_loader(
        images, np.zeros(len(images), np.int64), CIFAR_TRAIN, backend="cached", batch_size=batch_size, device=DEVICE,
        shuffle=True, num_threads=NUM_WORKERS,
    )  # fmt: skip


@dataclasses.dataclass
class Waits:
    """Seconds that the last epoch spent in next(): for its first batch, with the start of the workers, and after it."""

    first: float = 0.0
    rest: float = 0.0


def train_epoch(loader, step, waits):
    """Take a step on each batch, and note the time that passed in next()."""
    waits.first = waits.rest = 0.0
    batches, start = iter(loader), time.perf_counter()
    batch = next(batches)
    waits.first = time.perf_counter() - start
    while batch is not None:
        step(batch[0].to(DEVICE, non_blocking=True))
        start = time.perf_counter()
        batch = next(batches, None)
        waits.rest += time.perf_counter() - start
    finish()


def load_epoch(loader):
    """Take every batch and nothing more."""
    for batch in loader:
        batch[0].to(DEVICE, non_blocking=True)
    finish()


def finish():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def test_cifar_epoch(bench):
    batch_size, num_trained, num_loaded = (BATCH_SIZE, NUM_TRAINED, NUM_LOADED) if bench.measure else (4, 8, 8)
    rounds = bench.rounds_or(ROUNDS)
    images = np.random.default_rng(0).integers(0, 256, (num_loaded, 32, 32, 3), dtype=np.uint8)
    step = training_step(model_spec("resnet18_cifar"), DEVICE)
    tensors = torch.randn((batch_size, 3, 32, 32), device=DEVICE).contiguous(memory_format=torch.channels_last)
    makers = {DOCUMENT: document_loader, CACHED: cached_loader}
    waits = {name: Waits() for name in makers}
    shares = {name: [] for name in makers}
    trained = {name: make(images[:num_trained], batch_size) for name, make in makers.items()}
    loaded = {name: make(images, batch_size) for name, make in makers.items()}

    def train(name):
        start = time.perf_counter()
        train_epoch(trained[name], step, waits[name])
        seconds = time.perf_counter() - start
        shares[name].append((waits[name].first, waits[name].rest / (seconds - waits[name].first)))

    def compute():
        for _ in range(num_trained // batch_size):
            step(tensors)
        finish()

    turns = {f"load {name}": functools.partial(load_epoch, loader) for name, loader in loaded.items()}
    turns |= {f"train {name}": functools.partial(train, name) for name in makers}
    timings = interleaved({MODEL: compute, **turns}, rounds)
    for loader in (trained[CACHED], loaded[CACHED]):
        loader.close()

    rows = []
    for kind, num in (("load", num_loaded), ("train", num_trained)):
        baseline = timings[f"{kind} {DOCUMENT}"]
        for name in makers:
            timing = timings[f"{kind} {name}"]
            ratio, low, high = timing.ratio_to(baseline)
            first, share = (statistics.median(each) for each in zip(*shares[name][-rounds:], strict=True))
            rows.append(
                {"candidate": name, "kind": kind, "num_images": num, "seconds": timing.seconds, "ratio": ratio,
                 "ratio_low": low, "ratio_high": high, "cpu_seconds": timing.cpu_seconds,
                 "first_wait_s": first if kind == "train" else None, "wait_share": share if kind == "train" else None}
            )  # fmt: skip
    alone = timings[MODEL]
    rows.append({"candidate": MODEL, "kind": "train", "num_images": num_trained, "seconds": alone.seconds,
                 "cpu_seconds": alone.cpu_seconds})  # fmt: skip
    text = "\n".join(
        f"  {row['kind']:<5}  {row['candidate']:<52}  {statistics.median(row['seconds']):8.2f} s  "
        f"{statistics.median(row['cpu_seconds']):8.2f} s of CPU"
        + (f"  {row['ratio']:.2f} x" if "ratio" in row else "")
        + (f"  waiting {row['wait_share']:.1%}" if row.get("wait_share") is not None else "")
        for row in rows
    )
    title = f"CIFAR-10's ResNet-18, batch {batch_size}: loading {num_loaded} images, training on {num_trained}"
    bench.save("cifar_epoch", title, text, unit="s", baseline=DOCUMENT, rounds=rounds, batch_size=batch_size, rows=rows)
    assert {row["candidate"] for row in rows} == {DOCUMENT, CACHED, MODEL}
