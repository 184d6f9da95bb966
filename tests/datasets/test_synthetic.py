import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from scipy.io import loadmat

from dogs_accel.datasets import DatasetError, open_dataset
from dogs_accel.datasets.cartoon import draw_animal, make_breeds
from dogs_accel.datasets.synthetic import SYNTHETIC_NOTICE, is_synthetic, write_synthetic
from dogs_accel.datasets.synthetic.pictures import _turn

SMALL = {"num_classes": 3, "train_per_class": 6, "test_per_class": 3, "size_px": (48, 64), "progress": False}

LISTS_DIGEST = "ed098124a9ddc32eed215824a33500ff65f000e9cbe1d758ef5e7b20c3f7622c"


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_layout_and_lists(dogs_root: Path) -> None:
    assert sorted(path.name for path in dogs_root.iterdir()) == [
        "Annotation",
        "Images",
        "README.txt",
        "lists",
        "synthetic.json",
    ]
    data = open_dataset(dogs_root)
    listed = loadmat(dogs_root / "lists/file_list.mat")
    assert sorted(cell.item() for cell in listed["file_list"].ravel()) == sorted(
        f"{path.parent.name}/{path.name}" for path in map(Path, data.paths)
    )
    assert listed["annotation_list"][0, 0].item() + ".jpg" == listed["file_list"][0, 0].item()
    assert (listed["labels"].shape, listed["labels"].dtype) == ((72, 1), np.uint8)
    assert set(listed["labels"].ravel().tolist()) == {1, 2, 3, 4}
    assert data.folder_names[0] == "n90000001-Amber_quizzle"
    assert (dogs_root / "README.txt").read_text().startswith(SYNTHETIC_NOTICE)
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [40, 8, 24]


def test_lists_have_the_structure_of_the_official_ones(dogs_root: Path, shared_data: Path) -> None:
    for name in ("train_list.mat", "test_list.mat", "file_list.mat"):
        ours = loadmat(dogs_root / "lists" / name)
        official = loadmat(shared_data / "stanford-dogs-crops/lists" / name)
        assert {key for key in ours if key[0] != "_"} == {key for key in official if key[0] != "_"}
        for key in ("file_list", "annotation_list", "labels"):
            assert ours[key].dtype == official[key].dtype
            assert ours[key].shape[1] == official[key].shape[1] == 1
        assert ours["file_list"][0, 0].shape == official["file_list"][0, 0].shape


def test_files_are_what_the_real_set_has(dogs_root: Path) -> None:
    data = open_dataset(dogs_root)
    formats, modes, orientations = [], [], []
    for index, path in enumerate(data.paths):
        with Image.open(path) as image:
            image.load()
            formats.append(image.format)
            modes.append(image.mode)
            orientations.append(image.getexif().get(ExifTags.Base.Orientation))
            assert 64 <= max(image.size) <= 128
            annotation = (dogs_root / "Annotation" / Path(path).parent.name / Path(path).stem).read_text()
            assert f"<width>{image.width}</width>\n\t\t<height>{image.height}</height>" in annotation
            boxes = data.boxes(index)
            assert boxes is not None
            (xmin, ymin, xmax, ymax) = boxes[0]
            assert 0 <= xmin < xmax <= image.width
            assert 0 <= ymin < ymax <= image.height
    assert (formats.count("PNG"), formats.count("JPEG")) == (1, 71)
    assert (modes.count("L"), modes.count("RGB")) == (2, 70)
    assert sorted(tag for tag in orientations if tag is not None) == [6, 8]


@pytest.mark.parametrize("kind", ["turned_left", "turned_right"])
def test_turned_pictures_stand_upright_by_their_orientation(tmp_path: Path, kind: str) -> None:
    upright, box = draw_animal(make_breeds(12)[1], (80, 60), np.random.default_rng(4))
    turned, turned_box, exif = _turn(upright, box, kind)
    turned.save(tmp_path / "turned.png", exif=exif)
    turned.crop(turned_box).save(tmp_path / "animal.png", exif=exif)
    assert turned.size == (60, 80)
    for name, expected in (("turned.png", upright), ("animal.png", upright.crop(box))):
        with Image.open(tmp_path / name) as image:
            shown = ImageOps.exif_transpose(image)
        assert shown.size == expected.size
        assert shown.tobytes() == expected.tobytes()


def test_same_parameters_same_bytes_however_many_processes(tmp_path: Path) -> None:
    one = write_synthetic(tmp_path / "one", **SMALL, num_workers=1)
    two = write_synthetic(tmp_path / "two", **SMALL, num_workers=2)
    assert content(one) == content(two)
    other = write_synthetic(tmp_path / "other", **SMALL, seed=1, num_workers=1)
    assert content(one).keys() != content(other).keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other", "two"]


def test_a_set_with_the_same_parameters_is_reused(tmp_path: Path) -> None:
    root = write_synthetic(tmp_path / "set", **SMALL)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert write_synthetic(tmp_path / "set", **SMALL) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_another_set_or_anything_else_is_never_overwritten(tmp_path: Path) -> None:
    root = write_synthetic(tmp_path / "set", **SMALL)
    before = content(root)
    with pytest.raises(DatasetError, match=r"holds another synthetic set .*'seed': 0.*'seed': 5"):
        write_synthetic(root, **SMALL, seed=5)
    (root / "synthetic.json").write_text(json.dumps([1]))
    with pytest.raises(DatasetError, match="holds another synthetic set"):
        write_synthetic(root, **SMALL)
    (root / "synthetic.json").unlink()
    with pytest.raises(DatasetError, match="holds something else, expected an empty or a new folder"):
        write_synthetic(root, **SMALL)
    assert content(root).keys() == before.keys() - {"synthetic.json"}


def test_an_empty_folder_is_filled_and_marked(tmp_path: Path) -> None:
    assert not is_synthetic(tmp_path)
    (tmp_path / "set").mkdir()
    root = write_synthetic(tmp_path / "set", **SMALL)
    assert is_synthetic(root)
    marker = json.loads((root / "synthetic.json").read_text())
    assert marker["notice"] == SYNTHETIC_NOTICE
    assert marker["parameters"] == {
        "num_classes": 3,
        "train_per_class": 6,
        "test_per_class": 3,
        "seed": 0,
        "size_px": [48, 64],
    }


def test_nothing_is_left_where_drawing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="no space left"):
        write_synthetic(tmp_path / "set", **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_classes", 1),
        ("num_classes", 121),
        ("train_per_class", 0),
        ("test_per_class", 0),
        ("seed", -1),
        ("size_px", (64, 32)),
        ("size_px", (8, 64)),
        ("size_px", (64, 4096)),
        ("size_px", (64,)),
    ],
)
def test_bad_parameters(tmp_path: Path, field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{field}: got "):
        write_synthetic(tmp_path / "set", **{**SMALL, field: value})
    assert list(tmp_path.iterdir()) == []


# --- the other layouts ------------------------------------------------------------------------------------------

OTHERS = {
    # layout: (classes, pixels, the folders at its top, its facts' noun, training and test images of 7 and 4 a class)
    "oxford-iiit-pet": (5, (48, 64), {"annotations", "images"}, "breed", 35, 20),
    "caltech-256": (4, (48, 64), {"256_ObjectCategories"}, "class", 28, 16),
    "cifar-10": (10, (32, 32), {"cifar-10-batches-py", "cifar-10-png"}, "class", 70, 40),
    "inaturalist-12k": (10, (48, 64), {"inaturalist_12K"}, "class", 70, 40),
    "cats-and-dogs": (2, (48, 64), {"train"}, "class", 22, 0),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("generated")
    return {
        layout: write_synthetic(
            folder / layout, layout=layout, num_classes=num_classes, train_per_class=7, test_per_class=4,
            size_px=size_px, num_workers=1, progress=False,
        )
        for layout, (num_classes, size_px, *_) in OTHERS.items()
    }  # fmt: skip


@pytest.mark.parametrize("layout", OTHERS)
def test_the_opener_of_a_layout_reads_the_set_and_says_that_it_is_generated(made: dict[str, Path], layout: str) -> None:
    num_classes, _, folders, noun, num_train, num_test = OTHERS[layout]
    data = open_dataset(made[layout], unpack=True, progress=False)
    assert {path.name for path in made[layout].iterdir() if path.is_dir()} == folders
    assert (data.num_classes, data.noun, data.facts.left_out) == (num_classes, noun, {})
    official = data.official_split
    parts = official.count("official_train") + official.count("none"), official.count("official_test")
    assert parts == (num_train, num_test)
    assert (data.facts.name, data.facts.published, data.facts.notice_title) == (
        f"synthetic-{layout}", None, "Generated pictures",
    )  # fmt: skip
    assert data.facts.title.startswith("generated pictures in place of ")
    assert data.facts.lines()[0].startswith("These are generated pictures of invented animals, not those of ")
    assert json.loads((made[layout] / "synthetic.json").read_text())["parameters"]["layout"] == layout
    with Image.open(data.paths[0]) as image:
        assert 32 <= min(image.size) <= max(image.size) <= 64


def test_a_folder_of_a_generated_set_is_generated_too(made: dict[str, Path]) -> None:
    taxa = made["inaturalist-12k"] / "inaturalist_12K"
    assert open_dataset(taxa).facts.name == "synthetic-inaturalist-12k"
    notice = open_dataset(taxa / "train").facts.notice
    assert notice is not None
    assert notice.startswith("These are generated pictures")
    assert open_dataset(taxa.parents[1] / "caltech-256" / "256_ObjectCategories").facts.notice is not None


def test_pets_have_lists_kinds_and_boxes_of_their_training_images(made: dict[str, Path]) -> None:
    data = open_dataset(made["oxford-iiit-pet"])
    assert data.class_groups == ["cat", "cat", "dog", "dog", "dog"]
    assert data.class_names == [
        "Amber quizzle", "Amber-and-white snorfle", "slate spotted snorfle", "slate brindle wumpet",
        "cream-and-white wumpet",
    ]  # fmt: skip
    listed = (made["oxford-iiit-pet"] / "annotations" / "list.txt").read_text().splitlines()
    assert listed[0] == "#Image CLASS-ID SPECIES BREED ID"
    assert listed[2] == "Amber_quizzle_1 1 1 1"
    assert listed[2 + 2 * 11] == "slate_spotted_snorfle_1 3 2 1"
    with_boxes = [index for index in range(len(data)) if data.boxes(index) is not None]
    assert [data.official_split[index] for index in with_boxes] == ["official_train"] * 35
    with Image.open(data.paths[0]) as image:
        assert len(data.boxes(0, image.size) or []) == 1


def test_the_last_category_is_clutter(made: dict[str, Path]) -> None:
    folders = sorted(path.name for path in (made["caltech-256"] / "256_ObjectCategories").iterdir())
    assert folders == ["001.amber-quizzle", "002.amber-and-white-snorfle", "003.slate-spotted-snorfle", "257.clutter"]


def test_the_batches_are_as_the_published_ones(made: dict[str, Path]) -> None:
    folder = made["cifar-10"] / "cifar-10-batches-py"
    assert sorted(path.name for path in folder.iterdir()) == [
        "batches.meta", *(f"data_batch_{number}" for number in range(1, 6)), "test_batch",
    ]  # fmt: skip
    content = pickle.loads((folder / "data_batch_1").read_bytes(), encoding="bytes")
    assert sorted(content) == [b"batch_label", b"data", b"filenames", b"labels"]
    assert (content[b"data"].shape, content[b"data"].dtype, len(content[b"labels"])) == ((14, 3072), np.uint8, 14)
    assert len(set(content[b"labels"])) > 1  # classes are mixed, as there
    data = open_dataset(made["cifar-10"], unpack=True, progress=False)
    [path] = [path for path in data.paths if path.endswith(content[b"filenames"][0].decode())]
    pixels = np.asarray(Image.open(path)).transpose(2, 0, 1).reshape(-1)
    np.testing.assert_array_equal(pixels, content[b"data"][0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layout": "cifar"}, r"layout: got 'cifar', expected one of .* \(did you mean 'cifar-10'\?\)"),
        ({"layout": "cifar-10", "num_classes": 10}, r"size_px: got \(48, 64\), expected \(32, 32\) of CIFAR-10"),
        ({"layout": "inaturalist-12k"}, r"num_classes: got 3, expected an integer in 10\.\.10"),
        ({"layout": "cats-and-dogs"}, r"num_classes: got 3, expected an integer in 2\.\.2"),
    ],
)
def test_what_a_layout_cannot_have_is_refused(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_synthetic(tmp_path / "set", **{**SMALL, **given})


def test_the_set_that_was_there_first_is_as_it_was(dogs_root: Path) -> None:
    """Its folder in the cache of whoever has made it already is the same, to the last byte."""
    marker = json.loads((dogs_root / "synthetic.json").read_text())
    assert sorted(marker["parameters"]) == ["num_classes", "seed", "size_px", "test_per_class", "train_per_class"]
    annotation = min(path for path in (dogs_root / "Annotation").rglob("*") if path.is_file()).read_bytes()
    lists = (dogs_root / "lists" / "train_list.mat").read_bytes()
    assert hashlib.sha256(lists).hexdigest() == LISTS_DIGEST
    assert annotation.startswith(b"<annotation>\n\t<folder>90000001</folder>\n\t<filename>n90000001_")
