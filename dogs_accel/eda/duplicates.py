"""Pictures that come more than once: by content, and by their looks, which survive resizing and recompression.

Two pictures look alike where their perceptual hashes are near and so are the pixels of their thumbnails. The hash alone
sees the coarse pattern of grey, which different pictures of one layout share, such as products on white, scans and
icons. How near pixels must be follows from how much pictures of the dataset differ: those of one layout differ little,
while copies of a photo may be brighter or cut a little differently. In a group every pair is near (complete linkage),
since a chain of near pairs may lead far away. Mirrored, rotated and cropped copies are not looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dct
from torch import Tensor
from torch.nn import functional as F

NEAR_DISTANCE = 6
"""Bits of 64 up to which two perceptual hashes are those of one picture."""
MIN_CONTRAST = 0.02
"""Standard deviation of grey, 0 to 1, below which a picture is of one colour, and its hash of noise."""
_NEAR_SHARE, _COLOUR_SHARE = 0.5, 0.35
"""Of the typical difference of two thumbnails, up to which they are near; of that, up to which their colours are."""
_NEAR_LEVELS = (6.0, 40.0)
"""Least and most of what is near, in levels of 255. Chosen on 5,128 photos, where all 52 pairs of near hashes
are of one photo, of which the farthest differ by 39 levels and by 13 in their colours."""
_SAMPLE = 2000
THUMBNAIL_PX = 16
_SMALL_PX = 32
_LOW_FREQUENCIES = 8
_ENOUGH_ROWS = 128
_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_BLOCK = 256


def small_pictures(images: Sequence[Tensor]) -> NDArray[np.uint8]:
    """Scale pictures to (N, 32, 32, 3): N uint8 RGB images (H, W, 3) on the CPU, which may differ in size."""
    if not images:
        return np.zeros((0, _SMALL_PX, _SMALL_PX, 3), dtype=np.uint8)
    small: NDArray[np.uint8] = torch.cat([_scaled(image) for image in images]).permute(0, 2, 3, 1).numpy()
    return small


def _scaled(image: Tensor) -> Tensor:
    # Of a tall image every so many rows do: the time is in the rows, and a row of the result is the mean of four.
    pixels = image[:: max(1, len(image) // _ENOUGH_ROWS)].permute(2, 0, 1)[None]
    return F.interpolate(pixels, (_SMALL_PX, _SMALL_PX), mode="bilinear", antialias=True)


def perceptual_hash(small: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Hash what pictures look like: (N,) uint64 of N `small_pictures`.

    Of the 8 x 8 lowest frequencies of the cosine transform of their grey a bit says which are above their median.
    Definition: pHash, Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, as the
    ImageHash package has it but for the filter of the scaling.
    """
    if not len(small):
        return np.zeros(0, dtype=np.uint64)
    grey = small.astype(np.float32) @ _GREY
    low = dct(dct(grey, axis=1)[:, :_LOW_FREQUENCIES], axis=2)[:, :, :_LOW_FREQUENCIES].reshape(len(small), -1)
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def thumbnails(small: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Halve N `small_pictures`: (N, 16, 16, 3)."""
    blocks = small.reshape(len(small), THUMBNAIL_PX, 2, THUMBNAIL_PX, 2, 3)
    halved: NDArray[np.uint8] = np.rint(blocks.mean(axis=(2, 4))).astype(np.uint8)
    return halved


def near_levels(thumbnails: NDArray[np.uint8]) -> float:
    """Return the root mean square difference, in levels of 255, up to which thumbnails (N, 16, 16, 3) are near.

    Half of the median difference of two pictures, of a few pairs of each of a sample, within 6 and 40.
    """
    sample = thumbnails[np.linspace(0, len(thumbnails) - 1, min(len(thumbnails), _SAMPLE)).astype(np.int64)]
    pixels = sample.reshape(len(sample), 3 * THUMBNAIL_PX**2).astype(np.float32)
    apart = {len(sample) // part for part in (2, 3, 5, 7)} - {0}
    differences = [np.sqrt(((pixels - np.roll(pixels, by, axis=0)) ** 2).mean(axis=1)) for by in apart]
    return float(np.clip(_NEAR_SHARE * np.median(differences), *_NEAR_LEVELS)) if differences else _NEAR_LEVELS[0]


def hash_distance(hashes: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Count the bits (N, M) int64 in which N hashes differ from M others."""
    signs, other_signs = _signs(hashes), _signs(others)
    return (64 - np.rint(signs @ other_signs.T).astype(np.int64)) // 2


def _signs(hashes: NDArray[np.uint64]) -> NDArray[np.float32]:
    bits = np.unpackbits(hashes[:, None].view(np.uint8), axis=1)
    return bits.astype(np.float32) * 2 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class DuplicateGroup:
    """Files of the same content, or pictures that are alike by their looks."""

    members: list[int]
    """Their positions, ascending; two or more."""
    is_exact: list[bool]
    """For each, whether another of the group has the very same content."""
    distance: list[int]
    """For each, bits of 64 in which its perceptual hash differs from that of the first."""


def find_duplicates(
    digests: Sequence[str],
    hashes: NDArray[np.uint64],
    thumbnails: NDArray[np.uint8],
    has_contrast: NDArray[np.bool_],
    near_distance: int = NEAR_DISTANCE,
) -> list[DuplicateGroup]:
    """Group files of equal digest, and pictures that are near: by their hashes and by their thumbnails.

    digests: N checksums of content; hashes: (N,) uint64, near up to `near_distance` bits; thumbnails: (N, 16, 16, 3),
    near up to `near_levels`, and up to 0.35 of it in what is left of them without their grey; has_contrast: (N,), false
    where a picture is of one colour, whose hash says nothing. Of a group every two are near or of equal digest. A
    picture begins a group where it is in none yet, and takes in what is left and near all of the group: first what is
    near by half, of which every two are near, then the others in their order. Groups are in the order of their first
    members. Raises ValueError for a distance outside 0 to 64.
    """
    if not 0 <= near_distance <= 64:
        raise ValueError(f"near_distance: got {near_distance}, expected 0 <= near_distance <= 64")
    if not digests:
        return []
    _, first, content = np.unique(np.asarray(digests), return_index=True, return_inverse=True)
    copies = np.bincount(content)[content]
    # A file stands for all of its content, and a content for all of the same looks.
    telling = np.sort(first[has_contrast[first]])
    looks = _Looks(hashes[telling], thumbnails[telling], near_distance)
    group_of_content = np.arange(len(first)) + len(digests)
    group_of_content[content[telling]] = looks.groups()
    group_of_file = group_of_content[content]
    groups: dict[int, list[int]] = {}
    for index, group in enumerate(group_of_file.tolist()):
        groups.setdefault(group, []).append(index)
    return [
        DuplicateGroup(
            members=members,
            is_exact=(copies[members] > 1).tolist(),
            distance=hash_distance(hashes[members[:1]], hashes[members])[0].tolist(),
        )
        for members in groups.values()
        if len(members) > 1
    ]


class _Looks:
    """The hashes and thumbnails of N pictures, and which of them are near."""

    def __init__(self, hashes: NDArray[np.uint64], thumbnails: NDArray[np.uint8], near_distance: int) -> None:
        self.near_distance = near_distance
        self.hashes, self.signs = hashes, _signs(hashes)
        self.thumbnails = thumbnails.reshape(len(thumbnails), 3 * THUMBNAIL_PX**2)
        self.near_levels = near_levels(thumbnails)

    def groups(self) -> NDArray[np.int64]:
        """Number the group (N,) of each picture."""
        looks = np.concatenate([self.hashes[:, None].view(np.uint8), self.thumbnails], axis=1)
        _, first, same = np.unique(looks, axis=0, return_index=True, return_inverse=True)
        group = np.full(len(looks), -1)
        order = np.sort(first)
        for start in range(0, len(order), _BLOCK):
            # All with all, in blocks: few have a near hash, and only those are looked at.
            block = order[start : start + _BLOCK]
            later = order[start:]
            is_near = self.signs[block] @ self.signs[later].T >= 64 - 2 * self.near_distance
            has_near = np.count_nonzero(is_near, axis=1) > 1
            for row, leader in enumerate(block.tolist()):
                if group[leader] < 0:
                    candidates = later[is_near[row] & (group[later] < 0)] if has_near[row] else later[:0]
                    group[self._group_of(leader, candidates[candidates > leader])] = leader
        by_looks: NDArray[np.int64] = group[first][same.ravel()]
        return by_looks

    def _group_of(self, leader: int, candidates: NDArray[np.int64]) -> NDArray[np.int64]:
        """Choose those of the candidates (M,) that are near the leader and each other, the leader with them."""
        if not len(candidates):
            return np.array([leader])
        alone = np.array([leader])
        candidates = candidates[self._are_near(alone, candidates)[0]]
        is_close = self._are_near(alone, candidates, share=0.5)[0]
        members, left = np.append(leader, candidates[is_close]), candidates[~is_close]
        for start in range(0, len(members), _BLOCK):
            left = left[self._are_near(members[start : start + _BLOCK], left).all(axis=0)]
        taken = [members]
        while len(left):
            block, left = left[:_BLOCK], left[_BLOCK:]
            is_near, is_left = self._are_near(block, block), np.ones(len(block), dtype=bool)
            for row in range(len(block)):
                if is_left[row]:
                    is_left &= is_near[row]
            taken.append(block[is_left])
            left = left[self._are_near(taken[-1], left).all(axis=0)]
        return np.concatenate(taken)

    def _are_near(self, rows: NDArray[np.int64], columns: NDArray[np.int64], share: float = 1.0) -> NDArray[np.bool_]:
        """Say which pictures (R, M) are near, or within a share of what is near."""
        by_hash = self.signs[rows] @ self.signs[columns].T >= 64 - 2 * share * self.near_distance
        one, other = (self.thumbnails[each].astype(np.float32) for each in (rows, columns))
        by_pixels = _difference(one, other) <= share * self.near_levels
        by_colour = _difference(_colours(one), _colours(other)) <= share * _COLOUR_SHARE * self.near_levels
        near: NDArray[np.bool_] = by_hash & by_pixels & by_colour
        return near


def _difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Root mean square difference (N, M) of each of N vectors (N, P) from each of M others."""
    squared = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    difference: NDArray[np.float32] = np.sqrt(np.maximum(squared, 0) / one.shape[1])
    return difference


def _colours(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take from each pixel of thumbnails (N, 768) the mean of its channels."""
    channels = pixels.reshape(len(pixels), THUMBNAIL_PX**2, 3)
    return (channels - channels.mean(axis=2, keepdims=True)).reshape(pixels.shape)
