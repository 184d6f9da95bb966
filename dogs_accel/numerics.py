"""Settings of torch that change the numbers of float32: TF32, the choice of kernels, determinism."""

from __future__ import annotations

import os
from typing import Any

import torch


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
