"""The views of test-time augmentation against a plain loop over PIL and torchvision, on every loader."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms
from torchvision.transforms import functional as F

from dogs_accel.datasets import open_dataset
from dogs_accel.evaluation.predictions import MeanOfViews, Predictions, predict
from dogs_accel.evaluation.tta import check_tta, describe_views, tta_views
from pipelines import BACKENDS, EVAL, IMAGENET_EVAL, IMAGENET_TRAIN, INATURALIST_EVAL, RESNET_TRAIN, make_loader
from pipelines.augmentation import draw_params
from pipelines.torchloader import augment_image, resize_image

SIZE = 32
SQUASH, KEEP, FULL = (recipe.at(SIZE) for recipe in (EVAL, IMAGENET_EVAL, INATURALIST_EVAL))
TRAIN = RESNET_TRAIN.at(SIZE)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 10 * 10, 5)).eval()


@pytest.fixture(scope="module")
def paths(dogs_root):
    return open_dataset(dogs_root).paths[:6]


def averaged(paths, views, backend, seed=7):
    """The mean over the views as a run computes it."""
    mean = MeanOfViews()
    for view in views:
        with make_loader(
            paths, [0] * len(paths), view.recipe, backend=backend, batch_size=4, device="cpu", seed=seed, num_threads=1
        ) as loader:
            loader.set_epoch(view.epoch)
            mean.add(predict(net(), loader, [str(at) for at in range(len(paths))]))
    return mean


def shown(path, evaluation, tta, at, seed=7):
    """The views of one image by PIL and torchvision, (V, 3, S, S)."""
    photo = Image.open(path).convert("RGB")
    finish = transforms.Compose([transforms.ToTensor(), transforms.Normalize(evaluation.mean, evaluation.std)])
    resized = F.resize(photo, evaluation.resize)
    own = F.center_crop(resized, [SIZE, SIZE])
    if tta == "flip":
        return torch.stack([finish(own), finish(F.hflip(own))])
    if tta == "five-crop":
        *corners, centre = F.five_crop(resized, [SIZE, SIZE])
        if evaluation == FULL:  # of an image that is larger by 1 / 0.875, as 256 is than 224
            *corners, centre = F.five_crop(F.resize(photo, [37, 37]), [SIZE, SIZE])
            corners.append(centre)
        return torch.stack([finish(each) for each in (own, *corners)])
    drawn = []
    for epoch in range(1, int(tta)):
        squashed = resize_image(photo, TRAIN)
        params = draw_params(TRAIN, np.array([[squashed.height, squashed.width]]), seed, epoch, np.array([at]))
        drawn.append(augment_image(squashed, TRAIN, params, 0))
    return torch.stack([finish(own), *drawn])


@pytest.mark.parametrize("backend", BACKENDS[1:] if BACKENDS[0] == "auto" else BACKENDS)
@pytest.mark.parametrize(
    ("evaluation", "tta", "num_views"),
    [
        (SQUASH, "flip", 2), (SQUASH, "five-crop", 5), (KEEP, "five-crop", 5), (FULL, "five-crop", 6), (SQUASH, "3", 3),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)  # fmt: skip
def test_the_mean_is_that_of_a_plain_loop_with_every_loader(paths, evaluation, tta, num_views, backend):
    mean = averaged(paths, tta_views(tta, evaluation, TRAIN), backend)
    assert mean.num_views == num_views
    probabilities = torch.from_numpy(mean.logits()).softmax(dim=1)
    with torch.no_grad():
        expected = torch.stack(
            [net()(shown(path, evaluation, tta, at)).softmax(dim=1).mean(dim=0) for at, path in enumerate(paths)]
        )
    torch.testing.assert_close(probabilities, expected, rtol=1e-4, atol=1e-6)


def test_the_first_view_is_the_evaluations_own_and_alone_gives_its_logits(paths):
    [own] = tta_views("none", SQUASH, TRAIN)
    assert own.recipe == SQUASH
    for tta in ("flip", "five-crop", "4"):
        first, *others = tta_views(tta, SQUASH, TRAIN)
        assert first == own
        assert own not in others
        assert len({(view.recipe, view.epoch) for view in others}) == len(others)
    alone = averaged(paths, [own], "torch").logits()
    with make_loader(paths, [0] * 6, SQUASH, backend="torch", device="cpu", num_threads=1) as loader:
        plain = predict(net(), loader, list("abcdef")).logits
    np.testing.assert_allclose(alone, torch.from_numpy(plain).log_softmax(dim=1), rtol=0, atol=1e-6)


def test_draws_are_of_the_seed_and_of_nothing_else(paths):
    views = tta_views("3", SQUASH, TRAIN)
    first = averaged(paths, views, "cached").logits()
    torch.manual_seed(99)
    np.random.seed(99)  # a state that must not matter
    assert np.array_equal(first, averaged(paths, views, "cached").logits())
    assert not np.array_equal(first, averaged(paths, views, "cached", seed=8).logits())


def predictions(logits):
    num = len(logits)
    return Predictions(
        logits.astype(np.float32), np.zeros(num, dtype=np.int64), np.array([str(at) for at in range(num)])
    )


def test_the_mean_is_of_probabilities_and_no_small_one_becomes_0():
    views = [np.array([[0.0, 3.0, -500.0]]), np.array([[4.0, 0.0, -900.0]])]
    mean = MeanOfViews()
    for view in views:
        mean.add(predictions(view))
    expected = torch.stack([torch.from_numpy(view).softmax(dim=1) for view in views]).mean(dim=0)
    torch.testing.assert_close(torch.from_numpy(mean.logits()).double().softmax(dim=1), expected, rtol=1e-4, atol=0)
    assert mean.logits()[0, 2] == pytest.approx(-503.0486 - np.log(2), abs=1e-3)
    mean_of_logits = torch.from_numpy(sum(views) / 2).softmax(dim=1)
    assert (expected - mean_of_logits).abs().max() > 0.1


def test_memory_does_not_grow_with_the_views():
    given, mean, held = predictions(np.random.default_rng(0).normal(size=(200, 50))), MeanOfViews(), set()
    for _ in range(20):
        mean.add(given)
        held.add(len(pickle.dumps(mean)))
    assert 8 * 200 * 50 < min(held) <= max(held) < 9 * 200 * 50


@pytest.mark.parametrize("text", ["flop", "1", "0", "-2", "2.5", "1001", "", "٣"])
def test_views_that_there_are_not_are_refused(text):
    with pytest.raises(
        ValueError, match=r"^tta: got .*, expected none, flip, five-crop or the number of views, 2 to 1,000$"
    ):
        check_tta(text)


def test_draws_of_a_recipe_that_draws_nothing_are_refused():
    with pytest.raises(ValueError, match=r"^tta: got 3 with the training recipe eval, which draws nothing"):
        tta_views("3", EVAL, EVAL)
    assert len(tta_views("flip", EVAL, EVAL)) == 2


def test_a_recipe_that_leaves_no_room_is_enlarged_by_what_a_corner_leaves_out():
    assert tta_views("five-crop", INATURALIST_EVAL, TRAIN)[1].recipe.resize == (256, 256)
    assert tta_views("five-crop", replace(IMAGENET_EVAL, resize=224), TRAIN)[1].recipe.resize == 256
    as_they_are = replace(IMAGENET_EVAL, resize=None)
    assert [view.recipe.crop_place for view in tta_views("five-crop", as_they_are, IMAGENET_TRAIN)] == [
        "centre", "top_left", "top_right", "bottom_left", "bottom_right"
    ]  # fmt: skip
    assert describe_views("4", 4) == "draws of the training recipe, 4 views"
    assert describe_views("flip", 2) == "flip, 2 views"


def test_an_evaluation_that_looks_at_a_corner_gets_the_other_places_too():
    own, *others = tta_views("five-crop", replace(KEEP, crop_place="top_left"), TRAIN)
    assert own.recipe.crop_place == "top_left"
    assert [view.recipe.crop_place for view in others] == ["centre", "top_right", "bottom_left", "bottom_right"]
