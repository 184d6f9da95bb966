"""The figures of the look inside: titles that fit, and captions that name their photo."""

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from dogs_accel.explain.inside.figures import filters_figure, maps_figure, units_figure
from dogs_accel.explain.inside.filters import first_layer
from dogs_accel.explain.inside.inspection import ShownImages, inspect_stages
from dogs_accel.explain.inside.units import show_units


def a_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(8, 2),
    ).eval()  # fmt: skip


def some_photos():
    return ShownImages(
        images=torch.randn(3, 3, 16, 16),
        pixels=np.zeros((3, 16, 16, 3), dtype=np.uint8),
        ids=["/photos/right.jpg", "/photos/wrong.jpg", "/photos/unknown.jpg"],
        true_class=["cat", "fox", ""],
        pred_class=["cat", "cat", "cat"],
        confidence=[0.9, 0.8, 0.7],
    )


def test_a_long_title_is_no_wider_than_its_figure_and_above_its_note():
    title = "resnet18 head_only(40, 0.001, weight_decay=0, " + "momentum=0.9, " * 12 + "end)"
    figure = filters_figure(first_layer(a_model(), 16), title)
    FigureCanvasAgg(figure).draw()
    head, note = figure.texts
    assert head.get_text().replace("\n", " ").startswith(title)
    assert head.get_window_extent().x1 <= figure.bbox.width
    assert head.get_window_extent().y0 >= note.get_window_extent().y1


def test_a_frame_has_the_number_of_its_unit_and_a_colour_of_its_own(monkeypatch):
    monkeypatch.setattr("dogs_accel.explain.inside.units.shuffled_copy", lambda model, *_: model)
    [stage] = inspect_stages(a_model(), (shown := some_photos()), None, None, num_channels=7)
    units = show_units(a_model(), stage, shown.images, num=7)
    axes = units_figure(units, shown, 0, "a run").axes[0]
    frames = [patch.get_edgecolor() for patch in axes.patches]
    assert len(set(frames[:5])) == 5
    texts = [text for text in axes.texts if text.get_text().isdigit()]
    assert [text.get_text() for text in texts] == [str(at) for at in range(1, 8)]
    assert [text.get_bbox_patch().get_facecolor() for text in texts] == frames
    titles = [text.get_text() for text in axes.texts if "channel" in text.get_text()]
    assert titles == [
        f"{at}: channel {unit.channel}, {unit.score:+.1f}" for at, unit in enumerate(units.units[0], start=1)
    ]


def test_every_caption_names_its_photo():
    shown = some_photos()
    [stage] = inspect_stages(a_model(), shown, None, None)
    figure = maps_figure(stage, shown, None, [0, 1, 2], "a run")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {text for text in texts if "jpg" in text} == {
        "right.jpg\ncat, 0.90", "wrong.jpg\nfox, taken for\ncat, 0.80", "unknown.jpg\ncat, 0.70"
    }  # fmt: skip
