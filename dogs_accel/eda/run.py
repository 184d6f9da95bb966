"""Exploratory figures and tables of a dataset; all but the galleries need only its metadata files."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from dogs_accel.datasets import DatasetFacts, published_about
from dogs_accel.eda.figures import (
    class_quality_figure,
    dataset_distributions_figure,
    image_size_figure,
    quality_distributions_figure,
    rgb_channel_figure,
)
from dogs_accel.eda.files import (
    AUGMENTED_FIGURE,
    BRIGHTEST_FIGURE,
    CHANNELS_FIGURE,
    CLASS_TABLE_FILE,
    DARKEST_FIGURE,
    DISTRIBUTIONS_FIGURE,
    METADATA_FILE,
    NORMALISATION_FILE,
    QUALITY_FIGURE,
    QUALITY_SUMMARY_FILE,
    SAMPLES_FIGURE,
    SIZES_FIGURE,
    SPLIT_FILE,
    SPLIT_TABLE_FILE,
    Metadata,
    quality_boxplots_file,
)  # fmt: skip
from dogs_accel.eda.galleries import (
    NUM_AUGMENTED,
    augmented_batch_figure,
    brightness_extremes,
    photos_figure,
    random_class_samples,
)
from dogs_accel.eda.tables import class_sizes, class_table, quality_summary, size_range, split_table
from dogs_accel.ops import IMAGE_STATS
from dogs_accel.plots import save_figure, shortened
from dogs_accel.runtime.files import write_csv
from dogs_accel.runtime.terminal import count_text
from dogs_accel.steps import Step, any_failure_ends
from pipelines import RESNET_TRAIN, BadImageError, Recipe
from pipelines.decoding.pil import decode_rgb
from pipelines.recipe import IMAGENET_MEAN, IMAGENET_STD
from pipelines.torchloader import augment_images, resize_image


def write_eda(
    data: Metadata, out: Path, *, seed: int = 42, recipe: Recipe = RESNET_TRAIN, step: Step = any_failure_ends
) -> list[Path]:
    """Write the tables and figures of a dataset to `out`, and return their paths.

    The seed chooses the random samples and the augmentation of augmented_batch_preview.png, which shows `recipe` on the
    first 8 training images that can be read, and is left out where there are none. step: the block of each of them, by
    the name of the folder and its own.
    """
    written: list[Path] = []
    for name, write in (_tables(data) | _figures(data, seed)).items():
        with step(f"{out.name}/{name}"):
            written.append(write(out / name))
    with step(f"{out.name}/{AUGMENTED_FIGURE}"):
        written += _write_augmented_batch(data, out, seed, recipe)
    return written


def _tables(data: Metadata) -> dict[str, Callable[[Path], Path]]:
    """Give what writes each table to a path."""

    def table(make: Callable[[], pd.DataFrame]) -> Callable[[Path], Path]:
        return lambda path: write_csv(path, make())

    return {
        SPLIT_TABLE_FILE: table(lambda: split_table(data.splits)),
        CLASS_TABLE_FILE: table(lambda: class_table(data.quality, data.splits)),
        QUALITY_SUMMARY_FILE: table(lambda: quality_summary(data.quality)),
    }


def _figures(data: Metadata, seed: int) -> dict[str, Callable[[Path], Path]]:
    """Give what draws each figure to a path."""

    def figure(make: Callable[[], Figure]) -> Callable[[Path], Path]:
        return lambda path: save_figure(make(), path)

    quality, facts = data.quality, data.facts
    return {
        QUALITY_FIGURE: figure(lambda: quality_distributions_figure(quality)),
        DISTRIBUTIONS_FIGURE: figure(lambda: dataset_distributions_figure(quality, facts)),
        SIZES_FIGURE: figure(lambda: image_size_figure(quality)),
        CHANNELS_FIGURE: figure(lambda: rgb_channel_figure(quality, data.normalisation)),
        SAMPLES_FIGURE: figure(lambda: _samples_figure(quality, facts, seed)),
        DARKEST_FIGURE: figure(lambda: _extremes_figure(quality, darkest=True)),
        BRIGHTEST_FIGURE: figure(lambda: _extremes_figure(quality, darkest=False)),
        quality_boxplots_file(facts.noun): figure(lambda: class_quality_figure(quality, facts)),
    }


def _samples_figure(quality: pd.DataFrame, facts: DatasetFacts, seed: int) -> Figure:
    rows = random_class_samples(quality, seed=seed)
    num, total = len(rows), quality["label"].nunique()
    which = f"{num} of {facts.count(total)}, seed {seed}" if num < total else facts.count(total)
    return photos_figure(rows, [shortened(name, 30) for name in rows["class_name"]], f"One image of each of {which}")


def _extremes_figure(quality: pd.DataFrame, *, darkest: bool) -> Figure:
    rows = brightness_extremes(quality, darkest=darkest)
    captions = [
        f"{shortened(name, 30)}\n{value:.3f}"
        for name, value in zip(rows["class_name"], rows["brightness_mean"], strict=True)
    ]
    which = "darkest" if darkest else "brightest"
    return photos_figure(
        rows, captions, f"The {len(rows)} {which} of {count_text(len(quality), 'image')}, by mean grey"
    )


def _write_augmented_batch(data: Metadata, out: Path, seed: int, recipe: Recipe) -> list[Path]:
    train = data.splits[data.splits["split"] == "train"]
    read = ((row.class_name, _resized(row.image_path, recipe)) for row in train.itertuples())
    shown = list(itertools.islice(((name, image) for name, image in read if image is not None), NUM_AUGMENTED))
    path = out / AUGMENTED_FIGURE
    if not shown:
        path.unlink(missing_ok=True)  # that of an earlier call would be taken for one of this
        return []
    names, resized = zip(*shown, strict=True)
    images = augment_images(resized, recipe, seed=seed, epoch=0, index=np.arange(len(resized)))
    return [save_figure(augmented_batch_figure(images, recipe, names), path)]


def _resized(path: str, recipe: Recipe) -> Image.Image | None:
    """Read a photo as the reference loader does; None where it cannot be read."""
    try:
        return resize_image(decode_rgb(path), recipe)
    except BadImageError:
        return None


def describe_eda(data: Metadata) -> str:
    """Describe the splits, the sizes of the classes, the means and the normalisation, for people."""
    sizes = class_sizes(data.quality)
    lines = [
        _split_lines(data.splits, data.facts),
        f"{data.facts.count(len(sizes))}, {size_range(sizes, data.facts.noun)}",
        *_mean_lines(data.quality),
        "",
        *_normalisation_lines(data),
    ]
    if len(data.quality) != len(data.splits):
        lines.append(f"{METADATA_FILE} has {len(data.quality):,} images, {SPLIT_FILE} {len(data.splits):,}")
    num_train = int((data.splits["split"] == "train").sum())
    if num_train != data.normalisation.num_train_images:
        lines.append(
            f"{SPLIT_FILE} has {num_train:,} training images, {NORMALISATION_FILE} is of "
            f"{data.normalisation.num_train_images:,}: measure again with `dogs-accel metadata`"
        )
    return "\n".join(lines)


def _split_lines(splits: pd.DataFrame, facts: DatasetFacts) -> str:
    table = split_table(splits)
    per_class = [
        f"{row.min_per_class:,} / {row.median_per_class:g} / {row.max_per_class:,}" for row in table.itertuples()
    ]
    shown = pd.DataFrame(
        {
            "split": table["split"],
            "images": table["images"].map("{:,}".format),
            "share": table["share"].map("{:.1%}".format),
            facts.plural: table["classes"],
            f"a {facts.noun}: min / median / max": per_class,
        }
    )
    return shown.to_string(index=False)


def _mean_lines(quality: pd.DataFrame) -> list[str]:
    mean = quality[["width", "height", "aspect_ratio", *IMAGE_STATS]].mean()
    return [
        f"means of {count_text(len(quality), 'image')}: brightness {mean.brightness_mean:.4f}, contrast "
        f"{mean.contrast_std:.4f}, saturation {mean.saturation_mean:.4f}, R {mean.r_mean:.4f}, G {mean.g_mean:.4f}, "
        f"B {mean.b_mean:.4f}",
        f"mean size: {mean.width:.1f} x {mean.height:.1f} px, aspect ratio {mean.aspect_ratio:.2f}",
    ]


def _normalisation_lines(data: Metadata) -> list[str]:
    normalisation, published = data.normalisation, published_about(data.facts.published)
    means = None if published is None else published.image_means
    estimates: list[tuple[str, Sequence[float], Sequence[float]]] = [
        (
            f"pixels of the training split ({count_text(normalisation.num_train_images, 'image')})",
            normalisation.train_mean,
            normalisation.train_std,
        ),
        (f"mean of image means ({count_text(normalisation.num_images, 'image')})", normalisation.image_means, ()),
        ("ImageNet, as pretrained weights expect it", IMAGENET_MEAN, IMAGENET_STD),
    ]
    if published is not None and means is not None:
        total = sum(published.num_images.values())
        estimates.insert(2, (f"published mean of image means ({published.title}, {total:,})", means, ()))
    width = max(len(name) for name, _, _ in estimates)
    lines = [f"{'normalisation':<{width}}  mean R G B            std R G B"]
    for name, mean, std in estimates:
        lines.append(f"{name:<{width}}  {_three(mean)}  {_three(std)}".rstrip())
    lines.append(
        "A mean of image means differs from the first line because it weights small and large images alike, and "
        "includes validation and test."
    )
    if published is not None and means is not None:
        num_images, num_classes = len(data.quality), data.quality["label"].nunique()
        if (num_images, num_classes) != (total, published.num_classes):
            lines.append(
                f"The published figures are of the whole {published.title}, {total:,} images of "
                f"{data.facts.count(published.num_classes)}, not of the {count_text(num_images, 'image')} here."
            )
    return lines


def _three(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)
