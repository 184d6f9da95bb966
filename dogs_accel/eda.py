"""Exploratory figures and tables of a dataset; all but the galleries need only its metadata files."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from dogs_accel.datasets.splits import OFFICIAL_TEST, OFFICIAL_TRAIN, SPLITS
from dogs_accel.metadata_files import (
    METADATA_FILE,
    NORMALISATION_FILE,
    SPLIT_FILE,
    Metadata,
    Normalisation,
    read_metadata,
)
from dogs_accel.ops import IMAGE_STATS
from dogs_accel.plots import BLUE, GREY, RED, bare, save_figure
from dogs_accel.runtime.files import write_csv
from pipelines import RESNET_TRAIN, BadImageError, Recipe, make_loader
from pipelines.decoding.pil import decode_rgb
from pipelines.recipe import IMAGENET_MEAN, IMAGENET_STD

AUGMENTED_FILE = "augmented_batch_preview.png"
PUBLISHED_IMAGE_MEANS = (0.4761, 0.4518, 0.3910)
"""RGB, published as the mean of image means over all the images of Stanford Dogs."""
PUBLISHED_IMAGES, PUBLISHED_CLASSES = 20_580, 120

_CLASS_KEYS = ["label", "class_name", "folder_name"]
_NUM_BINS = 30
_NUM_LARGEST = 20
_NUM_BOXED = 6
_NUM_AUGMENTED = 8
_GALLERY_COLUMNS = 4
_THUMBNAIL_PX = 384
_TEST_COLOUR = "#e0a458"
_CELL_COLOUR = "#eef0f3"
_CHANNEL_COLOUR = {"R": "#c0392b", "G": "#3a7d44", "B": BLUE}


# ---- tables


def class_sizes(quality: pd.DataFrame) -> pd.DataFrame:
    """Count the images per class, the largest first and equals by label: label, class_name, images, train, test."""
    official = quality["official_split"].to_numpy()
    counted = quality[["label", "class_name"]].assign(train=official == OFFICIAL_TRAIN, test=official == OFFICIAL_TEST)
    table = counted.groupby("label").agg(
        class_name=("class_name", "first"), images=("train", "size"), train=("train", "sum"), test=("test", "sum")
    )
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


# ---- figures of the statistics


def quality_distributions_figure(quality: pd.DataFrame) -> Figure:
    """Draw how brightness, contrast and saturation are distributed over the images."""
    panels = [
        ("brightness_mean", "Brightness", "mean of an image's grey values"),
        ("contrast_std", "Contrast", "standard deviation of its grey values"),
        ("saturation_mean", "Saturation", "mean of its HSV saturation"),
    ]
    figure, rows = _panels(f"Quality of {_count(len(quality), 'image')}", len(panels))
    for axes, (column, title, label) in zip(rows, panels, strict=True):
        _histogram(axes, quality[column].to_numpy(np.float64), title, label, "{:.3f}", kde=True)
    return figure


def image_size_figure(quality: pd.DataFrame) -> Figure:
    """Draw how width, height and aspect ratio are distributed; the few very large are counted, not drawn."""
    panels = [
        ("width", "Width", "px", "{:,.1f}"),
        ("height", "Height", "px", "{:,.1f}"),
        ("aspect_ratio", "Aspect ratio", "width / height", "{:.2f}"),
    ]
    figure, rows = _panels(f"Size of {_count(len(quality), 'image')}", len(panels))
    for axes, (column, title, label, form) in zip(rows, panels, strict=True):
        _histogram(axes, quality[column].to_numpy(np.float64), title, label, form, cut=True)
    return figure


def _panels(title: str, num: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4.4 * num, 4.2), layout="constrained")
    if isinstance(engine := figure.get_layout_engine(), ConstrainedLayoutEngine):
        engine.set(wspace=0.05)
    figure.suptitle(title, fontsize=13)
    return figure, list(figure.subplots(1, num, squeeze=False)[0])


def _histogram(
    axes: Axes, values: NDArray[np.float64], title: str, label: str, form: str, *, kde: bool = False, cut: bool = False
) -> None:
    """Draw a histogram of 30 bins with its mean; `cut` leaves out a tail that would squeeze everything else."""
    high = _end_without_tail(values) if cut else values.max()
    shown = values[values <= high]
    # Equal values have no range of their own, and values that differ by rounding none that 30 bins could divide.
    is_constant = np.ptp(shown) <= 1e-9 * max(1.0, np.abs(shown).max())
    middle_of_a_bin = shown.mean() + 0.5 / _NUM_BINS
    span = (middle_of_a_bin - 0.5, middle_of_a_bin + 0.5) if is_constant else None
    _, edges, _ = axes.hist(shown, _NUM_BINS, range=span, color=BLUE, alpha=0.55)
    if kde and not is_constant:
        _density(axes, shown, edges)
    mean = values.mean()
    axes.axvline(mean, color=RED, linewidth=1.4)
    axes.text(mean, 1.01, f"mean {form.format(mean)}", transform=axes.get_xaxis_transform(), ha="center", va="bottom",
              color=RED, fontsize=9.5)  # fmt: skip
    if left_out := len(values) - len(shown):
        label += f"\nnot drawn: {left_out:,} larger, up to {values.max():,.5g}"
    axes.set_title(title, fontsize=11.5, pad=20)
    axes.set(xlabel=label, ylabel="images")
    _count_axis(axes.yaxis)
    bare(axes)


def _count_axis(axis: Axis) -> None:
    axis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
    axis.set_major_formatter("{x:,.0f}")


def _end_without_tail(values: NDArray[np.float64]) -> float:
    end = max(float(np.quantile(values, 0.995)), values.mean())
    return end if values.max() > 1.5 * end else values.max()


def _density(axes: Axes, values: NDArray[np.float64], edges: NDArray[np.float64]) -> None:
    from scipy.stats import gaussian_kde  # half a second, which only this figure should pay

    at = np.linspace(values.min(), values.max(), 200)
    images_per_unit = len(values) * (edges[1] - edges[0])
    axes.plot(at, gaussian_kde(values)(at) * images_per_unit, color=BLUE, linewidth=1.8)


def dataset_distributions_figure(quality: pd.DataFrame) -> Figure:
    """Draw the official split, the sizes of all breeds, and the largest breeds by name."""
    sizes = class_sizes(quality)
    largest = sizes.head(_NUM_LARGEST)
    some = len(largest) < len(sizes)
    figure = Figure(figsize=(12, float(np.clip(1.6 + 0.29 * len(largest), 3.6, 8))), layout="constrained")
    mosaic = "SL;AL" if some else "SL"
    panels = figure.subplot_mosaic(mosaic, width_ratios=[1, 1.35])
    _official_split_panel(panels["S"], sizes)
    if some:
        _all_breeds_panel(panels["A"], sizes)
    _breeds_panel(panels["L"], largest, f"{_largest_of(len(largest), len(sizes))}\n{_size_range(sizes)}")
    figure.suptitle(f"{_count(len(quality), 'image')} of {_count(len(sizes), 'breed')}", fontsize=13)
    return figure


def _size_range(sizes: pd.DataFrame) -> str:
    least, most = sizes["images"].min(), sizes["images"].max()
    if least == most:
        return f"{_count(least, 'image')} a breed"
    return f"{least:,} to {most:,} images a breed, median {sizes['images'].median():g}"


def _largest_of(num: int, total: int) -> str:
    return f"{num} largest of {total} breeds" if num < total else _count(total, "breed")


def _official_split_panel(axes: Axes, sizes: pd.DataFrame) -> None:
    counts = [int(sizes["train"].sum()), int(sizes["test"].sum())]
    bars = axes.bar(["train", "test"], counts, color=[BLUE, _TEST_COLOUR], width=0.6)
    axes.bar_label(bars, [f"{count:,}\n{count / sum(counts):.1%}" for count in counts], padding=2)
    axes.set(ylim=(0, max(counts) * 1.25), ylabel="images", title="Official split")
    _count_axis(axes.yaxis)
    bare(axes)


def _all_breeds_panel(axes: Axes, sizes: pd.DataFrame) -> None:
    rank = np.arange(1, len(sizes) + 1)
    axes.bar(rank, sizes["train"], width=1, color=BLUE)
    axes.bar(rank, sizes["test"], width=1, bottom=sizes["train"], color=_TEST_COLOUR)
    axes.set(xlim=(0.5, len(sizes) + 0.5), xlabel="breeds, largest first", ylabel="images",
             title=f"All {len(sizes)} breeds")  # fmt: skip
    _count_axis(axes.yaxis)
    bare(axes)


def _breeds_panel(axes: Axes, sizes: pd.DataFrame, title: str) -> None:
    at = np.arange(len(sizes))
    axes.barh(at, sizes["train"], color=BLUE, height=0.72, label="train")
    bars = axes.barh(at, sizes["test"], left=sizes["train"], color=_TEST_COLOUR, height=0.72, label="test")
    axes.bar_label(bars, [f"{count:,}" for count in sizes["images"]], padding=3, fontsize=9)
    axes.set_yticks(at, [shortened(name, 30) for name in sizes["class_name"]], fontsize=9, parse_math=False)
    axes.set(xlim=(0, sizes["images"].max() * 1.12), ylim=(len(sizes) - 0.4, -0.6), xlabel="images", title=title)
    _count_axis(axes.xaxis)
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="upper right", bbox_to_anchor=(1, -0.07), ncols=2, frameon=False)  # below, clear of the bars
    bare(axes)


def rgb_channel_figure(quality: pd.DataFrame, normalisation: Normalisation) -> Figure:
    """Draw mean and standard deviation of the image means per channel, beside those of the training pixels."""
    means = quality[["r_mean", "g_mean", "b_mean"]].to_numpy(np.float64)
    figure, (left, right) = _panels(f"Colour of {_count(len(quality), 'image')}", 2)
    _channel_bars(left, means.mean(axis=0), normalisation.train_mean)
    left.set(title="Mean", ylabel="intensity, 0 to 1")
    _channel_bars(right, means.std(axis=0), normalisation.train_std)
    right.set_title("Standard deviation")
    handles = [
        Patch(facecolor=GREY, label=f"of the means of {_count(len(quality), 'image')} (published way)"),
        Patch(facecolor="white", edgecolor=GREY, hatch="///",
              label=f"of the pixels of {_count(normalisation.num_train_images, 'training image')}"),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _channel_bars(axes: Axes, of_means: NDArray[np.float64], of_pixels: Sequence[float]) -> None:
    at = np.arange(3)
    colours = list(_CHANNEL_COLOUR.values())
    solid = axes.bar(at - 0.2, of_means, width=0.38, color=colours)
    hatched = axes.bar(at + 0.2, of_pixels, width=0.38, color="white", edgecolor=colours, hatch="///")
    for bars in (solid, hatched):
        axes.bar_label(bars, fmt="{:.4f}", padding=2, fontsize=8.5)
    axes.set_xticks(at, list(_CHANNEL_COLOUR))
    axes.set_ylim(0, max(*of_means, *of_pixels, 1e-3) * 1.12)
    bare(axes)


def breed_quality_figure(quality: pd.DataFrame) -> Figure:
    """Draw boxes of brightness and saturation of the images of the largest breeds, whiskers to 1.5 box heights."""
    sizes = class_sizes(quality)
    boxed = sizes.head(_NUM_BOXED)
    figure = Figure(figsize=(max(5.0, 1.4 + 1.6 * len(boxed)), 6.8), layout="constrained")
    figure.suptitle(f"Brightness and saturation: {_largest_of(len(boxed), len(sizes))}", fontsize=13)
    panels = figure.subplots(2, 1, sharex=True)
    for axes, (column, title) in zip(
        panels, [("brightness_mean", "Brightness"), ("saturation_mean", "Saturation")], strict=True
    ):
        by_breed = [quality.loc[quality["label"] == label, column].to_numpy() for label in boxed["label"]]
        axes.boxplot(by_breed, positions=range(len(boxed)), widths=0.55, patch_artist=True,
                     boxprops={"facecolor": BLUE, "alpha": 0.55}, medianprops={"color": "black", "linewidth": 1.6},
                     flierprops={"marker": ".", "markersize": 4, "markeredgecolor": GREY})  # fmt: skip
        median = quality[column].median()
        axes.axhline(median, color=RED, linewidth=1, linestyle="--", zorder=0)
        axes.text(1.005, median, f"median of\nall images\n{median:.3f}", transform=axes.get_yaxis_transform(),
                  va="center", color=RED, fontsize=8.5)  # fmt: skip
        axes.set(ylabel=title)
        bare(axes)
    names = [
        f"{textwrap.fill(shortened(name, 36), 17)}\n{num:,}"
        for name, num in zip(boxed["class_name"], boxed["images"], strict=True)
    ]
    panels[1].set_xticks(range(len(boxed)), names, fontsize=9, parse_math=False)
    panels[1].set_xlabel("breed, and how many images it has")
    return figure


# ---- pictures


def random_class_samples(quality: pd.DataFrame, *, seed: int = 42, num: int = 12) -> pd.DataFrame:
    """Choose up to `num` classes and one image of each, by label; the seed chooses both."""
    random = np.random.default_rng(seed)
    labels = np.unique(quality["label"].to_numpy())
    chosen = np.sort(random.choice(labels, size=min(num, len(labels)), replace=False))
    rows = [random.choice(np.flatnonzero(quality["label"] == label)) for label in chosen]
    return quality.iloc[rows]


def brightness_extremes(quality: pd.DataFrame, *, darkest: bool, num: int = 8) -> pd.DataFrame:
    """Choose up to `num` images of lowest or highest brightness_mean, the most extreme first, equals as they come."""
    return quality.sort_values("brightness_mean", ascending=darkest, kind="stable").head(num)


def gallery_figure(rows: pd.DataFrame, captions: Sequence[str], title: str) -> Figure:
    """Draw the images of the rows, in their order, four to a line; one that cannot be read is a cell that says so."""
    return _grid_figure([_thumbnail(Path(path)) for path in rows["image_path"]], captions, title)


def augmented_batch_figure(images: Tensor, recipe: Recipe, names: Sequence[str]) -> Figure:
    """Draw the first 8 images of a batch of the recipe as the model gets them, normalisation undone.

    `images` is (B, 3, H, W) of any float dtype, on any device; `names` are its B breeds. Raises ValueError for another
    shape or number of names.
    """
    if images.ndim != 4 or images.shape[1] != 3 or len(images) == 0:
        raise ValueError(f"images: got shape {tuple(images.shape)}, expected (B, 3, H, W) with B >= 1")
    if len(names) != len(images):
        raise ValueError(f"names: got {len(names)}, expected one per image ({len(images)})")
    shown = images[:_NUM_AUGMENTED].detach().float().cpu().permute(0, 2, 3, 1).numpy()
    pictures = np.clip(shown * np.asarray(recipe.std) + np.asarray(recipe.mean), 0, 1)
    title = f"Training images as the model gets them: recipe {recipe.name}, {recipe.crop} px"
    return _grid_figure(list(pictures), [shortened(name, 30) for name in names[:_NUM_AUGMENTED]], title)


def _thumbnail(path: Path) -> NDArray[Any] | str:
    """Give a small RGB image (H, W, 3) of the file's aspect ratio, or why there is none."""
    if not path.is_file():
        return "not found"
    try:
        image = decode_rgb(str(path))
    except BadImageError:
        return "not readable"
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    return np.asarray(image)


def _grid_figure(pictures: Sequence[NDArray[Any] | str], captions: Sequence[str], title: str) -> Figure:
    columns = min(_GALLERY_COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    lines = max(caption.count("\n") + 1 for caption in captions)
    figure = Figure(figsize=(2.6 * columns, (2.57 + 0.19 * lines) * rows + 0.45), layout="constrained")
    figure.suptitle(title, fontsize=13)
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, picture, caption in zip(cells, pictures, captions, strict=False):
        draw_cell(axes, picture)
        axes.set_xlabel(caption, fontsize=9.5, parse_math=False)
    for axes in cells[len(pictures) :]:
        axes.set_axis_off()
    return figure


def draw_cell(axes: Axes, picture: NDArray[Any] | str) -> None:
    """Draw an image (H, W, 3) into a square cell, or the words that stand there instead."""
    if isinstance(picture, str):
        axes.text(0.5, 0.5, picture, ha="center", va="center", color="#555555")
    else:
        height, width = np.asarray(picture.shape[:2]) / max(picture.shape[:2])
        axes.imshow(picture, extent=(0.5 - width / 2, 0.5 + width / 2, 0.5 - height / 2, 0.5 + height / 2))
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[], yticks=[], facecolor=_CELL_COLOUR)
    axes.spines[:].set_visible(False)


def shortened(name: str, longest: int) -> str:
    """Cut a name on one line to at most `longest` characters."""
    name = " ".join(name.split())
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _count(num: int, what: str) -> str:
    return f"{num:,} {what}{'' if num == 1 else 's'}"


# ---- all of it


def write_eda(metadata_folder: Path, out: Path, *, seed: int = 42, recipe: Recipe = RESNET_TRAIN) -> list[Path]:
    """Write the tables and figures of a metadata folder to `out`, and return their paths.

    The seed chooses the random samples and the augmentation of augmented_batch_preview.png, which shows `recipe` on the
    first 8 training images that can be read, and is left out where there are none. Raises what `read_metadata` raises.
    """
    data = read_metadata(metadata_folder)
    return [
        *_write_tables(data, out),
        *_write_figures(data, out, seed),
        *_write_augmented_batch(data, out, seed, recipe),
    ]


def _write_figures(data: Metadata, out: Path, seed: int) -> list[Path]:
    quality = data.quality
    return [
        save_figure(quality_distributions_figure(quality), out / "quality_distributions.png"),
        save_figure(dataset_distributions_figure(quality), out / "dataset_distributions.png"),
        save_figure(image_size_figure(quality), out / "image_size_distribution.png"),
        save_figure(rgb_channel_figure(quality, data.normalisation), out / "rgb_channel_summary.png"),
        save_figure(_samples_figure(quality, seed), out / "random_class_samples.png"),
        save_figure(_extremes_figure(quality, darkest=True), out / "darkest_examples.png"),
        save_figure(_extremes_figure(quality, darkest=False), out / "brightest_examples.png"),
        save_figure(breed_quality_figure(quality), out / "breed_quality_boxplots.png"),
    ]


def _samples_figure(quality: pd.DataFrame, seed: int) -> Figure:
    rows = random_class_samples(quality, seed=seed)
    num, total = len(rows), quality["label"].nunique()
    which = f"{num} of {total} breeds, seed {seed}" if num < total else _count(total, "breed")
    return gallery_figure(rows, [shortened(name, 30) for name in rows["class_name"]], f"One image of each of {which}")


def _extremes_figure(quality: pd.DataFrame, *, darkest: bool) -> Figure:
    rows = brightness_extremes(quality, darkest=darkest)
    captions = [
        f"{shortened(name, 30)}\n{value:.3f}"
        for name, value in zip(rows["class_name"], rows["brightness_mean"], strict=True)
    ]
    which = "darkest" if darkest else "brightest"
    return gallery_figure(rows, captions, f"The {len(rows)} {which} of {_count(len(quality), 'image')}, by mean grey")


def _write_augmented_batch(data: Metadata, out: Path, seed: int, recipe: Recipe) -> list[Path]:
    train = data.splits[data.splits["split"] == "train"]
    rows = list(itertools.islice((row for row in train.itertuples() if _can_be_read(row.image_path)), _NUM_AUGMENTED))
    path = out / AUGMENTED_FILE
    if not rows:
        path.unlink(missing_ok=True)  # that of an earlier call would be taken for one of this
        return []
    paths, labels = [row.image_path for row in rows], [row.label for row in rows]
    with make_loader(
        paths, labels, recipe, backend="torch", batch_size=len(rows), device="cpu", seed=seed, num_threads=1
    ) as loader:
        [batch] = loader
    figure = augmented_batch_figure(batch.images, recipe, [row.class_name for row in rows])
    return [save_figure(figure, path)]


def _can_be_read(path: str) -> bool:
    try:
        decode_rgb(path)
    except BadImageError:
        return False
    return True


def _write_tables(data: Metadata, out: Path) -> list[Path]:
    return [
        write_csv(out / "split_table.csv", split_table(data.splits)),
        write_csv(out / "class_table.csv", class_table(data.quality, data.splits)),
        write_csv(out / "quality_summary.csv", quality_summary(data.quality)),
    ]


def describe_eda(metadata_folder: Path) -> str:
    """Describe the splits, the sizes of the classes, the means and the normalisation, for people.

    Raises what `read_metadata` raises.
    """
    data = read_metadata(metadata_folder)
    sizes = class_sizes(data.quality)
    lines = [
        _split_lines(data.splits),
        f"{_count(len(sizes), 'breed')}, {_size_range(sizes)}",
        *_mean_lines(data.quality),
        "",
        *_normalisation_lines(data.normalisation, data.quality),
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


def _split_lines(splits: pd.DataFrame) -> str:
    table = split_table(splits)
    per_class = [
        f"{row.min_per_class:,} / {row.median_per_class:g} / {row.max_per_class:,}" for row in table.itertuples()
    ]
    shown = pd.DataFrame(
        {
            "split": table["split"],
            "images": table["images"].map("{:,}".format),
            "share": table["share"].map("{:.1%}".format),
            "breeds": table["classes"],
            "a breed: min / median / max": per_class,
        }
    )
    return shown.to_string(index=False)


def _mean_lines(quality: pd.DataFrame) -> list[str]:
    mean = quality[["width", "height", "aspect_ratio", *IMAGE_STATS]].mean()
    return [
        f"means of {_count(len(quality), 'image')}: brightness {mean.brightness_mean:.4f}, contrast "
        f"{mean.contrast_std:.4f}, saturation {mean.saturation_mean:.4f}, R {mean.r_mean:.4f}, G {mean.g_mean:.4f}, "
        f"B {mean.b_mean:.4f}",
        f"mean size: {mean.width:.1f} x {mean.height:.1f} px, aspect ratio {mean.aspect_ratio:.2f}",
    ]


def _normalisation_lines(normalisation: Normalisation, quality: pd.DataFrame) -> list[str]:
    estimates: list[tuple[str, Sequence[float], Sequence[float]]] = [
        (
            f"pixels of the training split ({_count(normalisation.num_train_images, 'image')})",
            normalisation.train_mean,
            normalisation.train_std,
        ),
        (f"mean of image means ({_count(normalisation.num_images, 'image')})", normalisation.image_means, ()),
        (f"published mean of image means (Stanford Dogs, {PUBLISHED_IMAGES:,})", PUBLISHED_IMAGE_MEANS, ()),
        ("ImageNet, as pretrained weights expect it", IMAGENET_MEAN, IMAGENET_STD),
    ]
    width = max(len(name) for name, _, _ in estimates)
    lines = [f"{'normalisation':<{width}}  mean R G B            std R G B"]
    for name, mean, std in estimates:
        lines.append(f"{name:<{width}}  {_three(mean)}  {_three(std)}".rstrip())
    lines.append(
        "A mean of image means differs from the first line because it weights small and large images alike, and "
        "includes validation and test."
    )
    if (len(quality), quality["label"].nunique()) != (PUBLISHED_IMAGES, PUBLISHED_CLASSES):
        lines.append(
            f"The published figures are of the whole Stanford Dogs, {PUBLISHED_IMAGES:,} images of {PUBLISHED_CLASSES} "
            f"breeds, not of the {_count(len(quality), 'image')} here."
        )
    return lines


def _three(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)
