"""Builds the two libraries of `csrc/`; the metadata is in pyproject.toml.

`dogs_accel/_C.abi3.so` holds the operator schemas and the CPU kernels and is always built. `dogs_accel/_C_cuda.abi3.so`
holds the CUDA kernels; it is built when torch has CUDA and a toolkit of the same major version is found, with or
without a GPU in the machine. Both use the LibTorch stable ABI only, so one build serves every torch from 2.11 on.

    DOGS_ACCEL_CUDA=0|1     never | always build the CUDA library (1 without a usable toolkit is an error)
    CUDA_HOME               the toolkit; otherwise the one of the nvcc on PATH
    TORCH_CUDA_ARCH_LIST    GPU architectures, such as "9.0" or "8.0;9.0+PTX"
    MAX_JOBS                parallel compilations, 2 unless set
    DOGS_ACCEL_COMPILE=0    install the Python alone, where `build_ext --inplace` compiles the libraries beside it
    DOGS_ACCEL_SANITIZE     sanitizers of gcc, such as "address,undefined", for `make sanitize`: `build_ext` then builds
                            the CPU library only, into build/sanitize/, and `dogs_accel.ops` takes it from the folder
                            that DOGS_ACCEL_LIBRARIES names
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

TORCH_TARGET_VERSION = "0x020b000000000000"  # 2.11: use of anything newer fails to compile
OLDEST_ARCH = 80
SANITIZERS = ("address", "undefined")


@dataclass(frozen=True, kw_only=True)
class Toolkit:
    """A CUDA toolkit: where it is, its version such as "13.0", and the architectures its nvcc compiles for."""

    home: Path
    version: str
    archs: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CudaDecision:
    """Whether the CUDA library is built, and why."""

    build: bool
    why: str


def run_nvcc(nvcc: Path | str, *arguments: str) -> str:
    """Return what nvcc prints; `--dryrun` goes to stderr and everything else to stdout."""
    result = subprocess.run([str(nvcc), *arguments], capture_output=True, text=True, check=False)
    return result.stdout + result.stderr


def toolkit_of_nvcc(nvcc: str, run: Callable[..., str] = run_nvcc) -> Path:
    """Return the toolkit that an nvcc on PATH belongs to.

    The file on PATH may be a script that starts the real nvcc elsewhere, so the answer is what nvcc itself says in a
    dry run (TOP, or the folder above _HERE_). Only if it says nothing is the location of the file taken.
    """
    said = dict(re.findall(r"^#\$ (TOP|_HERE_)=(.+)$", run(nvcc, "--dryrun", "none.cu"), flags=re.MULTILINE))
    if "TOP" in said:
        return Path(os.path.normpath(said["TOP"].strip()))
    if "_HERE_" in said:
        return Path(said["_HERE_"].strip()).parent
    return Path(nvcc).resolve().parent.parent


def find_toolkit(
    environ: Mapping[str, str],
    which: Callable[[str], str | None] = shutil.which,
    run: Callable[..., str] = run_nvcc,
) -> Toolkit | str:
    """Return the CUDA toolkit to compile with, or the reason why there is none."""
    if environ.get("CUDA_HOME"):
        home = Path(environ["CUDA_HOME"])
    elif nvcc_on_path := which("nvcc"):
        home = toolkit_of_nvcc(nvcc_on_path, run)
    else:
        return "CUDA_HOME is not set and there is no nvcc on PATH"
    nvcc = home / "bin" / "nvcc"
    if not nvcc.is_file():
        return f"{nvcc} does not exist"
    release = re.search(r"release (\d+\.\d+)", run(nvcc, "--version"))
    archs = re.findall(r"^compute_(\d+)$", run(nvcc, "--list-gpu-arch"), flags=re.MULTILINE)
    if release is None or not archs:
        return f"{nvcc} does not work"
    return Toolkit(home=home, version=release.group(1), archs=tuple(sorted({int(arch) for arch in archs})))


def decide_cuda(request: str | None, torch_cuda: str | None, toolkit: Toolkit | str) -> CudaDecision:
    """Decide whether to build the CUDA library.

    `request` is the value of DOGS_ACCEL_CUDA and `torch_cuda` that of torch.version.cuda. Raises SystemExit with one
    line if the request is neither 0 nor 1, or is 1 and cannot be met.
    """
    if request not in (None, "", "0", "1"):
        raise SystemExit(f"DOGS_ACCEL_CUDA: got {request!r}, expected 0, 1 or nothing")
    if request == "0":
        return CudaDecision(build=False, why="DOGS_ACCEL_CUDA=0")
    if torch_cuda is None:
        obstacle = "this torch is a CPU-only build"
    elif isinstance(toolkit, str):
        obstacle = toolkit
    elif toolkit.version.split(".")[0] != torch_cuda.split(".")[0]:
        obstacle = f"the toolkit at {toolkit.home} is CUDA {toolkit.version} and torch is built for {torch_cuda}"
    else:
        return CudaDecision(build=True, why=f"CUDA {toolkit.version} at {toolkit.home}")
    if request == "1":
        raise SystemExit(f"DOGS_ACCEL_CUDA=1, but the CUDA library cannot be built: {obstacle}")
    return CudaDecision(build=False, why=obstacle)


def default_archs(available: tuple[int, ...]) -> tuple[int, ...]:
    """Return the architectures to compile for: the first of each generation from Ampere on.

    Code for 8.0 runs on 8.6 and 8.9 too, code for 10.0 on 10.3, and so on within a generation.
    """
    archs = tuple(arch for arch in available if arch >= OLDEST_ARCH and arch % 10 == 0)
    return archs or available[-1:]


def arch_flags(archs: tuple[int, ...]) -> list[str]:
    """Return nvcc's flags for machine code of every architecture, and PTX of the newest for those still to come."""
    flags = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    return [*flags, f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}"]


def is_compiled(request: str | None) -> bool:
    """Return whether the libraries are built, for the value of DOGS_ACCEL_COMPILE.

    Raises SystemExit with one line for a value other than 0 and 1.
    """
    if request not in (None, "", "0", "1"):
        raise SystemExit(f"DOGS_ACCEL_COMPILE: got {request!r}, expected 0, 1 or nothing")
    return request != "0"


def sanitizer_flags(request: str | None) -> list[str]:
    """Return the flags of gcc for the value of DOGS_ACCEL_SANITIZE, none where it is not set.

    Raises SystemExit with one line for an unknown sanitizer.
    """
    if not request:
        return []
    unknown = set(request.split(",")) - set(SANITIZERS)
    if unknown:
        raise SystemExit(f"DOGS_ACCEL_SANITIZE: got {request!r}, expected some of {','.join(SANITIZERS)}")
    flags = [f"-fsanitize={request}"]
    if "undefined" in request.split(","):
        # Python was compiled with -fwrapv and passes that on, which would make every signed overflow a defined one.
        flags += ["-fno-wrapv", "-fsanitize=float-cast-overflow"]
    # A finding ends the process, since a test that goes on past one would pass. -g1 puts lines into the report.
    return [*flags, "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O2", "-g1"]


def main() -> None:
    """Decide what to build, say so when it is built, and hand over to setuptools."""
    if not is_compiled(os.environ.get("DOGS_ACCEL_COMPILE")):
        from setuptools import setup

        setup()
        return
    toolkit = find_toolkit(os.environ)
    if isinstance(toolkit, Toolkit):
        os.environ["CUDA_HOME"] = str(toolkit.home)  # before torch looks for a toolkit its own way
    os.environ.setdefault("MAX_JOBS", "2")

    import torch
    from setuptools import setup
    from torch.utils import cpp_extension

    sanitizers = os.environ.get("DOGS_ACCEL_SANITIZE")
    sanitizing = sanitizer_flags(sanitizers)
    decision = decide_cuda("0" if sanitizing else os.environ.get("DOGS_ACCEL_CUDA"), torch.version.cuda, toolkit)
    headers = sorted(str(path) for path in Path("csrc").rglob("*.h"))
    common_flags = [f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}", "-std=c++20", "-O3"]
    # The CPU and CUDA kernels promise the same bits, so a multiply-add is fused where the source says so and nowhere
    # else. File names in messages are those of the source tree, not of the machine that built it.
    same_bits, own_paths = "-ffp-contract=off", f"-fmacro-prefix-map={Path.cwd()}/="
    cxx_flags = [
        *common_flags,
        same_bits,
        own_paths,
        "-fvisibility=hidden",
        "-g0",
        "-Wall",
        "-Wextra",
        "-Wno-unused-parameter",
        "-Wno-psabi",
    ]
    # gcc would make calls of memset and memcpy of loops over the 32 lanes of a row, slower than the loops.
    cxx_flags += ["-fno-tree-loop-distribute-patterns", *sanitizing]
    nvcc_flags = [*common_flags, "--fmad=false", f"-Xcompiler={own_paths}", "-DUSE_CUDA", "--expt-relaxed-constexpr"]
    nvcc_flags.append("--threads=2")
    extensions = [
        cpp_extension.CppExtension(
            "dogs_accel._C",
            [
                "csrc/ops.cpp",
                "csrc/cpu/augment.cpp",
                "csrc/cpu/batch_memory.cpp",
                "csrc/cpu/calibration.cpp",
                "csrc/cpu/class_calibration.cpp",
                "csrc/cpu/image_stats.cpp",
                "csrc/cpu/instruction_sets.cpp",
                "csrc/cpu/squash.cpp",
                *(["csrc/cpu/planted_faults.cpp"] if sanitizing else []),
            ],
            depends=headers,
            extra_compile_args={"cxx": cxx_flags},
            extra_link_args=[f"-fsanitize={sanitizers}"] if sanitizing else [],
            py_limited_api=True,
        )
    ]
    message = f"dogs_accel: building the CPU library only: {decision.why}"
    if decision.build and isinstance(toolkit, Toolkit):
        cpp_extension.CUDA_HOME = str(toolkit.home)
        chosen = os.environ.get("TORCH_CUDA_ARCH_LIST")
        archs = default_archs(toolkit.archs)
        message = f"dogs_accel: building the CPU and the CUDA library: {decision.why}, " + (
            f"TORCH_CUDA_ARCH_LIST={chosen}" if chosen else f"sm_{' sm_'.join(map(str, archs))} and PTX"
        )
        extensions.append(
            cpp_extension.CUDAExtension(
                "dogs_accel._C_cuda",
                [
                    "csrc/cuda/augment.cu",
                    "csrc/cuda/calibration.cu",
                    "csrc/cuda/class_calibration.cu",
                    "csrc/cuda/image_stats.cu",
                    "csrc/cuda/squash.cu",
                ],
                depends=headers,
                extra_compile_args={"nvcc": nvcc_flags if chosen else [*nvcc_flags, *arch_flags(archs)]},
                py_limited_api=True,
            )
        )

    options: dict[str, dict[str, str]] = {"bdist_wheel": {"py_limited_api": "cp310"}}
    if sanitizing:
        message = f"dogs_accel: building the CPU library only: DOGS_ACCEL_SANITIZE={sanitizers}"
        options["build"] = {"build_base": "build/sanitize", "build_lib": "build/sanitize"}

    class BuildExtension(cpp_extension.BuildExtension):
        def run(self) -> None:
            if sanitizing and self.inplace:
                raise SystemExit("DOGS_ACCEL_SANITIZE: got --inplace too, which would replace the library of every day")
            print(message, flush=True)
            super().run()

    setup(
        ext_modules=extensions,
        cmdclass={"build_ext": BuildExtension},
        options=options,
    )


if __name__ == "__main__":
    main()
