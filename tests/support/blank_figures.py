"""Figures that are saved as blank pictures, for tests that look at none: most of a short run's time is drawing."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from matplotlib.figure import Figure
from PIL import Image

from dogs_accel import plots


@contextmanager
def blank_figures(*, find_fonts: bool = False) -> Iterator[None]:
    """Draw nothing meanwhile, and find no fonts for names unless told to, which makes every label of every axis."""
    make_drawable = plots.make_drawable if find_fonts else lambda figure: None
    with (
        patch.object(plots, "make_drawable", make_drawable),
        patch.object(Figure, "savefig", lambda figure, path, **how: Image.new("RGB", (320, 240)).save(path)),
    ):
        yield
