"""What is said of where training time went, from a history by hand."""

import pytest
from matplotlib.figure import Figure

from dogs_accel.models.flops import ModelFlops
from dogs_accel.training.profile_summary import profile_figure, summarise_profile
from dogs_accel.training.step_profile import PARTS
from tests.support.drawn_figures import stands_out


def row(stage, epoch_total, seconds, rate, val_acc, **parts):
    return {
        "stage": stage, "epoch_total": epoch_total, "phase": f"phase{stage}", "seconds": seconds, "epoch_seconds": 10.0,
        "val_acc": val_acc, "train_images_per_second": rate, "median_step_ms": 4.0, "peak_memory_mib": 100.0 * stage,
        **{f"{part}_s": parts.get(part, 0.0) for part in ("features", *PARTS, "other", "validation")},
    }  # fmt: skip


HISTORY = [
    row(1, 1, 15.0, 900.0, 0.55, features=5.0, forward=6.0, data_wait=1.0, validation=3.0),
    row(2, 2, 20.0, 100.0, 0.81, forward=3.0, backward=4.0, optimizer=1.0, validation=2.0),
    row(2, 3, 30.0, 300.0, 0.79, forward=3.0, backward=4.0, optimizer=1.0, validation=2.0),
    row(2, 4, 40.0, 200.0, 0.91, forward=3.0, backward=4.0, optimizer=1.0, validation=2.0),
]


def test_phases_memory_and_shares_of_the_peak():
    summary = summarise_profile(
        HISTORY, [None, ModelFlops(forward=10**9, training=3 * 10**9)], peak=1e12, num_devices=2
    )
    head, full = summary["phases"]
    assert (head["epochs"], head["seconds"], head["flops_per_second"], head["share_of_peak"]) == (1, 15.0, None, None)
    assert head["parts_s"]["forward"] == 6.0
    assert (full["epochs"], full["seconds"], full["train_images_per_second"]) == (3, 30.0, 200.0)
    assert full["parts_s"] == dict.fromkeys(("features", *PARTS, "other", "validation"), 0.0) | {
        "forward": 9.0, "backward": 12.0, "optimizer": 3.0, "validation": 6.0,
    }  # fmt: skip
    assert full["training_flops_per_image"] == 3 * 10**9
    assert full["flops_per_second"] == pytest.approx(600e9)
    assert full["share_of_peak"] == pytest.approx(0.3)
    assert summary["peak_memory_mib"] == 200.0


def test_the_time_to_an_accuracy_is_that_of_the_first_epoch_that_has_it():
    flops = [ModelFlops(1, 3)] * 2
    reached = summarise_profile(HISTORY, flops, peak=None)["seconds_to_val_accuracy"]
    assert reached == {"0.5": 15, "0.6": 20, "0.7": 20, "0.8": 20, "0.85": 40, "0.9": 40, "0.95": None}


def test_the_figure_shows_the_parts_that_took_time():
    figure = profile_figure(HISTORY, "a run")
    assert isinstance(figure, Figure)
    parts, rate, accuracy = figure.axes
    labels = [text.get_text() for text in parts.get_legend().get_texts()]
    assert labels == ["validation", "optimizer", "backward", "forward", "data wait", "features"]
    tops = {bar.get_y() + bar.get_height() for bar in parts.patches}
    assert max(tops) == 15.0
    assert rate.lines[0].get_ydata().tolist() == [900, 100, 300, 200]
    assert accuracy.lines[0].get_xdata().tolist() == [15, 20, 30, 40]


def test_a_long_title_is_no_wider_than_its_figure():
    assert stands_out(profile_figure(HISTORY, "a model of a long name " * 12)) == []
