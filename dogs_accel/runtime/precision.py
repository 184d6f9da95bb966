"""Number types: mixed precision, TF32, and the kernels that give the same bits again."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

import torch

from dogs_accel.runtime.arguments import AMP_CHOICES

_AMPERE = (8, 0)
"""The first compute capability with bf16 of its own; torch emulates it on older ones, slowly."""


def amp_dtype(choice: str, device: torch.device) -> torch.dtype | None:
    """Number type of mixed precision, or None for plain float32.

    "auto" is bf16 on a GPU that has it, else fp16; on a CPU it is off. Raises ValueError for what the device lacks.
    """
    if choice not in AMP_CHOICES:
        raise ValueError(f"amp: got {choice!r}, expected one of {', '.join(AMP_CHOICES)}")
    if choice == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= _AMPERE else torch.float16
    if choice == "fp16" and device.type != "cuda":
        raise ValueError("amp: fp16 needs a CUDA device; bf16 and off work on a CPU")
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[choice]


def autocast(device: torch.device, dtype: torch.dtype | None) -> Any:
    """Context of mixed precision, or one that does nothing."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def set_numerics(*, tf32: bool = False, deterministic: bool = False) -> None:
    """Set for the whole process, before a GPU is used, what torch otherwise leaves to its version's defaults.

    tf32 lets float32 convolutions and matrix products round their factors to 10 bits, on GPUs that can. deterministic
    takes only kernels that give the same bits again, attention as matrix products among them, and warns of operations
    that have none; without it cuDNN tries its kernels and takes the fastest.
    """
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    if torch.cuda.is_available():
        # Where torch only warns, the backward of its fused kernels gives other bits each time.
        torch.backends.cuda.enable_flash_sdp(not deterministic)
        torch.backends.cuda.enable_mem_efficient_sdp(not deterministic)
        torch.backends.cuda.enable_cudnn_sdp(not deterministic)


def describe_numerics() -> dict[str, Any]:
    """Read the settings in force."""
    return {
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "tf32_convolution": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cpu_threads": torch.get_num_threads(),
    }
