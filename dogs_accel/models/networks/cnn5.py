"""A plain CNN of five blocks, with the closed forms of its parameters and of its operations."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from dogs_accel.models.names import NUM_BLOCKS, Cnn5Options

_LEAST_SIZE_PX = 2**NUM_BLOCKS
"""Each block halves the map."""
_ACTIVATION: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "mish": nn.Mish, "leaky_relu": nn.LeakyReLU
}  # fmt: skip


class Cnn5(nn.Module):
    """Five times a convolution, BatchNorm or not, an activation and a 2 x 2 max-pooling; then two dense layers.

    Images (B, 3, S, S) -> logits (B, num_classes). Nothing but dropout stands between the two dense layers unless
    `dense_activation` names something, so that without it they are one linear map of a limited rank.
    """

    def __init__(self, options: Cnn5Options, num_classes: int, image_size: int, channels: int = 3) -> None:
        super().__init__()
        _check_size(image_size)
        layers: list[nn.Module] = []
        for filters, kernel in zip(options.block_filters, options.block_kernels, strict=True):
            layers.append(_block(channels, filters, kernel, options))
            channels = filters
        self.blocks = nn.Sequential(*layers)
        self.flatten = nn.Flatten()
        self.dense = nn.Linear(_last_side(image_size) ** 2 * channels, options.dense)
        self.dense_activation = _activation(options.dense_activation)
        self.classifier = nn.Sequential(nn.Dropout(options.dropout), nn.Linear(options.dense, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits."""
        return self.classifier(self.dense_activation(self.dense(self.flatten(self.blocks(images)))))


def _check_size(image_size: int) -> None:
    if image_size < _LEAST_SIZE_PX:
        raise ValueError(f"five poolings leave nothing of it, expected {_LEAST_SIZE_PX} px or more")


def _last_side(image_size: int) -> int:
    return image_size // _LEAST_SIZE_PX


def _activation(name: str) -> nn.Module:
    return nn.Identity() if name == "none" else _ACTIVATION[name]()


def _block(channels: int, filters: int, kernel: int, options: Cnn5Options) -> nn.Sequential:
    convolution = nn.Conv2d(channels, filters, kernel, padding=kernel // 2)
    norm = nn.BatchNorm2d(filters) if options.norm == "batch" else nn.Identity()
    return nn.Sequential(convolution, norm, _activation(options.activation), nn.MaxPool2d(2))


def cnn5_params(options: Cnn5Options, num_classes: int, image_size: int, channels: int = 3) -> int:
    """Count the parameters of a `Cnn5` in closed form.

    With m_i filters of side k_i in block i (m_0 channels), D = floor(S / 32) and a dense layer of n:
    sum of m_i (k_i^2 m_{i-1} + 1), + (D^2 m_5 + 1) n + C (n + 1), and 2 sum of m_i for BatchNorm. Raises ValueError for
    an image size below 32 px.
    """
    _check_size(image_size)
    total, last = 0, channels
    for before, filters, kernel, _ in _blocks(options, image_size, channels):
        total += filters * (kernel**2 * before + 1) + 2 * filters * (options.norm == "batch")
        last = filters
    return total + (_last_side(image_size) ** 2 * last + 1) * options.dense + num_classes * (options.dense + 1)


def cnn5_flops(options: Cnn5Options, num_classes: int, image_size: int, channels: int = 3) -> int:
    """Count the operations of one image's forward pass through a `Cnn5` in closed form, two a multiply-accumulate.

    With W_i the side of the map behind block i (W_0 = S, each the floor of half of the one before) and the letters of
    `cnn5_params`: 2 sum of k_i^2 W_{i-1}^2 m_{i-1} m_i, + 2 D^2 m_5 n + 2 n C. Biases, norms, activations and poolings
    are left out. Raises ValueError for an image size below 32 px.
    """
    _check_size(image_size)
    total, last = 0, channels
    for before, filters, kernel, side in _blocks(options, image_size, channels):
        total += 2 * kernel**2 * side**2 * before * filters
        last = filters
    return total + 2 * _last_side(image_size) ** 2 * last * options.dense + 2 * options.dense * num_classes


def _blocks(options: Cnn5Options, image_size: int, channels: int) -> Iterator[tuple[int, int, int, int]]:
    """Give channels, filters, kernel and side of the map of each block's convolution."""
    side = image_size
    for filters, kernel in zip(options.block_filters, options.block_kernels, strict=True):
        yield channels, filters, kernel, side
        channels, side = filters, side // 2
