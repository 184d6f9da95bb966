import numpy as np
import pytest

from pipelines.philox import philox4x32, uniform, words

# The known answers that the generator's authors publish.
KNOWN = [
    ([0, 0, 0, 0], (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, (0xFFFFFFFF, 0xFFFFFFFF), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        (0xA4093822, 0x299F31D0),
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected):
    assert philox4x32(np.array(counter, dtype=np.uint64), key).tolist() == expected


def test_a_sample_does_not_depend_on_its_neighbours():
    together = words(42, 3, np.arange(100), 9, stream=1)
    alone = np.concatenate([words(42, 3, np.array([i]), 9, stream=1) for i in range(100)])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("other", [{"seed": 43}, {"epoch": 1}, {"stream": 2}, {"seed": 42 + 2**40}])
def test_every_part_of_the_address_matters(other):
    address = {"seed": 42, "epoch": 0, "stream": 1}
    one = words(**address, sample=np.arange(50), num_words=4)
    two = words(**(address | other), sample=np.arange(50), num_words=4)
    assert (one != two).mean() > 0.99


def test_uniform_fills_the_unit_interval_evenly():
    numbers = uniform(0, 0, np.arange(20_000), 5, stream=1)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, bins=100, range=(0, 1))[0]
    expected = numbers.size / 100
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 160  # 99 degrees of freedom: exceeded once in 10,000
