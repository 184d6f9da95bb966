"""Figures that are saved as blank pictures, for tests that look at none: most of a short run's time is drawing."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from matplotlib.figure import Figure
from PIL import Image


@contextmanager
def blank_figures() -> Iterator[None]:
    """Draw nothing meanwhile."""
    with patch.object(Figure, "savefig", lambda figure, path, **how: Image.new("RGB", (320, 240)).save(path)):
        yield
