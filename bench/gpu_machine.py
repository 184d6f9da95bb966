"""`python -m bench.gpu_machine FILE`: hardware, driver and versions as JSON, and what each need of the parts lacks."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import tomllib
import torch

from dogs_accel.runtime.environment import describe_environment, package_version
from dogs_accel.runtime.files import write_json
from pipelines.make import has_dali

ROOT = Path(__file__).parents[1]
_SMI_FIELDS = ("name", "driver_version", "power.limit", "clocks.max.sm", "clocks.max.memory", "memory.total")
_SMI_SECONDS = 20
_PILLOW = 13
"""The oldest Pillow that resizes with the bits that the operators' tests expect."""


def main() -> None:
    """Write the file and print what of it people read."""
    environment = describe_environment() | {"nvidia_smi": ask_nvidia_smi(), "command": None}
    obstacles, missing = find_obstacles(), missing_packages()
    gpus = [gpu["name"] for gpu in environment["gpus"]]
    headline = f"{', '.join(gpus) or 'no GPU'}, {environment['cores']} cores"
    if missing:
        headline += f"; missing: {', '.join(missing)}"
    if not has_the_pillow():
        headline += f"; Pillow {package_version('pillow')}: tests fail that expect the bits of {_PILLOW}"
    write_json(
        Path(sys.argv[1]),
        {"headline": headline, "environment": environment, "obstacles": obstacles, "missing_packages": missing},
    )
    print(headline)
    for need, why in obstacles.items():
        print(f"{need}: {why}")


def ask_nvidia_smi() -> list[dict[str, str]] | str:
    """Driver, limits and clocks of each GPU as nvidia-smi has them, or why it has none."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_SMI_FIELDS)}", "--format=csv,noheader"]
    if shutil.which(command[0]) is None:
        return "nvidia-smi is not on PATH"
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SMI_SECONDS)
    except subprocess.TimeoutExpired:
        return f"nvidia-smi does not answer within {_SMI_SECONDS} s"
    if done.returncode != 0:
        return f"nvidia-smi: {(done.stdout + done.stderr).strip()}"
    return [dict(zip(_SMI_FIELDS, line.split(", "), strict=False)) for line in done.stdout.splitlines()]


def missing_packages() -> list[str]:
    """Packages that the project depends on and that are not installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[^\w-]", each)[0] for each in project["dependencies"]]
    # DALI's package is named for a CUDA version, and that of another one will do.
    return [name for name in names if not (has_dali() if "dali" in name else package_version(name))]


def has_the_pillow() -> bool:
    """Whether Pillow is not too old for the tests."""
    return int((package_version("pillow") or "0").partition(".")[0]) >= _PILLOW


def find_obstacles() -> dict[str, str]:
    """Why the parts that need something cannot run here, by what they need; nothing where all is there."""
    found = {"gpu": why_no_gpu(), "toolkit": why_no_toolkit(), "dali": why_no_dali()}
    return {need: why for need, why in found.items() if why is not None}


def why_no_gpu() -> str | None:
    """Why torch cannot compute on a GPU."""
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no CUDA device"
    try:
        if torch.ones(3, device="cuda").sum().item() == 3:
            return None
    except RuntimeError as error:
        return f"torch cannot compute on its CUDA device: {error}"
    return "torch adds wrongly on its CUDA device"


def why_no_toolkit() -> str | None:
    """Why setup.py would not build the CUDA library."""
    setup = load_setup()
    decision = setup.decide_cuda(None, torch.version.cuda, setup.find_toolkit(os.environ))
    return None if decision.build else decision.why


def load_setup() -> ModuleType:
    """Load setup.py, which builds nothing when it is imported."""
    spec = importlib.util.spec_from_file_location("dogs_accel_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look for their module there
    spec.loader.exec_module(module)
    return module


def why_no_dali() -> str | None:
    """Why DALI cannot be imported."""
    if not has_dali():
        return "nvidia.dali is not installed"
    try:
        importlib.import_module("nvidia.dali.fn")
    except (ImportError, OSError) as error:
        return f"nvidia.dali cannot be imported: {error}"
    return None


if __name__ == "__main__":
    main()
