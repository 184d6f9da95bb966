"""Memory of batches on a CPU: used again once nobody has it, never while somebody has."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from dogs_accel import ops

SIZE = (600, 800)  # 1.4 MB: what is smaller is left to malloc


def flat(value, num=1):
    """A batch of images of one value."""
    return ops.squash([torch.full((2, 2, 3), value, dtype=torch.uint8)] * num, SIZE)


def test_the_next_batch_takes_the_memory_of_one_that_is_gone():
    first = flat(1)
    address = first.data_ptr()
    del first
    second = flat(2)
    assert second.data_ptr() == address
    assert bool((second == 2).all())


def test_a_view_keeps_the_memory():
    first = flat(1, num=3)
    view = first[2, 5:]
    del first
    others = [flat(value, num=3) for value in range(2, 9)]
    assert bool((view == 1).all())
    assert all(bool((other == value).all()) for value, other in enumerate(others, start=2))


def test_a_small_batch_does_not_hold_the_memory_of_a_large_one():
    large = flat(1, num=40)
    address = large.data_ptr()
    del large
    assert flat(2).data_ptr() != address


def test_threads_get_memory_of_their_own():
    def check(value):
        batch = flat(value)
        other = flat(255 - value)
        return bool((batch == value).all()) and bool((other == 255 - value).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(check, list(range(100)) * 3))


HELD = """
import json
import psutil, torch
from dogs_accel import ops

def flat(value, num):
    return ops.squash([torch.full((2, 2, 3), value, dtype=torch.uint8)] * num, (600, 800))

def held():
    return psutil.Process().memory_info().rss

flat(0, num=20)
found = [held()]
batch = flat(7, num=420)  # 605 MB
found.append(held())
del batch
found.append(held())
many = [flat(value, num=20) for value in range(10)]  # 290 MB
found.append(held())
del many
found.append(held())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def held():
    """The memory of a process that did nothing else: at first, with a large batch, without, with ten, and without."""
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    first, *later = json.loads(done.stdout)
    return [bytes_held - first for bytes_held in later]


keeps_what_is_freed = pytest.mark.skipif(
    "address" in os.environ.get("DOGS_ACCEL_SANITIZE", ""), reason="AddressSanitizer keeps freed memory for a while"
)


@keeps_what_is_freed
def test_a_very_large_batch_is_not_kept(held):
    with_it, without, *_ = held
    assert with_it > 500e6
    assert without < 100e6


@keeps_what_is_freed
def test_few_batches_are_kept(held):
    *_, with_all, without = held
    assert with_all > 200e6
    assert without < 120e6
