import json
import math

import pandas as pd
import pytest

from dogs_accel.eda.files import Normalisation, read_metadata
from tests.support.metadata_frames import NORMALISATION, quality_frame, split_frame, write_metadata


@pytest.fixture
def quality():
    return quality_frame([7, 5, 1, 9, 3], [2, 6, 0, 4, 3])


def test_metadata_is_read_as_it_was_written(tmp_path, quality):
    data = read_metadata(write_metadata(tmp_path, quality))
    pd.testing.assert_frame_equal(data.quality, quality, check_dtype=False)
    pd.testing.assert_frame_equal(data.splits, split_frame(quality), check_dtype=False)
    assert data.normalisation == Normalisation(
        train_mean=(0.51, 0.46, 0.41),
        train_std=(0.26, 0.25, 0.27),
        num_train_images=9,
        num_train_pixels=90_000,
        image_means=(0.5, 0.45, 0.4),
        num_images=12,
    )


def test_normalisation_is_written_as_it_is_read(tmp_path, quality):
    found = read_metadata(write_metadata(tmp_path, quality)).normalisation
    assert json.loads(json.dumps(found.as_json())) == NORMALISATION


@pytest.mark.fault(
    "Folders and names", "classes called 001, 1e5, NA or True", "read as they are written, in every table"
)
def test_names_stay_text_whatever_they_look_like(tmp_path):
    quality = quality_frame([1, 1, 1], [0, 0, 0], names=["NA", "007", "null"])
    quality["image_id"] = ["0042", "1e5", "nan"]
    data = read_metadata(write_metadata(tmp_path, quality))
    assert data.quality["class_name"].tolist() == ["NA", "007", "null"]
    assert data.quality["image_id"].tolist() == ["0042", "1e5", "nan"]


def without(*columns):
    return lambda table: table.drop(columns=list(columns))


@pytest.mark.fault("Disk", "a table of metadata that is damaged", "one line that names it")
@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("metadata_with_quality", without("g_mean"), "missing the column g_mean"),
        ("metadata_with_quality", without("label", "width"), "missing the columns label, width"),
        ("split_metadata", without("split"), "missing the column split"),
        ("metadata_with_quality", lambda table: table.head(0), "got no images, expected at least 1"),
        ("metadata_with_quality", lambda table: table.assign(width="wide"), "width: got values that are not finite"),
        ("metadata_with_quality", lambda table: table.assign(r_mean=math.nan), "r_mean: got values that are not"),
        ("metadata_with_quality", lambda table: table.assign(b_mean=math.inf), "b_mean: got values that are not"),
        ("metadata_with_quality", lambda table: table.assign(official_split="x"), "official_split: got 'x', expected"),
        ("split_metadata", lambda table: table.assign(split="dev"), "split: got 'dev', expected one of train, val, te"),
    ],
)
def test_a_bad_table_is_named_in_one_line(tmp_path, quality, file, change, message):
    path = write_metadata(tmp_path, quality) / f"{file}.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(ValueError, match=f"^{file}.csv: {message}") as error:
        read_metadata(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n1,2,3\n", b"image_id\n\xff\n"])
def test_what_is_no_table_is_named_in_one_line(tmp_path, quality, content):
    (write_metadata(tmp_path, quality) / "split_metadata.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"^split_metadata\.csv: not a readable table \(") as error:
        read_metadata(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", ["metadata_with_quality.csv", "split_metadata.csv", "normalisation.json"])
def test_an_absent_file_says_what_writes_it(tmp_path, quality, file):
    (write_metadata(tmp_path, quality) / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"{file}: not found; `dogs-accel metadata` writes it"):
        read_metadata(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"image_means": NORMALISATION["image_means"]}, "missing train_pixels.mean"),
        ({**NORMALISATION, "image_means": {"mean": [1, 1, 1]}}, "missing image_means.num_images"),
        ({**NORMALISATION, "image_means": {"mean": [1, 1], "num_images": 2}}, r"image_means.mean: got \[1, 1\]"),
        ({**NORMALISATION, "image_means": {"mean": [1, 1, math.nan], "num_images": 2}}, "image_means.mean: got"),
        ([], "missing train_pixels.mean"),
    ],
)
def test_a_bad_normalisation_is_named(tmp_path, quality, content, message):
    write_metadata(tmp_path, quality, content)
    with pytest.raises(ValueError, match=f"^normalisation.json: {message}"):
        read_metadata(tmp_path)
