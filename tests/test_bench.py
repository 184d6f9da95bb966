"""The switch of the benchmarks, also beside pytest-benchmark, whose options begin with the same word."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).parents[1] / "bench" / "conftest.py"
PLUGIN = """
def pytest_addoption(parser):
    group = parser.getgroup("benchmark")
    group.addoption("--benchmark-min-time", default="0.5")
    group.addoption("--benchmark-disable", action="store_true")
"""
BENCHMARK = """
def test_nothing(bench, request):
    print("measures", bench.measure, "min time", request.config.getoption("--benchmark-min-time"))
"""


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ([], "measures False min time 0.5"),
        (["--benchmark"], "measures True min time 0.5"),
        (["--benchmark-min-time=2"], "measures False min time 2"),
        (["--benchmark", "--benchmark-disable"], "measures True min time 0.5"),
    ],
)
def test_the_switch_stands_beside_options_that_begin_with_it(pytester, options, seen):
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makepyfile(like_pytest_benchmark=PLUGIN, test_nothing=BENCHMARK)
    pytester.syspathinsert()
    result = pytester.runpytest_inprocess("-p", "like_pytest_benchmark", "-s", "test_nothing.py", *options)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"*{seen}*"])
