"""One step of training: forward, loss, backward, optimiser; and the switches that make it fast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dogs_accel.amp import autocast
from dogs_accel.timing import StepClock

_WARM_UP_STEPS = 3
"""Steps before a CUDA graph is captured, in which cuDNN and cuBLAS choose kernels and allocate."""

Forward = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


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


def prepare_model(model: nn.Module, device: torch.device, settings: StepSettings) -> nn.Module:
    """Move a model to its device and memory layout."""
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    return model.to(device=device, memory_format=layout)  # type: ignore[call-overload]


def make_optimizer(param_groups: Any, lr: float, weight_decay: float, settings: StepSettings) -> torch.optim.AdamW:
    """AdamW over parameters or groups of them; a group's `initial_lr` is its lr before any schedule."""
    optimizer = torch.optim.AdamW(param_groups, lr=lr, weight_decay=weight_decay, fused=settings.fused_optimizer)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def forward_of(model: nn.Module, device: torch.device, settings: StepSettings) -> Forward:
    """Return (images, labels) -> (mean cross-entropy, logits), compiled if the settings say so."""

    def forward(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with autocast(device, settings.amp):
            logits = model(images)
            return nn.functional.cross_entropy(logits, labels), logits

    return torch.compile(forward, dynamic=False) if settings.compile else forward


class TrainingStep:
    """Forward, backward and optimiser step of one model; to be made anew when other parameters become trainable."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        device: torch.device,
        settings: StepSettings,
        scaler: torch.amp.GradScaler | None = None,
        clock: StepClock | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.scaler = scaler or make_scaler(device, settings)
        self.clock = clock or StepClock(device)
        self._model = model
        self._forward = forward_of(model, device, settings)
        self._use_graph = settings.cuda_graphs
        self._graph: _CapturedStep | None = None

    def set_lr(self, factor: float) -> None:
        """Set the learning rate of each group to a share of its initial one."""
        for group in self.optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"]

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, weight: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take one step and return (mean loss, logits), which the next step may overwrite.

        images: (B, 3, H, W), labels: (B,) int64; weight scales the gradient.
        """
        if self._use_graph and self._graph is None:
            self._graph = _CapturedStep(self._model, self._forward, self.scaler, images, labels)
        if self._graph is not None and self._graph.fits(images):
            loss, logits = self._graph.replay(images, labels)
            self.clock.mark("graph")
        else:
            # The gradients that a graph writes to must stay where they are.
            self.optimizer.zero_grad(set_to_none=self._graph is None)
            with torch.profiler.record_function("forward"):
                loss, logits = self._forward(images, labels)
            self.clock.mark("forward")
            with torch.profiler.record_function("backward"):
                self.scaler.scale(loss if weight == 1 else loss * weight).backward()
            self.clock.mark("backward")
        with torch.profiler.record_function("optimizer"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.clock.mark("optimizer")
        return loss.detach(), logits.detach()


def make_scaler(device: torch.device, settings: StepSettings) -> torch.amp.GradScaler:
    """Loss scaling for float16, and for nothing else."""
    return torch.amp.GradScaler(device.type, enabled=settings.amp == torch.float16)


class _CapturedStep:
    """Forward and backward of a batch size as a CUDA graph."""

    def __init__(
        self,
        model: nn.Module,
        forward: Forward,
        scaler: torch.amp.GradScaler,
        images: torch.Tensor,
        labels: torch.Tensor,
    ) -> None:
        self._images, self._labels = images.clone(), labels.clone()
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}

        def run() -> tuple[torch.Tensor, torch.Tensor]:
            loss, logits = forward(self._images, self._labels)
            scaler.scale(loss).backward()
            return loss, logits

        stream = torch.cuda.Stream(images.device)
        stream.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_STEPS):
                _drop_gradients(model)
                run()
        torch.cuda.current_stream(images.device).wait_stream(stream)
        # Gradients that are not there when the capture begins are made, and from then on overwritten, by the graph.
        _drop_gradients(model)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._loss, self._logits = run()
        with torch.no_grad():  # the warm-up has counted into the statistics of BatchNorm
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])

    def fits(self, images: torch.Tensor) -> bool:
        """Whether a batch has the shape that was captured."""
        return images.shape == self._images.shape

    def replay(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._graph.replay()
        return self._loss, self._logits


def _drop_gradients(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = None
