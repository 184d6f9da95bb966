import csv
import math
import shutil
import statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from dogs_accel.datasets import open_dataset
from dogs_accel.datasets.splits import SPLITS
from dogs_accel.eda.figures import (
    breed_quality_figure,
    dataset_distributions_figure,
    image_size_figure,
    quality_distributions_figure,
    rgb_channel_figure,
)
from dogs_accel.eda.files import read_metadata
from dogs_accel.eda.galleries import augmented_batch_figure, brightness_extremes, photos_figure, random_class_samples
from dogs_accel.eda.metadata import write_metadata as pass_over
from dogs_accel.eda.run import describe_eda, write_eda
from dogs_accel.eda.tables import class_sizes, class_table, quality_summary, split_table
from dogs_accel.ops import IMAGE_STATS
from pipelines import RESNET_TRAIN, VIT_TRAIN, make_loader
from tests.support.metadata_frames import quality_frame, split_frame, write_metadata


def draw(figure):
    """Lay out and render: what would fail only when a figure is saved fails here."""
    FigureCanvasAgg(figure).draw()
    return figure


def kept_figures(monkeypatch):
    """The figures by the name of their file, kept instead of saved."""
    figures = {}

    def keep(figure, path):
        figures[path.name] = figure
        return path

    monkeypatch.setattr("dogs_accel.eda.run.save_figure", keep)
    return figures


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.fixture
def quality():
    return quality_frame([7, 5, 1, 9, 3], [2, 6, 0, 4, 3])


# ---- tables


def test_split_table_counts_as_a_loop_does(quality):
    splits = split_frame(quality)
    table = split_table(splits)
    assert list(table.columns) == [
        "split", "images", "classes", "min_per_class", "median_per_class", "max_per_class", "share",
    ]  # fmt: skip
    assert table["split"].tolist() == ["train", "val", "test", "all"]
    for row in table.itertuples():
        counts = [0] * 5
        for label, split in zip(splits["label"], splits["split"], strict=True):
            counts[label] += row.split in (split, "all")
        expected = [sum(counts), sum(n > 0 for n in counts), min(counts), statistics.median(counts), max(counts)]
        assert list(row[2:7]) == expected
        assert row.share == sum(counts) / 40
    assert table.loc[2, "min_per_class"] == 0  # breed 2 has no test image


def test_an_empty_split_is_a_row_of_zeros():
    table = split_table(split_frame(quality_frame([1, 1], [0, 0])))
    assert table.loc[2].tolist() == ["test", 0, 0, 0, 0.0, 0, 0.0]


def test_class_table_agrees_with_a_loop_over_the_files(tmp_path, quality):
    folder = write_metadata(tmp_path, quality)
    table = class_table(quality, split_frame(quality))
    with (folder / "metadata_with_quality.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "split_metadata.csv").open(newline="") as file:
        split_rows = list(csv.DictReader(file))
    assert table["label"].tolist() == [0, 1, 2, 3, 4]
    for row in table.to_dict("records"):
        mine = [r for r in rows if int(r["label"]) == row["label"]]
        assert (row["class_name"], row["folder_name"]) == (mine[0]["class_name"], mine[0]["folder_name"])
        assert row["images"] == len(mine)
        for split in ("train", "val", "test"):
            assert row[split] == sum(int(r["label"]) == row["label"] and r["split"] == split for r in split_rows)
        for column in ("width", "height", "brightness_mean", "contrast_std", "saturation_mean"):
            mean = math.fsum(float(r[column]) for r in mine) / len(mine)
            assert row[f"mean_{column.split('_')[0]}"] == pytest.approx(mean, rel=1e-12)


def test_a_class_that_could_not_be_measured_still_has_its_row(quality):
    table = class_table(quality[quality["label"] != 1], split_frame(quality))
    assert table.loc[1, ["class_name", "images", "test"]].tolist() == ["breed 1", 0, 6]
    assert math.isnan(table.loc[1, "mean_width"])
    assert table["images"].dtype == np.int64


def quantile(values, share):
    """Linear between the two nearest, as numpy's default."""
    at = share * (len(values) - 1)
    low = math.floor(at)
    high = min(low + 1, len(values) - 1)
    return sorted(values)[low] + (at - low) * (sorted(values)[high] - sorted(values)[low])


def test_quality_summary_agrees_with_the_statistics_module(quality):
    table = quality_summary(quality)
    assert table["column"].tolist() == ["width", "height", "aspect_ratio", *IMAGE_STATS]
    assert list(table.columns[1:]) == ["mean", "std", "min", "p5", "median", "p95", "max"]
    for row in table.itertuples():
        values = [float(value) for value in quality[row.column]]
        expected = [
            statistics.fmean(values), statistics.pstdev(values), min(values), quantile(values, 0.05),
            statistics.median(values), quantile(values, 0.95), max(values),
        ]  # fmt: skip
        assert list(row[2:]) == pytest.approx(expected, rel=1e-12)


def test_class_sizes_are_largest_first_and_equals_by_label():
    sizes = class_sizes(quality_frame([2, 3, 1, 3], [1, 0, 4, 0]))
    assert sizes["label"].tolist() == [2, 0, 1, 3]
    assert sizes["images"].tolist() == [5, 3, 3, 3]
    assert sizes["train"].tolist() == [1, 2, 3, 3]
    assert sizes["test"].tolist() == [4, 1, 0, 0]


def test_breeds_of_one_name_are_not_thrown_together():
    assert class_sizes(quality_frame([2, 3], [0, 0], names=["hound", "hound"]))["images"].tolist() == [3, 2]


# ---- histograms


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


# ---- bars and boxes


def test_official_split_and_every_breed_of_a_small_set(quality):
    figure = draw(dataset_distributions_figure(quality))
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
    figure = draw(dataset_distributions_figure(quality_frame(range(1, 121), [1] * 120)))
    panels = {axes.get_title().split("\n")[0]: axes for axes in figure.axes}
    assert set(panels) == {"Official split", "All 120 breeds", "20 largest of 120 breeds"}
    assert panels["20 largest of 120 breeds"].get_title().endswith("\n2 to 121 images a breed, median 61.5")
    assert texts(panels["20 largest of 120 breeds"]) == [str(count) for count in range(121, 101, -1)]
    bars = panels["All 120 breeds"].patches
    assert [bar.get_height() for bar in bars] == [*range(120, 0, -1), *[1] * 120]
    assert [bar.get_y() for bar in bars] == [*[0] * 120, *range(120, 0, -1)]


def test_equal_sizes_are_said_once():
    figure = dataset_distributions_figure(quality_frame([3, 3], [1, 1]))
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
    figure = draw(breed_quality_figure(quality))
    for axes, column in zip(figure.axes, ("brightness_mean", "saturation_mean"), strict=True):
        medians = [line for line in axes.lines if line.get_linewidth() == 1.6]
        for line, label in zip(medians, (6, 1, 3, 5, 4, 2), strict=True):
            assert line.get_ydata()[0] == statistics.median(quality[column][quality["label"] == label])
        assert texts(axes) == [f"median of\nall images\n{statistics.median(quality[column]):.3f}"]
    assert [text.get_text() for text in figure.axes[1].get_xticklabels()] == [
        "breed 6\n10", "breed 1\n9", "breed 3\n8", "breed 5\n7", "breed 4\n6", "breed 2\n5",
    ]  # fmt: skip
    assert figure.get_suptitle() == "Brightness and saturation: 6 largest of 7 breeds"


# ---- pictures


def cells(figure):
    """Caption of each cell with its picture, or what it says instead."""
    found = []
    for axes in figure.axes:
        if axes.axison:
            found.append((axes.get_xlabel(), axes.images[0] if axes.images else axes.texts[0].get_text()))
    return found


def test_gallery_draws_each_image_in_its_place_and_shape(tmp_path):
    quality = quality_frame([6], [0])
    colours = [(20 * i, 255 - 20 * i, 30) for i in range(6)]
    sizes = [(40, 20), (20, 40), (30, 30), (900, 300), (7, 5), (300, 900)]
    quality["image_path"] = [str(tmp_path / f"{i}.png") for i in range(6)]
    for path, colour, size in zip(quality["image_path"], colours, sizes, strict=True):
        Image.new("RGB", size, colour).save(path)
    figure = draw(photos_figure(quality, [f"caption {i}" for i in range(6)], "title"))
    drawn = cells(figure)
    assert [caption for caption, _ in drawn] == [f"caption {i}" for i in range(6)]
    assert len(figure.axes) == 8  # two lines of four, the last two cells empty
    for (_, image), colour, (width, height) in zip(drawn, colours, sizes, strict=True):
        pixels = image.get_array()
        assert (pixels == colour).all()
        assert max(pixels.shape) <= 384
        assert pixels.shape[1] / pixels.shape[0] == pytest.approx(width / height)
        left, right, bottom, top = image.get_extent()
        assert (right - left) / (top - bottom) == pytest.approx(width / height)
        assert max(right - left, top - bottom) == pytest.approx(1)


def test_pictures_are_made_rgb_as_the_loaders_do(tmp_path):
    quality = quality_frame([3], [0])
    quality["image_path"] = [str(tmp_path / name) for name in ("grey.png", "palette.gif", "cmyk.jpg")]
    Image.new("L", (8, 8), 77).save(tmp_path / "grey.png")
    Image.new("P", (8, 8), 0).save(tmp_path / "palette.gif")
    Image.new("CMYK", (8, 8), 0).save(tmp_path / "cmyk.jpg")
    drawn = cells(photos_figure(quality, ["a", "b", "c"], "title"))
    for (_, image), path in zip(drawn, quality["image_path"], strict=True):
        assert (image.get_array() == np.asarray(Image.open(path).convert("RGB"))).all()


def test_what_cannot_be_read_is_a_cell_that_says_so(tmp_path):
    quality = quality_frame([4], [0])
    quality["image_path"] = [str(tmp_path / name) for name in ("absent.jpg", "text.jpg", "cut.jpg", "good.png")]
    (tmp_path / "text.jpg").write_text("not a picture")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:500])
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    *bad, (_, good) = cells(draw(photos_figure(quality, list("abcd"), "title")))
    assert bad == [("a", "not found"), ("b", "not readable"), ("c", "not readable")]
    assert good.get_array().shape == (8, 8, 3)


def test_extremes_are_sorted_by_brightness_and_equals_stay_in_order():
    quality = quality_frame([10], [0]).assign(brightness_mean=[0.5, 0.1, 0.9, 0.1, 0.3, 0.9, 0.2, 0.8, 0.4, 0.6])
    assert brightness_extremes(quality, darkest=True).index.tolist() == [1, 3, 6, 4, 8, 0, 9, 7]
    assert brightness_extremes(quality, darkest=False).index.tolist() == [2, 5, 7, 9, 0, 8, 4, 6]
    assert len(brightness_extremes(quality.head(3), darkest=True)) == 3


def test_random_samples_are_one_of_each_class_and_the_seeds_own():
    quality = quality_frame([5] * 30, [2] * 30)
    chosen = {seed: random_class_samples(quality, seed=seed) for seed in range(40)}
    for rows in chosen.values():
        assert len(rows) == rows["label"].nunique() == 12
        assert rows["label"].is_monotonic_increasing
    assert chosen[3].equals(random_class_samples(quality, seed=3))
    assert len({tuple(rows["image_id"]) for rows in chosen.values()}) == 40
    assert set(pd.concat(chosen.values())["label"]) == set(range(30))
    assert set(pd.concat(chosen.values())["image_id"].str.split("_").str[1]) == {
        *(f"train{i}" for i in range(5)), "test0", "test1",
    }  # fmt: skip


def test_fewer_classes_than_cells():
    rows = random_class_samples(quality_frame([1, 4, 2], [0, 0, 0]))
    assert rows["label"].tolist() == [0, 1, 2]


# ---- the augmented batch

HALF = VIT_TRAIN.at(4, mean=(0.5,) * 3, std=(0.5,) * 3)


def test_the_preview_is_what_a_loader_gives_of_the_first_training_images(dogs_root, tmp_path, monkeypatch):
    data = open_dataset(dogs_root)
    pass_over(data, {name: data.split(name) for name in SPLITS}, tmp_path, progress=False)
    figures = kept_figures(monkeypatch)
    recipe = RESNET_TRAIN.at(64)
    write_eda(read_metadata(tmp_path), tmp_path / "out", seed=3, recipe=recipe)
    first = data.split("train")[:8]
    with make_loader(
        [data.paths[i] for i in first], np.zeros(8), recipe, backend="torch", device="cpu", seed=3
    ) as loader:
        [batch] = loader
    expected = batch.images.permute(0, 2, 3, 1).numpy() * np.array(recipe.std) + np.array(recipe.mean)
    drawn = cells(figures["augmented_batch_preview.png"])
    assert [caption for caption, _ in drawn] == [data.class_names[data.labels[i]] for i in first]
    for (_, image), pixels in zip(drawn, expected, strict=True):
        np.testing.assert_allclose(image.get_array(), pixels, atol=1e-6)
    assert "resnet-train" in figures["augmented_batch_preview.png"].get_suptitle()
    assert "64 px" in figures["augmented_batch_preview.png"].get_suptitle()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_augmented_batch_undoes_the_normalisation(dtype):
    mean, std = RESNET_TRAIN.mean, RESNET_TRAIN.std
    pixels = torch.rand(10, 3, 6, 9, generator=torch.Generator().manual_seed(0))
    normalised = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    batch = normalised.to(dtype, memory_format=torch.channels_last)
    figure = draw(augmented_batch_figure(batch, RESNET_TRAIN, [f"dog {i}" for i in range(10)]))
    drawn = cells(figure)
    assert [caption for caption, _ in drawn] == [f"dog {i}" for i in range(8)]
    for (_, image), expected in zip(drawn, pixels, strict=False):
        tolerance = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 5e-3}[dtype]
        np.testing.assert_allclose(image.get_array(), expected.permute(1, 2, 0), atol=tolerance)


def test_augmented_batch_is_clipped_to_what_can_be_shown():
    batch = torch.tensor([-9.0, 9.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    drawn = cells(augmented_batch_figure(batch, HALF, ["dark", "bright"]))
    assert [(caption, image.get_array().min()) for caption, image in drawn] == [("dark", 0), ("bright", 1)]


@pytest.mark.parametrize(
    ("shape", "names", "message"),
    [
        ((3, 4, 4), ["a"] * 3, r"images: got shape \(3, 4, 4\), expected \(B, 3, H, W\)"),
        ((2, 1, 4, 4), ["a"] * 2, "images: got shape"),
        ((0, 3, 4, 4), [], "images: got shape"),
        ((2, 3, 4, 4), ["a"], r"names: got 1, expected one per image \(2\)"),
    ],
)
def test_augmented_batch_refuses_other_shapes(shape, names, message):
    with pytest.raises(ValueError, match=message):
        augmented_batch_figure(torch.zeros(shape), HALF, names)


# ---- all of it

FILES = [
    "split_table.csv", "class_table.csv", "quality_summary.csv",
    "quality_distributions.png", "dataset_distributions.png", "image_size_distribution.png", "rgb_channel_summary.png",
    "random_class_samples.png", "darkest_examples.png", "brightest_examples.png", "breed_quality_boxplots.png",
]  # fmt: skip


@pytest.mark.filterwarnings("error")
def test_everything_is_written_from_the_tables_alone_whatever_the_names(tmp_path):
    names = ["a$\\frac$b", "under_score $x^2$", "$", "café — 犬", "line\nbreak", "x" * 200, ""]
    quality = quality_frame([1] * 7, [1] * 7, names=names)
    out = tmp_path / "new" / "eda"
    with pytest.warns(UserWarning, match="Glyph 29356"):  # the font has no 犬; any other warning is an error
        paths = write_eda(read_metadata(write_metadata(tmp_path / "metadata", quality)), out)
    assert paths == [out / name for name in FILES]
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    for path in paths[3:]:
        with Image.open(path) as image:
            image.load()
            assert 500 < max(image.size) < 3000
    read = pd.read_csv(out / "class_table.csv", keep_default_na=False)
    assert read["class_name"].tolist() == names
    assert read["images"].tolist() == [2] * 7


def test_the_preview_passes_over_what_cannot_be_read_and_does_not_outlive_its_images(dogs_root, tmp_path):
    root = tmp_path / "dogs"
    shutil.copytree(dogs_root, root)
    data = open_dataset(root)
    pass_over(data, {name: data.split(name) for name in SPLITS}, tmp_path, progress=False)
    preview = tmp_path / "out" / "augmented_batch_preview.png"
    Path(data.paths[data.split("train")[0]]).write_text("no image any more")
    assert write_eda(read_metadata(tmp_path), tmp_path / "out")[-1] == preview
    shutil.rmtree(root / "Images")
    assert preview not in write_eda(read_metadata(tmp_path), tmp_path / "out")
    assert not preview.exists()


def test_galleries_are_of_the_seed_and_of_both_ends_of_brightness(tmp_path, monkeypatch):
    figures = kept_figures(monkeypatch)
    quality = quality_frame([2] * 30, [1] * 30)
    write_eda(read_metadata(write_metadata(tmp_path, quality)), tmp_path / "out", seed=5)
    samples = [caption for caption, _ in cells(figures["random_class_samples.png"])]
    assert samples == random_class_samples(quality, seed=5)["class_name"].tolist()
    assert figures["random_class_samples.png"].get_suptitle() == "One image of each of 12 of 30 breeds, seed 5"
    values = sorted(quality["brightness_mean"])
    for name, expected in (("darkest", values[:8]), ("brightest", values[:-9:-1])):
        captions = [caption.split("\n") for caption, _ in cells(figures[f"{name}_examples.png"])]
        assert [value for _, value in captions] == [f"{value:.3f}" for value in expected]
        row = quality.set_index("brightness_mean").loc[expected[0]]
        assert captions[0][0] == row["class_name"]


def test_names_are_drawn_as_they_are_and_shortened(quality):
    quality["class_name"] = quality["class_name"].replace({"breed 0": "a$\\frac$b\nc", "breed 1": "y" * 99})
    labels = draw(dataset_distributions_figure(quality)).axes[1].get_yticklabels()
    assert [label.get_text() for label in labels[1:3]] == [f"{'y' * 29}…", "a$\\frac$b c"]
    assert not any(label.get_parse_math() for label in labels)


@pytest.mark.filterwarnings("error")
def test_one_image_is_enough(tmp_path):
    quality = quality_frame([0], [1])
    assert len(write_eda(read_metadata(write_metadata(tmp_path / "in", quality)), tmp_path / "out")) == 11
    assert "1 breed, 1 image a breed" in describe_eda(read_metadata(tmp_path / "in"))


def test_description_has_the_numbers(tmp_path, quality):
    lines = describe_eda(read_metadata(write_metadata(tmp_path, quality))).splitlines()
    rows = [line.split() for line in lines[1:5]]
    assert rows[0] == ["train", "17", "42.5%", "5", "1", "/", "3", "/", "6"]
    assert rows[2] == ["test", "15", "37.5%", "4", "0", "/", "3", "/", "6"]
    assert lines[5] == "5 breeds, 1 to 13 images a breed, median 9"
    means = {column: math.fsum(quality[column]) / 40 for column in quality.columns[7:]}
    assert lines[6] == (
        f"means of 40 images: brightness {means['brightness_mean']:.4f}, contrast {means['contrast_std']:.4f}, "
        f"saturation {means['saturation_mean']:.4f}, R {means['r_mean']:.4f}, G {means['g_mean']:.4f}, "
        f"B {means['b_mean']:.4f}"
    )
    assert lines[7] == (
        f"mean size: {means['width']:.1f} x {means['height']:.1f} px, aspect ratio {means['aspect_ratio']:.2f}"
    )


def test_description_sets_the_normalisations_side_by_side(tmp_path, quality):
    text = describe_eda(read_metadata(write_metadata(tmp_path, quality)))
    found = {" ".join(line.split()) for line in text.splitlines()}
    assert found >= {
        "pixels of the training split (9 images) 0.5100 0.4600 0.4100 0.2600 0.2500 0.2700",
        "mean of image means (12 images) 0.5000 0.4500 0.4000",
        "published mean of image means (Stanford Dogs, 20,580) 0.4761 0.4518 0.3910",
        "ImageNet, as pretrained weights expect it 0.4850 0.4560 0.4060 0.2290 0.2240 0.2250",
    }
    assert "includes validation and test" in text


@pytest.mark.parametrize(("num", "is_published"), [(20_580, True), (20_579, False)])
def test_published_figures_are_called_anothers_but_on_the_published_images(tmp_path, num, is_published):
    quality = quality_frame([1] * 120, [1] * 120)
    quality = pd.concat([quality] * 86, ignore_index=True).head(num)
    text = describe_eda(read_metadata(write_metadata(tmp_path, quality)))
    assert ("The published figures are of the whole Stanford Dogs" in text) != is_published


def test_tables_of_different_images_are_said_to_be(tmp_path, quality):
    folder = write_metadata(tmp_path, quality)
    assert "has 40 images" not in describe_eda(read_metadata(folder))
    quality.head(30).to_csv(folder / "metadata_with_quality.csv", index=False)
    text = describe_eda(read_metadata(folder))
    assert "metadata_with_quality.csv has 30 images, split_metadata.csv 40" in text
    assert "split_metadata.csv has 17 training images, normalisation.json is of 9: measure again" in text
