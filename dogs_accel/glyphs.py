"""Names in any script on a figure: drawn by a font of this machine that has their letters, or by a stand-in."""

from __future__ import annotations

import functools
import logging
import unicodedata
from collections.abc import Iterator

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter

STAND_IN = "?"
_PLAIN = "DejaVu Sans"
"""The font of every figure, which comes with matplotlib."""
_log = logging.getLogger(__name__)


def make_drawable(figure: Figure) -> None:
    """Give each text of a figure fonts that have its letters; letters that no font has become STAND_IN, said once."""
    axes_labels = {axis: axis.get_majorticklabels() for axis in _axes_of(figure)}
    texts = {text for text in figure.findobj(Text) if isinstance(text, Text)}
    texts |= {text for labels in axes_labels.values() for text in labels}
    strange = {text: letters for text in texts if (letters := _strange(text.get_text()))}
    if not strange:
        return
    families, undrawable = _fonts_for(frozenset().union(*strange.values()))
    replaced = {ord(letter): " " if letter.isspace() else STAND_IN for letter in undrawable}
    if named := sorted(letter for letter in undrawable if letter.isprintable()):
        _say_once("".join(named))
    for text in strange:
        text.set_fontfamily([_PLAIN, *families])
        text.set_text(text.get_text().translate(replaced))
    for axis, labels in axes_labels.items():
        if any(text in strange for text in labels):
            # Else the next drawing would take them from the formatter again.
            axis.set_major_formatter(FixedFormatter([text.get_text() for text in labels]))


def _axes_of(figure: Figure) -> Iterator[Axis]:
    for axes in figure.axes:
        yield from (axes.xaxis, axes.yaxis)


def _strange(text: str) -> frozenset[str]:
    """Name the letters of a text that the plain font lacks."""
    return frozenset(letter for letter in text if letter != "\n" and ord(letter) not in _letters(findfont(_PLAIN)))


@functools.cache
def _fonts_for(letters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Choose fonts of this machine that together have letters: their names, and the letters that none has."""
    families = []
    missing = {letter for letter in letters if unicodedata.category(letter)[0] != "C"}
    for font in fontManager.ttflist:
        if not missing:
            break
        family = font.name
        if family in families or font.style != "normal" or font.weight not in (400, "normal", "regular", "book"):
            continue
        if found := {letter for letter in missing if ord(letter) in _letters(_file_of(family))}:
            families.append(family)
            missing -= found
    hidden = {letter for letter in letters if unicodedata.category(letter)[0] == "C"}
    return families, frozenset(missing | hidden)


def _file_of(family: str) -> str:
    """Name the file that matplotlib draws a family with."""
    return findfont(FontProperties(family=[family]))


@functools.cache
def _letters(file: str) -> frozenset[int]:
    """Code points that a font can draw; none of one that cannot be read, or that has pictures in place of outlines."""
    try:
        font = FT2Font(file)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(font.get_charmap()) if font.scalable else frozenset()


@functools.cache
def _say_once(letters: str) -> None:
    _log.warning(
        "figures have %s for letters that no font of this machine has: %s (fonts of the Noto family have them)",
        STAND_IN, letters[:20],
    )  # fmt: skip
