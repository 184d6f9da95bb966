"""The processes of one command: one alone, or several that torchrun started, on one machine or on many."""

from __future__ import annotations

import ctypes
import inspect
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from dogs_accel.runtime.arguments import is_started_by_torchrun

Value = TypeVar("Value")

_TIMEOUT = timedelta(hours=1)
"""How long a process waits for the others, of which the first may decode all images meanwhile. One that has failed is
not waited for: torchrun ends the others at once."""
_LAST_SECONDS = 10.0
"""How long a process stays when another has failed, so that torchrun sees that one end first, and names it."""
_REACHED_WITHIN_S = 45.0
"""How long a process tries to reach the first one, which may start a little later."""
_STARTED_BY_AGENT = "TORCHELASTIC_RUN_ID"
_PR_SET_PDEATHSIG = 1
"""Of prctl(2)."""
_VARIABLES = {"rank": "RANK", "size": "WORLD_SIZE", "local_rank": "LOCAL_RANK", "local_size": "LOCAL_WORLD_SIZE"}


class OtherProcessError(RuntimeError):
    """Another process failed at what all of them need, and says why itself."""


class SampleError(RuntimeError):
    """A loader that did not give each sample once."""


class LostProcessError(OtherProcessError):
    """Another process has ended without a word to this one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Where this process stands among those that work on the same command."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among those on this machine."""
    local_size: int = 1

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def broadcast(self, make: Callable[[], Value]) -> Value:
        """Call `make` on rank 0 alone and return on each rank what it returned.

        What it raises there ends the others with an OtherProcessError, or with the SystemExit that it raised.
        """
        if self.size == 1:
            return make()
        result: list[Any] = [None, None, None]
        error: Exception | SystemExit | None = None
        if self.is_rank_zero:
            try:
                result[0] = make()
            except SystemExit as caught:
                error, result[1] = caught, caught.code
            except Exception as caught:
                error, result[2] = caught, str(caught)
        dist.broadcast_object_list(result, src=0)
        if error is not None:
            raise error
        if result[1] is not None:
            raise SystemExit(result[1])
        if result[2] is not None:
            raise OtherProcessError(result[2])
        return result[0]

    def on_all_ranks(self, make: Callable[[], Value]) -> Value:
        """Call `make` in every process and return here what it returned here.

        Where it fails in any, all of them raise: the first of those in which it failed what it raised there, the
        others an OtherProcessError.
        """
        if self.size == 1:
            return make()
        value: Any = None
        error: Exception | None = None
        try:
            value = make()
        except Exception as caught:
            error = caught
        problems = self.all_gather(None if error is None else str(error))
        failed = [rank for rank, problem in enumerate(problems) if problem is not None]
        if error is not None and failed[0] == self.rank:
            raise error
        if failed:
            raise OtherProcessError(problems[failed[0]])
        return value

    def local_rank_zero_first(self, make: Callable[[], Value]) -> Value:
        """Do what `on_all_ranks` does, on local rank 0 of each machine before its others, for which it writes files.

        What fails in a first one is not tried in the others.
        """
        if self.size == 1:
            return make()
        is_local_zero = self.local_rank == 0
        values = [
            self.on_all_ranks(make if is_turn else lambda: None) for is_turn in (is_local_zero, not is_local_zero)
        ]
        return values[0 if is_local_zero else 1]  # type: ignore[return-value]

    def all_gather(self, value: Value) -> list[Value]:
        """Return the values of all processes, in the order of their ranks, in each."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def all_reduce(self, *tensors: torch.Tensor) -> None:
        """Replace tensors by their sums over all processes."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def broadcast_tensors(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give tensors the values that they have in the first process."""
        if self.size > 1:
            for tensor in tensors:
                whole = tensor.contiguous()  # which torch insists on
                dist.broadcast(whole, src=0)
                if whole is not tensor:
                    tensor.copy_(whole)

    def await_end(self) -> None:
        """Wait for the process that failed to say why and end, whereupon torchrun ends this one."""
        if self.size > 1:
            with suppress(RuntimeError):
                dist.barrier()
            time.sleep(_LAST_SECONDS)


ALONE = World()


def world_from_environment(environment: Mapping[str, str] = os.environ) -> World:
    """Read what torchrun says of this process; without torchrun it is alone. Raises ValueError for half of it.

    Some schedulers say only that there is one process, which is alone too.
    """
    if not is_started_by_torchrun(environment):
        return ALONE
    if environment.get("WORLD_SIZE") == "1" and environment.get("RANK", "0") == "0":
        return ALONE
    if missing := [name for name in _VARIABLES.values() if name not in environment]:
        raise ValueError(f"distributed: {', '.join(missing)} not set beside the others; start with torchrun")
    given = {field: environment[name] for field, name in _VARIABLES.items()}
    for field, text in given.items():
        if not text.isdecimal():
            raise ValueError(f"distributed: got {_VARIABLES[field]}={text}, expected an integer >= 0")
    return World(**{field: int(text) for field, text in given.items()})


@contextmanager
def joined(world: World) -> Iterator[None]:
    """Connect this process with the others for the length of the block: NCCL between GPUs, gloo between CPUs.

    Raises LostProcessError where another process ended meanwhile, and ValueError where the first one, or its torchrun,
    cannot be reached.
    """
    if world.size == 1:
        yield
        return
    end_with_torchrun()
    _reach_first(world)
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_TIMEOUT)
    try:
        yield
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        raise LostProcessError(f"the connection to another process is lost ({str(error).splitlines()[0]})") from error
    else:
        # Not after a failure, when it might wait for processes that wait for this one to end.
        dist.destroy_process_group()


def end_with_torchrun(environment: Mapping[str, str] = os.environ) -> None:
    """Let the system end this process when torchrun, which watches over it, is gone; Linux can."""
    if _STARTED_BY_AGENT not in environment or sys.platform != "linux":
        return
    agent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != agent:  # it was gone before it was asked for
        raise LostProcessError("torchrun has ended")


def _reach_first(world: World, environment: Mapping[str, str] = os.environ, seconds: float = _REACHED_WITHIN_S) -> None:
    """Wait until the address where all meet answers. Raises ValueError where it does not."""
    address, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT", "")
    waits_here = world.is_rank_zero and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    if address is None or not port.isdecimal() or waits_here:
        return
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((address, int(port)), timeout=max(0.1, until - time.monotonic())).close()
        except (OSError, OverflowError) as error:
            if time.monotonic() < until:
                time.sleep(0.2)
                continue
            raise ValueError(
                f"distributed: nobody answers at MASTER_ADDR={address}, MASTER_PORT={port} ({error}), waited for "
                f"{seconds:g} s; the first process runs there, and a firewall must let others reach it"
            ) from error
        return


def _is_lost_connection(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistBackendError) or "gloo/transport" in str(error)


def share_gradients(model: nn.Module, world: World, device: torch.device) -> nn.Module:
    """Wrap a model so that its gradients are means over the processes; parameters are made those of the first.

    To be wrapped anew when other parameters become trainable.
    """
    if world.size == 1:
        return model
    # Of weights with sides of 1, such as a class token, whose strides may be said in several ways.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    ids = [device.index] if device.type == "cuda" else None
    wrap = nn.parallel.DistributedDataParallel
    # torch 2.15 renamed the switch, and warns of the old name.
    renamed = "forward_sync_buffers" in inspect.signature(wrap).parameters
    leave_buffers: dict[str, Any] = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
    return wrap(model, device_ids=ids, gradient_as_bucket_view=True, **leave_buffers)


def gather_samples(
    world: World, index: Sequence[torch.Tensor], parts: Sequence[Sequence[torch.Tensor]], num_samples: int
) -> list[torch.Tensor]:
    """Put what the processes computed of their samples together, in the order of the samples, on the CPU of each.

    index: (n,) int64 of each batch of this process; parts: for each result its batches, (n, ...). Raises SampleError
    where a sample is missing or comes more than once.
    """
    # A process has no sample where there are fewer than processes.
    here = [torch.cat(list(batches)).cpu() for batches in (index, *parts)] if index else None
    found = [each for each in world.all_gather(here) if each is not None]
    every_index, *results = (torch.cat(pieces) for pieces in zip(*found, strict=True))
    order = every_index.argsort()
    if not torch.equal(every_index[order], torch.arange(num_samples)):
        raise SampleError(f"loader: gave {len(order)} samples, expected each of {num_samples} images once")
    return [result[order] for result in results]


def all_reduce_bytes(num_bytes: int, num_processes: int) -> int:
    """Bytes that each process sends, and receives as many, where a ring adds up `num_bytes` that each of them has.

    A ring passes N - 1 of N parts on to be added and N - 1 to be known: 2 (N - 1) / N of the bytes (Patarasuk and Yuan,
    "Bandwidth optimal all-reduce algorithms for clusters of workstations", 2009), parts being rounded up. Raises
    ValueError for fewer processes than one.
    """
    if num_processes < 1:
        raise ValueError(f"num_processes: got {num_processes}, expected an integer >= 1")
    return 2 * (num_processes - 1) * -(-num_bytes // num_processes)


def share_statistics(model: nn.Module, world: World, device: torch.device) -> nn.Module:
    """Let BatchNorm see the whole batch of all processes, as one process would; torch can on GPUs only."""
    if world.size == 1 or device.type != "cuda":
        return model
    from timm.layers import convert_sync_batchnorm

    return convert_sync_batchnorm(model)
