"""Who waits for whom: a loader alone, a model alone, both together, and the verdict in words."""

from __future__ import annotations

import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from dogs_accel.models.build import build_model
from dogs_accel.models.freezing import set_train_mode
from dogs_accel.models.specs import ModelSpec
from dogs_accel.runtime.precision import amp_dtype
from dogs_accel.runtime.timing import Clock, in_turns
from dogs_accel.throughput.candidates import Candidate, Workload, load_epoch
from dogs_accel.training.optimizers import make_optimizer
from dogs_accel.training.step import StepSettings, TrainingStep, prepare_model

NUM_CLASSES = 120
WARM_UP_STEPS = 2
"""Steps at the start of an epoch that do not count: a loader fills its queue meanwhile."""
_MATTERS = 0.05
"""Share of a step from which on waiting is worth a word; below it lies within the noise of a measurement."""

ModelStep = Callable[[torch.Tensor], object]


@dataclass(frozen=True, kw_only=True)
class LoaderWithModel:
    """One loader and one model, alone and together; rates in images per second, medians over the rounds."""

    loader_rate: float
    compute_rate: float
    """Of the model on tensors that are on the device already."""
    end_to_end_rate: float
    wait_share: float
    """Share of the step that passes in the loader's next()."""

    @property
    def loading_share(self) -> float:
        """Share of the step by which it is longer than computing alone: waiting, and cores that loading takes."""
        return max(0.0, 1 - self.end_to_end_rate / self.compute_rate)


def describe_bottleneck(measured: Mapping[str, LoaderWithModel], baseline: str, *, on_gpu: bool) -> str:
    """Say in words who is the bottleneck with the loader `baseline`, and which of the other loaders changes that."""
    share = _share(measured[baseline], on_gpu)
    if share < _MATTERS:
        shared = "" if on_gpu else "; on a CPU both share the cores, which this includes"
        return (
            f"compute-bound: with `{baseline}` loading takes {_percent(share)} of the step, "
            f"a faster loader changes nothing{shared}"
        )
    if on_gpu:
        found = f"data-bound: with `{baseline}` the model waits {_percent(share)} of the step"
    else:
        waiting = min(measured[baseline].wait_share, share)
        found = (
            f"data-bound: loading and computing share the cores of the CPU, and with `{baseline}` loading costs "
            f"{_percent(share)} of the step ({_percent(waiting)} waiting, the rest cores that computing lacks)"
        )
    return f"{found}; {_remedy(measured, baseline, share, on_gpu)}"


def _share(measured: LoaderWithModel, on_gpu: bool) -> float:
    """What a loader costs of the step: on a GPU the waiting, on a CPU also the cores that it takes meanwhile."""
    return measured.wait_share if on_gpu else measured.loading_share


def _remedy(measured: Mapping[str, LoaderWithModel], baseline: str, share: float, on_gpu: bool) -> str:
    at_most = f"no loader can gain more than {1 / (1 - share):.1f} x"
    others = [name for name in measured if name != baseline]
    if not others:
        return at_most
    best = max(others, key=lambda name: measured[name].end_to_end_rate)
    gain = measured[best].end_to_end_rate / measured[baseline].end_to_end_rate
    left = _share(measured[best], on_gpu)
    if gain < 1 + _MATTERS:
        return f"none of the other loaders measured changes that ({at_most})"
    done = "removes it" if left < _MATTERS else f"leaves {_percent(left)}"
    return f"`{best}` {done} (end to end {gain:.1f} x)"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def training_step(spec: ModelSpec, device: str) -> ModelStep:
    """Build a model with random weights and return its training step on a batch: forward, backward, AdamW.

    With the switches that training has by default.
    """
    target = torch.device(device)
    settings = StepSettings(amp=amp_dtype("auto", target))
    model = prepare_model(build_model(spec, NUM_CLASSES, "none").model, target, settings)
    set_train_mode(model)
    optimizer = make_optimizer(model.parameters(), 1e-4, 1e-4, settings)
    step = TrainingStep(model, optimizer, device=target, settings=settings)
    labels = torch.arange(1 << 16, device=target) % NUM_CLASSES
    return lambda images: step(images, labels[: len(images)])


@dataclass(frozen=True)
class _Passage:
    """Some steps in a row."""

    seconds_an_image: float
    wait_share: float


def measure_with_model(
    candidates: Sequence[Candidate],
    workload: Workload,
    step: ModelStep,
    rounds: int = 3,
    *,
    clock: Clock = time.perf_counter,
) -> dict[str, LoaderWithModel]:
    """Measure each loader alone, the step alone, and both together, in turns.

    An epoch should have more batches than WARM_UP_STEPS; raises ValueError where it has not.
    """
    num_steps = -(-len(workload.paths) // workload.batch_size)
    if num_steps <= WARM_UP_STEPS:
        raise ValueError(
            f"num_images: got {len(workload.paths)}, expected more than {WARM_UP_STEPS * workload.batch_size}, "
            f"{WARM_UP_STEPS} batches of {workload.batch_size}"
        )
    shape = (workload.batch_size, 3, workload.recipe.crop, workload.recipe.crop)
    synthetic = torch.randn(shape, device=workload.device, dtype=torch.float32).contiguous(
        memory_format=torch.channels_last
    )
    with ExitStack() as stack:
        turns: dict[str, Callable[[], _Passage]] = {
            "compute": functools.partial(_run, lambda: itertools.repeat((synthetic,), num_steps), step, workload, clock)
        }
        for each in candidates:
            loader = each.make(workload)
            stack.callback(loader.close)
            turns[f"load {each.name}"] = functools.partial(_load, loader, workload, clock)
            turns[f"both {each.name}"] = functools.partial(_run, functools.partial(iter, loader), step, workload, clock)
        passages = in_turns(turns, rounds)
    return {
        each.name: LoaderWithModel(
            loader_rate=_rate(passages[f"load {each.name}"]),
            compute_rate=_rate(passages["compute"]),
            end_to_end_rate=_rate(passages[f"both {each.name}"]),
            wait_share=statistics.median(passage.wait_share for passage in passages[f"both {each.name}"]),
        )
        for each in candidates
    }


def _rate(passages: Iterable[_Passage]) -> float:
    return 1 / statistics.median(passage.seconds_an_image for passage in passages)


def _load(loader: Any, workload: Workload, clock: Clock) -> _Passage:
    start = clock()
    load_epoch(loader, workload)
    return _Passage((clock() - start) / len(workload.paths), 1.0)


def _run(batches: Callable[[], Iterator[Any]], step: ModelStep, workload: Workload, clock: Clock) -> _Passage:
    seconds_an_image, wait_share = _pass(batches(), step, workload, clock)
    if workload.on_gpu:
        # Steps that are launched ahead hide the waiting from a clock on the host, and a clock that waits for the
        # device slows the steps: each is taken from a pass of its own.
        _, wait_share = _pass(batches(), step, workload, clock, wait_for_stream=True)
    return _Passage(seconds_an_image, wait_share)


def _pass(
    batches: Iterator[Any], step: ModelStep, workload: Workload, clock: Clock, wait_for_stream: bool = False
) -> tuple[float, float]:
    """Take one epoch of steps: (seconds an image, share of the time that passed in next())."""

    def settled_clock() -> float:
        if wait_for_stream:
            # Not the whole device, where the loader works on the batches to come.
            torch.cuda.current_stream(workload.device).synchronize()
        return clock()

    waited, num_images, start = 0.0, 0, 0.0
    for i in itertools.count():
        if i == WARM_UP_STEPS:
            workload.finish()
            waited, num_images, start = 0.0, 0, clock()
        before = settled_clock()
        batch = next(batches, None)
        waited += settled_clock() - before
        if batch is None:
            break
        step(batch[0])
        num_images += len(batch[0])
    workload.finish()
    seconds = clock() - start
    return seconds / num_images, waited / seconds


def describe_with_model(measured: Mapping[str, LoaderWithModel]) -> str:
    """Lay out the rates as a table for a terminal."""
    width = max(map(len, measured))
    lines = [f"  {'':<{width}}  loader only  compute only  end to end  waiting"]
    lines += [
        f"  {name:<{width}}  {each.loader_rate:>11,.0f}  {each.compute_rate:>12,.0f}  {each.end_to_end_rate:>10,.0f}"
        f"  {_percent(each.wait_share):>7}"
        for name, each in measured.items()
    ]
    return "\n".join(lines)
