import csv
import math
import statistics

import numpy as np
import pytest

from dogs_accel.eda.tables import class_sizes, class_table, quality_summary, split_table
from dogs_accel.ops import IMAGE_STATS
from tests.support.metadata_frames import quality_frame, split_frame, write_metadata


def test_split_table_counts_as_a_loop_does(quality):
    splits = split_frame(quality)
    table = split_table(splits)
    assert list(table.columns) == [
        "split", "images", "classes", "min_per_class", "median_per_class", "max_per_class", "share",
    ]  # fmt: skip
    assert table["split"].tolist() == ["train", "val", "test", "all"]
    for row in table.itertuples():
        counts = [0] * 5
        for label, split in zip(splits["label"], splits["split"], strict=True):
            counts[label] += row.split in (split, "all")
        expected = [sum(counts), sum(n > 0 for n in counts), min(counts), statistics.median(counts), max(counts)]
        assert list(row[2:7]) == expected
        assert row.share == sum(counts) / 40
    assert table.loc[2, "min_per_class"] == 0  # breed 2 has no test image


def test_an_empty_split_is_a_row_of_zeros():
    table = split_table(split_frame(quality_frame([1, 1], [0, 0])))
    assert table.loc[2].tolist() == ["test", 0, 0, 0, 0.0, 0, 0.0]


def test_class_table_agrees_with_a_loop_over_the_files(tmp_path, quality):
    folder = write_metadata(tmp_path, quality)
    table = class_table(quality, split_frame(quality))
    with (folder / "metadata_with_quality.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "split_metadata.csv").open(newline="") as file:
        split_rows = list(csv.DictReader(file))
    assert table["label"].tolist() == [0, 1, 2, 3, 4]
    for row in table.to_dict("records"):
        mine = [r for r in rows if int(r["label"]) == row["label"]]
        assert (row["class_name"], row["folder_name"]) == (mine[0]["class_name"], mine[0]["folder_name"])
        assert row["images"] == len(mine)
        for split in ("train", "val", "test"):
            assert row[split] == sum(int(r["label"]) == row["label"] and r["split"] == split for r in split_rows)
        for column in ("width", "height", "brightness_mean", "contrast_std", "saturation_mean"):
            mean = math.fsum(float(r[column]) for r in mine) / len(mine)
            assert row[f"mean_{column.split('_')[0]}"] == pytest.approx(mean, rel=1e-12)


def test_a_class_that_could_not_be_measured_still_has_its_row(quality):
    table = class_table(quality[quality["label"] != 1], split_frame(quality))
    assert table.loc[1, ["class_name", "images", "test"]].tolist() == ["breed 1", 0, 6]
    assert math.isnan(table.loc[1, "mean_width"])
    assert table["images"].dtype == np.int64


def quantile(values, share):
    """Linear between the two nearest, as numpy's default."""
    at = share * (len(values) - 1)
    low = math.floor(at)
    high = min(low + 1, len(values) - 1)
    return sorted(values)[low] + (at - low) * (sorted(values)[high] - sorted(values)[low])


def test_quality_summary_agrees_with_the_statistics_module(quality):
    table = quality_summary(quality)
    assert table["column"].tolist() == ["width", "height", "aspect_ratio", *IMAGE_STATS]
    assert list(table.columns[1:]) == ["mean", "std", "min", "p5", "median", "p95", "max"]
    for row in table.itertuples():
        values = [float(value) for value in quality[row.column]]
        expected = [
            statistics.fmean(values), statistics.pstdev(values), min(values), quantile(values, 0.05),
            statistics.median(values), quantile(values, 0.95), max(values),
        ]  # fmt: skip
        assert list(row[2:]) == pytest.approx(expected, rel=1e-12)


def test_class_sizes_are_largest_first_and_equals_by_label():
    sizes = class_sizes(quality_frame([2, 3, 1, 3], [1, 0, 4, 0]))
    assert sizes["label"].tolist() == [2, 0, 1, 3]
    assert sizes["images"].tolist() == [5, 3, 3, 3]
    assert sizes["train"].tolist() == [1, 2, 3, 3]
    assert sizes["test"].tolist() == [4, 1, 0, 0]


def test_breeds_of_one_name_are_not_thrown_together():
    assert class_sizes(quality_frame([2, 3], [0, 0], names=["hound", "hound"]))["images"].tolist() == [3, 2]
