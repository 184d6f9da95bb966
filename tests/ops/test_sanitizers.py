"""`make sanitize` sees the faults that its library holds on purpose: one without sanitizers does not pass for clean."""

from __future__ import annotations

import ctypes
import os
import signal
import tempfile

import pytest

from dogs_accel import ops

REQUESTED = os.environ.get("DOGS_ACCEL_SANITIZE", "").split(",")
LARGEST = 2**63 - 1


def reported(function: str, *arguments: int) -> str:
    """What a child process that calls a planted fault says before it ends; nothing where it goes on."""
    planted = ctypes.CDLL(str(ops._FOLDER / "_C.abi3.so"))[function]
    planted.argtypes, planted.restype = [ctypes.c_int64] * len(arguments), ctypes.c_int64
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 2)
            signal.alarm(60)
            planted(*arguments)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        return said.read().decode(errors="replace") if status != 0 else ""


@pytest.mark.skipif("address" not in REQUESTED, reason="only for the library of `make sanitize`")
def test_an_index_out_of_bounds_is_reported() -> None:
    assert "heap-buffer-overflow" in reported("dogs_accel_planted_read", 4)
    assert reported("dogs_accel_planted_read", 3) == ""


@pytest.mark.skipif("undefined" not in REQUESTED, reason="only for the library of `make sanitize`")
def test_a_signed_overflow_is_reported() -> None:
    """Which Python's own flag -fwrapv would hide."""
    assert "signed integer overflow" in reported("dogs_accel_planted_sum", LARGEST, 1)
    assert reported("dogs_accel_planted_sum", LARGEST, 0) == ""


@pytest.mark.skipif("" not in REQUESTED, reason="not for the library of `make sanitize`")
def test_the_library_of_every_day_holds_no_planted_fault() -> None:
    library = ctypes.CDLL(str(ops._FOLDER / "_C.abi3.so"))
    with pytest.raises(AttributeError):
        library["dogs_accel_planted_read"]
