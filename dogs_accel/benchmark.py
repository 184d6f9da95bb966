"""The benchmark: matched runs of a CNN and a Vision Transformer, every artifact, one comparison.

python -m dogs_accel.benchmark --gpu 0 --data DIR
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stdout

from torch.distributed import DistError

from dogs_accel.experiment.config import add_arguments, parse_config
from dogs_accel.experiment.describe import describe_plan
from dogs_accel.experiment.execute import run_plan
from dogs_accel.experiment.loaders import (
    choose_loaders,
)
from dogs_accel.experiment.plan import check_alike, make_plan
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
from dogs_accel.training.trainer import DivergedError
from pipelines import BadImageError
from pipelines.store.index import StoreError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; a wrong flag, path or file ends in one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m dogs_accel.benchmark", description=__doc__.splitlines()[0])
    add_arguments(parser)
    world = ALONE
    try:
        with ExitStack() as stack:
            world = _join(parser, stack)
            _run(parser, arguments, world)
    except OtherProcessError as error:
        if isinstance(error, LostProcessError):
            print(_error_line(parser, error), end="", file=sys.stderr, flush=True)
        world.await_end()
        return 2
    return 0


def _join(parser: argparse.ArgumentParser, stack: ExitStack) -> World:
    """Connect this process with the others, of which the first alone prints, until the stack is closed."""
    try:
        world = world_from_environment()
        stack.enter_context(joined(world))
    except (ValueError, DistError) as error:
        parser.exit(2, _error_line(parser, error))
    if not world.is_rank_zero:
        stack.enter_context(redirect_stdout(io.StringIO()))
    return world


def _run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None, world: World) -> None:
    try:
        config = world.broadcast(lambda: parse_config(parser, arguments).with_folder())
        plan = world.local_rank_zero_first(lambda: make_plan(config, world))
        loaders = world.local_rank_zero_first(lambda: choose_loaders(plan))
        check_alike(plan)
    except (ValueError, OSError) as error:
        parser.exit(2, _error_line(parser, error))
    if plan.data.notice:
        print(plan.data.notice)
    print(f"{describe_plan(plan)}\n{loaders.describe()}")
    try:
        run_plan(plan, loaders)
    except (
        BadImageError, BatchTooLargeError, BusyError, CheckpointError, DivergedError, FeatureError, StoreError,
        TrackingError,
    ) as error:  # fmt: skip
        if isinstance(error, DivergedError) and not world.is_rank_zero:  # all have the same loss
            raise OtherProcessError(str(error)) from error
        parser.exit(2, _error_line(parser, error))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        parser.exit(2, _error_line(parser, describe_out_of_memory(error)))
    except KeyboardInterrupt:
        message = f"\nstopped; what had ended is in {plan.out}, and --resume {plan.out} goes on\n"
        parser.exit(130, message if world.is_rank_zero else None)


def _error_line(parser: argparse.ArgumentParser, error: Exception | str) -> str:
    """One line, which names the process where there are several."""
    rank = os.environ.get("RANK")
    return f"{parser.prog}: {f'rank {rank}: ' if rank is not None else ''}error: {error}\n"


if __name__ == "__main__":
    sys.exit(main())
