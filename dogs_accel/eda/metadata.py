"""One decoding pass over a dataset: quality statistics of every image, bad files, and pictures that come twice."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dogs_accel import ops
from dogs_accel.datasets import Dataset, DatasetError
from dogs_accel.datasets.facts import DATASET_FILE, DatasetFacts
from dogs_accel.eda.duplicates import MIN_CONTRAST, DuplicateGroup, find_duplicates
from dogs_accel.eda.files import (
    BAD_ANNOTATIONS_FILE,
    BAD_IMAGES_FILE,
    DUPLICATES_FILE,
    IMAGE_COLUMNS,
    METADATA_COLUMNS,
    METADATA_FILE,
    NORMALISATION_FILE,
    NOT_LOOKED_FOR,
    SPLIT_FILE,
    Normalisation,
)
from dogs_accel.eda.scan import ImageScan, TakeDecoded, scan_images
from dogs_accel.runtime.files import write_csv, write_json
from dogs_accel.runtime.terminal import count_text, escaped
from pipelines import BadImageError

_SHOWN = 10


def metadata_table(data: Dataset, scan: ImageScan) -> pd.DataFrame:
    """Lay out metadata_with_quality.csv: a row for each readable image, in the order of the dataset.

    Definition: the published columns, their order, and full precision.
    """
    rows = scan.readable
    labels = data.labels[rows]
    width, height = scan.size_px[rows].T
    folder_names = np.asarray(data.folder_names, dtype=object)[labels]
    columns = {
        "image_id": [data.ids[row] for row in rows],
        "image_path": [data.paths[row] for row in rows],
        "relative_path": [data.relative_path(row) for row in rows],
        "label": labels,
        "class_name": np.asarray(data.class_names, dtype=object)[labels],
        "folder_name": folder_names,
        "official_split": [data.official_split[row] for row in rows],
        "width": width,
        "height": height,
        "aspect_ratio": width / height,
        **dict(zip(ops.IMAGE_STATS, scan.stats[rows].T, strict=True)),
    }
    return pd.DataFrame(columns, columns=list(METADATA_COLUMNS))


def split_rows(metadata: pd.DataFrame, scan: ImageScan, splits: Mapping[str, NDArray[np.int64]]) -> pd.DataFrame:
    """Lay out split_metadata.csv: the readable images of train, val and test, each in its split's order."""
    row_of = np.full(len(scan.digests), -1)
    row_of[scan.readable] = np.arange(len(metadata))
    parts = []
    for split, index in splits.items():
        rows = row_of[index]
        parts.append(metadata.loc[rows[rows >= 0], list(IMAGE_COLUMNS)].assign(split=split))
    return pd.concat(parts, ignore_index=True)


def normalisation(scan: ImageScan, train: NDArray[np.int64]) -> Normalisation:
    """Estimate mean and std of R, G and B: from exact sums of integers, in float64 at the end, ddof 0.

    The training split must have a readable image.
    """
    total = dict(zip(ops.IMAGE_SUMS, scan.sums[train].sum(axis=0).tolist(), strict=True))
    pixels = total["pixels"]
    return Normalisation(
        train_mean=tuple(total[channel] / (255 * pixels) for channel in "rgb"),
        train_std=tuple(
            math.sqrt(pixels * total[f"{channel}_squared"] - total[channel] ** 2) / (255 * pixels) for channel in "rgb"
        ),
        num_train_images=len(np.intersect1d(train, scan.readable)),
        num_train_pixels=pixels,
        image_means=tuple(scan.stats[scan.readable, -3:].mean(axis=0).tolist()),
        num_images=len(scan.readable),
    )


def duplicates_table(
    data: Dataset, splits: Mapping[str, NDArray[np.int64]], groups: Sequence[DuplicateGroup]
) -> pd.DataFrame:
    """Lay out duplicates.csv: a row for each file with the content or the looks of another, groups together."""
    split_of = _split_of(data, splits)
    rows = [
        (number, "exact" if is_exact else "near", distance, *_file_columns(data, member, split_of))
        for number, group in enumerate(groups, start=1)
        for member, is_exact, distance in zip(group.members, group.is_exact, group.distance, strict=True)
    ]
    return pd.DataFrame(rows, columns=["group", "kind", "distance", *_FILE_COLUMNS])


def bad_images_table(data: Dataset, splits: Mapping[str, NDArray[np.int64]], scan: ImageScan) -> pd.DataFrame:
    """Lay out bad_images.csv: each file that cannot be decoded, and why."""
    split_of = _split_of(data, splits)
    rows = [(*_file_columns(data, index, split_of), problem) for index, problem in sorted(scan.problems.items())]
    return pd.DataFrame(rows, columns=[*_FILE_COLUMNS, "problem"])


def bad_annotations_table(data: Dataset, splits: Mapping[str, NDArray[np.int64]], scan: ImageScan) -> pd.DataFrame:
    """Lay out bad_annotations.csv: each readable image whose boxes cannot be used, and why."""
    split_of = _split_of(data, splits)
    rows = []
    for index in scan.readable.tolist():
        try:
            data.boxes(index, tuple(scan.size_px[index].tolist()))
        except DatasetError as error:
            rows.append((*_file_columns(data, index, split_of), str(error)))
    return pd.DataFrame(rows, columns=[*_FILE_COLUMNS, "problem"])


_FILE_COLUMNS = ("image_id", "class_name", "split", "image_path")


def _file_columns(data: Dataset, index: int, split_of: Sequence[str]) -> tuple[str, str, str, str]:
    return data.ids[index], data.class_names[int(data.labels[index])], split_of[index], data.paths[index]


def _split_of(data: Dataset, splits: Mapping[str, NDArray[np.int64]]) -> list[str]:
    names = [""] * len(data)
    for split, index in splits.items():
        for i in index.tolist():
            names[i] = split
    return names


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MetadataReport:
    """The tables of a pass, as written."""

    metadata: pd.DataFrame
    splits: pd.DataFrame
    duplicates: pd.DataFrame
    bad_images: pd.DataFrame
    bad_annotations: pd.DataFrame
    facts: DatasetFacts
    bad_index: NDArray[np.int64]
    """Positions of the bad files in the dataset."""
    seconds: float
    written: list[Path]

    @property
    def classes_without_image(self) -> list[str]:
        """Names of the classes of which no file can be decoded."""
        return sorted(set(self.bad_images["class_name"]) - set(self.metadata["class_name"]))


def write_metadata(
    data: Dataset,
    splits: Mapping[str, NDArray[np.int64]],
    folder: Path,
    *,
    num_threads: int | None = None,
    progress: bool = True,
    hand_on: TakeDecoded | None = None,
    check: Callable[[ImageScan], None] = lambda scan: None,
) -> MetadataReport:
    """Pass over a dataset once and write its tables and what it is called to a folder.

    splits: positions of train, val and test; hand_on: as `scan_images` takes it; check: sees what was found before
    anything is written, and may raise. Raises BadImageError where no image
    of the training split can be read, and has then written bad_images.csv; single bad files are in there and in no
    other table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    scan = scan_images(data, num_threads=num_threads, progress=progress, hand_on=hand_on)
    check(scan)
    bad_images = bad_images_table(data, splits, scan)
    written = [write_csv(folder / BAD_IMAGES_FILE, bad_images)]
    rows = scan.readable
    if not np.isin(splits["train"], rows).any():
        first = bad_images.iloc[0]
        raise BadImageError(
            f"no image of the training split can be read, see {written[0]}; "
            f"the first bad file: {first.image_path}: {first.problem}"
        )
    has_contrast = scan.stats[rows, ops.IMAGE_STATS.index("contrast_std")] >= MIN_CONTRAST
    groups = [
        replace(group, members=rows[group.members].tolist())
        for group in find_duplicates(
            [scan.digests[row] for row in rows], scan.hashes[rows], scan.thumbnails[rows], has_contrast
        )
    ]
    duplicates = duplicates_table(data, splits, groups)
    metadata = metadata_table(data, scan)
    of_splits = split_rows(metadata, scan, splits)
    written += [
        write_csv(folder / METADATA_FILE, metadata),
        write_csv(folder / SPLIT_FILE, of_splits),
        write_json(folder / NORMALISATION_FILE, normalisation(scan, splits["train"]).as_json()),
        write_csv(folder / DUPLICATES_FILE, duplicates),
        write_json(folder / DATASET_FILE, data.facts.as_json()),
    ]
    bad_annotations = bad_annotations_table(data, splits, scan)
    (folder / BAD_ANNOTATIONS_FILE).unlink(missing_ok=True)  # that of an earlier pass
    if len(bad_annotations):
        written.append(write_csv(folder / BAD_ANNOTATIONS_FILE, bad_annotations))
    return MetadataReport(
        metadata=metadata,
        splits=of_splits,
        duplicates=duplicates,
        bad_images=bad_images,
        bad_annotations=bad_annotations,
        facts=data.facts,
        bad_index=np.asarray(sorted(scan.problems), dtype=np.int64),
        seconds=time.perf_counter() - start,
        written=written,
    )


def describe_metadata(report: MetadataReport) -> str:
    """Say what a pass found, as text for a terminal."""
    num, num_bad = len(report.metadata), len(report.bad_images)
    lines = [f"decoded {num:,} of {num + num_bad:,} files in {report.seconds:.1f} s; bad: {num_bad:,}"]
    lines += [
        f"  {escaped(row.image_path)}: {escaped(row.problem)}" for row in report.bad_images.head(_SHOWN).itertuples()
    ]
    if num_bad > _SHOWN:
        lines.append(f"  and {num_bad - _SHOWN:,} more in {BAD_IMAGES_FILE}")
    if gone := report.classes_without_image:
        lines.append(f"  {report.facts.plural} without any image that can be decoded: {', '.join(map(escaped, gone))}")
    if num_unboxed := len(report.bad_annotations):
        lines.append(
            f"annotations that cannot be used: {num_unboxed:,}, see {BAD_ANNOTATIONS_FILE}; the first: "
            f"{escaped(report.bad_annotations['problem'].iloc[0])}"
        )
    lines.append(f"pictures more than once: {_describe_duplicates(report.duplicates, report.facts.plural)}")
    return "\n".join(lines)


def _describe_duplicates(duplicates: pd.DataFrame, plural: str) -> str:
    groups = duplicates.groupby("group")
    if not groups.ngroups:
        return f"none, as files or by their looks. {NOT_LOOKED_FOR}"
    num_exact = int((duplicates["kind"] == "exact").groupby(duplicates["group"]).any().sum())
    return (
        f"{count_text(groups.ngroups, 'group')} of {len(duplicates):,} files in all, see {DUPLICATES_FILE}\n"
        f"  {num_exact:,} with identical files, {groups.ngroups - num_exact:,} alike by their looks alone; "
        f"{(groups['split'].nunique() > 1).sum():,} across splits, "
        f"{(groups['class_name'].nunique() > 1).sum():,} across {plural}\n"
        f"  {NOT_LOOKED_FOR}"
    )
