"""Reading what torch.save wrote, or something that says so, without running what is in it."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from pipelines.decoding.contents import require_regular

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
"""How a file of torch.save begins, and how one of a version before 1.6."""
_MOST_SHOWN = 150
_DAMAGED = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError,
    RuntimeError, TypeError, ValueError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
"""All that torch and zipfile were seen to raise of damaged files."""


def read_torch_file(path: str | Path, *, checksums: bool = False) -> Any:
    """Read what is in a file onto the CPU: tensors, numbers, text, and lists and dicts of them.

    checksums: compare what is read with the checksums in the file, which not every writer fills in. Raises ValueError,
    in one line that does not name the file, for whatever is no such file, damaged or compressed, or holds other
    objects, which could run code; OSError where it cannot be read. It is not unpacked to more than its own size.
    """
    require_regular(path)
    with Path(path).open("rb") as file:
        start = file.read(len(_ZIP))
        if not start:
            raise ValueError("it is empty")
        if not start.startswith((_ZIP, _PICKLE)):
            raise ValueError("it is none of torch.save's files")
        try:
            problem = _zip_problem(file, checksums) if start == _ZIP else None
            if problem is None:
                file.seek(0)
                # Checkpoints often hold the arguments of their training; a Namespace runs no code when it is read.
                with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of old formats and of sparse tensors
                    return torch.load(file, map_location="cpu", weights_only=True)
        except _DAMAGED as error:
            raise ValueError(_reason(error)) from error
    raise ValueError(problem)


def _zip_problem(file: IO[bytes], checksums: bool) -> str | None:
    """Say what is wrong with the parts of a file, which torch.save stores as they are."""
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as parts:
        infos = parts.infolist()
        if any(info.filename.endswith("/constants.pkl") for info in infos):
            return "it is a TorchScript program, expected a state dict"
        if not any(info.filename.endswith("/data.pkl") for info in infos):
            return "it is a zip archive, but none of torch.save's"
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos) or sum(i.file_size for i in infos) > size:
            return "its parts are compressed, which torch.save does not do"
        if checksums and parts.testzip() is not None:  # torch.load does not look at them
            return "a checksum is wrong"
    return None


def _reason(error: Exception) -> str:
    """Say in a few words why a file cannot be read: torch says a page, which advises to run what is in the file."""
    text = str(error)
    if isinstance(error, MemoryError):  # of a large file that is whole, or of a damaged one that claims to be large
        return "it takes more memory than there is"
    if isinstance(error, pickle.UnpicklingError):
        found = re.search(r"(?:GLOBAL|class) ([\w.]{1,100})", text)
        held = f"an object of {found[1]}" if found else "something else"
        return f"it holds {held}, which could run code; only tensors, numbers and text are read"
    first = re.split(r"\n|(?<=[a-z])\. ", text.strip())[0][:_MOST_SHOWN]
    return (
        "it is damaged or cut off" if isinstance(error, (LookupError, EOFError)) or not first else f"damaged: {first}"
    )
