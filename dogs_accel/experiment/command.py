"""The benchmark's command once its arguments are read: its processes, its errors in one line, its exit codes."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout

from torch.distributed import DistError

from dogs_accel.experiment.config import BenchmarkConfig
from dogs_accel.experiment.describe import describe_plan
from dogs_accel.experiment.loaders import Loaders, choose_loaders
from dogs_accel.experiment.plan import Plan, check_alike, make_plan
from dogs_accel.runtime.arguments import error_line
from dogs_accel.runtime.files import BusyError
from dogs_accel.runtime.out_of_memory import BatchTooLargeError, describe_out_of_memory, is_out_of_memory
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
from pipelines import BadImageError
from pipelines.loader import WorkerError
from pipelines.store.index import StoreError


def run_command(parser: argparse.ArgumentParser, read_config: Callable[[], BenchmarkConfig]) -> int:
    """Run the benchmark with the settings that `read_config` gives on rank 0, the only one that calls it.

    What cannot be ends in one line and exit code 2, an interruption in 130.
    """
    world = ALONE
    try:
        with ExitStack() as stack:
            world = _join(parser, stack)
            plan, loaders = _make_plan(parser, read_config, world)
            try:
                _carry_out(parser, plan, loaders)
            except KeyboardInterrupt:
                message = f"\nstopped; what had ended is in {plan.out}, and --resume {plan.out} goes on\n"
                parser.exit(130, message if world.is_rank_zero else None)
    except OtherProcessError as error:
        if isinstance(error, LostProcessError):
            print(error_line(parser.prog, error), end="", file=sys.stderr, flush=True)
        world.await_end()
        return 2
    return 0


def _join(parser: argparse.ArgumentParser, stack: ExitStack) -> World:
    """Connect this process with the others, of which the first alone prints, until the stack is closed."""
    try:
        world = world_from_environment()
        stack.enter_context(joined(world))
    except (ValueError, DistError) as error:
        parser.exit(2, error_line(parser.prog, error))
    if not world.is_rank_zero:
        stack.enter_context(redirect_stdout(io.StringIO()))
    return world


def _make_plan(
    parser: argparse.ArgumentParser, read_config: Callable[[], BenchmarkConfig], world: World
) -> tuple[Plan, Loaders]:
    """Plan the runs, choose their loaders, and say what they will be."""
    try:
        config = world.broadcast(read_config)
        plan = world.local_rank_zero_first(lambda: make_plan(config, world))
        loaders = world.local_rank_zero_first(lambda: choose_loaders(plan))
        check_alike(plan)
    except (ValueError, OSError) as error:
        parser.exit(2, error_line(parser.prog, error))
    print(f"{describe_plan(plan)}\n{loaders.describe()}", flush=True)
    return plan, loaders


def _carry_out(parser: argparse.ArgumentParser, plan: Plan, loaders: Loaders) -> None:
    # Only now, when the plan can be read: what trains, draws and reports takes seconds to import.
    from dogs_accel.experiment.execute import run_plan
    from dogs_accel.training.trainer import DivergedError

    try:
        run_plan(plan, loaders)
    except (
        BadImageError, BatchTooLargeError, BusyError, CheckpointError, DivergedError, FeatureError, StoreError,
        TrackingError, WorkerError,
    ) as error:  # fmt: skip
        if isinstance(error, DivergedError) and not plan.world.is_rank_zero:  # all have the same loss
            raise OtherProcessError(str(error)) from error
        parser.exit(2, error_line(parser.prog, error))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        parser.exit(2, error_line(parser.prog, describe_out_of_memory(error)))
