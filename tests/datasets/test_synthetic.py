import json
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from scipy.io import loadmat

from dogs_accel.datasets import DatasetError, open_dataset
from dogs_accel.datasets.cartoon import draw_animal, make_breeds
from dogs_accel.datasets.synthetic import SYNTHETIC_NOTICE, _turn, is_synthetic, write_synthetic

SMALL = {"num_classes": 3, "train_per_class": 6, "test_per_class": 3, "size_px": (48, 64), "progress": False}


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
