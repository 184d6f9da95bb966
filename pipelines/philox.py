"""Counter-based random numbers: the value at (seed, epoch, sample, slot) needs no state and no order of calls."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MULTIPLIER = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox4x32(counter: NDArray[np.uint64], key: tuple[int, int], rounds: int = 10) -> NDArray[np.uint64]:
    """Philox-4x32, vectorised over counters.

    counter: (..., 4) uint64 and key: 2 integers, each word below 2**32. Returns (..., 4) uint64, words below
    2**32. Definition: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    x0, x1, x2, x3 = (counter[..., i] for i in range(4))
    k0, k1 = key
    for _ in range(rounds):
        product0, product1 = x0 * _MULTIPLIER[0], x2 * _MULTIPLIER[1]
        x0, x1, x2, x3 = (
            (product1 >> _SHIFT) ^ x1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _SHIFT) ^ x3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([x0, x1, x2, x3], axis=-1)


def words(seed: int, epoch: int, sample: NDArray[np.int64], num_words: int, stream: int) -> NDArray[np.uint64]:
    """32-bit random words for each sample, (N, num_words) uint64.

    stream separates uses that share (seed, epoch, sample), such as shuffling and augmentation.
    """
    num_blocks = -(-num_words // 4)
    counter = np.empty((len(sample), num_blocks, 4), dtype=np.uint64)
    counter[..., 0] = np.arange(num_blocks, dtype=np.uint64) | np.uint64(stream << 16)
    counter[..., 1] = (sample.astype(np.uint64) & _LOW)[:, None]
    counter[..., 2] = (sample.astype(np.uint64) >> _SHIFT)[:, None]
    counter[..., 3] = np.uint64(epoch & 0xFFFFFFFF)
    out = philox4x32(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    return out.reshape(len(sample), 4 * num_blocks)[:, :num_words]


def uniform(seed: int, epoch: int, sample: NDArray[np.int64], num: int, stream: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) with 32 random bits each, (N, num) float64."""
    return words(seed, epoch, sample, num, stream).astype(np.float64) * 2.0**-32
