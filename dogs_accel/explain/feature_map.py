"""The last feature map of a network, and where its cells look."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dogs_accel.explain.cells import Places, UnexplainableError, black
from dogs_accel.models.architecture.receptive_field import Field, following_fields


@dataclass(frozen=True)
class FeatureMap:
    """The last feature map of a model: a square of cells, each with its channels."""

    layer: str
    """Name of the module whose output it is, such as layer4."""
    side: int
    """Cells down, and cells across."""
    places: Places
    """Where the cells lie in the image."""
    is_channels_last: bool
    """Whether the output is (N, S, S, C), as in Swin, MambaOut and Sequencer, and not (N, C, S, S)."""

    @contextmanager
    def recorded(self, model: nn.Module) -> Iterator[list[Tensor]]:
        """Give a list to which the map (N, C, S, S) of each forward pass within the block is added.

        A gradient can be taken of it. What the model computes stays what it is, also where the next module writes into
        the map.
        """
        maps: list[Tensor] = []

        def record(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
            maps.append(output.permute(0, 3, 1, 2) if self.is_channels_last else output)
            following = maps[-1].clone()
            return following.permute(0, 2, 3, 1) if self.is_channels_last else following

        with model.get_submodule(self.layer).register_forward_hook(record):
            yield maps


def find_last_feature_map(model: nn.Module, size_px: int) -> FeatureMap:
    """Find the last feature map before the global pooling.

    In a forward pass, the last output (N, C, S, S) or (N, S, S, C) with S > 1, of which the next module makes, or
    gets, one vector. Raises UnexplainableError where there is none.
    """
    steps = _trace_modules(model, size_px)
    is_map = [_is_square(step.output, 2) or _is_square(step.output, 1) for step in steps]
    if not any(is_map):
        raise UnexplainableError(
            f"model: {type(model).__name__} has no module that gives a feature map (N, C, S, S) or (N, S, S, C)"
        )
    last = len(is_map) - 1 - is_map[::-1].index(True)
    step, after = steps[last], next((each for each in steps[last + 1 :] if each.is_leaf), None)
    if after is None or not (_is_vector(after.output) or _is_vector(after.input)):
        raise UnexplainableError(
            f"model: the last feature map of {type(model).__name__} is that of {step.name!r}, and no global pooling "
            "follows it"
        )
    side = step.output.shape[2]
    return FeatureMap(
        step.name,
        side,
        Places.of_field(step.field) or Places.even((side, side), size_px, "assumed to tile the image"),
        is_channels_last=not _is_square(step.output, 2),
    )


def _is_square(output: Tensor, first: int) -> bool:
    """Whether an output is a map whose height and width, both > 1, are its axes `first` and the one behind."""
    return output.ndim == 4 and output.shape[first] == output.shape[first + 1] > 1


def measure_places(model: nn.Module, found: FeatureMap, images: Tensor) -> Places:
    """Find where the cells of a map look, on some images (N, 3, S, S); its own places say how far they are apart.

    Images and their mirror images together are symmetric, so the cell, or the point between two, whose gradient has
    its centre in the middle is the one that looks at the middle. What strides and padding say is where a network
    begins: training with flips moves the weights of the windows so that the cells tile the image (Alsallakh et al.,
    "Mind the Pad", ICLR 2021); ImageNet weights were seen to do so to 4 px of 32, random ones not at all. Its own
    places where the gradients say nothing.
    """
    places, size_px = found.places, images.shape[-1]
    first = []
    for axis in (2, 3):
        cells, centres = _gradient_centres(model, found, images, axis)
        slope, start = np.polyfit(cells, centres, 1) if len(cells) > 1 else (0.0, 0.0)
        if not slope > 0:
            return places
        middle = (size_px / 2 - start) / slope
        first.append(float(np.clip(size_px / 2 - middle * places.step, 0, places.step)))
    return Places((first[0], first[1]), places.step, "gradients on mirrored images")


def _gradient_centres(model: nn.Module, found: FeatureMap, images: Tensor, axis: int) -> tuple[list[int], list[float]]:
    """Mean place of the gradient of each of the middle rows (axis 2) or columns (3) of cells, in px."""
    both = torch.cat([images, images.flip(axis)]).detach().requires_grad_()
    with torch.enable_grad(), found.recorded(model) as maps:
        model(both)
        num = found.side
        at = torch.arange(images.shape[axis], device=images.device, dtype=torch.float32) + 0.5
        cells, centres = [], []
        for cell in range(max(0, num // 2 - 1), min(num, num // 2 + 2)):
            own = maps[0].select(axis, cell).square().sum()
            [gradient] = torch.autograd.grad(own, both, retain_graph=True)
            weight = gradient.abs().sum(dim=[dim for dim in range(4) if dim != axis])
            if float(weight.sum()) > 0:
                cells.append(cell)
                centres.append(float((weight * at).sum() / weight.sum()))
    return cells, centres


@dataclass(frozen=True)
class _TracedModule:
    """A module as it ran in a forward pass."""

    name: str
    input: Tensor
    output: Tensor
    is_leaf: bool
    """Whether it is made of no other modules."""
    field: Field | None
    """Of the cells of its output."""


@torch.no_grad()
def _trace_modules(model: nn.Module, size_px: int) -> list[_TracedModule]:
    """Run a model on a black image; returns its modules, but for itself, in the order in which they finished."""
    steps: list[_TracedModule] = []

    def record(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            is_leaf = not any(module.children())
            steps.append(_TracedModule(name, inputs[0], output, is_leaf, field_of(output)))

    image = black(model, size_px)
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name:
                stack.enter_context(module.register_forward_hook(functools.partial(record, name)))
        field_of = stack.enter_context(following_fields(image))
        model(image)
    return steps


def _is_vector(tensor: Tensor) -> bool:
    """Whether it is one vector an image: (N, C) or (N, C, 1, 1)."""
    return tensor.ndim == 2 or (tensor.ndim == 4 and tensor.shape[2:] == (1, 1))
