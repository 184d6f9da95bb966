"""How long a run will take, from a few real steps on the machine at hand."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from dogs_accel.datasets.splits import SPLITS
from dogs_accel.models.build import build_model
from dogs_accel.models.freezing import set_train_mode, set_trainable_stage
from dogs_accel.models.specs import ModelSpec
from dogs_accel.training.optimizers import phase_optimizer
from dogs_accel.training.phases import Phase, Stage
from dogs_accel.training.step import StepSettings, TrainingStep, forward_of, prepare_model
from pipelines.loader import Batch, Loader

_PROBE_BATCHES = 8
_PROBE_IMAGES = 4
_PROBE_SECONDS = 1.0
_FEWEST_PROBES, _MOST_PROBES = 4, 40
_FAST = 0.9
"""Quantile of the probes that stands for a machine that does nothing else: what comes between makes them slow only."""

TimedStep = Callable[[torch.Tensor], object]


@dataclass(frozen=True)
class Rates:
    """Images per second of several probes of the same work."""

    fast: float
    """Of the fast ones, as where nothing else wants the machine."""
    slow: float
    """Of the median one, as the machine was during the probes; no more than `fast`."""


@dataclass(frozen=True)
class Estimate:
    """Expected time of a run; rates in images per second, those of the fast probes."""

    minutes: tuple[float, float]
    """By the fast probes, and by the median ones."""
    loader_rate: float
    train_rate: float


def estimate_run(
    spec: ModelSpec,
    phases: Sequence[Phase],
    loaders: Mapping[str, Loader],
    num_classes: int,
    settings: StepSettings,
    *,
    cache_features: bool = False,
    num_views: int = 1,
    epochs_left: Sequence[int] | None = None,
) -> Estimate:
    """Estimate a run from some of its batches and about a second of steps of the model with random weights.

    The steps are those of training and evaluation, each with its own batch size, but not compiled, which would take
    longer than the rest; a phase that unfreezes gradually is timed as it ends. A head on cached features costs the
    forward that makes them; the evaluation at the end is of num_views views. epochs_left are those of each phase that
    are still to be trained, None all of them. On a GPU loading and computing
    overlap, on a CPU they share the cores. Each rate is probed several times, so that other work on the machine, which
    slows some probes down, does not make the estimate too long: it has two ends.
    """
    device = loaders["train"].device
    settings = dataclasses.replace(settings, compile=False)
    loader_rate = _loader_rate(loaders["train"])
    model = prepare_model(build_model(spec, num_classes, "none").model, device, settings)
    forward_rate = _rate(_evaluation(model, device, settings), _random_images(loaders["val"], spec, settings))
    images = _random_images(loaders["train"], spec, settings)
    train_rate: dict[Stage, Rates] = {}
    all_left = [phase.epochs for phase in phases] if epochs_left is None else epochs_left
    for phase, epochs in zip(phases, all_left, strict=True):
        if phase.stage not in train_rate and (epochs or phase is phases[-1]):
            train_rate[phase.stage] = _rate(_training(model, phase, device, settings), images)
    num_train, num_val, num_test = (loaders[name].num_samples if name in loaders else 0 for name in SPLITS)

    def minutes(speed: Literal["fast", "slow"]) -> float:
        def seconds(num_images: int, rates: Rates) -> float:
            times = [num_images / getattr(each, speed) for each in (rates, loader_rate)]
            return max(times) if device.type == "cuda" else sum(times)

        total = num_views * seconds(num_val + num_test, forward_rate)
        for phase, epochs in zip(phases, all_left, strict=True):
            if not epochs:
                continue
            if cache_features and phase.mode == "head_only":
                total += seconds(num_train + num_val, forward_rate)
                continue
            total += epochs * (seconds(num_train, train_rate[phase.stage]) + seconds(num_val, forward_rate))
        return total / 60

    return Estimate((minutes("fast"), minutes("slow")), loader_rate.fast, train_rate[phases[-1].stage].fast)


def rates_of(probes: Sequence[float]) -> Rates:
    """Sum up the images per second of several probes, which what else the machine does can only slow down."""
    return Rates(fast=float(np.quantile(probes, _FAST)), slow=float(np.median(probes)))


def _loader_rate(loader: Loader) -> Rates:
    """Images per second, without the batches that were under way before the clock started."""
    in_flight = 2 * loader.num_threads + 2
    if len(loader) < 2 * in_flight:
        _drain(iter(loader))
        return rates_of(_probes(lambda: _timed(iter(loader), loader.device)))
    batches = iter(loader)
    _drain(itertools.islice(batches, in_flight))
    # As many as may have been ready at once, so that no probe is of those alone.
    num_batches = max(_PROBE_BATCHES, in_flight)
    num_probes = min(_FEWEST_PROBES, (len(loader) - in_flight) // num_batches)
    if num_probes < 1:
        return rates_of([_timed(batches, loader.device)])
    return rates_of([_timed(itertools.islice(batches, num_batches), loader.device) for _ in range(num_probes)])


def _probes(probe: Callable[[], float]) -> list[float]:
    """Probe until the time is up, a few times at least."""
    found: list[float] = []
    end = time.perf_counter() + _PROBE_SECONDS
    while len(found) < _FEWEST_PROBES or (time.perf_counter() < end and len(found) < _MOST_PROBES):
        found.append(probe())
    return found


def _drain(batches: Iterator[Batch]) -> int:
    return sum(len(batch.labels) for batch in batches)


def _timed(batches: Iterator[Batch], device: torch.device) -> float:
    start = time.perf_counter()
    num_images = _drain(batches)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return num_images / (time.perf_counter() - start)


def _random_images(loader: Loader, spec: ModelSpec, settings: StepSettings) -> torch.Tensor:
    """Images of a whole batch of a loader."""
    images = torch.randn(
        loader.batch_size, 3, spec.image_size, spec.image_size, device=loader.device, dtype=torch.float32
    )
    return images.contiguous(memory_format=settings.memory_format)


def _labels(images: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(images), dtype=torch.int64, device=images.device)


def _evaluation(model: nn.Module, device: torch.device, settings: StepSettings) -> TimedStep:
    forward = torch.inference_mode()(forward_of(model, device, settings))

    def work(images: torch.Tensor) -> None:
        model.eval()
        forward(images, _labels(images))

    return work


def _training(model: nn.Module, phase: Phase, device: torch.device, settings: StepSettings) -> TimedStep:
    set_trainable_stage(model, *phase.stage)
    set_train_mode(model)
    optimizer = phase_optimizer(model, phase, settings)
    step = TrainingStep(model, optimizer, device=device, settings=settings, clip_norm=phase.clip_norm)
    return lambda images: step(images, _labels(images))


def _rate(work: TimedStep, images: torch.Tensor) -> Rates:
    """Images per second of a step: of a whole batch, or on a CPU of a few images where that would take long."""
    probed = images if images.is_cuda else images[:_PROBE_IMAGES]
    _seconds(work, probed)  # the first call chooses kernels and allocates
    if _seconds(work, probed) * len(images) / len(probed) < _PROBE_SECONDS:
        probed = images
        _seconds(work, probed)
    return rates_of(_probes(lambda: len(probed) / _seconds(work, probed)))


def _seconds(work: TimedStep, images: torch.Tensor) -> float:
    """Time one call, to the end of the device's work."""
    start = time.perf_counter()
    work(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - start
