"""The drawn parameters have the distributions of torchvision's own classes."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision import transforms

from pipelines import EVAL, RESNET_TRAIN, VIT_TRAIN, Recipe
from pipelines.augmentation import draw_params

NUM = 4000


def draw(recipe, size=(256, 256), num=NUM, epoch=0):
    return draw_params(recipe, np.tile(size, (num, 1)), 42, epoch, np.arange(num))


def same_distribution(ours, theirs):
    return ks_2samp(ours, theirs).pvalue > 1e-3


@pytest.mark.parametrize("recipe", [RESNET_TRAIN, VIT_TRAIN, Recipe(name="wide", random_area=(0.08, 1.0))])
@pytest.mark.parametrize("size", [(256, 256), (120, 500)])
def test_crops_are_distributed_as_random_resized_crop(recipe, size):
    torch.manual_seed(0)
    image = Image.new("RGB", (size[1], size[0]))
    theirs = np.array(
        [
            transforms.RandomResizedCrop.get_params(image, list(recipe.random_area), list(recipe.random_ratio))
            for _ in range(NUM)
        ]
    )
    ours = draw(recipe, size).crop
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= size).all()
    for column in range(4):
        assert same_distribution(ours[:, column], theirs[:, column])
    assert same_distribution(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3])


def test_erasing_is_distributed_as_random_erasing():
    torch.manual_seed(0)
    image = torch.zeros(3, 224, 224)
    theirs = np.array(
        [transforms.RandomErasing.get_params(image, (0.02, 0.33), (0.3, 3.3), [0.0])[:4] for _ in range(NUM)]
    )
    ours = draw(Recipe(name="erase", erasing=1.0)).erase
    for column in range(4):
        assert same_distribution(ours[:, column], theirs[:, column])


@pytest.mark.parametrize("recipe", [RESNET_TRAIN, VIT_TRAIN])
def test_rates_and_ranges(recipe):
    params = draw(recipe, num=20_000)
    assert params.flip.mean() == pytest.approx(recipe.flip, abs=0.012)
    assert (params.erase[:, 2] > 0).mean() == pytest.approx(recipe.erasing, abs=0.008)
    assert np.abs(params.angle_deg).max() <= recipe.rotation_deg
    for column, width in enumerate((recipe.brightness, recipe.contrast, recipe.saturation)):
        assert same_distribution(params.factors[:, column], np.linspace(1 - width, 1 + width, 20_000))
    if recipe.rotation_deg:
        assert same_distribution(params.angle_deg, np.linspace(-15, 15, 20_000))
    orders, counts = np.unique(params.order, axis=0, return_counts=True)
    assert len(orders) == 6
    assert counts.min() > 0.9 * 20_000 / 6


def test_evaluation_takes_the_centre_and_changes_nothing():
    params = draw(EVAL, num=3)
    assert params.crop.tolist() == [[16, 16, 224, 224]] * 3
    assert not params.flip.any()
    assert not params.erase.any()
    assert (params.factors == 1).all()


def test_a_sample_is_the_same_in_any_company_and_differs_between_epochs():
    whole = draw(RESNET_TRAIN, num=50)
    part = draw_params(RESNET_TRAIN, np.tile((256, 256), (3, 1)), 42, 0, np.array([7, 3, 49]))
    np.testing.assert_array_equal(part.crop, whole.crop[[7, 3, 49]])
    np.testing.assert_array_equal(part.factors, whole.factors[[7, 3, 49]])
    assert (draw(RESNET_TRAIN, num=50, epoch=1).crop != whole.crop).any(axis=1).mean() > 0.95


def test_switching_one_augmentation_off_leaves_the_others():
    from dataclasses import replace

    without = draw(replace(RESNET_TRAIN, flip=0.0, rotation_deg=0.0))
    np.testing.assert_array_equal(without.crop, draw(RESNET_TRAIN).crop)
    np.testing.assert_array_equal(without.erase, draw(RESNET_TRAIN).erase)
