"""What became of a part of `python -m bench.gpu_check`: its status and reason, its tests, its results, in words too."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.gpu_parts import Part
from bench.limited_process import Ended
from bench.outcomes import Outcomes, read_outcomes
from dogs_accel.runtime.files import read_json

PASSED, FAILED, SKIPPED, CUT = "passed", "failed", "skipped", "cut"
NO_TESTS = 5
"""pytest's exit status where none was chosen, or a process before has had them all."""
_TOLD_BY_OUTCOMES = (0, 1, NO_TESTS)
_TAIL_LINES = 60


def outcomes_of(part: Part, work: Path) -> Outcomes | None:
    """What a part's tests came to; None where it has none, or did not get so far."""
    path = work / "outcomes.jsonl"
    return read_outcomes(path) if part.is_pytest and path.is_file() else None


def judge(ended: Ended, limit: float, outcomes: Outcomes | None) -> tuple[str, str | None]:
    """Return a part's status and the reason where it did not simply pass."""
    inside = f", in {outcomes.running}" if outcomes is not None and outcomes.running is not None else ""
    remains = "" if ended.is_gone else "; it could not be ended and may hold the GPU"
    if ended.exit_status is None:
        return CUT, f"stopped at its limit of {limit:.0f} s{inside}{remains}"
    if outcomes is not None and outcomes.failures and ended.exit_status in _TOLD_BY_OUTCOMES:
        return FAILED, f"{len(outcomes.failures)} of {outcomes.num_tests} tests failed{remains}"
    if ended.exit_status < 0:
        return FAILED, f"ended by {signal.Signals(-ended.exit_status).name}{inside}{remains}"
    if ended.exit_status > 0:
        nothing = " (no test was chosen)" if outcomes is not None and ended.exit_status == NO_TESTS else ""
        return FAILED, f"exit status {ended.exit_status}{nothing}{inside}{remains}"
    if outcomes is not None and outcomes.passed == 0:
        return SKIPPED, f"all its tests were skipped: {'; '.join(outcomes.skips)}"
    return PASSED, remains.removeprefix("; ") or None


def complete(entry: dict[str, Any], part: Part, work: Path, log: Path, begins_at: int) -> dict[str, Any]:
    """Add the tests, the results, and the end of the output of a part that did not pass."""
    outcomes = outcomes_of(part, work)
    if outcomes is not None:
        entry["tests"] = outcomes.as_dict()
    entry["results"] = {path.stem: read_json(path) for path in sorted((work / "results").glob("[!.]*.json"))}
    if entry["status"] not in (PASSED, SKIPPED):
        if part.gather is not None:
            entry["results"] |= part.gather(work)
        entry["output_tail"] = tail(log, begins_at)
    return entry


def tail(log: Path, begins_at: int) -> list[str]:
    """Return the last lines after a place in the log."""
    with log.open("rb") as file:
        file.seek(begins_at)
        return file.read().decode("utf-8", errors="replace").splitlines()[-_TAIL_LINES:]


def describe(entry: dict[str, Any]) -> str:
    """Say in one line what became of a part."""
    said = entry["status"] + (f" in {entry['seconds']:.0f} s" if entry["status"] != SKIPPED else "")
    figures = [entry["reason"]] if entry["reason"] else []
    if "tests" in entry and entry["status"] != SKIPPED:
        figures.append(", ".join(f"{entry['tests'][each]} {each}" for each in (PASSED, FAILED, SKIPPED)))
    figures += [result["headline"] for result in entry.get("results", {}).values() if "headline" in result]
    return f"{said}: {'; '.join(figures)}" if figures else said


def summary(report: dict[str, Any]) -> str:
    """Lay the parts out as a small table."""
    lines = [f"  {name:<15} {part['status']:<8} {part['seconds']:>6.0f} s" for name, part in report["parts"].items()]
    return "\n".join([*lines, f"  {'in all':<24} {report['seconds']:>6.0f} s"])


def exit_status(statuses: Iterable[str]) -> int:
    """0 where every part passed or was skipped: a part that was cut has not shown what it should."""
    return int(any(status in (FAILED, CUT) for status in statuses))
