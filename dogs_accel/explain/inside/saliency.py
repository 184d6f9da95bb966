"""What in an image makes a unit active: guided backpropagation of networks of ReLUs, integrated gradients of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dogs_accel.explain.cells import run_on_black

GUIDED = "guided backpropagation"
INTEGRATED = "integrated gradients"
DEFINITIONS = {
    GUIDED: "Springenberg et al., Striving for Simplicity: The All Convolutional Net, ICLR 2015 workshop: the "
    "gradient, but that what is negative does not pass back through a ReLU; a ReLU6 passes it at its end too",
    INTEGRATED: "Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017: the mean gradient on the "
    "way from an image of the mean colour of the data to the image, times their difference",
}
NUM_STEPS = 32
_OTHER_ACTIVATIONS = {
    "gelu", "silu", "silu_", "mish", "mish_", "elu", "elu_", "leaky_relu", "leaky_relu_", "hardswish", "hardswish_",
    "hardsigmoid", "hardsigmoid_", "sigmoid", "sigmoid_", "tanh", "tanh_", "softplus", "_softmax", "_prelu_kernel",
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
    "_native_multi_head_attention",
}  # fmt: skip
"""By their names in torch's aten. What attention does with its softmax is no ReLU either."""

Unit = Callable[[Tensor], Tensor]
"""From images (N, 3, S, S) to the value of a unit in each, (N,), through which gradients pass."""


Saliency = Callable[[Unit, Tensor], Tensor]
"""Says how much each pixel and colour of images (N, 3, S, S) makes for the value of a unit: as large."""


@dataclass(frozen=True)
class SaliencyMethod:
    """How the units of a network are shown."""

    name: str
    note: str
    """Why this one."""
    compute: Saliency


def other_activations(model: nn.Module, size_px: int) -> list[str]:
    """Name what a network has of activations that are no ReLU, sorted; ReLU6 is a ReLU with an end."""
    model.eval()
    seen = _Seen()
    with seen:
        run_on_black(model, size_px)
    short = {"attention" if "dot_product" in name or "attention" in name else name.strip("_") for name in seen.names}
    return sorted({"attention" if name == "softmax" else name for name in short})


class _Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in _OTHER_ACTIVATIONS:
            self.names.add(name)
        return func(*args, **(kwargs or {}))


def choose_saliency(model: nn.Module, size_px: int) -> SaliencyMethod:
    """Choose guided backpropagation for a network whose activations are ReLUs alone, else integrated gradients."""
    others = other_activations(model, size_px)
    if not others:
        return SaliencyMethod(GUIDED, "every activation of the network is a ReLU", guided_backprop)
    note = f"the network has {', '.join(others)}, for which guided backpropagation is not defined"
    return SaliencyMethod(INTEGRATED, note, integrated_gradients)


class _GuidedReLU(torch.autograd.Function):
    """A ReLU, with an end or without, through which positive gradients alone pass back.

    They pass at the end of a ReLU6 too: else a unit that reaches it would have nothing to show.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, most: float) -> Tensor:
        ctx.save_for_backward(x > 0)
        return x.clamp(0, most)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (passes,) = ctx.saved_tensors
        return gradients[0].clamp(min=0) * passes, None


class _GuidedReLUs(TorchFunctionMode):
    """Puts a guided ReLU in the place of every ReLU, whether a module or a function calls it."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in _RELUS:
            return _GuidedReLU.apply(args[0], float("inf"))
        if func is nn.functional.relu6:
            return _GuidedReLU.apply(args[0], 6.0)
        if func is nn.functional.hardtanh and given.get("min_val") == 0:  # as nn.ReLU6 calls it
            return _GuidedReLU.apply(args[0], float(given["max_val"]))
        return func(*args, **given)


_RELUS = (torch.relu, torch.relu_, nn.functional.relu, Tensor.relu, Tensor.relu_)


def guided_backprop(unit: Unit, images: Tensor) -> Tensor:
    """Guided backpropagation of a unit's value to images (N, 3, S, S): as large.

    Definition: Springenberg et al., ICLR 2015 workshop, section 3.4. Only of networks of ReLUs; what passes a ReLU6 is
    not stopped where it reaches 6.
    """
    given = images.detach().clone().requires_grad_()
    with torch.enable_grad(), _GuidedReLUs():
        [gradient] = torch.autograd.grad(unit(given).sum(), given)
    return gradient


def integrated_gradients(unit: Unit, images: Tensor, num_steps: int = NUM_STEPS) -> Tensor:
    """Integrate the gradient of a unit's value from black of normalised images, their mean colour, to images.

    images (N, 3, S, S) -> as large. The sum over an image is what the unit gains on the way, up to the error of the
    integral, which the midpoint rule takes in num_steps steps. Definition: Sundararajan et al., ICML 2017, equations 1
    and 3.
    """
    total = torch.zeros_like(images)
    for step in range(num_steps):
        given = (images.detach() * ((step + 0.5) / num_steps)).requires_grad_()
        with torch.enable_grad():
            [gradient] = torch.autograd.grad(unit(given).sum(), given)
        total += gradient
    return images * total / num_steps


def units_of(values: Callable[[Tensor], Tensor], channel: int, cells: Sequence[tuple[int, int]]) -> Unit:
    """Make a unit of a channel of a map (N, C, h, w): of each image its own cell."""

    def unit(images: Tensor) -> Tensor:
        maps = values(images)
        return torch.stack([own[channel, row, column] for own, (row, column) in zip(maps, cells, strict=True)])

    return unit
