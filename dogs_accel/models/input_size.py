"""Whether a model can have images of a size, and whether it looks at all of their pixels."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor, nn

from dogs_accel.models.build import build_model
from dogs_accel.models.names import VitOptions, parse_model_name
from dogs_accel.models.specs import ModelSpec, model_spec

_STEPS_PX = (14, 16, 32, 56)
"""Sides of patches and windows: multiples of them are tried where a size cannot be."""
_NAMED = 2


@dataclasses.dataclass(frozen=True)
class _Seen:
    """What the first convolution of a model looks at."""

    unseen_px: int = 0
    """Rows and columns, at the lower and the right edge, that it looks at in no place."""
    step_px: int = 1


def describe_input_size(spec: ModelSpec) -> str | None:
    """Say in one line which pixels a model does not look at, as where patches do not divide its input; None if all.

    Raises ValueError, which names sizes that work, where the model cannot have images of its size.
    """
    try:
        seen = _what_is_seen(spec)
    except ValueError as error:
        raise ValueError(f"{error}; {_sizes_that_work(spec)}") from error
    if not seen.unseen_px:
        return None
    whole = spec.image_size - seen.unseen_px
    return (
        f"{spec.display} at {spec.image_size} px does not see the last {seen.unseen_px} px of rows and columns, which "
        f"it goes over in steps of {seen.step_px} px; {whole} and {whole + seen.step_px} px are seen whole"
    )


@functools.cache
def _what_is_seen(spec: ModelSpec) -> _Seen:
    """Run a model on one image. Raises ValueError where that cannot be."""
    try:
        return _run_on("meta", spec)
    except NotImplementedError:
        return _run_on("cpu", spec)


@functools.cache
def refuses_one_image(spec: ModelSpec) -> bool:
    """Whether a BatchNorm gets a single value a channel where a model trains on one image, which torch refuses."""
    for device in ("meta", "cpu"):
        try:
            _run_on(device, spec, is_training=True)
        except NotImplementedError:
            continue
        except ValueError as error:
            return "more than 1 value per channel" in str(error)
        return False
    return False


def _run_on(device: str, spec: ModelSpec, *, is_training: bool = False) -> _Seen:
    """Run a model on one image.

    Raises ValueError where that cannot be, NotImplementedError where the meta device cannot say: for a model that reads
    values or has an operator without a meta kernel.
    """
    seen: list[_Seen] = []

    def look(layer: nn.Conv2d, _: Any, output: Tensor) -> None:
        if not seen:
            seen.append(_seen_by(layer, output.shape[-1], spec.image_size))

    with torch.random.fork_rng(devices=[]), torch.device(device):
        model = build_model(spec, 2, "none").model.train(is_training)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(look)
        try:
            with torch.inference_mode():
                model(torch.zeros(1, 3, spec.image_size, spec.image_size, dtype=torch.float32))
        except Exception as error:  # models check their input as they please
            if device == "meta" and (isinstance(error, NotImplementedError) or "meta" in str(error).lower()):
                raise NotImplementedError(str(error)) from error
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ValueError(f"models: cannot run {spec.name} at {spec.image_size} px ({reason})") from error
    return seen[0] if seen else _Seen()


def _seen_by(layer: nn.Conv2d, num_places: int, size_px: int) -> _Seen:
    """Count what a convolution over an image leaves out at its end."""
    if layer.in_channels != 3 or isinstance(layer.padding, str):
        return _Seen()
    step_px, kernel_px = layer.stride[-1], layer.dilation[-1] * (layer.kernel_size[-1] - 1) + 1
    end_px = (num_places - 1) * step_px + kernel_px - layer.padding[-1]
    return _Seen(max(0, size_px - end_px), step_px)


def _sizes_that_work(spec: ModelSpec) -> str:
    size, network = spec.image_size, parse_model_name(spec.name).network
    steps = (network.patch,) if isinstance(network, VitOptions) else _STEPS_PX
    near = {size // step * step + more * step for step in steps for more in range(3)}
    whole: list[int] = []
    partly: list[int] = []
    for px in sorted(near - {0, size}, key=lambda px: (abs(px - size), px)):
        try:
            seen = _run_on("meta", dataclasses.replace(spec, image_size=px))  # for a guess that takes no time
        except (ValueError, NotImplementedError):
            continue
        (partly if seen.unseen_px else whole).append(px)
        if len(whole) == _NAMED:
            break
    works = [f"{', '.join(map(str, sorted(whole or partly[:_NAMED])))} px work"] if whole or partly else []
    own = model_spec(spec.name).image_size
    return ", ".join(works + [f"its own size is {own} px"] * (own != size)) or "no other was found"
