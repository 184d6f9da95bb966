"""Floating-point operations of a model, and how many a second a GPU can do at most.

FLOPs throughout: one multiply-accumulate is two. Papers and torchvision's tables often print multiply-accumulates
(MACs) and call them FLOPs: ResNet-50 at 224 px has 4.09 GMACs, which are 8.18 GFLOPs.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from dogs_accel.models import MODES
from dogs_accel.models.build import build_model
from dogs_accel.models.freezing import set_trainable_stage
from dogs_accel.models.specs import ModelSpec

_BATCH = 2
"""Images that are counted at once: BatchNorm in train mode refuses a single value a channel."""


@dataclass(frozen=True)
class ModelFlops:
    """Floating-point operations an image; one multiply-accumulate is two."""

    forward: int
    training: int
    """Forward and backward of a training step; the optimiser's own are not an image's."""


def count_flops(
    spec: ModelSpec, num_classes: int, mode: str, num_groups: int = 0, groups: Sequence[str] = ()
) -> ModelFlops:
    """Count the operations of a model's matrix products and convolutions, in a phase's mode.

    num_groups and groups are those of partial_finetune, as `freezing.trained_names` takes them.

    What is cheap beside them (biases, norms, activations, the loss) is left out, as usual. The model is built on
    torch's meta device, which knows shapes and no values, so this takes neither memory nor time; one that needs values
    runs on the CPU. The global random state stays as it is. Raises ValueError for an unknown mode or model.
    """
    if mode not in MODES:
        raise ValueError(f"mode: got {mode!r}, expected one of {', '.join(MODES)}")
    try:
        return _count_on("meta", spec, num_classes, mode, num_groups, groups)
    except RuntimeError:  # an operator without a meta kernel, or a value that is read
        return _count_on("cpu", spec, num_classes, mode, num_groups, groups)


@functools.cache
def count_macs(spec: ModelSpec, num_classes: int) -> int:
    """Count the multiply-accumulates of the forward of one image, in evaluation, of a model with so many classes.

    Those of convolutions and matrix products, attention's among them; what is left out, and where the model is built,
    is as in `count_flops`. Raises ValueError for an unknown model.
    """
    try:
        return _count_forward_on("meta", spec, num_classes)
    except RuntimeError:  # as in count_flops
        return _count_forward_on("cpu", spec, num_classes)


def forward_macs(model: nn.Module, images: torch.Tensor) -> int:
    """Count the multiply-accumulates of a forward of images (B, 3, H, W), all together, in the mode that it is in."""
    with counting_macs() as counted, torch.no_grad():
        model(images)
        return counted()


@contextmanager
def counting_macs() -> Iterator[Callable[[], int]]:
    """Give a function that says how many multiply-accumulates there have been in the block so far."""
    counter = FlopCounterMode(display=False)
    fused = torch.backends.mha.get_fastpath_enabled()
    # In eval mode nn.MultiheadAttention and nn.TransformerEncoderLayer take one operator for all of their products,
    # which the counter cannot look into.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with counter, sdpa_kernel(SDPBackend.MATH):
            yield lambda: int(counter.get_total_flops()) // 2
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _count_forward_on(device: str, spec: ModelSpec, num_classes: int) -> int:
    with torch.random.fork_rng(devices=[]), torch.device(device):
        model = build_model(spec, num_classes, "none").model.eval()
        return forward_macs(model, torch.zeros(1, 3, spec.image_size, spec.image_size))


def _count_on(
    device: str, spec: ModelSpec, num_classes: int, mode: str, num_groups: int, groups: Sequence[str]
) -> ModelFlops:
    with torch.random.fork_rng(devices=[]):
        with torch.device(device):
            model = build_model(spec, num_classes, "none").model
        set_trainable_stage(model, mode, num_groups, groups)
        images = torch.zeros(_BATCH, 3, spec.image_size, spec.image_size, device=device)
        return _count_step(model, images)


def _count_step(model: nn.Module, images: torch.Tensor) -> ModelFlops:
    """Count one training step on images (B, 3, H, W)."""
    # In eval mode torchvision's ViT takes one fused operator for a whole layer, which the counter cannot look into.
    model.train()
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward_flops}
    )
    # A fused attention computes its products again in the backward; that is a kernel's choice, not the model's work.
    with counter, sdpa_kernel(SDPBackend.MATH):
        logits = model(images)
        forward = counter.get_total_flops()
        logits.sum().backward()
    return ModelFlops(forward // len(images), counter.get_total_flops() // len(images))


def _convolution_backward_flops(
    grad_shape: Sequence[int],
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    bias_sizes: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
    **_: Any,
) -> int:
    """Operations of a convolution's backward: as many as its forward for the input's gradient, and for the weight's.

    torch's own formula (up to 2.15 at least) forgets the groups in the weight's gradient, which makes the backward of
    a depthwise convolution as dear as that of a full one: EfficientNet-Lite0's by 20 times.
    """
    forward = conv_flop_count(list(x_shape), list(weight_shape), list(grad_shape), transposed=transposed)
    return forward * (output_mask[0] + output_mask[1])


@dataclass(frozen=True, kw_only=True)
class PeakTflops:
    """Dense peak of a GPU in 10^12 floating-point operations a second; None where it has no units for the type."""

    fp16: float
    bf16: float | None
    tf32: float | None
    fp32: float


def _ampere(half: float, tf32: float, fp32: float) -> PeakTflops:
    return PeakTflops(fp16=half, bf16=half, tf32=tf32, fp32=fp32)


def _volta(half: float, fp32: float) -> PeakTflops:
    return PeakTflops(fp16=half, bf16=None, tf32=None, fp32=fp32)


PEAK_TFLOPS: dict[str, PeakTflops] = {
    r"B200": _ampere(2250, 1100, 75),
    r"H200": _ampere(989.4, 494.7, 66.9),
    r"H200 NVL": _ampere(835.5, 417.5, 60),
    r"H100 80GB HBM3": _ampere(989.4, 494.7, 66.9),
    r"H100 PCIe": _ampere(756, 378, 51.2),
    r"H100 NVL": _ampere(835.5, 417.5, 60),
    r"A100-SXM4-(40|80)GB|A100-PCIE-40GB|A100 80GB PCIe": _ampere(312, 156, 19.5),
    r"A30": _ampere(165, 82, 10.3),
    r"A10": _ampere(125, 62.5, 31.2),
    r"A40": _ampere(149.7, 74.8, 37.4),
    r"L4": _ampere(121, 60, 30.3),
    r"L40": _ampere(181.05, 90.5, 90.5),
    r"L40S": _ampere(362.05, 183, 91.6),
    r"V100-SXM2-(16|32)GB": _volta(125, 15.7),
    r"V100-PCIE-(16|32)GB": _volta(112, 14),
    r"V100S-PCIE-32GB": _volta(130, 16.4),
    r"T4": _volta(65, 8.1),
}
"""By the whole name that torch gives a GPU, less the maker's: NVIDIA's data sheets and architecture papers, without
the sparsity that many of their figures include. The SXM, PCIe and NVL forms of a chip differ in clock and in units. A
slice of a GPU (MIG) has a name of its own and is unknown here."""


def peak_flops(device: torch.device, amp: torch.dtype | None, tf32: bool) -> float | None:
    """Dense peak of a device in floating-point operations a second, for the number type that it multiplies.

    amp is the type of mixed precision, None for float32, which tf32 lets a GPU that can round to TF32. None where the
    peak is unknown: on a CPU, on a GPU that is not in PEAK_TFLOPS, and for a type that the GPU only emulates.
    """
    if device.type != "cuda":
        return None
    name = re.sub(r"^(NVIDIA|Tesla) ", "", torch.cuda.get_device_name(device))
    peak = next((peak for pattern, peak in PEAK_TFLOPS.items() if re.fullmatch(pattern, name)), None)
    if peak is None:
        return None
    if amp is None:
        tflops: float | None = peak.tf32 if tf32 and peak.tf32 is not None else peak.fp32
    else:
        tflops = {torch.float16: peak.fp16, torch.bfloat16: peak.bf16}[amp]
    return None if tflops is None else tflops * 1e12
