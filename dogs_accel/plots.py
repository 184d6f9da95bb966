"""The figures of a run, drawn to be read at a glance and saved as PNG, and the look that all figures share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dogs_accel.runtime.files import replacing

BLUE, RED, GREY = "#2a6f97", "#c8553d", "#8d99ae"
FAMILY_COLOUR = {"cnn": BLUE, "vit": RED}
NOTE_COLOUR = "#555555"
_DPI = 144


def save_figure(figure: Figure, path: Path) -> Path:
    """Save a figure as PNG without ever showing half of one."""
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, bbox_inches="tight", facecolor="white")
    return path


def bare(axes: Axes) -> None:
    """Leave the left and the bottom side of the frame."""
    axes.spines[["top", "right"]].set_visible(False)


_CELL_COLOUR = "#eef0f3"


def draw_cell(axes: Axes, picture: NDArray[Any] | str) -> None:
    """Draw an image (H, W, 3) into a square cell, or the words that stand there instead."""
    if isinstance(picture, str):
        axes.text(0.5, 0.5, picture, ha="center", va="center", color="#555555")
    else:
        height, width = np.asarray(picture.shape[:2]) / max(picture.shape[:2])
        axes.imshow(picture, extent=(0.5 - width / 2, 0.5 + width / 2, 0.5 - height / 2, 0.5 + height / 2))
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[], yticks=[], facecolor=_CELL_COLOUR)
    axes.spines[:].set_visible(False)


def shortened(name: str, longest: int) -> str:
    """Cut a name on one line to at most `longest` characters."""
    name = " ".join(name.split())
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
