"""What a run ran on: hardware and versions, for its record and for every figure that is measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from dogs_accel.runtime.precision import describe_numerics
from dogs_accel.runtime.threads import describe_waiting
from pipelines.cores import available_cores, cpu_quota

_PACKAGES = (
    "dogs-accel", "torch", "torchvision", "nvidia-dali-cuda120", "nvidia-dali-cuda130", "timm", "numpy", "pandas",
    "scikit-learn", "scipy", "matplotlib", "pillow", "wandb",
)  # fmt: skip


def describe_environment() -> dict[str, Any]:
    """Collect hardware, versions, the number settings of torch and how its threads wait."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": available_cores(),
        "cpu_quota": cpu_quota(),
        "memory_gib": _memory_gib(),
        "gpus": [_describe_gpu(i) for i in range(torch.cuda.device_count())],
        "torch_cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        "numerics": describe_numerics(),
        "threads": {"torch": torch.get_num_threads(), **describe_waiting()},
        "extension_cuda": _extension_status(),
        "packages": {name: package_version(name) for name in _PACKAGES},
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def cpu_name() -> str:
    """Name the processor."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _extension_status() -> str:
    """What the compiled operators say of themselves, or why they are absent: a machine may be described first."""
    try:
        from dogs_accel import ops
    except ImportError as error:
        return str(error)
    return ops.cuda_status()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _describe_gpu(index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    return {
        "name": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "compute_capability": f"{properties.major}.{properties.minor}",
    }


def package_version(package: str) -> str | None:
    """Version of an installed package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
