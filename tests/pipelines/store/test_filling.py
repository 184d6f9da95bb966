"""A pass that decodes files for another purpose fills stores with them, as builds do and to the same bytes."""

import errno
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from dogs_accel import ops
from pipelines import EVAL
from pipelines.decoding import files as decoding_files
from pipelines.store import lock
from pipelines.store.build import build_store, filling_stores, plan_store
from pipelines.store.index import StoreError
from pipelines.store.reading import find_store, open_store
from tests.support.picture_files import encoded, picture
from tests.support.small_stores import AS_IS, SHORTER, SMALL, assert_pils, assert_same_store, build, journalled

LARGE = replace(EVAL.at(16), resize=(40, 30), interpolation="bicubic")


def fill(paths, stores, *, stop_after=None, num_threads=2):
    """Pass over all files and fill stores; the pass is broken off after so many files."""
    with filling_stores(paths, stores, num_threads=num_threads) as take:
        for files in decoding_files.decode_files(paths, batch_size=4, num_threads=1):
            take(files)
            if stop_after is not None and files[-1].index + 1 >= stop_after:
                raise KeyboardInterrupt


@pytest.fixture
def squashed(monkeypatch):
    """How many images were squashed, by their height in the store."""
    counts, squash = {}, ops.squash

    def watched(images, size, *arguments, **settings):
        counts[size[0]] = counts.get(size[0], 0) + len(images)
        return squash(images, size, *arguments, **settings)

    monkeypatch.setattr("dogs_accel.ops.squash", watched)
    return counts


def test_one_pass_fills_several_stores_to_the_bytes_of_builds(photos, tmp_path, decoded):
    paths = [*photos[::-1], photos[4]]  # in no order, and one of them twice
    stores = {"small": SMALL, "large": LARGE, "shorter": SHORTER, "as it is": AS_IS}
    fill(paths, {tmp_path / name: recipe for name, recipe in stores.items()})
    assert decoded == paths
    for name, recipe in stores.items():
        assert_same_store(tmp_path / name, build(photos, recipe, tmp_path / f"{name} built"))
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == [".lock", "index.json", "pixels.npy"]


def test_a_store_that_is_complete_is_left_as_it_is(photos, tmp_path, store, squashed):
    inode = (store / "pixels.npy").stat().st_ino
    fill(photos, {store: SMALL, tmp_path / "large": LARGE})
    assert squashed == {40: 30}
    assert (store / "pixels.npy").stat().st_ino == inode
    assert len(open_store(tmp_path / "large", photos, LARGE).rows) == 30


@pytest.fixture
def with_bad(photos):
    """Three of the photos are bad."""
    photos[2].write_bytes(b"")
    photos[9].write_bytes(b"not an image")
    photos[20].unlink()
    return photos


def test_bad_files_are_rows_of_zeros_with_their_reason(with_bad, tmp_path, decoded):
    photos = with_bad
    fill(photos, {tmp_path / "filled": SMALL})
    assert find_store(tmp_path / "filled", photos, SMALL) is None
    assert (plan := plan_store(photos, SMALL, tmp_path / "filled")).num_done == 30
    assert plan.num_bytes == 0
    del decoded[:]
    store = build_store(photos, SMALL, tmp_path / "filled", progress=False)
    assert decoded == []
    assert store.problems == {
        str(photos[2]): "an empty file",
        str(photos[9]): "not an image",
        str(photos[20]): "No such file or directory",
    }
    assert not store.images[[2, 9, 20]].any()
    good = [path for path in photos if str(path) not in store.problems]
    assert_pils(store.take(good, SMALL), good, SMALL)
    assert_same_store(tmp_path / "filled", build(photos, SMALL, tmp_path / "built"))


def test_a_bad_file_that_is_repaired_costs_no_more_than_itself(with_bad, tmp_path, squashed):
    fill(with_bad, {tmp_path / "filled": SMALL})
    for number in (2, 9, 20):
        with_bad[number].write_bytes(encoded(picture(50, 40, seed=number)))
    squashed.clear()
    fill(with_bad, {tmp_path / "filled": SMALL})
    assert squashed == {20: 3}
    assert_same_store(tmp_path / "filled", build(with_bad, SMALL, tmp_path / "built"))


@pytest.mark.parametrize("by", ["a pass", "a build"])
def test_a_pass_that_is_broken_off_is_gone_on_with(photos, tmp_path, store, squashed, by):
    folder = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        fill(photos, {folder: SMALL}, stop_after=12)
    assert sorted(journalled(folder)) == list(range(12))
    assert not (folder / "index.json").exists()
    assert plan_store(photos, SMALL, folder).num_done == 12
    squashed.clear()
    if by == "a pass":
        fill(photos, {folder: SMALL})
    else:
        build(photos, SMALL, folder)
    assert squashed == {20: 18}
    assert_same_store(folder, store)


def test_a_pass_goes_on_with_a_build_and_does_again_what_has_changed(photos, tmp_path, squashed):
    folder = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        fill(photos, {folder: SMALL}, stop_after=12)
    photos[3].write_bytes(encoded(picture(99, 66, seed=99)))
    squashed.clear()
    fill(photos, {folder: SMALL})
    assert squashed == {20: 19}
    assert_same_store(folder, build(photos, SMALL, tmp_path / "built"))


def test_a_pass_goes_on_with_rows_of_different_sizes(photos, tmp_path, decoded):
    folders = {tmp_path / recipe.name: recipe for recipe in (SHORTER, AS_IS)}
    with pytest.raises(KeyboardInterrupt):
        fill(photos, folders, stop_after=12)
    for folder, recipe in folders.items():
        assert sorted(journalled(folder)) == list(range(12))
        photos[3].write_bytes(encoded(picture(43, 33, seed=99)))  # of the size that it had
        build(photos, recipe, folder)
        assert decoded[-19:] == list(map(str, [photos[3], *photos[12:]]))
        assert_same_store(folder, build(photos, recipe, tmp_path / f"{recipe.name} built"))


def test_a_pass_over_some_of_the_files_leaves_a_build_to_finish(photos, tmp_path, store, decoded):
    folder = tmp_path / "part"
    with filling_stores(photos, {folder: SMALL}) as take:
        for files in decoding_files.decode_files(photos[5:9]):
            take(files)
    del decoded[:]
    build(photos, SMALL, folder)
    assert decoded == list(map(str, photos[:5] + photos[9:]))
    assert_same_store(folder, store)


def test_a_pass_that_fails_at_its_end_has_filled_the_store(photos, tmp_path, store):
    with pytest.raises(KeyboardInterrupt):
        fill(photos, {tmp_path / "filled": SMALL}, stop_after=30)
    assert_same_store(tmp_path / "filled", store)


def test_a_disk_that_fills_ends_the_pass_and_what_was_finished_stays(photos, tmp_path, monkeypatch, store):
    pwrite, rows = os.pwrite, []

    def full(*arguments):
        rows.append(arguments)
        if len(rows) > 17:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(*arguments)

    folder = tmp_path / "full"
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(
            StoreError, match=rf"^store {folder}: the disk is full \(No space left on device\); what is"
        ):
            fill(photos, {folder: SMALL}, num_threads=1)
    assert journalled(folder) == list(range(16))
    fill(photos, {folder: SMALL})
    assert_same_store(folder, store)


def test_a_file_that_changes_during_the_pass_shows_when_the_store_is_opened(photos, tmp_path):
    with filling_stores(photos, {tmp_path / "filled": SMALL}) as take:
        for files in decoding_files.decode_files(photos):
            take(files)
        photos[7].write_bytes(encoded(picture(77, 55, seed=100)))
    with pytest.raises(StoreError, match=r"1 of 30 files changed .*0007.jpg \(size"):
        open_store(tmp_path / "filled", photos, SMALL)


def test_a_disk_without_room_is_told_before_the_pass(photos, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=30 * 20 * 24 * 3 - 1))
    with pytest.raises(StoreError, match=r"43.2 kB in .*store, 43.2 kB free: too little"):
        filling_stores(photos, {tmp_path / "store": SMALL}).__enter__()
    assert [path.name for path in (tmp_path / "store").iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_is_one_line(photos, tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "store"
    with pytest.raises(StoreError, match=rf"^store {folder}: it cannot be used \(Not a directory\)$"):
        filling_stores(photos, {folder: SMALL}).__enter__()


def test_the_store_of_other_files_is_left_alone(photos, tmp_path, store):
    before = {path.name: path.read_bytes() for path in store.iterdir()}
    other = Path(shutil.copy(photos[0], tmp_path / "other.jpg"))
    with pytest.raises(StoreError, match=r"it lacks 1 of 31 files, first: .*other.jpg"):
        filling_stores([*photos, other], {store: SMALL}).__enter__()
    assert {path.name: path.read_bytes() for path in store.iterdir()} == before


def test_who_builds_waits_for_the_pass_and_finds_a_whole_store(photos, tmp_path, monkeypatch, store):
    folder, waits = tmp_path / "filled", threading.Event()
    monkeypatch.setattr(lock._log, "warning", lambda *_: waits.set())
    built = []
    with filling_stores(photos, {folder: SMALL}) as take:
        builder = threading.Thread(target=lambda: built.append(build_store(photos, SMALL, folder, progress=False)))
        builder.start()
        assert waits.wait(timeout=30)
        monkeypatch.setattr("pipelines.store.build._decode", None)  # the builder has nothing to do
        for files in decoding_files.decode_files(photos):
            take(files)
    builder.join(timeout=30)
    assert len(built[0].names) == 30
    assert_same_store(folder, store)
