"""Features of a frozen backbone, computed once, from which its head is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from dogs_accel.amp import autocast
from dogs_accel.distributed import World
from dogs_accel.models import head_names
from pipelines.batch import Batch, Loader, epoch_order


def head_of(model: nn.Module) -> nn.Module:
    """Return the one layer that turns features into logits. Raises ValueError for a model with several."""
    names = head_names(model)
    if len(names) != 1:
        raise ValueError(f"cache_features: the model has {len(names)} heads ({', '.join(names)}), expected one")
    dropout = [name for name, module in model.named_modules() if isinstance(module, nn.Dropout) and module.p > 0]
    if dropout:
        raise ValueError(f"cache_features: the model has dropout ({dropout[0]}), so its features change every time")
    return model.get_submodule(names[0])


class FeatureLoader:
    """Yields batches as `like` does, with features (B, D) in place of images, from memory on the device."""

    def __init__(self, features: torch.Tensor, labels: torch.Tensor, like: Loader) -> None:
        self.features = features
        self.labels = labels
        self.batch_size = like.batch_size
        self.clock = None
        self._order: dict[str, Any] = {
            "seed": like.seed, "shuffle": like.shuffle, "rank": like.rank, "world_size": like.world_size
        }  # fmt: skip
        self._epoch = 0

    @property
    def dataset_size(self) -> int:
        """Samples of all ranks in an epoch."""
        return len(self.features)

    @property
    def num_samples(self) -> int:
        """Samples of this rank in an epoch."""
        return len(range(self._order["rank"], len(self.features), self._order["world_size"]))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        order = torch.from_numpy(epoch_order(len(self.features), epoch=self._epoch, **self._order))
        for index in order.to(self.features.device).split(self.batch_size):
            yield Batch(self.features[index], self.labels[index], index)


@torch.no_grad()
def cache_features(
    model: nn.Module, loader: Loader, like: Loader, world: World, amp: torch.dtype | None = None
) -> FeatureLoader:
    """Compute what the head of a frozen model gets for each image of `loader`, for batches in the order of `like`.

    Raises ValueError for a model whose logits are not its head's output.
    """
    model.eval()
    head = head_of(model)
    given: list[torch.Tensor] = []
    features: list[torch.Tensor] = []
    labels, index = [], []
    hook = head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    try:
        for batch in loader:
            with autocast(loader.device, amp):
                logits = model(batch.images)
                if not features and not torch.equal(head(given[-1]), logits):
                    raise ValueError("cache_features: the model's logits are not the output of its head")
            features.append(given[0])
            given.clear()
            labels.append(batch.labels)
            index.append(batch.index)
    finally:
        hook.remove()
    here = tuple(torch.cat(part).cpu() for part in (features, labels, index)) if index else None
    # A process gets no sample where there are fewer than processes.
    parts = [part for part in world.gather(here) if part is not None]
    every_feature, every_label, every_index = (torch.cat(part).to(loader.device) for part in zip(*parts, strict=True))
    order = every_index.argsort()
    return FeatureLoader(every_feature[order], every_label[order], like)
