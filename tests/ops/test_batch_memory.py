"""Memory of batches on a CPU: used again once nobody has it, never while somebody has."""

import ctypes
from concurrent.futures import ThreadPoolExecutor

import psutil
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


def test_a_very_large_batch_is_not_kept():
    process = psutil.Process()
    before = process.memory_info().rss
    huge = flat(7, num=420)  # 605 MB
    assert process.memory_info().rss - before > 400e6
    del huge
    assert process.memory_info().rss - before < 150e6


def test_few_batches_are_kept():
    process = psutil.Process()
    flat(0, num=20)
    ctypes.CDLL(None).malloc_trim(0)
    before = process.memory_info().rss
    many = [flat(value, num=20) for value in range(10)]  # 290 MB
    assert process.memory_info().rss - before > 200e6
    del many
    assert process.memory_info().rss - before < 120e6
