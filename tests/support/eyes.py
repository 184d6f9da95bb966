"""Models whose evidence is known because their weights are set by hand, and where their heat lies."""

import torch
from torch import nn

from dogs_accel.explain.cells import scale_to_unit, upsample
from dogs_accel.models.build import build_model
from dogs_accel.models.specs import model_spec

SIDE = 64


def build(name, size):
    return build_model(model_spec(name, size), 7, "none").model.eval()


def spot(top, left, channel=0, side=16, size=SIDE):
    """A black image with a bright square of one colour."""
    image = torch.zeros(1, 3, size, size)
    image[:, channel, top : top + side, left : left + side] = 1
    return image


def centre_of(heat):
    """Row and column of the mean place of the heat above a half, in px."""
    heat = torch.where(heat > 0.5, heat, 0.0)
    at = torch.arange(heat.shape[-1]) + 0.5
    return float((heat.sum(1) * at).sum() / heat.sum()), float((heat.sum(0) * at).sum() / heat.sum())


def colour_net(num_halvings=3):
    """A CNN whose class c is the mean brightness of colour c, through padded convolutions as a ResNet has them."""
    net = nn.Sequential()
    for _ in range(num_halvings):
        conv = nn.Conv2d(3, 3, 3, stride=2, padding=1, bias=False)
        conv.weight.data = torch.eye(3)[:, :, None, None] * torch.tensor([0.25, 0.5, 0.25]).outer(
            torch.tensor([0.25, 0.5, 0.25])
        )
        net.extend([conv, nn.ReLU()])
    return net.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3, bias=False)]).requires_grad_(False)


def drawn(explainer, images, classes, size=SIDE):
    return {
        method: scale_to_unit(upsample(each, explainer.places, size))
        for method, each in explainer.maps(images, classes).items()
    }
