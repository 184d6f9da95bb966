"""Mixed precision: which number type, and the context that applies it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch

AMP_CHOICES = ("auto", "off", "bf16", "fp16")
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
