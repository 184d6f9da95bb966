"""The measurement: models in turns, an image and a batch, after a warm-up, each to the end of the device's work.

On a GPU the clock is the host's, from the call to the end of the last kernel, since that is what who waits for an
answer waits. Peak memory is what torch's allocator holds, on a GPU as on a CPU; what libraries allocate past it, such
as oneDNN's working memory or a CUDA context, is not seen.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from dogs_accel.cost.model_cost import CostSetting, Latency, ModelCost
from dogs_accel.models.architecture.table import Architecture, with_times
from dogs_accel.models.flops import count_macs
from dogs_accel.models.freezing import count_total_params
from dogs_accel.models.specs import ModelSpec
from dogs_accel.runtime.environment import cpu_name
from dogs_accel.runtime.precision import autocast
from dogs_accel.runtime.timing import Clock, Timing, interleaved, median_interval

FEWEST_ROUNDS, MOST_ROUNDS = 7, 100
"""Six are the fewest of which a 95 % interval of the median can be told."""
_ALLOCATION = "[memory]"
"""What torch's profiler calls an allocation, and with a negative size its end."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredModel:
    """A model to be measured, on its device and in evaluation mode."""

    spec: ModelSpec
    model: nn.Module
    num_classes: int


def measure_costs(
    models: Sequence[MeasuredModel],
    *,
    device: torch.device,
    amp: torch.dtype | None = None,
    batch_size: int = 32,
    rounds: int | None = None,
    seconds: float = 2.0,
    channels_last: bool = True,
    clock: Clock = time.perf_counter,
) -> list[ModelCost]:
    """Measure models in turns, each once a round, first with one image and then with a batch.

    Two rounds before them do not count. rounds: None takes as many as fit into about so many seconds a model, from 7
    to 100. channels_last says how the weights are laid out. The global random state stays as it is.
    """
    run = _Run(device, amp, clock)
    ones = _latencies(run, [(each, 1) for each in models], rounds, seconds)
    batches = _latencies(run, [(each, batch_size) for each in models], rounds, seconds)
    return [
        ModelCost(
            setting=cost_setting(
                each.spec, each.num_classes, device=device, amp=amp, batch_size=batch_size, channels_last=channels_last
            ),
            display=each.spec.display,
            parameters=count_total_params(each.model),
            buffer_bytes=sum(buffer.nbytes for buffer in each.model.buffers()),
            macs=count_macs(each.spec, each.num_classes),
            one_image_ms=one,
            batch_ms=batch,
            peak_memory_bytes=run.peak_memory_bytes(each, batch_size),
        )
        for each, one, batch in zip(models, ones, batches, strict=True)
    ]


def cost_setting(
    spec: ModelSpec,
    num_classes: int,
    *,
    device: torch.device,
    amp: torch.dtype | None,
    batch_size: int,
    channels_last: bool,
) -> CostSetting:
    """Say what would be measured, and where, as things are now."""
    is_cuda = device.type == "cuda"
    if amp is not None:
        precision = f"{str(amp).removeprefix('torch.')} autocast"
    else:
        precision = "float32 with TF32" if is_cuda and torch.backends.cuda.matmul.allow_tf32 else "float32"
    return CostSetting(
        model=spec.name,
        image_size=spec.image_size,
        num_classes=num_classes,
        batch_size=batch_size,
        device=device.type,
        device_name=torch.cuda.get_device_name(device) if is_cuda else cpu_name(),
        precision=precision,
        num_threads=torch.get_num_threads(),
        channels_last=channels_last,
        torch=torch.__version__,
    )


def time_stages(
    architecture: Architecture,
    model: nn.Module,
    device: torch.device,
    *,
    rounds: int | None = None,
    seconds: float = 1.0,
) -> Architecture:
    """Time the stages of a model in evaluation mode on its device, for one image in float32, as `with_times` does."""
    size = architecture.image_size
    noise = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = noise.to(device).contiguous(memory_format=torch.channels_last)
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    else:
        where = f"{cpu_name()} ({torch.get_num_threads()} thread{'s' * (torch.get_num_threads() != 1)})"
    return with_times(
        architecture,
        model,
        images,
        where=f"{where}, float32, torch {torch.__version__}",
        rounds=rounds,
        seconds=seconds,
    )


@dataclass(frozen=True)
class _Run:
    """Where and how forwards are run."""

    device: torch.device
    amp: torch.dtype | None
    clock: Clock

    def images(self, measured: MeasuredModel, num_images: int) -> torch.Tensor:
        """Make normal noise (B, 3, H, W): zeros could be faster than pictures."""
        size = measured.spec.image_size
        noise = torch.randn(num_images, 3, size, size, generator=torch.Generator().manual_seed(0))
        return noise.to(self.device).contiguous(memory_format=torch.channels_last)

    def forward(self, measured: MeasuredModel, images: torch.Tensor) -> None:
        """Answer, and wait for the device."""
        with torch.inference_mode(), autocast(self.device, self.amp):
            measured.model(images)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak_memory_bytes(self, measured: MeasuredModel, num_images: int) -> int:
        """Measure a forward of a batch that was run before: its images, what it allocates, weights and buffers."""
        own = sum(each.nbytes for each in (*measured.model.parameters(), *measured.model.buffers()))
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            self.forward(measured, self.images(measured, num_images))
            return own + torch.cuda.max_memory_allocated(self.device) - before
        images = self.images(measured, num_images)
        return own + images.nbytes + _peak_of_allocations(lambda: self.forward(measured, images))


def _latencies(
    run: _Run, works: Sequence[tuple[MeasuredModel, int]], rounds: int | None, seconds: float
) -> list[Latency]:
    """Time forwards of so many images, in turns."""
    forwards: dict[str, Callable[[], None]] = {}
    for at, (measured, num_images) in enumerate(works):
        forwards[str(at)] = _work(run, measured, run.images(measured, num_images))
    warm = interleaved(forwards, rounds=1, warm_up=1, clock=run.clock)
    if rounds is None:
        rounds = _num_rounds(sum(timing.median for timing in warm.values()), seconds * len(works))
    return [_latency(timing) for timing in interleaved(forwards, rounds, warm_up=0, clock=run.clock).values()]


def _work(run: _Run, measured: MeasuredModel, images: torch.Tensor) -> Callable[[], None]:
    return lambda: run.forward(measured, images)


def _num_rounds(seconds_a_round: float, seconds: float) -> int:
    """Return how many rounds fit, within the bounds."""
    if seconds_a_round * MOST_ROUNDS <= seconds:
        return MOST_ROUNDS
    return max(FEWEST_ROUNDS, int(seconds / seconds_a_round))


def _latency(timing: Timing) -> Latency:
    low, high = median_interval(timing.seconds)
    return Latency(median=1e3 * timing.median, low=1e3 * low, high=1e3 * high, rounds=len(timing.seconds))


def _peak_of_allocations(work: Callable[[], None]) -> int:
    """Return the most bytes that torch's CPU allocator holds at once of what it allocates during some work."""
    # Kineto prints what it does and which GPUs it does not find; it reads this when it is first used.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with (
        _no_garbage_collection(),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler,
    ):
        work()
    found = profiler.profiler.kineto_results.events()
    held = most = 0
    for event in sorted((each for each in found if each.name() == _ALLOCATION), key=lambda each: each.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Free no tensor of before in the block, which would look as if the work had freed it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
