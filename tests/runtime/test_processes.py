"""What a process reads of the others, and what they send each other; commands/test_distributed.py starts them."""

import pytest

from dogs_accel.runtime.processes import ALONE, World, all_reduce_bytes, world_from_environment


def test_without_torchrun_a_process_is_alone():
    assert world_from_environment({"LOCAL_RANK": "1", "MASTER_ADDR": "there"}) == ALONE
    given = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert world_from_environment(given) == World(rank=3, size=4, local_rank=1, local_size=2)


def test_half_an_environment_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^distributed: LOCAL_RANK, LOCAL_WORLD_SIZE not set beside the others"):
        world_from_environment({"RANK": "0", "WORLD_SIZE": "2"})
    with pytest.raises(ValueError, match=r"^distributed: got WORLD_SIZE=two, expected an integer >= 0$"):
        world_from_environment({"RANK": "0", "WORLD_SIZE": "two", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"})


@pytest.mark.parametrize(
    ("num_bytes", "num_processes", "expected"),
    [(100, 1, 0), (100, 2, 100), (100, 4, 150), (100, 3, 4 * 34), (0, 8, 0), (102_228_128, 8, 178_899_224)],
)
def test_bytes_of_a_ring(num_bytes, num_processes, expected):
    assert all_reduce_bytes(num_bytes, num_processes) == expected


def test_a_ring_needs_a_process():
    with pytest.raises(ValueError, match=r"^num_processes: got 0, expected an integer >= 1$"):
        all_reduce_bytes(1, 0)
