"""A store is never mistaken for another."""

import os
import shutil
from dataclasses import replace

import numpy as np
import psutil
import pytest

from pipelines import EVAL, BadImageError, make_loader
from pipelines.decoding.files import decode_files
from pipelines.store.build import default_store_folder, filling_stores, plan_store
from pipelines.store.index import StoreError
from pipelines.store.reading import _map_pixels, find_store, open_store
from tests.support.picture_files import KINDS, encoded, picture, write
from tests.support.small_stores import (
    AS_IS,
    EACH_KIND,
    SHORTER,
    SMALL,
    assert_pils,
    build,
    each_kind,
    pil_pixels,
)


def test_rows_follow_the_paths_asked_for(photos, tmp_path):
    folder = build(photos, SMALL, tmp_path / "store")
    some = [photos[17], photos[3], photos[3], photos[29]]
    store = open_store(folder, some, SMALL)
    assert store.rows.tolist() == [17, 3, 3, 29]
    assert len(store.images) == 30
    assert_pils(store, some, SMALL)
    assert (plan := plan_store(some, SMALL, folder)).is_complete
    assert (plan.num_images, plan.num_done, plan.num_bytes) == (3, 3, 0)


@pytest.mark.parametrize("recipe", [SHORTER, AS_IS], ids=lambda recipe: recipe.name)
def test_rows_of_different_sizes_say_where_they_are(photos, tmp_path, recipe):
    folder = build(photos, recipe, tmp_path / "store")
    some = [photos[17], photos[3], photos[3], photos[29]]
    store = open_store(folder, some, recipe)
    assert store.images is None
    assert store.rows.tolist() == [17, 3, 3, 29]
    expected = [pil_pixels(path, recipe) for path in photos]
    assert store.sizes.tolist() == [list(expected[row].shape[:2]) for row in (17, 3, 3, 29)]
    assert store.offsets.tolist() == [sum(image.size for image in expected[:row]) for row in (17, 3, 3, 29)]
    assert store.sizes.dtype == store.offsets.dtype == np.int64
    assert len(store.content) == sum(image.size for image in expected)
    assert_pils(store, some, recipe)
    plan = plan_store(some, recipe, folder)
    assert (plan.is_complete, plan.num_done, plan.num_bytes) == (True, 3, 0)
    assert plan.total_bytes == sum(expected[row].size for row in (17, 3, 29))


def test_pictures_that_are_of_one_size_as_they_are_are_images_too(tmp_path):
    paths = write(tmp_path, [encoded(picture(32, 30, seed=seed)) for seed in range(4)])
    store = open_store(build(paths, AS_IS, tmp_path / "store"), paths[::-1], AS_IS)
    assert store.images.shape == (4, 30, 32, 3)
    assert store.images.data_ptr() == store.content.data_ptr()
    assert_pils(store, paths[::-1], AS_IS)


@each_kind
def test_bad_files_are_skipped_by_who_asks_for_that(photos, tmp_path, recipe):
    photos[3].write_bytes(b"not an image")
    photos[9].write_bytes(photos[9].read_bytes()[:-40])
    store = find_store(build(photos, recipe, tmp_path / "store"), photos, recipe)
    asked = [photos[9], photos[8], photos[3], photos[3], photos[2]]
    taken = store.take(asked, recipe, on_bad_image="skip")
    assert taken.rows.tolist() == [-1, 8, -1, -1, 2]
    assert taken.offsets[[0, 2, 3]].tolist() == [0, 0, 0]
    assert taken.sizes[[0, 2, 3]].tolist() == [[0, 0]] * 3
    assert list(taken.problems) == [0, 2, 3]
    assert taken.problems[3] == "not an image"
    assert taken.image(0).shape == (0, 0, 3)
    for position in (1, 4):
        np.testing.assert_array_equal(taken.image(position), pil_pixels(asked[position], recipe))
    with pytest.raises(BadImageError, match=r"2 of 4 files cannot be decoded: .*0003.jpg: not an image; .*0009.jpg: "):
        store.take(asked, recipe)
    with pytest.raises(ValueError, match="on_bad_image: got 'leave', expected 'error' or 'skip'"):
        store.take(asked, recipe, on_bad_image="leave")


@pytest.mark.fault("Photos", "no file of a store is a picture", "the store has nothing but the reasons")
@each_kind
def test_a_store_of_nothing_but_bad_files(photos, tmp_path, recipe):
    for path in photos[:3]:
        path.write_bytes(b"not an image")
    store = find_store(build(photos[:3], recipe, tmp_path / "store"), photos[:3], recipe)
    assert len(store.content) == (3 * 20 * 24 * 3 if recipe is SMALL else 0)
    assert store.take(photos[:3], recipe, on_bad_image="skip").rows.tolist() == [-1, -1, -1]


def test_what_a_reader_writes_stays_in_its_process(photos, tmp_path, recwarn):
    folder = build(photos, SMALL, tmp_path / "store")
    content = (folder / "pixels.npy").read_bytes()
    first, second = (open_store(folder, photos, SMALL) for _ in range(2))
    first.images.fill_(7)
    assert not (second.images == 7).all()
    del first, second
    assert (folder / "pixels.npy").read_bytes() == content
    assert not recwarn.list


def test_a_store_larger_than_memory_opens(tmp_path):
    shape = (2 * psutil.virtual_memory().total // (3 << 20) + 1, 1024, 1024, 3)
    np.lib.format.open_memmap(tmp_path / "pixels.npy", "w+", np.uint8, shape)  # sparse: it takes no room
    images, _ = _map_pixels(tmp_path, shape)
    assert images.shape == shape
    assert images[-1, -1, -1].tolist() == [0, 0, 0]


def test_bad_files_are_listed_when_they_are_asked_for(photos, tmp_path):
    for number, path in enumerate(photos[:13]):
        path.write_bytes(b"" if number == 0 else b"not an image")
    photos[13].unlink()
    folder = build(photos, SMALL, tmp_path / "store")
    with pytest.raises(BadImageError) as caught:
        open_store(folder, photos, SMALL)
    message = str(caught.value)
    assert message.startswith(f"14 of 30 files cannot be decoded: {photos[0]}: an empty file; ")
    assert message.count("not an image") == 9
    assert message.endswith("; and 4 more")
    assert find_store(folder, photos, SMALL).problems[str(photos[13])] == "No such file or directory"
    assert_pils(open_store(folder, photos[14:], SMALL), photos[14:], SMALL)
    assert plan_store(photos, SMALL, folder).is_complete


def test_a_missing_file_that_appears_is_a_change(photos, tmp_path):
    content = photos[3].read_bytes()
    photos[3].unlink()
    folder = build(photos, SMALL, tmp_path / "store")
    photos[3].write_bytes(content)
    with pytest.raises(StoreError, match=r"1 of 30 files changed .*0003.jpg \(not there before\)"):
        open_store(folder, photos, SMALL)


def assert_refused(store, paths, recipe, *parts):
    """By all three calls, in the same words, and nothing is touched."""
    before = {path.name: path.read_bytes() for path in store.iterdir()}
    messages = []
    for call in (
        lambda: open_store(store, paths, recipe),
        lambda: plan_store(paths, recipe, store),
        lambda: build(paths, recipe, store),
    ):
        with pytest.raises(StoreError) as caught:
            call()
        messages.append(str(caught.value))
    assert len(set(messages)) == 1
    assert messages[0].startswith(f"store {store}: ")
    for part in parts:
        assert part in messages[0]
    assert {path.name: path.read_bytes() for path in store.iterdir()} == before


def test_another_size_or_interpolation_is_refused(photos, store):
    assert_refused(store, photos, EVAL, "made for resize (20, 24), the recipe eval has (256, 256); ")
    bicubic = replace(SMALL, interpolation="bicubic")
    assert_refused(store, photos, bicubic, "made for interpolation bilinear, the recipe eval has bicubic; ")


@pytest.mark.fault("Disk", "a store of one kind, for a recipe of another", "it is refused, with what it was made for")
def test_another_kind_is_refused(photos, tmp_path):
    stores = {kind: build(photos, recipe, tmp_path / kind) for kind, recipe in EACH_KIND.items()}
    made_for = {"squashed": "(20, 24)", "shorter side": "20", "as it is": "None"}
    for kind, store in stores.items():
        for other in set(EACH_KIND) - {kind}:
            recipe = EACH_KIND[other]
            message = f"made for resize {made_for[kind]}, the recipe {recipe.name} has {made_for[other]}; "
            assert_refused(store, photos, recipe, message)
            with pytest.raises(StoreError, match="give each its own folder"):
                find_store(store, photos, EACH_KIND[kind]).take(photos, recipe)


def test_what_is_not_resized_has_no_interpolation(photos, tmp_path):
    bicubic = replace(AS_IS, interpolation="bicubic")
    assert default_store_folder(photos, bicubic) == default_store_folder(photos, AS_IS)
    assert_pils(open_store(build(photos, AS_IS, tmp_path / "store"), photos, bicubic), photos, AS_IS)
    assert default_store_folder(photos, replace(SHORTER, interpolation="bicubic")) != default_store_folder(
        photos, SHORTER
    )


def test_another_format_is_refused(photos, store):
    index = store / "index.json"
    index.write_text(index.read_text().replace('"format": 2', '"format": 1', 1))
    assert_refused(store, photos, SMALL, "made in format 1, expected format 2; ")


@pytest.mark.fault("Disk", "a store with a damaged index or pixels", "refused by name, never read")
@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 2, "resize": [20, 24], "interpolation": "bilinear"}'])
def test_a_damaged_index_is_refused(photos, store, content):
    (store / "index.json").write_text(content)
    assert_refused(store, photos, SMALL, "index.json is damaged")


@pytest.mark.parametrize("size", ['"height": -20', '"height": 2.5', '"height": null', '"depth": 20'])
def test_an_index_with_damaged_sizes_is_refused(photos, tmp_path, size):
    store = build(photos, SHORTER, tmp_path / "store")
    index = store / "index.json"
    index.write_text(index.read_text().replace('"height": 20', size, 1))
    assert_refused(store, photos, SHORTER, "index.json is damaged")


def test_pixels_of_other_sizes_are_refused(photos, tmp_path):
    store = build(photos, SHORTER, tmp_path / "store")
    num_bytes = len(np.load(store / "pixels.npy"))
    index = store / "index.json"
    index.write_text(index.read_text().replace('"height": 20', '"height": 19', 1))
    message = f"pixels.npy has shape ({num_bytes},) of uint8, expected ("
    assert_refused(store, photos, SHORTER, message)


def test_damaged_pixels_are_refused(photos, store):
    content = (store / "pixels.npy").read_bytes()
    for damaged in (content[:-1], content[1:], b"", content[:100]):
        (store / "pixels.npy").write_bytes(damaged)
        assert_refused(store, photos, SMALL, "pixels.npy is missing or damaged")
    np.save(store / "pixels.npy", np.zeros((29, 20, 24, 3), np.uint8))
    assert_refused(store, photos, SMALL, "pixels.npy has shape (29, 20, 24, 3) of uint8, expected (30, 20, 24, 3)")
    (store / "pixels.npy").unlink()
    assert_refused(store, photos, SMALL, "pixels.npy is missing or damaged")


def test_a_file_that_is_not_in_the_store_is_refused(photos, store, tmp_path):
    [new] = write(tmp_path, [KINDS["grey"]])
    assert_refused(store, [*photos, new], SMALL, f"it lacks 1 of 31 files, first: {new} (it has 30, from ")


@pytest.mark.fault(
    "Disk", "pixels of a store that are cut off while a loader has them mapped",
    "one line at the next batch; within one, a read beyond the end would end the process",
)  # fmt: skip
@each_kind
def test_pixels_that_are_cut_off_in_use_are_named_before_the_next_batch(photos, tmp_path, recipe):
    folder = build(photos, recipe, tmp_path / "store")
    with make_loader(
        photos, [0] * 30, recipe, backend="cached", batch_size=8, device="cpu", store_dir=folder
    ) as loader:
        assert sum(len(batch.index) for batch in loader) == 30
        batches = iter(loader)
        next(batches)
        with (folder / "pixels.npy").open("r+b") as file:
            file.truncate(200)
        with pytest.raises(StoreError) as error:
            next(batches)
    assert str(error.value).startswith(f"store {folder}: pixels.npy was cut off while it was in use, to 200 of ")
    assert str(error.value).endswith("remove the folder or use `dogs-accel prepare --rebuild`")
    with pytest.raises(StoreError, match=r"pixels\.npy is missing or damaged"):
        open_store(folder, photos, recipe)


@pytest.mark.fault("Disk", "photos that changed since their store was built", "refused, with the first of them")
def test_changed_files_are_refused(photos, store):
    size = photos[7].stat().st_size
    photos[7].write_bytes(photos[7].read_bytes() + b"1234")
    assert_refused(store, photos, SMALL, f"1 of 30 files changed since it was built, first: {photos[7]} ")
    assert_refused(store, photos, SMALL, f"({size:,} -> {size + 4:,})".replace("(", "(size "), "--rebuild")
    photos[9].unlink()
    assert_refused(store, photos, SMALL, "2 of 30 files changed")
    assert_refused(store, photos[8:], SMALL, f"first: {photos[9]} (gone)")
    assert_pils(open_store(store, photos[10:], SMALL), photos[10:], SMALL)


def test_other_content_of_the_same_size_is_refused(photos, store):
    content = photos[7].read_bytes()
    os.utime(photos[2])
    photos[7].write_bytes(content[:-10] + bytes([content[-10] ^ 1]) + content[-9:])
    assert_refused(store, photos, SMALL, f"1 of 30 files changed since it was built, first: {photos[7]} (other ")


@pytest.mark.fault(
    "Photos",
    "a picture in a store that was beyond the limit of pixels, which has been raised since",
    "the store is built anew where nobody named its folder, else refused with the picture's name",
)
@each_kind
def test_what_can_be_read_meanwhile_is_no_bad_file_any_more(photos, tmp_path, monkeypatch, recipe):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DOGS_ACCEL_MAX_PIXELS", "2411")
    folders = [tmp_path / "named", default_store_folder(photos, recipe)]
    for folder in folders:
        build(photos, recipe, folder)
        with pytest.raises(BadImageError, match=r"^1 of 30 files cannot .*more than 2,411 px, the limit"):
            open_store(folder, photos, recipe)
    with filling_stores(photos, {tmp_path / "filled": recipe}) as take:
        for files in decode_files(photos, num_threads=1):
            take(files)
    monkeypatch.setenv("DOGS_ACCEL_MAX_PIXELS", "2412")
    assert_refused(folders[0], photos, recipe, "1 of 30 files changed since it was built, first: ")
    assert_refused(folders[0], photos, recipe, "(it can be read now, which it could not); to build it anew, remove")
    for folder in (folders[1], tmp_path / "filled"):
        assert_pils(open_store(build(photos, recipe, folder), photos, recipe), photos, recipe)


def test_there_is_no_store(photos, tmp_path):
    with pytest.raises(StoreError, match=f"^store {tmp_path / 'none'}: there is none; "):
        open_store(tmp_path / "none", photos, SMALL)


def test_paths_may_be_relative(photos, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "set" / "pug")
    relative = [os.path.relpath(path) for path in photos]
    assert relative[0].startswith("../beagle")
    assert_pils(open_store(store, relative, SMALL), relative, SMALL)
    assert default_store_folder(relative, SMALL) == default_store_folder(photos, SMALL)


def test_files_that_moved_together_are_found(photos, store, tmp_path):
    shutil.move(tmp_path / "set", tmp_path / "elsewhere")
    moved = [tmp_path / "elsewhere" / path.relative_to(tmp_path / "set") for path in photos]
    assert_pils(open_store(store, moved, SMALL), moved, SMALL)
    assert open_store(store, moved[15:20], SMALL).rows.tolist() == [15, 16, 17, 18, 19]
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    linked = [tmp_path / "link" / path.relative_to(tmp_path / "set") for path in photos]
    assert_pils(open_store(store, linked, SMALL), linked, SMALL)


def test_copied_files_are_told_by_their_content_and_then_by_their_time(photos, store, tmp_path, monkeypatch):
    shutil.copytree(tmp_path / "set", tmp_path / "copy", copy_function=shutil.copyfile)
    copies = [tmp_path / "copy" / path.relative_to(tmp_path / "set") for path in photos]
    pixels = (store / "pixels.npy").stat().st_ino
    assert_pils(open_store(store, copies, SMALL), copies, SMALL)
    build(copies, SMALL, store)
    assert (store / "pixels.npy").stat().st_ino == pixels
    monkeypatch.setattr("pipelines.store.index.content_digest", None)
    assert_pils(open_store(store, copies, SMALL), copies, SMALL)


def test_a_dataset_of_the_same_names_is_another_one(photos, store, tmp_path):
    for folder in ("beagle", "pug"):
        (tmp_path / "other" / folder).mkdir(parents=True)
    others = [tmp_path / "other" / path.relative_to(tmp_path / "set") for path in photos]
    for seed, path in enumerate(others):
        path.write_bytes(encoded(picture(50, 40, seed=seed)))
    assert_refused(store, others, SMALL, "30 of 30 files changed")


class TestOpenStores:
    """A store that is open, for whoever wants some of its files."""

    def test_its_rows_are_taken_without_another_look_at_the_files(self, photos, store, monkeypatch):
        opened = find_store(store, photos, SMALL)
        monkeypatch.setattr("pipelines.store.index.file_stamp", None)
        monkeypatch.setattr("pipelines.store.reading.read_index", None)
        some = [photos[17], photos[3], photos[3]]
        taken = opened.take(some, replace(SMALL, name="another", flip=0.5))
        assert taken.rows.tolist() == [17, 3, 3]
        assert taken.images is opened.images
        assert_pils(taken, some, SMALL)

    def test_other_files_or_another_size_are_refused(self, photos, store):
        opened = find_store(store, photos[:9], SMALL)
        with pytest.raises(StoreError, match=r"opened for 9 files, which lack 21 of 30, first: .*0009.jpg"):
            opened.take(photos, SMALL)
        with pytest.raises(StoreError, match=r"made for resize \(20, 24\), the recipe eval has \(256, 256\)"):
            opened.take(photos[:9], EVAL)

    def test_there_is_none_before_a_build(self, photos, tmp_path):
        assert find_store(tmp_path, photos, SMALL) is None
