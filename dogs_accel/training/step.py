"""One step of training: forward, loss, backward, optimiser; and the switches that make it fast."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from dogs_accel.runtime.precision import autocast
from dogs_accel.training.mixing import Mixed
from pipelines.clock import StepClock

_WARM_UP_STEPS = 3
"""Steps before a CUDA graph is captured, in which cuDNN and cuBLAS choose kernels and allocate."""

_MAX_COMPILED = 64
"""Graphs of one function that torch.compile keeps before it gives up and runs it as it is: two batch sizes in training
and two in evaluation for each model and phase, of all runs of a process. torch's own 8 are too few for four runs."""

Forward = Callable[..., tuple[torch.Tensor, torch.Tensor]]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(logits (B, C), labels (B,) int64) -> the mean over the batch, a scalar; it runs under autocast, as models do."""


def has_compiler(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether there is the C++ compiler that torch.compile calls, on a CPU for its kernels, on a GPU to launch them."""
    return shutil.which(environment.get("CXX") or "g++", path=environment.get("PATH")) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSettings:
    """The switches of a step; they change its speed, and its numbers by no more than rounding."""

    amp: torch.dtype | None = None
    """Number type of mixed precision; None is float32."""
    channels_last: bool = True
    fused_optimizer: bool = True
    compile: bool = False
    """torch.compile with static shapes: one graph for whole batches, one for the partial last batch."""
    cuda_graphs: bool = False
    """Replay forward and backward of whole batches as one launch."""

    @property
    def memory_format(self) -> torch.memory_format:
        """Layout of images and of the weights of convolutions."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


def prepare_model(model: nn.Module, device: torch.device, settings: StepSettings) -> nn.Module:
    """Move a model to its device and memory layout."""
    return model.to(device=device, memory_format=settings.memory_format)  # type: ignore[call-overload]


def forward_of(
    model: nn.Module, device: torch.device, settings: StepSettings, loss: Loss = nn.functional.cross_entropy
) -> Forward:
    """Return (images, labels) -> (loss, logits), compiled if the settings say so.

    Of mixed images it takes, behind their labels, those of the images mixed in and lam () as a tensor, so that another
    value compiles nothing anew; the loss is then lam times that of the labels and 1 - lam times that of the others.
    Images may have any layout; loaders give channels-last ones, in which a convolution would run whatever the layout
    of its weights.
    """

    def forward(images: torch.Tensor, labels: torch.Tensor, *mixed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if images.ndim == 4:  # not the features of a frozen backbone
            images = images.contiguous(memory_format=settings.memory_format)
        with autocast(device, settings.amp):
            logits = model(images)
            if not mixed:
                return loss(logits, labels), logits
            others, lam = mixed
            return lam * loss(logits, labels) + (1 - lam) * loss(logits, others), logits

    if not settings.compile:
        return forward
    torch._dynamo.config.recompile_limit = max(_MAX_COMPILED, torch._dynamo.config.recompile_limit)
    return torch.compile(forward, dynamic=False)


class TrainingStep:
    """Forward, backward and optimiser step of one model; to be made anew when other parameters become trainable.

    The parts are timed where a clock is given, which somebody must read: it keeps a mark of each until then.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        device: torch.device,
        settings: StepSettings,
        scaler: torch.amp.GradScaler | None = None,
        clock: StepClock | None = None,
        loss: Loss = nn.functional.cross_entropy,
        clip_norm: float = 0.0,
        after_step: Callable[[], None] | None = None,
    ) -> None:
        """Make the step; clip_norm is the longest gradient, 0 for any, and after_step is called after each step."""
        self.optimizer = optimizer
        self.scaler = scaler or make_scaler(device, settings)
        self.clock = clock
        self._model = model
        self._forward = forward_of(model, device, settings, loss)
        self._use_graph = settings.cuda_graphs
        self._graph: _CapturedStep | None = None
        self._clip_norm = clip_norm
        self._after_step = after_step

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, weight: float = 1.0, mixed: Mixed | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take one step and return (mean loss, logits), which the next step may overwrite.

        images: (B, 3, H, W), labels: (B,) int64; weight scales the gradient, not the loss that is returned; mixed: the
        second labels of images that were mixed, in all steps or in none.
        """
        given = (images, labels, *(mixed or ()))
        if self._use_graph and self._graph is None:
            self._graph = _CapturedStep(self._model, self._forward, self.scaler, given)
        if self._graph is not None and self._graph.fits(given) and weight == 1:
            loss, logits = self._graph.replay(given)
            self._mark("graph")
        else:
            # The gradients that a graph writes to must stay where they are.
            self.optimizer.zero_grad(set_to_none=self._graph is None)
            with torch.profiler.record_function("forward"):
                loss, logits = self._forward(*given)
            self._mark("forward")
            with torch.profiler.record_function("backward"):
                self.scaler.scale(loss if weight == 1 else loss * weight).backward()
            self._mark("backward")
        with torch.profiler.record_function("optimizer"):
            if self._clip_norm:
                self.scaler.unscale_(self.optimizer)  # the length is that of the gradients themselves
                nn.utils.clip_grad_norm_(self._parameters(), self._clip_norm)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self._after_step is not None:
                self._after_step()
        self._mark("optimizer")
        return loss.detach(), logits.detach()

    def drop_graph(self) -> None:
        """Let go of the captured graph and its memory; the next step captures anew."""
        self._graph = None

    def _parameters(self) -> list[torch.Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _mark(self, part: str) -> None:
        if self.clock is not None:
            self.clock.mark(part)


def kept_bytes(model: nn.Module, images: torch.Tensor, amp: torch.dtype | None) -> int:
    """Count the bytes that a forward keeps for its backward, beside the parameters of the model.

    It runs on images (B, 3, H, W), in the mode that the model is in; statistics of BatchNorm and torch's random numbers
    stay as they are.
    """
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        with autocast(images.device, amp):
            logits = torch.func.functional_call(model, buffers, (images,))
        del logits  # until here it held what is kept, so that no two tensors had one place
    return sum(num_bytes for place, num_bytes in kept.items() if place not in parameters)


def make_scaler(device: torch.device, settings: StepSettings) -> torch.amp.GradScaler:
    """Loss scaling for float16, and for nothing else."""
    return torch.amp.GradScaler(device.type, enabled=settings.amp == torch.float16)


class _CapturedStep:
    """Forward and backward of a batch size as a CUDA graph.

    It reads and writes what has the same address in every step: parameters, their gradients, buffers, the scale of a
    GradScaler, all of which change in place. Weights that autocast rounds are rounded within the graph, since its cache
    lives as long as the forward; dropout draws from torch's generator, which a replay moves on as a step would.
    """

    def __init__(
        self,
        model: nn.Module,
        forward: Forward,
        scaler: torch.amp.GradScaler,
        given: Sequence[torch.Tensor],
    ) -> None:
        self._given = [each.clone() for each in given]
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}

        def run() -> tuple[torch.Tensor, torch.Tensor]:
            loss, logits = forward(*self._given)
            scaler.scale(loss).backward()
            # What holds the autograd graph would keep the nodes that add up gradients, which are bound to this stream.
            return loss.detach(), logits.detach()

        # One stream for both, on which the libraries have their workspaces when the capture begins.
        device = given[0].device
        stream = _capture_stream(device)
        with torch.random.fork_rng(devices=[device]):  # warming up draws what the steps are to draw
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP_STEPS):
                    _drop_gradients(model)
                    run()
            torch.cuda.current_stream(device).wait_stream(stream)
            # Without gradients at its beginning the capture makes them, and each replay overwrites them.
            _drop_gradients(model)
            self._graph = torch.cuda.CUDAGraph()
            # Threads of a loader may allocate and wait meanwhile; only this one must not.
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
                self._loss, self._logits = run()
        with torch.no_grad():  # the warm-up has counted into the statistics of BatchNorm
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])

    def fits(self, given: Sequence[torch.Tensor]) -> bool:
        """Whether a batch has the shapes that were captured."""
        return [each.shape for each in given] == [each.shape for each in self._given]

    def replay(self, given: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Leave the gradients of a batch and return (mean loss, logits), which the next replay overwrites."""
        for own, each in zip(self._given, given, strict=True):
            own.copy_(each)
        self._graph.replay()
        return self._loss, self._logits


@functools.cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of all captures on a device.

    Of each stream torch keeps cuBLAS's workspaces until the process ends, 64 MiB on Hopper.
    """
    return torch.cuda.Stream(device)


def _drop_gradients(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = None
