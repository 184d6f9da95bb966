"""What loaders are handed by programs of all kinds: paths, labels and numbers of other libraries, copies, forks."""

import copy
import multiprocessing
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipelines import EVAL, make_loader

BACKENDS = ("torch", "dali", "cached")
NUM = 5


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """5 photos of one colour each, as paths."""
    folder = tmp_path_factory.mktemp("photos")
    paths = [folder / f"{number}.jpg" for number in range(NUM)]
    for number, path in enumerate(paths):
        Image.new("RGB", (20, 16), (40 * number, 10, 90)).save(path)
    return paths


def made(photos, labels=range(NUM), **settings):
    settings = {"backend": "torch", "batch_size": 2, "device": "cpu", "num_threads": 2} | settings
    return make_loader(photos, labels, EVAL.at(8), **settings)


def epoch(loader):
    """Images and labels of an epoch, by position."""
    batches = list(loader)
    order = torch.cat([batch.index for batch in batches]).argsort()
    return (
        torch.cat([batch.images for batch in batches])[order],
        torch.cat([batch.labels for batch in batches])[order],
    )


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
@pytest.mark.parametrize(
    "as_given",
    [
        iter, tuple, np.array, lambda paths: [str(path).encode() for path in paths],
        lambda paths: pd.Series(paths[::-1])[::-1],
    ],
    ids=["generator", "tuple", "array", "bytes", "series"],
)  # fmt: skip
def test_paths_of_any_kind(photos, backend, as_given):
    with made(as_given(photos), backend=backend) as loader:
        assert loader.paths == [str(path) for path in photos]
        assert len(epoch(loader)[0]) == NUM


@pytest.mark.parametrize(
    "labels",
    [
        (number for number in range(NUM)),
        np.arange(NUM, dtype=np.uint64),
        np.arange(NUM, dtype=np.float32),
        torch.arange(NUM, dtype=torch.int16),
        torch.arange(NUM, dtype=torch.float64).requires_grad_(),
        pd.Series(range(NUM), index=range(7, 7 + NUM), dtype="Int64"),
        np.array(range(NUM), dtype=object),
        np.broadcast_to(np.arange(NUM), (1, NUM))[0],
    ],
    ids=["generator", "uint64", "whole floats", "int16", "with gradient", "Int64", "objects", "read-only"],
)  # fmt: skip
def test_labels_that_are_integers(photos, labels, recwarn):
    labels = made(photos, labels).labels
    assert labels.dtype == torch.int64
    assert labels.tolist() == list(range(NUM))
    assert not recwarn


@pytest.mark.fault(
    "Lists and annotations", "labels with NaN, fractions, text or numbers that int64 has no room for",
    "one line that names the first of them; nothing is rounded",
)  # fmt: skip
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, float("nan"), 3, 4], "labels: got nan at 2, expected integers"),
        ([0, 1, 2, 0.7, 4], "labels: got 0.7 at 3, expected integers"),
        (np.uint64([0, 1, 2, 3, 2**64 - 1]), "labels: got 18446744073709551615 at 4, expected integers"),
        ([0, 1, 2, 3, 1e300], "labels: got 1e+300 at 4, expected integers"),
        ([0, 1, 2, 3, 2**70], "labels: got 1180591620717411303424 among them, expected integers"),
        (["cat"] * NUM, "labels: got np.str_('cat') among them, expected integers"),
        (pd.Categorical(list("ababa")), "labels: got 'a' among them, expected integers"),
        (pd.array([0, 1, None, 3, 4], dtype="Int64"), "labels: got nan at 2, expected integers"),
        ([1, None, 2, 3, 4], "labels: got None among them, expected integers"),
        (np.eye(NUM), "labels: got shape (5, 5), expected (5,), one an image"),
        (None, "labels: got shape (), expected (5,), one an image"),
    ],
)  # fmt: skip
def test_labels_that_are_none(photos, labels, message):
    with pytest.raises(ValueError) as stop:  # noqa: PT011  (the message is compared)
        made(photos, labels)
    assert str(stop.value) == message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 2.0}, "batch_size: got 2.0, expected an integer >= 1"),
        ({"batch_size": "2"}, "batch_size: got '2', expected an integer >= 1"),
        ({"num_threads": 0.5}, "num_threads: got 0.5, expected an integer >= 1"),
        ({"seed": None}, "seed: got None, expected an integer >= 0"),
        ({"seed": 2**64}, f"seed: got {2**64}, expected an integer up to {2**64 - 1}"),
        ({"rank": 0.0}, "rank: got 0.0, expected an integer >= 0"),
        ({"shuffle": "False"}, "shuffle: got 'False', expected True or False"),
        ({"photos": "one.jpg"}, "paths: got 'one.jpg', expected a list of files"),
        ({"photos": [None] * NUM}, "paths: got None among them, expected paths of files"),
    ],
)
def test_settings_of_another_type_are_refused(photos, settings, message):
    with pytest.raises(ValueError) as stop:  # noqa: PT011  (the message is compared)
        made(settings.pop("photos", photos), **settings)
    assert str(stop.value) == message


def test_numbers_of_other_libraries(photos):
    plain = made(photos, seed=7, shuffle=True)
    of_numpy = made(photos, seed=np.int32(7), batch_size=np.uint8(2), shuffle=np.True_, world_size=torch.tensor(1))
    for number in (3, np.int8(3), torch.tensor(3)):
        plain.set_epoch(3)
        of_numpy.set_epoch(number)
        for a, b in zip(plain, of_numpy, strict=True):
            assert torch.equal(a.index, b.index)
    for odd in (-1, 1.5, "2", None, 2**32):
        with pytest.raises(ValueError, match=r"^epoch: got .*, expected an integer"):
            plain.set_epoch(odd)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_copy_is_a_loader_of_its_own(photos, backend, tmp_path):
    settings = {"store_dir": tmp_path / "store"} if backend == "cached" else {}
    with made(photos, backend=backend, **settings) as loader:
        expected = epoch(loader)[0]
        first = next(iter(loader))
        for copied in (pickle.loads(pickle.dumps(loader)), copy.deepcopy(loader)):
            with copied:
                assert torch.equal(epoch(copied)[0], expected)
        assert torch.equal(epoch(loader)[0][:2], first.images)


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_batch_size_from_now_on(photos, backend):
    with made(photos, backend=backend) as loader:
        expected = epoch(loader)
        for size, num in ((3, [3, 2]), (1, [1] * NUM), (9, [NUM])):
            loader.batch_size = size
            assert [len(batch.labels) for batch in loader] == num
            assert all(map(torch.equal, epoch(loader), expected))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_default_device_of_the_program(photos, backend, caplog):
    """Here "meta", which has no values, in the place of the GPU that a program may name."""
    with made(photos, backend=backend) as loader:
        expected = epoch(loader)
    try:
        torch.set_default_device("meta")
        with made(photos, backend=backend) as loader:
            images, labels = zip(*((batch.images, batch.labels) for batch in loader), strict=True)
    finally:
        torch.set_default_device(None)
    assert torch.equal(torch.cat(images), expected[0])
    assert torch.equal(torch.cat(labels), expected[1])
    assert not caplog.records


@pytest.mark.fault(
    "Signals and processes", "a loader that is in use when its process forks, as inside torch's DataLoader",
    "one line in the other process; never a hang or another process's batches",
)  # fmt: skip
@pytest.mark.parametrize("backend", ["torch", "dali"])
def test_a_fork_of_a_used_loader_is_refused(photos, backend):
    with made(photos, backend=backend) as loader:
        expected = epoch(loader)[0]
        reading, writing = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(target=tell_batches, args=(loader, writing))
        process.start()
        assert reading.poll(20), "it hangs"
        said = reading.recv()
        process.join()
        assert said == (
            "loader: another process has begun to use it, expected one that is made in this process, such as in the "
            "dataset's __iter__ or in worker_init_fn"
        )
        assert torch.equal(epoch(loader)[0], expected)


def tell_batches(loader, connection):
    try:
        connection.send(len(list(loader)))
    except ValueError as error:
        connection.send(str(error))
