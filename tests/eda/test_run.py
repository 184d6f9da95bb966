import dataclasses
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dogs_accel.cli import main
from dogs_accel.datasets import open_dataset
from dogs_accel.datasets.splits import SPLITS
from dogs_accel.eda import run
from dogs_accel.eda.files import read_metadata
from dogs_accel.eda.galleries import random_class_samples
from dogs_accel.eda.metadata import write_metadata as pass_over
from dogs_accel.eda.run import describe_eda, write_eda
from pipelines import RESNET_TRAIN, make_loader
from tests.support.drawn_figures import cells, kept_figures
from tests.support.metadata_frames import quality_frame, write_metadata


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


@pytest.mark.fault(
    "Scores and figures", "a figure of the data that cannot be drawn", "it is named, the others are made"
)
@pytest.mark.usefixtures("undrawn")
def test_a_figure_that_fails_costs_itself_alone(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise ZeroDivisionError("no width")

    write_metadata(tmp_path, quality_frame([1] * 3, [1] * 3))
    with monkeypatch.context() as patch:
        patch.setattr(run, "image_size_figure", fail)
        with pytest.raises(SystemExit) as stop:
            main(["eda", "--metadata", str(tmp_path)])
    assert stop.value.code == 1
    printed = capsys.readouterr()
    said = "eda/image_size_distribution.png (ZeroDivisionError: no width)"
    assert printed.err == f"dogs-accel eda: FAILED: not made: {said}\n"
    assert (
        f"  not made: {said}; the rest goes on, and the traceback is in {tmp_path / 'eda' / 'error.log'}" in printed.out
    )
    assert {path.name for path in (tmp_path / "eda").iterdir()} == {*FILES, "error.log"} - {
        "image_size_distribution.png"
    }
    assert main(["eda", "--metadata", str(tmp_path)]) == 0
    assert {*FILES} <= {path.name for path in (tmp_path / "eda").iterdir()}


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


def test_where_no_means_were_published_there_is_no_line_of_them(tmp_path, quality):
    data = read_metadata(write_metadata(tmp_path, quality))
    pets = dataclasses.replace(data, facts=dataclasses.replace(data.facts, published="oxford-iiit-pet"))
    assert "published" in describe_eda(data)
    assert "published" not in describe_eda(pets)


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
