"""What maps are worth, by hand."""

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp

from dogs_accel.explain.scores import (
    box_cover,
    box_on_crop,
    heat_inside,
    hottest_patches,
    mean_with_interval,
    patches_across,
    random_patches,
    removal_verdict,
    shifted_patches,
    without_patches,
)
from pipelines import EVAL, RESNET_TRAIN, Recipe


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("grid", "across"), [((7, 7), 7), ((14, 14), 14), ((2, 2), 8), ((4, 4), 8), ((3, 3), 12)])
def test_patches_follow_the_cells_of_the_map(grid, across):
    assert patches_across(grid) == across


def test_the_hottest_fifth_is_what_has_the_most_heat(generator):
    heat = torch.zeros(1, 50, 50)
    heat[0, :10, :] = torch.linspace(1, 2, 50)  # 5 of 25 patches, the right ones hotter
    patches = hottest_patches(heat, 5, 0.2, generator)
    assert patches[0].sum(dim=1).tolist() == [5, 0, 0, 0, 0]
    assert hottest_patches(heat, 5, 0.08, generator)[0].nonzero().tolist() == [[0, 3], [0, 4]]


def test_a_map_without_heat_picks_at_random(generator):
    counts = hottest_patches(torch.zeros(2000, 8, 8), 8, 0.25, generator).double().mean(dim=0)
    assert 0.2 < counts.min() < counts.max() < 0.3


def test_random_patches_are_as_many_and_everywhere(generator):
    patches = random_patches(2000, 7, 0.2, generator)
    assert (patches.sum(dim=(1, 2)) == 10).all()
    share = patches.double().mean(dim=0)
    assert 0.16 < share.min() < share.max() < 0.25


def test_shifted_patches_keep_their_shape(generator):
    patches = torch.zeros(200, 5, 5, dtype=torch.bool)
    patches[:, :2, :2] = True
    shifted = shifted_patches(patches, generator)
    places = {tuple(map(tuple, each.nonzero().tolist())) for each in shifted}
    every = {
        tuple(sorted(((i + di) % 5, (j + dj) % 5) for di in range(2) for dj in range(2)))
        for i in range(5)
        for j in range(5)
    }
    assert places == every


def test_removed_parts_get_the_mean_colour_of_their_image():
    images = torch.rand(2, 3, 9, 9)
    patches = torch.zeros(2, 4, 4, dtype=torch.bool)
    patches[0, 1, 3] = True  # rows 3 and 4, columns 7 and 8: patch i holds the px with floor(4 px / 9) = i
    changed = without_patches(images, patches)
    assert torch.equal(changed[1], images[1])
    torch.testing.assert_close(changed[0, :, 3:5, 7:], images[0].mean(dim=(1, 2))[:, None, None].expand(3, 2, 2))
    assert int((changed != images).any(dim=1).sum()) == 4


def test_a_box_goes_through_squash_and_crop():
    # 384 x 512 becomes 256 x 256: down 2/3, across 1/2; then 16 px go at each side.
    assert box_on_crop((100, 90, 300, 240), (384, 512), EVAL) == (34.0, 44.0, 134.0, 144.0)
    assert box_on_crop((0, 0, 512, 384), (384, 512), EVAL) == (-16.0, -16.0, 240.0, 240.0)


def test_a_box_goes_through_a_resize_that_keeps_the_aspect():
    recipe = Recipe(name="eval", resize=256)
    xmin, ymin, xmax, ymax = box_on_crop((0, 0, 400, 300), (300, 400), recipe)
    # 300 x 400 becomes 256 x 341; (341 - 224) / 2 = 58.5 is rounded to the even 58 as torchvision does.
    assert (xmin, ymin, xmax, ymax) == (-58, -16, pytest.approx(283), 240)


def test_a_recipe_of_chance_has_no_one_crop():
    with pytest.raises(ValueError, match="recipe: got resnet-train, expected one of evaluation"):
        box_on_crop((0, 0, 1, 1), (10, 10), RESNET_TRAIN)


def test_cover_counts_parts_of_pixels_and_overlaps_once():
    cover = box_cover([(0.5, 1.0, 2.0, 2.25), (-3.0, 1.0, 2.0, 2.0)], 4)
    assert cover.tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [0.125, 0.25, 0, 0], [0, 0, 0, 0]]
    assert box_cover([(5, 5, 9, 9)], 4).sum() == 0


def test_heat_inside_is_a_share():
    heat = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert heat_inside(heat, torch.tensor([[0.0, 1.0], [0.5, 0.0]])) == pytest.approx(0.35)
    assert heat_inside(torch.zeros(2, 2), torch.ones(2, 2)) is None


def test_intervals_are_students():
    values = np.random.default_rng(0).normal(0.1, 1, 20)
    own = mean_with_interval(values)
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    assert own["interval"] == pytest.approx([interval.low, interval.high])
    assert mean_with_interval(values[:1])["interval"] is None
    assert mean_with_interval(values[:0]) == {"mean": None, "interval": None, "num_images": 0}


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ([0.01, 0.2], "better than random"),
        ([-0.01, 0.2], "no difference from random shown"),
        ([0.0, 0.2], "no difference from random shown"),
        ([-0.2, -0.01], "worse than random"),
        (None, "too few images"),
    ],
)
def test_the_words_follow_the_interval(interval, words):
    assert removal_verdict({"interval": interval}) == words
