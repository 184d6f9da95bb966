"""The figures of a run, drawn to be read at a glance and saved as PNG, and the look that all figures share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dogs_accel.glyphs import make_drawable
from dogs_accel.runtime.files import replacing

BLUE, RED, GREY = "#2a6f97", "#c8553d", "#8d99ae"
COLOURS = (BLUE, "#5fa8c9", RED, "#e39a5b", "#4f7d5c", "#7b6aa8", "#b04a78", "#8a8f57")
"""Of runs, two neighbours a family; the report's style sheet has the same as s0 to s7."""
DASHES = ((), (5, 3), (), (5, 3), (1.4, 1.8), (1.4, 1.8), (6, 2, 1.4, 2), (6, 2, 1.4, 2))
"""Strokes and gaps of a curve in each of COLOURS, in widths of the line; the style sheet has them too.

Colours with the same dashes are told apart by who sees no red, no green or no blue; those without are not all.
"""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Of runs that share a colour, in their order."""
_FAMILY_PLACE = {"cnn": 0, "vit": 1}
"""Places among the pairs of COLOURS that two families always have."""
NOTE_COLOUR = "#555555"
_DPI = 144


def save_figure(figure: Figure, path: Path) -> Path:
    """Save a figure as PNG without ever showing half of one."""
    FigureCanvasAgg(figure)
    with replacing(path) as temporary, own_look():
        make_drawable(figure)
        figure.savefig(temporary, dpi=_DPI, bbox_inches="tight", facecolor="white")
    return path


@contextmanager
def own_look() -> Iterator[None]:
    """Make and draw figures as matplotlib does by default: a user's own fonts, colours or LaTeX may not suit them."""
    with matplotlib.style.context("default"):
        yield


@dataclass(frozen=True)
class RunStyle:
    """How a run is drawn wherever it is: its places in COLOURS, with their DASHES, and in MARKERS."""

    colour: int
    marker: int


def run_styles(runs: Sequence[tuple[str, str]]) -> list[RunStyle]:
    """Draw each run, of this family and configuration: runs that differ in their seed alone share a colour.

    Example:
        >>> run_styles([("cnn", "a"), ("cnn", "a"), ("vit", "b")])
        [RunStyle(colour=0, marker=0), RunStyle(colour=0, marker=1), RunStyle(colour=2, marker=0)]
    """
    family_of = {configuration: family for family, configuration in reversed(runs)}
    configurations = list(dict.fromkeys(configuration for _, configuration in runs))
    colours = run_colours([family_of[configuration] for configuration in configurations])
    colour_of = dict(zip(configurations, colours, strict=True))
    used: Counter[int] = Counter()
    styles = []
    for _, configuration in runs:
        colour = colour_of[configuration]
        styles.append(RunStyle(colour, used[colour] % len(MARKERS)))
        used[colour] += 1
    return styles


def run_colours(families: Sequence[str]) -> list[int]:
    """Give each run, of this family, its place in COLOURS: that of its family, and of its next run the nearest free.

    Example:
        >>> run_colours(["cnn", "cnn", "cnn", "vit"])
        [0, 1, 4, 2]
    """
    places = _family_places(families)
    # Families take turns at the pairs, so that a family of many runs has what the others leave.
    num_pairs, step = len(COLOURS) // 2, max(2, 1 + max(places.values(), default=0))
    palettes = {
        family: [2 * pair + each for pair in range(place % num_pairs, num_pairs, step) for each in (0, 1)]
        for family, place in places.items()
    }
    if len(palettes) == 1:  # which has the others' too, once its own are used
        ((family, own),) = palettes.items()
        palettes[family] = own + [place for place in range(len(COLOURS)) if place not in own]
    used: Counter[str] = Counter()
    colours = []
    for family in families:
        palette = palettes[family]
        colours.append(palette[used[family] % len(palette)])
        used[family] += 1
    return colours


def _family_places(families: Iterable[str]) -> dict[str, int]:
    present = dict.fromkeys(families)
    places = {family: place for family, place in _FAMILY_PLACE.items() if family in present}
    for family in present:
        if family not in places:
            places[family] = next(place for place in range(len(present)) if place not in places.values())
    return places


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


def title_figure(figure: Figure, title: str, font_pt: float, **place: Any) -> None:
    """Write a title over a whole figure, on as many lines as it needs; place: settings of matplotlib's suptitle."""
    figure.suptitle(fitted(title, 0.98 * figure.get_figwidth(), font_pt), fontsize=font_pt, parse_math=False, **place)


def fitted(title: str, width_inch: float, font_pt: float) -> str:
    """Break the lines of a title so that each fits a width."""
    letters = letters_in(width_inch, font_pt)
    return "\n".join(part for line in title.split("\n") for part in wrap(line, letters, break_on_hyphens=False) or [""])


def letters_in(width_inch: float, font_pt: float) -> int:
    """Count the letters that fit a width, each taken as 0.62 of the font's size wide; one at least."""
    return max(int(width_inch * 72 / (0.62 * font_pt)), 1)
