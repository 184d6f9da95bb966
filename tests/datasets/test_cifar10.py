"""CIFAR-10 from batches that the test pickles as the publisher did."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dogs_accel.datasets import DatasetError, DatasetNotFoundError, open_dataset
from dogs_accel.datasets.layouts.cifar10 import BATCHES_FOLDER, CLASS_NAMES, PICTURES_FOLDER, read_batch
from tests.support.fuzzing import fuzz, value_or_line


def batch(images, labels, names, **more):
    """A batch; images (N, 32, 32, 3) uint8."""
    data = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return {b"data": data, b"labels": labels, b"filenames": [name.encode() for name in names], **more}


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path, images):
    folder = tmp_path / BATCHES_FOLDER
    folder.mkdir()
    labels = [label for label in range(10) for _ in range(2)]
    for at, name in enumerate(("data_batch_1", "data_batch_2", "test_batch")):
        own = images[20 * at : 20 * at + 20]
        content = batch(own, labels, [f"x_s_{20 * at + n:06}.png" for n in range(20)], batch_label=b"of a test")
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return tmp_path


def test_the_pictures_are_the_arrays(root, images):
    data = open_dataset(root, unpack=True, progress=False)
    assert data.class_names == list(CLASS_NAMES)
    assert [data.official_split.count(part) for part in ("official_train", "official_test")] == [40, 20]
    assert (data.facts.name, data.facts.published) == ("cifar-10-subset", "cifar-10")
    for path, label, part in zip(data.paths, data.labels, data.official_split, strict=True):
        number = int(path[-10:-4])
        assert label == number % 20 // 2
        assert (part == "official_test") == (number >= 40)
        np.testing.assert_array_equal(np.asarray(Image.open(path)), images[number])
    before = Path(data.paths[0]).stat().st_mtime_ns
    assert open_dataset(root).ids == data.ids
    assert Path(data.paths[0]).stat().st_mtime_ns == before


def test_the_folder_of_the_batches_is_that_of_the_dataset(root):
    assert len(open_dataset(root / BATCHES_FOLDER, unpack=True, progress=False)) == 60


def test_a_batch_between_others_is_missed(root):
    (root / BATCHES_FOLDER / "data_batch_1").unlink()
    with pytest.raises(DatasetNotFoundError, match="no data_batch_1, expected it beside data_batch_2"):
        open_dataset(root, unpack=True, progress=False)


def test_nothing_is_written_unasked(root):
    with pytest.raises(DatasetNotFoundError, match="is not written as pictures yet, which any command does"):
        open_dataset(root)
    assert [path.name for path in root.iterdir()] == [BATCHES_FOLDER]


def test_pictures_of_one_name_are_several(root, images):
    content = batch(images[:3], [0, 1, 1], ["x_s_000000.png", "twice.png", "twice.png"])
    (root / BATCHES_FOLDER / "data_batch_3").write_bytes(pickle.dumps(content, protocol=2))
    data = open_dataset(root, unpack=True, progress=False)
    assert len(data) == 63
    names = {"airplane/data_batch_1_0_x_s_000000.png", "airplane/data_batch_3_0_x_s_000000.png"}
    names |= {f"automobile/data_batch_3_{row}_twice.png" for row in (1, 2)}
    assert {f"train/{name}" for name in names} <= set(data.ids)


class Shell:
    def __reduce__(self):
        return os.system, ("touch harmed",)


@pytest.mark.fault(
    "Archives and checkpoints", "a batch of CIFAR-10 that is damaged, or pickled code", "one line; no code is run"
)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (Shell(), "it asks for posix.system, expected arrays alone"),
        ({b"data": Shell()}, "it asks for posix.system, expected arrays alone"),
        ([1], "expected data, labels and filenames"),
        (batch(np.zeros((1, 32, 32, 3)), [0], ["a.png"]), r"data: expected \(N, 3072\) uint8"),
        (batch(np.zeros((1, 32, 32, 3), np.uint8), [10], ["a.png"]), "labels: expected integers of 0..9"),
        (batch(np.zeros((2, 32, 32, 3), np.uint8), [1], ["a.png"]), "labels, filenames: expected one per image"),
        (batch(np.zeros((1, 32, 32, 3), np.uint8), [1], ["../a.png"]), "filenames: got '../a.png'"),
    ],
)
def test_another_batch_is_refused(root, monkeypatch, tmp_path, content, reason):
    monkeypatch.chdir(tmp_path)
    path = root / BATCHES_FOLDER / "data_batch_2"
    path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(DatasetError, match=rf"data_batch_2: not a batch of CIFAR-10 \({reason}") as error:
        open_dataset(root, unpack=True, progress=False)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "harmed").exists()
    assert not (root / PICTURES_FOLDER).exists()


WHOLE = pickle.dumps(batch(np.zeros((2, 32, 32, 3), np.uint8), [1, 2], ["a.png", "b.png"]), protocol=2)


@fuzz(100)
@given(at=st.integers(0, len(WHOLE) - 1), byte=st.integers(0, 255), cut=st.booleans())
def test_damage_is_a_batch_or_one_line(tmp_path_factory, at, byte, cut):
    path = tmp_path_factory.getbasetemp() / "damaged_batch"
    # The pixels in the middle are most of it: half of the changes are at its ends.
    at = at if byte % 2 else at % 400 - 200
    path.write_bytes(WHOLE[:at] if cut else WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 or len(WHOLE) :])
    read, _ = value_or_line(lambda: read_batch(path), DatasetError)
    assert read is None or read.images.shape[1:] == (32, 32, 3)
