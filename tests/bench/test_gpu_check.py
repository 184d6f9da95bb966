"""The command for GPU machines with parts that pass, fail, crash, hang and are stopped, each a real process."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from bench import gpu_check, gpu_machine, gpu_table, limited_process
from bench.gpu_check import Settings, run_check
from bench.gpu_parts import PARTS, Part, _cut_runs, _pytest
from bench.limited_process import Ended, run_limited
from bench.outcomes import Outcomes, read_outcomes
from bench.part_record import judge
from dogs_accel.runtime.files import read_json, write_json

ROOT = Path(__file__).parents[2]
SLEEP = "import time; print('sleeps', flush=True); time.sleep(60)"
HERE = {
    "gpus": [{"name": "Some GPU", "memory_gib": 80.0}],
    "cpu": "a CPU",
    "cores": 16,
    "packages": {"torch": "2.11.0"},
}


@pytest.fixture(autouse=True)
def _little_time_is_enough(monkeypatch):
    monkeypatch.setattr(gpu_check, "_ENDING_SECONDS", 0.0)
    monkeypatch.setattr(gpu_check, "_LEAST_SECONDS", 0.1)
    monkeypatch.setattr(limited_process, "_GRACE_SECONDS", 1.0)


def runs(script, name="part", **other):
    return Part(
        **{"name": name, "title": f"the part {name}", "limit_seconds": 30.0, "arguments": ("-c", script)} | other
    )


def machine(obstacles=(), environment=HERE):
    found = {"headline": "a machine", "environment": environment, "obstacles": dict(obstacles), "missing_packages": []}
    script = f"import json, pathlib; pathlib.Path({{path!r}}).write_text(json.dumps({found!r}))"
    # The script travels through str.format, as the arguments of all parts do.
    script = script.replace("{", "{{").replace("}", "}}").replace("{{path!r}}", "'{work}/results/machine.json'")
    return runs(script, "machine")


def pytest_on(path, *options, **other):
    return runs("", arguments=_pytest(str(path), *options, test_seconds=other.pop("test_seconds", None)), **other)


@pytest.fixture
def check(tmp_path):
    """Run parts; gives the exit status and the JSON."""

    def run(*parts, seconds=60.0, **other):
        work = tmp_path / f"work{len(list(tmp_path.iterdir()))}"
        work.mkdir()
        settings = Settings(work=work, seconds=seconds, out=tmp_path / "out" / "check.json", **other)
        return run_check(settings, parts), read_json(settings.out)

    return run


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def limited(script, tmp_path, limit_seconds):
    return run_limited(
        [sys.executable, "-c", script],
        limit_seconds=limit_seconds, log=tmp_path / "log", folder=tmp_path, env={"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


class TestLimitedProcess:
    def test_status_and_output_of_one_that_ends(self, tmp_path):
        ended = limited("import os, sys; print('out', os.getcwd()); sys.stderr.write('err'); sys.exit(3)", tmp_path, 30)
        assert (ended.exit_status, ended.is_gone) == (3, True)
        assert (tmp_path / "log").read_text() == f"out {tmp_path}\nerr"

    def test_one_that_hangs_is_ended_with_its_children(self, tmp_path):
        script = f"""
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which the child inherits
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid)
{SLEEP}
"""
        ended = limited(script, tmp_path, 1.5)
        assert (ended.exit_status, ended.is_gone) == (None, True)
        assert 1.5 < ended.seconds < 8
        child, said = (tmp_path / "log").read_text().split()
        assert said == "sleeps"
        assert not alive(child)

    def test_what_one_leaves_running_is_ended_too(self, tmp_path):
        script = (
            "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
        )
        ended = limited(script, tmp_path, 30)
        assert (ended.exit_status, ended.is_gone) == (0, True)
        assert not alive((tmp_path / "log").read_text().strip())


TESTS = """
import pytest
def test_good(): pass
def test_bad(): assert 1 == 2, "one is not two"
@pytest.mark.skip(reason="no CUDA device")
def test_left_out(): pass
@pytest.fixture
def breaks():
    yield
    raise RuntimeError("the end fails")
def test_whose_fixture_breaks(breaks): pass
"""


LOSES = f"""
import os
def test_first(): pass
def test_loses(): raise RuntimeError("CUDA error: an illegal memory access was encountered")
def test_second(): pass
def test_crashes(): os.kill(os.getpid(), 11)
def test_third(): pass
def test_hangs():
    {SLEEP}
def test_last(): pass
"""


class TestOutcomes:
    def test_of_a_session(self, tmp_path, check):
        (tmp_path / "test_some.py").write_text(TESTS)
        (tmp_path / "test_none.py").write_text("import no_such_module")
        status, report = check(pytest_on(tmp_path, name="ops"))
        part = report["parts"]["ops"]
        tests = part["tests"]
        assert (status, tests["passed"], tests["skips"], tests["running"]) == (1, 1, {"no CUDA device": 1}, None)
        messages = {Path(each["test"]).name.rpartition("::")[2]: each["message"] for each in tests["failures"]}
        assert set(messages) == {"test_none.py", "test_bad", "test_whose_fixture_breaks"}
        assert "no_such_module" in messages["test_none.py"]
        assert "one is not two" in messages["test_bad"]
        assert "the end fails" in messages["test_whose_fixture_breaks"]
        assert part["reason"] == "3 of 5 tests failed"

    def test_of_a_session_that_hangs(self, tmp_path, check):
        (tmp_path / "test_some.py").write_text(f"def test_good(): pass\ndef test_hangs():\n    {SLEEP}\n")
        status, report = check(pytest_on(tmp_path, name="ops", limit_seconds=6.0), runs("pass", "after"))
        part = report["parts"]["ops"]
        assert (status, part["status"], part["tests"]["passed"]) == (1, "cut", 1)
        assert re.fullmatch(r"stopped at its limit of 6 s, in .*test_some\.py::test_hangs", part["reason"])
        assert report["parts"]["after"]["status"] == "passed"

    def test_of_a_session_that_crashes(self, tmp_path, check):
        (tmp_path / "test_some.py").write_text("import os\ndef test_crashes(): os.kill(os.getpid(), 11)\n")
        _, report = check(pytest_on(tmp_path, name="ops"))
        part = report["parts"]["ops"]
        assert part["status"] == "failed"
        assert part["reason"] == "1 of 1 tests failed"
        assert any("Segmentation fault" in line for line in part["output_tail"])

    def test_a_session_of_which_all_is_skipped_has_not_passed(self, tmp_path, check):
        (tmp_path / "test_some.py").write_text(
            "import pytest\n@pytest.mark.skip(reason='no GPU')\ndef test_it(): pass\n"
        )
        status, report = check(pytest_on(tmp_path, name="ops"))
        assert status == 0
        assert report["parts"]["ops"]["status"] == "skipped"
        assert report["parts"]["ops"]["reason"] == "all its tests were skipped: no GPU"

    def test_a_choice_without_tests_fails(self, tmp_path, check):
        (tmp_path / "test_some.py").write_text("def test_it(): pass\n")
        _, report = check(pytest_on(tmp_path, "-k", "nothing", name="ops"))
        assert report["parts"]["ops"]["reason"] == "exit status 5 (no test was chosen)"

    def test_a_line_that_was_cut_is_left_out(self, tmp_path):
        path = tmp_path / "outcomes.jsonl"
        lines = [{"test": "a", "outcome": "begun", "message": ""}, {"test": "a", "outcome": "passed", "message": ""},
                 {"test": "b", "outcome": "begun", "message": ""}]  # fmt: skip
        path.write_text("\n".join(json.dumps(line) for line in lines) + '\n{"test": "b", "outc')
        assert read_outcomes(path) == Outcomes(ended=frozenset("a"), passed=1, skips={}, failures={}, running="b")

    def test_one_whose_context_is_lost_costs_no_other(self, tmp_path, check):
        """A crash, a hang and a lost context, each in a process of its own; the rest is tested."""
        (tmp_path / "test_some.py").write_text(LOSES)
        status, report = check(pytest_on(tmp_path, name="ops", test_seconds=2))
        tests = report["parts"]["ops"]["tests"]
        assert (status, tests["passed"], tests["running"]) == (1, 4, None)
        messages = {each["test"].partition("::")[2]: each["message"] for each in tests["failures"]}
        assert list(messages) == ["test_loses", "test_crashes", "test_hangs"]
        assert "an illegal memory access was encountered" in messages["test_loses"]
        expected = "the process crashed in it, or took longer than 2 s; the log has its stack"
        assert messages["test_crashes"] == messages["test_hangs"] == expected
        assert report["parts"]["ops"]["reason"] == "3 of 7 tests failed"
        log = (tmp_path / "out" / "check.log").read_text()
        assert log.count("===== ops: python -m pytest") == 1
        assert log.count("===== ops again, for the tests that are left") == 3
        assert "Timeout (0:00:02)!" in log
        assert re.search(r"test_some\.py\W+line \d+ in test_hangs", log)


@pytest.mark.parametrize(
    ("exit_status", "is_gone", "said"),
    [
        (0, True, ("passed", None)),
        (0, False, ("passed", "it could not be ended and may hold the GPU")),
        (None, True, ("cut", "stopped at its limit of 9 s")),
        (None, False, ("cut", "stopped at its limit of 9 s; it could not be ended and may hold the GPU")),
        (2, True, ("failed", "exit status 2")),
        (-9, True, ("failed", "ended by SIGKILL")),
    ],
)
def test_the_reason_of_a_status(exit_status, is_gone, said):
    assert judge(Ended(seconds=1.0, exit_status=exit_status, is_gone=is_gone), 9.0, None) == said


class TestParts:
    def test_one_that_fails_hides_no_other(self, check, tmp_path, capsys):
        # The second part reads what the JSON says of the first: it is there before the end.
        out = tmp_path / "out" / "check.json"
        reads = f"import json; assert json.load(open({str(out)!r}))['parts']['first']['status'] == 'failed'"
        status, report = check(runs("print('so'); 1 / 0", "first"), runs(reads, "second"))
        first = report["parts"]["first"]
        assert status == 1
        assert [part["status"] for part in report["parts"].values()] == ["failed", "passed"]
        assert first["reason"] == "exit status 1"
        assert first["output_tail"][0] == "so"
        assert first["output_tail"][-1] == "ZeroDivisionError: division by zero"
        assert "output_tail" not in report["parts"]["second"]
        printed = capsys.readouterr().out
        assert "first           the part first (at most 30 s)\n" in printed
        assert re.search(r"^first +failed in 0 s: exit status 1$", printed, flags=re.MULTILINE)
        assert f"written to {out}" in printed
        assert "===== first: python -c" in (tmp_path / "out" / "check.log").read_text()

    def test_what_a_cut_one_had_measured_is_kept(self, check):
        script = "from pathlib import Path; Path('{work}/results/speed.json').write_text('[7]'); " + SLEEP
        status, report = check(runs(script, "slow", limit_seconds=1.5, gather=lambda work: {"more": work.name}))
        part = report["parts"]["slow"]
        assert (status, part["status"], part["reason"]) == (1, "cut", "stopped at its limit of 2 s")
        assert part["results"] == {"speed": [7], "more": "slow"}
        assert part["output_tail"] == ["sleeps"]

    def test_none_goes_beyond_the_time_of_all(self, check):
        start = time.perf_counter()
        status, report = check(runs(SLEEP, "slow"), runs("pass", "late"), seconds=1.5)
        assert time.perf_counter() - start < 6
        assert report["parts"]["slow"]["status"] == "cut"
        assert report["parts"]["late"] | {"date": None} == {
            "title": "the part late", "date": None, "limit_seconds": 30.0, "status": "skipped",
            "reason": "no time is left of 0.025 minutes: --only late gives it all of them", "seconds": 0.0,
        }  # fmt: skip
        assert status == 1

    def test_one_whose_needs_are_lacking_is_skipped_and_says_why(self, check, capsys):
        lacking = {"gpu": "torch sees no CUDA device", "dali": "nvidia.dali is not installed"}
        parts = [runs("1 / 0", "a", needs=("gpu", "dali")), runs("pass", "b", needs=("toolkit",))]
        status, report = check(machine(lacking), *parts)
        assert status == 0
        assert report["parts"]["a"]["status"] == "skipped"
        assert report["parts"]["a"]["reason"] == "torch sees no CUDA device; nvidia.dali is not installed"
        assert report["parts"]["b"]["status"] == "passed"
        assert report["environment"] == HERE
        assert "machine         passed in 0 s: a machine\n" in capsys.readouterr().out

    def test_of_a_machine_that_says_nothing_all_is_tried(self, check):
        _, report = check(runs("1 / 0", "machine"), runs("pass", "a", needs=("gpu",)))
        assert [part["status"] for part in report["parts"].values()] == ["failed", "passed"]

    def test_after_a_failed_build_no_old_library_is_tested(self, check):
        _, report = check(runs("1 / 0", "build"), runs("pass", "a", needs=("kernels",)), runs("pass", "b"))
        assert report["parts"]["a"]["reason"] == "the part build did not pass"
        assert report["parts"]["b"]["status"] == "passed"

    def test_what_the_build_says_of_the_kernels_is_the_environment_s(self, check):
        found = '{{"extension_cuda": "loaded"}}'  # doubled for str.format
        script = f"from pathlib import Path; Path('{{work}}/results/build.json').write_text('{found}')"
        _, report = check(machine(), runs(script, "build"))
        assert report["environment"]["extension_cuda"] == "loaded"

    def test_photos_go_to_those_that_measure_on_them(self, check, tmp_path):
        prints = "import sys; print(sys.argv[1:]); sys.exit(1)"
        _, report = check(runs(prints, "a", takes_data=True), runs(prints, "b"), data=tmp_path)
        said = [part["output_tail"] for part in report["parts"].values()]
        assert said == [[str([f"--data={tmp_path}"])], ["[]"]]

    def test_some_parts_again_leave_the_others_as_they_were(self, check, capsys):
        check(machine(), runs("1 / 0", "build"), runs("pass", "ops"))
        status, report = check(machine(), runs("pass", "build"), keeps_others=True)
        assert [(name, part["status"]) for name, part in report["parts"].items()] == [
            ("machine", "passed"), ("build", "passed"), ("ops", "passed")]  # fmt: skip
        check(machine(), runs("1 / 0", "build"))
        status, _ = check(machine(), runs("pass", "ops"), keeps_others=True)
        assert status == 0  # of what was run now
        status, report = check(machine(environment=HERE | {"cores": 2}), runs("pass", "ops"), keeps_others=True)
        assert list(report["parts"]) == ["machine", "ops"]
        assert "is of another machine or of other versions, and nothing of it is kept" in capsys.readouterr().out


STOPPED = f"""
import sys, tempfile
from pathlib import Path
from bench.gpu_check import Settings, run_check, signals_as_exceptions
from bench.gpu_parts import Part
def part(name, script):
    return Part(name=name, title=name, limit_seconds=60, arguments=("-c", script))
out = Path(sys.argv[1])
with tempfile.TemporaryDirectory() as work, signals_as_exceptions():
    parts = [part("done", "pass"), part("slow", "import os; print(os.getpid())\\n{SLEEP}"), part("late", "pass")]
    sys.exit(run_check(Settings(work=Path(work), seconds=60, out=out), parts))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_the_json_and_no_child(tmp_path, number):
    out, log = tmp_path / "check.json", tmp_path / "check.log"
    process = subprocess.Popen([sys.executable, "-c", STOPPED, str(out)], cwd=ROOT, stdout=subprocess.DEVNULL)
    until = time.perf_counter() + 60
    while not (log.is_file() and "\nsleeps" in log.read_text()) and time.perf_counter() < until:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    report = read_json(out)
    assert report["stopped_by"] == number.name
    assert list(report["parts"]) == ["done", "slow"]
    assert report["parts"]["slow"]["status"] == "cut"
    assert report["parts"]["slow"]["reason"] == f"stopped by {number.name}"
    child, said = report["parts"]["slow"]["output_tail"]
    assert said == "sleeps"
    assert not alive(child)


def run_command(*arguments, **environ):
    return subprocess.run(
        [sys.executable, "-m", "bench.gpu_check", *arguments],
        cwd=ROOT, env=os.environ | environ, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


class TestCommand:
    def test_here(self, tmp_path):
        """The real first part, and one that needs a GPU."""
        done = run_command("--only", "ops-speed", "--out", str(tmp_path / "check.json"), CUDA_VISIBLE_DEVICES="")
        assert done.returncode == 0, done.stdout + done.stderr
        report = read_json(tmp_path / "check.json")
        assert list(report["parts"]) == ["machine", "ops-speed"]
        assert report["parts"]["machine"]["status"] == "passed"
        assert re.fullmatch(r"torch \S+ sees no CUDA device", report["parts"]["ops-speed"]["reason"])
        assert report["environment"]["gpus"] == []
        assert report["environment"]["cores"] >= 1

    def test_without_a_gpu_nothing_is_written_to_the_repository(self, tmp_path):
        done = run_command("--only", "machine", CUDA_VISIBLE_DEVICES="", TMPDIR=str(tmp_path))
        [written] = re.findall(r"written to (\S+/check\.json), the output of all parts to \S+/check\.log", done.stdout)
        assert Path(written).parents[1] == tmp_path
        assert read_json(Path(written))["parts"]["machine"]["status"] == "passed"

    def test_goes_on_when_nobody_reads_what_it_prints(self, tmp_path):
        command = [sys.executable, "-m", "bench.gpu_check", "--only", "machine", "--out", str(tmp_path / "check.json")]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (0, b"")
        assert read_json(tmp_path / "check.json")["parts"]["machine"]["status"] == "passed"
        process.stderr.close()

    def test_lists_its_parts(self):
        lines = run_command("--list").stdout.splitlines()
        assert [line.split()[0] for line in lines] == [part.name for part in PARTS]
        assert lines[1].endswith("both libraries of the extension, for this GPU (needs toolkit)")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--only", "ops,opps"], "argument --only: got 'opps', expected some of machine, build, ops, "),
            (["--minutes", "0"], "argument --minutes: got 0, expected more than 0"),
            (["--data", "/nowhere"], "argument --data: /nowhere is no folder"),
        ],
    )
    def test_refuses(self, arguments, said):
        done = run_command(*arguments)
        assert done.returncode == 2
        assert said in done.stderr.splitlines()[-1]

    def test_keeps_results_of_a_gpu_in_the_repository(self, tmp_path, monkeypatch):
        monkeypatch.setattr(gpu_check, "KEPT", tmp_path / "kept" / "check.json")
        (tmp_path / "work").mkdir()
        status = run_check(Settings(work=tmp_path / "work", seconds=60.0), [machine(), runs("print('so')", "ops")])
        assert status == 0
        assert list(read_json(tmp_path / "kept" / "check.json")["parts"]) == ["machine", "ops"]
        assert (tmp_path / "kept" / "check.log").read_text().endswith("so\n")


class TestMachine:
    def test_needs_are_those_that_it_can_tell(self):
        known = {"gpu", "toolkit", "dali", "kernels"}
        assert {need for part in PARTS for need in part.needs} == known

    def test_missing_packages_are_the_project_s(self, monkeypatch):
        lacking = {"captum", "wandb", "nvidia-dali-cuda120"}
        monkeypatch.setattr(gpu_machine, "package_version", lambda name: None if name in lacking else "1.0")
        monkeypatch.setattr(gpu_machine, "has_dali", lambda: True)  # of another CUDA version
        assert gpu_machine.missing_packages() == ["wandb", "captum"]
        monkeypatch.setattr(gpu_machine, "has_dali", lambda: False)
        assert gpu_machine.missing_packages() == ["nvidia-dali-cuda120", "wandb", "captum"]

    @pytest.mark.parametrize(("version", "expected"), [("12.3.0", False), ("13.0.0", True), ("14.1.0", True)])
    def test_an_older_pillow_is_too_old(self, monkeypatch, version, expected):
        monkeypatch.setattr(gpu_machine, "package_version", lambda _: version)
        assert gpu_machine.has_the_pillow() == expected

    def test_a_gpu_on_which_nothing_runs_is_none(self, monkeypatch):
        def fails(*_, **__):
            raise RuntimeError("no kernel image is available")

        monkeypatch.setattr(gpu_machine.torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(gpu_machine.torch, "ones", fails)
        assert gpu_machine.why_no_gpu() == "torch cannot compute on its CUDA device: no kernel image is available"

    def test_nvidia_smi_s_answer(self, monkeypatch, tmp_path):
        smi = tmp_path / "nvidia-smi"
        smi.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 580.1, 700.00 W, 1980 MHz, 2619 MHz, 81559 MiB'\n")
        smi.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        [gpu] = gpu_machine.ask_nvidia_smi()
        assert (gpu["name"], gpu["driver_version"], gpu["power.limit"]) == (
            "NVIDIA H100 80GB HBM3",
            "580.1",
            "700.00 W",
        )
        smi.write_text("#!/bin/sh\necho 'no devices were found'; exit 6\n")
        assert gpu_machine.ask_nvidia_smi() == "nvidia-smi: no devices were found"

    def test_it_is_described_before_the_extension_is_built(self, tmp_path):
        for package in ("dogs_accel", "pipelines", "bench"):
            leave_out = shutil.ignore_patterns("*.so", "__pycache__", "results")
            shutil.copytree(ROOT / package, tmp_path / package, ignore=leave_out)
        for name in ("pyproject.toml", "setup.py"):
            shutil.copy(ROOT / name, tmp_path)
        done = subprocess.run(
            [sys.executable, "-m", "bench.gpu_machine", str(tmp_path / "machine.json")],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "is not built" in read_json(tmp_path / "machine.json")["environment"]["extension_cuda"]


def test_a_file_with_tests_for_a_gpu_belongs_to_a_part():
    uses = re.compile(r"mark\.gpu|needs_cuda|needs_gpu|DEVICES\b")
    found = {f"tests/{path.name}" for path in Path(__file__).parent.glob("test_*.py") if uses.search(path.read_text())}
    chosen = {argument for part in PARTS for argument in part.arguments if argument.startswith("tests/")}
    assert found - {"tests/test_gpu_check.py"} <= chosen


def test_what_the_parts_choose_is_there():
    chosen = {each for part in PARTS for each in part.arguments if each.startswith(("tests/", "bench/"))}
    assert {each for each in chosen if not (ROOT / each).is_file()} == set()


def test_cut_runs_have_what_their_histories_say(tiny_results, tmp_path):
    shutil.copytree(tiny_results, tmp_path / "tmp" / "runs")
    cut = _cut_runs(tmp_path)["training_runs_cut"]
    [(name, run)] = cut["runs"].items()
    [seconds] = pd.read_csv(tiny_results / "model_comparison.csv")["Train time (s)"]
    assert (name, run["epochs"], cut["is_complete"]) == ("resnet18_full", 1, False)
    assert run["seconds"] == pytest.approx(seconds, abs=0.01)
    [phase] = run["phases"]
    assert (phase["phase"], phase["epochs"]) == ("full_finetune", 1)
    assert 0 < phase["data_wait_seconds"] < phase["seconds"]
    # The table's seconds are rounded already, so 0.502 would become 1 in one and 0 in the other.
    assert cut["headline"] == f"{run['seconds']:.0f} s of training in 1 epochs, not all of them"
    (tmp_path / "none").mkdir()
    assert _cut_runs(tmp_path / "none") == {}


OPERATORS = {
    "title": "ECE", "unit": "bytes/s",
    "rows": [{"candidate": "dogs_accel", "bytes_per_second": 1.5e12, "share_of_copy": 0.5, "share_low": 0.4,
              "share_high": 0.6}],
}  # fmt: skip
CEILING = {
    "title": "ResNet-50", "unit": "img/s",
    "rows": [{"candidate": "as a run", "rate": 3000.4, "ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0}],
}  # fmt: skip
WITH_MODEL = {
    "title": "ViT with each loader", "unit": "img/s",
    "with_model": {"cached": {"compute_rate": 1000.0, "end_to_end_rate": 985.0, "wait_share": 0.004}},
}  # fmt: skip
PHASE = {"phase": "full_finetune", "epochs": 2, "seconds": 20.0, "data_wait_seconds": 1.0}
RUNS = {"resnet50_full": {"epochs": 2, "seconds": 20.0, "phases": [PHASE]}}


def became(title, status, seconds, reason=None, **other):
    return {"title": title, "status": status, "reason": reason, "seconds": seconds, **other}


RESULTS = {
    "date": "2026-11-23",
    "environment": HERE,
    "parts": {
        "ops": became("operators", "failed", 51.6, "1 of 9 tests failed",
                      tests={"passed": 1218, "failed": 1, "skipped": 0}),
        "dali": became("loaders", "skipped", 0.0, "no DALI | none"),
        "ops-speed": became("bandwidth", "passed", 9.0, results={"ece": OPERATORS}),
        "training-speed": became("ceilings", "passed", 90.0, results={"ceiling": CEILING}),
        "end-to-end": became("together", "passed", 40.0, results={"vit": WITH_MODEL}),
        "runs": became("the runs", "cut", 99.0, "stopped at its limit of 99 s",
                       results={"training_runs_cut": {"is_complete": False, "runs": RUNS}}),
    },
}  # fmt: skip


class TestTable:
    def test_the_readme_has_what_was_kept(self):
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        between = text.partition(gpu_table.BEGIN)[2].partition(gpu_table.END)[0].strip()
        assert between == gpu_table.gpu_figures(gpu_check.KEPT).strip()

    def test_of_results(self, tmp_path):
        text = gpu_table.gpu_figures(write_json(tmp_path / "check.json", RESULTS))
        lines = text.splitlines()
        assert lines[0].startswith("Some GPU (80 GiB), a CPU, 16 cores; torch 2.11.0; 2026-11-23.")
        for expected in (
            "| `ops`: operators | failed: 1,218 tests passed, 1 failed, 0 skipped; 1 of 9 tests failed | 52 |",
            "| `dali`: loaders | skipped; no DALI \\| none | 0 |",
            "| dogs_accel | 1,500 GB/s | 0.50 (0.40 to 0.60) |",
            "| as a run | 3,000 img/s | 1.00 (1.00 to 1.00) |",
            "| cached | 985 img/s | 98.5 % of tensors that are there, 0.4 % waiting |",
            "| resnet50_full | full_finetune | 2 | 20.0 | 5.0 % |",
            "The runs were cut: 20 s of training in 2 epochs are what was measured of them.",
        ):
            assert expected in lines

    def test_complete_runs_stand_beside_the_published(self):
        text = gpu_table.table_of_runs({"is_complete": True, "num_images": 20_640, "runs": RUNS})
        assert text.endswith(
            "In all 20 s of training on 20,640 generated pictures (published on an A100: 2,131 s)."
        )  # fmt: skip

    def test_is_written_between_its_comments(self, tmp_path, capsys):
        readme, results = tmp_path / "README.md", tmp_path / "none.json"
        readme.write_text(f"before\n{gpu_table.BEGIN}\nold\n{gpu_table.END}\nafter\n")
        for _ in range(2):
            assert gpu_table.main(["--results", str(results), "--write", str(readme)]) == 0
            expected = f"before\n{gpu_table.BEGIN}\n\n{gpu_table.OWED}\n\n{gpu_table.END}\nafter\n"
            assert readme.read_text() == expected
        readme.write_text("no comments\n")
        with pytest.raises(SystemExit) as stop:
            gpu_table.main(["--results", str(results), "--write", str(readme)])
        assert stop.value.code == 2
        assert f"{readme}: expected once each, in this order" in capsys.readouterr().err
        assert readme.read_text() == "no comments\n"
