"""Heat maps: which parts of an image a model's answer rests on (Grad-CAM) or looked at (attention)."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torchvision
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from torch import Tensor, nn

_BATCH = 8
"""Images at a time: Grad-CAM keeps all of a network's activations, about 100 MB an image of a ResNet-50."""
_NUM_PLACING = 4
"""Images, and their mirror images, on which the cells of a feature map are placed."""


class UnexplainableError(ValueError):
    """A model that has neither a feature map to weigh nor attention to follow; the message says what is missing."""


@dataclass(frozen=True)
class Places:
    """Where the cells of a map lie in the image that it is of, in px from its corner."""

    first: tuple[float, float]
    """Centre of the first cell, down and across."""
    step: float
    """From one cell's centre to the next."""
    source: str
    """How that is known."""

    @classmethod
    def even(cls, grid: tuple[int, int], size_px: int, source: str = "patches tile the image") -> Places:
        """Tile an image of size_px with the cells, as the patches of a ViT do."""
        step = size_px / grid[0]
        return cls((step / 2, step / 2), step, source)


@dataclass(frozen=True)
class GradCam:
    """Grad-CAM at the last feature map before the global pooling: specific to a class."""

    model: nn.Module
    layer: str
    """Name of the module whose output is weighed, such as layer4."""
    grid: tuple[int, int]
    """Height and width of that output."""
    places: Places
    """Where its cells lie in the image."""
    note: str | None = None
    """Why it was taken for a model with attention; None for a CNN."""

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the maps."""
        return ("gradcam",)

    def describe(self) -> dict[str, Any]:
        """Say what the maps are, for a file."""
        from captum import __version__

        return {
            "method": "gradcam",
            "library": f"captum {__version__}, LayerGradCam",
            "definition": "Selvaraju et al., Grad-CAM, ICCV 2017: ReLU of the channels, each weighed by the mean "
            "gradient of the predicted breed's logit",
            "class_specific": True,
            "shows": "what the predicted breed rests on",
            "layer": self.layer,
            "grid": list(self.grid),
            "cells": {
                "first_centre_px": {"down": self.places.first[0], "across": self.places.first[1]},
                "step_px": self.places.step,
                "source": self.places.source,
            },
            "note": self.note,
        }

    def placed_on(self, images: Tensor) -> GradCam:
        """Return it with the cells where the model's gradients on the first of some images (N, 3, S, S) have them."""
        return replace(self, places=measure_places(self.model, self.layer, images[:_NUM_PLACING], self.places))

    def maps(self, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Compute the map of one class an image: images (N, 3, S, S), classes (N,) int64 -> (N, h, w), >= 0.

        Definition: Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2. The weights of the model, frozen or
        not, and their gradients stay as they are.
        """
        from captum.attr import LayerGradCam  # takes more than a second

        self.model.eval()
        grad_cam = LayerGradCam(self.model, self.model.get_submodule(self.layer))
        parts = []
        with torch.enable_grad():
            for some, wanted in zip(images.split(_BATCH), classes.split(_BATCH), strict=True):
                inputs = some.detach().clone().requires_grad_()
                parts.append(grad_cam.attribute(inputs, target=wanted, relu_attributions=True).detach()[:, 0].float())
        return {"gradcam": torch.cat(parts)}


@dataclass(frozen=True)
class Attention:
    """Attention of the last layer and attention rollout of a ViT: without gradients, the same whatever the class."""

    model: nn.Module
    num_prefix: int
    """Tokens before those of the patches."""
    grid: tuple[int, int]
    """Patches down and across."""
    places: Places
    """Where the patches lie in the image."""
    reads_class_token: bool
    """Whether the head reads the class token; otherwise it pools the patches, and so do the maps."""

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the maps."""
        return ("attention_last", "attention_rollout")

    def describe(self) -> dict[str, Any]:
        """Say what the maps are, for a file."""
        return {
            "method": "attention",
            "library": "own: hooks read the weights that the model's attention layers computed",
            "definition": "attention_last: weights of the last layer, mean over heads; attention_rollout: Abnar and "
            "Zuidema, Quantifying Attention Flow in Transformers, ACL 2020, 0.5 A + 0.5 I through all layers",
            "class_specific": False,
            "shows": "where the model looked, whatever the breed",
            "class_specific_note": "computed without gradients: it shows what reached the head, whatever the breed",
            "queries": "the class token" if self.reads_class_token else "mean over the patches, as the head pools them",
            "grid": list(self.grid),
        }

    def placed_on(self, images: Tensor) -> Attention:
        """Return it as it is: patches are where they are whatever the images."""
        return self

    def maps(self, images: Tensor, classes: Tensor | None = None) -> dict[str, Tensor]:
        """Compute both maps of images (N, 3, S, S): (N, h, w) each, weights that sum to at most 1; classes say nothing.

        Definition of the rollout: `attention_rollout`.
        """
        last, rollout = [], []
        for some in images.split(_BATCH):
            layers = attention_weights(self.model, some)
            last.append(self._on_patches(layers[-1]))
            rollout.append(self._on_patches(attention_rollout(layers)))
        return {"attention_last": torch.cat(last), "attention_rollout": torch.cat(rollout)}

    def _on_patches(self, weights: Tensor) -> Tensor:
        """Read the row of what the head reads, (N, T, T) -> (N, h, w)."""
        read = weights[:, 0] if self.reads_class_token else weights[:, self.num_prefix :].mean(dim=1)
        return read[:, self.num_prefix :].reshape(-1, *self.grid).float()


Explainer = GradCam | Attention


def find_explainer(model: nn.Module, size_px: int) -> Explainer:
    """Find how a model of square inputs can be explained.

    Attention for ViTs, in which every layer attends over all patches; Grad-CAM for what ends in a feature map and a
    global pooling, such as CNNs and, noted, transformers of another build. Raises UnexplainableError where there is
    neither.
    """
    model.eval()
    note = None
    if _attention_layers(model):
        try:
            return _find_attention(model, size_px)
        except UnexplainableError as error:
            note = str(error)
    try:
        layer, grid, places = find_last_feature_map(model, size_px)
    except UnexplainableError as error:
        raise UnexplainableError(f"{error}; {note}" if note else str(error)) from error
    return GradCam(model, layer, grid, places, note)


def heat_maps(explainer: Explainer, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
    """Compute maps as large as the images (N, 3, S, S), of one class (N,) int64 each: by method, (N, S, S), >= 0."""
    maps = explainer.maps(images, classes)
    return {method: upsample(each, explainer.places, images.shape[-1]) for method, each in maps.items()}


# --- feature maps -----------------------------------------------------------------------------------------------


def find_last_feature_map(model: nn.Module, size_px: int) -> tuple[str, tuple[int, int], Places]:
    """Find the module whose output is the last feature map before the global pooling: its name, (h, w), its places.

    In a forward pass, the last output (N, C, S, S) with S > 1, of which the next module makes, or gets, one vector.
    Raises UnexplainableError where there is none.
    """
    steps = _trace_modules(model, size_px)
    is_map = [step.output.ndim == 4 and step.output.shape[2] == step.output.shape[3] > 1 for step in steps]
    if not any(is_map):
        raise UnexplainableError(f"model: {type(model).__name__} has no module that gives a feature map (N, C, S, S)")
    last = len(is_map) - 1 - is_map[::-1].index(True)
    step, after = steps[last], next((each for each in steps[last + 1 :] if each.is_leaf), None)
    if after is None or not (_is_vector(after.output) or _is_vector(after.input)):
        raise UnexplainableError(
            f"model: the last feature map of {type(model).__name__} is that of {step.name!r}, and no global pooling "
            "follows it"
        )
    grid = (step.output.shape[2], step.output.shape[3])
    return (
        step.name,
        grid,
        _follow_strides(steps[: last + 1], size_px) or Places.even(grid, size_px, "assumed to tile the image"),
    )


def _follow_strides(steps: Sequence[_Step], size_px: int) -> Places | None:
    """Follow the centres of the cells through the windows that make a map smaller; None where that fails.

    A cell of a ResNet with random weights is centred 32 i px from the corner, not in the middle of a tile of 32 px:
    padding puts half of the first window outside the image. Of branches side by side the first one that ran counts.
    Definition: Araujo et al., "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019.
    """
    size, first, step = size_px, 0.5, 1.0
    for each in steps:
        window = _window(each.module, size)
        if window is None or each.input.shape[2] != size or each.output.shape[2] >= size:
            continue
        extent, stride, padding = window
        first += ((extent - 1) / 2 - padding) * step
        step *= stride
        size = each.output.shape[2]
    return Places((first, first), step, "strides and padding") if size == steps[-1].output.shape[2] else None


def measure_places(model: nn.Module, layer: str, images: Tensor, places: Places) -> Places:
    """Find where the cells of a layer's output look, on some images (N, 3, S, S); places says how far they are apart.

    Images and their mirror images together are symmetric, so the cell, or the point between two, whose gradient has
    its centre in the middle is the one that looks at the middle. What strides and padding say is where a network
    begins: training with flips moves the weights of the windows so that the cells tile the image (Alsallakh et al.,
    "Mind the Pad", ICLR 2021); ImageNet weights were seen to do so to 4 px of 32, random ones not at all. Places
    unmeasured where the gradients say nothing.
    """
    size_px = images.shape[-1]
    first = []
    for axis in (2, 3):
        cells, centres = _gradient_centres(model, layer, images, axis)
        slope, start = np.polyfit(cells, centres, 1) if len(cells) > 1 else (0.0, 0.0)
        if not slope > 0:
            return places
        middle = (size_px / 2 - start) / slope
        first.append(float(np.clip(size_px / 2 - middle * places.step, 0, places.step)))
    return Places((first[0], first[1]), places.step, "gradients on mirrored images")


def _gradient_centres(model: nn.Module, layer: str, images: Tensor, axis: int) -> tuple[list[int], list[float]]:
    """Mean place of the gradient of each of the middle rows (axis 2) or columns (3) of cells, in px."""
    outputs: list[Tensor] = []
    both = torch.cat([images, images.flip(axis)]).detach().requires_grad_()
    with (
        torch.enable_grad(),
        model.get_submodule(layer).register_forward_hook(lambda _, __, output: outputs.append(output)),
    ):
        model(both)
        num = outputs[0].shape[axis]
        at = torch.arange(images.shape[axis], device=images.device) + 0.5
        cells, centres = [], []
        for cell in range(max(0, num // 2 - 1), min(num, num // 2 + 2)):
            own = outputs[0].select(axis, cell).square().sum()
            [gradient] = torch.autograd.grad(own, both, retain_graph=True)
            weight = gradient.abs().sum(dim=[dim for dim in range(4) if dim != axis])
            if float(weight.sum()) > 0:
                cells.append(cell)
                centres.append(float((weight * at).sum() / weight.sum()))
    return cells, centres


def _window(module: nn.Module, size_px: int) -> tuple[int, int, int] | None:
    """Extent, stride and padding at the top of a convolution's or a pooling's window over a map of size_px."""
    if not isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return None
    kernel, stride, dilation = (
        each[0] if isinstance(each, tuple) else each
        for each in (module.kernel_size, module.stride, getattr(module, "dilation", 1))
    )
    extent = (kernel - 1) * dilation + 1
    if module.padding == "same" or isinstance(module, Conv2dSame | MaxPool2dSame | AvgPool2dSame):
        # What is odd goes to the bottom.
        return extent, stride, max((-(-size_px // stride) - 1) * stride + extent - size_px, 0) // 2
    padding = module.padding[0] if isinstance(module.padding, tuple) else module.padding
    return extent, stride, padding if isinstance(padding, int) else 0  # what is left in words is "valid"


@dataclass(frozen=True)
class _Step:
    """A module as it ran in a forward pass."""

    name: str
    module: nn.Module
    input: Tensor
    output: Tensor

    @property
    def is_leaf(self) -> bool:
        """Whether it is made of no other modules."""
        return not any(self.module.children())


def _trace_modules(model: nn.Module, size_px: int) -> list[_Step]:
    """Run a model on a black image; returns its modules, but for itself, in the order in which they finished."""
    steps: list[_Step] = []

    def record(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            steps.append(_Step(name, module, inputs[0], output))

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name:
                stack.enter_context(module.register_forward_hook(functools.partial(record, name)))
        _run_on_black(model, size_px)
    return steps


def _is_vector(tensor: Tensor) -> bool:
    """Whether it is one vector an image: (N, C) or (N, C, 1, 1)."""
    return tensor.ndim == 2 or (tensor.ndim == 4 and tensor.shape[2:] == (1, 1))


@torch.no_grad()
def _run_on_black(model: nn.Module, size_px: int) -> None:
    parameter = next(model.parameters())
    model(torch.zeros(1, 3, size_px, size_px, device=parameter.device, dtype=parameter.dtype))


# --- attention --------------------------------------------------------------------------------------------------


def attention_rollout(layers: Sequence[Tensor]) -> Tensor:
    """Follow attention through the layers, first to last, each (N, T, T) with rows that sum to 1 -> (N, T, T).

    Row i says how much of each input token is in token i after the last layer. Definition: Abnar and Zuidema,
    "Quantifying Attention Flow in Transformers", ACL 2020, equation 1: each layer is 0.5 A + 0.5 I, where the
    residual connection is the I, its rows are normalised, and the layers are multiplied.
    """
    flow = torch.eye(layers[0].shape[-1], dtype=torch.float64, device=layers[0].device)
    for weights in layers:
        mixed = 0.5 * weights.double() + 0.5 * torch.eye(len(flow[-1]), dtype=torch.float64, device=flow.device)
        flow = mixed / mixed.sum(dim=-1, keepdim=True) @ flow
    return flow


@torch.no_grad()
def attention_weights(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Run a model on images (N, 3, S, S); returns the attention of each layer, (N, T, T), mean over heads, in order."""
    model.eval()
    with recorded_attention(model) as layers:
        model(images)
    return layers


@contextmanager
def recorded_attention(model: nn.Module) -> Iterator[list[Tensor]]:
    """Give a list to which each attention layer that runs within the block adds its weights, mean over heads.

    The model's answers stay what they were, up to the rounding of another kernel: fused attention never holds its
    weights, so it is off within the block, in torch's MultiheadAttention and in timm's layers.
    """
    layers: list[Tensor] = []

    def ask(module: nn.Module, inputs: Any, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return inputs, settings | {"need_weights": True, "average_attn_weights": True}

    with ExitStack() as stack:
        for module in _attention_layers(model):
            if isinstance(module, nn.MultiheadAttention):
                stack.enter_context(module.register_forward_pre_hook(ask, with_kwargs=True))
                stack.enter_context(module.register_forward_hook(lambda _, __, output: layers.append(output[1])))
            else:
                stack.callback(setattr, module, "fused_attn", module.fused_attn)
                module.fused_attn = False  # type: ignore[assignment]  # timm's switch, a bool
                dropout = module.get_submodule("attn_drop")
                stack.enter_context(
                    dropout.register_forward_hook(lambda _, __, output: layers.append(output.mean(dim=1)))
                )
        yield layers


def _attention_layers(model: nn.Module) -> list[nn.Module]:
    """Torch's attention layers and timm's, which pass their weights through a module attn_drop unless fused."""
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention)
        or (hasattr(module, "fused_attn") and isinstance(getattr(module, "attn_drop", None), nn.Module))
    ]


def _find_attention(model: nn.Module, size_px: int) -> Attention:
    name = type(model).__name__
    num_prefix, grid, reads_class_token = _token_layout(model)
    num_tokens = num_prefix + grid[0] * grid[1]
    with recorded_attention(model) as layers:
        _run_on_black(model, size_px)
    if len(layers) < len(_attention_layers(model)):
        raise UnexplainableError(f"attention: some layers of {name} do not show their weights")
    for weights in layers:
        if weights.shape[-2:] != (num_tokens, num_tokens):
            raise UnexplainableError(
                f"attention: a layer of {name} has weights {tuple(weights.shape[-2:])}, expected every layer to attend "
                f"over all {num_tokens} tokens"
            )
        if weights.min() < 0 or not torch.allclose(weights.sum(dim=-1), weights.new_ones(()), atol=1e-2):
            raise UnexplainableError(f"attention: the weights of a layer of {name} are no shares that sum to 1")
    return Attention(model, num_prefix, grid, Places.even(grid, size_px), reads_class_token)


def _token_layout(model: nn.Module) -> tuple[int, tuple[int, int], bool]:
    """Tokens before the patches, patches down and across, and whether the head reads the class token."""
    if isinstance(model, torchvision.models.VisionTransformer):
        side = model.image_size // model.patch_size
        return 1, (side, side), True
    num_prefix = getattr(model, "num_prefix_tokens", None)
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if num_prefix is None or grid is None:
        raise UnexplainableError(f"attention: {type(model).__name__} does not say which of its tokens are patches")
    return num_prefix, (grid[0], grid[1]), num_prefix > 0 and getattr(model, "global_pool", "") == "token"


# --- maps as pictures -------------------------------------------------------------------------------------------


def upsample(maps: Tensor, places: Places, size_px: int) -> Tensor:
    """Draw maps (N, h, w) over their image, bilinearly between the centres of the cells: (N, size_px, size_px).

    Beyond the outermost centres a map goes on as it is there. Where the cells tile the image this is torch's
    interpolate(mode="bilinear", align_corners=False).
    """
    down, across = (
        _interpolation(num, first, places.step, size_px).to(maps.device)
        for num, first in zip(maps.shape[1:], places.first, strict=True)
    )
    return down @ maps.float() @ across.T


def _interpolation(num: int, first: float, step: float, size_px: int) -> Tensor:
    """Weights of num cells in each of size_px pixels, (size_px, num) float32, rows that sum to 1."""
    at = ((torch.arange(size_px) + 0.5 - first) / step).clamp(0, num - 1)
    return (1 - (at[:, None] - torch.arange(num)).abs()).clamp(min=0)


def scale_to_unit(maps: Tensor) -> Tensor:
    """Scale each map (N, H, W) to [0, 1], its own smallest to its own largest value; a constant one becomes 0."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    span = high - low
    return torch.where(span > 0, (maps - low) / span.where(span > 0, torch.ones_like(span)), torch.zeros_like(maps))
