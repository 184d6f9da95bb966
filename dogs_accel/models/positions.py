"""Tables of positions, whose size depends on that of the input, made to fit another one as timm does."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torchvision
from torch import Tensor, nn

_ABSOLUTE = ("pos_embed", "encoder.pos_embedding")
"""Positions of the patches of an image, (1, prefix + patches, width): of timm's transformers and of torchvision's."""
_RELATIVE = "relative_position_bias_table"
"""Biases of attention by the distance of two patches in a window: of Swin, BEiT and MaxViT."""
_COMPUTED = ("relative_position_index", "attn_mask")
"""Ends of names of tables that a model computes from its sizes, and that old files hold nevertheless."""


def fit_positions(model: nn.Module, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Resample what a state has for another input size than a model's; returns the state and what was done, in words.

    Absolute positions are resampled by timm's `resample_abs_pos_embed` and relative ones by its
    `resize_rel_pos_bias_table`, in float32. What is none of them, or of no size that could be, stays as it is. The
    words are empty where nothing was done.
    """
    own = model.state_dict()
    fitted = dict(state)
    for key in [key for key in {*state, *own} if key.endswith(_COMPUTED)]:
        fitted.pop(key, None)
        fitted |= {key: own[key]} if key in own else {}
    done: dict[str, int] = {}
    for key in [key for key in own if key in state and state[key].shape != own[key].shape]:
        resampled = None
        if key in _ABSOLUTE:
            resampled = _resample_absolute(model, state[key], own[key])
        elif key.endswith(f".{_RELATIVE}"):
            resampled = _resample_relative(model.get_submodule(key.removesuffix(f".{_RELATIVE}")), state[key], own[key])
        if resampled is not None:
            fitted[key], words = resampled
            done[words] = done.get(words, 0) + 1
    return fitted, ", ".join(f"{words}{f' in {count} layers' if count > 1 else ''}" for words, count in done.items())


def _resample_absolute(model: nn.Module, given: Tensor, own: Tensor) -> tuple[Tensor, str] | None:
    """Resample (1, prefix + patches, width); None where the model's or the file's patches are no grid."""
    grid = _grid(model)
    if grid is None or given.ndim != 3 or given.shape[::2] != own.shape[::2]:
        return None
    num_prefix = own.shape[1] - grid[0] * grid[1]
    side = math.isqrt(max(0, given.shape[1] - num_prefix))
    if num_prefix < 0 or side < 1 or side**2 + num_prefix != given.shape[1] or not given.is_floating_point():
        return None
    # Imported here: most models have no such table, and timm takes a second.
    from timm.layers.pos_embed import resample_abs_pos_embed

    resampled = resample_abs_pos_embed(given.float(), list(grid), num_prefix_tokens=num_prefix)
    return resampled, f"positions resampled from {side} x {side} to {grid[0]} x {grid[1]} patches"


def _grid(model: Any) -> tuple[int, int] | None:
    """Patches down and across, of a model that has them all in one table."""
    if isinstance(model, torchvision.models.VisionTransformer):
        side = model.image_size // model.patch_size
        return side, side
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    return None if grid is None else (grid[0], grid[1])


def _resample_relative(layer: Any, given: Tensor, own: Tensor) -> tuple[Tensor, str] | None:
    """Resample (distances + extra, heads) or (heads, distances down, across); None where it is no square of them."""
    window = getattr(layer, "window_size", None)
    if not isinstance(window, tuple) or given.ndim != own.ndim or not given.is_floating_point():
        return None
    heads_axis = 1 if own.ndim == 2 else 0
    if own.ndim not in (2, 3) or given.shape[heads_axis] != own.shape[heads_axis]:
        return None
    distances = (2 * window[0] - 1) * (2 * window[1] - 1)
    num_extra = len(own) - distances if own.ndim == 2 else 0
    side = math.isqrt(max(0, len(given) - num_extra)) if own.ndim == 2 else given.shape[1]
    is_square = side**2 + num_extra == len(given) if own.ndim == 2 else given.shape[1] == given.shape[2]
    if num_extra < 0 or side < 1 or side % 2 == 0 or not is_square:
        return None
    from timm.layers.pos_embed_rel import resize_rel_pos_bias_table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how timm indexes and searches, which changes nothing
        resampled = resize_rel_pos_bias_table(given.float(), new_window_size=window, new_bias_shape=tuple(own.shape))
    old = (side + 1) // 2
    return resampled, f"relative positions resampled from windows of {old} x {old} to {window[0]} x {window[1]}"
