"""How often photos are opened and decoded, in this process and in those that it forks."""

import os
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from PIL import ImageFile

from pipelines.decoding import files

_WATCHED = []


def _watch(event, arguments):
    if event == "open" and _WATCHED and isinstance(arguments[0], str | bytes):
        _WATCHED[-1].note("open", os.fsdecode(arguments[0]))


sys.addaudithook(_watch)


class PhotoReads:
    """What happened to the files below a folder since it was watched, or since the last `since` was told."""

    def __init__(self, folder, log):
        self._folder = str(folder) + os.sep
        self._log = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND)  # which a forked process writes to as well

    def note(self, what, path):
        path = str(path)
        if path.startswith(self._folder):
            os.write(self._log, f"{what}\t{path}\n".encode())

    def begin(self, phase):
        """What comes from now on is of another phase; the first is called ""."""
        os.write(self._log, f"phase\t{phase}\n".encode())

    def counts(self, what, phase=""):
        """How often each file was the object of "open" or "decode"."""
        found, current = Counter(), ""
        size = os.fstat(self._log).st_size
        for line in os.pread(self._log, size, 0).decode().splitlines():
            kind, value = line.split("\t")
            if kind == "phase":
                current = value
            elif kind == what and current == phase:
                found[value] += 1
        return found


@contextmanager
def photo_reads(folder, log: Path):
    """Count what is opened below a folder, and what is decoded of it: by the decoder of all files, or by PIL."""
    reads = PhotoReads(folder, log)
    finished, load = files._File.finished, ImageFile.ImageFile.load

    def noted_finish(file):
        reads.note("decode", file.path)
        return finished(file)

    def noted_load(image):
        if image.tile and image.filename:  # what it has in memory already it does not decode again
            reads.note("decode", os.fsdecode(image.filename))
        return load(image)

    with patch.object(files._File, "finished", noted_finish), patch.object(ImageFile.ImageFile, "load", noted_load):
        _WATCHED.append(reads)
        try:
            yield reads
        finally:
            _WATCHED.remove(reads)
