"""Datasets that are recognised by their own layouts; nothing is decoded, so the photos of made ones are empty."""

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dogs_accel.datasets import LAYOUTS, DatasetError, DatasetNotFoundError, open_dataset
from dogs_accel.datasets.layouts.caltech256 import FOLDER, TRAIN_PER_CLASS
from dogs_accel.datasets.layouts.inaturalist import TAXA


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def counts(data):
    return Counter(zip(data.labels.tolist(), data.official_split, strict=True))


@pytest.fixture
def pets(tmp_path):
    root = touch(
        tmp_path / "pets", *(f"images/{name}.jpg" for name in ("Bengal_1", "Bengal_2", "beagle_3", "beagle_10"))
    )
    lists = root / "annotations"
    lists.mkdir()
    (lists / "list.txt").write_text("#Image CLASS-ID SPECIES BREED ID\n")
    (lists / "trainval.txt").write_text("Bengal_2 1 1 1\nbeagle_10 2 2 1\n")
    (lists / "test.txt").write_text("Bengal_1 1 1 1\nbeagle_3 2 2 1\n")
    return root


def test_pets_are_opened_by_their_lists(pets):
    data = open_dataset(pets)
    assert data.ids == ["Bengal_2", "beagle_10", "Bengal_1", "beagle_3"]
    assert data.labels.tolist() == [0, 1, 0, 1]
    assert (data.class_names, data.class_groups, data.noun) == (["Bengal", "beagle"], ["cat", "dog"], "breed")
    assert data.split("test").tolist() == [2, 3]
    assert data.facts.layout.endswith("1 breeds of cats and 1 breeds of dogs")
    assert open_dataset(pets, "oxford-iiit-pet").ids == data.ids
    assert data.facts.published == "oxford-iiit-pet"


def test_the_whole_of_pets_has_the_published_numbers(pets, shared_data):
    shutil.copytree(
        shared_data / "oxford-iiit-pet" / "annotations-full-lists", pets / "annotations", dirs_exist_ok=True
    )
    data = open_dataset(pets, check_files=False)
    assert (len(data), data.num_classes, data.facts.name) == (7_349, 37, "oxford-iiit-pet")
    assert Counter(data.official_split) == {"official_train": 3_680, "official_test": 3_669}
    assert Counter(data.class_groups) == {"cat": 12, "dog": 25}
    assert [len(data.split(part)) for part in ("train", "val", "test")] == [3_128, 552, 3_669]
    assert not set(data.split("val")) & set(data.split("test"))


def test_boxes_of_pets_are_those_of_their_annotations(shared_data):
    data = open_dataset(shared_data / "oxford-iiit-pet")
    boxed = [index for index in range(len(data)) if data.annotation_path(index) is not None]
    assert len(boxed) == 24
    assert data.boxes(data.ids.index("Abyssinian_101"), (450, 313)) == [(54, 36, 319, 235)]
    assert {data.official_split[index] for index in boxed} == {"official_train"}


@pytest.mark.fault(
    "Lists and annotations",
    "a list of Oxford-IIIT Pet with a wrong line, class or name",
    "one line that names the entry",
)
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("trainval.txt", "", "trainval.txt: got no images, expected some"),
        (
            "test.txt",
            "../../x_1 1 1 1",
            "test.txt: line 1: got '../../x_1 1 1 1', expected such as 'Abyssinian_101 1 1 1'",
        ),
        ("test.txt", "Bengal_1 1 1", "line 1: got 'Bengal_1 1 1', expected such as"),
        ("test.txt", "Bengal_1 0 1 1", "line 1: got 'Bengal_1 0 1 1', expected such as"),
        ("test.txt", "Bengal_1 1 3 1", "line 1: got species 3, expected 1 for a cat or 2 for a dog"),
        ("test.txt", "Bengal_1 2 1 1", "class 2 is beagle and Bengal is class 1 elsewhere in the lists"),
        ("test.txt", "Bengal_1 1 2 1", "Bengal_1: Bengal is a cat elsewhere in the lists"),
        ("test.txt", "Bengal_2 1 1 1", "1 images are more than once in trainval.txt and test.txt: Bengal_2"),
        ("test.txt", "pug_1 3 2 2", "trainval.txt: expected every class of 1..3, 1 missing: 3"),
        ("test.txt", "pug_1 999999999 2 2", "trainval.txt: expected every class of 1..999999999"),
        ("test.txt", "Bengal_7 1 1 1", "1 of 3 listed images are missing: Bengal_7.jpg"),
    ],
)
def test_a_wrong_list_of_pets_is_one_line(pets, name, text, message):
    (pets / "annotations" / name).write_text(text)
    with pytest.raises(DatasetError) as error:
        open_dataset(pets)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("gone", "message"),
    [("annotations/test.txt", "no annotations/test.txt"), ("images", "no folder images, expected the photos")],
)
def test_pets_without_a_part_are_no_folder_of_classes(pets, gone, message):
    path = pets / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DatasetNotFoundError, match=message):
        open_dataset(pets)


def test_caltech_has_so_many_of_a_class_for_training(tmp_path):
    files = [f"{FOLDER}/001.ak47/001_{n:04}.jpg" for n in range(98)] + [
        f"{FOLDER}/257.clutter/c{n}.jpg" for n in range(6)
    ]
    root = touch(tmp_path, *files, f"{FOLDER}/001.ak47/greg/x.jpg", f"{FOLDER}/257.clutter/RENAME2")
    data = open_dataset(root)
    assert data.class_names == ["ak47", "clutter"]
    assert counts(data) == {
        (0, "official_train"): TRAIN_PER_CLASS, (0, "official_test"): 38, (1, "official_train"): 4,
        (1, "official_test"): 2,
    }  # fmt: skip
    assert data.facts.left_out == {"file in a folder below": 1, "file of another kind": 1}
    assert "4 to 60 a class are for training" in data.facts.layout
    assert data.ids[0] == "001.ak47/001_0000"
    assert data.facts.published == "caltech-256"
    again = open_dataset(root / FOLDER)
    assert again.official_split == data.official_split
    assert not np.intersect1d(data.split("train", seed=3, val_ratio=0.3), data.split("test", seed=3)).size


@pytest.mark.fault(
    "Folders and names", "Caltech-256 with one class, or with a class of one photo", "one line that names it"
)
def test_too_little_of_caltech_is_one_line(tmp_path):
    root = touch(tmp_path, *(f"{FOLDER}/001.ak47/{n}.jpg" for n in range(3)))
    with pytest.raises(DatasetError, match=rf"{FOLDER}: got one class, '001\.ak47', expected at least 2$"):
        open_dataset(root)
    touch(root, f"{FOLDER}/002.bear/1.jpg", f"{FOLDER}/003.cat/1.jpg")
    with pytest.raises(DatasetError, match=r"002\.bear and 1 more: got one photo, expected at least 2, for training"):
        open_dataset(root)
    touch(root, f"{FOLDER}/002.bear/2.jpg", f"{FOLDER}/003.cat/2.jpg")
    assert Counter(open_dataset(root).official_split) == {"official_train": 4, "official_test": 3}


def test_in_inaturalist_val_is_the_test_part(tmp_path):
    files = [f"inaturalist_12K/{part}/{name}/{n}.jpg" for part in ("train", "val") for name in TAXA for n in range(10)]
    data = open_dataset(touch(tmp_path, *files))
    assert data.class_names == list(TAXA)
    assert data.facts.published == "inaturalist-12k"
    assert Counter(data.official_split) == {"official_train": 100, "official_test": 100}
    parts = {part: data.split(part, val_ratio=0.2) for part in ("train", "val", "test")}
    assert {part: len(index) for part, index in parts.items()} == {"train": 80, "val": 20, "test": 100}
    assert set(Counter(data.labels[parts["val"]].tolist()).values()) == {2}
    assert {Path(data.paths[i]).parts[-3] for i in parts["test"]} == {"val"}
    shutil.rmtree(tmp_path / "inaturalist_12K" / "val" / "Aves")  # one without a test image changes no part
    assert Counter(open_dataset(tmp_path).official_split) == {"official_train": 100, "official_test": 90}
    touch(tmp_path / "inaturalist_12K", "train/__MACOSX/._1.jpg", "val/__MACOSX/._1.jpg", "train/notes.txt")
    assert open_dataset(tmp_path).facts.name == "inaturalist-12k"  # else val/ would be validation
    # With another class, or a test part of its own, it is any folder of classes.
    (tmp_path / "inaturalist_12K" / "train" / "Protozoa").mkdir()
    assert open_dataset(tmp_path / "inaturalist_12K").facts.layout.startswith("class folders in train/ and val/")


def test_cats_and_dogs_have_their_class_in_their_names(tmp_path):
    labelled = [f"train/{name}.{n}.jpg" for name in ("cat", "dog") for n in (0, 2, 10)]
    data = open_dataset(touch(tmp_path, *labelled, "test1/1.jpg", "test1/2.jpg", "train/.DS_Store"))
    assert data.ids == ["cat.0", "cat.2", "cat.10", "dog.0", "dog.2", "dog.10"]
    assert data.facts.published == "cats-and-dogs"
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert set(data.official_split) == {"none"}
    assert data.facts.left_out == {"hidden file": 1, "photo without a label in test folders": 2}


@pytest.mark.fault(
    "Folders and names",
    "a few other files and folders among the photos of cats and dogs",
    "the photos are opened; the others are left out and counted",
)
def test_cats_and_dogs_have_others_among_them(tmp_path):
    labelled = [f"train/{name}.{n}.jpg" for name in ("cat", "dog") for n in range(3)]
    data = open_dataset(touch(tmp_path, *labelled, "train/readme.txt", "train/x.jpg", "train/old/cat.0.jpg"))
    assert (len(data), data.class_names) == (6, ["cat", "dog"])
    assert data.facts.left_out == {
        "file in a folder below": 1, "file of another kind": 1, "photo whose name has no class": 1,
    }  # fmt: skip
    # Photos beside more class folders than there are of them are none of Kaggle's.
    data = open_dataset(touch(tmp_path / "other", *labelled[::3], *(f"train/{n}/1.jpg" for n in "abc"), "test/a/2.jpg"))
    assert data.facts.layout == "class folders in train/ and test/"


def test_photos_that_differ_in_their_ending_alone_are_two(tmp_path):
    files = [f"train/{name}.{n}.{ending}" for name in ("cat", "dog") for n in (0, 1) for ending in ("jpg", "png")]
    data = open_dataset(touch(tmp_path / "cats", *files))
    assert data.ids == [Path(path).name for path in data.paths]
    assert len(set(data.ids)) == len(data.ids) == 8
    files = [f"{FOLDER}/{name}/1.{ending}" for name in ("001.ak47", "002.bear") for ending in ("jpg", "png")]
    data = open_dataset(touch(tmp_path / "caltech", *files))
    assert data.ids == ["001.ak47/1.jpg", "001.ak47/1.png", "002.bear/1.jpg", "002.bear/1.png"]


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "class-folders"])
def test_a_layout_that_is_named_and_not_there_is_one_line(tmp_path, layout):
    with pytest.raises(DatasetNotFoundError) as error:
        open_dataset(tmp_path, layout)
    assert str(error.value).startswith(str(tmp_path))
    with pytest.raises(DatasetNotFoundError, match="no such folder, expected the folder of the dataset"):
        open_dataset(tmp_path / "nowhere", layout)


def test_folders_that_only_look_alike_are_class_folders(tmp_path):
    root = touch(tmp_path, "images/a/1.jpg", "images/b/1.jpg")
    assert open_dataset(root / "images").facts.layout == "class folders, no parts"
    root = touch(tmp_path / "other", "train/cat/cat.0.jpg", "train/dog/dog.0.jpg", "test/cat/cat.1.jpg")
    assert open_dataset(root).facts.layout == "class folders in train/ and test/"


def test_an_annotation_is_called_as_the_layout_says(pets):
    data = dataclasses.replace(open_dataset(pets), annotation_dir=pets / "images", annotation_name="{stem}.jpg")
    assert data.annotation_path(0) == pets / "images" / "Bengal_2.jpg"
