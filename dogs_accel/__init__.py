"""An accelerated, honest comparison of image classifiers, and the input pipeline that makes it cheap.

Importing the package imports nothing heavy; import the module that you need.
"""

import os
import signal
import sys
from types import FrameType


def _is_command() -> bool:
    """Whether this process was started as one of the commands, not by a program that imports a part."""
    # While Python looks for the module of `-m` it has that in the place of a name.
    started = sys.argv[0] if sys.argv else ""
    return os.path.basename(started) == "dogs-accel" or (  # noqa: PTH119  # pathlib takes longer than all the rest
        started == "-m" and any(word.split(".")[0] == __name__ for word in sys.orig_argv)
    )


def end_early(number: int, frame: FrameType | None) -> None:
    """End a command at Ctrl-C while it imports what knows better how it ends."""
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write("\nstopped\n")
    raise SystemExit(130)


# The first imports take a while too, and Ctrl-C is no error; `ending.ending_in_a_line` has the word after them.
if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, end_early)

from importlib.metadata import PackageNotFoundError, version  # noqa: E402
from importlib.util import find_spec  # noqa: E402
from pathlib import Path  # noqa: E402

try:
    __version__ = version("dogs-accel")
except PackageNotFoundError:  # a source tree that was built in place and not installed
    __version__ = "0+unknown"


def _check_pipelines() -> None:
    """Refuse a foreign package of that common name, which would fail later and in riddles."""
    spec = find_spec("pipelines")
    found = None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or []), None)
    if found is None or not Path(found).with_name("recipe.py").is_file():
        text = (
            f"pipelines: found {found or 'nothing'}, expected the package of that name that comes with dogs_accel; "
            "another one hides it or it is not installed"
        )
        if _is_command():
            raise SystemExit(f"dogs-accel: error: {text}")
        raise ImportError(text)


_check_pipelines()
