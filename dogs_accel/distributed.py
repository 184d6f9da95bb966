"""The processes of one command: one alone, or several that torchrun started, on one machine or on many."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

Value = TypeVar("Value")

_TIMEOUT = timedelta(hours=1)
"""How long a process waits for the others, of which the first may decode all images meanwhile. One that has failed is
not waited for: torchrun ends the others at once."""


class OtherProcessError(RuntimeError):
    """The first process failed at what it does for all, and says why itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Where this process stands among those that work on the same command."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among those on this machine."""
    local_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def from_first(self, make: Callable[[], Value]) -> Value:
        """Call `make` in the first process alone and return in each what it returned.

        What it raises there ends the others with an OtherProcessError.
        """
        if self.size == 1:
            return make()
        result: list[Any] = [None, None]
        error: Exception | None = None
        if self.is_first:
            try:
                result[0] = make()
            except Exception as caught:
                error, result[1] = caught, str(caught)
        dist.broadcast_object_list(result, src=0)
        if error is not None:
            raise error
        if result[1] is not None:
            raise OtherProcessError(result[1])
        return result[0]

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all processes, in the order of their ranks, in each."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def add_up(self, *tensors: torch.Tensor) -> None:
        """Replace tensors by their sums over all processes."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def copy_from_first(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give tensors the values that they have in the first process."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    @contextmanager
    def first_here(self) -> Iterator[None]:
        """Let the first process of each machine go through the block before its others, for which it writes files."""
        if self.local_rank > 0:
            self._meet()
        yield
        if self.local_rank == 0:
            self._meet()
        self._meet()

    def _meet(self) -> None:
        self.add_up(torch.zeros(1))


ALONE = World()


def world_from_environment(environment: Mapping[str, str] = os.environ) -> World:
    """Read what torchrun says of this process; without torchrun it is alone. Raises ValueError for half of it."""
    names = {"rank": "RANK", "size": "WORLD_SIZE", "local_rank": "LOCAL_RANK", "local_size": "LOCAL_WORLD_SIZE"}
    there = {field: int(environment[name]) for field, name in names.items() if name in environment}
    if not {"rank", "size"} & set(there):
        return ALONE
    if len(there) < len(names):
        missing = ", ".join(names[field] for field in names if field not in there)
        raise ValueError(f"distributed: {missing} not set beside the others; start with torchrun")
    return World(**there)


@contextmanager
def joined(world: World, device: torch.device) -> Iterator[None]:
    """Connect this process with the others for the length of the block: NCCL between GPUs, gloo between CPUs."""
    if world.size == 1:
        yield
        return
    on_gpu = device.type == "cuda"
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=_TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def share_gradients(model: nn.Module, world: World, device: torch.device) -> nn.Module:
    """Wrap a model so that its gradients are means over the processes; parameters are made those of the first.

    To be wrapped anew when other parameters become trainable.
    """
    if world.size == 1:
        return model
    ids = [device.index] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)


def share_statistics(model: nn.Module, world: World, device: torch.device) -> nn.Module:
    """Let BatchNorm see the whole batch of all processes, as one process would; torch can on GPUs only."""
    if world.size == 1 or device.type != "cuda":
        return model
    from timm.layers import convert_sync_batchnorm

    return convert_sync_batchnorm(model)
