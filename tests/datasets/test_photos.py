import pytest
from PIL import Image

from dogs_accel.datasets.photos import find_photos, spread


def test_images_are_picked_evenly():
    assert spread(range(10), 4) == [0, 2, 5, 7]
    assert spread(range(3), 512) == [0, 1, 2]
    assert spread("ab", 1) == ["a"]


def test_photos_are_spread_over_all_folders_in_order(tmp_path):
    for breed in "abcd":
        (tmp_path / breed).mkdir()
        for i in range(10):
            Image.new("RGB", (4, 4)).save(tmp_path / breed / f"{i}.{'JPG' if i % 2 else 'jpeg'}")
    paths = find_photos(tmp_path, 20)
    assert len(set(paths)) == 20
    assert paths == sorted(paths) == find_photos(tmp_path, 20)
    assert {path.split("/")[-2] for path in paths} == set("abcd")
    assert len(find_photos(tmp_path, 100)) == 40
    with pytest.raises(ValueError, match="is not a folder"):
        find_photos(tmp_path / "nothing", 1)
