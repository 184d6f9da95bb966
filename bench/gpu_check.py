"""`python -m bench.gpu_check`: builds, checks and times all that only a GPU can show; needs torch and no installation.

After each part the JSON is written anew, and the output of all is in a .log beside it. On a machine without a GPU the
parts are skipped, and say why. Nine minutes do not suffice for everything (`--list` says what each part may take), so
with --only or --skip the JSON keeps what it has of the other parts, if the GPU and the versions are the same. The exit
status is 0 where every part passed or was skipped, and else 1.

Why this is not one pytest with a mark and --junitxml: a test may crash the interpreter, hang in the driver or lose the
CUDA context, which all tests after it in the same process then lack; pytest has no limit for itself, and writes its
report only at its end. So each file of tests or benchmarks is a pytest process with a limit. At the limit it gets
SIGINT, at which pytest still writes its report, and then SIGKILL. A test that crashes or hangs costs the tests after it
in its own file, and the reason has the last test that began, as the output of `pytest -v` names it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bench.gpu_parts import BUILD, PARTS, RUNS, Part
from bench.run_times import training_times
from dogs_accel.runtime.files import read_json, write_json

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "bench" / "results" / "gpu" / "check.json"
PASSED, FAILED, SKIPPED, CUT = "passed", "failed", "skipped", "cut"
_MACHINE_SECONDS = 60.0
_ENDING_SECONDS = 12.0
"""Kept for ending the last part; one with less than this is not begun."""
_GRACE_SECONDS = 5.0
"""Between SIGINT and SIGKILL."""
_NO_TESTS = 5
"""pytest's exit status where none was chosen."""
_NUM_FAILURES, _MESSAGE_CHARACTERS, _TAIL_LINES = 20, 3_000, 60
"""What is kept of each part that failed; after a lost CUDA context all tests of its file do."""


@dataclass(kw_only=True)
class Check:
    """One call of the command: what it is given, and what it has found so far."""

    work: Path
    """A folder that is removed in the end."""
    out: Path
    """The JSON; the output of all parts is in a .log beside it."""
    machine: dict[str, Any]
    """What bench.gpu_machine wrote."""
    until: float
    """When all parts must have ended, by the clock."""
    data: Path | None = None
    keeps_others: bool = False
    """Whether the JSON keeps what it has of parts that are not run now."""
    clock: Callable[[], float] = time.monotonic
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name, those of earlier calls among them."""
    statuses: dict[str, str] = field(default_factory=dict)
    """Of the parts that were run now."""

    def __post_init__(self) -> None:
        self.log = self.out.with_suffix(".log")
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        if self.keeps_others and self.out.is_file():
            earlier = read_json(self.out)
            if identity(earlier["environment"]) == identity(self.machine["environment"]):
                self.parts = earlier["parts"]
            else:
                print(f"{self.out} is of another machine or of other versions, and nothing of it is kept")

    def obstacle(self, part: Part) -> str | None:
        """Why a part cannot run."""
        for need in part.needs:
            if need in self.machine["obstacles"]:
                return self.machine["obstacles"][need]
        if self.statuses.get(BUILD) in (FAILED, CUT):
            return f"the part {BUILD} did not pass"
        if self.until - self.clock() < 2 * _ENDING_SECONDS:
            return f"no time is left: --only {part.name} gives it all of it"
        return None

    def run(self, part: Part) -> None:
        """Run a part that nothing hinders, and record it; also one in which the command is told to end."""
        start, reason = self.clock(), self.obstacle(part)
        if reason is not None:
            self.record(part, {"status": SKIPPED, "reason": reason, "seconds": 0.0})
            return
        limit, work = min(part.limit_seconds, self.until - start - _ENDING_SECONDS), self.work / part.name
        (work / "results").mkdir(parents=True)
        arguments = [argument.format(work=work) for argument in part.arguments]
        arguments += [f"--data={self.data}"] if self.data is not None and "--benchmark" in arguments else []
        print(f"{part.name:<25} {part.title} (at most {limit:.0f} s)", flush=True)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"===== {part.name}: python {' '.join(arguments)}\n")
        begins_at = self.log.stat().st_size
        status, reason = CUT, "the command was told to end"
        try:
            exit_status = run_limited([sys.executable, *arguments], limit, self.log)
            status, reason = judge(exit_status, limit, read_junit(work / "junit.xml"), lines_of(self.log, begins_at))
        finally:
            found = {"status": status, "reason": reason, "seconds": self.clock() - start}
            self.record(part, found | what_it_left(part, work, status, lines_of(self.log, begins_at)))
            shutil.rmtree(work, ignore_errors=True)  # 20,580 pictures, perhaps; what stays goes with the whole folder

    def record(self, part: Part, found: dict[str, Any]) -> None:
        """Keep what became of a part, write all anew, in the order of the parts, and say it."""
        self.statuses[part.name] = found["status"]
        self.machine = found.get("results", {}).get("machine", self.machine)  # anew after the build
        self.parts[part.name] = {"title": part.title, "date": time.strftime("%Y-%m-%d"), **found}
        parts = {each.name: self.parts[each.name] for each in PARTS if each.name in self.parts}
        about = {"date": time.strftime("%Y-%m-%d"), "environment": self.machine["environment"]}
        write_json(self.out, about | {"parts": parts})
        print(f"{part.name:<25} {describe(found)}", flush=True)


def run_limited(command: Sequence[str], limit_seconds: float, log: Path) -> int | None:
    """Run a command in ROOT, its output appended to `log`; its exit status, None where the limit came first.

    Whatever happens here, a signal that becomes an exception included, nothing of its process group is left.
    """
    with log.open("ab") as output:
        # Unbuffered, so that what a part said before it crashed or was killed is there, and in its order.
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    try:
        return process.wait(limit_seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        for number in (signal.SIGINT, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):  # one that hangs in a driver may outlive even SIGKILL
                process.wait(_GRACE_SECONDS)


def read_junit(path: Path) -> dict[str, Any] | None:
    """Count the tests of pytest's report; None where there is none, or no whole one."""
    try:
        # One in which pytest was interrupted has no name.
        cases = [case for case in ElementTree.parse(path).iter("testcase") if case.get("name")]
    except (FileNotFoundError, ElementTree.ParseError):
        return None
    skips = Counter(skip.get("message", "") for case in cases for skip in case.findall("skipped"))
    failures = [
        {"test": f"{case.get('classname')}::{case.get('name')}", "message": (problem.text or "")[-_MESSAGE_CHARACTERS:]}
        for case in cases
        for problem in (*case.findall("failure"), *case.findall("error"))
    ]
    return {PASSED: len(cases) - len(failures) - skips.total(), FAILED: len(failures), SKIPPED: skips.total(),
            "skips": dict(skips), "failures": failures[:_NUM_FAILURES]}  # fmt: skip


def judge(
    exit_status: int | None, limit: float, tests: dict[str, Any] | None, lines: Sequence[str]
) -> tuple[str, str | None]:
    """Return the status of a part that ended, and the reason where it did not simply pass."""
    begun = [line.strip() for line in lines if re.match(r"\S+\.py::", line)]
    last = f"; the last test that began: {begun[-1]}" if begun and (exit_status is None or tests is None) else ""
    if exit_status is None:
        return CUT, f"stopped at its limit of {limit:.0f} s{last}"
    if tests is not None and tests[FAILED]:
        return FAILED, f"{tests[FAILED]} of {sum(tests[each] for each in (PASSED, FAILED, SKIPPED))} tests failed"
    if exit_status < 0:
        return FAILED, f"ended by {signal.Signals(-exit_status).name}{last}"
    if exit_status > 0:
        return FAILED, f"exit status {exit_status}{' (no test was chosen)' if exit_status == _NO_TESTS else ''}{last}"
    if tests is not None and not tests[PASSED]:
        return SKIPPED, f"all its tests were skipped: {'; '.join(tests['skips'])}"
    return PASSED, None


def what_it_left(part: Part, work: Path, status: str, lines: Sequence[str]) -> dict[str, Any]:
    """Read a part's tests and results; of one that did not pass also the end of its output."""
    tests, results = read_junit(work / "junit.xml"), sorted((work / "results").glob("[!.]*.json"))
    left = {} if tests is None else {"tests": tests}
    left["results"] = {path.stem: read_json(path) for path in results}
    if status in (FAILED, CUT):
        left["output_tail"] = list(lines[-_TAIL_LINES:])
        if part.name == RUNS and (runs := training_times(work)):
            seconds, epochs = (sum(run[key] for run in runs.values()) for key in ("seconds", "epochs"))
            headline = f"{seconds:.0f} s of training in {epochs} epochs, not all of them"
            left["results"]["training_runs_cut"] = {"headline": headline, "is_complete": False, "runs": runs}
    return left


def lines_of(log: Path, begins_at: int) -> list[str]:
    """Return the lines after a place in the log."""
    return log.read_bytes()[begins_at:].decode("utf-8", errors="replace").splitlines()


def describe(found: dict[str, Any]) -> str:
    """Say in one line what became of a part."""
    figures = [found["reason"]] if found["reason"] else []
    if "tests" in found:
        figures.append(", ".join(f"{found['tests'][each]} {each}" for each in (PASSED, FAILED, SKIPPED)))
    figures += [result["headline"] for result in found.get("results", {}).values() if "headline" in result]
    return f"{found['status']} in {found['seconds']:.0f} s: {'; '.join(figures)}".removesuffix(": ")


def identity(environment: dict[str, Any]) -> list[Any]:
    """What must be the same for results to stand beside each other."""
    return [environment.get(key) for key in ("gpus", "cpu", "cores", "python", "torch_cuda", "packages")]


def look_at_machine(work: Path) -> dict[str, Any]:
    """Return what bench.gpu_machine finds; ends the command where it does not find out."""
    file, log = work / "machine.json", work / "machine.log"
    exit_status = run_limited([sys.executable, "-m", "bench.gpu_machine", str(file)], _MACHINE_SECONDS, log)
    print(log.read_text(encoding="utf-8"), end="", flush=True)
    if exit_status != 0:
        sys.exit(f"bench.gpu_machine: got exit status {exit_status}, expected 0")
    return read_json(file)


def run_check(check: Check, parts: Sequence[Part]) -> int:
    """Run parts to their end or to an exception, say where the results are, and return the exit status."""
    try:
        for part in parts:
            check.run(part)
    finally:
        counts = ", ".join(f"{count} {status}" for status, count in Counter(check.statuses.values()).items())
        print(f"{counts}; written to {check.out}, the output of all parts to {check.log}")
    return int(any(status in (FAILED, CUT) for status in check.statuses.values()))


def end_by_signals() -> None:
    """Raise SystemExit at SIGTERM, SIGINT or SIGHUP, the first time; then nothing disturbs the ending."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def stop(number: int, _: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in numbers:
        signal.signal(number, stop)


def names_of(text: str) -> set[str]:
    """Read names of parts or of groups of them, comma-separated."""
    names, groups = set(text.split(",")), dict.fromkeys(part.group for part in PARTS)
    for name in names - {part.name for part in PARTS} - set(groups):
        raise argparse.ArgumentTypeError(f"got {name!r}, expected some of {', '.join(groups)}")
    return names


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_check", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", type=names_of, metavar="PART,...", help="these parts alone")
    parser.add_argument("--skip", type=names_of, default=set(), metavar="PART,...", help="all parts but these")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all of it (default: 9)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="measure loading on the images below DIR")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the JSON (default: in bench/results/gpu, on a GPU)")
    parser.add_argument("--list", action="store_true", help="list the parts and end")
    chosen = parser.parse_args(arguments)
    if chosen.data is not None and not chosen.data.is_dir():
        parser.error(f"argument --data: got {chosen.data}, expected a folder")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    chosen, start = parse(arguments), time.monotonic()
    only = chosen.only or {part.name for part in PARTS}
    parts = [part for part in PARTS if {part.name, part.group} & only and not {part.name, part.group} & chosen.skip]
    if chosen.list:
        for part in parts:
            print(f"{part.name:<25} {part.limit_seconds:>4.0f} s  {part.title} (needs {', '.join(part.needs)})")
        return 0
    end_by_signals()
    with tempfile.TemporaryDirectory(prefix="gpu-check-", ignore_cleanup_errors=True) as name:
        work = Path(name)
        os.environ.update(PYTHONUNBUFFERED="1", XDG_CACHE_HOME=str(work / "cache"))  # of the parts
        machine = look_at_machine(work)
        out = Path(tempfile.mkdtemp(prefix="gpu-check-")) / "check.json" if "gpu" in machine["obstacles"] else KEPT
        check = Check(
            work=work,
            out=(chosen.out or out).absolute(),
            machine=machine,
            until=start + 60 * chosen.minutes,
            data=chosen.data and chosen.data.absolute(),
            keeps_others=bool(chosen.only or chosen.skip),
        )
        return run_check(check, parts)


if __name__ == "__main__":
    sys.exit(main())
