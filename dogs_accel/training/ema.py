"""An average of a model's weights over the steps of a phase, which is validated in their place."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class AveragedWeights:
    """Exponential moving average of what changes in a model: EMA <- decay * EMA + (1 - decay) * value, at every step.

    As torch.optim.swa_utils.AveragedModel with get_ema_multi_avg_fn and use_buffers: the average is the model itself
    after the first step. Averaged are the parameters that train and all buffers of floating point, so the running mean
    and variance of BatchNorm belong to the averaged weights, as in torchvision's and timm's training; integers, such
    as its count of batches, are the model's own. The average is kept beside the model and put in its place for a while
    (`in_place`), so that compiled forwards and CUDA graphs find everything where it was.
    """

    def __init__(self, model: nn.Module, trained: Collection[str], decay: float) -> None:
        """Average the parameters named in `trained`, in the memory layout that they have."""
        self._averaged = dict(_averaged_values(model, trained))
        self._values = list({id(value): value for value in self._averaged.values()}.values())
        self._averages = [value.detach().clone() for value in self._values]
        self._average_of = dict(zip(map(id, self._values), self._averages, strict=True))
        self._move = get_ema_multi_avg_fn(decay)
        self._has_begun = False

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights after another step into the average."""
        if self._has_begun:
            self._move(self._averages, self._values, 0)
        else:
            for value, average in zip(self._values, self._averages, strict=True):
                average.copy_(value)
            self._has_begun = True

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have its averages for the length of the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for value, average in zip(self._values, self._averages, strict=True):
            kept = value.clone()
            value.copy_(average)
            average.copy_(kept)

    @property
    def buffers(self) -> list[torch.Tensor]:
        """Averages of buffers, which processes may have differently."""
        own = zip(self._values, self._averages, strict=True)
        return [average for value, average in own if not isinstance(value, nn.Parameter)]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Averages by the names that a model's own state_dict has for them."""
        return {name: self._average_of[id(value)] for name, value in self._averaged.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take up averages. Raises ValueError where they are others than these."""
        own = self.state_dict()
        if own.keys() != state.keys() or any(own[name].shape != value.shape for name, value in state.items()):
            raise ValueError("the averages are of other weights")
        for name, value in state.items():
            own[name].copy_(value)
        self._has_begun = True


def _averaged_values(model: nn.Module, trained: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """What is averaged, by name; a value that has several comes with each."""
    of_trained = {id(model.get_parameter(name)) for name in trained}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in of_trained:
            yield name, parameter
    saved = model.state_dict(keep_vars=True)
    for name, buffer in model.named_buffers(remove_duplicate=False):
        if buffer.is_floating_point() and name in saved:
            yield name, buffer
