"""The reader of MATLAB lists against SciPy's on what SciPy writes, against damage, and against files made to harm."""

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

from dogs_accel.datasets import DatasetError
from dogs_accel.datasets.layouts.stanford_dogs import read_list
from dogs_accel.datasets.matlab import MOST_LIST_BYTES, MatlabLists, read_matlab
from tests.support.fuzzing import fuzz, value_or_line

NUMERIC = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")


def saved(compressed: bool = False, **variables: object) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, variables, do_compression=compressed)
    return buffer.getvalue()


def cells(texts: list[str], *, row: bool = False) -> np.ndarray:
    found = np.empty((1, len(texts)) if row else (len(texts), 1), dtype=object)
    found.ravel()[:] = texts
    return found


def read(content: bytes) -> MatlabLists:
    return read_matlab(content, strings=("file_list",), numbers=("labels",))


def scipy_read(content: bytes) -> tuple[list[str], list[float]]:
    fields = loadmat(io.BytesIO(content))
    return ["".join(cell.ravel().tolist()) for cell in fields["file_list"].ravel()], fields["labels"].ravel().tolist()


lists = st.fixed_dictionaries({
    "texts": st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12), max_size=12),
    "row": st.booleans(),
    "labels": st.lists(st.integers(0, 120), max_size=12),
    "dtype": st.sampled_from(NUMERIC),
    "compressed": st.booleans(),
})  # fmt: skip


def written(drawn: dict) -> bytes:
    return saved(
        drawn["compressed"],
        other={"a": np.eye(2)},
        file_list=cells(drawn["texts"], row=drawn["row"]),
        labels=np.array([drawn["labels"]], drawn["dtype"]),
        last=["x", "yz"],
    )


@fuzz(30)
@given(drawn=lists)
def test_what_scipy_writes_is_read_as_scipy_reads_it(drawn: dict) -> None:
    content = written(drawn)
    ours = read(content)
    texts, labels = scipy_read(content)
    assert ours.strings["file_list"] == texts == drawn["texts"]
    assert ours.numbers["labels"].tolist() == labels == drawn["labels"]


@pytest.mark.fault(
    "Lists and annotations",
    "a .mat list with damaged bytes, or cut off",
    "one line with the file, or the same list where the damage is in what is not read; the process goes on",
)
@fuzz(100)
@given(drawn=lists, data=st.data())
def test_a_damaged_file_is_read_right_or_refused(drawn: dict, data: st.DataObject) -> None:
    content = bytearray(written(drawn))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    damaged = bytes(content[: data.draw(st.integers(0, len(content)))])
    found, line = value_or_line(lambda: read(damaged))
    if found is None:
        assert line.startswith(("not a readable MATLAB 5 file (", "a MATLAB 7.3 file"))
    elif drawn["compressed"]:  # which has a checksum; else a letter may have become another, which nobody can see
        assert found.strings.get("file_list", drawn["texts"]) == drawn["texts"]
        assert found.numbers.get("labels", np.array(drawn["labels"])).tolist() == drawn["labels"]


def test_the_real_lists_are_read_as_scipy_reads_them(shared_data: Path) -> None:
    paths = sorted(shared_data.glob("stanford-dogs-*/lists/*.mat"))
    assert len(paths) == 6
    for path in paths[:2] + paths[-2:]:
        content = path.read_bytes()
        ours = read(content)
        assert (ours.strings["file_list"], ours.numbers["labels"].tolist()) == scipy_read(content)
        assert ours.numbers["labels"].dtype == np.uint8


# --- what MATLAB writes and SciPy does not, packed by hand ------------------------------------------------------


def element(kind: int, data: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


def variable(kind: int, shape: tuple[int, ...], name: bytes, *rest: bytes, order: str = "<") -> bytes:
    head = element(6, struct.pack(f"{order}II", kind, 0), order) + element(
        5, struct.pack(f"{order}{len(shape)}i", *shape), order
    )
    return element(14, b"".join([head, element(1, name, order), *rest]), order)


def file_of(*variables: bytes, order: str = "<") -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + (b"\0\1IM" if order == "<" else b"\1\0MI") + b"".join(variables)


def text_cell(text: str, kind: int = 4, encoding: str = "utf-16-le", order: str = "<") -> bytes:
    return variable(4, (1, len(text)), b"", element(kind, text.encode(encoding), order), order=order)


def test_letters_in_every_encoding_and_order() -> None:
    texts = {4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32", 2: "latin-1"}
    for order, end in (("<", "-le"), (">", "-be")):
        names = [
            text_cell(f"n1-é/{kind}.jpg", kind, encoding + (end if encoding[-2:] in ("16", "32") else ""), order)
            for kind, encoding in texts.items()
        ]
        content = file_of(
            variable(1, (1, len(names)), b"file_list", *names, order=order),
            variable(6, (3, 1), b"labels", element(4, struct.pack(f"{order}3H", 1, 2, 258), order), order=order),
            order=order,
        )
        ours = read(content)
        assert ours.strings["file_list"] == [f"n1-é/{kind}.jpg" for kind in texts]
        assert ours.numbers["labels"].tolist() == [1, 2, 258]


def test_a_letter_that_matlab_counts_twice_and_a_cell_that_nothing_was_put_into() -> None:
    fox = variable(4, (1, 2), b"", element(4, "🦊".encode("utf-16-le")))
    assert read(file_of(variable(1, (2, 1), b"file_list", fox, element(14, b"")))).strings["file_list"] == ["🦊", ""]


def test_a_table_of_letters_is_its_lines() -> None:
    content = saved(file_list=np.array(["a/1.jpg  ", "bc/12.jpg"]), labels=np.array([1, 2]))
    assert read(content).strings["file_list"] == ["a/1.jpg  ", "bc/12.jpg"]


def test_a_name_with_a_nul_is_none(tmp_path: Path) -> None:
    path = tmp_path / "train_list.mat"
    path.write_bytes(
        file_of(
            variable(1, (1, 1), b"file_list", text_cell("a/1\0.jpg")),
            variable(6, (1, 1), b"labels", element(2, b"\1")),
        )
    )
    with pytest.raises(DatasetError, match=r"got 'a/1\\x00\.jpg', expected 'folder/name\.jpg'"):
        read_list(path)


NAME = text_cell("a/1.jpg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (saved(file_list={"a": 1.0}, labels=[1]), "file_list: got a struct, expected a cell array or letters"),
        (saved(file_list=[1.0], labels=[1]), "file_list: got numbers, expected a cell array or letters"),
        (saved(file_list=cells(["a"]), labels=["x"]), "labels: got letters, expected numbers"),
        (saved(labels=np.array([1 + 2j])), "labels: got complex numbers, expected numbers"),
        (saved(labels=np.eye(2)), "labels: got the shape 2 x 2, expected a row or a column"),
        (saved(labels=np.ones((1, 1, 2))), "labels: got the shape 1 x 1 x 2, expected two sizes"),
        (file_of(variable(1, (1, 1), b"file_list", variable(1, (0, 0), b""))), "a cell: got a cell array, expected"),
        (file_of(variable(1, (1, -1), b"file_list")), "got the shape 1 x -1, expected two sizes"),
        (file_of(*[variable(1, (1, 1), b"file_list", NAME)] * 2), "file_list is in it twice"),
        (file_of(variable(1, (2, 1), b"file_list", NAME)), "it ends within an element"),
        (file_of(variable(1, (1 << 30, 1), b"file_list", NAME)), "got 1,073,741,824 strings, expected up to"),
        (file_of(variable(4, (1 << 30, 1 << 30), b"file_list", element(2, b"a"))), "strings, expected up to"),
        (file_of(variable(4, (2, 9), b"file_list", element(2, b"a"))), "file_list: got 1 letters, expected 18"),
        (file_of(variable(6, (1 << 30, 1), b"labels", element(9, b""))), "expected 1073741824 numbers of 8"),
        (file_of(variable(17, (1, 1), b"file_list")), "type 5, expected type 1"),
        (file_of(element(7, b"12345678")), "got an element of type 7, expected type 14 or 15"),
        (file_of(struct.pack("<II", 14, 1 << 31)), "it ends within an element"),
        (file_of(b"\x0e\0\x09\0abcd"), "got a short element of 9 bytes"),
        (file_of(b"\x0f\0\0\0\x04\0\0\0abcd"), "Error -3"),
        (b"MATLAB 5.0".ljust(200), "it has another header"),
    ],
)
def test_what_is_no_list_is_refused_with_the_reason(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(content)
    assert "\n" not in str(caught.value)


@pytest.mark.fault(
    "Lists and annotations",
    "a .mat list that unpacks to gigabytes",
    "one line with the file; memory stays within a few times 64 MiB",
)
def test_a_bomb_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    stream = zlib.compressobj(9)
    head = variable(1, (1, 1), b"file_list")[8:]
    bomb = stream.compress(struct.pack("<II", 14, 1 << 31) + head)
    zeros = bytes(1 << 20)
    bomb += b"".join(stream.compress(zeros) for _ in range(2 * MOST_LIST_BYTES >> 20)) + stream.flush()
    path = tmp_path / "train_list.mat"
    path.write_bytes(file_of(struct.pack("<II", 15, len(bomb)) + bomb))
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match=r"train_list\.mat: .*unpacks to more than 67,108,864 bytes"):
            read_list(path)
        assert tracemalloc.get_traced_memory()[1] < 3 * MOST_LIST_BYTES
    finally:
        tracemalloc.stop()


def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "train_list.mat"
    path.write_bytes(file_of(variable(1, (1, 1), b"file_list", NAME)))
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(DatasetError, match=r"train_list\.mat: .*it has 67,108,865 bytes"):
        read_list(path)
