"""A pytest plugin, `-p bench.outcomes --outcomes FILE`: a line of JSON as each test begins and as it ends.

Unlike a report at the end, this is there when the process is killed, and names the test in which it hung. A second
process with the same file leaves out the tests that have ended. An error that a CUDA context does not survive ends the
process with the exit status LOST, since every test after it would fail too. A test that takes longer than
`--test-seconds` ends it as well, after its stack was printed, be it in a driver that never returns.
"""

from __future__ import annotations

import collections
import faulthandler
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BEGUN, PASSED, SKIPPED, FAILED = "begun", "passed", "skipped", "failed"
LOST = 86
_STICKY = re.compile(
    "CUDA error: .*(illegal|misaligned|device-side assert|launch failure|launch timed out|hardware stack|uncorrectable)"
)
_MESSAGE_CHARACTERS = 3_000


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", metavar="FILE", required=True, help="write each test's outcome as a line of JSON")
    parser.addoption("--test-seconds", type=float, metavar="S", help="end the process where a test takes longer")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Writer(Path(config.getoption("--outcomes")), config.getoption("--test-seconds")))


class _Writer:
    def __init__(self, path: Path, test_seconds: float | None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._path = path
        self._test_seconds = test_seconds
        self._stderr = os.dup(2)  # what it is before pytest captures it
        self._is_lost = False
        before = read_outcomes(path)
        if before.running is not None:
            longer = "" if test_seconds is None else f", or took longer than {test_seconds:g} s"
            self._write(before.running, FAILED, f"the process crashed in it{longer}; the log has its stack")
        self._ended = read_outcomes(path).ended

    def _write(self, test: str, outcome: str, message: str = "") -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"test": test, "outcome": outcome, "message": message}) + "\n")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid not in self._ended]

    def pytest_runtestloop(self, session: pytest.Session) -> None:
        self._session = session

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._is_lost:
            session.exitstatus = LOST

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write(nodeid, BEGUN)
        if self._test_seconds is not None:
            faulthandler.dump_traceback_later(self._test_seconds, exit=True, file=self._stderr)

    def pytest_runtest_logfinish(self) -> None:
        faulthandler.cancel_dump_traceback_later()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # A test that passed may still fail in a fixture's end.
        if report.failed or report.skipped or report.when == "call":
            self._write(report.nodeid, report.outcome, _message(report))
        if report.failed and _STICKY.search(report.longreprtext):
            self._is_lost = True
            self._session.shouldstop = "the CUDA context is lost"

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self._write(report.nodeid, report.outcome, _message(report))


def _message(report: pytest.TestReport | pytest.CollectReport) -> str:
    if report.skipped and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return report.longreprtext[-_MESSAGE_CHARACTERS:] if report.failed else ""


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What the tests of a process came to."""

    ended: frozenset[str]
    """The tests that came to an end."""
    passed: int
    skips: dict[str, int]
    """How many tests each reason skipped."""
    failures: dict[str, str]
    """The end of what each failed test said, by its name."""
    running: str | None
    """The test that had begun and not ended."""

    @property
    def skipped(self) -> int:
        """How many were skipped."""
        return sum(self.skips.values())

    @property
    def num_tests(self) -> int:
        """How many ended."""
        return len(self.ended)

    def as_dict(self) -> dict[str, Any]:
        """Return counts, the reasons of the skipped and the messages of the failed."""
        failures = [{"test": test, "message": message} for test, message in self.failures.items()]
        return {"passed": self.passed, "failed": len(failures), "skipped": self.skipped, "skips": self.skips,
                "failures": failures, "running": self.running}  # fmt: skip


def read_outcomes(path: Path) -> Outcomes:
    """Read what the plugin wrote, also where it was killed in the middle of a line."""
    ended: dict[str, tuple[str, str]] = {}
    running = None
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        row = json.loads(line)
        test, outcome = row["test"], row["outcome"]
        if outcome == BEGUN:
            running = test
            continue
        running = None if running == test else running
        if test not in ended or outcome == FAILED:
            ended[test] = (outcome, row["message"])
    return Outcomes(
        ended=frozenset(ended),
        passed=sum(outcome == PASSED for outcome, _ in ended.values()),
        skips=dict(collections.Counter(message for outcome, message in ended.values() if outcome == SKIPPED)),
        failures={test: message for test, (outcome, message) in ended.items() if outcome == FAILED},
        running=running,
    )
