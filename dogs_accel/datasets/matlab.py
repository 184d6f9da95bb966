"""Reading lists out of MATLAB 5 files: cells of strings, tables of letters and arrays of numbers, nothing else.

A reader of our own, since SciPy's can take the process down or fill its memory where a file is damaged, or made to do
so. Nothing here trusts a length: each must fit into what is there, and what is packed is unpacked up to a limit.

Definition: "MAT-File Format" of MathWorks, level 5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_LIST_BYTES = 1 << 26
"""Of a file, and of a variable in it once it is unpacked: a list of a quarter of a million images has as many."""
_MOST_STRINGS = 1 << 20
_HEADER_BYTES = 128
_VERSIONS = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}
"""The last bytes of the header, by which the order of all others is known."""
_NEWER_VERSIONS = (b"\x00\x02IM", b"\x02\x00MI")
_HEAD_BYTES = 1 << 9
"""Of a variable, which are sure to hold its class, shape and name."""
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_LETTERS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELL, _CHAR, _OPAQUE = 1, 4, 17
_NUMERIC = range(6, 16)
_CLASSES = {
    _CELL: "a cell array", 2: "a struct", 3: "an object", _CHAR: "letters", 5: "a sparse array", 16: "a function",
    _OPAQUE: "an object such as a string array", **dict.fromkeys(_NUMERIC, "numbers"),
}  # fmt: skip
_IS_COMPLEX = 0x0800


@dataclass(frozen=True, kw_only=True, slots=True)
class MatlabLists:
    """Variables of a MATLAB file by their names, those that it has."""

    strings: dict[str, list[str]]
    """Of a row or a column of cells of strings, or the lines of a table of letters."""
    numbers: dict[str, np.ndarray]
    """Of a row or a column of numbers: (n,), of the type that the file keeps them in."""


def read_matlab(content: bytes, strings: Sequence[str], numbers: Sequence[str]) -> MatlabLists:
    """Read variables of these names from the content of a MATLAB 5 file; whatever else is in it is passed over.

    Raises ValueError, in one line, for anything else. Memory stays within a few times MOST_LIST_BYTES.
    """
    if content.startswith((b"MATLAB 7.3", b"\x89HDF")) or content[124:_HEADER_BYTES] in _NEWER_VERSIONS:
        raise ValueError("a MATLAB 7.3 file, expected MATLAB 5; save it in MATLAB with save(..., '-v7')")
    found = MatlabLists(strings={}, numbers={})
    seen: set[str] = set()
    try:
        order = _VERSIONS.get(content[124:_HEADER_BYTES])
        if order is None or len(content) > MOST_LIST_BYTES:
            raise ValueError("it has another header" if order is None else f"it has {len(content):,} bytes")
        elements = _Elements(memoryview(content)[_HEADER_BYTES:], order)
        while elements.are_left:
            kind, data = elements.take_any((_MATRIX, _COMPRESSED))
            name = _Variable.of(_Elements(_head(kind, data), order)).name
            if name not in (*strings, *numbers):
                continue
            if name in seen:
                raise ValueError(f"{name} is in it twice")
            seen.add(name)
            variable = _Variable.of(_Elements(_unpacked(kind, data, order), order))
            if name in strings:
                found.strings[name] = _read_strings(variable)
            else:
                found.numbers[name] = _read_numbers(variable)
    except (ValueError, zlib.error) as error:
        raise ValueError(f"not a readable MATLAB 5 file ({error})") from error
    return found


class _Elements:
    """The elements of a file or of a variable, one after the other."""

    def __init__(self, content: memoryview, order: str) -> None:
        self._content, self.order, self._at = content, order, 0

    @property
    def are_left(self) -> bool:
        return self._at < len(self._content)

    def take(self, expected: int) -> memoryview:
        """Take the data of the next element, which must be of this type."""
        return self.take_any((expected,))[1]

    def take_any(self, expected: Sequence[int]) -> tuple[int, memoryview]:
        """Take the type and the data of the next element, which must be of one of these types."""
        start = self._at + 8
        if start > len(self._content):
            raise ValueError("it ends within an element")
        kind, size = struct.unpack_from(f"{self.order}II", self._content, self._at)
        end = start + size
        if kind >> 16:  # up to four bytes, which lie in the second half of the tag
            kind, size, start, end = kind & 0xFFFF, kind >> 16, self._at + 4, self._at + 8
            if size > 4:
                raise ValueError(f"got a short element of {size} bytes, expected up to 4")
        elif end > len(self._content):
            raise ValueError("it ends within an element")
        elif kind != _COMPRESSED:  # the others are filled up to eight bytes
            end += -size % 8
        if kind not in expected:
            raise ValueError(f"got an element of type {kind}, expected type {' or '.join(map(str, expected))}")
        self._at = end
        return kind, self._content[start : start + size]


@dataclass(frozen=True, slots=True)
class _Variable:
    """A variable, or a cell of one."""

    kind: int
    is_complex: bool
    shape: tuple[int, ...]
    name: str
    rest: _Elements
    """What comes after the name."""

    @classmethod
    def of(cls, elements: _Elements) -> _Variable:
        flags = elements.take(_UINT32)
        if len(flags) != 8:
            raise ValueError(f"got {len(flags)} bytes of flags, expected 8")
        (flag,) = struct.unpack_from(f"{elements.order}I", flags)
        kind, shape = flag & 0xFF, ()
        if kind != _OPAQUE:  # which has none
            sizes = elements.take(_INT32)
            shape = struct.unpack(f"{elements.order}{len(sizes) // 4}i", sizes[: len(sizes) // 4 * 4])
        name = elements.take(_INT8).tobytes().decode("ascii")
        return cls(kind, bool(flag & _IS_COMPLEX), shape, name, elements)

    def require(self, *kinds: int) -> None:
        """Raise ValueError where it is of another class, or not of two dimensions."""
        if self.kind not in kinds or self.is_complex:
            got = "complex numbers" if self.is_complex else _CLASSES.get(self.kind, f"class {self.kind}")
            expected = "numbers" if _NUMERIC[0] in kinds else " or ".join(_CLASSES[kind] for kind in kinds)
            raise ValueError(f"{self.name or 'a cell'}: got {got}, expected {expected}")
        if len(self.shape) != 2 or min(self.shape) < 0:
            raise ValueError(f"{self.name or 'a cell'}: got the shape {self._shown}, expected two sizes")

    def require_vector(self) -> int:
        """Give how many there are. Raises ValueError where they are neither a row nor a column."""
        if min(self.shape) > 1:
            raise ValueError(f"{self.name}: got the shape {self._shown}, expected a row or a column")
        return self.shape[0] * self.shape[1]

    @property
    def _shown(self) -> str:
        return " x ".join(map(str, self.shape))


def _head(kind: int, data: memoryview) -> memoryview:
    """Give the beginning of what an element of a file has in it."""
    return data if kind == _MATRIX else memoryview(zlib.decompressobj().decompress(data, _HEAD_BYTES))[8:]


def _unpacked(kind: int, data: memoryview, order: str) -> memoryview:
    """Give what an element of a file has in it."""
    if kind == _MATRIX:
        return data
    stream = zlib.decompressobj()
    found = stream.decompress(data, MOST_LIST_BYTES + 1)
    if len(found) > MOST_LIST_BYTES:
        raise ValueError(f"it unpacks to more than {MOST_LIST_BYTES:,} bytes")
    if not stream.eof or stream.unused_data:
        raise ValueError("a packed part of it does not end where it should")
    return _Elements(memoryview(found), order).take(_MATRIX)


def _read_strings(variable: _Variable) -> list[str]:
    variable.require(_CELL, _CHAR)
    num = variable.shape[0] if variable.kind == _CHAR else variable.require_vector()
    if num > _MOST_STRINGS:
        raise ValueError(f"{variable.name}: got {num:,} strings, expected up to {_MOST_STRINGS:,}")
    return _read_lines(variable) if variable.kind == _CHAR else [_read_cell(variable) for _ in range(num)]


def _read_cell(variable: _Variable) -> str:
    content = variable.rest.take(_MATRIX)
    if not content:  # how MATLAB writes a cell that nothing was put into
        return ""
    cell = _Variable.of(_Elements(content, variable.rest.order))
    cell.require(_CHAR)
    lines = _read_lines(cell)
    if len(lines) > 1:
        raise ValueError(f"{variable.name}: got a cell of {len(lines)} lines, expected one")
    return lines[0] if lines else ""


def _read_lines(variable: _Variable) -> list[str]:
    """Read the lines of a table of letters, which lies there column by column."""
    num_lines, num = variable.shape[0], variable.shape[0] * variable.shape[1]
    kind, data = variable.rest.take_any(tuple(_LETTERS))
    encoding = _LETTERS[kind]
    if encoding in ("utf-16", "utf-32"):
        encoding += "-le" if variable.rest.order == "<" else "-be"
    text = data.tobytes().decode(encoding)
    # MATLAB counts a letter outside of the first 65,536 as two, as UTF-16 does, where SciPy counts it as one.
    if num not in (len(text), len(text.encode("utf-16-le", "surrogatepass")) // 2 if num_lines == 1 else -1):
        raise ValueError(f"{variable.name or 'a cell'}: got {len(text)} letters, expected {num}")
    return [text[line::num_lines] for line in range(num_lines)] if num else []


def _read_numbers(variable: _Variable) -> np.ndarray:
    variable.require(*_NUMERIC)
    num = variable.require_vector()
    kind, data = variable.rest.take_any(tuple(_NUMBERS))
    dtype = np.dtype(f"{variable.rest.order}{_NUMBERS[kind]}")
    if len(data) != num * dtype.itemsize:
        raise ValueError(f"{variable.name}: got {len(data)} bytes, expected {num} numbers of {dtype.itemsize}")
    return np.frombuffer(data, dtype).astype(_NUMBERS[kind])
