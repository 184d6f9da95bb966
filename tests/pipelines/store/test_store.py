"""The store: PIL's pixels, whole or not there at all, never built twice and never mistaken for another."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from pipelines import EVAL, RESNET_TRAIN, VIT_TRAIN, BadImageError
from pipelines.decoding import files as decoding_files
from pipelines.decoding.pil import open_rgb
from pipelines.store.build import StorePlan, build_store, default_store_folder, plan_store
from pipelines.store.index import StoreError
from pipelines.store.reading import _map_pixels, open_store, store_problems
from tests.support.picture_files import KINDS, OTHERS, encoded, picture, write

SMALL = replace(EVAL.at(16), resize=(20, 24))
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def build(paths, recipe, folder, **settings):
    build_store(paths, recipe, folder, progress=False, **settings)
    return folder


def pil_pixels(path, recipe):
    height, width = recipe.resize
    return np.asarray(open_rgb(str(path)).resize((width, height), FILTERS[recipe.interpolation]))


def assert_pils(store, paths, recipe):
    for path, row in zip(paths, store.rows.tolist(), strict=True):
        np.testing.assert_array_equal(store.images[row], pil_pixels(path, recipe), err_msg=str(path))


@pytest.fixture
def photos(tmp_path):
    """30 small photos in two folders of the same names."""
    folders = [tmp_path / "set" / name for name in ("beagle", "pug")]
    for folder in folders:
        folder.mkdir(parents=True)
    contents = [encoded(picture(40 + seed, 30 + seed % 7, seed=seed)) for seed in range(30)]
    return write(folders[0], contents[:15]) + write(folders[1], contents[15:])


# --- pixels -----------------------------------------------------------------------------------------------------------


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
    problems = store_problems(folder, paths, SMALL)
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


def test_rows_follow_the_paths_asked_for(photos, tmp_path):
    folder = build(photos, SMALL, tmp_path / "store")
    some = [photos[17], photos[3], photos[3], photos[29]]
    store = open_store(folder, some, SMALL)
    assert store.rows.tolist() == [17, 3, 3, 29]
    assert len(store.images) == 30
    assert_pils(store, some, SMALL)
    assert (plan := plan_store(some, SMALL, folder)).is_complete
    assert (plan.num_images, plan.num_done, plan.num_bytes) == (3, 3, 0)


def test_bytes_follow_from_the_files_alone(photos, tmp_path):
    one = build(photos, SMALL, tmp_path / "one", num_threads=1)
    other = build([*photos[::-1], photos[4]], SMALL, tmp_path / "other", num_threads=3)
    for name in ("pixels.npy", "index.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_the_index_describes_every_file(photos, tmp_path):
    photos[5].write_bytes(b"not an image")
    index = json.loads((build(photos, SMALL, tmp_path / "store") / "index.json").read_text())
    files = index.pop("files")
    assert index == {"format": 1, "resize": [20, 24], "interpolation": "bilinear", "root": str(tmp_path / "set")}
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
    images = _map_pixels(tmp_path, shape)
    assert images.shape == shape
    assert images[-1, -1, -1].tolist() == [0, 0, 0]


def test_names_that_are_no_text(tmp_path):
    path = tmp_path / os.fsdecode(b'\xff caf\xc3\xa9 "quoted"\n.jpg')
    path.write_bytes(KINDS["4:2:0"])
    store = build([path], SMALL, tmp_path / "store")
    assert_pils(open_store(store, [path], SMALL), [path], SMALL)


# --- bad files --------------------------------------------------------------------------------------------------------


def test_bad_files_are_listed_when_they_are_asked_for(photos, tmp_path):
    for number, path in enumerate(photos[:13]):
        path.write_bytes(b"" if number == 0 else b"not an image")
    photos[13].unlink()
    folder = build(photos, SMALL, tmp_path / "store")
    with pytest.raises(BadImageError) as caught:
        open_store(folder, photos, SMALL)
    message = str(caught.value)
    assert message.startswith(f"store {folder}: 14 of 30 files cannot be decoded: {photos[0]}: an empty file; ")
    assert message.count("not an image") == 9
    assert message.endswith("; and 4 more")
    assert store_problems(folder, photos, SMALL)[str(photos[13])] == "No such file or directory"
    assert_pils(open_store(folder, photos[14:], SMALL), photos[14:], SMALL)
    assert plan_store(photos, SMALL, folder).is_complete


def test_a_missing_file_that_appears_is_a_change(photos, tmp_path):
    content = photos[3].read_bytes()
    photos[3].unlink()
    folder = build(photos, SMALL, tmp_path / "store")
    photos[3].write_bytes(content)
    with pytest.raises(StoreError, match=r"1 of 30 files changed .*0003.jpg \(not there before\)"):
        open_store(folder, photos, SMALL)


# --- what is refused --------------------------------------------------------------------------------------------------


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


@pytest.fixture
def store(photos, tmp_path):
    return build(photos, SMALL, tmp_path / "store")


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


def test_another_format_is_refused(photos, store):
    index = store / "index.json"
    index.write_text(index.read_text().replace('"format": 1', '"format": 2', 1))
    assert_refused(store, photos, SMALL, "made in format 2, expected format 1; ")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1, "resize": [20, 24], "interpolation": "bilinear"}'])
def test_a_damaged_index_is_refused(photos, store, content):
    (store / "index.json").write_text(content)
    assert_refused(store, photos, SMALL, "index.json is damaged")


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


def test_rebuild_replaces_a_stale_store(photos, store):
    photos[7].write_bytes(encoded(picture(77, 55, seed=100)))
    assert not plan_store(photos, SMALL, store, rebuild=True).is_complete
    build(photos, SMALL, store, rebuild=True)
    assert_pils(open_store(store, photos, SMALL), photos, SMALL)
    assert_pils(open_store(build(photos[:9], EVAL, store, rebuild=True), photos[:9], EVAL), photos[:9], EVAL)


def test_there_is_no_store(photos, tmp_path):
    with pytest.raises(StoreError, match=f"^store {tmp_path / 'none'}: there is none; "):
        open_store(tmp_path / "none", photos, SMALL)


def test_an_array_of_that_name_is_left_alone(photos, tmp_path):
    np.save(tmp_path / "pixels.npy", np.arange(3))
    with pytest.raises(StoreError, match=r"pixels.npy is there without index.json"):
        build(photos, SMALL, tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "pixels.npy"), np.arange(3))


# --- where the files are ----------------------------------------------------------------------------------------------


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


# --- plan and room ----------------------------------------------------------------------------------------------------


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


# --- interrupted builds -----------------------------------------------------------------------------------------------


@pytest.fixture
def chunks_of_4(monkeypatch):
    monkeypatch.setattr("pipelines.store.writing._CHUNK", 4)
    monkeypatch.setattr("pipelines.decoding.files.decode_files.__kwdefaults__", {"batch_size": 4, "num_threads": None})


@pytest.fixture
def decoded(monkeypatch):
    """The paths that builds decode."""
    paths = []

    def watched(some, **settings):
        paths.extend(some)
        return decode_files(some, **settings)

    decode_files = decoding_files.decode_files
    monkeypatch.setattr(decoding_files, "decode_files", watched)
    return paths


def journalled(folder):
    return [json.loads(line)["row"] for line in (folder / "journal.jsonl").read_text().splitlines()[1:]]


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


def assert_same_store(folder, other):
    for name in ("pixels.npy", "index.json"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()


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
    assert list(store_problems(half_built, photos, SMALL)) == [str(photos[5]), str(photos[20])]


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


@pytest.mark.parametrize("step", ["write_index", "_sync_folder"])
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


BUILDER = """
import logging, sys, time
from pathlib import Path
from dogs_accel import ops
from pipelines import EVAL
from pipelines.decoding import files
from pipelines.store import writing
from pipelines.store.build import build_store
from pipelines.store.reading import open_store

logging.basicConfig(level=logging.WARNING, format="%(message)s")
folder, delay_s, paths = sys.argv[1], float(sys.argv[2]), sorted(Path(sys.argv[3]).rglob("*.jpg"))
writing._CHUNK = 4
files.decode_files.__kwdefaults__["batch_size"] = 4
squash, rows = ops.squash, []

def slow_squash(images, *args, **settings):
    time.sleep(delay_s)
    rows.extend(images)
    return squash(images, *args, **settings)

ops.squash = slow_squash
print("ready", flush=True)
sys.stdin.readline()
build_store(paths, EVAL.at(16), folder, num_threads=1, progress=False)
print(len(rows), int(open_store(folder, paths, EVAL.at(16)).images.sum()))
"""


@pytest.fixture
def start_builders(tmp_path):
    """Start processes that each build one store, with its delays in s a batch, when they are told to."""
    started = []

    def start(folder, *delays_s):
        for delay_s in delays_s:
            arguments = [folder, delay_s, tmp_path / "set"]
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", BUILDER, *map(str, arguments)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                    cwd=Path(__file__).parents[3],
                )
            )  # fmt: skip
        for process in started:
            assert process.stdout.readline() == "ready\n"
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


def tell(process):
    process.stdin.write("\n")
    process.stdin.flush()


def wait_for_rows(folder, num, process):
    end = time.monotonic() + 60
    while not (folder / "journal.jsonl").exists() or len(journalled(folder)) < num:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


def test_killed_builds_end_in_the_same_bytes(photos, tmp_path, start_builders, decoded):
    folder, recipe = tmp_path / "killed", EVAL.at(16)
    num_done = 0
    for process in start_builders(folder, 0.1, 0.1):
        tell(process)
        wait_for_rows(folder, num_done + 4, process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (folder / "index.json").exists()
        assert len(set(journalled(folder))) == len(journalled(folder)) >= num_done + 4
        num_done = len(journalled(folder))
    assert num_done < 30
    build(photos, recipe, folder)
    assert decoded == list(map(str, photos[num_done:]))
    assert_same_store(folder, build(photos, recipe, tmp_path / "whole"))


def test_one_process_builds_and_the_others_wait(photos, tmp_path, start_builders):
    folder = tmp_path / "shared"
    first, *others = start_builders(folder, 0.1, 0, 0)
    tell(first)
    wait_for_rows(folder, 1, first)
    for process in others:
        tell(process)
    (out, err), *waited = [process.communicate(timeout=60) for process in (first, *others)]
    num_built, total = out.split()
    assert int(num_built) == 30
    assert err == ""
    for other_out, other_err in waited:
        assert other_out.split() == ["0", total]
        assert other_err.startswith(f"store {folder}: waiting for process {first.pid} on ")
        assert other_err.count("\n") == 1


def test_a_process_that_waited_for_a_killed_one_goes_on(photos, tmp_path, start_builders):
    folder = tmp_path / "shared"
    first, second = start_builders(folder, 0.1, 0)
    tell(first)
    wait_for_rows(folder, 4, first)
    tell(second)
    assert "waiting for process" in second.stderr.readline()
    first.kill()
    first.communicate()
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    num_built = int(out.split()[0])
    assert 0 < num_built <= 26
    assert_same_store(folder, build(photos, EVAL.at(16), tmp_path / "whole"))
