"""How long a run will take, from a few real steps on the machine at hand."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from dogs_accel.amp import autocast
from dogs_accel.models import ModelSpec, build_model, set_trainable_stage
from dogs_accel.phases import Phase
from pipelines.batch import Batch, Loader

_PROBE_BATCHES = 32
_PROBE_IMAGES = 4
_PROBE_SECONDS = 1.0


@dataclass(frozen=True)
class Estimate:
    """Expected time of a run; rates in images per second."""

    minutes: float
    loader_rate: float
    train_rate: float


def estimate_run(
    spec: ModelSpec, phases: Sequence[Phase], loaders: Mapping[str, Loader], num_classes: int, amp: torch.dtype | None
) -> Estimate:
    """Estimate a run from some of its batches and about a second of steps of the model with random weights.

    On a GPU loading and computing overlap, on a CPU they share the cores.
    """
    device = loaders["train"].device
    loader_rate = _loader_rate(loaders["train"])
    model = build_model(spec, num_classes, "none").model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(loaders["train"].batch_size, 3, spec.image_size, spec.image_size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    forward_rate = _rate(lambda part: _forward(model, part, amp), images)
    train_rate = {}
    for phase in phases:
        set_trainable_stage(model, phase.mode)
        train_rate[phase.mode] = _rate(lambda part: _step(model, part, amp), images)
    num_train, num_val, num_test = (loaders[split].num_samples for split in ("train", "val", "test"))

    def seconds(num_images: int, rate: float) -> float:
        times = num_images / rate, num_images / loader_rate
        return max(times) if device.type == "cuda" else sum(times)

    total = seconds(num_val + num_test, forward_rate)
    for phase in phases:
        total += phase.epochs * (seconds(num_train, train_rate[phase.mode]) + seconds(num_val, forward_rate))
    return Estimate(total / 60, loader_rate, train_rate[phases[-1].mode])


def _loader_rate(loader: Loader) -> float:
    """Images per second, without the batches that were under way before the clock started."""
    in_flight = 2 * loader.num_threads + 2
    if len(loader) < 2 * in_flight:
        _drain(iter(loader))
        return _timed(iter(loader), loader.device)
    batches = iter(loader)
    _drain(itertools.islice(batches, in_flight))
    return _timed(itertools.islice(batches, _PROBE_BATCHES), loader.device)


def _drain(batches: Iterator[Batch]) -> int:
    return sum(len(batch.labels) for batch in batches)


def _timed(batches: Iterator[Batch], device: torch.device) -> float:
    start = time.perf_counter()
    num_images = _drain(batches)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return num_images / (time.perf_counter() - start)


@torch.inference_mode()
def _forward(model: nn.Module, images: torch.Tensor, amp: torch.dtype | None) -> None:
    with autocast(images.device, amp):
        model(images)


def _step(model: nn.Module, images: torch.Tensor, amp: torch.dtype | None) -> None:
    with autocast(images.device, amp):
        loss = model(images).float().logsumexp(dim=1).mean()
    loss.backward()


def _rate(work: Callable[[torch.Tensor], None], images: torch.Tensor) -> float:
    """Images per second of a step: of a whole batch, or of a few images where that would take long."""
    few = images[:_PROBE_IMAGES]
    _seconds(work, few)  # the first call chooses kernels and allocates
    seconds_an_image = _seconds(work, few) / len(few)
    if seconds_an_image * len(images) > _PROBE_SECONDS:
        return 1 / seconds_an_image
    _seconds(work, images)
    steps = max(1, round(_PROBE_SECONDS / (seconds_an_image * len(images))))
    return steps * len(images) / sum(_seconds(work, images) for _ in range(steps))


def _seconds(work: Callable[[torch.Tensor], None], images: torch.Tensor) -> float:
    """Time one call, to the end of the device's work."""
    start = time.perf_counter()
    work(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - start
