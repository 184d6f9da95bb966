"""Guided backpropagation and integrated gradients: against captum, by hand, and against shuffled weights."""

import numpy as np
import pytest
import torch
from torch import nn

from dogs_accel.explain.inside.channels import ChannelSample
from dogs_accel.explain.inside.inspection import InspectedStage
from dogs_accel.explain.inside.saliency import (
    GUIDED,
    INTEGRATED,
    choose_saliency,
    guided_backprop,
    integrated_gradients,
    other_activations,
    units_of,
)
from dogs_accel.explain.inside.sanity import (
    SanityCheck,
    edges,
    rank_correlation,
    saliency_similarity,
    shuffled_copy,
)
from dogs_accel.explain.inside.stage_maps import find_stage_maps
from dogs_accel.explain.inside.units import show_units
from tests.support.eyes import build, colour_net, spot


def small_net(activation=nn.ReLU):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), activation(), nn.Conv2d(6, 4, 3, stride=2), activation(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
    ).eval()  # fmt: skip


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_guided_backpropagation_is_captums():
    attr = pytest.importorskip("captum.attr")
    model, images = small_net(), torch.randn(3, 3, 12, 12, requires_grad=True)
    expected = attr.GuidedBackprop(model).attribute(images, target=2)
    torch.testing.assert_close(guided_backprop(lambda given: model(given)[:, 2], images), expected)


def test_guided_backpropagation_by_hand():
    """y = relu(-2 relu(x0)) + 3 relu(x1) - relu(x2): what is negative passes no ReLU on its way back."""
    x = torch.tensor([[[[1.0, 2.0, 3.0]]]])

    def unit(given):
        first = torch.relu(given[:, 0, 0])
        return torch.relu(3 * first[:, 1] - first[:, 2] - 0.0 * first[:, 0] + 1)

    assert guided_backprop(unit, x).tolist() == [[[[0.0, 3.0, 0.0]]]]
    plain = x.clone().requires_grad_()
    unit(plain).sum().backward()
    assert plain.grad.tolist() == [[[[0.0, 3.0, -1.0]]]]


@pytest.mark.parametrize(
    "relu", [nn.ReLU(), nn.ReLU(inplace=True), nn.functional.relu, torch.relu, nn.ReLU6(), nn.functional.relu6]
)
def test_every_way_to_write_a_relu_is_guided(relu):
    x = torch.tensor([[3.0, 4.0]])
    assert guided_backprop(lambda given: relu(given * 1)[:, 0] - relu(given * 1)[:, 1], x).tolist() == [[1.0, 0.0]]


def test_a_saturated_relu6_passes():
    x = torch.tensor([[9.0, -9.0]])
    assert guided_backprop(lambda given: nn.functional.relu6(given).sum(dim=1), x).tolist() == [[1.0, 0.0]]


def test_integrated_gradients_of_a_quadratic_by_hand_and_complete():
    """f = x0^2 + x0 x1 from 0: along t x the gradient is t (2 x0 + x1, x0), so half of it times x."""
    x = torch.tensor([[3.0, 5.0]])
    found = integrated_gradients(lambda given: given[:, 0] ** 2 + given[:, 0] * given[:, 1], x, num_steps=4)
    torch.testing.assert_close(found, torch.tensor([[3 * (6 + 5) / 2, 5 * 3 / 2]]))
    assert found.sum() == 3**2 + 3 * 5
    linear = torch.tensor([[2.0, -1.0]])
    torch.testing.assert_close(integrated_gradients(lambda given: (given * linear).sum(dim=1), x), x * linear)


def test_integrated_gradients_are_captums():
    attr = pytest.importorskip("captum.attr")
    model, images = small_net(nn.GELU), torch.randn(2, 3, 12, 12)
    expected = attr.IntegratedGradients(model).attribute(images, target=1, n_steps=32, method="riemann_middle")
    found = integrated_gradients(lambda given: model(given)[:, 1], images)
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "size", "others"),
    [
        ("resnet18", 32, []),
        ("timm/tf_efficientnet_lite0", 32, []),  # ReLU6
        ("cnn5:activation=mish", 32, ["mish"]),
        ("vit:dim=48:depth=1:heads=3:patch=8", 32, ["attention", "gelu"]),
        ("timm/convnext_atto", 32, ["gelu"]),
        ("timm/mobilenetv3_small_050", 32, ["hardsigmoid", "hardswish"]),
    ],
)
def test_guided_backpropagation_is_for_relus_alone(name, size, others):
    model = build(name, size)
    assert other_activations(model, size) == others
    chosen = choose_saliency(model, size)
    assert chosen.name == (INTEGRATED if others else GUIDED)
    assert all(word in chosen.note for word in others)


def test_a_unit_is_shown_where_its_square_is():
    model, image = colour_net(2), spot(24, 40)
    [stage] = find_stage_maps(model, image)[-1:]
    row, column = (
        int((32 - stage.places.first[0]) / stage.places.step),
        int((48 - stage.places.first[1]) / stage.places.step),
    )
    unit = units_of(lambda given: model[:4](given), 0, [(row, column)])
    left, top, right, bottom = map(int, stage.box(row, column))
    found = guided_backprop(unit, image)[0].abs()
    assert found[0, top:bottom, left:right].min() > 0
    assert found.sum() == found[0, top:bottom, left:right].sum()


def test_rank_correlation_and_edges():
    a = np.array([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(a, a**3) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(a, a * 0) is None
    image = torch.zeros(1, 3, 8, 8)
    image[..., 4:] = 1
    assert edges(image)[0, 0, 3].tolist() == [0, 0, 0, 4, 4, 0, 0, 0]
    inside = torch.zeros(3, 8, 8)
    inside[:, 2:4, 2:4] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert saliency_similarity(inside, inside.exp() - 1, (2, 2, 4, 4)) == pytest.approx(1)


def test_a_shuffled_copy_keeps_the_values_and_nothing_of_their_order():
    model, images = build("timm/tf_efficientnet_lite0", 32).requires_grad_(False), torch.randn(4, 3, 32, 32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copied = shuffled_copy(model, images, seed=3)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    for (name, own), other in zip(model.named_parameters(), copied.parameters(), strict=True):
        assert torch.equal(own.flatten().sort().values, other.flatten().sort().values)
        if own.ndim > 1 and own.numel() > 500:
            assert abs(float(torch.corrcoef(torch.stack([own.flatten(), other.flatten()]))[0, 1])) < 0.3, name
    assert torch.equal(copied.conv_stem.weight, shuffled_copy(model, images, seed=3).conv_stem.weight)
    with torch.no_grad():
        assert copied(images).std() > 0


def inspected_stage(model, images, num):
    stage = find_stage_maps(model, images)[-1]
    zeros = np.zeros((2, stage.channels))
    return InspectedStage(
        stage=stage,
        sample=ChannelSample(means=zeros, maxima=zeros, places=zeros.astype(int)),
        active=np.tile(np.arange(num), (len(images), 1)),
        scores=np.zeros((len(images), num)),
        active_maps=np.zeros((len(images), num, stage.side, stage.side), np.float32),
        separating=[],
        separating_maps=np.zeros((len(images), 0, stage.side, stage.side), np.float32),
    )  # fmt: skip


def test_units_are_checked_against_shuffled_weights():
    """A network whose weights are all equal is its own shuffled copy; one with weights of its own is not."""
    torch.manual_seed(0)
    model = build("cnn5:filters=8", 64)
    images = torch.rand(2, 3, 64, 64)
    for parameter in model.parameters():
        parameter.data.abs_()
    own = show_units(model, inspected_stage(model, images, 4), images)
    assert own.method.name == GUIDED
    assert [len(units) for units in own.units] == [4, 4]
    for parameter in model.parameters():
        parameter.data.fill_(parameter.mean().item())
    same = show_units(model, inspected_stage(model, images, 4), images)
    assert same.check.with_shuffled == pytest.approx(1)
    assert own.check.with_shuffled < same.check.with_shuffled
    assert same.check.verdict.startswith("failed: the pictures depend more on the image")
    assert same.check.num_units == 8
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "size", "least", "most"),
    [
        ("cnn5:activation=gelu:filters=8", 64, 0, 0.02),
        ("vit:dim=48:depth=1:heads=3:patch=8", 32, 0, 1.1),
        ("timm/convnext_atto", 64, 0.9, 1.1),  # whose first map is the same from every brighter image: it misses all
    ],
)
def test_units_of_other_networks_are_shown_by_integrated_gradients(name, size, least, most):
    model, images = build(name, size), torch.rand(1, 3, size, size)
    shown = show_units(model, inspected_stage(model, images, 1), images)
    [[unit]] = shown.units
    assert shown.method.name == INTEGRATED
    assert unit.saliency.shape == (3, size, size)
    assert least <= shown.unaccounted <= most
    assert shown.account.startswith("they miss ")


@pytest.mark.parametrize(
    ("similarity", "begins"),
    [(0.7, "failed"), (0.5, "failed"), (0.3, "passed in part"), (0.1, "passed: "), (None, "not checked")],
)
def test_the_verdict_follows_the_similarity(similarity, begins):
    check = SanityCheck(method=GUIDED, with_shuffled=similarity, with_edges=0.1, num_units=3)
    assert check.verdict.startswith(begins)
    assert ("Adebayo" in check.verdict) is (similarity is not None and similarity >= 0.2)
