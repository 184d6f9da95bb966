"""Every backend keeps the loader's promise, and shows the pixels that PIL and torchvision show."""

import ctypes
import functools
import multiprocessing
import multiprocessing.spawn
import os
import resource
import shutil
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torchvision import transforms

from dogs_accel.ending import ending_in_a_line
from dogs_accel.throughput.cold_start import tree_memory_bytes
from pipelines import (
    CIFAR_TRAIN,
    EVAL,
    IMAGENET_EVAL,
    IMAGENET_TRAIN,
    RANDAUGMENT_TRAIN,
    RECIPES,
    RESNET_TRAIN,
    STANDARD_TRAIN,
    VIT_TRAIN,
    BadImageError,
    Recipe,
    make_loader,
    torchloader,
)
from pipelines.loader import WorkerError, epoch_order
from pipelines.store.build import plan_store
from pipelines.store.index import StoreError
from tests.support.picture_files import OTHERS, write

BACKENDS = ("torch", "dali", "cached")
FAST = ("dali", "cached")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """23 real JPEG files of different sizes, one of them grey."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    paths = []
    for i in range(23):
        height, width = random.integers(80, 400, size=2)
        smooth = random.integers(0, 256, size=(height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
        image = Image.fromarray(smooth).resize((int(width), int(height)), Image.Resampling.BICUBIC)
        paths.append(folder / f"{i}.jpg")
        (image.convert("L") if i == 5 else image).save(paths[-1], quality=90)
    return paths


def load(paths, recipe=EVAL, epoch=0, **settings):
    """All of one epoch: images in dataset order, and the index as it came."""
    settings = {"backend": "torch", "batch_size": 5, "device": "cpu", "num_threads": 2, "seed": 42} | settings
    with make_loader(paths, np.arange(len(paths)) * 10, recipe, **settings) as loader:
        loader.set_epoch(epoch)
        batches = list(loader)
    index = torch.cat([batch.index for batch in batches])
    images = torch.cat([batch.images for batch in batches])
    assert torch.equal(torch.cat([batch.labels for batch in batches]), index * 10)
    return images[index.argsort()], index


def levels(images, recipe):
    """Normalised images back to 0..255."""
    mean, std = (torch.tensor(value)[:, None, None] for value in (recipe.mean, recipe.std))
    return (images * std + mean) * 255


@pytest.mark.parametrize("backend", BACKENDS)
def test_batches(photos, backend):
    with make_loader(photos, range(23), EVAL, backend=backend, batch_size=5, device="cpu") as loader:
        batches = list(loader)
    assert len(loader) == len(batches) == 5
    assert [len(batch.images) for batch in batches] == [5, 5, 5, 5, 3]
    for images, labels, index in batches:
        assert images.shape[1:] == (3, 224, 224)
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.dtype == index.dtype == torch.int64


@pytest.mark.parametrize("backend", ["torch", "dali"])
def test_published_lengths(backend):
    for num, length in ((10_200, 319), (1_800, 57), (8_580, 269)):
        with make_loader(["x.jpg"] * num, np.zeros(num), EVAL, backend=backend, batch_size=32, device="cpu") as loader:
            assert len(loader) == length


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_each_sample_once_over_all_ranks_in_every_epoch(photos, backend, world_size):
    for epoch in range(3):
        seen = []
        for rank in range(world_size):
            settings = {"rank": rank, "world_size": world_size, "shuffle": True}
            _, index = load(photos, EVAL.at(32), epoch, backend=backend, **settings)
            seen += index.tolist()
        assert sorted(seen) == list(range(23))


@pytest.mark.parametrize("backend", BACKENDS)
def test_order_and_augmentation_depend_on_seed_epoch_and_sample_alone(photos, backend):
    recipe = RESNET_TRAIN.at(48)
    images, index = load(photos, recipe, epoch=2, backend=backend, shuffle=True)
    other_images, other_index = load(
        photos, recipe, epoch=2, backend=backend, shuffle=True, batch_size=7, num_threads=1
    )
    assert torch.equal(index, other_index)
    assert torch.equal(images, other_images)
    next_images, next_index = load(photos, recipe, epoch=3, backend=backend, shuffle=True)
    assert not torch.equal(index, next_index)
    assert not torch.equal(images, next_images)
    assert not torch.equal(index, load(photos, recipe, epoch=2, backend=backend, shuffle=True, seed=43)[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_iterating_again_is_the_next_epoch(photos, backend):
    with make_loader(photos, range(23), EVAL.at(32), backend=backend, shuffle=True, device="cpu", seed=1) as loader:
        orders = [torch.cat([batch.index for batch in loader]).tolist() for _ in range(3)]
    expected = [epoch_order(23, seed=1, epoch=epoch, shuffle=True).tolist() for epoch in range(3)]
    assert orders == expected
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_abandoned_epoch_leaves_nothing_behind(photos, backend):
    with make_loader(photos, range(23), EVAL.at(32), backend=backend, batch_size=2, device="cpu") as loader:
        for _ in range(3):
            next(iter(loader))
        assert torch.cat([batch.index for batch in loader]).tolist() == list(range(23))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_iterator_ends_with_the_next_one(photos, backend):
    """Two at a time would share one pipeline, and could give a sample the label of another."""
    with make_loader(photos, range(23), EVAL.at(32), backend=backend, batch_size=2, device="cpu") as loader:
        first = iter(loader)
        next(first)
        second = iter(loader)
        with pytest.raises(ValueError, match="loader: iterated again since"):
            next(first)
        assert torch.cat([batch.index for batch in second]).tolist() == list(range(23))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_stays_as_it_was_while_later_ones_come(photos, backend):
    with make_loader(photos, range(23), EVAL.at(64), backend=backend, batch_size=2, device="cpu") as loader:
        kept, copies = [], []
        for batch in loader:
            kept.append(batch.images)
            copies.append(batch.images.clone())
    assert all(torch.equal(one, other) for one, other in zip(kept, copies, strict=True))


def test_the_reference_is_torchvision_on_pil_bit_for_bit(photos):
    published = transforms.Compose(
        [
            transforms.Resize((256, 256)),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    expected = torch.stack([published(Image.open(path).convert("RGB")) for path in photos])
    assert torch.equal(load(photos)[0], expected)


@pytest.mark.parametrize("resize", [240, None])
def test_the_reference_keeps_the_aspect_where_the_recipe_says_so(photos, resize):
    published = transforms.Compose(
        [*([transforms.Resize(resize)] if resize else []), transforms.CenterCrop(60), transforms.ToTensor()]
    )
    recipe = Recipe(name="keep", resize=resize, crop=60, mean=(0, 0, 0), std=(1, 1, 1))
    expected = torch.stack([published(Image.open(path).convert("RGB")) for path in photos])
    assert torch.equal(load(photos, recipe)[0], expected)


CASES = [
    *(recipe if recipe.crop == 32 else recipe.at(64) for recipe in RECIPES.values()),
    EVAL,
    RESNET_TRAIN,
    replace(RESNET_TRAIN, interpolation="bicubic"),
    replace(RANDAUGMENT_TRAIN.at(64), name="everything", resize=100, padding=5, fill=(9, 8, 7), rotation_deg=30,
            brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5, grayscale=0.3, erasing=0.5, interpolation="bicubic",
            randaugment=(3, 20)),
    replace(EVAL, name="beyond", resize=None, crop=300, fill=(1, 2, 3)),
    replace(CIFAR_TRAIN, name="somewhere beyond", resize=None, crop=200, padding=0),
]  # fmt: skip


@pytest.fixture(scope="module")
def references(photos):
    """What the reference shows of the photos by recipe, each loaded once."""
    return functools.cache(lambda recipe: load(photos, recipe, num_threads=1)[0])


@pytest.mark.parametrize("recipe", CASES, ids=lambda recipe: f"{recipe.name}-{recipe.crop}-{recipe.interpolation}")
@pytest.mark.parametrize("backend", FAST)
def test_the_fast_loaders_show_what_the_reference_shows_bit_for_bit(photos, references, recipe, backend):
    assert torch.equal(load(photos, recipe, backend=backend)[0], references(recipe))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(
    "recipe",
    [EVAL, RESNET_TRAIN, VIT_TRAIN, IMAGENET_EVAL, STANDARD_TRAIN, RANDAUGMENT_TRAIN],
    ids=lambda recipe: recipe.name,
)
def test_so_they_do_on_real_photos(shared_data, recipe, backend):
    paths = sorted((shared_data / "stanford-dogs-mini" / "Images").rglob("*.jpg"))[::24]
    assert len(paths) > 30
    assert torch.equal(load(paths, recipe, epoch=7, backend=backend)[0], load(paths, recipe, epoch=7)[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recipe", [CIFAR_TRAIN, EVAL.at(24), IMAGENET_TRAIN.at(24)], ids=lambda recipe: recipe.name)
def test_images_may_be_given_as_an_array(tmp_path, recipe, backend):
    pixels = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), dtype=np.uint8)
    paths = []
    for number, image in enumerate(pixels):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(image).save(paths[-1])
    images, index = load(pixels, recipe, epoch=3, backend=backend, shuffle=True)
    expected, order = load(paths, recipe, epoch=3, shuffle=True, num_threads=1)
    assert torch.equal(images, expected)
    assert torch.equal(index, order)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_array_may_be_turned_round_and_read_only(backend):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    turned = pixels[..., ::-1]
    turned.flags.writeable = False
    fixed = pixels.copy()
    fixed.flags.writeable = False
    recipe = EVAL.at(24)
    expected = load(pixels[..., ::-1].copy(), recipe, num_threads=1)[0]
    assert torch.equal(load(turned, recipe, backend=backend, num_threads=1)[0], expected)
    assert torch.equal(load(fixed, recipe, backend=backend, num_threads=1)[0], load(pixels, recipe, num_threads=1)[0])


def test_an_array_is_loaded_by_cached_where_nobody_says_otherwise():
    pixels = np.zeros((3, 32, 32, 3), dtype=np.uint8)
    with make_loader(pixels, range(3), CIFAR_TRAIN, device="cpu") as loader:
        assert loader.backend == "cached"
    with pytest.raises(ValueError, match=r"^paths: got an array of shape \(3, 32, 32\), expected \(N, H, W, 3\)$"):
        make_loader(pixels[..., 0], range(3), CIFAR_TRAIN, device="cpu")
    with pytest.raises(ValueError, match=r"^paths: got an array of float32, expected uint8$"):
        make_loader(pixels.astype(np.float32), range(3), CIFAR_TRAIN, device="cpu")


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flip", 1.0), ("rotation_deg", 15.0), ("brightness", 0.9), ("contrast", 0.9), ("saturation", 0.9),
        ("hue", 0.5), ("grayscale", 1.0), ("randaugment", (2, 9)), ("padding", 40), ("erasing", 0.9),
        ("crop_place", "bottom_left"),
    ],
)  # fmt: skip
def test_each_augmentation_alone_is_the_same_in_all(photos, references, field, value, backend):
    recipe = replace(EVAL, name=field, **{field: value})
    if field == "padding":
        recipe = replace(recipe, random_crop=True)
    images = load(photos, recipe, backend=backend)[0]
    assert torch.equal(images, references(recipe))
    assert (levels(images, recipe) - levels(references(EVAL), recipe)).abs().mean() > 1


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("category", ["grayscale", "progressive", "subsampling", "exif-orientation"])
def test_unusual_jpegs_look_the_same_in_all(shared_data, category, backend):
    paths = []
    for path in sorted((shared_data / "hard-images" / category).iterdir()):
        try:
            Image.open(path).convert("RGB")
        except (OSError, SyntaxError):
            continue
        paths.append(path)
    assert torch.equal(load(paths, backend=backend)[0], load(paths)[0])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("backend", FAST)
def test_unusual_pictures_look_the_same_in_all(tmp_path, backend):
    paths = write(tmp_path, OTHERS.values())
    assert torch.equal(load(paths, backend=backend, batch_size=40)[0], load(paths, batch_size=40)[0])


@pytest.mark.fault("Photos", "unusual pictures of every kind, in any of the loaders", "the same pixels, bit for bit")
@pytest.mark.parametrize("backend", FAST)
def test_pictures_as_people_have_them_look_the_same_in_all(shared_data, backend):
    found = {path.name: path for path in (shared_data / "odd-images").iterdir() if not path.name.startswith(".")}
    heic, paths = found.pop("photo.heic"), list(found.values())
    images = load(paths, backend=backend)[0]
    assert torch.equal(images, load(paths)[0])
    seen = dict(zip(found, images, strict=True))
    assert torch.equal(seen["cut_black.png"], seen["cut_white.png"])  # they differ where nobody can see it
    assert torch.equal(seen["cut_black.png"], seen["cut_flat_white.png"])
    assert torch.equal(seen["grey16.png"], seen["grey8.png"])
    with pytest.raises(BadImageError, match=r"photo\.heic: a HEIC picture, which Pillow does not read: "):
        load([heic], EVAL.at(32), backend=backend)


@pytest.mark.fault("Photos", "half of a JPEG", "a bad file for every loader, and no grey half")
@pytest.mark.parametrize("backend", BACKENDS)
def test_half_of_a_jpeg_is_a_bad_file(shared_data, backend):
    """Of some damaged files DALI returns what it has, without a word."""
    truncated = sorted((shared_data / "hard-images" / "truncated").iterdir())
    assert truncated
    for path in truncated:
        with pytest.raises(BadImageError, match=path.name):
            load([path], EVAL.at(32), backend=backend)


@pytest.mark.fault(
    "Photos", "a PNG called .jpg; a photo turned by EXIF", "read by its content, the same in every loader"
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_png_called_jpg_and_exif_orientation_are_read_as_pil_reads_them(tmp_path, backend):
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 12, 3), dtype=np.uint8))
    image = noise.resize((120, 90), Image.Resampling.BICUBIC)
    image.save(tmp_path / "png.jpg", format="PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    paths = [tmp_path / "png.jpg", tmp_path / "turned.jpg"]
    expected = torch.stack(
        [
            transforms.ToTensor()(Image.open(path).convert("RGB").resize((64, 64), Image.Resampling.BILINEAR))
            for path in paths
        ]
    )
    recipe = Recipe(name="all", resize=(64, 64), crop=64, mean=(0, 0, 0), std=(1, 1, 1))
    assert (load(paths, recipe, backend=backend)[0] - expected).abs().max() * 255 < 2.01


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("content", [b"", b"not a picture", "cut", None])
def test_a_bad_file_is_named(photos, tmp_path, backend, content):
    bad = tmp_path / "bad one.jpg"
    if content == "cut":
        content = photos[0].read_bytes()[:200]
    if content is not None:
        bad.write_bytes(content)
    paths = [*photos[:3], bad, *photos[3:6]]
    with (
        pytest.raises(BadImageError, match=r"bad one\.jpg: "),
        make_loader(paths, range(7), EVAL.at(32), backend=backend, batch_size=2, device="cpu") as loader,
    ):
        list(loader)


@pytest.mark.parametrize("backend", BACKENDS)
def test_closing_ends_processes_and_threads(photos, backend):
    process = psutil.Process()
    load(photos, backend=backend)  # whatever a first use starts for good
    threads, children = process.num_threads(), len(process.children())
    for _ in range(3):
        load(photos, backend=backend)
    assert len(process.children()) <= children
    assert process.num_threads() <= threads
    assert threading.active_count() < 10


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_closed_loader_says_so_and_keeps_nothing(photos, backend):
    process = psutil.Process()
    children = len(process.children())
    loader = make_loader(photos, range(23), EVAL.at(32), backend=backend, batch_size=2, device="cpu")
    abandoned = iter(loader)
    next(abandoned)
    loader.close()
    loader.close()
    for batches in (abandoned, iter(loader)):
        with pytest.raises(ValueError, match="loader: closed"):
            next(batches)
    assert len(process.children()) <= children


@pytest.mark.fault("Folders and names", "file names that are not UTF-8, in a loader", "read like any other")
def test_file_names_that_are_not_utf8(photos, tmp_path):
    name = tmp_path / b"h\xfcndchen.jpg".decode("utf-8", "surrogateescape")
    name.write_bytes(photos[0].read_bytes())
    for backend in BACKENDS:
        assert torch.equal(load([name], backend=backend)[0], load(photos[:1])[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision(photos, backend):
    half, _ = load(photos, EVAL.at(64), backend=backend, dtype=torch.float16)
    full, _ = load(photos, EVAL.at(64), backend=backend)
    assert half.dtype == torch.float16
    assert (half.float() - full).abs().max() < 2e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size: got 0, expected an integer >= 1"),
        ({"num_threads": 0}, "num_threads: got 0"),
        ({"rank": 2, "world_size": 2}, "rank: got 2"),
        ({"backend": "dalli"}, "did you mean 'dali'"),
        ({"dtype": torch.int8}, r"dtype: got torch\.int8"),
        ({"seed": -1}, "seed: got -1"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(photos, settings, message):
    with pytest.raises(ValueError, match=message):
        make_loader(photos, range(23), EVAL, **({"device": "cpu"} | settings))


def test_labels_of_another_number_are_refused(photos):
    with pytest.raises(ValueError, match=r"labels: got shape \(2,\), expected \(23,\)"):
        make_loader(photos, range(2), EVAL, device="cpu")


@pytest.mark.parametrize("resize", [64, None])
def test_auto_keeps_a_store_of_any_resize(photos, tmp_path, resize):
    keep = Recipe(name="keep", resize=resize, crop=64)
    with make_loader(photos, range(23), keep, backend="auto", device="cpu", store_dir=tmp_path / "store") as loader:
        assert loader.backend == "cached"


@pytest.mark.parametrize("num_samples", [0, 1, 7, 1000])
def test_epoch_order_is_a_permutation(num_samples):
    order = epoch_order(num_samples, seed=3, epoch=5, shuffle=True)
    assert sorted(order.tolist()) == list(range(num_samples))


def test_the_gpu_graph_can_be_put_together_without_a_gpu():
    """DALI checks operators, devices and arguments while the graph is made; only running it takes a GPU."""
    from nvidia.dali import Pipeline, fn

    from pipelines.decoding.dali import rgb_node

    pipeline = Pipeline(batch_size=4, num_threads=1, device_id=0)
    with pipeline:
        output = rgb_node(fn.external_source(source=lambda: [], batch=True), gpu=True)
        assert output.device == "gpu"
        pipeline.set_outputs(output)


def test_the_streaming_loader_puts_a_batch_together_of_large_images(photos, monkeypatch):
    """The decoder gives large images in shorter lists."""
    expected = load(photos)[0]
    monkeypatch.setattr("pipelines.decoding.files._MAX_BATCH_PX", 100_000)
    assert torch.equal(load(photos, backend="dali")[0], expected)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_six_epochs_leave_memory_as_one_did(photos, backend):
    settings = {"backend": backend, "device": "cpu", "num_threads": 2, "batch_size": 5}
    with make_loader(photos * 8, range(23 * 8), RESNET_TRAIN, **settings) as loader:
        used = []
        for _ in range(7):
            for batch in loader:
                assert len(batch.images)
            ctypes.CDLL(None).malloc_trim(0)  # what is free but in pieces is not a leak
            used.append(tree_memory_bytes(os.getpid()))
    # The first epoch grows what later ones use again; a batch is 3 MB, an epoch 110. DALI breathes, and workers come to
    # own the pages that they were forked with.
    assert max(used[2:]) - used[1] < {"torch": 300e6, "dali": 45e6, "cached": 5e6}[backend], used


class TestAuto:
    def test_decodes_once_where_the_store_fits(self, photos, tmp_path, caplog):
        with (
            caplog.at_level("INFO", logger="pipelines"),
            make_loader(
                photos, range(23), replace(EVAL, name="fits"), device="cpu", store_dir=tmp_path / "s"
            ) as loader,
        ):
            assert loader.backend == "cached"
        [said] = [text for text in caplog.messages if text.startswith("loader for fits")]
        assert "cached (every file is decoded once; store: 23 images of 256 x 256 px" in said
        assert (tmp_path / "s" / "index.json").is_file()

    def test_says_that_the_store_is_there(self, photos, tmp_path, caplog):
        for name in ("first", "again"):
            with caplog.at_level("INFO", logger="pipelines"):
                make_loader(photos, range(23), replace(EVAL, name=name), device="cpu", store_dir=tmp_path).close()
        assert "loader for again: cached (the files are decoded already" in caplog.text

    def test_streams_where_the_disk_is_too_small(self, photos, tmp_path, monkeypatch):
        monkeypatch.setattr("pipelines.store.build._free_bytes", lambda folder: 1000)
        with make_loader(photos, range(23), EVAL, device="cpu", store_dir=tmp_path) as loader:
            assert loader.backend == "dali"
        assert not list(tmp_path.iterdir())

    def test_streams_where_the_memory_is_too_small(self, photos, tmp_path, monkeypatch):
        monkeypatch.setattr("pipelines.make._memory_bytes", lambda: 1000)
        with make_loader(photos, range(23), EVAL, device="cpu", store_dir=tmp_path) as loader:
            assert loader.backend == "dali"

    def test_a_started_store_counts_whole(self, photos, tmp_path, monkeypatch):
        monkeypatch.setattr("pipelines.make._memory_bytes", lambda: 2 * 20 * 256 * 256 * 3)
        plan = plan_store(photos, EVAL, tmp_path)
        monkeypatch.setattr(
            "pipelines.store.build.plan_store", lambda *_, **__: replace(plan, num_done=22, num_bytes=196_608)
        )
        with make_loader(photos, range(23), EVAL, device="cpu", store_dir=tmp_path) as loader:
            assert loader.backend == "dali"

    def test_builds_its_own_stale_store_anew_and_refuses_a_named_one(self, photos, tmp_path, monkeypatch, caplog):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        paths = [shutil.copy(path, tmp_path) for path in photos[:4]]
        recipe = replace(EVAL, name="stale")
        make_loader(paths, range(4), recipe, device="cpu").close()
        shutil.copy(photos[9], paths[0])
        with caplog.at_level("INFO"), make_loader(paths, range(4), recipe, device="cpu") as loader:
            assert loader.backend == "cached"
        assert "built anew (1 of 4 files changed since it was built, first: " in caplog.text
        [folder] = (tmp_path / "cache" / "dogs_accel" / "stores").iterdir()
        named = folder.rename(tmp_path / "named")
        shutil.copy(photos[8], paths[0])
        with pytest.raises(StoreError, match="changed since it was built"):
            make_loader(paths, range(4), recipe, device="cpu", store_dir=named)

    def test_no_files_are_no_epoch(self):
        with make_loader([], [], EVAL, device="cpu") as loader:
            assert list(loader) == []

    def test_does_without_dali(self, photos, monkeypatch):
        monkeypatch.setattr("pipelines.make.has_dali", lambda: False)
        with make_loader(photos, range(23), EVAL, device="cpu") as loader:
            assert loader.backend == "torch"


@pytest.mark.parametrize("backend", ["torch", "dali"])
def test_a_store_for_a_loader_that_has_none_is_refused(photos, tmp_path, backend):
    with pytest.raises(ValueError, match=f"store_dir: got .* for the {backend} loader"):
        make_loader(photos, range(23), EVAL, backend=backend, device="cpu", store_dir=tmp_path)


def test_the_cached_loader_reads_a_store_of_more_files(photos, tmp_path):
    from pipelines.store.build import build_store

    build_store(photos, EVAL, tmp_path, progress=False)
    for some in (photos[3:9], photos[::-1]):
        images, _ = load(some, RESNET_TRAIN, backend="cached", store_dir=tmp_path)
        assert torch.equal(images, load(some, RESNET_TRAIN)[0])


def test_an_open_store_is_read_without_another_look_at_the_files(photos, tmp_path, monkeypatch):
    from pipelines.store.build import build_store

    store = build_store(photos, EVAL, tmp_path, progress=False)
    monkeypatch.setattr("pipelines.store.index.file_stamp", None)
    for backend in ("cached", "auto"):
        images, _ = load(photos[3:9], RESNET_TRAIN, backend=backend, store=store)
        assert torch.equal(images, load(photos[3:9], RESNET_TRAIN)[0])
    for backend in ("torch", "dali"):
        with pytest.raises(ValueError, match=f"store: got .* for the {backend} loader, expected none: it has no store"):
            make_loader(photos, range(23), EVAL, backend=backend, device="cpu", store=store)
    with pytest.raises(StoreError, match=r"made for resize \(256, 256\), the recipe eval has \(37, 37\)"):
        make_loader(photos, range(23), EVAL.at(32), device="cpu", store=store)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", BACKENDS)
class TestOnAGpu:
    def test_pixels_are_those_of_the_reference(self, photos, backend):
        for recipe in (EVAL, RESNET_TRAIN, VIT_TRAIN):
            images, _ = load(photos, recipe, backend=backend, device="cuda")
            difference = (levels(images.cpu(), recipe) - levels(load(photos, recipe)[0], recipe)).abs()
            assert images.is_cuda
            assert images.is_contiguous(memory_format=torch.channels_last)
            assert difference.mean() < 1
            assert np.quantile(difference.numpy(), 0.999) < 8

    def test_a_batch_outlives_its_tensor_while_a_kernel_reads_it(self, photos, backend):
        recipe = EVAL.at(64)
        images, _ = load(photos, recipe, backend=backend, batch_size=2, device="cuda")
        expected = images.double().sum(dim=(1, 2, 3)).cpu()
        sums = torch.zeros(23, dtype=torch.float64, device="cuda")
        with make_loader(photos, range(23), recipe, backend=backend, batch_size=2, device="cuda") as loader:
            for _ in range(5):
                for images, _, index in loader:
                    torch.cuda._sleep(20_000_000)  # the reader below starts long after the tensor is dropped
                    sums[index] = images.double().sum(dim=(1, 2, 3))  # rounds alike for any number of images
                    del images
                torch.testing.assert_close(sums.cpu(), expected)
                sums.zero_()


@pytest.mark.fault(
    "Machine and environment",
    "a container's small /dev/shm, few file descriptors, a long TMPDIR",
    "loading works: batches need none of them",
)
def test_workers_need_no_descriptor_a_batch_no_shared_memory_and_no_short_tmpdir(photos, tmp_path, monkeypatch):
    """Tensors between processes would need all three, of which a container may have little."""
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setitem(multiprocessing.current_process()._config, "tempdir", str(long))
    monkeypatch.setattr(torchloader, "_TIMEOUT_S", 30)  # a worker that lacks one of them may wait for ever
    expected = load(photos, EVAL.at(32), batch_size=1, num_threads=1)[0]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with make_loader(photos, range(23), EVAL.at(32), backend="torch", batch_size=1, device="cpu", num_threads=2) as two:
        two_workers = iter(two)
        kept = [next(two_workers)]
        assert len(psutil.Process().children()) >= 2
        resource.setrlimit(resource.RLIMIT_NOFILE, (psutil.Process().num_fds() + 12, hard))
        try:
            kept += two_workers
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert "/dev/shm/torch" not in Path("/proc/self/maps").read_text()
    assert torch.equal(torch.cat([batch.images for batch in kept]), expected)


CLONE_NEWNS, CLONE_NEWUSER, MS_REC, MS_PRIVATE = 0x20000, 0x10000000, 0x4000, 1 << 18
NO_NAMESPACES = 77
"""An exit code: the system lets this process mount nothing, not even for itself."""


def load_with_little_shared_memory(photos, file):
    """The body of a process: a /dev/shm of 1 MB, where a batch is 3 MB."""
    libc = ctypes.CDLL(None, use_errno=True)
    alone = libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if os.geteuid() else 0)) == 0
    alone = alone and libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) == 0  # for nobody else
    if not alone or libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=1m") != 0:
        os._exit(NO_NAMESPACES)
    torch.set_num_threads(1)  # those of the parent did not come along
    assert os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize == 1 << 20
    np.save(file, load(photos[:10])[0].double().sum(dim=(1, 2, 3)).numpy())
    assert not os.listdir("/dev/shm")  # noqa: PTH208


@pytest.mark.fault(
    "Machine and environment", "a /dev/shm of 1 MB, as containers have little", "the torch loader loads as ever"
)
@pytest.mark.skipif(sys.platform != "linux", reason="needs mount namespaces")
def test_a_container_s_little_shared_memory_is_enough(photos, tmp_path):
    child = multiprocessing.get_context("fork").Process(
        target=load_with_little_shared_memory, args=(photos, tmp_path / "sums.npy")
    )
    child.start()
    child.join(timeout=120)
    if child.exitcode == NO_NAMESPACES:
        pytest.skip("the system lets this process have no mount namespace of its own")
    assert child.exitcode == 0
    np.testing.assert_array_equal(np.load(tmp_path / "sums.npy"), load(photos[:10])[0].double().sum(dim=(1, 2, 3)))


@pytest.mark.fault(
    "Machine and environment",
    "worker processes that cannot start",
    "threads decode the same pixels, which is said once",
)
def test_where_workers_cannot_start_threads_decode_the_same(photos, caplog):
    expected = load(photos, RESNET_TRAIN.at(32), num_threads=2)[0]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with make_loader(
        photos, range(23), RESNET_TRAIN.at(32), backend="torch", batch_size=5, device="cpu", num_threads=2, seed=42
    ) as loader:
        resource.setrlimit(resource.RLIMIT_NOFILE, (psutil.Process().num_fds() + 3, hard))
        try:
            images = torch.cat([batch.images for batch in loader])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert torch.equal(images, expected)
    assert [record.getMessage() for record in caplog.records] == [
        "torch loader: 2 worker processes cannot start ([Errno 24] Too many open files), so as many threads of this "
        "process decode"
    ]


@pytest.mark.fault("Machine and environment", "a few pictures for the torch loader", "no worker processes at all")
@pytest.mark.parametrize("settings", [{"num_threads": 1}, {"num_threads": 6, "batch_size": 5}])
def test_few_pictures_need_no_worker_processes(photos, settings):
    children = len(psutil.Process().children())
    expected, _ = load(photos, VIT_TRAIN.at(32), num_threads=2)
    settings = {"backend": "torch", "batch_size": 4, "device": "cpu", "seed": 42} | settings
    with make_loader(photos, range(23), VIT_TRAIN.at(32), **settings) as loader:
        images = torch.cat([batch.images for batch in loader])
        assert len(psutil.Process().children()) <= children
    assert torch.equal(images, expected)


@pytest.mark.fault("Signals and processes", "a loader's worker that is killed", "an error in one line, never a hang")
def test_the_death_of_a_worker_is_an_error_in_one_line(photos):
    with make_loader(
        list(photos) * 20, range(460), EVAL, backend="torch", batch_size=5, device="cpu", num_threads=2
    ) as loader:
        children = set(psutil.Process().children())
        batches = iter(loader)
        next(batches)
        [first, *_] = set(psutil.Process().children()) - children
        first.kill()
        with pytest.raises(
            WorkerError, match=r"^torch loader: DataLoader worker .*; a system that runs out of memory ends"
        ):
            list(batches)


class TestStoresOfLess:
    """`store_max_side` keeps less of large images, and says so."""

    MINE = replace(IMAGENET_TRAIN, name="mine", crop=64)

    @pytest.fixture
    def small_copies(self, photos, tmp_path):
        """The photos with at most 150 px on the longer side, without loss."""
        copies = []
        for path in photos:
            with Image.open(path) as image:
                scale = min(1, 150 / max(image.size))
                size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
                copies.append(tmp_path / f"{path.stem}.png")
                image.convert("RGB").resize(size, Image.Resampling.BILINEAR).save(copies[-1])
        return copies

    def test_its_pixels_are_those_of_smaller_photos(self, photos, small_copies, tmp_path):
        images, _ = load(photos, self.MINE, backend="cached", store_dir=tmp_path / "s", store_max_side=150)
        assert torch.equal(images, load(small_copies, self.MINE)[0])

    @pytest.mark.parametrize("backend", ["cached", "auto"])
    def test_it_is_said_once(self, photos, tmp_path, caplog, backend):
        settings = {"backend": backend, "device": "cpu", "store_dir": tmp_path / "s", "store_max_side": 150}
        for _ in range(2):
            with make_loader(photos, range(23), self.MINE, **settings) as loader:
                assert (loader.backend, loader.is_exact) == ("cached", False)
        said = [text for text in caplog.messages if "pixels are not the photos'" in text]
        assert len(said) == 1
        assert said[0].endswith("/s has images with at most 150 px on the longer side")
        with make_loader(photos, range(23), self.MINE, device="cpu", store_dir=tmp_path / "exact") as loader:
            assert loader.is_exact

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"backend": "torch"}, "store_max_side: got 9 for the torch loader, expected none"),
            ({"backend": "dali"}, "store_max_side: got 9 for the dali loader, expected none"),
            ({"recipe": EVAL}, r"store_max_side: got 9 for the recipe eval, whose resize is \(256, 256\), expected"),
            ({"paths": np.zeros((23, 40, 40, 3), np.uint8)}, "store_max_side: got 9 beside an array, expected none"),
        ],
    )
    def test_where_it_means_nothing_it_is_refused(self, photos, settings, message):
        given = {"paths": photos, "labels": range(23), "recipe": self.MINE, "backend": "auto"} | settings
        with pytest.raises(ValueError, match=message):
            make_loader(**given, device="cpu", store_max_side=9)


class Slow:
    """Samples that take their time, in a worker that is forked."""

    def __init__(self, samples, seconds):
        self.samples, self.seconds = samples, seconds

    def __getitems__(self, request):
        time.sleep(self.seconds)
        return self.samples.__getitems__(request)


@pytest.mark.fault(
    "Signals and processes",
    "a loader's worker that hangs",
    "an error in one line after ten minutes; a slow one is waited for",
)
@pytest.mark.parametrize(("most_s", "error"), [(60, None), (0.2, "^torch loader: a worker gave nothing for 0.2 s$")])
def test_a_slow_worker_is_waited_for_and_one_that_hangs_is_an_error(photos, monkeypatch, most_s, error):
    samples = torchloader._Samples
    monkeypatch.setattr(torchloader, "_Samples", lambda *settings: Slow(samples(*settings), 0.5))
    monkeypatch.setattr(torchloader, "_LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(torchloader, "_TIMEOUT_S", most_s)
    with make_loader(
        photos[:4], range(4), EVAL.at(32), backend="torch", batch_size=2, device="cpu", num_threads=2
    ) as loader:
        if error is None:
            assert torch.cat([batch.index for batch in loader]).tolist() == [0, 1, 2, 3]
        else:
            with pytest.raises(WorkerError, match=error):
                list(loader)


@pytest.mark.fault(
    "Signals and processes",
    "a loop without a main guard, under spawn or forkserver",
    "the worker that would run it again ends with a line that names the guard",
)
def test_a_loop_without_a_main_guard_is_told_so_by_its_workers(photos, monkeypatch, capsys):
    """Under spawn and forkserver a worker runs the script first, and would run its loop."""
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    monkeypatch.setattr(torchloader.DataLoader, "__iter__", lambda _: multiprocessing.spawn._check_not_importing_main())
    with (
        pytest.raises(SystemExit) as stop,
        make_loader(photos, range(23), EVAL.at(32), backend="torch", batch_size=2, device="cpu", num_threads=2) as two,
    ):
        list(two)
    assert stop.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "put the loop below if __name__ == '__main__':" in line


@pytest.mark.fault(
    "Signals and processes", "the system ends a loader's worker, also while a step computes",
    "one line that names the worker, the likely reason and what helps",
)  # fmt: skip
def test_a_worker_that_dies_while_something_else_is_done_is_one_line_too(photos, capsys):
    settings = {"backend": "torch", "batch_size": 5, "device": "cpu", "num_threads": 2}
    killed = []

    def work():
        with make_loader(list(photos) * 20, range(460), EVAL, **settings) as loader:
            children = set(psutil.Process().children())
            next(iter(loader))
            [first, *_] = set(psutil.Process().children()) - children
            killed.append(first.pid)
            first.kill()
            time.sleep(30)  # a step of training, which SIGCHLD interrupts

    with pytest.raises(SystemExit) as stop, ending_in_a_line("it"):
        work()
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        f"it: error: torch loader: DataLoader worker (pid {killed[0]}) is killed by signal: Killed; a system that runs "
        "out of memory ends processes like that: fewer threads (--num-threads) need less memory, and the other loaders "
        "(--loader) have no worker processes\n"
    )
