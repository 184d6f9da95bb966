"""The drawn parameters have the distributions of torchvision's own classes."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import _apply_op

from pipelines import CIFAR_TRAIN, EVAL, RESNET_TRAIN, STANDARD_TRAIN, VIT_TRAIN, Recipe
from pipelines.augmentation import RANDAUGMENT_OPERATIONS, SIGNED, draw_params, pack_params, randaugment_magnitudes
from pipelines.recipe import CROP_PLACES
from pipelines.torchloader import augment_image, augment_images

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
    orders, counts = np.unique(params.order[params.order < 3].reshape(-1, 3), axis=0, return_counts=True)
    assert len(orders) == 6
    assert counts.min() > 0.9 * 20_000 / 6
    assert not params.grayscale.any()


def test_evaluation_takes_the_centre_and_changes_nothing():
    params = draw(EVAL, num=3)
    assert params.crop.tolist() == [[16, 16, 224, 224]] * 3
    assert not params.flip.any()
    assert not params.erase.any()
    assert (params.factors == [1, 1, 1, 0]).all()


def test_a_sample_is_the_same_in_any_company_and_differs_between_epochs():
    whole = draw(RESNET_TRAIN, num=50)
    part = draw_params(RESNET_TRAIN, np.tile((256, 256), (3, 1)), 42, 0, np.array([7, 3, 49]))
    np.testing.assert_array_equal(part.crop, whole.crop[[7, 3, 49]])
    np.testing.assert_array_equal(part.factors, whole.factors[[7, 3, 49]])
    assert (draw(RESNET_TRAIN, num=50, epoch=1).crop != whole.crop).any(axis=1).mean() > 0.95


def test_switching_one_augmentation_off_leaves_the_others():
    without = draw(replace(RESNET_TRAIN, flip=0.0, rotation_deg=0.0))
    np.testing.assert_array_equal(without.crop, draw(RESNET_TRAIN).crop)
    np.testing.assert_array_equal(without.erase, draw(RESNET_TRAIN).erase)


def test_what_came_later_is_drawn_behind_what_there_was():
    before = draw(RESNET_TRAIN)
    after = draw(replace(RESNET_TRAIN, hue=0.1, grayscale=0.2, randaugment=(3, 9)))
    for name in ("crop", "flip", "angle_deg", "erase"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    np.testing.assert_array_equal(after.factors[:, :3], before.factors[:, :3])
    # The first three keep their order, wherever the hue comes among them.
    orders = [each.order[each.order < 3].reshape(-1, 3) for each in (before, after)]
    np.testing.assert_array_equal(*orders)


def test_hue_grayscale_and_order_are_distributed_as_color_jitter_has_them():
    params = draw(replace(STANDARD_TRAIN, grayscale=0.1), num=20_000)
    assert same_distribution(params.factors[:, 3], np.linspace(-0.1, 0.1, 20_000))
    assert params.grayscale.mean() == pytest.approx(0.1, abs=0.008)
    orders, counts = np.unique(params.order, axis=0, return_counts=True)
    assert len(orders) == 24
    assert counts.min() > 0.85 * 20_000 / 24


@pytest.mark.parametrize(("size", "padding"), [((32, 32), 4), ((40, 100), 0), ((20, 50), 0), ((20, 50), 3)])
def test_random_crops_are_distributed_as_random_crop(size, padding):
    torch.manual_seed(0)
    recipe = replace(CIFAR_TRAIN, resize=None, padding=padding)
    padded = [side + 2 * padding for side in size]
    # What torchvision adds on both sides where the crop would not fit.
    added = [max(0, 32 - side) for side in padded]
    image = Image.new("RGB", (padded[1] + 2 * added[1], padded[0] + 2 * added[0]))
    theirs = np.array([transforms.RandomCrop.get_params(image, (32, 32)) for _ in range(NUM)])
    ours = draw(recipe, size).crop
    assert (ours[:, 2:] == 32).all()
    for column in range(2):
        assert same_distribution(ours[:, column] + padding + added[column], theirs[:, column])


@pytest.mark.parametrize("size", [(300, 299), (20, 33), (31, 32)])
def test_the_centre_is_that_of_center_crop(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    recipe = Recipe(name="centre", resize=None, crop=32)
    got = augment_images([image], recipe, seed=0, epoch=0, index=np.arange(1))
    expected = transforms.Normalize(recipe.mean, recipe.std)(transforms.ToTensor()(transforms.CenterCrop(32)(image)))
    assert torch.equal(got[0], expected)


@pytest.mark.parametrize("size", [(40, 51), (32, 32), (33, 32)])
def test_corners_are_those_of_five_crop(size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    *corners, centre = transforms.FiveCrop(32)(image)
    expected = dict(zip(("top_left", "top_right", "bottom_left", "bottom_right", "centre"), [*corners, centre],
                        strict=True))  # fmt: skip
    assert set(expected) == set(CROP_PLACES)
    for place, crop in expected.items():
        recipe = Recipe(name="corner", resize=None, crop=32, crop_place=place, mean=(0, 0, 0), std=(1, 1, 1))
        got = augment_images([image], recipe, seed=0, epoch=0, index=np.arange(1))
        assert torch.equal(got[0], transforms.ToTensor()(crop))


def test_a_corner_of_an_image_smaller_than_the_crop_is_in_the_middle_of_that_side():
    place, centre = (Recipe(name="corner", resize=None, crop=32, crop_place=at) for at in ("bottom_right", "centre"))
    boxes = [draw(recipe, (20, 50), num=1).crop[0].tolist() for recipe in (place, centre)]
    assert boxes == [[-6, 18, 32, 32], [-6, 9, 32, 32]]


def test_padding_and_its_fill_are_those_of_random_crop():
    recipe = replace(CIFAR_TRAIN, fill=(9, 8, 7), flip=0, mean=(0, 0, 0), std=(1, 1, 1))
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    padded = np.full((40, 40, 3), (9, 8, 7), dtype=np.uint8)
    padded[4:36, 4:36] = pixels
    got = augment_images([Image.fromarray(pixels)] * 50, recipe, seed=42, epoch=0, index=np.arange(50))
    boxes = draw(recipe, (32, 32), num=50).crop
    assert len(np.unique(boxes[:, :2], axis=0)) > 20
    for image, (top, left, _, _) in zip(got, boxes, strict=True):
        expected = padded[top + 4 : top + 36, left + 4 : left + 36]
        np.testing.assert_array_equal(np.rint(image.permute(1, 2, 0).numpy() * 255), expected)


def test_randaugment_draws_each_operation_and_sign_as_often():
    params = draw(Recipe(name="strong", randaugment=(2, 9)), num=20_000)
    assert params.operations.shape == params.signs.shape == (20_000, 2)
    counts = np.bincount(params.operations.ravel(), minlength=len(RANDAUGMENT_OPERATIONS))
    assert counts.min() > 0.93 * 40_000 / 14
    assert counts.max() < 1.07 * 40_000 / 14
    assert (params.signs == 1).mean() == pytest.approx(0.5, abs=0.01)
    assert abs(np.corrcoef(params.operations.T)[0, 1]) < 0.02


@pytest.mark.parametrize("magnitude", [0, 1, 9, 17, 30])
def test_every_operation_of_randaugment_is_torchvisions(magnitude):
    pixels = np.random.default_rng(0).integers(0, 256, (61, 61, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    recipe = Recipe(name="strong", resize=None, crop=61, randaugment=(1, magnitude), mean=(0, 0, 0), std=(1, 1, 1))
    space = transforms.RandAugment()._augmentation_space(31, (61, 61))
    assert len(space) == len(RANDAUGMENT_OPERATIONS)
    seen = set()
    params = draw(recipe, (61, 61), num=400)
    for row in range(400):
        number, sign = int(params.operations[row, 0]), float(params.signs[row, 0])
        if (number, sign) in seen:
            continue
        seen.add((number, sign))
        (name, (magnitudes, signed)), ours = list(space.items())[number], RANDAUGMENT_OPERATIONS[number]
        strength = float(magnitudes[magnitude]) if magnitudes.ndim else 0.0
        assert (signed, strength) == (ours in SIGNED, randaugment_magnitudes(magnitude, 61)[ours])
        strength *= sign if signed else 1
        expected = _apply_op(image, name, strength, InterpolationMode.NEAREST, None)
        got = augment_image(image, recipe, params, row)
        np.testing.assert_array_equal(np.rint(got.permute(1, 2, 0).numpy() * 255), np.asarray(expected), err_msg=name)
    assert len(seen) == 28


def test_the_matrices_of_randaugment_are_torchvisions():
    from torchvision.transforms.functional import _get_inverse_affine_matrix

    for magnitude in range(31):
        recipe = Recipe(name="strong", randaugment=(1, magnitude))
        params = draw(recipe, num=300)
        strengths = randaugment_magnitudes(magnitude, 224)
        for row, (step, *matrix) in enumerate(pack_params(params, recipe)[:, 9:].tolist()):
            name = RANDAUGMENT_OPERATIONS[params.operations[row, 0]]
            strength = strengths[name] * params.signs[row, 0]
            angle = math.degrees(math.atan(strength))
            expected = {
                "shear_x": ([0, 0], 0.0, [0, 0], 1.0, [angle, 0.0]),
                "shear_y": ([0, 0], 0.0, [0, 0], 1.0, [0.0, angle]),
                "translate_x": ([112.0, 112.0], 0.0, [int(strength), 0], 1.0, [0.0, 0.0]),
                "translate_y": ([112.0, 112.0], 0.0, [0, int(strength)], 1.0, [0.0, 0.0]),
            }.get(name)
            if expected is not None:
                assert (step, matrix) == (1, _get_inverse_affine_matrix(*expected))
