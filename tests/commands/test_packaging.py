"""The package as others get it: a wheel, installed, used from another folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USE = """
import numpy as np, torch
import dogs_accel, pipelines
from dogs_accel.calibration import expected_calibration_error
from dogs_accel.models.specs import model_spec
from pipelines import EVAL, make_loader
assert not dogs_accel.__file__.startswith({root!r}), dogs_accel.__file__
assert not pipelines.__file__.startswith({root!r}), pipelines.__file__
print(expected_calibration_error(torch.tensor([[9.0, 0.0]]), torch.tensor([0]), bins=10) < 1e-3)
"""


@pytest.mark.slow
def test_the_wheel_works_from_any_folder(tmp_path):
    source = tmp_path / "source"  # without what earlier builds have left
    for folder in ("csrc", "dogs_accel", "pipelines"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("MANIFEST.in", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    # The CUDA library, which takes some minutes, is compiled and packed as this one is. No speed is asked of either.
    compiler = tmp_path / "c++"
    compiler.write_text(f'#!/bin/sh\nexec {os.environ.get("CXX", "c++")} "$@" -O0\n')
    compiler.chmod(0o755)
    environment = os.environ | {"DOGS_ACCEL_CUDA": "0", "CXX": str(compiler)}
    subprocess.run([*build, "--wheel-dir", tmp_path, source], check=True, timeout=600, env=environment)
    [wheel] = tmp_path.glob("dogs_accel-*.whl")
    assert "cp310-abi3" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert "dogs_accel/_C.abi3.so" in names
    for page in ("report/templates/report", "report/explorer/templates/explorer", "sweep/findings/templates/sweep"):
        assert {f"dogs_accel/{page}.{end}" for end in ("html.j2", "css", "js")} <= set(names)
    assert {name.split("/")[0] for name in names} - {name.split("/")[0] for name in names if "dist-info" in name} == {
        "dogs_accel",
        "pipelines",
    }
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", USE.format(root=str(ROOT) + "/")],
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path / "elsewhere",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "True", done.stderr
