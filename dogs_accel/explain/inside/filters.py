"""The filters of a network's first layer as pictures: kernels, or the principal components of a patch embedding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dogs_accel.explain.cells import UnexplainableError, run_on_black

NUM_FILTERS = 64
"""Most kernels that are shown, the first ones."""
NUM_COMPONENTS = 28
"""Most principal components that are shown, as in figure 7 of the paper."""
KERNELS = (
    "kernels of the first convolution; grey is 0, and each is scaled by its own largest absolute weight, so that its "
    "colours say which sign a colour's weights have and not how strong a kernel is"
)
COMPONENTS = (
    "principal components of the kernels of the patch embedding, by the share of their variance that each explains "
    "(Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, figure 7); grey is 0, each is scaled by its own "
    "largest absolute value, and its sign is arbitrary"
)


@dataclass(frozen=True, kw_only=True)
class FirstLayer:
    """The filters of the first convolution, or what sums them up."""

    layer: str
    filters: NDArray[np.float32]
    """(K, k, k, 3), signed."""
    num_all: int
    """How many kernels the layer has."""
    explained: NDArray[np.float64] | None
    """(K,) share of the variance of the kernels, of components alone."""

    @property
    def shows(self) -> str:
        """Say what the pictures are."""
        return KERNELS if self.explained is None else COMPONENTS

    def pixels(self) -> NDArray[np.uint8]:
        """Draw each filter by its own largest absolute value, 0 as grey of level 128: (K, k, k, 3)."""
        most = np.abs(self.filters).max(axis=(1, 2, 3), keepdims=True)
        signed = self.filters / np.where(most > 0, most, 1)
        return np.rint(128 + 127 * signed).astype(np.uint8)


def first_layer(model: nn.Module, size_px: int) -> FirstLayer:
    """Show the filters of the convolution that the image reaches first.

    One whose kernels do not overlap and are 8 px or more is a patch embedding: of it the principal components are
    shown. Raises UnexplainableError for a model whose first layer with weights is no convolution of three colours.
    """
    name, convolution = _first_convolution(model, size_px)
    kernels = convolution.weight.detach().float().cpu().permute(0, 2, 3, 1).numpy()
    is_embedding = convolution.kernel_size == convolution.stride and convolution.kernel_size[0] >= 8
    if not is_embedding:
        return FirstLayer(layer=name, filters=kernels[:NUM_FILTERS], num_all=len(kernels), explained=None)
    components, explained = principal_components(kernels.reshape(len(kernels), -1).astype(np.float64), NUM_COMPONENTS)
    filters = components.reshape(-1, *kernels.shape[1:]).astype(np.float32)
    return FirstLayer(layer=name, filters=filters, num_all=len(kernels), explained=explained)


def principal_components(rows: NDArray[np.float64], num: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the first principal components of rows (N, D), (K, D) of length 1 each, and their shares of the variance.

    Of the two signs of each, the one with which its largest entry is positive.
    """
    _, singular, components = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    variance = singular**2
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    components = components * np.sign(largest)
    return components[:num], (variance / variance.sum())[:num]


def _first_convolution(model: nn.Module, size_px: int) -> tuple[str, nn.Conv2d]:
    ran: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda _, __, name=name: ran.append(name))
        for name, module in model.named_modules()
        if any(True for _ in module.parameters()) and not any(True for _ in module.children())
    ]
    try:
        run_on_black(model.eval(), size_px)
    finally:
        for handle in handles:
            handle.remove()
    first = model.get_submodule(ran[0]) if ran else model
    if not isinstance(first, nn.Conv2d) or first.in_channels != 3 or not isinstance(first.weight, torch.Tensor):
        raise UnexplainableError(
            f"model: the first layer of {type(model).__name__} with weights is {type(first).__name__}, no convolution "
            "of three colours"
        )
    return ran[0], first
