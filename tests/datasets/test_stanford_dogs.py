import io
import math
import pickle
import shutil
import tarfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from dogs_accel.datasets import Dataset, DatasetError, DatasetNotFoundError, open_dataset
from dogs_accel.datasets.dataset import read_boxes
from dogs_accel.datasets.download import ARCHIVES, unpack_archive
from dogs_accel.datasets.layouts.stanford_dogs import open_stanford_dogs, read_list
from dogs_accel.datasets.synthetic import SYNTHETIC_NOTICE

TRAIN = ["n1-a/n1_1.jpg", "n1-a/n1_2.jpg", "n2-b_c/n2_1.jpg"]
TEST = ["n1-a/n1_3.jpg", "n2-b_c/n2_2.jpg"]


def write_list(path: Path, files: Sequence[str], labels: Sequence[float]) -> None:
    cells = np.empty((len(files), 1), dtype=object)
    cells[:, 0] = files
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"file_list": cells, "labels": np.array(labels).reshape(-1, 1)})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes whose images are empty files: opening a dataset looks at names, not into files."""
    write_list(tmp_path / "lists/train_list.mat", TRAIN, [1, 1, 2])
    write_list(tmp_path / "lists/test_list.mat", TEST, [1, 2])
    for file in TRAIN + TEST:
        (tmp_path / "Images" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "Images" / file).touch()
    return tmp_path


@pytest.fixture(scope="module")
def official(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The official lists, without their images."""
    folder = tmp_path_factory.mktemp("official")
    unpack_archive(shared_data / "stanford-dogs-lists/lists.tar", folder / "lists", progress=False)
    return open_stanford_dogs(folder, check_files=False)


# --- the official lists -----------------------------------------------------------------------------------------


def test_official_lists(official: Dataset) -> None:
    assert (official.facts.name, len(official), official.num_classes) == ("stanford-dogs", 20_580, 120)
    assert official.ids[:3] == ["n02085620_5927", "n02085620_4441", "n02085620_1502"]
    assert official.official_split.count("official_train") == 12_000
    assert official.official_split[11_999:12_001] == ["official_train", "official_test"]
    assert official.class_names[:2] == ["Chihuahua", "Japanese spaniel"]
    assert {"Greater Swiss Mountain dog", "black-and-tan coonhound", "Ibizan hound"} < set(official.class_names)
    assert official.folder_names[1] == "n02085782-Japanese_spaniel"
    assert official.labels.dtype == np.int64
    counts = np.bincount(official.labels)
    assert (counts.min(), counts.max()) == (148, 252)
    assert official.class_names[int(counts.argmax())] == "Maltese dog"
    assert official.facts.notice is None
    assert (official.noun, official.facts.published) == ("breed", "stanford-dogs")


def test_published_split(official: Dataset) -> None:
    splits = {name: official.split(name) for name in ("train", "val", "test")}
    assert [len(indices) for indices in splits.values()] == [10_200, 1_800, 8_580]
    assert [official.ids[i] for i in splits["train"][:3]] == ["n02107142_4013", "n02091244_5818", "n02107574_2912"]
    assert [official.class_names[official.labels[i]] for i in splits["train"][:3]] == [
        "Doberman",
        "Ibizan hound",
        "Greater Swiss Mountain dog",
    ]
    assert set(np.bincount(official.labels[splits["train"]])) == {85}
    assert set(np.bincount(official.labels[splits["val"]])) == {15}
    assert splits["test"].tolist() == list(range(12_000, 20_580))
    assert len(set(np.concatenate(list(splits.values())).tolist())) == 20_580


# --- subsets of the real photos ---------------------------------------------------------------------------------


def test_mini_set_has_boxes_that_lie_in_its_photos(shared_data: Path) -> None:
    data = open_dataset(shared_data / "stanford-dogs-mini")
    assert (data.facts.name, len(data), data.num_classes) == ("stanford-dogs-subset", 771, 80)
    first = data.ids.index("n02085782_1059")
    assert data.boxes(first) == [(142, 8, 361, 410)]
    for index in range(0, len(data), 25):
        boxes = data.boxes(index)
        assert boxes
        with Image.open(data.paths[index]) as image:
            for xmin, ymin, xmax, ymax in boxes:
                assert 0 <= xmin < xmax <= image.width
                assert 0 <= ymin < ymax <= image.height


def test_mini_set_says_what_ratio_its_small_breeds_need(shared_data: Path) -> None:
    data = open_dataset(shared_data / "stanford-dogs-mini")
    with pytest.raises(ValueError, match=r"class '.+': got 4 training images, expected at least 7 .*0\.25 would do"):
        data.split("train")
    assert [len(data.split(name, val_ratio=0.25)) for name in ("train", "val", "test")] == [355, 119, 297]


def test_crops_have_no_annotation(shared_data: Path) -> None:
    data = open_dataset(shared_data / "stanford-dogs-crops")
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [2_550, 450, 2_128]
    assert (data.num_classes, data.annotation_dir, data.boxes(0)) == (30, None, None)


# --- the contract -----------------------------------------------------------------------------------------------


def test_generated_set(dogs_root: Path) -> None:
    data = open_dataset(dogs_root)
    assert (data.facts.name, len(data), data.num_classes) == ("synthetic", 72, 4)
    assert (data.facts.notice, data.facts.published) == (SYNTHETIC_NOTICE, None)
    assert data.labels.tolist() == [label for size in (12, 6) for label in range(4) for _ in range(size)]
    for image_id, path, label in zip(data.ids, data.paths, data.labels, strict=True):
        assert Path(path) == dogs_root / "Images" / data.folder_names[label] / f"{image_id}.jpg"
        assert Path(path).is_file()


def test_order_labels_and_names(root: Path) -> None:
    data = open_dataset(root)
    assert data.ids == ["n1_1", "n1_2", "n2_1", "n1_3", "n2_2"]
    assert data.labels.tolist() == [0, 0, 1, 0, 1]
    assert data.class_names == ["n1-a", "n2-b_c"]
    assert [data.relative_path(i) for i in range(5)] == TRAIN + TEST
    assert data.official_split == ["official_train"] * 3 + ["official_test"] * 2
    assert data.boxes(0) is None


def test_lists_in_the_root_serve_as_well(root: Path) -> None:
    for name in ("train_list.mat", "test_list.mat"):
        (root / "lists" / name).rename(root / name)
    assert open_dataset(root).ids == ["n1_1", "n1_2", "n2_1", "n1_3", "n2_2"]


def test_relative_root_gives_absolute_paths(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert open_dataset(".").paths[0] == str(root / "Images/n1-a/n1_1.jpg")


def test_dataset_is_frozen_and_can_be_sent_to_workers(root: Path) -> None:
    data = open_dataset(root)
    with pytest.raises(AttributeError):
        data.ids = []  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(data)).ids == data.ids


@pytest.mark.fault(
    "Folders and names",
    "the same file names in every class folder",
    "an image is called by folder and name where names repeat",
)
def test_files_of_one_name_are_told_apart_by_their_folders(root: Path) -> None:
    write_list(root / "lists/train_list.mat", [*TRAIN, "n2-b_c/n1_1.jpg"], [1, 1, 2, 2])
    (root / "Images/n2-b_c/n1_1.jpg").touch()
    (root / "Annotation/n2-b_c").mkdir(parents=True)
    box = "<object><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object>"
    (root / "Annotation/n2-b_c/n1_1").write_text(f"<annotation>{box}</annotation>")
    data = open_dataset(root)
    assert data.ids == [*TRAIN, "n2-b_c/n1_1.jpg", *TEST]
    assert [data.boxes(i) for i in range(6)] == [None] * 3 + [[(1, 2, 3, 4)]] + [None] * 2


def test_several_boxes_and_a_broken_annotation(root: Path) -> None:
    folder = root / "Annotation/n1-a"
    folder.mkdir(parents=True)
    box = "<object><bndbox><xmin>{}</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40.0</ymax></bndbox></object>"
    (folder / "n1_1").write_text(f"<annotation>{box.format(1)}{box.format(5)}</annotation>")
    (folder / "n1_2").write_text("<annotation><object>")
    (folder / "n1_3").write_text(f"<annotation>{box.format('left')}</annotation>")
    data = open_dataset(root)
    assert data.boxes(0) == [(1, 2, 30, 40), (5, 2, 30, 40)]
    assert data.boxes(2) is None
    for index in (1, 3):
        with pytest.raises(DatasetError, match=f"{data.ids[index]}: not a readable annotation"):
            data.boxes(index)


BOX = "<object><bndbox><xmin>{}</xmin><ymin>2</ymin><xmax>{}</xmax><ymax>40</ymax></bndbox></object>"


@pytest.mark.fault(
    "Lists and annotations",
    "an annotation that is empty, cut off, infinite, inverted, without area or outside the image",
    "refused with the reason, in one line",
)
@pytest.mark.fault(
    "Lists and annotations",
    "an annotation of an unknown encoding, or one that declares entities (an XML bomb)",
    "refused in one line; no entity is expanded",
)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no element found"),
        ("<object>", "mismatched tag"),
        (BOX.format("inf", 30), "got a box of xmin inf, ymin 2, xmax 30, ymax 40, expected four numbers"),
        (BOX.format("nan", 30), "got a box of xmin nan"),
        (BOX.format("", 30), "got a box of xmin missing"),
        (BOX.format(30, 1), r"got the box \(30, 2, 1, 40\), expected xmin < xmax and ymin < ymax"),
        (BOX.format(7, 7), r"got the box \(7, 2, 7, 40\), expected xmin < xmax"),
        (BOX.format(50, 90), r"got the box \(50, 2, 90, 40\) outside the image of 50 x 45 px"),
        (f"<?xml version='1.0' encoding='klingon'?><annotation>{BOX.format(1, 2)}</annotation>", "unknown encoding"),
        ('<!DOCTYPE a [<!ENTITY b "1"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>', "it declares the entity b"),
    ],
)
def test_an_annotation_that_cannot_be_used(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "n1_1"
    path.write_text(content if content[:2] in ("", "<?", "<!") else f"<annotation>{content}</annotation>")
    with pytest.raises(DatasetError, match=f"n1_1: not a readable annotation .*{reason}") as caught:
        read_boxes(path, (50, 45))
    assert "\n" not in str(caught.value)


# --- what is wrong with a folder --------------------------------------------------------------------------------


def assert_refused(root: Path, message: str, error: type[Exception] = DatasetError) -> None:
    with pytest.raises(error, match=message) as caught:
        open_dataset(root)
    assert "\n" not in str(caught.value)


def test_missing_root(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none", "none: no such folder", DatasetNotFoundError)
    (tmp_path / "file").touch()
    assert_refused(tmp_path / "file", "file: a file, expected a folder of", FileNotFoundError)


def test_missing_lists_say_where_they_were_looked_for(root: Path) -> None:
    (root / "lists/test_list.mat").unlink()
    assert_refused(root, r"no test_list\.mat, looked for lists/test_list\.mat and test_list\.mat; `dogs-accel download")


@pytest.mark.fault(
    "Lists and annotations", "a list of photos that are not there", "how many are missing, and the first of them"
)
def test_missing_images_are_counted_and_named(root: Path) -> None:
    shutil.rmtree(root / "Images/n2-b_c")
    (root / "Images/n1-a/n1_2.jpg").unlink()
    message = r"3 of 5 listed images are missing \(1 of 2 class folders are\): n1-a/n1_2.jpg, n2-b_c/n2_1.jpg, n2-b"
    assert_refused(root, message, DatasetNotFoundError)
    assert len(open_dataset(root, check_files=False)) == 5
    shutil.rmtree(root / "Images")
    assert_refused(root, "no Images folder", DatasetNotFoundError)


@pytest.mark.fault(
    "Lists and annotations",
    "a list with a wrong label, count or field, a file twice, or one of training and test",
    "one line that names the entry",
)
@pytest.mark.fault(
    "Lists and annotations",
    "a listed name with .., a leading /, a backslash, a line end, or without .jpg",
    "one line that names the entry and what is expected",
)
@pytest.mark.parametrize(
    ("train", "labels", "message"),
    [
        ([TRAIN[0], *TRAIN], [1, 1, 1, 2], r"1 files are more than once in train_list\.mat: n1-a/n1_1\.jpg"),
        ([*TRAIN, TEST[0]], [1, 1, 2, 1], r"1 files are in train_list\.mat and in test_list\.mat: n1-a/n1_3\.jpg"),
        (TRAIN, [1, 1, 3], r"expected every label of 1\.\.3, 1 missing: 2"),
        (TRAIN, [1, 1, 0], "labels: expected integers from 1 on"),
        (TRAIN, [1, 1, 1.5], "labels: expected integers from 1 on"),
        (TRAIN, [1, 1, math.nan], "labels: expected integers from 1 on"),
        (TRAIN, [1, 1, math.inf], "labels: expected integers from 1 on"),
        (TRAIN, [1, 1, 4e9], r"labels: got 4000000000, expected none above 3, the number of images in train_list\.mat"),
        (TRAIN, [1, 1], r"labels: got 2, expected one per file \(3\)"),
        (TRAIN, [1, 2, 2], r"n1-a/n1_2\.jpg: label 2, but others of its folder have 1"),
        ([*TRAIN, "n3-d/n3_1.jpg"], [1, 1, 2, 1], r"n3-d/n3_1\.jpg: label 1 is also that of folder n1-a"),
        (["../n1_1.jpg"], [1], r"file_list: got '\.\./n1_1\.jpg', expected 'folder/name\.jpg'"),
        (["/n1_1.jpg"], [1], "expected 'folder/name"),
        (["a/b/n1_1.jpg"], [1], "expected 'folder/name"),
        (["n1-a\\n1_1.jpg"], [1], r"got 'n1-a\\\\n1_1\.jpg' with a backslash, expected 'folder/name"),
        (["n1-a/n1_1.jpg\n"], [1], r"got 'n1-a/n1_1\.jpg\\n' with a line end, expected 'folder/name"),
        (["n1-a/n1_1"], [1], "got 'n1-a/n1_1' without an ending, expected 'folder/name"),
        ([f"n1-a/{'x' * 260}.jpg"], [1], "xxx' and so on with a name of more than 255 bytes, expected 'folder/name"),
        ([], [], r"train_list\.mat: file_list: got no images"),
    ],
)
def test_bad_lists(root: Path, train: list[str], labels: list[float], message: str) -> None:
    write_list(root / "lists/train_list.mat", train, labels)
    assert_refused(root, message)


@pytest.mark.fault(
    "Lists and annotations", "blanks at the end of listed names", "taken for the padding that MATLAB writes"
)
def test_blanks_at_the_end_of_a_listed_name_are_padding(root: Path) -> None:
    write_list(root / "lists/train_list.mat", [f"{file}  " for file in TRAIN], [1, 1, 2])
    assert read_list(root / "lists/train_list.mat").files == TRAIN


@pytest.mark.fault(
    "Lists and annotations", "a list in MATLAB's format 7.3", "one line that says how to save it in the older one"
)
def test_a_list_of_the_newer_format_says_how_to_save_it(root: Path) -> None:
    path = root / "lists/train_list.mat"
    path.write_bytes(
        b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM".ljust(404, b"\0") + b"\x89HDF\r\n\x1a\n".ljust(600)
    )
    with pytest.raises(DatasetError, match=r"a MATLAB 7\.3 file, expected MATLAB 5; save it in MATLAB with save\("):
        read_list(path)


@pytest.mark.fault("Lists and annotations", "a list that is empty, cut off or something else", "one line")
def test_a_list_that_is_no_list(root: Path) -> None:
    path = root / "lists/train_list.mat"
    whole = path.read_bytes()
    for content in (b"", b"not a MATLAB file", whole[: len(whole) // 2], b"\x00" * 300):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"train_list\.mat: "):
            read_list(path)
    savemat(path, {"labels": np.ones((3, 1))})
    with pytest.raises(DatasetError, match="no field 'file_list'"):
        read_list(path)


# --- archives ---------------------------------------------------------------------------------------------------


def pack(root: Path) -> None:
    """Leave only archives in `root`, laid out as the official ones: lists.tar has no top folder."""
    with tarfile.open(root / "images.tar", "w") as tar:
        tar.add(root / "Images", "Images")
    with tarfile.open(root / "lists.tar", "w") as tar:
        for path in sorted((root / "lists").iterdir()):
            tar.add(path, path.name)
    shutil.rmtree(root / "Images")
    shutil.rmtree(root / "lists")


def test_archives_alone_are_not_unpacked_unasked(root: Path) -> None:
    pack(root)
    assert_refused(root, r"lists\.tar is there, unpack it with `dogs-accel download --data ")
    assert sorted(path.name for path in root.iterdir()) == ["images.tar", "lists.tar"]


def test_archives_are_unpacked_where_asked_for(root: Path) -> None:
    pack(root)
    with pytest.warns(UserWarning, match="the official archive has") as warned:
        data = open_dataset(root, unpack=True, progress=False)
    assert [str(warning.message).split(": ")[0] for warning in warned] == [
        str(root / name) for name in ("images.tar", "lists.tar")
    ]
    assert "the official archive has 793579520: unpacked without verifying it" in str(warned[0].message)
    assert data.ids == ["n1_1", "n1_2", "n2_1", "n1_3", "n2_2"]
    assert sorted(path.name for path in root.iterdir()) == ["Images", "images.tar", "lists", "lists.tar"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(open_dataset(root, unpack=True)) == 5


@pytest.mark.fault("Archives and checkpoints", "an official archive with other content", "refused by its checksum")
def test_an_archive_of_the_official_size_must_be_the_official_one(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "lists.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("train_list.mat"), io.BytesIO())
    with (tmp_path / "lists.tar").open("r+b") as file:
        file.truncate(ARCHIVES["lists"].size_bytes)
    with pytest.raises(DatasetError, match=rf"lists\.tar: sha256 is .*, expected {ARCHIVES['lists'].sha256}"):
        open_dataset(tmp_path, unpack=True)
    assert not (tmp_path / "lists").exists()


def test_official_lists_archive_unpacks_verified(shared_data: Path, tmp_path: Path) -> None:
    shutil.copy(shared_data / "stanford-dogs-lists/lists.tar", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DatasetNotFoundError, match="no Images folder"):
            open_dataset(tmp_path, unpack=True, check_files=False)
        assert len(open_stanford_dogs(tmp_path, check_files=False)) == 20_580
