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
MIN_CONTRAST = 0.02
"""Standard deviation of grey, 0 to 1, below which a picture is of one colour, and its hash of noise."""
_THUMBNAIL_PX = 32
_LOW_FREQUENCIES = 8
_ENOUGH_ROWS = 128
_GREY = torch.tensor([0.299, 0.587, 0.114])
_BLOCK = 256


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
    digests: Sequence[str],
    hashes: NDArray[np.uint64],
    has_contrast: NDArray[np.bool_],
    near_distance: int = NEAR_DISTANCE,
) -> list[DuplicateGroup]:
    """Group what is the same picture: of equal digest, or with hashes that differ in up to `near_distance` bits.

    digests: N checksums of content; hashes: (N,) uint64; has_contrast: (N,), false where a picture is of one colour,
    whose hash says nothing. A group holds whatever a chain of such pairs connects; groups are in the order of their
    first members. Hashes are compared all with all, in blocks. Raises ValueError for a distance outside 0 to 64.
    """
    if not 0 <= near_distance <= 64:
        raise ValueError(f"near_distance: got {near_distance}, expected 0 <= near_distance <= 64")
    if not digests:
        return []
    _, content = np.unique(np.asarray(digests), return_inverse=True)
    copies = np.bincount(content)[content]
    telling = np.flatnonzero(has_contrast)
    values, value_of = np.unique(hashes[telling], return_inverse=True)
    # Files are nodes, and so are contents and groups of near hashes, so that a file needs two edges at most.
    of_content = np.stack([np.arange(len(digests)), len(digests) + content])
    of_hash = np.stack([telling, 2 * len(digests) + _near_groups(values, near_distance)[value_of]])
    component = _components(np.concatenate([of_content, of_hash], axis=1), 3 * len(digests))[: len(digests)]
    groups: dict[int, list[int]] = {}
    for index in np.flatnonzero(np.bincount(component)[component] > 1).tolist():
        groups.setdefault(int(component[index]), []).append(index)
    return [
        DuplicateGroup(
            members=members,
            is_exact=(copies[members] > 1).tolist(),
            distance=hash_distance(hashes[members[:1]], hashes[members])[0].tolist(),
        )
        for members in groups.values()
    ]


def _components(edges: NDArray[np.int64], num_nodes: int) -> NDArray[np.int64]:
    """Number the component (num_nodes,) of each node of a graph of edges (2, E)."""
    graph = coo_array((np.ones(edges.shape[1], dtype=bool), tuple(edges)), shape=(num_nodes, num_nodes))
    components: NDArray[np.int64] = connected_components(graph, directed=False)[1]
    return components


def _near_groups(hashes: NDArray[np.uint64], near_distance: int) -> NDArray[np.int64]:
    """Number the group (N,) of each hash: those that a chain of near pairs connects are in one."""
    signs = _signs(hashes)
    group = np.arange(len(hashes))
    for start in range(0, len(hashes), _BLOCK):
        block = slice(start, start + _BLOCK)
        is_near = signs[block] @ signs[start:].T >= 64 - 2 * near_distance
        # Pairs of one group already add nothing, and of near pictures there may be too many to list.
        row, column = np.nonzero(is_near & (group[block, None] != group[start:]))
        if len(row):
            group = _components(np.stack([group[start + row], group[start + column]]), len(hashes))[group]
    return group
