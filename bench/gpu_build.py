"""`python -m bench.gpu_build FILE`: builds both libraries of the extension in place and loads them.

For the architecture of the GPU that is there, or else for Hopper's, unless TORCH_CUDA_ARCH_LIST names others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from dogs_accel.runtime.files import write_json
from pipelines.cores import available_cores

ROOT = Path(__file__).parents[1]
_HOPPER = "9.0"
_LOAD = "from dogs_accel import ops; print(ops.cuda_status())"


def main() -> None:
    """Build, load in a new process, and write the file; exit with the builder's status where it fails."""
    environ = dict(os.environ, DOGS_ACCEL_CUDA="1")
    environ.setdefault("TORCH_CUDA_ARCH_LIST", arch_of_the_gpu())
    environ.setdefault("MAX_JOBS", str(available_cores()))
    start = time.perf_counter()
    built = subprocess.run([sys.executable, "setup.py", "build_ext", "--inplace"], cwd=ROOT, env=environ, check=False)
    seconds = time.perf_counter() - start
    if built.returncode != 0:
        sys.exit(f"setup.py build_ext: exit status {built.returncode}")
    loaded = subprocess.run([sys.executable, "-c", _LOAD], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    status = loaded.stdout.strip()
    arch = environ["TORCH_CUDA_ARCH_LIST"]
    headline = f"{status or 'not loaded'}; built for {arch} in {seconds:.0f} s"
    write_json(Path(sys.argv[1]), {"headline": headline, "extension_cuda": status, "arch": arch, "seconds": seconds})
    print(headline)
    if loaded.returncode != 0 or not status.startswith("CUDA kernels loaded"):
        sys.exit("the CUDA library does not load")


def arch_of_the_gpu() -> str:
    """Compute capability of the first GPU, or Hopper's where there is none."""
    if not torch.cuda.is_available():
        return _HOPPER
    major, minor = torch.cuda.get_device_capability(0)
    return f"{major}.{minor}"


if __name__ == "__main__":
    main()
