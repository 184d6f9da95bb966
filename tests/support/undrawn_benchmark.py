"""The benchmark with blank figures, as a process: python -m tests.support.undrawn_benchmark ..."""

import sys

from dogs_accel.benchmark import main
from tests.support.blank_figures import blank_figures

if __name__ == "__main__":
    with blank_figures():
        sys.exit(main())
