"""The benchmark's command once its arguments are read: its processes, and what its last line says."""

from __future__ import annotations

import dataclasses
import io
import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout, suppress
from pathlib import Path

from torch.distributed import DistError

from dogs_accel.ending import Ending
from dogs_accel.experiment.describe import describe_plan
from dogs_accel.experiment.loaders import Loaders, choose_loaders
from dogs_accel.experiment.plan import Plan, check_alike, make_plan
from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.results.folder import read_record
from dogs_accel.results.layout import CONFIG_FILE, record_paths
from dogs_accel.runtime.arguments import error_line
from dogs_accel.runtime.files import BusyError, UnwritableError, claim_folder, is_disk_full, is_unused
from dogs_accel.runtime.out_of_memory import BatchTooLargeError, is_out_of_memory
from dogs_accel.runtime.processes import (
    ALONE,
    LostProcessError,
    OtherProcessError,
    World,
    joined,
    world_from_environment,
)
from dogs_accel.training.checkpoint import CheckpointError
from dogs_accel.training.features import FeatureError
from dogs_accel.training.tracking import TrackingError
from dogs_accel.training.trainer import DivergedError
from pipelines import BadImageError
from pipelines.loader import WorkerError
from pipelines.store.index import StoreError

_NEED_OTHER_SETTINGS = (BadImageError, BatchTooLargeError, BusyError, CheckpointError, DivergedError, FeatureError)
"""Errors that say what helps, which is not to go on with the same settings."""


def run_command(ending: Ending, read_config: Callable[[], BenchmarkConfig]) -> int:
    """Run the benchmark with the settings that `read_config` gives on rank 0, the only one that calls it.

    Sets what `ending` says of an error or an interruption; returns the exit code.
    """
    world = ALONE
    try:
        with ExitStack() as stack:
            world = _join(ending, stack)
            plan, loaders = _make_plan(ending, read_config, world)
            _carry_out(ending, plan, loaders)
    except OtherProcessError as error:
        if isinstance(error, LostProcessError):
            print(error_line(ending.prog, error), end="", file=sys.stderr, flush=True)
        world.await_end()
        return 2
    return 0


def _join(ending: Ending, stack: ExitStack) -> World:
    """Connect this process with the others, of which the first alone prints, until the stack is closed."""
    ending.expected = (ValueError, OSError, DistError)
    world = world_from_environment()
    stack.enter_context(joined(world))
    ending.is_spokesman = world.is_rank_zero
    if not world.is_rank_zero:
        stack.enter_context(redirect_stdout(io.StringIO()))
    return world


def _make_plan(ending: Ending, read_config: Callable[[], BenchmarkConfig], world: World) -> tuple[Plan, Loaders]:
    """Plan the runs, choose their loaders, and say what they will be."""
    config = world.broadcast(read_config)
    plan = world.local_rank_zero_first(lambda: make_plan(config, world))
    loaders = world.local_rank_zero_first(lambda: choose_loaders(plan))
    check_alike(plan)
    if config.out is None:
        # Not before all is checked, so that a wrong flag leaves no folder. That of the same second may be taken.
        out = world.broadcast(lambda: plan.out if config.dry_run else claim_folder(plan.out))
        plan = dataclasses.replace(plan, out=out, config=dataclasses.replace(plan.config, out=str(out)))
    _set_ending(ending, plan)
    print(f"{describe_plan(plan)}\n{loaders.describe()}", flush=True)
    return plan, loaders


def _set_ending(ending: Ending, plan: Plan) -> None:
    """From now on an error says where the finished part lies and how to go on."""
    out = plan.out
    goes_on = f"--resume {shlex.quote(str(out))} goes on"

    def remedy(error: Exception) -> str:
        is_begun = (out / CONFIG_FILE).is_file()
        if is_disk_full(error):
            return f"make room, and {goes_on}" if is_begun else "make room and run it again"
        if not is_begun:
            return "nothing was written" if is_unused(out) else ""
        finished = f"what had ended is in {out}" if _has_finished_run(out) else ""
        needs_others = isinstance(error, _NEED_OTHER_SETTINGS) or is_out_of_memory(error)
        return finished if needs_others else ", and ".join(filter(None, (finished, goes_on)))

    ending.log_folder, ending.remedy = out, remedy


def _has_finished_run(out: Path) -> bool:
    for path in record_paths(out):
        with suppress(ValueError, OSError):
            if read_record(path).is_finished:
                return True
    return False


def _carry_out(ending: Ending, plan: Plan, loaders: Loaders) -> None:
    # From here on a ValueError is none of the user's, and few errors of the system are.
    ending.expected = (
        BadImageError, BatchTooLargeError, BusyError, CheckpointError, DivergedError, FeatureError, PermissionError,
        StoreError, TrackingError, UnwritableError, WorkerError,
    )  # fmt: skip
    try:
        # Only now, when the plan can be read: what trains, draws and reports takes seconds to import.
        from dogs_accel.experiment.execute import run_plan

        try:
            run_plan(plan, loaders)
        except DivergedError as error:
            if plan.world.is_rank_zero:
                raise
            raise OtherProcessError(str(error)) from error  # all have the same loss
    except KeyboardInterrupt:
        if (plan.out / CONFIG_FILE).is_file():
            resume = f"--resume {shlex.quote(str(plan.out))} goes on"
            ending.stopped = f"stopped; what had ended is in {plan.out}, and {resume}"
        else:
            with suppress(OSError):
                plan.out.rmdir()  # if it was made for this run
        raise
