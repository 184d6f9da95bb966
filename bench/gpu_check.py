"""`python -m bench.gpu_check`: builds, checks and times all that only a GPU can show; needs torch and no installation.

Each part is a process of its own with a limit, so that one that fails, crashes or hangs costs no other. After each the
JSON is written anew, and the output of all is in a .log beside it. On a machine without a GPU the parts that need one
are skipped, and say why. Nine minutes do not suffice for everything (`--list` says what each part may take), so with
--only or --skip the JSON keeps what it has of the other parts, if the GPU and the versions are the same. The exit
status is 0 where every part passed or was skipped, and else 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.gpu_parts import BUILD, KERNELS, MACHINE, PARTS, Part
from bench.limited_process import Ended, run_limited
from bench.outcomes import LOST
from bench.part_record import CUT, FAILED, SKIPPED, complete, describe, exit_status, judge, outcomes_of, summary
from dogs_accel.runtime.files import read_json, write_json

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "bench" / "results" / "gpu" / "check.json"
_ENDING_SECONDS = 12.0
"""Kept for ending the last part and for the JSON."""
_LEAST_SECONDS = 10.0
"""A part with less than this is not begun."""
_ATTEMPTS = 6
"""Processes that a part's tests may take."""


class Stopped(BaseException):
    """The command was told to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the parts are run."""

    work: Path
    """A folder that is removed in the end."""
    seconds: float
    """For all parts together."""
    out: Path | None = None
    """The JSON; None is KEPT on a machine with a GPU and a temporary folder on others."""
    data: Path | None = None
    keeps_others: bool = False
    """Whether the JSON keeps what it has of parts that are not run now."""


@dataclass
class Check:
    """What is known so far, and where it is written."""

    settings: Settings
    out: Path
    report: dict[str, Any]
    obstacles: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=dict)
    """Of the parts that were run now."""
    start: float = field(default_factory=time.perf_counter)

    @property
    def log(self) -> Path:
        """The output of all parts."""
        return self.out.with_suffix(".log")

    @property
    def seconds_left(self) -> float:
        """For the next part."""
        return self.settings.seconds - _ENDING_SECONDS - (time.perf_counter() - self.start)

    def write(self) -> None:
        """Write the JSON anew."""
        self.report["seconds"] = time.perf_counter() - self.start
        places = {part.name: place for place, part in enumerate(PARTS)}
        parts = sorted(self.report["parts"].items(), key=lambda each: places.get(each[0], len(places)))
        self.report["parts"] = dict(parts)
        write_json(self.out, self.report)

    def add_to_log(self, line: str) -> None:
        """Write a line between the outputs."""
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"{line}\n")

    def move_to(self, out: Path) -> None:
        """Write to another place from now on."""
        old, self.out = self.log, out
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(old, self.log)


def say(line: str) -> None:
    """Print a line; where nobody reads any more, the JSON and the log have it all."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def begin(settings: Settings) -> Check:
    """Make an empty log, so that a place that cannot be written to is known at once."""
    out = settings.out or Path(tempfile.mkdtemp(prefix="gpu-check-")) / "check.json"
    report = {
        "title": "What only a GPU can show",
        "date": time.strftime("%Y-%m-%d"),
        "minutes": settings.seconds / 60,
        "seconds": 0.0,
        "environment": None,
        "parts": {},
    }
    check = Check(settings, out, report)
    out.parent.mkdir(parents=True, exist_ok=True)
    check.log.write_bytes(b"")
    return check


def run_parts(check: Check, parts: Sequence[Part]) -> None:
    """Run parts in turn, each recorded as it ends; a signal is recorded in the part that it ended, and raised."""
    for part in parts:
        why_not = obstacle(check, part)
        if why_not is not None:
            record(check, part, {"status": SKIPPED, "reason": why_not, "seconds": 0.0})
            continue
        say(f"{part.name:<15} {part.title} (at most {limit_of(check, part):.0f} s)")
        run_part(check, part)


def obstacle(check: Check, part: Part) -> str | None:
    """Why a part cannot run."""
    reasons = [check.obstacles[need] for need in part.needs if need in check.obstacles]
    if reasons:
        return "; ".join(reasons)
    if KERNELS in part.needs:
        if check.statuses.get(BUILD) in (FAILED, CUT):
            return "the part build did not pass"
        if not (ROOT / "dogs_accel" / "_C_cuda.abi3.so").is_file():
            return "the CUDA library is not built"
    if check.seconds_left < _LEAST_SECONDS:
        return f"no time is left of {check.settings.seconds / 60:g} minutes: --only {part.name} gives it all of them"
    return None


def limit_of(check: Check, part: Part) -> float:
    """Seconds that a part may take now."""
    return min(part.limit_seconds, check.seconds_left)


def run_part(check: Check, part: Part) -> None:
    """Run one part and record it."""
    work = check.settings.work / part.name
    (work / "results").mkdir(parents=True)
    check.add_to_log(f"===== {part.name}: python {' '.join(part.arguments)}")
    begins_at, limit, start = check.log.stat().st_size, limit_of(check, part), time.perf_counter()
    try:
        ended = run_attempts(check, part, work, limit)
    except Stopped as stopped:
        entry = {"status": CUT, "reason": f"stopped by {stopped}", "seconds": time.perf_counter() - start}
        record(check, part, complete(entry, part, work, check.log, begins_at))
        raise
    status, reason = judge(ended, limit, outcomes_of(part, work))
    entry = {"status": status, "reason": reason, "seconds": time.perf_counter() - start}
    record(check, part, complete(entry, part, work, check.log, begins_at))
    shutil.rmtree(work, ignore_errors=True)  # 20,580 pictures, perhaps; what stays goes with the whole folder


def run_attempts(check: Check, part: Part, work: Path, limit: float) -> Ended:
    """Run a part's process; where it crashed or lost its CUDA context in a test, another for the tests after that."""
    until = time.perf_counter() + limit
    for attempt in range(_ATTEMPTS):
        arguments = [argument.format(work=work, attempt=attempt) for argument in part.arguments]
        if part.takes_data and check.settings.data is not None:
            arguments.append(f"--data={check.settings.data}")
        if attempt:
            check.add_to_log(f"===== {part.name} again, for the tests that are left")
        ended = run_limited(
            [sys.executable, *arguments],
            limit_seconds=until - time.perf_counter(),
            log=check.log,
            folder=ROOT,
            env=environ_of(check.settings.work),
        )
        outcomes = outcomes_of(part, work)
        in_a_test = outcomes is not None and (outcomes.running is not None or ended.exit_status == LOST)
        if ended.exit_status is None or not in_a_test or until - time.perf_counter() < _LEAST_SECONDS:
            break
    return ended


def environ_of(work: Path) -> dict[str, str]:
    """What the processes find in their environment: output that comes at once, and a cache that goes in the end."""
    own = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", "XDG_CACHE_HOME": str(work / "cache")}
    return {**os.environ, **own}


def record(check: Check, part: Part, entry: dict[str, Any]) -> None:
    """Keep what became of a part, write it, and say it."""
    said, results = describe(entry), entry.get("results", {})
    check.statuses[part.name] = entry["status"]
    if part.name == MACHINE:
        take_machine(check, results.pop("machine", {}))
    if part.name == BUILD and "build" in results and check.report["environment"] is not None:
        check.report["environment"]["extension_cuda"] = results["build"]["extension_cuda"]
    about = {"title": part.title, "date": time.strftime("%Y-%m-%d"), "limit_seconds": part.limit_seconds}
    check.report["parts"][part.name] = about | entry
    check.write()
    say(f"{part.name:<15} {said}")


def take_machine(check: Check, found: dict[str, Any]) -> None:
    """Learn what the machine has; where its part failed nothing is known, and every part is tried."""
    environment = found.get("environment")
    check.obstacles = found.get("obstacles", {})
    if check.settings.out is None and found and "gpu" not in check.obstacles:
        check.move_to(KEPT)
    check.report |= {"environment": environment, "missing_packages": found.get("missing_packages")}
    if check.settings.keeps_others and check.out.is_file():
        earlier = read_json(check.out)
        if identity(earlier["environment"]) == identity(environment):
            check.report["parts"] = earlier["parts"]
        else:
            say(f"{check.out} is of another machine or of other versions, and nothing of it is kept")


def identity(environment: dict[str, Any] | None) -> list[Any]:
    """What must be the same for results to stand beside each other."""
    return [(environment or {}).get(key) for key in ("gpus", "cpu", "cores", "python", "torch_cuda", "packages")]


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Raise Stopped at SIGTERM, SIGINT or SIGHUP, the first time; then nothing disturbs the ending."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def stop(number: int, _: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def names_of(text: str) -> tuple[str, ...]:
    """Read names of parts, comma-separated."""
    names, known = tuple(text.split(",")), [part.name for part in PARTS]
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"got {name!r}, expected some of {', '.join(known)}")
    return names


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_check", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", type=names_of, metavar="PART,...", help="these parts alone, after machine")
    parser.add_argument("--skip", type=names_of, default=(), metavar="PART,...", help="all parts but these")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all of it (default: 9)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="measure loading on the images below DIR")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=f"the JSON (default: on a GPU {KEPT.relative_to(ROOT)})"
    )
    parser.add_argument("--list", action="store_true", help="list the parts and end")
    chosen = parser.parse_args(arguments)
    if not chosen.minutes > 0:
        parser.error(f"argument --minutes: got {chosen.minutes:g}, expected more than 0")
    if chosen.data is not None and not chosen.data.is_dir():
        parser.error(f"argument --data: {chosen.data} is no folder")
    return chosen


def chosen_parts(only: Sequence[str] | None, skip: Sequence[str]) -> list[Part]:
    """Return the parts to run; machine always, which says what the others can do."""
    return [
        part
        for part in PARTS
        if part.name == MACHINE or ((only is None or part.name in only) and part.name not in skip)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    chosen = parse(arguments)
    if chosen.list:
        for part in PARTS:
            needs = ", ".join(part.needs) or "nothing"
            print(f"{part.name:<15} {part.limit_seconds:>4.0f} s  {part.title} (needs {needs})")
        return 0
    with tempfile.TemporaryDirectory(prefix="gpu-check-", ignore_cleanup_errors=True) as work, signals_as_exceptions():
        settings = Settings(
            work=Path(work),
            seconds=60 * chosen.minutes,
            out=None if chosen.out is None else chosen.out.absolute(),
            data=None if chosen.data is None else chosen.data.absolute(),
            keeps_others=bool(chosen.only or chosen.skip),
        )
        return run_check(settings, chosen_parts(chosen.only, chosen.skip))


def run_check(settings: Settings, parts: Sequence[Part]) -> int:
    """Run parts to their end or to a signal, say where the results are, and return the exit status."""
    check = begin(settings)
    status = None
    try:
        run_parts(check, parts)
    except Stopped as stopped:
        check.report["stopped_by"] = str(stopped)
        status = 128 + stopped.number
    check.write()
    say(summary(check.report))
    say(f"written to {check.out}, the output of all parts to {check.log}")
    return exit_status(check.statuses.values()) if status is None else status


if __name__ == "__main__":
    sys.exit(main())
