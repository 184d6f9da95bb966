"""`dogs-accel <command>`: the parts of the project one by one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dogs_accel.datasets.download import download


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; what goes wrong ends in one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="dogs-accel", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("download", help="fetch Stanford Dogs, verify it and unpack it; resumes where it ended")
    fetch.add_argument("--data", required=True, metavar="DIR", help="folder for the archives and the images")
    options = parser.parse_args(arguments)
    try:
        for line in download(options.data).values():
            print(line)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog} {options.command}: error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "stopped; the same command goes on from here\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
