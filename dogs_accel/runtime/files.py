"""Writing files so that a reader never sees half of one, and the manifest of a run's folder."""

from __future__ import annotations

import errno
import functools
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pipelines.store.disk import DISK_IS_FULL, LOCK_FILE, flush_path, lock, open_to_lock

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "MANIFEST.json"
ERROR_LOG = "error.log"
"""Where the traceback of an error that nobody expected lies; no result, so in no manifest."""
_PARTIAL = ".partial-"
_OF_SYSTEMS = {"lost+found", ".DS_Store", ".Trashes", ".Spotlight-V100", ".fseventsd", "Thumbs.db", "desktop.ini"}
"""What file systems and desktops put into folders unasked."""
_NO_RESULTS = {*_OF_SYSTEMS, LOCK_FILE}
_OF_WRITES = {errno.EIO, errno.EFBIG, errno.ESTALE}
"""What the system says of a write that fails, of which it names no file."""
_MOST_TEXT_BYTES = 1 << 28
"""Of a file of ours or of the user's that is read as a text."""
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
        if isinstance(found, FullDiskError) or (isinstance(found, OSError) and found.errno in DISK_IS_FULL):
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
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = _own_temporary(stack, path.parent, path.stem, path.suffix)
            is_writing = False
            yield temporary
            is_writing = True
            # mkstemp's files are for their owner alone; a result is for whoever may read its folder.
            temporary.chmod(0o666 & ~_umask())
            # Else a machine that loses its power may keep the new name and lose the content.
            flush_path(temporary)
            temporary.replace(path)
            flush_path(path.parent)
        except (OSError, RuntimeError) as error:
            # Of a folder that would be too bold: in its blocks archives are read too.
            is_unnamed_write = isinstance(error, OSError) and error.filename is None and error.errno in _OF_WRITES
            is_of_path = is_writing or is_unnamed_write or _is_of(error, temporary)
            if (said := _unwritable(path, error, is_of_path)) is None:
                raise
            raise said from error


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Give the path of a folder yet to be made that takes the name `folder`, and all in it, when the block ends well.

    Where another process has made `folder` meanwhile, that one stays. What killed processes have left of theirs is
    removed. Raises UnwritableError, which names `folder` alone, where it cannot be written.
    """
    workspace: Path | None = None
    is_writing = True
    with ExitStack() as stack:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            workspace = _own_temporary(stack, folder.parent, folder.name, None)
            is_writing = False
            yield workspace / folder.name
            is_writing = True
            try:
                (workspace / folder.name).rename(folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        except OSError as error:
            if (said := _unwritable(folder, error, is_writing or _is_of(error, workspace))) is None:
                raise
            raise said from error


def _own_temporary(stack: ExitStack, folder: Path, name: str, suffix: str | None) -> Path:
    """Make a file with a suffix, or a folder where that is None, that is removed when the stack is closed.

    It is locked until then, so that nobody takes it for what a killed process has left.
    """
    _remove_abandoned(folder)
    prefix = f"{_PARTIAL}{name}-"
    while True:
        if suffix is None:
            made = Path(tempfile.mkdtemp(dir=folder, prefix=prefix))
            handle = os.open(made, os.O_RDONLY)
        else:
            handle, path = tempfile.mkstemp(dir=folder, prefix=prefix, suffix=suffix)
            made = Path(path)
        stack.callback(os.close, handle)
        stack.callback(_remove, made)
        lock(handle)
        if os.fstat(handle).st_nlink:  # else somebody took it for abandoned just before
            return made


@functools.cache
def _remove_abandoned(folder: Path) -> None:
    """Remove what killed processes have left of what they were writing into a folder, once in this process."""
    for left in folder.glob(f"{_PARTIAL}*"):
        with suppress(OSError):
            handle = os.open(left, os.O_RDONLY if left.is_dir() else os.O_RDWR)
            try:
                if lock(handle, wait=False):
                    _remove(left)
            finally:
                os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):  # on a disk that is read-only by now, which is said
        path.unlink(missing_ok=True)


@contextmanager
def temporary_folder(prefix: str, instead: str = "TMPDIR=DIR puts it elsewhere") -> Iterator[Path]:
    """Give a folder among the temporary files of this machine that is removed in the end.

    instead: what somebody can do who has no room there. Raises UnwritableError, which names the folder of the temporary
    files alone, where an error in the block says that the folder that was given cannot be written.
    """
    where = tempfile.gettempdir()
    try:
        with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as given:
            yield Path(given)
    except (OSError, ValueError) as error:
        if os.path.join(where, prefix) not in str(error):  # noqa: PTH118  # as the message has it
            raise
        if is_disk_full(error):
            text = "no space left on the disk of the temporary files"
            raise FullDiskError(f"{where}: {text}, {instead}") from error
        reason = getattr(error.__cause__ or error, "strerror", None) or error
        raise UnwritableError(f"{where} cannot be written: {reason}; {instead}") from error


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Say of what the system has against the block that `path` cannot be written: raises UnwritableError."""
    try:
        yield
    except OSError as error:
        if (said := _unwritable(path, error, True)) is None:
            raise
        raise said from error


def _is_of(error: Exception, temporary: Path | None) -> bool:
    """Whether an error of the system is of a path, or of one below it."""
    named = getattr(error, "filename", None)
    return temporary is not None and isinstance(named, str) and temporary in (Path(named), *Path(named).parents)


def _unwritable(path: Path, error: Exception, is_of_path: bool) -> UnwritableError | None:
    """Say of an error that `path` cannot be written, where that is what it means and the error does not say so."""
    if isinstance(error, UnwritableError):
        return None
    if is_disk_full(error) or _is_unexplained_on_full_disk(error, path.parent):
        return FullDiskError(f"{path} cannot be written: no space left on its disk")
    if isinstance(error, OSError) and is_of_path:
        return UnwritableError(f"{path} cannot be written: {error.strerror or error}")
    return None


def _is_unexplained_on_full_disk(error: Exception, folder: Path) -> bool:
    """Whether a library failed without a number of the system where the disk is full: Pillow and torch do so."""
    if isinstance(error, OSError) and error.errno is not None:
        return False
    return has_no_room(folder)


def has_no_room(folder: Path) -> bool:
    """Whether the disk of a folder is as good as full, for what does not say why it could not write."""
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
        _remove(path)


def is_unused(folder: Path) -> bool:
    """Whether a folder is not there, or holds only what a killed process was writing or what systems put there."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(_is_nobodys(path) for path in folder.iterdir())


def _is_nobodys(path: Path) -> bool:
    return path.name.startswith(_PARTIAL) or path.name in _NO_RESULTS or path.name == ERROR_LOG


def is_no_result(path: Path) -> bool:
    """Whether a path below a folder is, or lies in, what a file system or a desktop put there, or keeps others out."""
    return not _NO_RESULTS.isdisjoint(path.parts)


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
def only_process_in(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes that ask for it out of a folder for the length of the block.

    Where another one is in there, this one waits for it, or raises BusyError. Raises UnwritableError where nothing can
    be written there. The file that is locked goes at the end; one that a killed process has left keeps nobody out.
    """
    path = folder / LOCK_FILE
    try:
        handle = _locked(path, wait)
    except BlockingIOError as error:
        raise BusyError(f"out: another process works in {folder}, expected none") from error
    try:
        yield
    finally:
        # Of a folder that is gone, or on a disk that is read-only by now. In a folder that has taken the place of this
        # one the file is another process's.
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                path.unlink()
        os.close(handle)


def _locked(path: Path, wait: bool) -> int:
    while True:
        with writing_to(path.parent):
            try:
                handle = open_to_lock(path)
            except PermissionError:
                if not path.is_file():
                    raise
                # Another user has left it. A network's file system does not lock what is open for reading, others do.
                handle = os.open(path, os.O_RDONLY)
        try:
            lock(handle, wait=wait)
        except BaseException:
            os.close(handle)
            raise
        with suppress(FileNotFoundError):  # whoever had it before has removed it just now
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder for the length of the block, as `only_process_in` does.

    The folder is made where there is none, and removed in the end where nothing was written to it.
    """
    was_there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with only_process_in(folder):
            yield
    finally:
        if not was_there:
            with suppress(OSError):  # of what is not empty
                folder.rmdir()


def write_json(path: Path, content: Any) -> Path:
    """Write JSON that people can read and diff."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
    return path


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote.

    Raises ValueError, which names the file, for what is no JSON, or has a key twice, of which JSON would take the last.
    """
    try:
        return json.loads(read_text(path), object_pairs_hook=_each_name_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error})") from error


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        name = next(name for name, num in Counter(name for name, _ in pairs).items() if num > 1)
        raise ValueError(f"got the key {name[:40]!r} twice, expected each once")
    return found


def read_text(path: Path) -> str:
    """Read a text in UTF-8, which may come through a pipe. Raises ValueError for what is none, or too large for one.

    A pipe that nobody writes into is empty, and is not waited for.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        os.set_blocking(file.fileno(), True)
        content = file.read(_MOST_TEXT_BYTES + 1)
    if len(content) > _MOST_TEXT_BYTES:
        raise ValueError(f"it has more than {_MOST_TEXT_BYTES:,} bytes")
    return content.decode("utf-8")


def write_csv(path: Path, table: pd.DataFrame, index: bool = False) -> Path:
    """Write a table as CSV."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=index)
    return path


def sha256(path: Path, progress: Callable[[int], object] | None = None) -> str:
    """Hex digest of a file's content; progress is told the bytes of each piece read."""
    return _digest(path, hashlib.sha256(), progress)


def md5(path: Path) -> str:
    """Hex digest of a file's content, for what a publisher gives no better one of."""
    return _digest(path, hashlib.md5(usedforsecurity=False), None)


def _digest(path: Path, digest: Any, progress: Callable[[int], object] | None) -> str:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            if progress is not None:
                progress(len(chunk))
    hexadecimal: str = digest.hexdigest()
    return hexadecimal


def update_manifest(
    folder: Path, written: Sequence[Path], gone: Sequence[str] = (), manifest: Mapping[str, Any] | None = None
) -> None:
    """Enter files anew into the manifest of a folder, if it has one, and strike out those that are gone.

    manifest is its content, for who has read it already.
    """
    if not (folder / MANIFEST).exists():
        return
    manifest = read_manifest(folder) if manifest is None else manifest
    files = {name: entry for name, entry in manifest["files"].items() if name not in gone}
    files |= {path.relative_to(folder).as_posix(): _entry(path) for path in written}
    # In the order of write_manifest, so that what is made again changes nothing.
    write_json(folder / MANIFEST, {**manifest, "files": {name: files[name] for name in sorted(files, key=Path)}})


def _entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a folder, of which "files" is a mapping from names to "bytes" and "sha256"; empty of none.

    Raises ValueError, which names it, where it is none.
    """
    if not (folder / MANIFEST).exists():
        return {"files": {}}
    content = read_json(folder / MANIFEST)
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict):
        raise ValueError(f"{folder / MANIFEST}: got {str(content)[:40]!r}, expected a list of files")
    for name, entry in files.items():
        has_both = isinstance(entry, dict) and isinstance(entry.get("bytes"), int)
        if not has_both or not isinstance(entry.get("sha256"), str):
            raise ValueError(f"{folder / MANIFEST}: {name}: got {str(entry)[:40]!r}, expected bytes and sha256")
    return content


def changed_files(folder: Path) -> list[str]:
    """Name the files of a folder that are others than its manifest says, or gone; none where it has no manifest."""
    entries = read_manifest(folder)["files"]
    return [
        name
        for name, entry in entries.items()
        if not (folder / name).is_file()
        or (folder / name).stat().st_size != entry["bytes"]
        or sha256(folder / name) != entry["sha256"]
    ]


def write_manifest(folder: Path, leave_out: tuple[str, ...] = ()) -> Path:
    """List every file below a folder with its size in bytes and sha256, but for the folders named in leave_out."""
    files = {
        str(path.relative_to(folder)): _entry(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.relative_to(folder).parts[0] not in leave_out
        and path.relative_to(folder) not in (Path(MANIFEST), Path(ERROR_LOG))
        and not is_no_result(path.relative_to(folder))
    }
    return write_json(folder / MANIFEST, {"files": files})
