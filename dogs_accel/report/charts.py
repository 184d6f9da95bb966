"""Charts of the report as inline SVG, whose colours come from the page's style sheet, so that they follow its theme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from dogs_accel.plots import COLOURS, DASHES, MARKERS

_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 10, 34
_INSET = 6
"""Between the lowest or highest value of a curve and the frame, so that its markers lie on no label."""
_DIGIT_PX = 6.7
"""Width of a digit of a tick's label, at most."""
_WIDTH_PX = 2
"""Of a curve, as the style sheet has it."""
_SHAPES = {
    "o": "M-2.4 0a2.4 2.4 0 1 0 4.8 0a2.4 2.4 0 1 0-4.8 0z",
    "s": "M-2.7-2.7h5.4v5.4h-5.4z",
    "^": "M0-3.6L3.4 2.6h-6.8z",
    "D": "M0-3.8L3.8 0L0 3.8L-3.8 0z",
    "v": "M0 3.6L3.4-2.6h-6.8z",
    "P": "M-1.2-3.6h2.4v2.4h2.4v2.4h-2.4v2.4h-2.4v-2.4h-2.4v-2.4h2.4z",
    "X": "M0-1.6L2-3.6L3.6-2L1.6 0L3.6 2L2 3.6L0 1.6L-2 3.6L-3.6 2L-1.6 0L-3.6-2L-2-3.6z",
    "*": "M0-4L1.2-1.3L4-1.2L1.8.6L2.5 3.5L0 1.9L-2.5 3.5L-1.8.6L-4-1.2L-1.2-1.3z",
}
"""Outlines of plots.MARKERS around 0, in px."""


@dataclass(frozen=True)
class Line:
    """One curve: points (x, y), a colour (0 to 7, CSS class s0 to s7) with its dashes, and the marker of its points."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: int
    marker: int = 0
    ends: Sequence[float] = ()
    """Where a phase ends, in x."""


@dataclass(frozen=True)
class Bin:
    """One confidence bin of a reliability diagram."""

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float


def nice_ticks(low: float, high: float, about: int = 4, *, whole: bool = False) -> list[float]:
    """Round numbers from low to high, about so many; whole ones where what is counted has no parts."""
    if not high > low:
        return [low]
    rough = max((high - low) / about, 1.0 if whole else 0.0)
    power = 10.0 ** np.floor(np.log10(rough))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda step: abs(np.log(step / rough)))
    first = np.ceil(low / step - 1e-9) * step
    return [round(float(first + i * step), 10) for i in range(int((high - first) / step + 1e-9) + 1)]


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_low: float | None = None,
    y_high: float | None = None,
    width: int = 360,
    height: int = 230,
    marks: Sequence[float] = (),
) -> Markup:
    """Draw curves over a common axis; marks are vertical lines, such as the end of a phase."""
    points = [point for line in lines for point in line.points if np.isfinite(point).all()]
    if not points:
        return Markup("")
    xs, ys = zip(*points, strict=True)
    low = min(ys) if y_low is None else y_low
    high = max(ys) if y_high is None else y_high
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)
    if not high > low:  # one value has no span: a tenth of it to either side
        low, high = low - 0.1 * (abs(low) or 1), low + 0.1 * (abs(low) or 1)
    y_ticks = nice_ticks(low, high)
    frame = _Frame(x_low, x_high, low, high, width, height, left=_room_for(y_ticks), inset=_INSET)
    whole = all(float(x).is_integer() for x in xs)
    parts = [*frame.axes(x_label, nice_ticks(x_low, x_high, whole=whole), y_ticks)]
    parts += [
        f'<line class="mark" x1="{frame.x(at):.1f}" x2="{frame.x(at):.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>'
        for at in marks
    ]
    for line in lines:
        kept = [(frame.x(x), frame.y(y), x, y) for x, y in line.points if np.isfinite(y)]
        parts.append(
            _curve(line.colour, " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y, *_) in enumerate(kept)))
        )
        parts += [
            f'<path class="end s{line.colour % 8}" d="M{px:.1f} {py - 6:.1f}v12"/>'
            for px, py, x, _ in kept
            if x in line.ends
        ]
        parts += [
            _dot(line.colour, line.marker, px, py, f"<title>{escape(line.label)}: {x:g}, {y:.4f}</title>")
            for px, py, x, y in kept
        ]
    return _svg(title, parts, width, height)


def line_key(colour: int, marker: int) -> Markup:
    """Draw how a curve looks, for a legend."""
    parts = [_curve(colour, "M1 6H33"), _dot(colour, marker, 17, 6)]
    return Markup(f'<svg class="chart key" viewBox="0 0 34 12" aria-hidden="true">{"".join(parts)}</svg>')


def _curve(colour: int, path: str) -> str:
    place = colour % len(COLOURS)
    dashes = " ".join(f"{_WIDTH_PX * each:g}" for each in DASHES[place])
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<path class="curve s{place}"{dashed} d="{path}"/>'


def _dot(colour: int, marker: int, x: float, y: float, inner: str = "") -> str:
    hollow = " hollow" if marker else ""
    shape = _SHAPES[MARKERS[marker % len(MARKERS)]]
    start = f'<path class="dot s{colour % len(COLOURS)}{hollow}" transform="translate({x:.1f} {y:.1f})" d="{shape}"'
    return f"{start}>{inner}</path>" if inner else f"{start}/>"


def reliability_chart(title: str, bins: Sequence[Bin], colour: int, width: int = 300) -> Markup:
    """Draw accuracy with its interval over confidence, the diagonal, and below the number of images of each bin."""
    plot, below = 216, 56
    height = plot + below
    frame = _Frame(0, 1, 0, 1, width, plot)
    ticks = (0, 0.25, 0.5, 0.75, 1)
    parts = [*frame.axes("", ticks, ticks)]
    parts.append(f'<line class="mark" x1="{frame.x(0)}" y1="{frame.y(0)}" x2="{frame.x(1)}" y2="{frame.y(1)}"/>')
    most = max((each.count for each in bins), default=0) or 1
    base = plot + below - 20
    for each in bins:
        left, right = frame.x(each.lower) + 1, frame.x(each.upper) - 1
        tall = 34 * each.count / most
        parts.append(
            f'<rect class="count" x="{left:.1f}" y="{base - tall:.1f}" width="{right - left:.1f}" '
            f'height="{max(tall, 0.6 if each.count else 0):.1f}"><title>{each.lower:g} to {each.upper:g}: '
            f"{each.count:,} images</title></rect>"
        )
        if not each.count:
            continue
        parts += _bin(frame, each, left, right, colour)
    label = f"confidence; below: images a bin, up to {most:,}"
    parts.append(f'<text class="tick" x="{width / 2}" y="{height - 5}" text-anchor="middle">{label}</text>')
    return _svg(title, parts, width, height)


def _bin(frame: _Frame, each: Bin, left: float, right: float, colour: int) -> list[str]:
    top, floor, middle = frame.y(each.accuracy), frame.y(0), frame.x(each.confidence)
    text = (
        f"confidence {each.confidence:.3f}, accuracy {each.accuracy:.3f} "
        f"({each.accuracy_low:.3f} to {each.accuracy_high:.3f}), {each.count:,} images"
    )
    parts = [
        f'<rect class="column s{colour % 8}" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
        f'height="{max(floor - top, 0):.1f}"><title>{text}</title></rect>'
    ]
    if np.isfinite([each.accuracy_low, each.accuracy_high]).all():
        low, high = frame.y(each.accuracy_low), frame.y(each.accuracy_high)
        parts.append(f'<line class="whisker" x1="{middle:.1f}" x2="{middle:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
    return [*parts, f'<circle class="point" cx="{middle:.1f}" cy="{top:.1f}" r="2.6"/>']


def _room_for(ticks: Sequence[float]) -> float:
    """Return the px that the labels of an axis need beside the plot."""
    return max(_LEFT, 8 + _DIGIT_PX * max(len(f"{tick:g}") for tick in ticks))


class _Frame:
    """The axes of a chart: data to pixels."""

    def __init__(
        self,
        x_low: float,
        x_high: float,
        y_low: float,
        y_high: float,
        width: int,
        height: int,
        left: float = _LEFT,
        inset: float = 0,
    ) -> None:
        self.x_low, self.x_high, self.y_low, self.y_high = x_low, x_high, y_low, y_high
        self.width, self.height, self.left, self.inset = width, height, left, inset

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return self.left + self.inset + share * (self.width - self.left - _RIGHT - 2 * self.inset)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return self.height - _BOTTOM - self.inset - share * (self.height - _TOP - _BOTTOM - 2 * self.inset)

    def axes(self, x_label: str, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[str]:
        parts = []
        left, right = f"{self.left:g}", self.width - _RIGHT
        for tick in y_ticks:
            y = self.y(tick)
            parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(
                f'<text class="tick" x="{self.left - 6:g}" y="{y + 3.6:.1f}" text-anchor="end">{tick:g}</text>'
            )
        for tick in x_ticks:
            parts.append(
                f'<text class="tick" x="{self.x(tick):.1f}" y="{self.height - _BOTTOM + 15}" '
                f'text-anchor="middle">{tick:g}</text>'
            )
        parts.append(
            f'<text class="tick" x="{(self.left + right) / 2:g}" y="{self.height - 4}" '
            f'text-anchor="middle">{escape(x_label)}</text>'
        )
        return parts


def _svg(title: str, parts: Sequence[str], width: int, height: int) -> Markup:
    # Everything in parts is a number of ours or escaped text.
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )
