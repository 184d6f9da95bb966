"""One pass over the files: what can be decoded, and the statistics and checksums of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dogs_accel import ops
from dogs_accel.datasets import Dataset
from dogs_accel.eda.duplicates import THUMBNAIL_PX, perceptual_hash, small_pictures, thumbnails
from pipelines.decoding.files import DecodedFile, decode_files
from pipelines.progress import progress_bar


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageScan:
    """What one pass over N files saw; the entries of a bad file are 0, NaN or empty."""

    size_px: NDArray[np.int64]
    """(N, 2): width, height."""
    stats: NDArray[np.float64]
    """(N, 6): `ops.IMAGE_STATS`."""
    sums: NDArray[np.int64]
    """(N, 10): `ops.IMAGE_SUMS`."""
    digests: list[str]
    """N times the sha256 of the content, in hex; empty of a file that cannot be read."""
    hashes: NDArray[np.uint64]
    """(N,): `perceptual_hash`."""
    thumbnails: NDArray[np.uint8]
    """(N, 16, 16, 3): `thumbnails`."""
    problems: Mapping[int, str]
    """Position and reason of each bad file."""

    @property
    def readable(self) -> NDArray[np.int64]:
        """Positions of the files that are not bad, ascending."""
        return np.setdiff1d(np.arange(len(self.digests)), list(self.problems))


TakeDecoded = Callable[[Sequence[DecodedFile]], object]
"""What is given the files of a pass as they are decoded."""


def scan_images(
    data: Dataset, *, num_threads: int | None = None, progress: bool = True, hand_on: TakeDecoded | None = None
) -> ImageScan:
    """Decode every file of a dataset once, in parallel, and measure it.

    num_threads None is one for each available core; progress shows a bar on stderr; hand_on gets every file too, so
    that nobody else has to decode it, as those who fill a store would.
    """
    num, num_seen = len(data), 0
    scan = ImageScan(
        size_px=np.zeros((num, 2), dtype=np.int64),
        stats=np.full((num, len(ops.IMAGE_STATS)), np.nan),
        sums=np.zeros((num, len(ops.IMAGE_SUMS)), dtype=np.int64),
        digests=[""] * num,
        hashes=np.zeros(num, dtype=np.uint64),
        thumbnails=np.zeros((num, THUMBNAIL_PX, THUMBNAIL_PX, 3), dtype=np.uint8),
        problems=(problems := {}),
    )
    bar = progress_bar(num, "checking and measuring images", shown=progress)
    with bar, _one_torch_thread():
        for files in decode_files(data.paths, num_threads=num_threads):
            if hand_on is not None:
                hand_on(files)
            _measure(files, scan)
            for file in files:
                scan.digests[file.index] = file.sha256 or ""
                if file.problem is not None:
                    problems[file.index] = file.problem
            num_seen += len(files)
            bar.update(len(files))
    assert num_seen == num, "a file was passed over"
    return scan


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Leave the cores to DALI: torch's threads, which spin while they wait, would take them from it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measure(files: Sequence[DecodedFile], scan: ImageScan) -> None:
    images = {file.index: file.image for file in files if file.image is not None}
    if not images:
        return
    index, pixels = list(images), list(images.values())
    scan.size_px[index] = [(image.shape[1], image.shape[0]) for image in pixels]
    sums = ops.image_sums(pixels)
    scan.sums[index], scan.stats[index] = sums.numpy(), ops.stats_of_sums(sums).numpy()
    small = small_pictures(pixels)
    scan.hashes[index], scan.thumbnails[index] = perceptual_hash(small), thumbnails(small)
