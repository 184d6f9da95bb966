"""`python -m bench.gpu_machine FILE [--build]`: hardware, driver and versions as JSON, and what the parts lack here.

With --build both libraries of the extension are built in place before, for the GPU that is there.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

import torch

from dogs_accel.runtime.environment import describe_environment
from dogs_accel.runtime.files import write_json

ROOT = Path(__file__).parents[1]
_SMI_FIELDS = ("name", "driver_version", "power.limit", "clocks.max.sm", "clocks.max.memory", "memory.total")
_SMI_SECONDS = 20
_PILLOW = 13
"""The oldest Pillow that resizes with the bits that the operators' tests expect."""


def main() -> None:
    """Write the file and print what of it people read; fail where what was built does not load."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_machine", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--build", action="store_true")
    chosen = parser.parse_args()
    if chosen.build:
        build_extension()
    environment = describe_environment() | {"nvidia_smi": ask_nvidia_smi(), "command": None}
    obstacles = {need: why for need, why in (("gpu", why_no_gpu()), ("dali", why_no_dali())) if why is not None}
    names, kernels = [gpu["name"] for gpu in environment["gpus"]], environment["extension_cuda"]
    headline = f"{', '.join(names) or 'no GPU'}, {environment['cores']} cores; {kernels}"
    headline += warn_of_pillow(environment["packages"]["pillow"])
    write_json(chosen.file, {"headline": headline, "environment": environment, "obstacles": obstacles})
    print("\n".join([headline, *obstacles.values()]))
    if chosen.build and not kernels.startswith("CUDA kernels loaded"):
        sys.exit("the CUDA library was built and does not load")


def build_extension() -> None:
    """Build for the first GPU, unless TORCH_CUDA_ARCH_LIST names others. Raises CalledProcessError."""
    arch = "{}.{}".format(*torch.cuda.get_device_capability(0))
    jobs = str(len(os.sched_getaffinity(0)))
    environ = {"TORCH_CUDA_ARCH_LIST": arch, "MAX_JOBS": jobs, **os.environ, "DOGS_ACCEL_CUDA": "1"}
    subprocess.run([sys.executable, "setup.py", "build_ext", "--inplace"], cwd=ROOT, env=environ, check=True)


def ask_nvidia_smi() -> list[dict[str, str]] | str:
    """Driver, limits and clocks of each GPU as nvidia-smi has them, or why it has none."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_SMI_FIELDS)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SMI_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return [dict(zip(_SMI_FIELDS, line.split(", "), strict=False)) for line in done.stdout.splitlines()]


def warn_of_pillow(version: str | None) -> str:
    """Say that tests will fail with an old Pillow, or nothing."""
    is_old = int((version or "0").partition(".")[0]) < _PILLOW
    return f"; Pillow {version}: tests fail that expect the bits of {_PILLOW}" if is_old else ""


def why_no_gpu() -> str | None:
    """Why torch cannot compute on a GPU."""
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no CUDA device"
    try:
        found = torch.ones(3, device="cuda").sum().item()
    except RuntimeError as error:
        return f"torch cannot compute on its CUDA device: {error}"
    return None if found == 3 else "torch adds wrongly on its CUDA device"


def why_no_dali() -> str | None:
    """Why DALI cannot be imported."""
    try:
        importlib.import_module("nvidia.dali.fn")
    except (ImportError, OSError) as error:
        return f"nvidia.dali cannot be imported: {error}"
    return None


if __name__ == "__main__":
    main()
