"""The picture of a network: a box for each stage, and what the stages cost side by side."""

from __future__ import annotations

import re
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from dogs_accel.models.architecture.table import Architecture, ModelStage, field_text, runs_of_equals, shape_text
from dogs_accel.plots import BLUE, GREY, NOTE_COLOUR, RED, letters_in, own_look, shortened, title_figure

_ROW_INCH = 0.55
_BOX_INCH, _BARS_INCH = 4.6, 2.0
_TOP_INCH, _BOTTOM_INCH = 0.3, 0.22
_MOST_LETTERS = 44
_SMALL_PT = 7.5
_BARS = (("parameters", BLUE), ("FLOPs", "#4f7d5c"), ("time", RED))


@own_look()
def architecture_figure(architecture: Architecture) -> Figure:
    """Draw a network from its input at the top to its logits at the bottom.

    Equal stages in a row, such as the blocks of a ViT, are one box that says how many they are.
    """
    groups = runs_of_equals(architecture)
    bars = _BARS if architecture.rounds else _BARS[:2]
    height = _ROW_INCH * (len(groups) + 1) + _TOP_INCH + _BOTTOM_INCH
    widths = [_BOX_INCH, *[_BARS_INCH] * len(bars)]
    figure = Figure(figsize=(sum(widths), height))
    columns = figure.subplots(1, 1 + len(bars), width_ratios=widths)
    figure.subplots_adjust(
        left=0.01, right=0.985, wspace=0.06, top=1 - _TOP_INCH / height, bottom=_BOTTOM_INCH / height
    )
    _draw_boxes(columns[0], architecture, groups)
    for axes, (what, colour) in zip(columns[1:], bars, strict=True):
        _draw_bars(axes, architecture, groups, what, colour)
    # A title of more than one line stands out at the top, where the saved picture grows.
    title_figure(
        figure,
        f"{architecture.display}, {architecture.image_size} px, {architecture.num_classes:,} classes: "
        f"{architecture.parameters:,} parameters, {architecture.flops / 1e9:.3g} GFLOPs",
        11, x=0.01, ha="left", y=1 - 0.9 * _TOP_INCH / height, va="bottom",
    )  # fmt: skip
    if architecture.rounds:
        note = f"time: median of {architecture.rounds} rounds of one image, on {architecture.measured_on}"
        figure.text(0.01, 0.004, note, fontsize=7, color=NOTE_COLOUR, va="bottom")
    return figure


def _limits(axes: Axes, num: int) -> None:
    axes.set(ylim=(num + 0.4, -0.4))
    axes.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
    axes.spines[:].set_visible(False)


def _draw_boxes(axes: Axes, architecture: Architecture, groups: Sequence[Sequence[ModelStage]]) -> None:
    axes.set_xlim(0, 1)
    _limits(axes, len(groups))
    side = architecture.image_size
    _draw_box(axes, 0, "input", f"3 x {side} x {side}", "", "#eef0f3")
    for row, group in enumerate(groups, start=1):
        first, last = group[0], group[-1]
        name = first.name if len(group) == 1 else f"{first.name} to {_number_of(last.name)}"
        kind = first.kind if len(group) == 1 else f"{len(group)} times: {first.kind}"
        field = field_text(first.field)
        sees = f"sees {field} px" if field[:1].isdigit() else f"no field: {field}" if field else ""
        _draw_box(axes, row, name, shape_text(first.output), kind, "#dfeaf2", sees)
        arrow = FancyArrowPatch((0.5, row - 0.63), (0.5, row - 0.37), arrowstyle="-|>", mutation_scale=8, color=GREY)
        axes.add_patch(arrow)


def _number_of(name: str) -> str:
    """Give the number at the end of a name, and the whole name where there is none."""
    found = re.search(r"\d+$", name)
    return name if found is None else found[0]


def _draw_box(axes: Axes, row: int, name: str, shape: str, kind: str, colour: str, sees: str = "") -> None:
    box = FancyBboxPatch(
        (0.012, row - 0.36), 0.976, 0.72, boxstyle="round,pad=0,rounding_size=0.02", facecolor=colour, edgecolor=GREY,
        linewidth=0.8,
    )  # fmt: skip
    axes.add_patch(box)
    upper, lower = (row - 0.14, row + 0.18) if kind or sees else (row, row)
    axes.text(0.03, upper, shortened(name, _MOST_LETTERS), fontsize=9, fontweight="bold", va="center", parse_math=False)
    axes.text(0.97, upper, shape, fontsize=9, va="center", ha="right")
    sees = shortened(sees, _MOST_LETTERS)
    beside = letters_in(0.94 * _BOX_INCH, _SMALL_PT) - len(sees) - 2
    axes.text(
        0.03, lower, shortened(kind, min(beside, _MOST_LETTERS)), fontsize=_SMALL_PT, va="center", color=NOTE_COLOUR,
        parse_math=False,
    )  # fmt: skip
    axes.text(0.97, lower, sees, fontsize=_SMALL_PT, va="center", ha="right", color=NOTE_COLOUR)


def _draw_bars(
    axes: Axes, architecture: Architecture, groups: Sequence[Sequence[ModelStage]], what: str, colour: str
) -> None:
    """Draw what each group has of all; the longest bar fills half of the width, the rest is for its numbers."""
    values = [sum(_value(stage, what) for stage in group) for group in groups]
    total, most = sum(values), max(values)
    for row, value in enumerate(values, start=1):
        axes.barh(row, value / most if most else 0.0, height=0.5, color=colour)
        text = f"{100 * value / total:.1f} %" if total else ""
        axes.text(
            (value / most if most else 0.0) + 0.04, row, f"{text}  {_written(value, what)}", fontsize=8, va="center"
        )
    axes.text(0, 0, what, fontsize=9, fontweight="bold", va="center", color=colour)
    axes.set_xlim(0, 2.4)
    _limits(axes, len(groups))


def _value(stage: ModelStage, what: str) -> float:
    if what == "parameters":
        return stage.parameters
    return stage.flops if what == "FLOPs" else stage.milliseconds or 0.0


def _written(value: float, what: str) -> str:
    """Write a count with three digits and a letter for its thousands, a time in ms."""
    if what == "time":
        return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"
    for letter, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.0f}"
