"""The loaders on a GPU: pixels, order, and memory over many epochs; on a CPU too where that says the same."""

import ctypes
import functools
import gc

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from dogs_accel.parity.gates import EXACT
from dogs_accel.parity.measure import check_parity
from pipelines import EVAL, RESNET_TRAIN, VIT_TRAIN, make_loader
from pipelines.cached import CachedLoader
from pipelines.dali import DaliLoader
from pipelines.loader import epoch_order
from tests.support.operator_cases import DEVICES, needs_cuda

BACKENDS = ("torch", "dali", "cached")
RECIPES = [EVAL, RESNET_TRAIN, VIT_TRAIN]
HW_DECODER_LOADS = (0.0, 0.5, 1.0)
NUM_EPOCHS = 20
GROWN_GPU_BYTES = 64e6
"""What a GPU may hold more of after 20 epochs than after 3: less than a batch of each of them."""
GROWN_BYTES = {"torch": 40e6, "dali": 60e6, "cached": 20e6}
"""The same of the process's resident set; DALI breathes."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """67 JPEG files of the sizes of real photos, some of them grey, progressive or with whole chroma."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    paths = []
    for i in range(67):
        height, width = (int(side) for side in random.integers(200, 500, size=2))
        smooth = random.integers(0, 256, size=(height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
        image = Image.fromarray(smooth).resize((width, height), Image.Resampling.BICUBIC)
        paths.append(str(folder / f"{i}.jpg"))
        (image.convert("L") if i % 23 == 5 else image).save(
            paths[-1], quality=90, progressive=i % 11 == 3, subsampling=i % 3
        )
    return paths


def settings_of(device, **changed):
    return {"batch_size": 16, "device": device, "num_threads": 2, "seed": 42, "shuffle": True} | changed


def dali_loader(paths, labels, recipe, *, hw_decoder_load, **settings):
    """Make a DaliLoader as make_loader does, with another share for the decoder in the chip."""
    settings = {"rank": 0, "world_size": 1, "dtype": torch.float32} | settings
    del settings["backend"]
    where = settings.pop("device")
    device = torch.device(where, 0 if where == "cuda" else None)
    return DaliLoader(paths, labels, recipe, device=device, hw_decoder_load=hw_decoder_load, **settings)


@needs_cuda
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_pixels_are_those_of_the_reference(photos, backend, recipe):
    found = check_parity(photos, recipe, backend=backend, device="cuda", epoch=3, num_threads=4).require()
    if backend == "dali":
        assert found.share_differing > 0, "pixels are PIL's to the bit, so a CPU has decoded them"
    else:
        assert found.gate is EXACT


@needs_cuda
@pytest.mark.parametrize("backend", ["dali", "cached"])
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_so_they_are_of_real_photos(shared_data, backend, recipe):
    paths = sorted((shared_data / "stanford-dogs-mini" / "Images").rglob("*.jpg"))[::3]
    assert len(paths) > 200
    check_parity(paths, recipe, backend=backend, device="cuda", num_threads=8).require()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("hw_decoder_load", HW_DECODER_LOADS)
def test_pixels_do_not_depend_on_who_decodes(photos, device, hw_decoder_load):
    make = functools.partial(dali_loader, hw_decoder_load=hw_decoder_load)
    check_parity(photos, EVAL, backend="dali", device=device, num_threads=2, make=make).require()


@pytest.mark.parametrize("hw_decoder_load", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(photos, hw_decoder_load):
    with pytest.raises(ValueError, match=r"^hw_decoder_load: got .*, expected 0 to 1$"):
        dali_loader(photos, range(67), EVAL, hw_decoder_load=hw_decoder_load, backend="dali", **settings_of("cpu"))


@pytest.mark.parametrize("device", DEVICES)
def test_counts_and_order_over_epochs(photos, device):
    """Each image once an epoch; the order follows from seed and epoch alone, whichever loader it is."""
    orders = {}
    for backend in BACKENDS:
        for seed in (42, 43):
            with make_loader(
                photos, range(67), EVAL.at(32), backend=backend, **settings_of(device, seed=seed)
            ) as loader:
                epochs = [list(loader) for _ in range(3)]
            for batches in epochs:
                assert [len(batch.images) for batch in batches] == [16, 16, 16, 16, 3]
                assert all(torch.equal(batch.index, batch.labels) for batch in batches)
            orders[backend, seed] = [torch.cat([batch.index for batch in batches]).tolist() for batches in epochs]
    expected = {
        seed: [epoch_order(67, seed=seed, epoch=epoch, shuffle=True).tolist() for epoch in range(3)]
        for seed in (42, 43)
    }
    assert all(order == expected[seed] for (_, seed), order in orders.items())
    every = [tuple(order) for seed in expected for order in expected[seed]]
    assert len(set(every)) == 6
    assert all(sorted(order) == list(range(67)) for order in every)


@needs_cuda
@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_are_whole_on_a_stream_of_ones_own(photos, backend):
    recipe = VIT_TRAIN.at(64)
    with make_loader(photos, range(67), recipe, backend=backend, **settings_of("cuda")) as loader:
        expected = torch.cat([batch.images for batch in loader]).cpu()
        loader.set_epoch(0)
        stream, got = torch.cuda.Stream(), []
        with torch.cuda.stream(stream):
            for batch in loader:
                torch.cuda._sleep(5_000_000)
                got.append(batch.images * 1)
        stream.synchronize()
    assert torch.equal(torch.cat(got).cpu(), expected)


@needs_cuda
def test_cached_images_stay_on_the_gpu_where_they_fit(photos, monkeypatch):
    recipe, found = RESNET_TRAIN, []
    for share, device_type in ((0.25, "cuda"), (0.0, "cpu")):
        monkeypatch.setattr("pipelines.cached._GPU_SHARE", share)
        with make_loader(photos, range(67), recipe, backend="cached", **settings_of("cuda")) as loader:
            assert isinstance(loader, CachedLoader)
            assert loader._images.device.type == device_type
            found.append(torch.cat([batch.images for batch in loader]).cpu())
    assert torch.equal(*found)


def used_bytes(device):
    """What the process holds of the host, and what is held of the GPU."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free but in pieces is not a leak
    # Not the workers' part: they come to own pages that they were forked with, for many epochs.
    resident = psutil.Process().memory_info().rss
    if device == "cpu":
        return resident, 0
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    return resident, total - free


def epochs_of(loader, device, num_epochs):
    used = []
    for _ in range(num_epochs):
        assert sum(len(batch.images) for batch in loader) == loader.num_samples
        used.append(used_bytes(device))
    return np.array(used).T


@pytest.mark.parametrize("device", DEVICES[1:])  # tests/soak has them on a CPU, more of them
@pytest.mark.parametrize("backend", BACKENDS)
def test_twenty_epochs_leave_memory_as_three_did(photos, device, backend):
    settings = settings_of(device, batch_size=8)
    with make_loader(photos * 2, range(134), RESNET_TRAIN, backend=backend, **settings) as loader:
        host, gpu = epochs_of(loader, device, NUM_EPOCHS)
    # A batch is 5 MB: of one more in each epoch the GPU would hold 82 MB.
    assert max(gpu[3:]) - gpu[2] < GROWN_GPU_BYTES, gpu
    assert max(host[3:]) - host[2] < GROWN_BYTES[backend], host


@needs_cuda
@pytest.mark.parametrize("backend", BACKENDS)
def test_closing_gives_the_memory_back(photos, backend):
    used = []
    for _ in range(6):
        with make_loader(photos, range(67), RESNET_TRAIN, backend=backend, **settings_of("cuda")) as loader:
            epochs_of(loader, "cuda", 1)
        torch.cuda.empty_cache()
        used.append(used_bytes("cuda"))
    host, gpu = np.array(used).T
    assert max(gpu[2:]) - gpu[1] < GROWN_GPU_BYTES, gpu
    assert max(host[2:]) - host[1] < GROWN_BYTES[backend], host
