import contextlib
import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dogs_accel.datasets import LAYOUTS, DatasetError, DatasetNotFoundError, open_dataset
from dogs_accel.datasets.layouts.class_folders import class_names
from dogs_accel.datasets.splits import SPLITS
from pipelines.decoding.files import decode_files
from tests.support.fuzzing import fuzz, value_or_line
from tests.support.untidy_folder import CLASSES, LEFT_OUT, write_untidy_folder


def touch(root: Path, *files: str) -> Path:
    """Write empty files: opening a dataset looks at names, not into files."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def many(folder: str, num: int = 10) -> list[str]:
    return [f"{folder}/{i}.jpg" for i in range(num)]


def test_one_level_is_carved_in_each_class_alike(tmp_path):
    data = open_dataset(touch(tmp_path, *many("cat", 20), *many("dog", 30)))
    assert (data.class_names, data.noun, data.facts.layout) == (["cat", "dog"], "class", "class folders, no parts")
    assert (data.facts.name, data.facts.published, data.facts.notice) == (tmp_path.name, None, None)
    assert set(data.official_split) == {"none"}
    splits = {name: data.split(name) for name in SPLITS}
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(50))
    assert [np.bincount(data.labels[splits[name]]).tolist() for name in ("test", "val")] == [[4, 6], [2, 4]]
    assert data.split("test", seed=1).tolist() != splits["test"].tolist() == data.split("test").tolist()
    assert len(data.split("test", test_ratio=0.5)) == 25


@pytest.mark.parametrize(
    ("parts", "official", "sizes"),
    [
        (("train", "val", "test"), "official_train official_val official_test", [20, 20, 20]),
        (("Training", "TEST"), "official_train official_test", [17, 3, 20]),
        (("train", "valid"), "official_train official_val", [16, 20, 4]),
    ],
)
def test_parts_by_their_folders(tmp_path, parts, official, sizes):
    touch(tmp_path, *(file for part in parts for name in "ab" for file in many(f"{part}/{name}")))
    data = open_dataset(tmp_path)
    assert list(dict.fromkeys(data.official_split)) == official.split()
    assert [len(data.split(name)) for name in SPLITS] == sizes
    *others, last = (f"{part}/" for part in parts)
    assert data.facts.layout == f"class folders in {', '.join(others)} and {last}"
    assert len(set(data.ids)) == len(data) == 20 * len(parts)  # every part has a/0.jpg
    assert data.ids[0] == f"{parts[0]}/a/0.jpg" == data.relative_path(0)


@pytest.mark.fault(
    "Folders and names",
    "`._x.jpg`, `.DS_Store`, hidden folders, a folder called dir.jpg, other files",
    "left out by one rule and counted",
)
def test_the_untidy_is_left_out_by_rule_and_counted(tmp_path):
    data = open_dataset(write_untidy_folder(tmp_path))
    assert data.class_names == sorted(CLASSES)
    assert dict(data.facts.left_out) == LEFT_OUT
    assert np.bincount(data.labels).tolist() == [10] * len(CLASSES)
    assert len(set(data.ids)) == 50
    assert {"001/0.JPG", "001/1.jpeg", "001/more/deep/2.Png"} < set(data.ids)
    assert all(Path(path).is_file() for path in data.paths)


@pytest.mark.fault(
    "Folders and names",
    "links, also such that lead back or to the whole disk",
    "followed once; those that lead back are not",
)
def test_links_that_lead_back_are_not_followed(tmp_path):
    root = tmp_path / "root"
    touch(root, *(file for part in ("train", "test") for name in "ab" for file in many(f"{part}/{name}")))
    whole = open_dataset(root).ids
    (root / "train" / "a" / "up").symlink_to("../..", target_is_directory=True)  # the root: test photos in train
    (root / "train" / "a" / "part").symlink_to("..", target_is_directory=True)
    (root / "train" / "dot").symlink_to(".", target_is_directory=True)
    (root / "train" / "all").symlink_to("/", target_is_directory=True)
    (root / "test" / "b" / "here").symlink_to(".", target_is_directory=True)
    touch(tmp_path, "elsewhere/extra.jpg")
    (tmp_path / "elsewhere" / "back").symlink_to(root / "train" / "a", target_is_directory=True)
    (root / "train" / "a" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert set(open_dataset(root).ids) == {*whole, "train/a/linked/extra.jpg"}


@pytest.mark.fault(
    "Folders and names",
    "pipes, and links to nothing or to themselves",
    "pipes are left out; the links are bad photos, named with the reason",
)
def test_what_is_no_regular_file_is_left_out_and_links_to_nothing_are_bad_photos(tmp_path):
    touch(tmp_path, *many("a"), *many("b"))
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a" / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "b" / "gone.jpg").symlink_to("nowhere.jpg")
    data = open_dataset(tmp_path)
    assert set(data.ids) == {*many("a"), *many("b"), "a/loop.jpg", "b/gone.jpg"}
    assert dict(data.facts.left_out) == {"file of another kind": 2}
    found = {file.path: file.problem for files in decode_files(data.paths) for file in files}
    assert "symbolic links" in found[str(tmp_path / "a" / "loop.jpg")]
    assert "No such file" in found[str(tmp_path / "b" / "gone.jpg")]


@pytest.mark.fault(
    "Folders and names",
    "one class whose letters are composed in two ways (é as one letter or two)",
    "one class over all parts; side by side in one part refused by name",
)
def test_letters_composed_in_two_ways_are_one_class(tmp_path):
    data = open_dataset(write_untidy_folder(tmp_path, parts=("train", "test")))
    assert data.num_classes == len(CLASSES)
    assert [len(data.split(name)) for name in SPLITS] == [42, 8, 50]
    both = tmp_path / "train"
    touch(both, f"{unicodedata.normalize('NFD', 'café')}/x.jpg")
    with pytest.raises(DatasetError, match="two class folders are called 'café'"):
        open_dataset(tmp_path)


@pytest.mark.fault(
    "Folders and names", "folders beside train/ and test/, photos in no class folder", "left out and counted"
)
def test_folders_beside_the_parts_are_no_classes(tmp_path):
    touch(tmp_path, *(file for part in ("train", "test") for name in "ab" for file in many(f"{part}/{name}")))
    touch(tmp_path, "unlabelled/1.jpg", "train/loose.jpg", "readme.md")
    data = open_dataset(tmp_path)
    assert data.class_names == ["a", "b"]
    assert dict(data.facts.left_out) == {
        "file of another kind": 1,
        "folder beside the parts": 1,
        "photo in no class folder": 1,
    }


def test_classes_may_be_called_like_parts(tmp_path):
    data = open_dataset(touch(tmp_path, *many("train"), *many("test"), *many("bus")))
    assert data.class_names == ["bus", "test", "train"]
    assert data.facts.layout == "class folders, no parts; as classes: test, train"


@pytest.mark.fault(
    "Folders and names",
    "no photos, one class, or a class without a training photo",
    "one line that says what is missing and where to point instead",
)
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], r"no photo in class folders, looked for <class>/\*\{\.jpg,.*and for the lists of Stanford Dogs"),
        (["a.jpg", "b.jpg"], "no photo in class folders"),
        (many("cat"), r"got one class, 'cat', expected at least 2$"),
        ([*many("train/cat"), *many("test/cat")], r"got one class, 'cat', expected at least 2$"),
        (many("e\u0301"), r"got one class, 'é', expected at least 2$"),
        (
            [*many("data/cat"), *many("data/dog")],
            r"got one class, 'data', expected at least 2; name .*/data for the folders in it$",
        ),
        ([*many("train/a"), *many("train/b"), *many("test/a"), *many("test/c")], "c has no photo in the training part"),
        ([*many("val/a"), *many("val/b"), *many("test/a")], "got test, val without train"),
        (
            [*many("train/a"), *many("train/b"), *many("val/a"), *many("valid/b")],
            "got val, valid, expected one folder of this part",
        ),
    ],
)
def test_what_cannot_be_learned_is_one_clear_line(tmp_path, files, message):
    with pytest.raises(DatasetError, match=message) as caught:
        open_dataset(touch(tmp_path, *files))
    assert "\n" not in str(caught.value)


@pytest.mark.fault(
    "Folders and names", "a class with too few photos to be in every part", "one line that names it and what it needs"
)
def test_a_class_of_too_few_photos_is_named(tmp_path):
    data = open_dataset(touch(tmp_path, *many("a", 40), "b/1.jpg"))
    with pytest.raises(ValueError, match=r"class 'b': got 1 training image, expected at least .* in test .*test_ratio"):
        data.split("train")


def test_layouts_by_name(tmp_path):
    touch(tmp_path, *many("Images/a"), *many("Images/b"), *many("Annotation/a"))
    with pytest.raises(DatasetNotFoundError, match=r"no train_list\.mat"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path / "Images").class_names == ["a", "b"]
    assert open_dataset(tmp_path, "class-folders").class_names == ["Annotation", "Images"]
    with pytest.raises(ValueError, match=f"layout: got 'class-folder', expected one of {', '.join(LAYOUTS)}"):
        open_dataset(tmp_path, "class-folder")


@pytest.mark.fault(
    "Folders and names",
    "folders such as German-shepherd, n1-crane, or n02085782- with nothing behind it",
    "the whole name is the class; only a WordNet id before a name is dropped",
)
def test_only_a_wordnet_id_is_dropped_and_only_behind_one_are_underscores_spaces():
    folders = ["n02085782-Japanese_spaniel", "n02086240-Shih-Tzu", "German-shepherd", "n1-crane", "fox_terrier", "001"]
    assert class_names(folders) == ["Japanese spaniel", "Shih-Tzu", "German-shepherd", "n1-crane", "fox_terrier", "001"]
    assert class_names(["n02085782", "n02085782-", "NA", "1e5"]) == ["n02085782", "n02085782-", "NA", "1e5"]


@pytest.mark.fault(
    "Folders and names",
    "two class folders of one name (n02012849-crane, n03126707-crane)",
    "told apart from the opening on: crane (n02012849)",
)
def test_names_are_unique():
    folders = ["n02012849-crane", "n03126707-crane", "crane", "n02085782-owl"]
    assert class_names(folders) == ["crane (n02012849)", "crane (n03126707)", "crane", "owl"]
    awkward = ["n02012849-crane", "n03126707-crane", "crane (n02012849)"]
    assert class_names(awkward) == awkward


@pytest.mark.fault(
    "Folders and names",
    "names of folders with line ends, terminal escapes or bytes that are not UTF-8",
    "escaped in every line; what is not UTF-8 is refused by name before anything is decoded",
)
def test_odd_names_of_folders_are_one_line(tmp_path):
    data = open_dataset(touch(tmp_path, *many("train"), *many("test"), *many("a\nb\x1b[31m")))
    assert data.facts.lines() == ["layout   class folders, no parts; as classes: test, train"]
    touch(
        tmp_path / "parts",
        *many("train\n/a"),
        *many("train/a"),
        *many("train/b\nc"),
        *many("test/a"),
        "test/d\re/1.jpg",
    )
    with pytest.raises(DatasetError, match=r"parts: d\\re has no photo in the training part") as caught:
        open_dataset(tmp_path / "parts")
    assert "\r" not in str(caught.value)
    like_parts = touch(tmp_path / "like", *many("TRAIN"), *many("tesT"), *many("ok"))
    assert open_dataset(like_parts).facts.layout_lines() == [
        "layout   class folders, no parts; as classes: TRAIN, tesT"
    ]


def test_names_that_are_not_utf_8_are_refused_before_anything_is_decoded(tmp_path):
    with pytest.raises(DatasetError, match=r"b\\udcff/0\.jpg': a name that is not UTF-8, expected names in UTF-8"):
        open_dataset(touch(tmp_path, *many("a"), *many("b\udcff")))


ODD = [
    "train", "Test", "val", "a", "b", "n02085782-x", "n02085783-x", "e\u0301", "\u00e9", "$x^2$", "a\nb", "\x1b[31m",
    "\udcff", ".hidden", "__MACOSX", "Images", "Annotation", "lists", "dir.jpg", " ",
]  # fmt: skip
FILES = ["1.jpg", "2.PNG", "._1.jpg", "notes.txt", "train_list.mat", "images.tar", "3.jpg\n", "\udcfe.jpg"]
trees = st.lists(
    st.tuples(st.lists(st.sampled_from(ODD), max_size=3), st.sampled_from(FILES), st.sampled_from("ffffl")), max_size=24
)


@fuzz(30)
@given(tree=trees)
def test_any_tree_of_folders_is_a_dataset_or_one_line(tmp_path_factory, tree):
    root = tmp_path_factory.mktemp("tree")
    for folders, name, kind in tree:
        path = root.joinpath(*folders)
        with contextlib.suppress(OSError):  # where an earlier one is in the way
            path.mkdir(parents=True, exist_ok=True)
            if kind == "f":
                (path / name).touch()
            else:
                (path / name).symlink_to(root if name.endswith("g") else path / name)
    data, line = value_or_line(lambda: open_dataset(root))
    shutil.rmtree(root)
    if data is None:
        assert str(root) in line
        return
    assert len(set(data.ids)) == len(data.ids) == len(data.paths) == len(data.labels) == len(data.official_split)
    assert len(set(data.class_names)) == data.num_classes == len(data.folder_names) >= 2
    assert set(data.labels.tolist()) <= set(range(data.num_classes))
    assert not any("\n" in each or "\x1b" in each for each in data.facts.lines())
    assert all(
        path.startswith(f"{root}/") and path[len(str(root)) + 1 :] == i
        for path, i in zip(data.paths, data.ids, strict=True)
    )
