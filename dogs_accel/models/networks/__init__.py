"""The networks that are built here, and not by torchvision or timm."""

from __future__ import annotations

from torch import nn

from dogs_accel.models.names import Cnn5Options, NetworkOptions, VitOptions
from dogs_accel.models.networks.cnn5 import Cnn5
from dogs_accel.models.networks.resnet_cifar import create_resnet18_cifar
from dogs_accel.models.networks.vit import create_vit


def create_network(options: NetworkOptions, num_classes: int, image_size: int) -> nn.Module:
    """Build a network of one of `NETWORKS` with random weights; raises ValueError for a size that it cannot have."""
    if isinstance(options, Cnn5Options):
        return Cnn5(options, num_classes, image_size)
    if isinstance(options, VitOptions):
        return create_vit(options, num_classes, image_size)
    return create_resnet18_cifar(num_classes)
