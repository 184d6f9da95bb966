"""What is asked for is planned in one line, or refused before anything is written."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines import EVAL
from pipelines.store.build import StorePlan, build_store, default_store_folder, plan_store
from pipelines.store.index import StoreError
from pipelines.store.reading import open_store
from tests.support.picture_files import encoded, picture
from tests.support.small_stores import SMALL, assert_pils, build


@pytest.mark.parametrize("resize", [256, None])
def test_only_a_squash_can_be_stored(photos, tmp_path, resize):
    recipe = replace(EVAL.at(16), resize=resize)
    for call in (
        lambda: build_store(photos, recipe, tmp_path),
        lambda: plan_store(photos, recipe, tmp_path),
        lambda: open_store(tmp_path, photos, recipe),
        lambda: default_store_folder(photos, recipe),
    ):
        with pytest.raises(ValueError, match=f"^resize: got {resize} in the recipe eval, expected"):
            call()


def test_no_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="paths: got none, expected at least one file"):
        build_store([], SMALL, tmp_path)


def test_no_threads_are_refused_before_anything_is_written(photos, tmp_path):
    with pytest.raises(ValueError, match="num_threads: got 0, expected an integer >= 1"):
        build(photos, SMALL, tmp_path / "store", num_threads=0)
    assert [path.name for path in (tmp_path / "store").iterdir()] == [".lock"]


def test_rebuild_replaces_a_stale_store(photos, store):
    photos[7].write_bytes(encoded(picture(77, 55, seed=100)))
    assert not plan_store(photos, SMALL, store, rebuild=True).is_complete
    build(photos, SMALL, store, rebuild=True)
    assert_pils(open_store(store, photos, SMALL), photos, SMALL)
    assert_pils(open_store(build(photos[:9], EVAL, store, rebuild=True), photos[:9], EVAL), photos[:9], EVAL)


def test_an_array_of_that_name_is_left_alone(photos, tmp_path):
    np.save(tmp_path / "pixels.npy", np.arange(3))
    with pytest.raises(StoreError, match=r"pixels.npy is there without index.json"):
        build(photos, SMALL, tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "pixels.npy"), np.arange(3))


def test_the_default_folder_follows_from_the_request(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    folder = default_store_folder(photos, SMALL)
    assert folder.parent == tmp_path / ".cache" / "dogs_accel" / "stores"
    assert folder == default_store_folder(list(map(str, photos[::-1])), replace(SMALL, name="other", flip=0.5))
    others = [
        default_store_folder(photos[1:], SMALL),
        default_store_folder(photos, EVAL),
        default_store_folder(photos, replace(SMALL, interpolation="bicubic")),
    ]
    assert len({folder, *others}) == 4
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_store_folder(photos, SMALL).parent == tmp_path / "cache" / "dogs_accel" / "stores"


def test_the_plan_is_one_line(photos, tmp_path):
    folder = tmp_path / "not" / "there"
    plan = plan_store(photos, SMALL, folder)
    assert (plan.num_images, plan.num_done, plan.num_bytes, plan.is_complete) == (30, 0, 30 * 20 * 24 * 3, False)
    assert plan.free_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
    assert plan.fits
    assert not folder.parent.exists()
    build(photos, SMALL, folder)
    assert str(plan_store(photos, SMALL, folder)) == f"store: 30 images of 20 x 24 px in {folder}, complete and current"
    plan = StorePlan(
        folder=Path("DIR"), resize=(256, 256), num_images=20_580, num_done=0, num_bytes=20_580 * 256 * 256 * 3,
        free_bytes=60_000_000_000, is_complete=False,
    )  # fmt: skip
    assert str(plan) == "store: 20,580 images of 256 x 256 px, 4.0 GB in DIR, 60.0 GB free"
    plan = replace(plan, num_done=20_000, num_bytes=580 * 256 * 256 * 3)
    assert str(plan) == (
        "store: 20,580 images of 256 x 256 px, 20,000 of them done, the others 114.0 MB in DIR, 60.0 GB free"
    )


def test_a_disk_without_room_is_told_before_anything_is_written(photos, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=30 * 20 * 24 * 3 - 1))
    assert not plan_store(photos, SMALL, tmp_path / "store").fits
    with pytest.raises(StoreError, match=r"43.2 kB in .*store, 43.2 kB free: too little"):
        build(photos, SMALL, tmp_path / "store")
    assert [path.name for path in (tmp_path / "store").iterdir()] == [".lock"]
