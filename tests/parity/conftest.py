"""What the tests of parity compare."""

import pytest

from dogs_accel.datasets import open_dataset


@pytest.fixture(scope="module")
def paths(dogs_root):
    return open_dataset(dogs_root).paths[::6]
