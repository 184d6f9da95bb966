"""The switch of the benchmarks, also beside pytest-benchmark, whose options begin with the same word."""

from pathlib import Path

# pytester forgets what a session imports that was not there before, and torch cannot be imported twice.
import pytest

import dogs_accel.throughput.candidates  # noqa: F401

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).parents[2] / "bench" / "conftest.py"
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
SHORT = """
def test_nothing(bench, results_folder):
    print("rounds", bench.rounds, bench.rounds_or(5), "turn", bench.turn_seconds, "in", results_folder)
    bench.save("nothing", "Nothing", "  0", unit="img/s")
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


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ([], "rounds 1 1 turn 0.5 in *results"),
        (["--rounds=3"], "rounds 1 1 turn 0.5 in *results"),
        (["--benchmark", "--results=kept"], "rounds 7 5 turn 0.5 in kept"),
        (["--benchmark", "--results=kept", "--rounds=3", "--turn-seconds=0.1"], "rounds 3 3 turn 0.1 in kept"),
    ],
)
def test_a_benchmark_can_be_short_and_write_elsewhere(pytester, options, seen):
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makepyfile(test_nothing=SHORT)
    pytester.syspathinsert()
    result = pytester.runpytest_inprocess("-s", "test_nothing.py", *options)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"*{seen}*"])
    assert (pytester.path / "kept" / "nothing.json").is_file() == ("--benchmark" in options)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_figures_of_a_gpu_do_not_overwrite_those_of_a_cpu(pytester, monkeypatch, on_gpu):
    monkeypatch.setattr("torch.cuda.is_available", lambda: on_gpu)
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makepyfile(test_nothing='def test_nothing(results_folder):\n    print("in", results_folder, "end")')
    result = pytester.runpytest_inprocess("-s", "test_nothing.py")
    result.stdout.fnmatch_lines([f"*in {pytester.path / 'results'}{'/gpu' if on_gpu else ''} end*"])
