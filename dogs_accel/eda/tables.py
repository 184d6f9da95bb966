"""Tables of a dataset: the sizes of its classes and splits, and its quality."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dogs_accel.datasets.splits import OFFICIAL_TEST, OFFICIAL_TRAIN, OFFICIAL_VAL, SPLITS
from dogs_accel.ops import IMAGE_STATS
from dogs_accel.runtime.terminal import count_text

_CLASS_KEYS = ["label", "class_name", "folder_name"]


def class_sizes(quality: pd.DataFrame) -> pd.DataFrame:
    """Count the images per class, the largest first and equals by label: label, class_name, images, train, val, test.

    train, val and test are the official parts; an image of none of them is counted in images alone.
    """
    official = quality["official_split"].to_numpy()
    parts = {part.removeprefix("official_"): official == part for part in (OFFICIAL_TRAIN, OFFICIAL_VAL, OFFICIAL_TEST)}
    classes = quality[["label", "class_name"]].assign(**parts).groupby("label")
    table = classes.agg({"class_name": "first"}).assign(images=classes.size()).join(classes[list(parts)].sum())
    return table.reset_index().sort_values(["images", "label"], ascending=[False, True], ignore_index=True)


def split_table(splits: pd.DataFrame) -> pd.DataFrame:
    """Count images and classes of train, val, test and all: how many per class, and their share of the images.

    Counts per class are over every class with a readable image: one that is absent from a split has 0 there.
    """
    counts = _counts_per_class(splits)
    counts["all"] = counts.sum(axis=1)
    return pd.DataFrame(
        {
            "split": name,
            "images": int(count.sum()),
            "classes": int((count > 0).sum()),
            "min_per_class": int(count.min()),
            "median_per_class": float(count.median()),
            "max_per_class": int(count.max()),
            "share": count.sum() / len(splits),
        }
        for name, count in counts.items()
    )


def _counts_per_class(splits: pd.DataFrame) -> pd.DataFrame:
    counts = pd.crosstab(splits["label"], splits["split"])
    return counts.reindex(columns=list(SPLITS), fill_value=0)


def class_table(quality: pd.DataFrame, splits: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the classes by label: their images, how many are in each split, and the means of their images."""
    classes = pd.concat([quality[_CLASS_KEYS], splits[_CLASS_KEYS]]).drop_duplicates("label").set_index("label")
    measured = ["width", "height", "brightness_mean", "contrast_std", "saturation_mean"]
    by_label = quality.groupby("label")
    means = by_label[measured].mean().set_axis([f"mean_{name.split('_')[0]}" for name in measured], axis=1)
    table = classes.join([by_label.size().rename("images"), _counts_per_class(splits)])
    counts = ["images", *SPLITS]
    table[counts] = table[counts].fillna(0).astype(np.int64)
    return table.join(means).sort_index().reset_index()


def quality_summary(quality: pd.DataFrame) -> pd.DataFrame:
    """Summarise the measured columns over the images: mean, population standard deviation, extremes and quantiles."""
    values = quality[["width", "height", "aspect_ratio", *IMAGE_STATS]].astype(np.float64)
    table = pd.DataFrame(
        {
            "mean": values.mean(),
            "std": values.std(ddof=0),
            "min": values.min(),
            "p5": values.quantile(0.05),
            "median": values.median(),
            "p95": values.quantile(0.95),
            "max": values.max(),
        }
    )
    return table.rename_axis("column").reset_index()


def size_range(sizes: pd.DataFrame, noun: str) -> str:
    """Say how many images a class has, from the table of `class_sizes`."""
    least, most = sizes["images"].min(), sizes["images"].max()
    if least == most:
        return f"{count_text(least, 'image')} a {noun}"
    return f"{least:,} to {most:,} images a {noun}, median {sizes['images'].median():g}"
