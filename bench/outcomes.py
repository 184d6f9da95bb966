"""A pytest plugin, `-p bench.outcomes --outcomes FILE`: a line of JSON as each test begins and as it ends.

Unlike a report at the end, this is there when the process is killed, and names the test in which it hung.
"""

from __future__ import annotations

import collections
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BEGUN, PASSED, SKIPPED, FAILED = "begun", "passed", "skipped", "failed"
_MESSAGE_CHARACTERS = 3_000


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", metavar="FILE", required=True, help="write each test's outcome as a line of JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Writer(Path(config.getoption("--outcomes"))))


class _Writer:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        path.touch()

    def _write(self, test: str, outcome: str, message: str = "") -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"test": test, "outcome": outcome, "message": message}) + "\n")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write(nodeid, BEGUN)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # A test that passed may still fail in a fixture's end.
        if report.failed or report.skipped or report.when == "call":
            self._write(report.nodeid, report.outcome, _message(report))

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
        return self.passed + self.skipped + len(self.failures)

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
        passed=sum(outcome == PASSED for outcome, _ in ended.values()),
        skips=dict(collections.Counter(message for outcome, message in ended.values() if outcome == SKIPPED)),
        failures={test: message for test, (outcome, message) in ended.items() if outcome == FAILED},
        running=running,
    )
