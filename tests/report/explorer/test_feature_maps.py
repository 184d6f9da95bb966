import base64
import io
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from dogs_accel.explain.inside.inspection import FEATURE_MAP_ARRAYS_FILE, FEATURE_MAPS_FILE
from dogs_accel.report.explorer.feature_maps import coloured_maps, feature_map_data
from dogs_accel.report.explorer.media import Media
from dogs_accel.report.summary import run_views
from dogs_accel.results.folder import read_runs_folder
from dogs_accel.runtime.files import read_json, write_json


def view_of(folder):
    return run_views([read_runs_folder(folder)])[0]


def pixels(media, number):
    content = base64.b64decode(media.inside()[number].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.fixture
def copy(tiny_results, tmp_path):
    return Path(shutil.copytree(tiny_results, tmp_path / "run"))


def test_maps_are_coloured_without_a_loss():
    levels = np.random.default_rng(0).integers(256, size=(3, 4, 5, 7), dtype=np.uint8)
    shown = np.asarray(Image.open(io.BytesIO(coloured_maps(levels))).convert("RGB"))
    assert shown.shape == (3 * 5, 4 * 7, 3)
    expected = np.rint(255 * matplotlib.colormaps["inferno"](levels[2, 1])[..., :3])
    assert np.array_equal(shown[2 * 5 :, 7:14], expected)


def test_each_stage_has_the_maps_that_the_run_has_kept(tiny_results):
    view, media = view_of(tiny_results), Media()
    data = feature_map_data(view, media)
    content = read_json(view.run.folder / FEATURE_MAPS_FILE)
    assert data["ids"] == [image["id"] for image in content["images"]]
    assert [stage["name"] for stage in data["stages"]] == [stage["name"] for stage in content["stages"]]
    with np.load(view.run.folder / FEATURE_MAP_ARRAYS_FILE) as arrays:
        for number, stage in enumerate(data["stages"]):
            active, separating = arrays[f"active_{number}"], arrays[f"separating_{number}"]
            shown, side = pixels(media, stage["picture"]), active.shape[-1]
            for row, column, level in ((1, 0, active[1, 0]), (0, active.shape[1], separating[0, 0])):
                cell = shown[row * side :, column * side :][:side, :side]
                assert np.array_equal(cell, np.rint(255 * matplotlib.colormaps["inferno"](level)[..., :3]))
        crops = pixels(media, data["crops"]).astype(float)
        beside = np.concatenate(list(arrays["crops"]), axis=1)
        assert crops.shape == beside.shape
        assert np.abs(crops - beside).mean() < 12  # 32 px of colour, of which WebP keeps a quarter


def test_a_map_lies_where_its_cells_are(copy):
    view = view_of(copy)
    content = read_json(view.run.folder / FEATURE_MAPS_FILE)
    # Two cells across a crop of 32 px, 12 px apart: 6 px to each side of their centres at 10 and 22 px.
    content["stages"][0] |= {"cells": [3, 2]}
    content["stages"][0]["cells_px"] |= {"first_centre": [6.0, 10.0], "step": 12}
    write_json(view.run.folder / FEATURE_MAPS_FILE, content)
    stage = feature_map_data(view_of(copy), Media())["stages"][0]
    assert content["image_size"] == 32
    assert stage["area"] == [4 / 32, 0, 24 / 32, 36 / 32]


def test_a_run_without_maps_says_why(copy, full_folder):
    none = feature_map_data(view_of(full_folder), Media())
    assert none == {"reason": "this run has kept none", "stages": []}
    view = view_of(copy)
    write_json(view.run.folder / FEATURE_MAPS_FILE, {"stages": [], "reason": "it has no stages"})
    (view.run.folder / FEATURE_MAP_ARRAYS_FILE).unlink()
    assert feature_map_data(view_of(copy), Media())["reason"] == "it has no stages"


def test_damaged_maps_are_named(copy):
    folder = view_of(copy).run.folder
    write_json(folder / FEATURE_MAPS_FILE, {"images": [], "stages": [{}]})
    with pytest.raises(ValueError, match=r"feature_maps\.json: not the feature maps of a run \(KeyError: 'classes'\)"):
        feature_map_data(view_of(copy), Media())
    (folder / FEATURE_MAP_ARRAYS_FILE).write_bytes((folder / FEATURE_MAP_ARRAYS_FILE).read_bytes()[:500])
    with pytest.raises(ValueError, match=r"feature_maps\.npz: not readable arrays"):
        feature_map_data(view_of(copy), Media())


def test_a_picture_that_comes_twice_is_there_once(tmp_path):
    media = Media()
    assert [media.add("a", b"1"), media.add("b", b"2"), media.add("c", b"1"), media.add("d", None)] == [0, 1, 0, None]
    assert media.beside(tmp_path / "x y") == ["x%20y/a.webp", "x%20y/b.webp"]
    assert [path.read_bytes() for path in media.write(tmp_path / "x y")] == [b"1", b"2"]
