"""ResNet-18 for small images."""

from __future__ import annotations

import torchvision
from torch import nn


def create_resnet18_cifar(num_classes: int) -> nn.Module:
    """Build torchvision's ResNet-18 with a first convolution of 3 x 3 at stride 1 and no max-pooling behind it.

    It keeps the whole 32 x 32 px of a CIFAR image until its second stage: 11,173,962 parameters at 10 classes.
    """
    model = torchvision.models.resnet18(num_classes=num_classes)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model
