"""The same picture more than once: by content, and by a perceptual hash that survives resizing and recompression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional as F

NEAR_DISTANCE = 6
"""Bits of 64 up to which two perceptual hashes are those of one picture."""
_THUMBNAIL_PX = 32
_LOW_FREQUENCIES = 8
_ENOUGH_ROWS = 128
_GREY = torch.tensor([0.299, 0.587, 0.114])
_BLOCK = 2048


def perceptual_hash(images: Sequence[Tensor]) -> NDArray[np.uint64]:
    """Hash what pictures look like: (N,) uint64 of N uint8 RGB images (H, W, 3) on the CPU, which may differ in size.

    Each is scaled to a grey 32 x 32; of the 8 x 8 lowest frequencies of its cosine transform a bit says which are above
    their median. Definition: pHash, Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010,
    as the ImageHash package has it but for the filter of the scaling.
    """
    if not images:
        return np.zeros(0, dtype=np.uint64)
    grey = torch.stack([_thumbnail(image) for image in images]).numpy()
    low = dct(dct(grey, axis=1)[:, :_LOW_FREQUENCIES], axis=2)[:, :, :_LOW_FREQUENCIES].reshape(len(images), -1)
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def _thumbnail(image: Tensor) -> Tensor:
    # Of a tall image every so many rows do: the time is in the rows, and a thumbnail's row still is the mean of four.
    pixels = image[:: max(1, len(image) // _ENOUGH_ROWS)].permute(2, 0, 1)[None]
    small = F.interpolate(pixels, (_THUMBNAIL_PX, _THUMBNAIL_PX), mode="bilinear", antialias=True)[0]
    return torch.tensordot(_GREY, small.float(), dims=1)


def hash_distance(hashes: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Count the bits (N, M) int64 in which N hashes differ from M others."""
    signs, other_signs = _signs(hashes), _signs(others)
    return (64 - np.rint(signs @ other_signs.T).astype(np.int64)) // 2


def _signs(hashes: NDArray[np.uint64]) -> NDArray[np.float32]:
    bits = np.unpackbits(hashes[:, None].view(np.uint8), axis=1)
    return bits.astype(np.float32) * 2 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class DuplicateGroup:
    """Pictures that are the same one."""

    members: list[int]
    """Their positions, ascending; two or more."""
    is_exact: list[bool]
    """For each, whether another of the group has the very same content."""
    distance: list[int]
    """For each, bits of 64 in which its perceptual hash differs from that of the first."""


def find_duplicates(
    digests: Sequence[str], hashes: NDArray[np.uint64], near_distance: int = NEAR_DISTANCE
) -> list[DuplicateGroup]:
    """Group what is the same picture: of equal digest, or with hashes that differ in up to `near_distance` bits.

    digests: N checksums of content; hashes: (N,) uint64. A group holds whatever a chain of such pairs connects; groups
    are in the order of their first members. Hashes are compared all with all, in blocks. Raises ValueError for a
    distance outside 0 to 64.
    """
    if not 0 <= near_distance <= 64:
        raise ValueError(f"near_distance: got {near_distance}, expected 0 <= near_distance <= 64")
    if not digests:
        return []
    _, content = np.unique(np.asarray(digests), return_inverse=True)
    copies = np.bincount(content)[content]
    # One edge for each is enough where many are equal; their pairs may be too many to list.
    first_of_content, first_of_hash = _first_of_each(content), _first_of_each(np.unique(hashes, return_inverse=True)[1])
    each = np.arange(len(digests))
    representatives = np.flatnonzero(first_of_hash == each)
    near = _near_pairs(hashes[representatives], near_distance)
    edges = np.concatenate(
        [np.stack([each, first_of_content]), np.stack([each, first_of_hash]), representatives[near]], axis=1
    )
    graph = coo_array((np.ones(edges.shape[1], dtype=bool), tuple(edges)), shape=(len(each), len(each)))
    component = connected_components(graph, directed=False)[1]
    in_group = np.flatnonzero(np.bincount(component)[component] > 1)
    groups: dict[int, list[int]] = {}
    for index in in_group.tolist():
        groups.setdefault(int(component[index]), []).append(index)
    return [
        DuplicateGroup(
            members=members,
            is_exact=(copies[members] > 1).tolist(),
            distance=hash_distance(hashes[members[:1]], hashes[members])[0].tolist(),
        )
        for members in groups.values()
    ]


def _first_of_each(kind: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position of the first that is of the same kind as each of (N,)."""
    first = np.full(int(kind.max()) + 1, len(kind))
    np.minimum.at(first, kind, np.arange(len(kind)))
    return first[kind]


def _near_pairs(hashes: NDArray[np.uint64], near_distance: int) -> NDArray[np.int64]:
    """Pairs (2, P) of positions whose hashes differ in up to `near_distance` bits."""
    signs = _signs(hashes)
    pairs = [np.zeros((2, 0), dtype=np.int64)]
    for start in range(0, len(hashes), _BLOCK):
        agreement = signs[start : start + _BLOCK] @ signs[start:].T
        row, column = np.nonzero(agreement >= 64 - 2 * near_distance)
        pairs.append(np.stack([row, column])[:, row < column] + start)
    return np.concatenate(pairs, axis=1)
