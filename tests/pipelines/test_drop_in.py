"""The loaders in other people's training loops."""

import numpy as np
import pytest
import torch
from torch import nn

from dogs_accel.datasets import open_dataset
from pipelines import EVAL, RESNET_TRAIN, make_loader

BACKENDS = ("torch", "dali", "cached")


@pytest.fixture(params=BACKENDS)
def loaders(request, dogs_root):
    """Training and validation loaders of 24 pictures each, and how many classes they have."""
    data = open_dataset(dogs_root)
    paths, labels = np.array(data.paths), data.labels
    train, val = np.arange(0, 72, 3), np.arange(1, 72, 3)
    settings = {"backend": request.param, "batch_size": 10, "device": "cpu", "num_threads": 1}
    with (
        make_loader(paths[train], labels[train], RESNET_TRAIN.at(32), shuffle=True, **settings) as train_loader,
        make_loader(paths[val], labels[val], EVAL.at(32), **settings) as val_loader,
    ):
        yield train_loader, val_loader, data.num_classes


def make_model(num_classes):
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(num_classes))


@pytest.mark.slow
def test_lightning(loaders):
    lightning = pytest.importorskip("pytorch_lightning")
    train_loader, val_loader, num_classes = loaders
    seen = {"train": [], "val": []}

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = make_model(num_classes)
            self.model(torch.zeros(1, 3, 32, 32))

        def training_step(self, batch, _):
            images, labels, index = batch
            seen["train"].append((self.current_epoch, index.tolist()))
            return nn.functional.cross_entropy(self.model(images), labels)

        def validation_step(self, batch, _):
            images, labels, index = batch
            seen["val"].append((self.current_epoch, index.tolist()))
            self.log("val_loss", nn.functional.cross_entropy(self.model(images), labels))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Module(), train_loader, val_loader)
    assert trainer.num_training_batches == len(train_loader) == 3
    for split in ("train", "val"):
        orders = [[i for at, index in seen[split] if at == epoch for i in index] for epoch in range(2)]
        assert all(sorted(order) == list(range(24)) for order in orders)
        assert (orders[0] == orders[1]) == (split == "val")


def test_a_loop_that_wants_pairs(loaders):
    """As timm's train.py and validate.py have it."""
    loader, _, num_classes = loaders
    model = make_model(num_classes)
    optimizer = None
    pairs = loader.pairs()
    num_seen = 0
    for epoch in range(2):
        pairs.set_epoch(epoch)
        num_batches = 0
        for input, target in pairs:
            loss = nn.functional.cross_entropy(model(input), target)
            optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.01)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            num_seen += len(target)
            num_batches += 1
        assert num_batches == len(pairs)
    assert num_seen == 2 * loader.num_samples
