"""The table that most figures are of."""

import pytest

from tests.support.metadata_frames import quality_frame


@pytest.fixture
def quality():
    return quality_frame([7, 5, 1, 9, 3], [2, 6, 0, 4, 3])
