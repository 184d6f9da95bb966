"""Whether a model can have images of a size, and whether it looks at all of their pixels."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor, nn

from dogs_accel.models.build import build_model
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
    except ValueError:  # also an operator without a meta kernel, or a value that is read
        return _run_on("cpu", spec)


@functools.cache
def refuses_one_image(spec: ModelSpec) -> bool:
    """Whether a BatchNorm gets a single value a channel where a model trains on one image, which torch refuses."""
    for device in ("meta", "cpu"):  # the CPU for a model that reads values or has an operator without a meta kernel
        try:
            _run_on(device, spec, is_training=True)
        except ValueError as error:
            if "more than 1 value per channel" in str(error):
                return True
        else:
            return False
    return False


def _run_on(device: str, spec: ModelSpec, *, is_training: bool = False) -> _Seen:
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
                model(torch.zeros(1, 3, spec.image_size, spec.image_size))
        except Exception as error:  # models check their input as they please
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
    size = spec.image_size
    near = {size // step * step + more for step in _STEPS_PX for more in (0, step)}
    works: list[int] = []
    for px in sorted(near - {0, size}, key=lambda px: (abs(px - size), px)):
        try:
            seen = _run_on("meta", dataclasses.replace(spec, image_size=px))  # for a guess that takes no time
        except ValueError:
            continue
        works += [px] * (not seen.unseen_px)
        if len(works) == _NAMED:
            break
    own = f"its own size is {model_spec(spec.name).image_size} px"
    return f"{', '.join(map(str, sorted(works)))} px work, {own}" if works else own
