"""Attention of the last layer, and attention followed through the layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from dogs_accel.explain.cells import Places, UnexplainableError, black
from dogs_accel.explain.gradcam import EXPLAINED_BATCH
from dogs_accel.models.architecture.receptive_field import following_fields


@dataclass(frozen=True)
class Tokens:
    """The tokens of a ViT, in their order."""

    num_prefix: int
    """Before those of the patches."""
    grid: tuple[int, int]
    """Patches down and across."""
    num_read: int
    """Of the first ones, those that the head reads; 0 where it pools the patches, and so do the maps."""
    pooling: str
    """How the head pools the patches, by timm's name: avg is their mean."""
    embedding: str
    """Name of the module that makes the patches."""

    @property
    def num_all(self) -> int:
        """Number of all tokens."""
        return self.num_prefix + self.grid[0] * self.grid[1]

    @property
    def queries(self) -> str:
        """Say whose attention the maps show."""
        if self.num_read:
            return "the class token" if self.num_read == 1 else f"mean over the {self.num_read} tokens of the heads"
        if self.pooling == "avg":
            return "mean over the patches, as the head pools them"
        return f"mean over the patches; the head pools them otherwise ({self.pooling}), which the maps leave out"


@dataclass(frozen=True)
class Attention:
    """Attention of the last layer and attention rollout of a ViT: without gradients, the same whatever the class."""

    model: nn.Module
    tokens: Tokens
    places: Places
    """Where the patches lie in the image."""

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.tokens.grid

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
            "queries": self.tokens.queries,
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
        """Take the mean over the rows of what the head reads, (N, T, T) -> (N, h, w)."""
        own, num_prefix = self.tokens, self.tokens.num_prefix
        read = weights[:, : own.num_read] if own.num_read else weights[:, num_prefix:]
        return read.mean(dim=1)[:, num_prefix:].reshape(-1, *own.grid).float()


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
    tokens = _find_tokens(model)
    image = black(model, size_px)
    patches: list[Tensor] = []
    embedding = model.get_submodule(tokens.embedding)
    with (
        torch.no_grad(),
        recorded_attention(model) as layers,
        following_fields(image) as field_of,
        embedding.register_forward_hook(lambda _, __, output: patches.append(output)),
    ):
        model(image)
    if len(layers) < len(attention_layers(model)):
        raise UnexplainableError(f"attention: some layers of {name} do not show their weights")
    for weights in layers:
        if weights.shape[-2:] != (tokens.num_all, tokens.num_all):
            raise UnexplainableError(
                f"attention: a layer of {name} has weights {tuple(weights.shape[-2:])}, expected every layer to attend "
                f"over all {tokens.num_all} tokens"
            )
        if weights.min() < 0 or not torch.allclose(weights.sum(dim=-1), weights.new_ones(()), atol=1e-2):
            raise UnexplainableError(f"attention: the weights of a layer of {name} are no shares that sum to 1")
    return Attention(model, tokens, Places.of_field(field_of(patches[0])) or Places.even(tokens.grid, size_px))


def _find_tokens(model: nn.Module) -> Tokens:
    if isinstance(model, torchvision.models.VisionTransformer):
        side = model.image_size // model.patch_size
        return Tokens(num_prefix=1, grid=(side, side), num_read=1, pooling="token", embedding="conv_proj")
    num_prefix = getattr(model, "num_prefix_tokens", None)
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if num_prefix is None or grid is None:
        raise UnexplainableError(f"attention: {type(model).__name__} does not say which of its tokens are patches")
    pooling = str(getattr(model, "global_pool", ""))
    # A model that was distilled has a head on a token of its own too, and answers by the mean of both heads.
    num_heads = 2 if getattr(model, "head_dist", None) is not None else 1
    return Tokens(
        num_prefix=num_prefix,
        grid=(grid[0], grid[1]),
        num_read=num_heads if num_prefix and pooling == "token" else 0,
        pooling=pooling,
        embedding="patch_embed",
    )
