"""The switch of the benchmarks, also beside pytest-benchmark, whose options begin with the same word."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLUGIN = """
def pytest_addoption(parser):
    group = parser.getgroup("benchmark")
    group.addoption("--benchmark-min-time", default="0.5")
    group.addoption("--benchmark-disable", action="store_true")

def pytest_report_header(config):
    return f"measures {config.getoption('--benchmark')}, min time {config.getoption('--benchmark-min-time')}"
"""


@pytest.mark.parametrize(
    ("options", "header"),
    [
        ([], "measures False, min time 0.5"),
        (["--benchmark"], "measures True, min time 0.5"),
        (["--benchmark-min-time=2"], "measures False, min time 2"),
        (["--benchmark", "--benchmark-disable"], "measures True, min time 0.5"),
    ],
)
def test_the_switch_stands_beside_options_that_begin_with_it(tmp_path, options, header):
    (tmp_path / "like_pytest_benchmark.py").write_text(PLUGIN)
    (tmp_path / "bench_nothing.py").write_text("def test_nothing(bench): assert bench.tables == []\n")
    (tmp_path / "conftest.py").write_text((ROOT / "bench" / "conftest.py").read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "pytest", "-p", "like_pytest_benchmark", "bench_nothing.py", *options]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert header in done.stdout.splitlines()
    assert "1 passed" in done.stdout
