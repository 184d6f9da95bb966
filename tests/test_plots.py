"""Figures of numbers and names that are not the usual ones."""

import numpy as np
import pandas as pd

from dogs_accel.evaluation.figures import confusion_figure
from dogs_accel.explain.drawings import Drawing, explanation_figure
from dogs_accel.plots import save_figure
from dogs_accel.results.figures import comparison_figure

BREEDS = ["breed $\\frac{$ one", "other"]


def test_a_name_that_looks_like_mathematics_is_drawn_as_it_is(tmp_path):
    confusion = confusion_figure(np.eye(2, dtype=np.int64), BREEDS, "a run")
    save_figure(confusion, tmp_path / "confusion.png")
    assert [text.get_text() for text in confusion.axes[0].get_yticklabels()] == BREEDS
    drawing = Drawing(
        group="random",
        pixels=np.zeros((8, 8, 3), dtype=np.uint8),
        heat={"gradcam": np.zeros((8, 8), dtype=np.float32)},
        boxes=[],
        true_class=BREEDS[0],
        pred_class=BREEDS[1],
        confidence=0.5,
    )
    gallery = explanation_figure([drawing], "a run")
    save_figure(gallery, tmp_path / "gallery.png")
    assert gallery.axes[0].get_title().startswith(f"true: {BREEDS[0]}\n")


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
