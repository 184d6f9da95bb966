"""Features of a frozen backbone, computed once, from which its head is trained."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from dogs_accel.models.heads import head_names
from dogs_accel.runtime.precision import autocast
from dogs_accel.runtime.processes import World, gather_samples
from pipelines.loader import Batch, Loader, epoch_order


class FeatureError(ValueError):
    """A model whose head cannot be trained on features that are computed once."""


def head_of(model: nn.Module) -> nn.Module:
    """Return the one layer, or the layers, that turn features into logits.

    They are those of head_names and a dropout right before them, as in torchvision's EfficientNets and VGGs, so that it
    stays where features are computed once. Raises FeatureError for several heads.
    """
    names = head_names(model)
    if len(names) != 1:
        raise FeatureError(f"cache_features: the model has {len(names)} heads ({', '.join(names)}), expected one")
    parent, _, leaf = names[0].rpartition(".")
    owner = model.get_submodule(parent)
    layers = [owner.get_submodule(leaf)]
    if isinstance(owner, nn.Sequential):
        before = [layer for _, layer in itertools.takewhile(lambda child: child[0] != leaf, owner.named_children())]
        layers = [*reversed([*itertools.takewhile(_is_dropout, reversed(before))]), *layers]
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def _is_dropout(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Dropout)


def dropped_before_head(model: nn.Module) -> list[str]:
    """Name the layers below the head that leave things out at random in training.

    Features that are computed once are those of evaluation, for which nothing is left out. Dropout of the head stays.
    """
    head = set(head_of(model).modules())
    return [name for name, module in model.named_modules() if _drops(module) and module not in head]


def _drops(module: nn.Module) -> bool:
    """Whether a layer leaves things out at random: dropout of any kind, torchvision's and timm's stochastic depth."""
    kind = type(module).__name__
    share = getattr(module, "p", None) if "Drop" in kind or kind == "StochasticDepth" else None
    return bool(share or getattr(module, "drop_prob", 0))


class FeatureLoader:
    """Yields batches as `like` does, with features (B, D) in place of images, from memory on the device."""

    def __init__(self, features: torch.Tensor, labels: torch.Tensor, like: Loader) -> None:
        self.features = features
        self.labels = labels
        self.batch_size = like.batch_size
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

    Raises FeatureError for a model whose logits are not its head's output.
    """
    model.eval()
    head = head_of(model)
    given: list[torch.Tensor] = []
    features: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    index: list[torch.Tensor] = []
    first = head[0] if isinstance(head, nn.Sequential) else head  # a dropout before the head is no part of it
    hook = first.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    try:
        for batch in loader:
            with autocast(loader.device, amp):
                logits = model(batch.images)
                if not features and not torch.equal(head(given[-1]), logits):
                    raise FeatureError("cache_features: the model's logits are not the output of its head")
            features.append(given[0])
            given.clear()
            labels.append(batch.labels)
            index.append(batch.index)
    finally:
        hook.remove()
    every_feature, every_label = gather_samples(world, index, (features, labels), loader.dataset_size)
    return FeatureLoader(every_feature.to(loader.device), every_label.to(loader.device), like)
