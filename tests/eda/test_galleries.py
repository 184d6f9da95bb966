import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dogs_accel.eda.galleries import augmented_batch_figure, brightness_extremes, photos_figure, random_class_samples
from pipelines import RESNET_TRAIN, VIT_TRAIN
from tests.support.drawn_figures import cells, draw
from tests.support.metadata_frames import quality_frame


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


@pytest.mark.fault("Scores and figures", "a photo that vanished before its figure is drawn", "a cell that says so")
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


HALF = VIT_TRAIN.at(4, mean=(0.5,) * 3, std=(0.5,) * 3)


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
