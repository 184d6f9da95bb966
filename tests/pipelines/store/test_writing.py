"""A store holds PIL's pixels, whole or not there at all, and an interrupted build goes on."""

import errno
import hashlib
import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipelines import EVAL, RESNET_TRAIN, VIT_TRAIN
from pipelines.store.build import plan_store
from pipelines.store.index import StoreError
from pipelines.store.reading import find_store, open_store
from tests.support.picture_files import KINDS, OTHERS, encoded, picture, write
from tests.support.small_stores import FILTERS, SMALL, assert_pils, assert_same_store, build, journalled


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("resize", [(20, 24), (100, 90)])
def test_pixels_equal_pils_for_every_kind_of_file(tmp_path, interpolation, resize):
    paths = write(tmp_path, (KINDS | OTHERS).values())
    recipe = replace(EVAL.at(16), resize=resize, interpolation=interpolation)
    store = open_store(build(paths, recipe, tmp_path / "store"), paths, recipe)
    assert store.images.dtype == torch.uint8
    assert store.images.shape == (len(paths), *resize, 3)
    assert_pils(store, paths, recipe)


def test_real_photos_equal_pils_at_the_published_size(shared_data, tmp_path):
    paths = sorted((shared_data / "stanford-dogs-mini" / "Images").rglob("*.jpg"))[::7]
    folder = build(paths, EVAL, tmp_path)
    assert_pils(open_store(folder, paths, EVAL), paths, EVAL)
    for recipe in (RESNET_TRAIN, VIT_TRAIN):
        assert len(open_store(folder, paths, recipe).rows) == len(paths)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_hard_images_are_stored_or_named(shared_data, tmp_path):
    paths = sorted(path for path in (shared_data / "hard-images").rglob("*") if path.suffix in (".jpg", ".jpeg"))
    folder = build(paths, SMALL, tmp_path)
    problems = find_store(folder, paths, SMALL).problems
    assert len(problems) > 60
    good = [path for path in paths if str(path) not in problems]
    store = open_store(folder, good, SMALL)
    assert_pils(store, good, SMALL)
    bad = np.setdiff1d(np.arange(len(paths)), store.rows.numpy())
    assert len(bad) == len(problems)
    assert not store.images[bad].any()


def test_numpy_loads_the_pixels(photos, tmp_path):
    folder = build(photos, SMALL, tmp_path / "store")
    pixels = np.load(folder / "pixels.npy")
    np.testing.assert_array_equal(pixels, open_store(folder, photos, SMALL).images)
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "index.json", "pixels.npy"]


def test_bytes_follow_from_the_files_alone(photos, tmp_path):
    one = build(photos, SMALL, tmp_path / "one", num_threads=1)
    other = build([*photos[::-1], photos[4]], SMALL, tmp_path / "other", num_threads=3)
    for name in ("pixels.npy", "index.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_the_index_describes_every_file(photos, tmp_path):
    photos[5].write_bytes(b"not an image")
    index = json.loads((build(photos, SMALL, tmp_path / "store") / "index.json").read_text())
    files = index.pop("files")
    assert index == {"format": 2, "resize": [20, 24], "interpolation": "bilinear", "root": str(tmp_path / "set")}
    assert files == [
        {
            "path": str(path.relative_to(tmp_path / "set")),
            "size": path.stat().st_size,
            "mtime_ns": path.stat().st_mtime_ns,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "problem": "not an image" if path == photos[5] else None,
        }
        for path in photos
    ]


@pytest.mark.fault("Folders and names", "file names that are not UTF-8, in a store", "kept as they are")
def test_names_that_are_no_text(tmp_path):
    path = tmp_path / os.fsdecode(b'\xff caf\xc3\xa9 "quoted"\n.jpg')
    path.write_bytes(KINDS["4:2:0"])
    store = build([path], SMALL, tmp_path / "store")
    assert_pils(open_store(store, [path], SMALL), [path], SMALL)


@pytest.fixture
def chunks_of_4(monkeypatch):
    monkeypatch.setattr("pipelines.store.writing._CHUNK", 4)
    monkeypatch.setattr("pipelines.decoding.files.decode_files.__kwdefaults__", {"batch_size": 4, "num_threads": None})


def fill_disk_after(monkeypatch, num_rows):
    """Let the disk be full when so many rows are written."""
    pwrite, rows = os.pwrite, []

    def full(*args):
        if len(rows) >= num_rows:
            raise OSError(errno.ENOSPC, "No space left on device")
        rows.append(args)
        return pwrite(*args)

    monkeypatch.setattr(os, "pwrite", full)


@pytest.fixture
def half_built(photos, tmp_path, monkeypatch, chunks_of_4):
    folder = tmp_path / "half"
    with monkeypatch.context() as patch:
        fill_disk_after(patch, 17)
        with pytest.raises(StoreError, match=r"the disk is full .* the same build goes on from there once"):
            build(photos, SMALL, folder, num_threads=1)
    assert journalled(folder) == list(range(16))
    return folder


@pytest.mark.fault(
    "Disk", "the disk fills while a store is built", "one line; what is finished stays, and the same build goes on"
)
def test_a_full_disk_costs_nothing_that_was_finished(photos, half_built, store, decoded):
    assert (plan := plan_store(photos, SMALL, half_built)).num_done == 16
    assert plan.num_bytes == 14 * 20 * 24 * 3
    with pytest.raises(StoreError, match="its build was interrupted; the same build again goes on from there"):
        open_store(half_built, photos, SMALL)
    build(photos, SMALL, half_built)
    assert decoded == list(map(str, photos[16:]))
    assert_same_store(half_built, store)


def test_a_disk_that_fills_before_the_first_row_keeps_nothing(photos, tmp_path, monkeypatch, store):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(StoreError, match=r"the disk is full \(No space left on device\)"):
            build(photos, SMALL, tmp_path / "full")
    assert not (tmp_path / "full" / "building.npy").exists()
    assert_same_store(build(photos, SMALL, tmp_path / "full"), store)


def test_files_that_change_between_builds_are_done_again(photos, half_built, decoded, tmp_path):
    photos[3].write_bytes(encoded(picture(99, 66, seed=99)))
    photos[5].write_bytes(b"not an image")
    photos[20].write_bytes(b"not an image")
    assert plan_store(photos, SMALL, half_built).num_done == 14
    build(photos, SMALL, half_built)
    assert decoded == list(map(str, [photos[3], photos[5], *photos[16:]]))
    assert_same_store(half_built, build(photos, SMALL, tmp_path / "store"))
    assert list(find_store(half_built, photos, SMALL).problems) == [str(photos[5]), str(photos[20])]


@pytest.mark.fault("Disk", "a store's journal that is torn", "counted up to the tear")
@pytest.mark.parametrize("tail", [b'{"row": 17, "si', b"\0" * 300, b'{"row": 17}garbage\n{}\n'])
def test_a_torn_journal_counts_up_to_the_tear(photos, half_built, store, decoded, tail):
    with (half_built / "journal.jsonl").open("ab") as file:
        file.write(tail)
    build(photos, SMALL, half_built)
    assert len(decoded) == 14
    assert_same_store(half_built, store)


@pytest.mark.parametrize("lost", ["journal.jsonl", "building.npy"])
def test_half_of_an_interrupted_build_is_none(photos, half_built, store, decoded, lost):
    (half_built / lost).unlink()
    build(photos, SMALL, half_built)
    assert len(decoded) == 30
    assert_same_store(half_built, store)


def test_the_interrupted_build_of_something_else_is_left_alone(photos, half_built):
    for paths, recipe, part in (
        (photos[1:], SMALL, "an interrupted build of other files is there"),
        (photos, EVAL, r"made for resize \(20, 24\), the recipe eval has \(256, 256\)"),
    ):
        with pytest.raises(StoreError, match=part):
            build(paths, recipe, half_built)
    assert journalled(half_built) == list(range(16))


@pytest.mark.parametrize("step", ["write_index", "flush_path"])
def test_a_build_that_stops_at_its_last_steps_is_finished_without_decoding(
    photos, store, tmp_path, monkeypatch, decoded, step
):
    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"pipelines.store.writing.{step}", stop)
        with pytest.raises(KeyboardInterrupt):
            build(photos, SMALL, tmp_path / "stopped")
    assert (tmp_path / "stopped" / "pixels.npy").exists()
    del decoded[:]
    assert plan_store(photos, SMALL, tmp_path / "stopped").num_done == 30
    build(photos, SMALL, tmp_path / "stopped")
    assert decoded == []
    assert_same_store(tmp_path / "stopped", store)
