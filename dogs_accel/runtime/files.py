"""Writing files so that a reader never sees half of one, and the manifest of a run's folder."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pipelines.store.disk import flush_path, lock

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "MANIFEST.json"
ERROR_LOG = "error.log"
"""Where the traceback of an error that nobody expected lies; no result, so in no manifest."""
_PARTIAL = ".partial-"
_OF_SYSTEMS = {"lost+found", ".DS_Store", ".Trashes", ".Spotlight-V100", ".fseventsd", "Thumbs.db", "desktop.ini"}
"""What file systems and desktops put into folders unasked."""
_FULL = {errno.ENOSPC, errno.EDQUOT}
_LEAST_FREE = 1 << 16
"""Bytes below which a disk is full to whatever library does not say why it could not write."""


class BusyError(OSError):
    """Another process works in a folder."""


class UnwritableError(OSError):
    """A file or folder that cannot be written; the message names it as its user knows it, and says why."""


class FullDiskError(UnwritableError):
    """A file that cannot be written because there is no room for it."""


def is_disk_full(error: BaseException) -> bool:
    """Say whether an error, or one in whose handling it was raised, is a lack of room on a disk."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, FullDiskError) or (isinstance(found, OSError) and found.errno in _FULL):
            return True
        found = found.__cause__ or found.__context__
    return False


def check_folder(folder: Path, name: str) -> None:
    """Raise ValueError, under the name of a flag, where a folder could not be made or written: before the work."""
    if folder.is_symlink() and not folder.exists():
        raise ValueError(f"{name}: {folder} is a link to nothing, expected a folder")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{name}: {folder} is a file, expected a folder")
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not there.is_dir():
        raise ValueError(f"{name}: {folder} lies below {there}, which is a file, expected a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        where = "it" if there == folder else there
        raise ValueError(f"{name}: {folder} cannot be written, {where} is read-only here; expected another folder")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, with its suffix, that takes its place when the block ends well.

    Raises UnwritableError, which names `path` alone, where it cannot be written.
    """
    temporary: Path | None = None
    is_writing = True
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{_PARTIAL}{path.stem}-", suffix=path.suffix)
        os.close(handle)
        temporary, is_writing = Path(name), False
        yield temporary
        is_writing = True
        # mkstemp's files are for their owner alone; a result is for whoever may read its folder.
        temporary.chmod(0o666 & ~_umask())
        # Else a machine that loses its power may keep the new name and lose the content.
        flush_path(temporary)
        temporary.replace(path)
        flush_path(path.parent)
    except (OSError, RuntimeError) as error:
        if isinstance(error, UnwritableError):
            raise
        if is_disk_full(error) or _is_unexplained_on_full_disk(error, path.parent):
            raise FullDiskError(f"{path} cannot be written: no space left on its disk") from error
        if isinstance(error, OSError) and (is_writing or (error.filename == str(temporary))):
            raise UnwritableError(f"{path} cannot be written: {error.strerror or error}") from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _is_unexplained_on_full_disk(error: Exception, folder: Path) -> bool:
    """Whether a library failed without a number of the system where the disk is full: Pillow and torch do so."""
    if isinstance(error, OSError) and error.errno is not None:
        return False
    return folder.exists() and shutil.disk_usage(folder).free < _LEAST_FREE


class _PatientFile(io.RawIOBase):
    """A file whose writes never fail: what the first failure was is kept, and what comes after it is dropped."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: BaseException | None = None

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                left = memoryview(data)
                while len(left):
                    left = left[self._file.write(left) :]
            except BaseException as error:  # also an interruption
                self.error = error
        return len(data)


@contextmanager
def patient_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for torch to write, whose C++ ends the process at a write that fails.

    Such a failure is raised when the block ends.
    """
    with path.open("wb", buffering=0) as file:
        patient = _PatientFile(file)
        yield patient  # type: ignore[misc]
        if patient.error is not None:
            raise patient.error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def remove_partial(folder: Path) -> None:
    """Remove what a killed process was writing below a folder."""
    for path in folder.rglob(f"{_PARTIAL}*"):
        path.unlink(missing_ok=True)


def is_unused(folder: Path) -> bool:
    """Whether a folder is not there, or holds only what a killed process was writing or what systems put there."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(_is_nobodys(path) for path in folder.iterdir())


def _is_nobodys(path: Path) -> bool:
    return path.name.startswith(_PARTIAL) or path.name in _OF_SYSTEMS or path.name == ERROR_LOG


def is_of_system(path: Path) -> bool:
    """Whether a path below a folder is, or lies in, what a file system or a desktop put there."""
    return not _OF_SYSTEMS.isdisjoint(path.parts)


def claim_folder(folder: Path) -> Path:
    """Make a folder that nobody else has, under its name or with -2, -3 and so on after it; returns its path."""
    number, named = 1, folder
    while True:
        try:
            named.mkdir(parents=True)
        except FileExistsError:
            number += 1
            named = folder.with_name(f"{folder.name}-{number}")
        else:
            return named


@contextmanager
def only_process_in(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for it out of a folder for the length of the block; raises BusyError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock(handle, wait=False)
    except BlockingIOError as error:
        os.close(handle)
        raise BusyError(f"out: another process works in {folder}, expected none") from error
    try:
        yield
    finally:
        os.close(handle)


def write_json(path: Path, content: Any) -> Path:
    """Write JSON that people can read and diff."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
    return path


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote. Raises ValueError, which names the file, for what is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON ({error})") from error


def write_csv(path: Path, table: pd.DataFrame, index: bool = False) -> Path:
    """Write a table as CSV."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=index)
    return path


def sha256(path: Path, progress: Callable[[int], object] | None = None) -> str:
    """Hex digest of a file's content; progress is told the bytes of each piece read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            if progress is not None:
                progress(len(chunk))
    return digest.hexdigest()


def update_manifest(
    folder: Path, written: Sequence[Path], gone: Sequence[str] = (), manifest: Mapping[str, Any] | None = None
) -> None:
    """Enter files anew into the manifest of a folder, if it has one, and strike out those that are gone.

    manifest is its content, for who has read it already.
    """
    if not (folder / MANIFEST).exists():
        return
    manifest = read_json(folder / MANIFEST) if manifest is None else manifest
    files = {name: entry for name, entry in manifest["files"].items() if name not in gone}
    files |= {path.relative_to(folder).as_posix(): _entry(path) for path in written}
    # In the order of write_manifest, so that what is made again changes nothing.
    write_json(folder / MANIFEST, {**manifest, "files": {name: files[name] for name in sorted(files, key=Path)}})


def _entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def write_manifest(folder: Path, leave_out: tuple[str, ...] = ()) -> Path:
    """List every file below a folder with its size in bytes and sha256, but for the folders named in leave_out."""
    files = {
        str(path.relative_to(folder)): _entry(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.relative_to(folder).parts[0] not in leave_out
        and path.relative_to(folder) not in (Path(MANIFEST), Path(ERROR_LOG))
        and not is_of_system(path.relative_to(folder))
    }
    return write_json(folder / MANIFEST, {"files": files})
