import math
import statistics

import numpy as np
import pytest

from dogs_accel.datasets import DatasetFacts
from dogs_accel.datasets.layouts.stanford_dogs import stanford_dogs_facts
from dogs_accel.eda.figures import (
    class_quality_figure,
    dataset_distributions_figure,
    image_size_figure,
    quality_distributions_figure,
    rgb_channel_figure,
)
from dogs_accel.eda.files import read_metadata
from tests.support.drawn_figures import draw, texts
from tests.support.metadata_frames import quality_frame, write_metadata

FACTS = stanford_dogs_facts()


def test_histograms_are_numpys_with_the_mean_marked(quality):
    figure = draw(quality_distributions_figure(quality))
    assert len(figure.axes) == 3
    for axes, column in zip(figure.axes, ("brightness_mean", "contrast_std", "saturation_mean"), strict=True):
        counts, edges = np.histogram(quality[column], bins=30)
        assert [bar.get_height() for bar in axes.patches] == counts.tolist()
        np.testing.assert_allclose([bar.get_x() for bar in axes.patches], edges[:-1])
        assert sum(bar.get_height() for bar in axes.patches) == len(quality)
        _, mean = axes.lines
        assert list(mean.get_xdata()) == [quality[column].mean()] * 2
        assert texts(axes) == [f"mean {quality[column].mean():.3f}"]


def test_density_is_the_slow_sum_of_gaussians(quality):
    axes = quality_distributions_figure(quality).axes[0]
    values = quality["brightness_mean"].tolist()
    num = len(values)
    sigma = statistics.stdev(values) * num ** (-1 / 5)  # Scott's rule
    bin_width = (max(values) - min(values)) / 30
    at, height = axes.lines[0].get_data()
    for x, y in list(zip(at, height, strict=True))[::40]:
        density = sum(math.exp(-((x - v) ** 2) / (2 * sigma**2)) for v in values) / (num * sigma * math.sqrt(math.tau))
        assert y == pytest.approx(density * num * bin_width, rel=1e-9)


@pytest.mark.parametrize("values", [[0.25], [0.25] * 9, [0.25, 0.25 + 1e-16, np.nextafter(0.25, 1)], [0.0, 0.0]])
def test_equal_values_are_one_bar_without_a_density(values):
    quality = quality_frame([len(values)], [0]).assign(brightness_mean=values)
    axes = draw(quality_distributions_figure(quality)).axes[0]
    (bar,) = [bar for bar in axes.patches if bar.get_height()]
    assert bar.get_height() == len(values)
    assert bar.get_x() + bar.get_width() / 2 == pytest.approx(values[0])
    assert len(axes.lines) == 1  # the mean


def test_two_different_images_have_a_density():
    quality = quality_frame([2], [0]).assign(contrast_std=[0.2, 0.3])
    assert len(draw(quality_distributions_figure(quality)).axes[1].lines) == 2


def test_sizes_leave_out_a_far_tail_and_say_so():
    quality = quality_frame([500], [500])
    quality.loc[17, "width"] = 40_000
    figure = draw(image_size_figure(quality))
    assert [axes.get_title() for axes in figure.axes] == ["Width", "Height", "Aspect ratio"]
    width, height, _ = figure.axes
    shown = quality["width"][quality["width"] <= np.quantile(quality["width"], 0.995)]
    assert [bar.get_height() for bar in width.patches] == np.histogram(shown, bins=30)[0].tolist()
    assert width.get_xlabel() == f"px\nnot drawn: {1000 - len(shown):,} larger, up to 40,000"
    assert width.lines[0].get_xdata()[0] == quality["width"].mean()  # of all, the tail too
    assert [bar.get_height() for bar in height.patches] == np.histogram(quality["height"], bins=30)[0].tolist()
    assert height.get_xlabel() == "px"


def test_official_split_and_every_breed_of_a_small_set(quality):
    figure = draw(dataset_distributions_figure(quality, FACTS))
    split, breeds = figure.axes
    assert [bar.get_height() for bar in split.patches] == [25, 15]
    assert texts(split) == ["25\n62.5%", "15\n37.5%"]
    assert [label.get_text() for label in breeds.get_yticklabels()] == [f"breed {i}" for i in (3, 1, 0, 4, 2)]
    assert [bar.get_width() for bar in breeds.patches] == [9, 5, 7, 3, 1, 4, 6, 2, 3, 0]
    assert [bar.get_x() for bar in breeds.patches] == [0] * 5 + [9, 5, 7, 3, 1]  # test goes on where train ends
    assert texts(breeds) == ["13", "11", "9", "6", "1"]
    assert breeds.get_title() == "5 breeds\n1 to 13 images a breed, median 9"
    assert breeds.get_ylim()[0] > breeds.get_ylim()[1]  # the largest on top


def test_many_breeds_are_drawn_as_the_20_largest_and_as_all():
    figure = draw(dataset_distributions_figure(quality_frame(range(1, 121), [1] * 120), FACTS))
    panels = {axes.get_title().split("\n")[0]: axes for axes in figure.axes}
    assert set(panels) == {"Official split", "All 120 breeds", "20 largest of 120 breeds"}
    assert panels["20 largest of 120 breeds"].get_title().endswith("\n2 to 121 images a breed, median 61.5")
    assert texts(panels["20 largest of 120 breeds"]) == [str(count) for count in range(121, 101, -1)]
    bars = panels["All 120 breeds"].patches
    assert [bar.get_height() for bar in bars] == [*range(120, 0, -1), *[1] * 120]
    assert [bar.get_y() for bar in bars] == [*[0] * 120, *range(120, 0, -1)]


def test_parts_of_other_data_and_images_of_none():
    quality = quality_frame([4, 2], [3, 1]).assign(official_split=["official_val"] * 4 + ["none"] * 6)
    split, classes = draw(dataset_distributions_figure(quality, DatasetFacts(name="x", title="x", layout="x"))).axes
    assert [tick.get_text() for tick in split.get_xticklabels()] == ["val", "no official part"]
    assert [bar.get_height() for bar in split.patches] == [4, 6]
    assert classes.get_title() == "2 classes\n3 to 7 images a class, median 5"


def test_equal_sizes_are_said_once():
    figure = dataset_distributions_figure(quality_frame([3, 3], [1, 1]), FACTS)
    assert figure.axes[1].get_title() == "2 breeds\n4 images a breed"


def test_channels_beside_the_training_pixels(tmp_path, quality):
    normalisation = read_metadata(write_metadata(tmp_path, quality)).normalisation
    mean, std = draw(rgb_channel_figure(quality, normalisation)).axes
    columns = [quality[f"{channel}_mean"].tolist() for channel in "rgb"]
    expected = [*(statistics.fmean(column) for column in columns), *normalisation.train_mean]
    assert [bar.get_height() for bar in mean.patches] == pytest.approx(expected)
    expected = [*(statistics.pstdev(column) for column in columns), *normalisation.train_std]
    assert [bar.get_height() for bar in std.patches] == pytest.approx(expected)
    assert texts(mean)[3:] == ["0.5100", "0.4600", "0.4100"]


def test_boxes_of_the_6_largest_breeds():
    quality = quality_frame([4, 9, 5, 8, 6, 7, 10], [0] * 7)
    figure = draw(class_quality_figure(quality, FACTS))
    for axes, column in zip(figure.axes, ("brightness_mean", "saturation_mean"), strict=True):
        medians = [line for line in axes.lines if line.get_linewidth() == 1.6]
        for line, label in zip(medians, (6, 1, 3, 5, 4, 2), strict=True):
            assert line.get_ydata()[0] == statistics.median(quality[column][quality["label"] == label])
        assert texts(axes) == [f"median of\nall images\n{statistics.median(quality[column]):.3f}"]
    assert [text.get_text() for text in figure.axes[1].get_xticklabels()] == [
        "breed 6\n10", "breed 1\n9", "breed 3\n8", "breed 5\n7", "breed 4\n6", "breed 2\n5",
    ]  # fmt: skip
    assert figure.get_suptitle() == "Brightness and saturation: 6 largest of 7 breeds"


def test_names_are_drawn_as_they_are_and_shortened(quality):
    quality["class_name"] = quality["class_name"].replace({"breed 0": "a$\\frac$b\nc", "breed 1": "y" * 99})
    labels = draw(dataset_distributions_figure(quality, FACTS)).axes[1].get_yticklabels()
    assert [label.get_text() for label in labels[1:3]] == [f"{'y' * 29}…", "a$\\frac$b c"]
    assert not any(label.get_parse_math() for label in labels)
