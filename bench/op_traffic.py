"""What an operator has to read and to write at least, which no kernel can do faster than memory."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from dogs_accel.ops import AUGMENT_PARAMS

_HEIGHT, _WIDTH = AUGMENT_PARAMS.index("crop_height"), AUGMENT_PARAMS.index("crop_width")


def num_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors, each of which is read or written once from its beginning to its end."""
    return sum(tensor.nbytes for tensor in tensors)


def augment_bytes(index: Tensor, params: Tensor, batch: Tensor) -> int:
    """Bytes of one call of `augment`: of each stored image the crop, its index and parameters, and the batch."""
    crops_px = int((params[:, _HEIGHT] * params[:, _WIDTH]).sum().item())
    return 3 * crops_px + num_bytes([index, params, batch])
