"""Heat maps lie where the evidence is, on models whose evidence is known because their weights were set by hand."""

import pytest
import torch
from torch import nn

from dogs_accel.explain.explainers import find_explainer
from dogs_accel.models.freezing import set_trainable_stage
from tests.support.eyes import SIDE, build, centre_of, drawn, spot


@pytest.mark.parametrize(("top", "left"), [(8, 8), (8, 40), (40, 8), (40, 40), (24, 24), (0, 48)])
def test_grad_cam_lies_on_the_evidence_to_two_pixels(eye_net, top, left):
    """Drawn as if cells tiled the image, it would lie half a cell (3.5 px) too far down and right."""
    explainer = find_explainer(eye_net, SIDE)
    [heat] = drawn(explainer, spot(top, left), torch.tensor([0]))["gradcam"]
    row, column = centre_of(heat)
    assert abs(row - (top + 8)) < 2
    assert abs(column - (left + 8)) < 2


def test_grad_cam_is_of_the_class_that_is_asked_for(eye_net):
    both = spot(0, 0, channel=0) + spot(40, 40, channel=1)
    explainer = find_explainer(eye_net, SIDE)
    red, green = drawn(explainer, both.expand(2, -1, -1, -1), torch.tensor([0, 1]))["gradcam"]
    assert centre_of(red)[0] < 16 < 40 < centre_of(green)[0]
    [blue] = explainer.maps(both, torch.tensor([2]))["gradcam"]
    assert (blue == 0).all()


class ChannelsLast(nn.Module):
    """A network whose feature map has its channels behind its places, which it then overwrites."""

    def __init__(self, net):
        super().__init__()
        *features, pooling, flatten, head = net
        self.features, self.norm, self.head = nn.Sequential(*features), nn.Identity(), head
        self.pooling = nn.Sequential(pooling, flatten)

    def forward(self, images):
        last = self.norm(self.features(images).permute(0, 2, 3, 1))
        logits = self.head(self.pooling(last.permute(0, 3, 1, 2)))
        last.zero_()
        return logits


def test_grad_cam_of_a_map_with_its_channels_last_is_that_of_the_same_map(eye_net):
    images = spot(8, 40, channel=0) + spot(40, 8, channel=1)
    explainer, plain = find_explainer(ChannelsLast(eye_net), SIDE), find_explainer(eye_net, SIDE)
    assert (explainer.found.layer, explainer.found.is_channels_last) == ("norm", True)
    for wanted in range(3):
        one, other = (each.maps(images, torch.tensor([wanted]))["gradcam"] for each in (explainer, plain))
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert explainer.placed_on(images).places == plain.placed_on(images).places


@pytest.mark.parametrize("frozen", [False, True])
def test_grad_cam_equals_a_slow_one(frozen):
    model = build("resnet18", SIDE)
    if frozen:
        set_trainable_stage(model, "head_only")
    images, classes = torch.randn(9, 3, SIDE, SIDE), torch.arange(9) % 7
    explainer = find_explainer(model, SIDE)
    assert explainer.found.layer == "layer4"
    maps = explainer.maps(images, classes)["gradcam"]
    for image, wanted, own in zip(images, classes, maps, strict=True):
        held = image[None].clone().requires_grad_()
        x = model.maxpool(model.relu(model.bn1(model.conv1(held))))
        features = model.layer4(model.layer3(model.layer2(model.layer1(x))))
        logit = model.fc(model.avgpool(features).flatten(1))[0, wanted]
        [gradient] = torch.autograd.grad(logit, features)
        slow = torch.zeros(features.shape[2:])
        for channel in range(features.shape[1]):
            slow += gradient[0, channel].mean() * features[0, channel].detach()
        torch.testing.assert_close(own, slow.clamp(min=0), rtol=1e-4, atol=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())
