from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dogs_accel.throughput.candidates import Workload, load_epoch
from dogs_accel.throughput.ceilings import DecodeOnly, ReadOnly, WriteOnly, ceiling_candidates
from pipelines import EVAL


@pytest.fixture
def workload(dogs_root):
    paths = sorted(str(path) for path in dogs_root.rglob("*.jpg"))[:10]
    return Workload(paths=tuple(paths), recipe=EVAL.at(32), batch_size=4, num_threads=2)


@pytest.mark.parametrize("ceiling", ceiling_candidates(), ids=lambda each: each.name)
def test_every_epoch_has_every_image(ceiling, workload):
    loader = ceiling.make(workload)
    for _ in range(3):
        load_epoch(loader, workload)
    loader.close()


def test_files_are_read_whole_and_in_order(workload):
    loader = ReadOnly(workload)
    contents = [content for (batch,) in loader for content in batch]
    loader.close()
    assert contents == [Path(path).read_bytes() for path in workload.paths]


def test_decoding_gives_the_pixels(workload):
    loader = DecodeOnly(workload)
    images = [np.array(image) for (batch,) in loader for image in batch]
    loader.close()
    for path, image in zip(workload.paths, images, strict=True):
        np.testing.assert_array_equal(image, np.array(Image.open(path).convert("RGB")))


def test_whole_batches_are_written(workload):
    loader = WriteOnly(workload)
    batches = [batch.clone() for (batch,) in loader]
    loader.close()
    assert [tuple(batch.shape) for batch in batches] == [(4, 3, 32, 32), (4, 3, 32, 32), (2, 3, 32, 32)]
    assert [batch.unique().tolist() for batch in batches] == [[0], [1], [2]]


def test_without_dali_decoding_alone_is_left_out():
    assert [each.name for each in ceiling_candidates(has_dali=False)] == ["read only", "write the batches to memory"]
