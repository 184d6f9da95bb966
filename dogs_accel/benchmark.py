"""The benchmark: matched runs of image classifiers, every artifact, one comparison.

python -m dogs_accel.benchmark --gpu 0 --data DIR
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dogs_accel.experiment.config import BenchmarkConfig, add_arguments, parse_config
from dogs_accel.runtime.arguments import error_line, is_started_by_torchrun
from dogs_accel.runtime.start import begin_command


def main(arguments: Sequence[str] | None = None, prog: str = "python -m dogs_accel.benchmark") -> int:
    """Run the command; a wrong flag, path or file ends in one line and exit code 2."""
    begin_command()
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.splitlines()[0])
    add_arguments(parser)
    try:
        # Of several processes the first alone reads its arguments, when all have met, so that an error is said once.
        config = None if is_started_by_torchrun() else _read_config(parser, arguments)
    except (ValueError, OSError) as error:
        parser.exit(2, error_line(parser.prog, error))
    # torch and what else a run needs take seconds to import, for which --help and a wrong flag do not wait.
    from dogs_accel.experiment.command import run_command

    return run_command(parser, lambda: config or _read_config(parser, arguments))


def _read_config(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> BenchmarkConfig:
    return parse_config(parser, arguments).with_folder()


if __name__ == "__main__":
    sys.exit(main())
