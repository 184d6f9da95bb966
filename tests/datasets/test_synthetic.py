import colorsys
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from scipy.io import loadmat

from dogs_accel.datasets import DatasetError, open_dataset
from dogs_accel.datasets.cartoon import COATS, MAX_BREEDS, draw_animal, make_breeds
from dogs_accel.datasets.stanford_dogs import class_name
from dogs_accel.datasets.synthetic import SYNTHETIC_NOTICE, _turn, is_synthetic, write_synthetic

SMALL = {"num_classes": 3, "train_per_class": 6, "test_per_class": 3, "size_px": (48, 64), "progress": False}


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# --- breeds and pictures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_breeds", [1, 2, 12, 37, MAX_BREEDS])
def test_breeds_are_distinct_by_name_and_by_looks(num_breeds: int) -> None:
    breeds = make_breeds(num_breeds)
    assert len({breed.name for breed in breeds}) == num_breeds
    assert len({(breed.coat, breed.pattern, breed.ears) for breed in breeds}) == num_breeds


def test_twelve_breeds_are_six_pairs_of_one_coat_colour() -> None:
    breeds = make_breeds(12)
    assert [breed.coat for breed in breeds[::2]] == [breed.coat for breed in breeds[1::2]] == list(COATS.values())[:6]
    assert all(one.pattern != other.pattern for one, other in zip(breeds[::2], breeds[1::2], strict=True))


def test_names_exercise_dashes_and_underscores() -> None:
    names = [breed.name for breed in make_breeds(12)]
    assert class_name(f"n90000002-{names[1]}") == "Amber-and-white snorfle"
    assert any(name.startswith("Saddle-backed_") for name in names)


@pytest.mark.parametrize("num_breeds", [0, MAX_BREEDS + 1])
def test_number_of_breeds_is_limited(num_breeds: int) -> None:
    with pytest.raises(ValueError, match=rf"num_breeds: got {num_breeds}, expected an integer in 1\.\.120"):
        make_breeds(num_breeds)


def test_a_picture_follows_from_its_seed() -> None:
    breed = make_breeds(12)[3]
    (first, box), (again, box_again), (other, _) = (
        draw_animal(breed, (80, 60), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first.size == (80, 60)
    assert (first.tobytes(), box) == (again.tobytes(), box_again)
    assert first.tobytes() != other.tobytes()


def test_box_holds_the_animal_and_lies_in_the_picture() -> None:
    # Plain amber on backgrounds of low saturation: the saturated yellow pixels are the animal's.
    breed = make_breeds(12)[0]
    inside_share = []
    for seed in range(12):
        image, (xmin, ymin, xmax, ymax) = draw_animal(breed, (120, 90), np.random.default_rng(seed))
        assert 0 <= xmin < xmax <= 120
        assert 0 <= ymin < ymax <= 90
        hsv = np.asarray(image.convert("HSV")).astype(int)
        amber = (abs(hsv[:, :, 0] - 26) < 10) & (hsv[:, :, 1] > 170)
        inside_share.append(amber[ymin:ymax, xmin:xmax].sum() / max(1, amber.sum()))
        columns = np.flatnonzero(amber.sum(0) > 3)
        assert xmin - 2 <= columns.min()
        assert columns.max() <= xmax + 2
    assert np.mean(inside_share) > 0.98


def test_coat_colour_shows_in_the_middle_of_the_box() -> None:
    hues = []
    for breed in make_breeds(12)[0], make_breeds(12)[2], make_breeds(12)[10]:
        pixels = []
        for seed in range(20):
            image, (xmin, ymin, xmax, ymax) = draw_animal(breed, (96, 72), np.random.default_rng(seed))
            middle = image.crop((xmin, ymin, xmax, ymax)).resize((3, 3), Image.Resampling.BOX)
            pixels.append(middle.getpixel((1, 1)))
        red, green, blue = np.median(np.array(pixels), 0) / 255
        hues.append(colorsys.rgb_to_hsv(red, green, blue)[0] * 360)
    amber, slate, rosy = hues
    assert 25 < amber < 50
    assert 195 < slate < 245
    assert rosy > 340 or rosy < 20


# --- the set on disk --------------------------------------------------------------------------------------------


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
