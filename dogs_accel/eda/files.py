"""The files of the data: what the metadata pass leaves for others, its columns and how to read it, and the figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dogs_accel.datasets.facts import DATASET_FILE, DatasetFacts
from dogs_accel.datasets.layouts.stanford_dogs import stanford_dogs_facts
from dogs_accel.datasets.splits import OFFICIAL_PARTS, SPLITS
from dogs_accel.ops import IMAGE_STATS

METADATA_FILE = "metadata_with_quality.csv"
SPLIT_FILE = "split_metadata.csv"
NORMALISATION_FILE = "normalisation.json"
DUPLICATES_FILE = "duplicates.csv"
NOT_LOOKED_FOR = "Mirrored, rotated and cropped copies were not looked for"
BAD_IMAGES_FILE = "bad_images.csv"
BAD_ANNOTATIONS_FILE = "bad_annotations.csv"

# What is drawn and counted of them.
SPLIT_TABLE_FILE = "split_table.csv"
CLASS_TABLE_FILE = "class_table.csv"
QUALITY_SUMMARY_FILE = "quality_summary.csv"
QUALITY_FIGURE = "quality_distributions.png"
DISTRIBUTIONS_FIGURE = "dataset_distributions.png"
SIZES_FIGURE = "image_size_distribution.png"
CHANNELS_FIGURE = "rgb_channel_summary.png"
SAMPLES_FIGURE = "random_class_samples.png"
DARKEST_FIGURE, BRIGHTEST_FIGURE = "darkest_examples.png", "brightest_examples.png"
AUGMENTED_FIGURE = "augmented_batch_preview.png"


def quality_boxplots_file(noun: str) -> str:
    """Name the figure of quality by class after what the classes are called, as the published one is."""
    return f"{noun.replace(' ', '_')}_quality_boxplots.png"


IMAGE_COLUMNS = (
    "image_id", "image_path", "relative_path", "label", "class_name", "folder_name", "official_split",
    "width", "height", "aspect_ratio",
)  # fmt: skip
METADATA_COLUMNS = (*IMAGE_COLUMNS, *IMAGE_STATS)
"""The published columns in their order; the last six are in [0, 1]."""
SPLIT_COLUMNS = (*IMAGE_COLUMNS, "split")
_TEXT_COLUMNS = ("image_id", "image_path", "relative_path", "class_name", "folder_name", "official_split", "split")


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Two estimates of the colour of a dataset, RGB in [0, 1]."""

    train_mean: tuple[float, ...]
    train_std: tuple[float, ...]
    """Over the pixels of the training images, each counted once."""
    num_train_images: int
    num_train_pixels: int
    image_means: tuple[float, ...]
    """The published way: the unweighted mean of the images' means, over every split."""
    num_images: int

    def as_json(self) -> dict[str, Any]:
        """Lay out normalisation.json."""
        train = {"mean": self.train_mean, "std": self.train_std}
        return {
            "train_pixels": {**train, "num_images": self.num_train_images, "num_pixels": self.num_train_pixels},
            "image_means": {"mean": self.image_means, "num_images": self.num_images},
        }


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The metadata of a dataset: a row per readable image in both tables, `splits` in the order of the splits."""

    quality: pd.DataFrame
    splits: pd.DataFrame
    normalisation: Normalisation
    facts: DatasetFacts


def read_metadata(folder: Path) -> Metadata:
    """Read metadata_with_quality.csv, split_metadata.csv, normalisation.json and dataset.json.

    Raises FileNotFoundError where one is absent, and ValueError, naming file and column, where one lacks a column, has
    no images or holds what is not a number.
    """
    quality = _read_table(folder / METADATA_FILE, METADATA_COLUMNS)
    _check_values(METADATA_FILE, quality["official_split"], OFFICIAL_PARTS)
    splits = _read_table(folder / SPLIT_FILE, SPLIT_COLUMNS)
    _check_values(SPLIT_FILE, splits["split"], SPLITS)
    return Metadata(
        quality=quality,
        splits=splits,
        normalisation=_read_normalisation(folder / NORMALISATION_FILE),
        facts=_read_facts(folder / DATASET_FILE),
    )


def _read_facts(path: Path) -> DatasetFacts:
    try:
        return DatasetFacts.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:  # an older version wrote the tables, which knew Stanford Dogs alone
        return stanford_dogs_facts()
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        # As text without missing values, because a class may be called "NA" and an image "0042".
        table = pd.read_csv(path, dtype=dict.fromkeys(_TEXT_COLUMNS, str), keep_default_na=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not found; `dogs-accel metadata` writes it") from None
    except ValueError as error:  # pandas' parser errors and broken UTF-8
        raise ValueError(f"{path.name}: not a readable table ({' '.join(str(error).split())})") from error
    if missing := [name for name in columns if name not in table]:
        raise ValueError(f"{path.name}: missing the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    if table.empty:
        raise ValueError(f"{path.name}: got no images, expected at least 1")
    for name in columns:
        if name not in _TEXT_COLUMNS and not _is_finite(table[name]):
            raise ValueError(f"{path.name}: {name}: got values that are not finite numbers")
    return table


def _is_finite(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values) and bool(np.isfinite(values.to_numpy()).all())


def _check_values(file: str, values: pd.Series, known: Sequence[str]) -> None:
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{file}: {values.name}: got {unknown[0]!r}, expected one of {', '.join(known)}")


def _read_normalisation(path: Path) -> Normalisation:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Normalisation(
            train_mean=_rgb(content, "train_pixels.mean"),
            train_std=_rgb(content, "train_pixels.std"),
            num_train_images=int(_entry(content, "train_pixels.num_images")),
            num_train_pixels=int(_entry(content, "train_pixels.num_pixels")),
            image_means=_rgb(content, "image_means.mean"),
            num_images=int(_entry(content, "image_means.num_images")),
        )
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not found; `dogs-accel metadata` writes it") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def _entry(content: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        if not isinstance(content, dict) or key not in content:
            raise ValueError(f"missing {dotted}")
        content = content[key]
    return content


def _rgb(content: Any, dotted: str) -> tuple[float, ...]:
    values = _entry(content, dotted)
    if np.shape(values) != (3,) or not np.isfinite(values).all():
        raise ValueError(f"{dotted}: got {values}, expected 3 finite numbers (R, G, B)")
    return tuple(float(value) for value in values)
