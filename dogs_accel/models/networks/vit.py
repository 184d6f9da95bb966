"""A Vision Transformer of any size, with the closed form of its parameters."""

from __future__ import annotations

from torch import nn
from torchvision.models import VisionTransformer

from dogs_accel.models.names import VitOptions

_TOKEN_STD = 0.02
"""Of the class token and of the positions at the start, as in Dosovitskiy et al. and in timm."""


def create_vit(options: VitOptions, num_classes: int, image_size: int) -> VisionTransformer:
    """Build torchvision's Vision Transformer, whose norms come before attention and MLP, with random weights.

    Definition: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021. Raises ValueError where patches do not
    divide the image.
    """
    if image_size % options.patch:
        raise ValueError(f"patches of {options.patch} px do not divide it")
    model = VisionTransformer(
        image_size=image_size,
        patch_size=options.patch,
        num_layers=options.depth,
        num_heads=options.heads,
        hidden_dim=options.dim,
        mlp_dim=options.mlp * options.dim,
        dropout=options.dropout,
        attention_dropout=options.dropout,
        num_classes=num_classes,
    )
    for parameter in (model.class_token, model.encoder.pos_embedding):  # torchvision starts the class token at zero
        nn.init.normal_(parameter, std=_TOKEN_STD)
    return model


def vit_params(options: VitOptions, num_classes: int, image_size: int, channels: int = 3) -> int:
    """Count the parameters of `create_vit`'s model in closed form.

    With p px a patch, n patches, width d, depth L and an MLP of r d: p^2 c d + d of the patches, d of the class token,
    (n + 1) d of the positions, in each layer 3 d^2 + 3 d + d^2 + d of attention, 2 r d^2 + r d + d of the MLP and 4 d
    of its norms; then 2 d of the last norm and d C + C of the head. Raises ValueError where patches do not divide the
    image.
    """
    p, d = options.patch, options.dim
    if image_size % p:
        raise ValueError(f"image_size: got {image_size}, expected a multiple of patch={p}")
    num_patches = (image_size // p) ** 2
    attention = 4 * d * d + 4 * d
    mlp = 2 * options.mlp * d * d + options.mlp * d + d
    layer = attention + mlp + 4 * d
    return (
        (p * p * channels * d + d) + d + (num_patches + 1) * d + options.depth * layer + 2 * d + (d + 1) * num_classes
    )
