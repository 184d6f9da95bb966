"""What reaches a terminal: counts, text of the data escaped, letters that it cannot show, a reader that has gone."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from numbers import Integral
from typing import Any, TextIO

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_TURNING = (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029)
"""What turns the direction of a line or breaks it, without being a control character."""


def _escape(code: int) -> str:
    letter = chr(code)
    return _SHORT.get(letter) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


_ESCAPES = {code: _escape(code) for code in (*range(0x20), *range(0x7F, 0xA0), *_TURNING)}
_BUT_LINES = {code: text for code, text in _ESCAPES.items() if chr(code) != "\n"}


def count_text(num: float, what: str) -> str:
    """Write a number with its noun, in the plural but for 1."""
    return f"{num:{',' if isinstance(num, Integral) else 'g'}} {what}{'' if num == 1 else 's'}"


def escaped(text: object) -> str:
    r"""Write text of the data, such as the name of a class or a file, so that a terminal shows it and does not obey it.

    Example:
        >>> print(escaped("red\x1b[31m\tfox\n"))
        red\x1b[31m\tfox\n
    """
    return str(text).translate(_ESCAPES)


class _Output:
    """A stream to which anything can be written.

    A letter that its encoding has not is escaped. When nobody reads it any more, the rest is dropped and the work goes
    on.
    """

    def __init__(self, stream: TextIO, name: str, escapes: dict[int, str]) -> None:
        self._stream, self._name, self._escapes = stream, name, escapes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        shown = text.translate(self._escapes)
        with self._surviving():
            try:
                self._stream.write(shown)
            except UnicodeEncodeError:
                encoding = self._stream.encoding or "ascii"
                self._stream.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._surviving():
            self._stream.flush()

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self._drop_rest()
        except OSError as error:
            self._drop_rest()
            raise OSError(error.errno, error.strerror, self._name) from error

    def _drop_rest(self) -> None:
        """Let what is written from now on go nowhere, also what Python flushes at the end of the process."""
        with suppress(OSError, ValueError):  # a stream that is no file
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def terminal_output() -> Iterator[None]:
    """Let what a command prints pass through here for the length of the block.

    On standard output control characters are escaped but for the ends of lines; progress bars go to the standard error
    and need theirs. Of text of the data ends of lines too must be escaped, see `escaped`.
    """
    streams = sys.stdout, sys.stderr
    # Python has None for a stream that was closed before the start, to which libraries write all the same.
    sys.stdout = _Output(sys.stdout or io.StringIO(), "standard output", _BUT_LINES)
    sys.stderr = _Output(sys.stderr or io.StringIO(), "standard error", {})
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with suppress(OSError, ValueError):  # of a closed one
                    stream.flush()
        sys.stdout, sys.stderr = streams
