"""Figures of numbers and names that are not the usual ones."""

import numpy as np
import pandas as pd

from dogs_accel.evaluation.figures import confusion_figure
from dogs_accel.explain.drawings import Drawing, explanation_figure
from dogs_accel.plots import BLUE, RED, family_colours, run_colours, save_figure
from dogs_accel.results.figures import comparison_figure

NAMES = ["name $\\frac{$ one", "other"]


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
    figure = comparison_figure(pd.DataFrame([row]), ["cnn"], intervals)
    figure.draw_without_rendering()
    *shares, seconds = (list(axes.get_xticks()) for axes in figure.axes)
    assert [max(ticks) for ticks in shares[:2]] == [1, 1]
    assert 0.06 <= max(shares[2]) <= 0.08 * 1.28
    assert max(seconds) > 200


def test_the_cnn_and_the_vit_have_their_colours_whatever_the_others_are():
    assert family_colours(["vit", "cnn"]) == {"cnn": BLUE, "vit": RED}
    assert family_colours(["vit"]) == {"vit": RED}
    three = family_colours(["mixer", "vit", "cnn"])
    assert (three["cnn"], three["vit"]) == (BLUE, RED)
    assert len(set(three.values())) == 3
    assert family_colours(["residual", "mixer"]) == {"residual": BLUE, "mixer": RED}
    assert len(set(family_colours("abcd").values())) == 4
    assert len(family_colours("abcdefg")) == 7


def test_each_run_has_a_colour_near_those_of_its_family():
    assert run_colours(["cnn"] * 5 + ["vit"] * 2) == [0, 1, 4, 5, 0, 2, 3]
    assert run_colours(["cnn", "vit", "mixer", "mixer", "cnn"]) == [0, 2, 4, 5, 1]
    assert run_colours([]) == []
    for families in (["residual"] * 4, list("aabbcc"), list("abcdefg")):
        assert len(run_colours(families)) == len(families)
    assert len(set(run_colours(list("aabbccdd")))) == 8


def test_a_figure_says_what_the_classes_are_called():
    figure = confusion_figure(np.eye(2, dtype=np.int64), ["a", "b"], "a run", noun="breed", normalized=True)
    axes, bar = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted breed", "true breed")
    assert bar.get_ylabel() == "share of the breed's images"
    assert confusion_figure(np.eye(2, dtype=np.int64), ["a", "b"], "a run").axes[0].get_xlabel() == "predicted class"
