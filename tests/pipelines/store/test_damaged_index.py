"""An index or a journal that somebody edited: it is read, or the store is said to be damaged in one line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.store.index import FileEntry, StaleStoreError, StoreIndex, StoreRequest, read_index, write_index
from pipelines.store.rows import RowPlaces
from pipelines.store.writing import JOURNAL_FILE, read_started
from tests.support.fuzzing import fuzz, value_or_line
from tests.support.small_stores import SHORTER, SMALL

ENTRY = {"size": 3, "mtime_ns": 5, "sha256": "a" * 64, "problem": None}


@pytest.fixture(scope="module", params=[SMALL, SHORTER], ids=lambda recipe: recipe.name)
def indexed(request, tmp_path_factory):
    """A folder with an index of three files, what was asked for, and the content."""
    root = tmp_path_factory.mktemp("indexed")
    paths = [root / "a" / name for name in ("1.jpg", "2.jpg", "3.jpg")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"xyz")
    asked = StoreRequest.of(paths, request.param)
    equal = isinstance(request.param.resize, tuple)
    places = RowPlaces.of_equal(3, request.param.resize) if equal else RowPlaces.of_sizes([(20, 20), (20, 30), (0, 0)])
    entries = {path.name: FileEntry(**ENTRY) for path in paths}
    (root / "store").mkdir()
    write_index(root / "store", StoreIndex(terms=asked.terms, root=asked.root, entries=entries, places=places))
    content = (root / "store" / "index.json").read_bytes()
    assert read_index(root / "store", asked).entries == entries
    return root / "store", asked, content


values = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just([]) | st.just({})


@pytest.mark.fault(
    "Disk", "a store whose index was edited or damaged", "one line with the folder, and how to build it anew"
)
@fuzz(50)
@given(data=st.data())
def test_a_damaged_index_is_refused_in_one_line(indexed, data):
    folder, request, whole = indexed
    content = json.loads(whole)
    if data.draw(st.booleans()):
        part = data.draw(st.sampled_from([content, content["files"][0], content["files"][2]]))
        part[data.draw(st.sampled_from(sorted(part)) | st.text(max_size=3))] = data.draw(values)
        damaged = json.dumps(content).encode()
    else:
        damaged = bytearray(whole)
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        damaged = bytes(damaged[: data.draw(st.just(len(whole)) | st.integers(0, len(whole)))])
    (folder / "index.json").write_bytes(damaged)
    index, line = value_or_line(lambda: read_index(folder, request))
    if index is None:
        assert line.startswith(f"store {folder}: ")
        return
    assert all(isinstance(entry, FileEntry) for entry in index.entries.values())
    value_or_line(lambda: index.find(folder, request))


@pytest.mark.parametrize("content", [b"[" * 100_000, b"3", b"null", b'{"format": 2}', b"\xff", b""])
def test_what_is_no_index_is_said_to_be_damaged(indexed, content):
    folder, request, _ = indexed
    (folder / "index.json").write_bytes(content)
    with pytest.raises(StaleStoreError, match=rf"^store {folder}: .*to build it anew") as caught:
        read_index(folder, request)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "row", [{**ENTRY}, {**ENTRY, "row": 7}, {**ENTRY, "row": "x"}, {"row": 1}, {**ENTRY, "row": 1, "size": "x"}]
)
def test_a_row_of_a_journal_that_was_edited_is_said_to_be_damaged(indexed, tmp_path, row, monkeypatch):
    _, request, _ = indexed
    monkeypatch.setattr("pipelines.store.writing._started_pixels", lambda folder, places: folder / "building.npy")
    first = json.dumps({**request.terms, "root": request.root, "paths": request.paths})
    monkeypatch.setattr("pipelines.store.writing._first_line", lambda *_: json.loads(first))
    (tmp_path / JOURNAL_FILE).write_text(f"{first}\n{json.dumps(row)}\n")
    with pytest.raises(StaleStoreError, match=r"journal\.jsonl is damaged \(row .*to build it anew"):
        read_started(tmp_path, request)
