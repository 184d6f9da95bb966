import pytest

from dogs_accel.throughput.bottleneck import LoaderWithModel
from dogs_accel.throughput.figures import loaders_figure
from dogs_accel.throughput.measure import (
    ScalingPoint,
)
from tests.support.measured_loaders import ROWS


def test_the_bars_are_the_ratios_from_one_on():
    figure = loaders_figure({"eval": ROWS, "train": ROWS}, "published")
    [part] = figure.subfigs
    for axes in part.axes:
        assert [patch.get_width() for patch in axes.patches] == pytest.approx([0, 11.5, 79])
        assert [patch.get_x() for patch in axes.patches] == [1, 1, 1]
        assert axes.get_xscale() == "log"
        assert [text.get_text() for text in axes.texts] == ["1.00 x", "12.5 x", "80 x"]


def test_the_lines_and_the_dots_are_the_rates():
    rates = {1: 100.0, 2: 180.0}
    points = [
        ScalingPoint(candidate=name, axis="num_threads", value=value, rate=rate * scale, rate_low=rate, rate_high=rate)
        for name, scale in (("published: PIL", 1), ("dali", 3))
        for value, rate in rates.items()
    ]
    with_model = {
        "dali": LoaderWithModel(loader_rate=540.0, compute_rate=200.0, end_to_end_rate=150.0, wait_share=0.25)
    }
    figure = loaders_figure({"eval": ROWS}, "published", points, with_model, "ResNet-18")
    scaling, model = figure.subfigs[1].axes
    assert [line.get_label() for line in scaling.lines] == ["published", "dali"]
    assert [line.get_ydata().tolist() for line in scaling.lines] == [[100, 180], [300, 540]]
    assert [line.get_xdata()[0] for line in model.lines] == [540, 200, 150]
    assert [text.get_text() for text in model.texts] == ["waits 25 %"]
