"""The benchmark: matched runs of image classifiers, every artifact, one comparison.

python -m dogs_accel.benchmark --gpu 0 --data DIR
"""

from __future__ import annotations

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence

from dogs_accel.ending import ending_in_a_line
from dogs_accel.runtime.arguments import Parser, is_started_by_torchrun
from dogs_accel.runtime.start import begin_command

_PURPOSE = "The benchmark: matched runs of image classifiers, every artifact, one comparison."


def main(arguments: Sequence[str] | None = None, prog: str = "python -m dogs_accel.benchmark") -> int:
    """Run the command; how it ends early is said in one line, with the exit codes of `ending_in_a_line`."""
    begin_command()
    with ending_in_a_line(prog) as ending:
        # Here, where an interruption is said in a line. torch and what else a run needs take seconds to import, for
        # which --help and a wrong flag do not wait.
        from dogs_accel.experiment.settings.command_line import add_arguments, parse_config

        ending.stopped = "stopped; nothing was written"
        parser = Parser(prog=prog, description=_PURPOSE, formatter_class=RawDescriptionHelpFormatter)
        add_arguments(parser)
        # Of several processes the first alone reads its arguments, when all have met, so that an error is said once.
        config = None if is_started_by_torchrun() else parse_config(parser, arguments)
        from dogs_accel.experiment.command import run_command

        return run_command(ending, lambda: config or parse_config(parser, arguments))


if __name__ == "__main__":
    sys.exit(main())
