"""A few small photos, and a store of them."""

import pytest

from pipelines.decoding import files as decoding_files
from tests.support.picture_files import encoded, picture, write
from tests.support.small_stores import SMALL, build


@pytest.fixture
def photos(tmp_path):
    """30 small photos in two folders of the same names."""
    folders = [tmp_path / "set" / name for name in ("beagle", "pug")]
    for folder in folders:
        folder.mkdir(parents=True)
    contents = [encoded(picture(40 + seed, 30 + seed % 7, seed=seed)) for seed in range(30)]
    return write(folders[0], contents[:15]) + write(folders[1], contents[15:])


@pytest.fixture
def store(photos, tmp_path):
    return build(photos, SMALL, tmp_path / "store")


@pytest.fixture
def decoded(monkeypatch):
    """The paths that builds decode."""
    paths = []

    def watched(some, **settings):
        paths.extend(some)
        return decode_files(some, **settings)

    decode_files = decoding_files.decode_files
    monkeypatch.setattr(decoding_files, "decode_files", watched)
    return paths
