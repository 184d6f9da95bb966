"""The decisions of setup.py: which toolkit, whether to build for CUDA, for which GPUs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def setup_py() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dogs_accel_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def make_toolkit(home: Path, version: str = "13.0", archs: str = "75 80 86 90 100 103 120") -> Path:
    """A folder with an nvcc that answers as the real one does."""
    nvcc = home / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    listed = "\n".join(f"compute_{arch}" for arch in archs.split())
    nvcc.write_text(
        f"""#!/bin/sh
case "$1" in
  --version) echo "Cuda compilation tools, release {version}, V{version}.1" ;;
  --list-gpu-arch) echo "{listed}" ;;
  --dryrun) echo '#$ _HERE_={nvcc.parent}' >&2; echo '#$ TOP={nvcc.parent}/..' >&2 ;;
esac
"""
    )
    nvcc.chmod(0o755)
    return nvcc


def test_cuda_home_comes_first(setup_py: ModuleType, tmp_path: Path) -> None:
    make_toolkit(tmp_path / "chosen", "12.8")
    other = make_toolkit(tmp_path / "other")
    toolkit = setup_py.find_toolkit({"CUDA_HOME": str(tmp_path / "chosen")}, which=lambda _: str(other))
    assert toolkit == setup_py.Toolkit(home=tmp_path / "chosen", version="12.8", archs=(75, 80, 86, 90, 100, 103, 120))


def test_wrapper_script_on_path_leads_to_the_real_toolkit(setup_py: ModuleType, tmp_path: Path) -> None:
    nvcc = make_toolkit(tmp_path / "cuda")
    wrapper = tmp_path / "bin" / "nvcc"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {nvcc} "$@"\n')
    wrapper.chmod(0o755)
    assert setup_py.find_toolkit({}, which=lambda _: str(wrapper)).home == tmp_path / "cuda"


def test_dry_run_without_top_or_without_anything(setup_py: ModuleType, tmp_path: Path) -> None:
    here = setup_py.toolkit_of_nvcc("/some/nvcc", run=lambda *_: "#$ _SPACE_= \n#$ _HERE_=/opt/cuda/bin\n")
    assert here == Path("/opt/cuda")
    link = tmp_path / "nvcc"
    link.symlink_to(make_toolkit(tmp_path / "cuda"))
    assert setup_py.toolkit_of_nvcc(str(link), run=lambda *_: "") == tmp_path / "cuda"


def test_reasons_for_no_toolkit(setup_py: ModuleType, tmp_path: Path) -> None:
    assert "no nvcc on PATH" in setup_py.find_toolkit({}, which=lambda _: None)
    assert setup_py.find_toolkit({"CUDA_HOME": str(tmp_path)}).endswith("nvcc does not exist")
    nvcc = make_toolkit(tmp_path / "broken")
    nvcc.write_text("#!/bin/sh\nexit 1\n")
    assert setup_py.find_toolkit({"CUDA_HOME": str(tmp_path / "broken")}).endswith("nvcc does not work")


def test_cuda_is_built_when_torch_and_the_toolkit_agree(setup_py: ModuleType, tmp_path: Path) -> None:
    make_toolkit(tmp_path)
    toolkit = setup_py.find_toolkit({"CUDA_HOME": str(tmp_path)})
    for request in (None, "", "1"):
        for torch_cuda in ("13.0", "13.2"):  # a minor version more or less is compatible
            decision = setup_py.decide_cuda(request, torch_cuda, toolkit)
            assert decision.build
            assert decision.why == f"CUDA 13.0 at {tmp_path}"
    assert setup_py.decide_cuda("0", "13.0", toolkit) == setup_py.CudaDecision(build=False, why="DOGS_ACCEL_CUDA=0")


@pytest.mark.parametrize(
    ("torch_cuda", "found", "why"),
    [
        (None, True, "this torch is a CPU-only build"),
        ("13.0", False, "no nvcc"),
        ("12.8", True, "is CUDA 13.0 and torch is built for 12.8"),
    ],
)
def test_obstacle_is_a_reason_by_default_and_an_error_on_demand(
    setup_py: ModuleType, tmp_path: Path, torch_cuda: str | None, found: bool, why: str
) -> None:
    make_toolkit(tmp_path)
    toolkit = setup_py.find_toolkit({"CUDA_HOME": str(tmp_path)}) if found else "no nvcc"
    decision = setup_py.decide_cuda(None, torch_cuda, toolkit)
    assert not decision.build
    assert why in decision.why
    with pytest.raises(SystemExit, match=f"^DOGS_ACCEL_CUDA=1, but .*{why}") as error:
        setup_py.decide_cuda("1", torch_cuda, toolkit)
    assert "\n" not in str(error.value)


def test_other_requests_are_refused(setup_py: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"^DOGS_ACCEL_CUDA: got 'yes', expected 0, 1 or nothing$"):
        setup_py.decide_cuda("yes", "13.0", "no nvcc")


def test_compiling_can_be_left_to_another_process(setup_py: ModuleType) -> None:
    assert [setup_py.is_compiled(request) for request in (None, "", "1", "0")] == [True, True, True, False]
    with pytest.raises(SystemExit, match=r"^DOGS_ACCEL_COMPILE: got 'no', expected 0, 1 or nothing$"):
        setup_py.is_compiled("no")


def test_make_keeps_what_python_compiles() -> None:
    """pip compiles nothing, so each process that imports torch would take seconds longer."""
    if shutil.which("make") is None:
        pytest.skip("no make on this machine")
    shown = subprocess.run(
        ["make", "--no-print-directory", "--eval=show: ; @env", "show"], cwd=ROOT, capture_output=True, text=True,
        check=True, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    names = {line.partition("=")[0] for line in shown.stdout.splitlines()}
    assert "PATH" in names
    assert "PYTHONDONTWRITEBYTECODE" not in names


def test_sanitizers(setup_py: ModuleType) -> None:
    assert setup_py.sanitizer_flags(None) == setup_py.sanitizer_flags("") == []
    assert "-fsanitize=address" in setup_py.sanitizer_flags("address")
    assert "-fno-wrapv" in setup_py.sanitizer_flags("address,undefined")  # with Python's -fwrapv no sum overflows
    with pytest.raises(SystemExit, match=r"^DOGS_ACCEL_SANITIZE: got 'adress', expected some of address,undefined"):
        setup_py.sanitizer_flags("adress")


def test_architectures(setup_py: ModuleType) -> None:
    assert setup_py.default_archs((75, 80, 86, 87, 89, 90, 100, 103, 120, 121)) == (80, 90, 100, 120)
    assert setup_py.default_archs((70, 75)) == (75,)
    assert setup_py.arch_flags((80, 90)) == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90,code=sm_90",
        "-gencode=arch=compute_90,code=compute_90",
    ]


def test_what_is_compiled_for_one_gpu_compiles_for_all(setup_py: ModuleType) -> None:
    """nvcc knows each architecture that is built by default, and no kernel's source differs between them."""
    sources = [path for path in (ROOT / "csrc").rglob("*") if path.suffix in (".cu", ".h")]
    assert not [path for path in sources if "__CUDA_ARCH" in path.read_text(encoding="utf-8")]
    toolkit = setup_py.find_toolkit(os.environ)
    if isinstance(toolkit, str):
        pytest.skip(toolkit)
    archs = setup_py.default_archs(toolkit.archs)
    nvcc, dry_run = toolkit.home / "bin" / "nvcc", ("--dryrun", "-c", str(ROOT / "csrc" / "cuda" / "squash.cu"))
    said = setup_py.run_nvcc(nvcc, *dry_run, *setup_py.arch_flags(archs))
    assert "fatal" not in said
    assert all(f"-arch sm_{arch} " in said or f"-arch=sm_{arch} " in said for arch in archs)
    assert "nvcc fatal" in setup_py.run_nvcc(nvcc, *dry_run, *setup_py.arch_flags((*archs, 999)))
