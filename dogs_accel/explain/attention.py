"""Attention of the last layer, and attention followed through the layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from dogs_accel.explain.cells import Places, UnexplainableError, run_on_black
from dogs_accel.explain.gradcam import EXPLAINED_BATCH


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

    def describe(self, noun: str = "class") -> dict[str, Any]:
        """Say what the maps are, for a file; noun: what a class is called."""
        return {
            "method": "attention",
            "library": "own: hooks read the weights that the model's attention layers computed",
            "definition": "attention_last: weights of the last layer, mean over heads; attention_rollout: Abnar and "
            "Zuidema, Quantifying Attention Flow in Transformers, ACL 2020, 0.5 A + 0.5 I through all layers",
            "class_specific": False,
            "shows": f"where the model looked, whatever the {noun}",
            "class_specific_note": f"computed without gradients: it shows what reached the head, whatever the {noun}",
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
        for some in images.split(EXPLAINED_BATCH):
            layers = attention_weights(self.model, some)
            last.append(self._on_patches(layers[-1]))
            rollout.append(self._on_patches(attention_rollout(layers)))
        return {"attention_last": torch.cat(last), "attention_rollout": torch.cat(rollout)}

    def _on_patches(self, weights: Tensor) -> Tensor:
        """Read the row of what the head reads, (N, T, T) -> (N, h, w)."""
        read = weights[:, 0] if self.reads_class_token else weights[:, self.num_prefix :].mean(dim=1)
        return read[:, self.num_prefix :].reshape(-1, *self.grid).float()


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
        for module in attention_layers(model):
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


def attention_layers(model: nn.Module) -> list[nn.Module]:
    """Torch's attention layers and timm's, which pass their weights through a module attn_drop unless fused."""
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention)
        or (hasattr(module, "fused_attn") and isinstance(getattr(module, "attn_drop", None), nn.Module))
    ]


def find_attention(model: nn.Module, size_px: int) -> Attention:
    """Find how the attention of a ViT is read; raises UnexplainableError where its layers do not show all of it."""
    name = type(model).__name__
    num_prefix, grid, reads_class_token = _token_layout(model)
    num_tokens = num_prefix + grid[0] * grid[1]
    with recorded_attention(model) as layers:
        run_on_black(model, size_px)
    if len(layers) < len(attention_layers(model)):
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
