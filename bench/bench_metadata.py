"""The metadata pass over files against the published loop, and against decoding alone."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import rgb_to_hsv
from PIL import Image

from dogs_accel.datasets import Dataset, DatasetFacts
from dogs_accel.eda.metadata import metadata_table
from dogs_accel.eda.scan import scan_images
from dogs_accel.ops import IMAGE_STATS
from dogs_accel.runtime.timing import interleaved
from pipelines.cores import available_cores
from pipelines.decoding.files import decode_files


def published_row(path):
    """One turn of the published loop: PIL, NumPy in float32, matplotlib."""
    image = Image.open(path).convert("RGB")
    rgb = np.asarray(image, dtype=np.float32) / 255.0
    grey = np.asarray(image.convert("L"), dtype=np.float32) / 255.0
    hsv = rgb_to_hsv(rgb)
    values = [grey.mean(), grey.std(), hsv[..., 1].mean(), *(rgb[..., channel].mean() for channel in range(3))]
    return dict(zip(IMAGE_STATS, map(float, values), strict=True))


def as_dataset(paths):
    """The files as a dataset of one class."""
    return Dataset(
        facts=DatasetFacts(name="photos", title="photos", layout="files"),
        root=Path(paths[0]).parent,
        image_root=Path("/"),
        ids=[str(i) for i in range(len(paths))],
        paths=[str(path) for path in paths],
        labels=np.zeros(len(paths), dtype=np.int64),
        class_names=["photo"],
        folder_names=["photo"],
        official_split=["official_train"] * len(paths),
    )


def test_metadata(bench, photos):
    data = as_dataset(photos)
    candidates = {
        "published: PIL, NumPy, matplotlib": lambda: pd.DataFrame(map(published_row, photos)),
        "dogs_accel": lambda: metadata_table(data, scan_images(data, progress=False)),
        "ceiling: decode_files alone": lambda: [len(files) for files in decode_files(photos)],
        "ceiling: read and checksum": lambda: [hashlib.sha256(Path(path).read_bytes()).digest() for path in photos],
    }
    published, ours = (candidates[name]()[list(IMAGE_STATS)] for name in list(candidates)[:2])
    difference = float(np.abs(published.to_numpy() - ours.to_numpy()).max())
    assert difference < 1e-3
    timings = interleaved(candidates, bench.rounds)
    sizes = [Image.open(path).size for path in photos]
    mean_px, mean_kb = np.mean(np.prod(sizes, axis=1)), np.mean([Path(path).stat().st_size for path in photos]) / 1e3
    title = f"Metadata of {len(photos)} photos (mean {mean_px:,.0f} px, {mean_kb:.0f} kB), {available_cores()} threads"
    bench.report(
        "metadata", title, timings, "published: PIL, NumPy, matplotlib", len(photos), "img", difference=difference
    )
