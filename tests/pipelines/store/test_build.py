"""What is asked for is planned in one line, or refused before anything is written."""

import errno
import fcntl
import os
import pwd
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dogs_accel.runtime.files import only_process_in, write_json
from pipelines import EVAL
from pipelines.decoding.pil import header_size, open_rgb
from pipelines.make import choose_backend
from pipelines.store import disk
from pipelines.store.build import StorePlan, build_store, default_store_folder, plan_store
from pipelines.store.index import StoreError
from pipelines.store.reading import find_store, open_store
from tests.support.picture_files import encoded, picture, write
from tests.support.small_stores import AS_IS, SHORTER, SMALL, assert_pils, build, pil_pixels

SIZES = {"shorter": "with a shorter side of 20 px", "as-is": "as they are"}


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
    for recipe in (EVAL, SHORTER, AS_IS):
        assert_pils(open_store(build(photos[:9], recipe, store, rebuild=True), photos[:9], recipe), photos[:9], recipe)


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
        folder=Path("DIR"), size="of 256 x 256 px", num_images=20_580, num_done=0, num_bytes=20_580 * 256 * 256 * 3,
        total_bytes=20_580 * 256 * 256 * 3, free_bytes=60_000_000_000, is_complete=False,
    )  # fmt: skip
    assert str(plan) == "store: 20,580 images of 256 x 256 px, 4.0 GB in DIR, 60.0 GB free"
    plan = replace(plan, num_done=20_000, num_bytes=580 * 256 * 256 * 3)
    assert str(plan) == (
        "store: 20,580 images of 256 x 256 px, 20,000 of them done, the others 114.0 MB in DIR, 60.0 GB free"
    )


def test_the_plan_of_rows_of_different_sizes_knows_their_sizes(photos, tmp_path):
    plan = plan_store(photos, SHORTER, tmp_path / "a")
    num_bytes = sum(pil_pixels(path, SHORTER).size for path in photos)
    assert (plan.num_done, plan.num_bytes, plan.total_bytes) == (0, num_bytes, num_bytes)
    said = f"store: 30 images with a shorter side of 20 px, {num_bytes / 1000:.1f} kB in {tmp_path / 'a'}, "
    assert str(plan).startswith(said)
    plan = plan_store(photos, AS_IS, tmp_path / "b")
    assert plan.total_bytes == sum(pil_pixels(path, AS_IS).size for path in photos)
    assert str(plan).startswith(f"store: 30 images as they are, {plan.total_bytes / 1000:.1f} kB in ")
    assert not list(tmp_path.glob("[ab]"))


@pytest.mark.parametrize("recipe", [SHORTER, AS_IS], ids=lambda recipe: recipe.name)
def test_what_does_not_fit_is_streamed(photos, tmp_path, monkeypatch, recipe):
    num_bytes = sum(pil_pixels(path, recipe).size for path in photos)
    usage = shutil.disk_usage(tmp_path)
    for free_bytes, memory_bytes, choice, part in (
        (num_bytes, 2 * num_bytes, "cached", f"every file is decoded once; store: 30 images {SIZES[recipe.name]}, "),
        (num_bytes - 1, 2 * num_bytes, "dali", f"too little room for a store: 30 images {SIZES[recipe.name]}, "),
        (num_bytes, 2 * num_bytes - 1, "dali", "more than half of the memory would go to a store: 30 images "),
    ):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free_bytes: usage._replace(free=free))
        monkeypatch.setattr("pipelines.make._memory_bytes", lambda num=memory_bytes: num)
        name, reason = choose_backend(photos, recipe, torch.device("cpu"), tmp_path / "store")
        assert name == choice
        assert part in reason


@pytest.mark.parametrize("recipe", [SHORTER, AS_IS], ids=lambda recipe: recipe.name)
def test_of_very_many_files_some_headers_tell_that_the_store_is_too_large(photos, tmp_path, monkeypatch, recipe):
    read = []
    monkeypatch.setattr("pipelines.store.rows.header_size", lambda path: read.append(path) or header_size(path))
    monkeypatch.setattr("pipelines.store.build._FEW", 29)
    monkeypatch.setattr("pipelines.store.build._SAMPLE", 3)
    some = sum(pil_pixels(path, recipe).size for path in photos[::10])
    monkeypatch.setattr("pipelines.make._memory_bytes", lambda: 10 * some - 1)
    name, reason = choose_backend(photos, recipe, torch.device("cpu"), tmp_path / "store")
    assert name == "dali"
    assert reason.endswith(f"more than half of the memory would go to a store of {10 * some / 1000:.1f} kB")
    assert sorted(read) == list(map(str, photos[::10]))
    monkeypatch.setattr("pipelines.make._memory_bytes", lambda: 10 * some)  # roughly half of it: all are asked
    assert (
        "would go to a store: 30 images" in choose_backend(photos, recipe, torch.device("cpu"), tmp_path / "store")[1]
    )
    assert sorted(read) == sorted(map(str, photos))
    build(photos, recipe, tmp_path / "store")
    monkeypatch.setattr("pipelines.make._memory_bytes", lambda: 1)
    assert choose_backend(photos, recipe, torch.device("cpu"), tmp_path / "store")[0] == "cached"


class TestAStoreOfLess:
    """At most so many px on the longer side: smaller, and not exact, which it says."""

    def test_it_has_large_images_smaller_and_small_ones_as_they_are(self, photos, tmp_path):
        paths = [*photos[:3], *write(tmp_path, [encoded(picture(300, 120)), encoded(picture(60, 200))])]
        bicubic = replace(AS_IS, interpolation="bicubic")
        store = build_store(paths, bicubic, tmp_path / "less", progress=False, max_side=100)
        assert not store.is_exact
        taken = store.take(paths, replace(bicubic, flip=0.5))
        images = [open_rgb(str(path)) for path in paths]
        sizes = [image.size for image in images[:3]] + [(100, 40), (30, 100)]
        for position, (image, size) in enumerate(zip(images, sizes, strict=True)):
            np.testing.assert_array_equal(taken.image(position), image.resize(size, Image.Resampling.BICUBIC))

    def test_it_is_never_mistaken_for_an_exact_one(self, photos, tmp_path):
        less = tmp_path / "less"
        store = build_store(photos, AS_IS, less, progress=False, max_side=30)
        with pytest.raises(StoreError, match="made for max_side 30, what is asked for is None; give each its own"):
            find_store(less, photos, replace(AS_IS, interpolation="bilinear"))
        with pytest.raises(StoreError, match="made for max_side 30, what is asked for is 31"):
            plan_store(photos, AS_IS, less, max_side=31)
        with pytest.raises(StoreError, match=r"made for resize None, the recipe eval has \(20, 24\)"):
            store.take(photos, SMALL)
        exact = build_store(photos, AS_IS, tmp_path / "exact", progress=False)
        assert exact.is_exact
        with pytest.raises(StoreError, match="made for max_side None, what is asked for is 30"):
            plan_store(photos, AS_IS, tmp_path / "exact", max_side=30)
        folders = {default_store_folder(photos, AS_IS, max_side=max_side) for max_side in (None, 30, 31)}
        assert len(folders) == 3

    @pytest.mark.parametrize(("recipe", "max_side"), [(SMALL, 30), (SHORTER, 30), (AS_IS, 0)])
    def test_it_is_only_of_images_as_they_are(self, photos, tmp_path, recipe, max_side):
        message = (
            f"store_max_side: got {max_side} for the recipe {recipe.name}, whose resize is {recipe.resize}, expected"
        )
        with pytest.raises(ValueError, match=re.escape(message)):
            build_store(photos, recipe, tmp_path / "store", max_side=max_side)
        assert not (tmp_path / "store").exists()


@pytest.mark.fault("Disk", "a disk without room for the store", "said before anything is written")
def test_a_disk_without_room_is_told_before_anything_is_written(photos, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=30 * 20 * 24 * 3 - 1))
    assert not plan_store(photos, SMALL, tmp_path / "store").fits
    with pytest.raises(StoreError, match=r"43.2 kB in .*store, 43.2 kB free: too little"):
        build(photos, SMALL, tmp_path / "store")
    assert [path.name for path in (tmp_path / "store").iterdir()] == [".lock"]


@pytest.mark.fault("Disk", "a store in the user's cache that is stale or damaged", "built anew, and said once")
def test_a_stale_store_that_nobody_named_is_built_anew(photos, caplog):
    folder = default_store_folder(photos, SMALL)
    build(photos, SMALL, folder)
    photos[7].write_bytes(encoded(picture(77, 55, seed=100)))
    plan = plan_store(photos, SMALL, folder)
    assert (plan.is_complete, plan.num_done) == (False, 0)
    assert re.search(r"built anew \(1 of 30 files changed since it was built, first: .*7\.jpg \(size ", str(plan))
    assert find_store(folder, photos, SMALL) is None
    assert_pils(open_store(build(photos, SMALL, folder), photos, SMALL), photos, SMALL)
    assert len([record for record in caplog.records if "built anew" in record.getMessage()]) == 1
    (folder / "index.json").write_text("{")
    assert_pils(open_store(build(photos, SMALL, folder), photos, SMALL), photos, SMALL)


@pytest.mark.parametrize("call", [plan_store, build_store, open_store])
def test_a_stale_store_that_somebody_named_is_refused(photos, store, call):
    photos[7].write_bytes(encoded(picture(77, 55, seed=100)))
    arguments = (store, photos, SMALL) if call is open_store else (photos, SMALL, store)
    with pytest.raises(StoreError, match=r"1 of 30 files changed since .*use `dogs-accel prepare --rebuild`$"):
        call(*arguments)


@pytest.mark.fault(
    "Machine and environment",
    "no home, a user without a name, or a cache that cannot be written",
    "photos are streamed; where the cache is asked for, one line names XDG_CACHE_HOME and --store",
)
@pytest.mark.parametrize("cache", ["a file", "no home"])
def test_without_a_cache_auto_streams_and_cached_says_what_is_missing(photos, tmp_path, monkeypatch, cache):
    (tmp_path / "file").touch()
    if cache == "a file":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    name, reason = choose_backend(photos, SMALL, torch.device("cpu"))
    assert name == "dali"
    assert "XDG_CACHE_HOME=DIR" in reason
    with pytest.raises(StoreError, match=r"XDG_CACHE_HOME=DIR,? or --store DIR$"):
        plan_store(photos, SMALL, default_store_folder(photos, SMALL))


@pytest.mark.fault(
    "Disk",
    "a file system without locks, fsync or reserved room (network drives)",
    "the work goes on, with one notice for each",
)
def test_a_file_system_without_locks_and_syncs_is_written_with_a_notice(photos, tmp_path, monkeypatch, caplog):
    def lacking(code):
        def call(*_):
            raise OSError(code, os.strerror(code))

        return call

    monkeypatch.setattr(fcntl, "flock", lacking(errno.ENOLCK))
    monkeypatch.setattr(os, "fsync", lacking(errno.EINVAL))
    monkeypatch.setattr(os, "fdatasync", lacking(errno.EOPNOTSUPP))
    monkeypatch.setattr(os, "posix_fallocate", lacking(errno.EOPNOTSUPP))
    disk._say_once.cache_clear()
    assert_pils(open_store(build(photos, SMALL, tmp_path / "store"), photos, SMALL), photos, SMALL)
    with only_process_in(tmp_path):
        assert write_json(tmp_path / "a.json", 1).read_text() == "1\n"
    said = [record.getMessage() for record in caplog.records]
    assert [text.split(",")[0] for text in said] == [
        "the file system lacks locks",
        "the file system lacks a way to reserve room",
        "the file system lacks a way to wait for the disk",
        "the file system lacks a way to wait for the disk",
    ]
    monkeypatch.setattr(os, "fsync", lacking(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        write_json(tmp_path / "b.json", 1)
