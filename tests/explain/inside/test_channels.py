"""What channels are chosen: scores against their definitions, samples with what is asked of them."""

import numpy as np
import pytest
import torch
from torch import nn

from dogs_accel.explain.inside.channels import (
    ChannelSample,
    OneClassError,
    activity,
    choose_sample,
    cohens_d,
    confused_pair,
    sample_channels,
    separating_channels,
)
from dogs_accel.explain.inside.stage_maps import find_stage_maps
from pipelines.loader import Batch


def sample_of(means):
    zeros = np.zeros_like(means)
    return ChannelSample(means=means, maxima=zeros, places=zeros.astype(np.int64))


def test_one_pass_gives_what_a_hook_written_by_hand_sees():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(5, 4, 3, stride=2), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    ).eval()  # fmt: skip
    images = torch.randn(7, 3, 9, 9)
    order = torch.randperm(7)
    batches = [Batch(images[part], part, part) for part in (order[:4], order[4:])]
    stage_maps = find_stage_maps(model, images)
    assert [(each.name, each.channels, each.side) for each in stage_maps] == [("0", 5, 9), ("2", 4, 4)]
    seen = []
    handles = [model[at].register_forward_hook(lambda _, __, out: seen.append(out.clone())) for at in (1, 3)]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    for found, own in zip(sample_channels(model, stage_maps, batches), seen, strict=True):
        np.testing.assert_allclose(found.means, own.mean(dim=(2, 3)), rtol=1e-5)
        np.testing.assert_array_equal(found.maxima, own.amax(dim=(2, 3)))
        np.testing.assert_array_equal(
            own.flatten(2).gather(2, torch.from_numpy(found.places)[..., None])[..., 0], found.maxima
        )


def test_activity_is_in_standard_deviations_of_the_sample():
    means = np.array([[0.0, 5.0], [2.0, 5.0], [4.0, 5.0]])
    np.testing.assert_allclose(activity(np.array([[6.0, 9.0]]), sample_of(means)), [[2.0, 0.0]])


def test_cohens_d_by_hand():
    first, second = np.array([[2.0], [4.0], [6.0]]), np.array([[1.0], [3.0]])
    # Means 4 and 2, variances 4 and 2, pooled (2 * 4 + 1 * 2) / 3.
    np.testing.assert_allclose(cohens_d(first, second), [2 / np.sqrt(10 / 3)])
    assert cohens_d(first * 0, second * 0).tolist() == [0.0]


def test_a_constant_channel_tells_nothing_apart_whatever_its_value():
    """The mean of equal numbers is another number in its last bit."""
    first, second = np.full((3, 1), 0.1), np.full((7, 1), 0.1)
    assert first.mean() != second.mean()
    assert cohens_d(first, second) == 0
    assert cohens_d(first, np.array([[0.1], [0.2]])) != 0


def test_the_channel_that_tells_two_classes_apart_is_chosen_and_checked_on_other_images():
    rng = np.random.default_rng(0)
    labels = np.repeat([3, 8, 1], 20)
    means = rng.normal(size=(60, 200))
    means[labels == 8, 17] += 3  # and no other channel
    best, second, *_ = separating_channels(means, labels, (3, 8), 5)
    assert best.channel == 17
    assert best.d < -2
    assert best.d_held_out == pytest.approx(best.d, abs=1.5)
    # Of 200 channels of noise the best looks well where it was chosen, and not on the other half.
    assert abs(second.d) > 0.8
    assert abs(second.d_held_out) < 0.8


def test_with_too_few_images_for_two_halves_no_channel_is_chosen():
    means, labels = np.random.default_rng(0).normal(size=(8, 40)), np.repeat([0, 1], 4)
    assert len(separating_channels(means, labels, (0, 1), 2)) == 2
    assert separating_channels(means[:7], labels[:7], (0, 1), 2) == []


def test_the_pair_is_the_one_that_is_confused_most_in_both_directions():
    labels = np.repeat([0, 1, 2], [5, 4, 6])
    predicted = np.array([1, 1, 0, 0, 0, 1, 2, 2, 1, 0, 1, 1, 2, 2, 2])
    assert confused_pair(labels, predicted) == (1, 2)
    assert confused_pair(labels, labels) == (0, 2)
    with pytest.raises(OneClassError, match="got images of one class"):
        confused_pair(np.zeros(3, dtype=int), np.zeros(3, dtype=int))


def test_a_pair_has_images_enough_to_be_told_apart():
    labels = np.repeat([0, 1, 2], [5, 3, 6])
    predicted = labels.copy()
    predicted[:2] = 1  # of class 1 there are too few, and of class 3 none
    predicted[-2:] = 3
    predicted[2] = 2
    assert confused_pair(labels, predicted) == (0, 2)
    few = np.repeat([0, 1], [3, 2])
    assert confused_pair(few, 1 - few) == (0, 1)


def test_a_sample_has_a_quarter_of_each_class_of_the_pair():
    labels = np.arange(100) % 10
    chosen = choose_sample(labels, (2, 7), 32, seed=1)
    assert len(set(chosen.tolist())) == 32
    assert [(labels[chosen] == label).sum() >= 8 for label in (2, 7)] == [True, True]
    assert choose_sample(labels, (2, 7), 32, seed=1).tolist() == chosen.tolist()
    assert choose_sample(labels, (2, 7), 500, seed=1).tolist() == list(range(100))
