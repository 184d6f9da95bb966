"""`dogs-accel <command>`: the parts of the project one by one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dogs_accel.arguments import natural, positive

# What a command needs is imported by it: torch and DALI take seconds, which --help should not.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; what goes wrong ends in one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="dogs-accel", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    _add_download(commands)
    _add_metadata(commands)
    _add_eda(commands)
    options = parser.parse_args(arguments)
    try:
        for text in options.run(options):
            print(text)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog} {options.command}: error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"\n{options.when_stopped}\n")
    return 0


def _add_download(commands: Any) -> None:
    command = commands.add_parser("download", help="fetch Stanford Dogs, verify it and unpack it")
    command.add_argument("--data", required=True, metavar="DIR", help="folder for the archives and the images")
    command.set_defaults(run=_download, when_stopped="stopped; the same command goes on from here")


def _download(options: argparse.Namespace) -> Iterator[str]:
    from dogs_accel.datasets.download import download

    yield from map(str, download(options.data).values())


def _add_metadata(commands: Any) -> None:
    command = commands.add_parser(
        "metadata", help="decode every image once: quality statistics, bad files, pictures that come twice"
    )
    command.add_argument("--data", required=True, metavar="DIR", help="root of Stanford Dogs or of a subset of it")
    command.add_argument("--out", default="metadata", metavar="DIR", help="folder for the tables (default: metadata)")
    command.add_argument(
        "--val-ratio", type=float, default=0.15, metavar="R",
        help="share of the official training images that is validation (default: 0.15)",
    )  # fmt: skip
    command.add_argument("--seed", type=natural, default=42, metavar="N", help="seed of that split (default: 42)")
    command.add_argument("--num-threads", type=positive, metavar="N", help="threads that decode (default: one a core)")
    command.set_defaults(run=_metadata, when_stopped="stopped; nothing was written")


def _metadata(options: argparse.Namespace) -> Iterator[str]:
    from dogs_accel.datasets import check_images_folder, open_dataset
    from dogs_accel.metadata import describe_metadata, write_metadata
    from dogs_accel.splits import SPLITS

    data = open_dataset(options.data, unpack=True, check_files=False)
    check_images_folder(data.root)
    if data.notice:
        yield data.notice
    splits = {name: data.split(name, seed=options.seed, val_ratio=options.val_ratio) for name in SPLITS}
    report = write_metadata(data, splits, Path(options.out), num_threads=options.num_threads)
    yield describe_metadata(report)
    yield from _written(report.written)


def _add_eda(commands: Any) -> None:
    command = commands.add_parser("eda", help="draw what `dogs-accel metadata` measured")
    command.add_argument(
        "--metadata", default="metadata", metavar="DIR",
        help="folder of its tables, which a benchmark's results hold too (default: metadata)",
    )  # fmt: skip
    command.add_argument(
        "--out", metavar="DIR", help="folder for the figures (default: eda in the folder of the tables)"
    )
    command.add_argument(
        "--seed", type=natural, default=42, metavar="N", help="seed of the random samples (default: 42)"
    )
    command.set_defaults(run=_eda, when_stopped="stopped; the figures that are written are whole")


def _eda(options: argparse.Namespace) -> Iterator[str]:
    from dogs_accel.eda import AUGMENTED_FILE, describe_eda, write_eda

    folder = Path(options.metadata)
    out = folder / "eda" if options.out is None else Path(options.out)
    yield describe_eda(folder)
    written = write_eda(folder, out, seed=options.seed)
    if out / AUGMENTED_FILE not in written:
        yield f"{AUGMENTED_FILE} is left out: no training image is where the table says"
    yield from _written(written)


def _written(paths: Sequence[Path]) -> Iterator[str]:
    yield "written:"
    yield from (f"  {path}" for path in paths)


if __name__ == "__main__":
    sys.exit(main())
