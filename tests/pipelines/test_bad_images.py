"""Bad images among good ones, with every loader: what is good comes once, and all three say the same."""

import csv
import logging
import random
import shutil

import numpy as np
import pytest
import torch

from pipelines import EVAL, IMAGENET_TRAIN, BadImageError, make_loader

BACKENDS = ["torch", "dali", "cached"]
RECIPE = EVAL.at(32)


@pytest.fixture(scope="module")
def good(dogs_root):
    return [str(path) for path in sorted(dogs_root.rglob("*.jpg"))[:40]]


def loaded(paths, backend, tmp_path, **more):
    """Every sample of an epoch by its position, and the sizes of the batches."""
    more |= {"store_dir": tmp_path / "store"} if backend == "cached" else {}
    with make_loader(
        paths, np.arange(len(paths)), RECIPE, backend=backend, batch_size=8, device="cpu", num_threads=1, **more
    ) as loader:
        batches = list(loader)
    for batch in batches:
        assert torch.equal(batch.labels, batch.index)
    images = {int(i): image for batch in batches for i, image in zip(batch.index, batch.images, strict=True)}
    assert len(images) == sum(len(batch.index) for batch in batches)
    return images, [len(batch.index) for batch in batches]


def left_out(caplog):
    return [record.args[0] for record in caplog.records if record.msg.startswith("left out")]


@pytest.fixture(scope="module")
def hard(shared_data):
    """The hard images, and whether each is one for everybody."""
    folder = shared_data / "hard-images"
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        return [str(folder / row["file"]) for row in csv.DictReader(file)]


@pytest.mark.fault("Photos", "files that cannot be decoded, and `on_bad_image=\"skip\"`",
                   "each is named once; every good image comes exactly once, from every loader the same")  # fmt: skip
def test_every_loader_leaves_out_the_same_images(good, hard, tmp_path, caplog):
    paths = [*good, *hard]
    random.Random(0).shuffle(paths)
    found, named = {}, {}
    with caplog.at_level(logging.WARNING):
        for backend in BACKENDS:
            caplog.clear()
            found[backend], _ = loaded(paths, backend, tmp_path, on_bad_image="skip")
            named[backend] = left_out(caplog)
            assert len(named[backend]) == len(set(named[backend]))
            missing = {path for position, path in enumerate(paths) if position not in found[backend]}
            assert missing == set(named[backend])
            assert missing <= set(hard)
    assert set(named["torch"]) == set(named["dali"]) == set(named["cached"])
    assert 0 < len(named["torch"]) < len(hard)
    for position, image in found["torch"].items():
        assert torch.equal(found["dali"][position], image), paths[position]
        assert torch.equal(found["cached"][position], image), paths[position]


@pytest.mark.parametrize("recipe", [RECIPE, IMAGENET_TRAIN.at(32)], ids=lambda recipe: recipe.name)
def test_images_that_are_copied_together_are_the_good_ones(good, tmp_path, recipe):
    """What a GPU does with a store that fits its memory, here in that of the host."""
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    paths = [*good[:5], str(tmp_path / "bad.jpg"), *good[5:9]]
    settings = {"batch_size": 4, "device": "cpu", "num_threads": 1, "on_bad_image": "skip"}
    with make_loader(paths, range(10), recipe, backend="cached", store_dir=tmp_path / "store", **settings) as loader:
        loader.set_epoch(3)
        expected = list(loader)
        loader._move_to_gpu()
        loader.set_epoch(3)
        for batch, before in zip(loader, expected, strict=True):
            assert torch.equal(batch.index, before.index)
            assert torch.equal(batch.images, before.images)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bad_image_is_an_error_where_nobody_says_otherwise(good, tmp_path, backend):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    with pytest.raises(BadImageError, match=r"bad\.jpg: "):
        loaded([*good[:11], str(bad), *good[11:]], backend, tmp_path)


@pytest.mark.fault("Photos", "a photo that vanishes between two epochs, and `on_bad_image=\"skip\"`",
                   "it is named once and left out from then on; batches are short by it")  # fmt: skip
@pytest.mark.parametrize("backend", ["torch", "dali"])
def test_a_file_that_vanishes_between_epochs_is_left_out(good, tmp_path, backend, caplog):
    paths = []
    for number, path in enumerate(good[:16]):
        paths.append(tmp_path / f"{number}.jpg")
        shutil.copy(path, paths[-1])
    with make_loader(
        paths, range(16), RECIPE, backend=backend, batch_size=4, device="cpu", num_threads=1, on_bad_image="skip"
    ) as loader:
        assert [batch.index.tolist() for batch in loader] == [
            [0, 1, 2, 3],
            [4, 5, 6, 7],
            [8, 9, 10, 11],
            [12, 13, 14, 15],
        ]
        paths[5].unlink()
        for position in (12, 13, 14, 15):
            paths[position].write_bytes(b"")
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                assert [batch.index.tolist() for batch in loader] == [[0, 1, 2, 3], [4, 6, 7], [8, 9, 10, 11]]
        assert len(loader) == 4
    assert left_out(caplog) == [str(paths[position]) for position in (5, 12, 13, 14, 15)]
    short = [record.getMessage() for record in caplog.records if "batches" in record.getMessage()]
    assert short == [f"epoch {epoch} has 3 of 4 batches: no image of the others can be decoded" for epoch in (1, 2)]


def test_an_unknown_way_is_refused(good):
    with pytest.raises(ValueError, match=r"^on_bad_image: got 'ignore', expected one of error, skip$"):
        make_loader(good, range(40), RECIPE, backend="torch", device="cpu", on_bad_image="ignore")
