"""`dogs-accel sweep`: its arguments, its folder and its workers."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dogs_accel.ending import CheckFailedError, Ending, ending_in_a_line
from dogs_accel.runtime.arguments import (
    DATA_HELP,
    Parser,
    add_device_flag,
    did_you_mean,
    natural,
    positive,
    user_path,
)
from dogs_accel.runtime.files import check_folder, claim_folder, is_unused
from dogs_accel.runtime.memory import available_bytes
from dogs_accel.runtime.start import begin_command
from dogs_accel.runtime.terminal import count_text, escaped

if TYPE_CHECKING:
    from dogs_accel.sweep.engine.opened import Where
    from dogs_accel.sweep.engine.study import SweepStudy
    from dogs_accel.sweep.settings import SweepConfig
    from dogs_accel.sweep.space import Value

# What a sweep needs is imported when its arguments have been read: torch takes seconds, which --help should not.

PURPOSE = "short runs over a space of settings, the best of them by validation"
_SWEEP = "dogs-accel sweep"
_WANDB_SWEEP = "WANDB_SWEEP_ID"
"""Set by W&B's agent for the process of each run."""
_NOT_OF_CONFIRM = (
    "config", "preset", "data", "trials", "epochs", "total_epochs", "hours", "sampler", "seed", "workers",
    "export_wandb",
)  # fmt: skip
"""Flags that say what a sweep is or how long it goes on, which one that is confirmed has behind it."""
_SETTINGS_LOCK = "settings"
"""Which a process has that reads or writes what a folder says of its sweep."""
_SEEDS = 3
"""Of each candidate that is confirmed, where nothing else is said."""
_WORKER_GIB = 1.5
"""Memory that a worker takes at least: torch, the libraries, a small model and a batch. All share the mapped store."""
_OF_FIELDS: dict[str, tuple[Callable[[str], Any], str]] = {
    "trials": (positive, "N"), "total_epochs": (positive, "N"), "hours": (float, "H"), "sampler": (str, "NAME"),
    "seed": (natural, "N"),
}  # fmt: skip
"""Fields of a sweep that have a flag: how its text is read, and what stands for it in --help."""


def add_sweep_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the flags of a sweep; what a field of it says has the help of that field."""
    from dogs_accel.sweep.settings import SweepConfig

    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--config", type=user_path, metavar="FILE",
        help="TOML with the tables [settings], what all runs share, as benchmark --config has it; [space], what "
        "varies; and [sweep] (docs/sweeps.md)",
    )  # fmt: skip
    what.add_argument("--preset", metavar="NAME", help="inaturalist-cnn, or inaturalist-cnn-demo on generated pictures")
    parser.add_argument(
        "--out", type=user_path, metavar="DIR",
        help="folder of the sweep; the same command with the same folder, at the same time or later, works on the "
        "same sweep (default: runs/<name>-<time>)",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="go on with the sweep in --out, with its settings")
    parser.add_argument("--data", type=user_path, metavar="DIR", help=DATA_HELP)
    parser.add_argument("--epochs", type=positive, metavar="N", help="epochs of each phase of a trial")
    for field in dataclasses.fields(SweepConfig):
        if field.name in _OF_FIELDS:
            kind, metavar = _OF_FIELDS[field.name]
            default = "" if field.default is None else f" (default: {field.default})"
            flag = f"--{field.name.replace('_', '-')}"
            parser.add_argument(flag, type=kind, metavar=metavar, help=field.metadata["help"] + default)
    add_device_flag(parser)
    parser.add_argument(
        "--workers", type=positive, metavar="N",
        help="processes of this command, which share the cores (default: 1)",
    )  # fmt: skip
    parser.add_argument("--wandb", metavar="MODE", help="offline, online or disabled (default: offline)")
    parser.add_argument(
        "--export-wandb", type=user_path, metavar="FILE",
        help="write the sweep as YAML for `wandb sweep`, whose agent then runs this command, and stop",
    )  # fmt: skip
    parser.add_argument(
        "--confirm", type=positive, metavar="K",
        help="train the best K trials of the sweep in --out and a baseline with other seeds, compare them on "
        "validation, and read test once, for the chosen one",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=positive, metavar="S", help="with --confirm: seeds of each of them (default: 3)"
    )
    parser.add_argument(
        "--baseline", type=user_path, metavar="FILE",
        help="with --confirm: settings to compare with, as benchmark --config takes them (default: the published "
        "setting where the space has it, else what all trials share)",
    )  # fmt: skip
    # Of the processes that --workers starts: the id of the one that has.
    parser.add_argument("--worker", type=positive, help=argparse.SUPPRESS)
    parser.epilog = "--NAME=VALUE of every parameter of the space trains that point alone, as W&B's agent asks for."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; how it ends is said in one line, with the exit codes of `ending_in_a_line`."""
    begin_command()
    with ending_in_a_line(_SWEEP) as ending:
        ending.stopped = "stopped; nothing was written"
        parser = Parser(prog=_SWEEP, description=f"{PURPOSE[0].upper()}{PURPOSE[1:]}.", allow_abbrev=False)
        add_sweep_arguments(parser)
        options, others = parser.parse_known_args(arguments)
        for text in _run(options, others, list(parser._option_string_actions), ending):
            print(text, flush=True)
    return 0


def _run(options: argparse.Namespace, others: list[str], flags: list[str], ending: Ending) -> Iterator[str]:
    if options.confirm is not None:
        yield from _confirm(options, others, ending)
        return
    for name in ("seeds", "baseline"):
        if getattr(options, name) is not None:
            raise ValueError(f"{name}: got {getattr(options, name)} without --confirm K, of which it is a part")
    sweep, point = _read(options, others, flags)
    if options.export_wandb is not None:
        yield from _export(options, sweep)
        return
    from dogs_accel.sweep.engine.trial import check_runs
    from dogs_accel.sweep.engine.worker import NothingTrainsError

    # Hours are those of this command: sweep.json has them of a file alone, and another command has its own.
    now = sweep if options.hours is None else dataclasses.replace(sweep, hours=options.hours)
    num_asked = 1 if point else options.workers or 1
    num_workers = _workers_in_memory(num_asked)
    is_of_agent = bool(point) and _WANDB_SWEEP in os.environ
    where = _where(options, sweep, num_threads=_threads(num_workers), is_of_agent=is_of_agent)
    check_runs(sweep)
    folder = _open_folder(options, sweep)
    goes_on = f"{_SWEEP} --resume --out {shlex.quote(str(folder))} goes on"
    ending.log_folder, ending.is_spokesman = folder, options.worker is None
    ending.stopped = f"stopped; what had ended is in {folder}, and {goes_on}"
    if options.worker is None:
        yield from _describe(now, folder, num_workers, num_asked)
    failed = ""
    try:
        yield from _work(options, now, folder, where, point, num_workers)
    except NothingTrainsError as error:
        failed = str(error)
    if options.worker is None:
        yield from _summary(sweep, folder, goes_on)
        if not point:  # one of many
            yield from _findings(folder)
        failed = failed or _nothing_complete(sweep, folder)
    if failed:
        raise CheckFailedError(failed)


def _where(options: argparse.Namespace, sweep: SweepConfig, **how: Any) -> Where:
    """Say where runs are computed and tracked: by the flags, else by the settings. Raises ValueError, OSError."""
    from dogs_accel.sweep.engine.opened import Where
    from dogs_accel.training.tracking import WANDB_MODES, check_tracking

    wandb, gpu = options.wandb or sweep.settings.get("wandb", "offline"), sweep.settings.get("gpu")
    if wandb not in WANDB_MODES:
        raise ValueError(f"wandb: got {wandb!r}, expected one of {', '.join(WANDB_MODES)}")
    check_tracking(wandb)
    device = options.device or sweep.settings.get("device") or (None if gpu is None else f"cuda:{gpu}")
    return Where(device=device, wandb=wandb, **how)


def _confirm(options: argparse.Namespace, others: list[str], ending: Ending) -> Iterator[str]:
    """Confirm the sweep in --out."""
    if others:
        raise ValueError(f"got {others[0]} beside --confirm, which takes the settings of the sweep")
    for name in _NOT_OF_CONFIRM:
        if (value := getattr(options, name)) is not None:
            flag = name.replace("_", "-")
            raise ValueError(f"{flag}: got {value} beside --confirm, which takes the settings of the sweep")
    if options.out is None:
        raise ValueError("confirm: got no folder, expected --out DIR of a sweep")
    from dogs_accel.sweep.confirming.run import confirm
    from dogs_accel.sweep.settings import read_sweep

    folder = Path(options.out)
    where = _where(options, read_sweep(folder))
    goes_on = f"{_SWEEP} --confirm {options.confirm}"
    goes_on += f" --seeds {options.seeds}" if options.seeds is not None else ""
    goes_on += f" --baseline {shlex.quote(options.baseline)}" if options.baseline is not None else ""
    ending.log_folder = folder
    ending.stopped = f"stopped; {goes_on} --out {shlex.quote(str(folder))} goes on"
    baseline = None if options.baseline is None else Path(options.baseline)
    yield from confirm(folder, where, top=options.confirm, seeds=options.seeds or _SEEDS, baseline=baseline)


def _read(options: argparse.Namespace, others: list[str], flags: list[str]) -> tuple[SweepConfig, dict[str, Value]]:
    """Read the sweep that the arguments name, and the one point that they give, if any."""
    from dogs_accel.sweep.presets import SWEEP_PRESETS
    from dogs_accel.sweep.settings import read_sweep, read_sweep_file, sweep_of
    from dogs_accel.sweep.wandb_file import read_point

    names = ("trials", "total_epochs", "sampler", "seed")
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    settings: dict[str, Any] = {}
    if options.data is not None:
        settings["data"] = str(Path(options.data).absolute())
    if options.epochs is not None:
        settings["epochs"] = {"": (options.epochs,)}
    if options.config is not None:
        sweep = read_sweep_file(Path(options.config), changes, settings)
    elif options.preset is not None:
        if options.preset not in SWEEP_PRESETS:
            near = did_you_mean(options.preset, SWEEP_PRESETS)
            raise ValueError(f"preset: got {options.preset!r}, expected one of {', '.join(SWEEP_PRESETS)}{near}")
        tables = dict(SWEEP_PRESETS[options.preset])
        if "total_epochs" in changes or options.hours is not None:
            # Who says another budget has said it all: the preset's trials are what holds where nobody does.
            tables["sweep"] = {name: value for name, value in tables["sweep"].items() if name != "trials"}
        sweep = sweep_of(tables, changes, settings)
    elif options.resume:
        if options.out is None:
            raise ValueError("resume: got no folder, expected --out DIR beside it")
        sweep = _changed(read_sweep(Path(options.out)), changes, settings)
    else:
        raise ValueError("config: got none, expected --config FILE, --preset NAME, or --resume --out DIR")
    return sweep, read_point(others, sweep.space, flags)


def _changed(sweep: SweepConfig, changes: dict[str, Any], settings: dict[str, Any]) -> SweepConfig:
    """Let what is said now win over what a folder has, where that may change."""
    return dataclasses.replace(sweep, **changes, settings={**sweep.settings, **settings})


def _open_folder(options: argparse.Namespace, sweep: SweepConfig) -> Path:
    """Make the folder of a sweep, or find the same sweep there. Raises ValueError where something else is.

    Another sweep there that ended before its first trial, as with a wrong folder of data, makes way for this one.
    """
    from dogs_accel.sweep.engine.study import STUDY_JOURNAL_FILE, one_at_a_time
    from dogs_accel.sweep.settings import SWEEP_FILE, read_sweep, write_sweep

    if options.out is None:
        folder = claim_folder(Path("runs") / f"{sweep.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    else:
        folder = Path(options.out)
        check_folder(folder, "out")
        if not is_unused(folder) and not (folder / SWEEP_FILE).is_file() and not _is_begun(folder):
            raise ValueError(f"out: {folder} is no sweep and not empty, expected a sweep, an empty folder or a new one")
        folder.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(folder, _SETTINGS_LOCK):
        if (folder / SWEEP_FILE).is_file():
            there = read_sweep(folder)
            if (folder / STUDY_JOURNAL_FILE).exists():
                _require_same(sweep, there, folder)
            if sweep == there:
                return folder
        write_sweep(folder, sweep)
    return folder


def _open_study(folder: Path, sweep: SweepConfig) -> SweepStudy:
    """Open the study of a sweep, from when on its folder is that of no other. Raises ValueError where it is by now."""
    from dogs_accel.sweep.engine.study import SweepStudy, one_at_a_time
    from dogs_accel.sweep.settings import read_sweep

    with one_at_a_time(folder, _SETTINGS_LOCK):
        _require_same(sweep, read_sweep(folder), folder)
        return SweepStudy(folder, sweep)


def _require_same(sweep: SweepConfig, there: SweepConfig, folder: Path) -> None:
    if (difference := sweep.differs_from(there)) is not None:
        raise ValueError(f"out: the sweep in {folder} is another one: {difference}; expected another --out")


def _is_begun(folder: Path) -> bool:
    """Whether a folder has nothing but the locks of a sweep that is just being begun."""
    from dogs_accel.sweep.engine.study import LOCKS_FOLDER

    return [path.name for path in folder.iterdir()] == [LOCKS_FOLDER]


def _workers_in_memory(num_workers: int) -> int:
    """Say how many of some workers there is memory for, at least one."""
    available = available_bytes()
    return num_workers if available is None else max(1, min(num_workers, int(available / 2**30 / _WORKER_GIB)))


def _threads(num_workers: int) -> int | None:
    """Share out the cores: threads of each worker, None for all of them."""
    from pipelines.cores import available_cores

    if num_workers == 1:
        return int(own) if (own := os.environ.get("DOGS_ACCEL_SWEEP_THREADS")) else None
    return max(1, available_cores() // num_workers)


def _describe(sweep: SweepConfig, folder: Path, num_workers: int, num_asked: int) -> Iterator[str]:
    num = sweep.space.num_points
    points = "no end of points" if num is None else count_text(num, "point")
    budget = " or ".join(_budget(sweep))
    yield f"sweep    {escaped(sweep.name)}: {points}, {sweep.sampler}, seed {sweep.seed}, up to {budget}"
    yield from (f"         {parameter}" for parameter in sweep.space.parameters)
    if sweep.pruning == "halving":
        epochs = count_text(sweep.halving_epochs, "epoch")
        yield f"pruning  1 of {sweep.halving_factor} goes on after {epochs}, and so on"
    yield f"results  {escaped(folder)}"
    if num_workers < num_asked:
        yield (
            f"workers  {num_workers} of {num_asked}, for which there is memory at {_WORKER_GIB:g} GiB each, a flat "
            "figure: large models or batches need more, and fewer workers"
        )
    elif num_workers > 1:
        yield f"workers  {num_workers}"


def _budget(sweep: SweepConfig) -> list[str]:
    """Say what limits a sweep, the first of which ends it."""
    limits = {"trial": sweep.most_trials, "epoch": sweep.total_epochs, "hour": sweep.hours}
    return [count_text(number, what) for what, number in limits.items() if number is not None]


def _work(
    options: argparse.Namespace,
    sweep: SweepConfig,
    folder: Path,
    where: Where,
    point: dict[str, Value],
    num_workers: int,
) -> Iterator[str]:
    from dogs_accel.sweep.engine.trial import TrialRunner
    from dogs_accel.sweep.engine.worker import work

    until = math.inf if sweep.hours is None else time.monotonic() + 3600 * sweep.hours
    runner = TrialRunner(folder, sweep, where)
    said = list(runner.prepare()) if options.worker is not None else runner.prepare()
    yield from [] if options.worker is not None else said
    num_begun, study = 0, _open_study(folder, sweep)
    with _others(folder, where, num_workers, until) as others:
        try:
            for line in work(
                study,
                runner,
                point=point or None,
                until=until,
                goes_on=lambda: options.worker in (None, os.getppid()),
            ):
                num_begun += 1
                yield line
        finally:
            runner.close()
        codes = [other.wait() for other in others]
    if num_workers == 1 and options.worker is None and not num_begun and time.monotonic() < until:
        goes_on = "" if sweep.most_trials == sweep.space.num_points else "; a larger budget goes on"
        yield f"budget   nothing is left to begin within {' and '.join(_budget(sweep))}{goes_on}"
    if sweep.hours is not None and options.worker is None and time.monotonic() >= until and study.has_budget():
        verb = "is" if sweep.hours == 1 else "are"
        study.write_table()
        yield f"hours    {count_text(sweep.hours, 'hour')} {verb} over, so that no other trial was begun"
    if wrong := [code for code in codes if code]:
        yield f"{len(wrong)} of {count_text(num_workers, 'worker')} ended early, with exit code {wrong[0]}"


@contextmanager
def _others(folder: Path, where: Where, num_workers: int, until: float) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start the other workers of this command, and end those that are left when the block ends early."""
    command = [sys.executable, "-m", "dogs_accel", "sweep", "--resume", "--out", str(folder), "--wandb", where.wandb]
    command += [] if where.device is None else ["--device", where.device]
    if until < math.inf:
        command += ["--hours", str(max(1e-6, (until - time.monotonic()) / 3600))]
    threads = str(where.num_threads or 1)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "DOGS_ACCEL_SWEEP_THREADS": threads}
    command += ["--worker", str(os.getpid())]
    others = [subprocess.Popen(command, env=environment) for _ in range(num_workers - 1)]
    try:
        yield others
    finally:
        for other in others:
            if other.poll() is None:
                other.terminate()
        for other in others:
            other.wait()


def _export(options: argparse.Namespace, sweep: SweepConfig) -> Iterator[str]:
    from dogs_accel.sweep.wandb_file import write_wandb_sweep

    path = Path(options.export_wandb)
    if not path.parent.is_dir():
        raise ValueError(f"export-wandb: got {path}, expected a file in a folder that exists")
    command = ["dogs-accel", "sweep", *(["--resume"] if options.config is None and options.preset is None else [])]
    # All that makes it this sweep; hours are those of one command.
    for name in ("config", "preset", "data", "epochs", "sampler", "seed", "trials", "total_epochs", "device"):
        if (value := getattr(options, name)) is not None:
            text = str(Path(value).absolute()) if name in ("config", "data") else str(value)
            command += [f"--{name.replace('_', '-')}", text]
    folder = Path(options.out or Path("runs") / sweep.name).absolute()
    write_wandb_sweep(path, sweep, [*command, "--out", str(folder), "--wandb", "online"])
    yield f"wrote {escaped(path)}; next: wandb sweep {shlex.quote(str(path))}, and wandb agent as it says"


def _summary(sweep: SweepConfig, folder: Path, goes_on: str) -> Iterator[str]:
    from dogs_accel.results.layout import CONFIG_FILE
    from dogs_accel.sweep.trials import COMPLETE, RUNNING, TRIALS_FILE, read_trials

    table = read_trials(folder / TRIALS_FILE, sweep.space)
    counts = table["state"].value_counts()
    said = ": " + ", ".join(f"{number} {state}" for state, number in counts.items()) if len(counts) else ""
    epochs = count_text(int(table["epochs"].sum()), "epoch")
    yield f"\n{count_text(len(table), 'trial')}{said}; {epochs} in {table['seconds'].sum():.0f} s"
    lost = table["overhead_seconds"].dropna()
    if len(lost):
        yield f"lost beside training and validation: {lost.median():.1f} s a trial (median), {lost.max():.1f} s at most"
    complete = table[table["state"] == COMPLETE]
    if len(complete):
        best = complete.loc[complete["value"].idxmax()]
        yield f"best: trial {best['number']}, validation accuracy {best['value']:.4f} of {best['num_val']:,} images"
        config = shlex.quote(str(folder / str(best["run"]) / CONFIG_FILE))
        yield f"  python -m dogs_accel.benchmark --config {config} trains it again"
    if running := counts.get(RUNNING, 0):
        verb, what = ("is", "it") if running == 1 else ("are", "them")
        yield f"{running} {verb} not finished: others work on {what}, or {goes_on}"
    yield f"trials: {escaped(folder / TRIALS_FILE)}"


def _nothing_complete(sweep: SweepConfig, folder: Path) -> str:
    """Say that no trial is complete, nor may yet be; empty where one is, and where none was begun."""
    from dogs_accel.sweep.trials import COMPLETE, RUNNING, TRIALS_FILE, read_trials

    states = read_trials(folder / TRIALS_FILE, sweep.space)["state"]
    if not len(states) or set(states) & {COMPLETE, RUNNING}:
        return ""
    said = ", ".join(f"{number} {state}" for state, number in states.value_counts().items())
    return f"no trial is complete: {said}"


def _findings(folder: Path) -> Iterator[str]:
    """Make what is made of the trials, and say what they show."""
    from dogs_accel.sweep.findings.run import find_all, shown_sentences, write_findings

    findings = find_all(folder)
    yield from (f"shown: {escaped(text)}" for text in shown_sentences(findings))
    *_, report = write_findings(folder, findings)
    yield f"report: {escaped(report)}"
