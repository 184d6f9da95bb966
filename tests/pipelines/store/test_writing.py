"""A store holds PIL's pixels, whole or not there at all, and an interrupted build goes on."""

import errno
import hashlib
import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipelines import EVAL, RESNET_TRAIN, VIT_TRAIN
from pipelines.decoding.files import decode_files
from pipelines.decoding.pil import header_size, open_rgb
from pipelines.recipe import IMAGENET_EVAL, IMAGENET_TRAIN
from pipelines.store.build import build_store, filling_stores, plan_store
from pipelines.store.index import StoreError
from pipelines.store.reading import find_store, open_store
from pipelines.torchloader import resize_image
from tests.support.picture_files import KINDS, OTHERS, encoded, picture, write
from tests.support.small_stores import (
    AS_IS,
    EACH_KIND,
    FILTERS,
    SHORTER,
    SMALL,
    assert_pils,
    assert_same_store,
    build,
    each_kind,
    journalled,
    pil_pixels,
)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("resize", [(20, 24), (100, 90), 20, None])
def test_pixels_equal_pils_for_every_kind_of_file(tmp_path, interpolation, resize):
    paths = write(tmp_path, (KINDS | OTHERS).values())
    recipe = replace(EVAL.at(16), resize=resize, interpolation=interpolation)
    store = open_store(build(paths, recipe, tmp_path / "store"), paths, recipe)
    assert store.content.dtype == torch.uint8
    assert (None if store.images is None else store.images.shape) == (
        (len(paths), *resize, 3) if isinstance(resize, tuple) else None
    )
    assert_pils(store, paths, recipe)


def test_real_photos_equal_pils_at_the_published_size(shared_data, tmp_path):
    paths = sorted((shared_data / "stanford-dogs-mini" / "Images").rglob("*.jpg"))[::7]
    folder = build(paths, EVAL, tmp_path)
    assert_pils(open_store(folder, paths, EVAL), paths, EVAL)
    for recipe in (RESNET_TRAIN, VIT_TRAIN):
        assert len(open_store(folder, paths, recipe).rows) == len(paths)


@pytest.mark.parametrize("recipe", [IMAGENET_EVAL, IMAGENET_TRAIN], ids=lambda recipe: recipe.name)
def test_real_photos_are_stored_as_the_reference_resizes_them(shared_data, tmp_path, recipe):
    paths = sorted((shared_data / "stanford-dogs-mini" / "Images").rglob("*.jpg"))[::35]
    store = build_store(paths, recipe, tmp_path, progress=False).take(paths, recipe)
    assert_pils(store, paths, recipe)
    for position, path in enumerate(paths):
        np.testing.assert_array_equal(store.image(position), resize_image(open_rgb(str(path)), recipe))


def test_a_strip_longer_than_the_operator_makes_is_pillows_too(tmp_path):
    paths = write(tmp_path, [encoded(picture(1, 1050), "PNG"), encoded(picture(50, 40))])
    recipe = replace(SHORTER, resize=16, interpolation="bicubic")
    store = open_store(build(paths, recipe, tmp_path / "store"), paths, recipe)
    assert store.sizes.tolist() == [[16_800, 16], [16, 20]]
    assert_pils(store, paths, recipe)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.fault(
    "Photos", "damaged, cut off, strange and huge files in a store", "each is stored as Pillow has it, or named"
)
def test_hard_images_are_stored_or_named(shared_data, tmp_path):
    paths = sorted(path for path in (shared_data / "hard-images").rglob("*") if path.suffix in (".jpg", ".jpeg"))
    with filling_stores(paths, {tmp_path / kind: recipe for kind, recipe in EACH_KIND.items()}) as take:
        for files in decode_files(paths):
            take(files)
    problems = []
    for kind, recipe in EACH_KIND.items():
        store = build_store(paths, recipe, tmp_path / kind, progress=False)
        taken = store.take(paths, recipe, on_bad_image="skip")
        problems.append(taken.problems)
        good = [at for at in range(len(paths)) if at not in taken.problems]
        assert_pils(store.take([paths[at] for at in good], recipe), [paths[at] for at in good], recipe)
        np.testing.assert_array_equal(taken.rows[good], good)
        places = store.index.places
        for row in taken.problems:
            assert not store.content[places.offsets[row] :][: places.row_bytes[row]].any()
    assert len(problems[0]) > 60
    assert problems[0] == problems[1] == problems[2]


def test_numpy_loads_the_pixels(photos, tmp_path):
    folder = build(photos, SMALL, tmp_path / "store")
    pixels = np.load(folder / "pixels.npy")
    np.testing.assert_array_equal(pixels, open_store(folder, photos, SMALL).images)
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "index.json", "pixels.npy"]


def test_numpy_loads_rows_of_different_sizes_as_one_dimension(photos, tmp_path):
    folder = build(photos, SHORTER, tmp_path / "store")
    pixels = np.load(folder / "pixels.npy")
    expected = np.concatenate([pil_pixels(path, SHORTER).reshape(-1) for path in photos])
    np.testing.assert_array_equal(pixels, expected)


@each_kind
def test_bytes_follow_from_the_files_alone(photos, tmp_path, recipe):
    photos[5].write_bytes(photos[5].read_bytes()[:400])
    photos[6].write_bytes(b"not an image")
    one = build(photos, recipe, tmp_path / "one", num_threads=1)
    other = build([*photos[::-1], photos[4]], recipe, tmp_path / "other", num_threads=3)
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


def test_the_index_says_how_large_the_rows_of_different_sizes_are(photos, tmp_path):
    photos[5].write_bytes(b"not an image")
    photos[6].write_bytes(photos[6].read_bytes()[:-40])  # 46 x 36 px, as its header says
    index = json.loads((build(photos, SHORTER, tmp_path / "store") / "index.json").read_text())
    files = index.pop("files")
    assert index == {"format": 2, "resize": 20, "interpolation": "bilinear", "root": str(tmp_path / "set")}
    assert list(files[6]) == ["path", "size", "mtime_ns", "sha256", "problem", "height", "width"]
    assert [(file["height"], file["width"]) for file in files[4:7]] == [(20, 25), (0, 0), (20, 25)]
    assert [file["problem"] is not None for file in files[4:7]] == [False, True, True]
    index = json.loads((build(photos, AS_IS, tmp_path / "as it is") / "index.json").read_text())
    assert (index["resize"], index["interpolation"]) == (None, None)
    assert [(file["height"], file["width"]) for file in index["files"][4:7]] == [(34, 44), (0, 0), (36, 46)]


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


def half_built_store(photos, recipe, folder, monkeypatch):
    with monkeypatch.context() as patch:
        fill_disk_after(patch, 17)
        with pytest.raises(StoreError, match=r"the disk is full .* the same build goes on from there once"):
            build(photos, recipe, folder, num_threads=1)
    assert journalled(folder) == list(range(16))
    return folder


@pytest.fixture
def half_built(photos, tmp_path, monkeypatch, chunks_of_4):
    return half_built_store(photos, SMALL, tmp_path / "half", monkeypatch)


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


class TestRowsOfDifferentSizes:
    """An interrupted build goes on where every picture has kept its size, and else from the start."""

    @pytest.mark.parametrize("recipe", [SHORTER, AS_IS], ids=lambda recipe: recipe.name)
    def test_it_goes_on(self, photos, tmp_path, monkeypatch, chunks_of_4, decoded, recipe):
        folder = half_built_store(photos, recipe, tmp_path / "half", monkeypatch)
        photos[3].write_bytes(encoded(picture(43, 33, seed=99)))
        photos[20].write_bytes(encoded(picture(60, 36, seed=98))[:-40])
        row_bytes = [pil_pixels(path, recipe).size for path in (photos[3], *photos[16:20], *photos[21:])]
        del decoded[:]
        plan = plan_store(photos, recipe, folder)
        assert (plan.num_done, plan.stale) == (15, None)
        assert plan.num_bytes == sum(row_bytes) + recipe.resized(36, 60)[0] * recipe.resized(36, 60)[1] * 3
        assert plan.total_bytes == (folder / "building.npy").stat().st_size - 128
        build(photos, recipe, folder)
        assert decoded == list(map(str, [photos[3], *photos[16:]]))
        assert_same_store(folder, build(photos, recipe, tmp_path / "whole"))

    @pytest.mark.fault(
        "Photos", "a picture gets another size while a store is half built", "its build starts anew, which is said"
    )
    @pytest.mark.parametrize("change", ["another size", "no header", "gone"])
    def test_it_starts_anew(self, photos, tmp_path, monkeypatch, chunks_of_4, decoded, caplog, change):
        folder = half_built_store(photos, SHORTER, tmp_path / "half", monkeypatch)
        contents = {"another size": encoded(picture(99, 33, seed=9)), "no header": b"not an image"}
        if change == "gone":
            photos[3].unlink()
        else:
            photos[3].write_bytes(contents[change])
        del decoded[:]
        plan = plan_store(photos, SHORTER, folder)
        assert (plan.num_done, plan.num_bytes) == (0, plan.total_bytes)
        why = r"built anew \(pictures have other sizes than when its build was started\)"
        assert re.search(why, str(plan))
        build(photos, SHORTER, folder)
        assert decoded == list(map(str, photos))
        assert len([text for text in caplog.messages if re.search(why, text)]) == 1
        assert_same_store(folder, build(photos, SHORTER, tmp_path / "whole"))

    def test_a_picture_that_changes_its_size_after_its_header_was_read_breaks_no_other(self, photos, tmp_path):
        folder = tmp_path / "filled"
        with filling_stores(photos, {folder: AS_IS}) as take:
            photos[7].write_bytes(encoded(picture(300, 200)))
            for files in decode_files(photos):
                take(files)
        lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()[1:]]
        problems = {line["row"]: line["problem"] for line in lines}
        assert problems.pop(7) == "200 x 300 px, its header says another size"
        assert set(problems.values()) == {None}
        others = photos[:7] + photos[8:]
        build(photos, AS_IS, folder)  # which finds the new size, and starts anew
        assert_pils(open_store(folder, others, AS_IS), others, AS_IS)

    def test_headers_are_read_once(self, photos, tmp_path, monkeypatch):
        read = []
        monkeypatch.setattr("pipelines.store.rows.header_size", lambda path: read.append(path) or header_size(path))
        assert plan_store(photos, AS_IS, tmp_path / "one").total_bytes > 0
        plan_store(photos, SHORTER, tmp_path / "other")
        build(photos, AS_IS, tmp_path / "one")
        assert sorted(read) == sorted(map(str, photos))
        photos[3].write_bytes(encoded(picture(43, 34, seed=99)))
        plan_store(photos, SHORTER, tmp_path / "other")
        assert read[30:] == [str(photos[3])]

    @pytest.mark.fault("Disk", "no descriptor is left while headers are read", "the build ends, and blames no picture")
    def test_a_lack_of_descriptors_is_no_bad_file(self, photos, tmp_path, monkeypatch):
        def lacking(path):
            raise OSError(errno.EMFILE, "Too many open files")

        with monkeypatch.context() as patch:
            patch.setattr("pipelines.store.rows.header_size", lacking)
            with pytest.raises(StoreError, match=r"it cannot be used \(Too many open files\)$"):
                build(photos, AS_IS, tmp_path / "store")
        assert_pils(open_store(build(photos, AS_IS, tmp_path / "store"), photos, AS_IS), photos, AS_IS)


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


@each_kind
@pytest.mark.parametrize("step", ["write_index", "flush_path"])
def test_a_build_that_stops_at_its_last_steps_is_finished_without_decoding(
    photos, tmp_path, monkeypatch, decoded, step, recipe
):
    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"pipelines.store.writing.{step}", stop)
        with pytest.raises(KeyboardInterrupt):
            build(photos, recipe, tmp_path / "stopped")
    assert (tmp_path / "stopped" / "pixels.npy").exists()
    del decoded[:]
    assert plan_store(photos, recipe, tmp_path / "stopped").num_done == 30
    build(photos, recipe, tmp_path / "stopped")
    assert decoded == []
    assert_same_store(tmp_path / "stopped", build(photos, recipe, tmp_path / "whole"))
