"""The look inside, drawn: maps over the fed crops, what excites channels, filters, and units' saliencies."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from dogs_accel.explain.cells import upsample
from dogs_accel.explain.drawings import Pixels, blend
from dogs_accel.explain.inside.filters import FirstLayer
from dogs_accel.explain.inside.inspection import InspectedStage, SampleFacts, ShownImages
from dogs_accel.explain.inside.units import ShownUnit, UnitPictures
from dogs_accel.plots import NOTE_COLOUR, fitted, own_look, shortened

_PANEL_INCH = 1.55
_LEAST_WIDTH_INCH = 7.2
_NUM_PANELS = 6
"""Channels in a row."""
_LABEL_LETTERS = 22
_GAP_INCH, _CAPTION_INCH = 0.32, 0.42
"""Above a panel: with two lines of text, and with the three of a photo's caption."""
_BOX_COLOURS = ("#ffd166", "#4cc9f0", "#ff7096", "#95d5b2", "#ffffff")
"""Of the frames in a picture; black numbers can be read on each."""


@own_look()
def maps_figure(
    inspected: InspectedStage, shown: ShownImages, facts: SampleFacts | None, at: Sequence[int], title: str
) -> Figure:
    """Draw a stage's maps over some of the images: of each a row of active channels, and one of separating channels.

    Without facts there was no sample, and the images stand for it.
    """
    rows: list[tuple[int, str, NDArray[np.int64], NDArray[np.float32], list[str]]] = []
    for image in at:
        channels = inspected.active[image][:_NUM_PANELS]
        texts = [f"{c}, {s:+.1f}" for c, s in zip(channels, inspected.scores[image], strict=False)]
        rows.append((image, "most active", channels, inspected.active_maps[image][:_NUM_PANELS], texts))
        if inspected.separating:
            some = inspected.separating[:_NUM_PANELS]
            texts = [f"{each.channel}, d {each.d:+.1f} ({each.d_held_out:+.1f})" for each in some]
            own = inspected.separating_index[:_NUM_PANELS]
            rows.append((image, "separating", own, inspected.separating_maps[image][:_NUM_PANELS], texts))
    figure, grid = _sheet(len(rows), 1 + _NUM_PANELS, head=1.05, gap=_CAPTION_INCH)
    for line, (image, what, channels, maps, texts) in zip(grid, rows, strict=True):
        is_first = what == "most active"
        if is_first:
            line[0].picture(shown.pixels[image])
            line[0].title(_caption(shown, image))
        line[0].label(what, rotation=90, ha="center")
        heat = upsample(
            torch.from_numpy(inspected.scaled(maps, channels)), inspected.stage.places, shown.images.shape[-1]
        ).numpy()
        for panel, one, text in zip(line[1:], heat, texts, strict=False):
            panel.picture(blend(shown.pixels[image], one))
            panel.title(text)
    stage = inspected.stage
    _head(
        figure,
        f"{title}\n{stage.name} ({stage.kind}): {stage.channels} channels of {stage.side} x {stage.side} cells",
        _wrapped(_maps_note(facts, has_separating=bool(inspected.separating)), 150),
    )
    return figure


def _maps_note(facts: SampleFacts | None, *, has_separating: bool) -> str:
    where = "the photos" if facts is None else "the sample"
    drawn = (
        f"Over the fed crop: the picture alone where the channel has its mean in {where} or less, yellow where it has "
        f"its largest value in {where}. Above a map: the channel, and by how many sd "
    )
    if facts is None:
        return f"{drawn}its mean is above that of the stage's channels; there are no test images to compare with."
    first, second = (shortened(name, _LABEL_LETTERS) for name in facts.pair_names)
    if not has_separating:
        few = f"too few images of {first} and {second} for separating channels"
        return f"{drawn}it is more active than in the sample; {few}."
    return (
        f"{drawn}it is more active than in the sample, or Cohen's d between {first} (+) and {second} (-), in brackets "
        "that of images that had no part in the choice."
    )


@dataclass(frozen=True, kw_only=True)
class Exciting:
    """An image of the sample that excites a channel."""

    channel: int
    pixels: Pixels
    """(S, S, 3) what the model is fed."""
    box: tuple[float, float, float, float]
    """What the cell of the maximum is computed from."""
    value: float
    class_name: str
    image_id: str
    row: int
    column: int


@own_look()
def channels_figure(
    inspected: InspectedStage, rows: Sequence[tuple[str, Sequence[Exciting]]], num_images: int, title: str
) -> Figure:
    """Draw for some channels of a stage the images of the sample that excite them most, the place marked."""
    figure, grid = _sheet(len(rows), max(len(own) for _, own in rows), head=0.75, left=1.15)
    for line, (label, own) in zip(grid, rows, strict=True):
        line[0].label(label, ha="right")
        for panel, each in zip(line, own, strict=False):
            panel.picture(each.pixels)
            panel.mark(each.box, each.pixels.shape[0])
            panel.title(f"{shortened(each.class_name, _LABEL_LETTERS)}\n{each.value:.3g}")
    stage = inspected.stage
    _head(
        figure,
        f"{title}\n{stage.name}: what its channels respond to",
        f"the test images, of {num_images}, with the largest value in one cell, below the class; frame: {stage.box_is}",
    )
    return figure


@own_look()
def filters_figure(layer: FirstLayer, title: str) -> Figure:
    """Draw the filters of the first layer, eight a row."""
    across = 8
    figure, grid = _sheet(math.ceil(len(layer.filters) / across), across, head=0.75, panel=0.95)
    panels = [panel for line in grid for panel in line]
    for number, (panel, picture) in enumerate(zip(panels, layer.pixels(), strict=False)):
        panel.picture(picture, "nearest")
        panel.title(str(number) if layer.explained is None else f"{100 * layer.explained[number]:.1f} %")
    if layer.explained is None:
        more = "" if len(layer.filters) == layer.num_all else f", the first {len(layer.filters)} of {layer.num_all}"
    else:
        together = f"{100 * layer.explained.sum():.0f} % of the variance of {layer.num_all} kernels"
        more = f", {len(layer.filters)} components with {together}"
    size = f"{layer.filters.shape[1]} x {layer.filters.shape[2]} px"
    _head(figure, f"{title}\n{layer.layer}: {size}{more}", _wrapped(layer.shows, 105))
    return figure


@own_look()
def units_figure(pictures: UnitPictures, shown: ShownImages, at: int, title: str) -> Figure:
    """Draw ten units of an image: for each what makes it active, and where in the image its field is.

    A frame has the number of its unit, and those of one picture have colours of their own.
    """
    figure, grid = _sheet(2, 6, head=1.15, gap=_CAPTION_INCH)
    units = pictures.units[at]
    for line, first in zip(grid, (0, 5), strict=True):
        line[0].picture(shown.pixels[at])
        for rank, (panel, unit) in enumerate(zip(line[1:], units[first : first + 5], strict=False)):
            panel.picture(saliency_pixels(unit))
            line[0].mark(unit.box, shown.pixels.shape[1], rank, str(first + rank + 1))
            panel.title(f"{first + rank + 1}: channel {unit.channel}, {unit.score:+.1f}")
    grid[0][0].title(_caption(shown, at))
    check, stage = pictures.check, pictures.stage
    similar = "none" if check.with_shuffled is None else f"{check.with_shuffled:.2f}"
    edges = "none" if check.with_edges is None else f"{check.with_edges:.2f}"
    _head(
        figure,
        f"{title}\n{pictures.method.name}: {len(units)} units of {stage.name}, each a channel in its strongest cell",
        _wrapped(
            f"grey: no influence; the brighter or the more coloured, the more the pixel raises the unit; frames, with "
            f"the numbers of the units: {stage.box_is}. {pictures.method.note[:1].upper()}{pictures.method.note[1:]}. "
            f"{pictures.account[:1].upper()}{pictures.account[1:]}{'. ' if pictures.account else ''}"
            f"Rank correlation with the same pictures of shuffled weights: {similar}, with the image's edges: {edges}. "
            f"Check {check.verdict}.",
            150,
        ),
    )
    return figure


def saliency_pixels(unit: ShownUnit) -> Pixels:
    """Draw a saliency (3, S, S) as a picture, 0 grey, scaled by the 99.5th percentile of its absolute values."""
    values = unit.saliency.permute(1, 2, 0).float().numpy()
    inside = np.abs(values[np.abs(values) > 0])
    most = float(np.percentile(inside, 99.5)) if inside.size else 1.0
    return np.rint(128 + 127 * np.clip(values / most, -1, 1)).astype(np.uint8)


@dataclass(frozen=True)
class _Panel:
    """A square of a sheet, in inches from its upper left corner."""

    axes: Axes
    left: float
    top: float
    side: float

    def picture(self, pixels: Pixels, interpolation: str = "antialiased") -> None:
        """Draw pixels (S, S, 3) over all of it."""
        extent = (self.left, self.left + self.side, self.top + self.side, self.top)
        self.axes.imshow(pixels, extent=extent, aspect="auto", interpolation=interpolation)

    def title(self, text: str) -> None:
        """Write above it."""
        middle = self.left + self.side / 2
        self.axes.text(middle, self.top - 0.04, text, fontsize=7, ha="center", va="bottom", parse_math=False)

    def label(self, text: str, **settings: Any) -> None:
        """Write left of it."""
        self.axes.text(self.left - 0.1, self.top + self.side / 2, text, fontsize=8, va="center", **settings)

    def mark(self, box: Sequence[float], size_px: int, rank: int = 0, name: str = "") -> None:
        """Frame a box (xmin, ymin, xmax, ymax) in px of its picture, within the box, in the colour of its rank.

        Frames of other ranks over the same box are all seen: each lies within the one before it, where the box has
        room, and its name stands beside that one's.
        """
        scale, colour = self.side / size_px, _BOX_COLOURS[rank]
        left, top, right, bottom = (side * scale for side in box)
        edge = 0.012 + min(0.022 * rank, min(right - left, bottom - top) / 12)
        frame = Rectangle(
            (self.left + left + edge, self.top + top + edge), right - left - 2 * edge, bottom - top - 2 * edge,
            fill=False, edgecolor=colour, linewidth=1.4,
        )  # fmt: skip
        self.axes.add_patch(frame)
        if name:
            across = left + edge + min(0.16 * rank, max(right - left - 2 * edge - 0.13, 0))
            self.axes.text(
                self.left + across, self.top + top + edge, name, fontsize=6, color="black", va="top", ha="left",
                bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
            )  # fmt: skip


def _sheet(
    num_rows: int,
    num_columns: int,
    *,
    head: float,
    left: float = 0.25,
    panel: float = _PANEL_INCH,
    gap: float = _GAP_INCH,
) -> tuple[Figure, list[list[_Panel]]]:
    """Make a grid of square panels, with so many inches above it and left of it.

    All are of one Axes: one each would take most of the time of a figure of many.
    """
    across, down = panel + 0.08, panel + gap
    width, height = max(left + num_columns * across, _LEAST_WIDTH_INCH), head + num_rows * down
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(autoscale_on=False, xlim=(0, width), ylim=(height, 0))
    return figure, [
        [_Panel(axes, left + column * across, head + gap - 0.04 + row * down, panel) for column in range(num_columns)]
        for row in range(num_rows)
    ]


def _head(figure: Figure, title: str, note: str) -> None:
    """Write a title and a note; a title of more than two lines stands out at the top, where the saved picture grows."""
    height = figure.get_figheight()
    title = fitted(title, 0.98 * figure.get_figwidth(), 10)
    figure.text(0.01, 1 - 0.4 / height, title, fontsize=10, va="bottom", parse_math=False)
    figure.text(0.01, 1 - 0.46 / height, note, fontsize=7.5, va="top", color=NOTE_COLOUR, parse_math=False)


def _caption(shown: ShownImages, at: int) -> str:
    name, true, pred = shown.ids[at].rpartition("/")[2], shown.true_class[at], shown.pred_class[at]
    said = f"{shortened(pred, _LABEL_LETTERS)}, {shown.confidence[at]:.2f}"
    mistaken = "" if true in ("", pred) else f"{shortened(true, _LABEL_LETTERS)}, taken for\n"
    return f"{shortened(name, _LABEL_LETTERS + 8)}\n{mistaken}{said}"


def _wrapped(text: str, width: int) -> str:
    """Break a text into lines of at most so many letters, between words alone."""
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
