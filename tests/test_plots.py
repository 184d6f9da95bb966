"""Figures of numbers and names that are not the usual ones."""

import itertools
import logging
import os
import re
import subprocess
import sys
import warnings
from importlib.resources import files

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dogs_accel import glyphs
from dogs_accel.evaluation.figures import confusion_figure
from dogs_accel.explain.drawings import Drawing, explanation_figure
from dogs_accel.plots import BLUE, COLOURS, DASHES, MARKERS, RED, fitted, run_colours, run_styles, save_figure
from dogs_accel.results.figures import comparison_figure

NAMES = ["name $\\frac{$ one", "other"]


@pytest.mark.fault("Folders and names", "class names with $", "drawn as they are, not as mathematics")
def test_a_name_that_looks_like_mathematics_is_drawn_as_it_is(tmp_path):
    confusion = confusion_figure(np.eye(2, dtype=np.int64), NAMES, "a run")
    save_figure(confusion, tmp_path / "confusion.png")
    assert [text.get_text() for text in confusion.axes[0].get_yticklabels()] == NAMES
    drawing = Drawing(
        group="random",
        pixels=np.zeros((8, 8, 3), dtype=np.uint8),
        heat={"gradcam": np.zeros((8, 8), dtype=np.float32)},
        boxes=[],
        true_class=NAMES[0],
        pred_class=NAMES[1],
        confidence=0.5,
    )
    gallery = explanation_figure([drawing], "a run")
    save_figure(gallery, tmp_path / "gallery.png")
    assert gallery.axes[0].get_title().startswith(f"true: {NAMES[0]}\n")


def test_no_share_beyond_one_stands_on_an_axis():
    row = {"Model": "m", "Training strategy": "s", "Test accuracy": 1.0, "Macro F1": 0.9, "ECE": 0.07,
           "Train time (s)": 227.0}  # fmt: skip
    intervals = {"Test accuracy": [[0.96, 1.0]], "Macro F1": [[0.8, 0.95]], "ECE": [[0.0, 0.08]]}
    figure = comparison_figure(pd.DataFrame([row]), [BLUE], intervals)
    figure.draw_without_rendering()
    *shares, seconds = (list(axes.get_xticks()) for axes in figure.axes)
    assert [max(ticks) for ticks in shares[:2]] == [1, 1]
    assert 0.06 <= max(shares[2]) <= 0.08 * 1.28
    assert max(seconds) > 200


def test_the_cnn_and_the_vit_have_their_colours_whatever_the_others_are():
    assert [COLOURS[place] for place in run_colours(["vit", "cnn"])] == [RED, BLUE]
    assert [COLOURS[place] for place in run_colours(["vit"])] == [RED]
    three = run_colours(["mixer", "vit", "cnn"])
    assert [COLOURS[place] for place in three[1:]] == [RED, BLUE]
    assert len(set(three)) == 3
    assert run_colours(["residual", "mixer"]) == [0, 2]
    assert len(set(run_colours("abcd"))) == 4
    assert len(run_colours("abcdefg")) == 7


def test_each_run_has_a_colour_near_those_of_its_family():
    assert run_colours(["cnn"] * 5 + ["vit"] * 2) == [0, 1, 4, 5, 0, 2, 3]
    assert run_colours(["cnn", "vit", "mixer", "mixer", "cnn"]) == [0, 2, 4, 5, 1]
    assert run_colours([]) == []
    for families in (["residual"] * 4, list("aabbcc"), list("abcdefg")):
        assert len(run_colours(families)) == len(families)
    assert len(set(run_colours(list("aabbccdd")))) == 8
    assert run_colours(["cnn"] * 9) == [0, 1, 4, 5, 2, 3, 6, 7, 0]


def test_every_run_is_drawn_in_its_own_way_and_seeds_of_one_configuration_in_one_colour():
    twelve = [(family, f"{family}{at}") for family in ("cnn", "cnn", "vit") for at in range(4)]
    seeds = [("cnn", "a")] * 3 + [("vit", "b")] * 2
    many = [("cnn", f"{at}") for at in range(len(COLOURS) * len(MARKERS))]
    for runs in (twelve[:1], twelve[:4], list(dict.fromkeys(twelve)), seeds, many):
        assert len(set(run_styles(runs))) == len(runs)
    assert [style.colour for style in run_styles(seeds)] == [0, 0, 0, 2, 2]
    assert [style.marker for style in run_styles(seeds)] == [0, 1, 2, 0, 1]


def lightness_and_hue(colour, seen):
    """CIELAB (D65) of a colour as someone sees it; seen: (3, 3), of linear RGB."""
    srgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    white = [0.95047, 1, 1.08883]
    x, y, z = np.cbrt(np.array(to_xyz) @ np.clip(np.array(seen) @ linear, 0.0, 1) / white)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_who_sees_no_red_no_green_or_no_blue_tells_the_colours_of_one_dash_apart(theme):
    """Machado, Oliveira and Fernandes 2009, of severity 1."""
    css = (files("dogs_accel.report") / "templates" / "report.css").read_text()
    found = dict(re.findall(r"--s(\d): (#[0-9a-f]{6})", css.split("@media", 1)[theme == "dark"].split("@media")[0]))
    colours = [found[str(place)] for place in range(len(COLOURS))]
    if theme == "light":
        assert tuple(colours) == COLOURS
    seen_by = [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
        np.eye(3),
    ]
    for seen, (a, b) in itertools.product(seen_by, itertools.combinations(range(len(COLOURS)), 2)):
        if DASHES[a] == DASHES[b]:
            apart = np.linalg.norm(lightness_and_hue(colours[a], seen) - lightness_and_hue(colours[b], seen))
            assert apart > 20, f"{colours[a]} {colours[b]}"


def test_a_figure_says_what_the_classes_are_called():
    figure = confusion_figure(np.eye(2, dtype=np.int64), ["a", "b"], "a run", noun="breed", normalized=True)
    axes, bar = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted breed", "true breed")
    assert bar.get_ylabel() == "share of the breed's images"
    assert confusion_figure(np.eye(2, dtype=np.int64), ["a", "b"], "a run").axes[0].get_xlabel() == "predicted class"


USERS = {
    "font.size": 30, "figure.facecolor": "black", "axes.facecolor": "black", "text.color": "white",
    "text.usetex": True, "font.family": "No Such Font", "savefig.bbox": "standard", "axes.grid": True,
}  # fmt: skip


@pytest.mark.fault(
    "Machine and environment",
    "a matplotlibrc of the user (dark faces, usetex, large fonts)",
    "figures look as always; the user's settings stay",
)
def test_a_users_settings_change_no_figure(tmp_path):
    def saved(name):
        return save_figure(confusion_figure(np.eye(2, dtype=np.int64), ["a", "b"], "a run"), tmp_path / name)

    plain = saved("plain.png").read_bytes()
    with matplotlib.rc_context(USERS):
        assert saved("users.png").read_bytes() == plain
        assert matplotlib.rcParams["font.size"] == 30


@pytest.mark.fault("Machine and environment", "the MPLBACKEND of a notebook", "ignored")
def test_a_notebooks_backend_stops_no_command():
    environment = os.environ | {"MPLBACKEND": "module://a_notebook_has.this_module"}
    code = "from dogs_accel.runtime.start import begin_command; begin_command(); import matplotlib.figure"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.fixture
def without_fonts(monkeypatch):
    """A machine with no font but matplotlib's."""
    own = [font for font in glyphs.fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(glyphs.fontManager, "ttflist", own)
    glyphs._fonts_for.cache_clear()
    glyphs._say_once.cache_clear()
    yield
    glyphs._fonts_for.cache_clear()


def test_a_long_title_is_no_wider_than_its_figure():
    title = "resnet18 head_only(40, 0.001, weight_decay=0, " + "momentum=0.9, $\\frac{$ " * 12 + "end)"
    figure = confusion_figure(np.eye(2, dtype=np.int64), ["a", "b"], title)
    FigureCanvasAgg(figure).draw()
    drawn = figure.axes[0].title
    assert drawn.get_text().replace("\n", " ") == title
    extent = drawn.get_window_extent()
    assert 0 <= extent.x0 < extent.x1 <= figure.bbox.width
    assert fitted("short\n\nlines", 5, 10) == "short\n\nlines"


@pytest.mark.fault(
    "Folders and names",
    "class names in a script that no font of the machine has",
    "a stand-in in the figures and one notice",
)
def test_letters_without_a_font_have_a_stand_in_and_one_notice(tmp_path, caplog, without_fonts):
    names = ["\u67f4\u72ac", "caf\u00e9\tau\u2014lait", "\U0001f436 pup", "x" * 255]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("one.png", "two.png"):
            figure = confusion_figure(np.eye(4, dtype=np.int64), names, "of \u67f4")
            save_figure(figure, tmp_path / name)
    axes = figure.axes[0]
    shown = ["??", "caf\u00e9 au\u2014lait", "? pup", "x" * 39 + "\u2026"]
    assert [text.get_text() for text in axes.get_xticklabels()] == shown
    assert [text.get_text() for text in axes.get_yticklabels()] == shown
    assert axes.get_title() == "of ?"
    [notice] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "for letters that no font of this machine has: \u67f4" in notice.getMessage()


@pytest.mark.fault(
    "Folders and names", "class names in a script of another font of the machine", "drawn with that font"
)
def test_letters_of_another_font_are_drawn_with_it(tmp_path, monkeypatch, caplog):
    fonts = [font for font in glyphs.fontManager.ttflist if font.name in ("DejaVu Sans", "DejaVu Sans Mono")]
    own = glyphs._letters(glyphs.findfont("DejaVu Sans"))
    monkeypatch.setattr(
        glyphs, "_letters", lambda file: own - {ord("q")} if file.endswith("DejaVuSans.ttf") else {ord("q")}
    )
    monkeypatch.setattr(glyphs.fontManager, "ttflist", fonts)
    glyphs._fonts_for.cache_clear()
    figure = Figure()
    text = figure.text(0, 0, "quick")
    save_figure(figure, tmp_path / "q.png")
    assert (text.get_text(), text.get_fontfamily()) == ("quick", ["DejaVu Sans", "DejaVu Sans Mono"])
    assert caplog.records == []
    glyphs._fonts_for.cache_clear()
