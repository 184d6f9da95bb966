"""The command for GPU machines with parts that pass, fail, crash, hang and are stopped, each a real process."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import gpu_check, gpu_machine, gpu_table
from bench.gpu_check import ROOT, Check, run_check, run_limited
from bench.gpu_parts import PARTS, Part, run_pytest
from dogs_accel.runtime.files import read_json, write_json

SLEEP = "import time; print('sleeps', flush=True); time.sleep(60)"
HERE = {
    "gpus": [{"name": "Some GPU", "memory_gib": 80.0}],
    "cpu": "a CPU",
    "cores": 16,
    "packages": {"torch": "2.11.0"},
}


@pytest.fixture(autouse=True, scope="module")
def _little_grace():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_check, "_GRACE_SECONDS", 1.0)
        yield


def runs(script, name="runs", limit_seconds=30.0, **other):
    return Part(name, f"the part {name}", limit_seconds, ("-c", script), **other)


def check_parts(folder, *parts, obstacles=(), environment=HERE, until=float("inf"), **other):
    """Run parts; gives the exit status and the JSON, which is in `folder`."""
    machine = {"environment": environment, "obstacles": dict(obstacles)}
    work, out = folder / "work", folder / "out" / "check.json"
    status = run_check(Check(work=work, out=out, machine=machine, until=until, **other), parts)
    assert [path for path in work.rglob("*") if path.is_file()] == []
    return status, read_json(out)


def wait_for_the_end_of(pid):
    """SIGKILL may take a moment."""
    for _ in range(500):
        if state_of(pid) in "ZX":
            return
        time.sleep(0.02)
    pytest.fail(f"{pid} is still there")


def state_of(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


class TestLimitedProcess:
    def test_status_and_output_of_one_that_ends(self, tmp_path):
        script = "import os, sys; print('out', os.getcwd(), flush=True); sys.stderr.write('err'); sys.exit(3)"
        assert run_limited([sys.executable, "-c", script], 30, tmp_path / "log") == 3
        assert (tmp_path / "log").read_text() == f"out {ROOT}\nerr"

    @pytest.mark.parametrize(("ending", "exit_status"), [(SLEEP, None), ("print('sleeps')", 0)])
    def test_nothing_is_left_of_its_group(self, tmp_path, ending, exit_status):
        """Neither of one that hangs, deaf to SIGINT, nor of what one that ends has left running."""
        script = f"""
import signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the child inherits
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid)
{ending}
"""
        assert run_limited([sys.executable, "-c", script], 3.0, tmp_path / "log") == exit_status
        child, said = (tmp_path / "log").read_text().split()
        assert said == "sleeps"
        wait_for_the_end_of(child)


SESSIONS = {
    "ops/ops": """
import pytest
def test_good(): pass
def test_bad(): assert 1 == 2, "one is not two"
@pytest.mark.skip(reason="no second GPU")
def test_left_out(): pass
@pytest.fixture
def breaks():
    yield
    raise RuntimeError("the end fails")
def test_whose_fixture_breaks(breaks): pass
def test_of_which_all_breaks(breaks): assert 1 == 3
""",
    "ops/squash": "import no_such_module",
    "ops/augment": """
import os
def test_good(): pass
def test_crashes(): os.abort()
def test_lost(): pass
""",
    "dali/loaders": f"""
def test_good(): pass
def test_bad(): raise ValueError("before it hangs")
def test_hangs():
    {SLEEP}
def test_lost(): pass
""",
    "dali/gpu_loaders": """
import pytest
@pytest.mark.skip(reason="no JPEG engine")
def test_it(): pass
""",
    "training/timing": "def not_a_test(): pass",
    "training/step_profile": "def test_good(): pass",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Of SESSIONS, a pytest process each."""
    folder, parts = tmp_path_factory.mktemp("sessions"), []
    for name, text in SESSIONS.items():
        file = folder / f"test_{Path(name).name}.py"
        file.write_text(text)
        limit_seconds = 12.0 if "sleep" in text else 60.0
        parts.append(Part(name, f"the part {name}", limit_seconds, run_pytest(str(file))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they need a second to load
        status, report = check_parts(folder, *parts)
    assert status == 1
    return report


class TestSessions:
    def test_one_with_failures(self, report):
        part = report["parts"]["ops/ops"]
        tests = part["tests"]
        assert (part["status"], part["reason"]) == ("failed", "4 of 6 tests failed")
        assert (tests["passed"], tests["failed"], tests["skips"]) == (1, 4, {"no second GPU": 1})
        messages = [(each["test"].partition("::")[2], each["message"]) for each in tests["failures"]]
        expected = [("test_bad", "one is not two"), ("test_whose_fixture_breaks", "the end fails"),
                    ("test_of_which_all_breaks", "1 == 3"), ("test_of_which_all_breaks", "the end fails")]  # fmt: skip
        for (name, message), (expected_name, end) in zip(messages, expected, strict=True):
            assert name == expected_name
            assert end in message

    def test_a_file_that_cannot_be_imported(self, report):
        part = report["parts"]["ops/squash"]
        assert (part["status"], part["reason"]) == ("failed", "1 of 1 tests failed")
        assert "no_such_module" in part["tests"]["failures"][0]["message"]

    def test_one_that_crashes_names_its_last_test(self, report):
        part = report["parts"]["ops/augment"]
        assert part["status"] == "failed"
        assert re.match(r"ended by SIGABRT; the last test that began: \S+::test_crashes", part["reason"])
        assert "tests" not in part
        assert any("Fatal Python error: Aborted" in line for line in part["output_tail"])

    def test_one_that_hangs_reports_the_tests_before(self, report):
        part = report["parts"]["dali/loaders"]
        assert part["status"] == "cut"
        assert re.match(r"stopped at its limit of 12 s; the last test that began: \S+::test_hangs", part["reason"])
        assert (part["tests"]["passed"], part["tests"]["failed"], part["tests"]["skipped"]) == (1, 1, 0)
        assert "before it hangs" in part["tests"]["failures"][0]["message"]

    def test_one_of_which_all_is_skipped_has_not_passed(self, report):
        part = report["parts"]["dali/gpu_loaders"]
        assert (part["status"], part["reason"]) == ("skipped", "all its tests were skipped: no JPEG engine")

    def test_a_choice_without_tests_fails(self, report):
        part = report["parts"]["training/timing"]
        assert (part["status"], part["reason"]) == ("failed", "exit status 5 (no test was chosen)")

    def test_one_after_all_these_passes(self, report):
        part = report["parts"]["training/step_profile"]
        assert (part["status"], part["reason"], part["tests"]["passed"]) == ("passed", None, 1)
        assert "output_tail" not in part


class TestParts:
    def test_one_that_fails_hides_no_other(self, tmp_path, capsys):
        # The second part reads what the JSON says of the first: it is there before the end.
        out = tmp_path / "out" / "check.json"
        reads = f"import json; assert json.load(open({str(out)!r}))['parts']['ops-speed']['status'] == 'failed'"
        status, report = check_parts(tmp_path, runs("print('so'); 1 / 0", "ops-speed"), runs(reads))
        first = report["parts"]["ops-speed"]
        assert status == 1
        assert [part["status"] for part in report["parts"].values()] == ["failed", "passed"]
        assert first["reason"] == "exit status 1"
        assert (first["output_tail"][0], first["output_tail"][-1]) == ("so", "ZeroDivisionError: division by zero")
        assert report["environment"] == HERE
        printed = capsys.readouterr().out
        assert "the part ops-speed (at most 30 s)\n" in printed
        assert re.search(r"^ops-speed +failed in \d+ s: exit status 1$", printed, flags=re.MULTILINE)
        assert f"1 failed, 1 passed; written to {out}" in printed
        assert "===== ops-speed: python -c" in (tmp_path / "out" / "check.log").read_text()

    def test_what_a_cut_one_had_measured_is_kept(self, tmp_path):
        rows = "phase,epoch_seconds,features_s,data_wait_s\\nhead,2.5,1.5,0.5\\nfull,4,0,1\\nfull,5,0,2\\n"
        script = f"""
from pathlib import Path
Path('{{work}}/results/speed.json').write_text('[7]')
Path('{{work}}/resnet18_full_history.csv').write_text('{rows}')
{SLEEP}
"""
        status, report = check_parts(tmp_path, runs(script, limit_seconds=3.0))
        part = report["parts"]["runs"]
        assert (status, part["status"], part["reason"]) == (1, "cut", "stopped at its limit of 3 s")
        assert part["output_tail"][0] == "sleeps"
        assert part["results"]["speed"] == [7]
        head = {"phase": "head", "epochs": 1, "seconds": 4.0, "data_wait_seconds": 0.5}
        full = {"phase": "full", "epochs": 2, "seconds": 9.0, "data_wait_seconds": 3.0}
        assert part["results"]["training_runs_cut"] == {
            "headline": "13 s of training in 3 epochs, not all of them", "is_complete": False,
            "runs": {"resnet18_full": {"epochs": 3, "seconds": 13.0, "phases": [head, full]}},
        }  # fmt: skip

    def test_none_begins_where_no_time_is_left(self, tmp_path):
        """The first part sets the clock forward."""
        clock = tmp_path / "clock"
        clock.write_text("0")
        slow = runs(f"open({str(clock)!r}, 'w').write('100')", "build", limit_seconds=500.0)
        status, report = check_parts(tmp_path, slow, runs("1 / 0"), until=120.0, clock=lambda: float(clock.read_text()))
        assert status == 0
        assert (report["parts"]["build"]["status"], report["parts"]["build"]["seconds"]) == ("passed", 100.0)
        assert report["parts"]["runs"] | {"date": None} == {
            "title": "the part runs", "date": None, "status": "skipped", "seconds": 0.0,
            "reason": "no time is left: --only runs gives it all of it",
        }  # fmt: skip

    def test_one_has_no_more_than_the_time_that_is_left(self, tmp_path, monkeypatch):
        monkeypatch.setattr(gpu_check, "_ENDING_SECONDS", 1.0)
        _, report = check_parts(tmp_path, runs(SLEEP, limit_seconds=500.0), until=15.0, clock=lambda: 12.0)
        assert report["parts"]["runs"]["reason"] == "stopped at its limit of 2 s"

    def test_one_whose_needs_are_lacking_is_skipped_and_says_why(self, tmp_path):
        parts = [runs("1 / 0", "dali/loaders", needs=("gpu", "dali")), runs("pass", needs=("gpu",))]
        status, report = check_parts(tmp_path, *parts, obstacles={"dali": "nvidia.dali is not there"})
        assert status == 0
        first, second = report["parts"].values()
        assert (first["status"], first["reason"]) == ("skipped", "nvidia.dali is not there")
        assert second["status"] == "passed"

    def test_after_a_failed_build_no_old_library_is_tested(self, tmp_path):
        status, report = check_parts(tmp_path, runs("1 / 0", "build"), runs("pass"))
        assert status == 1
        assert report["parts"]["runs"]["reason"] == "the part build did not pass"

    def test_the_machine_is_described_anew_after_the_build(self, tmp_path):
        found = '{{"environment": {{"extension_cuda": "loaded"}}, "obstacles": {{}}}}'  # doubled for str.format
        script = f"from pathlib import Path; Path('{{work}}/results/machine.json').write_text('{found}')"
        _, report = check_parts(tmp_path, runs(script, "build"))
        assert report["environment"] == {"extension_cuda": "loaded"}

    def test_photos_go_to_those_that_measure(self, tmp_path):
        prints = ("-c", "import sys; print(sys.argv[1:]); sys.exit(1)")
        measures = Part("ops-speed", "measures", 30.0, (*prints, "--benchmark"))
        _, report = check_parts(tmp_path, measures, Part("runs", "does not", 30.0, prints), data=tmp_path)
        said = [part["output_tail"] for part in report["parts"].values()]
        assert said == [[str(["--benchmark", f"--data={tmp_path}"])], ["[]"]]

    def test_some_again_leave_the_others_as_they_were(self, tmp_path, capsys):
        check_parts(tmp_path, runs("1 / 0"))
        status, report = check_parts(tmp_path, runs("pass", "ops-speed"), keeps_others=True)
        assert status == 0  # of what was run now
        statuses = {name: part["status"] for name, part in report["parts"].items()}
        assert list(statuses.items()) == [("ops-speed", "passed"), ("runs", "failed")]
        _, report = check_parts(tmp_path, runs("pass"), keeps_others=True, environment=HERE | {"cores": 2})
        assert list(report["parts"]) == ["runs"]
        assert "is of another machine or of other versions, and nothing of it is kept" in capsys.readouterr().out


STOPPED = f"""
import sys
from pathlib import Path
from bench.gpu_check import Check, end_by_signals, run_check
from bench.gpu_parts import Part
scripts = {{"build": "pass", "ops-speed": "import os; print(os.getpid())\\n{SLEEP}", "runs": "pass"}}
parts = [Part(name, name, 60.0, ("-c", script)) for name, script in scripts.items()]
folder, machine = Path(sys.argv[1]), {{"environment": {{}}, "obstacles": {{}}}}
end_by_signals()
run_check(Check(work=folder / "work", out=folder / "check.json", machine=machine, until=float("inf")), parts)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_the_json_and_no_child(tmp_path, number):
    log = tmp_path / "check.log"
    process = subprocess.Popen([sys.executable, "-c", STOPPED, str(tmp_path)], cwd=ROOT, stdout=subprocess.DEVNULL)
    while not (log.is_file() and "\nsleeps" in log.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    parts = read_json(tmp_path / "check.json")["parts"]
    assert [(name, part["status"]) for name, part in parts.items()] == [("build", "passed"), ("ops-speed", "cut")]
    assert parts["ops-speed"]["reason"] == "the command was told to end"
    child, said, *_ = parts["ops-speed"]["output_tail"]
    assert said == "sleeps"
    wait_for_the_end_of(child)


def run_command(*arguments, cwd=ROOT, **environ):
    return subprocess.run(
        [sys.executable, "-m", "bench.gpu_check", *arguments],
        cwd=cwd, env=os.environ | environ, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


class TestCommand:
    def test_in_a_tree_that_is_not_built_on_a_machine_without_a_gpu(self, tmp_path):
        """The machine is described, the parts are skipped, and nothing is written to the tree."""
        tree, temporary = tmp_path / "tree", tmp_path / "temporary"
        temporary.mkdir()
        for package in ("dogs_accel", "pipelines", "bench"):
            leave_out = shutil.ignore_patterns("*.so", "__pycache__", "results")
            shutil.copytree(ROOT / package, tree / package, ignore=leave_out)
        done = run_command("--only", "build,dali", cwd=tree, CUDA_VISIBLE_DEVICES="", TMPDIR=str(temporary))
        assert done.returncode == 0, done.stdout + done.stderr
        [written] = re.findall(r"written to (\S+/check\.json), the output of all parts to \S+/check\.log", done.stdout)
        assert Path(written).parents[1] == temporary
        assert not (tree / "bench" / "results").exists()
        report = read_json(Path(written))
        assert list(report["parts"]) == ["build", "dali/loaders", "dali/gpu_loaders"]
        for part in report["parts"].values():
            assert part["status"] == "skipped"
            assert re.fullmatch(r"torch \S+ sees no CUDA device", part["reason"])
        assert report["environment"]["gpus"] == []
        assert "is not built" in report["environment"]["extension_cuda"]

    def test_ends_where_the_machine_cannot_be_described(self, tmp_path):
        (tmp_path / "torch.py").write_text("raise ImportError('a torch that is broken')")
        done = run_command("--only", "runs", "--out", str(tmp_path / "check.json"), PYTHONPATH=str(tmp_path))
        assert done.returncode == 1
        assert done.stderr == "bench.gpu_machine: got exit status 1, expected 0\n"
        assert "a torch that is broken" in done.stdout
        assert not (tmp_path / "check.json").exists()

    @pytest.mark.parametrize(
        ("arguments", "names"),
        [
            ([], [part.name for part in PARTS]),
            (["--only", "build,dali,runs", "--skip", "dali/loaders"], ["build", "dali/gpu_loaders", "runs"]),
        ],
    )
    def test_lists_its_parts(self, capsys, arguments, names):
        assert gpu_check.main(["--list", *arguments]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == names
        assert lines[0].endswith(" 180 s  both libraries of the extension, for this GPU (needs gpu)")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--only", "ops,opps"], "argument --only: got 'opps', expected some of build, ops, ops-speed, dali, "),
            (["--data", "/nowhere"], "argument --data: got /nowhere, expected a folder"),
        ],
    )
    def test_refuses(self, capsys, arguments, said):
        with pytest.raises(SystemExit) as stop:
            gpu_check.main(arguments)
        assert stop.value.code == 2
        assert said in capsys.readouterr().err.splitlines()[-1]


class TestMachine:
    @pytest.mark.parametrize(("version", "is_old"), [("12.3.0", True), ("13.0.0", False), ("14.1.0", False)])
    def test_warns_of_an_older_pillow(self, version, is_old):
        assert ("tests fail" in gpu_machine.warn_of_pillow(version)) == is_old

    def test_a_gpu_on_which_nothing_runs_is_none(self, monkeypatch):
        def fails(*_, **__):
            raise RuntimeError("no kernel image is available")

        monkeypatch.setattr(gpu_machine.torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(gpu_machine.torch, "ones", fails)
        assert gpu_machine.why_no_gpu() == "torch cannot compute on its CUDA device: no kernel image is available"

    def test_builds_for_the_gpu_that_is_there(self, monkeypatch, tmp_path):
        names = ("DOGS_ACCEL_CUDA", "TORCH_CUDA_ARCH_LIST", "MAX_JOBS")
        (tmp_path / "setup.py").write_text(f"""
import os, pathlib, sys
pathlib.Path("said").write_text(" ".join([*sys.argv[1:], *(os.environ[name] for name in {names})]))
sys.exit(int(os.environ["MAX_JOBS"]) - 3)
""")
        monkeypatch.setattr(gpu_machine, "ROOT", tmp_path)
        monkeypatch.setattr(gpu_machine.torch.cuda, "get_device_capability", lambda _: (10, 3))
        monkeypatch.setenv("DOGS_ACCEL_CUDA", "0")
        monkeypatch.setenv("MAX_JOBS", "3")
        monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
        gpu_machine.build_extension()
        assert (tmp_path / "said").read_text() == "build_ext --inplace 1 10.3 3"
        monkeypatch.setenv("MAX_JOBS", "4")
        with pytest.raises(subprocess.CalledProcessError):
            gpu_machine.build_extension()

    def test_nvidia_smi_s_answer(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        smi = tmp_path / "nvidia-smi"
        smi.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 580.1, 700.00 W, 1980 MHz, 2619 MHz, 81559 MiB'\n")
        smi.chmod(0o755)
        [gpu] = gpu_machine.ask_nvidia_smi()
        assert (gpu["name"], gpu["driver_version"], gpu["power.limit"]) == (
            "NVIDIA H100 80GB HBM3",
            "580.1",
            "700.00 W",
        )
        smi.write_text("#!/bin/sh\necho 'no devices were found'; exit 6\n")
        assert gpu_machine.ask_nvidia_smi().endswith("returned non-zero exit status 6.")
        monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
        assert "No such file or directory: 'nvidia-smi'" in gpu_machine.ask_nvidia_smi()


def test_a_file_with_tests_for_a_gpu_belongs_to_a_part():
    uses = re.compile(r"mark\.gpu|needs_cuda|needs_gpu|DEVICES\b")
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if uses.search(path.read_text(encoding="utf-8"))]
    chosen = {argument for part in PARTS for argument in part.arguments}
    assert {str(path.relative_to(ROOT)) for path in files if path != Path(__file__)} <= chosen


def test_what_the_parts_choose_is_there():
    chosen = {each for part in PARTS for each in part.arguments if each.startswith(("tests/", "bench/"))}
    assert {each for each in chosen if not (ROOT / each).is_file()} == set()


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

    def test_is_printed(self, tmp_path, capsys):
        assert gpu_table.main(["--results", str(tmp_path / "none.json")]) == 0
        assert capsys.readouterr().out == f"{gpu_table.OWED}\n"
