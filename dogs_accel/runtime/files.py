"""Writing files so that a reader never sees half of one, and the manifest of a run's folder."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.store.disk import flush, lock

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "MANIFEST.json"
_PARTIAL = ".partial-"


class BusyError(OSError):
    """Another process works in a folder."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, with its suffix, that takes its place when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{_PARTIAL}{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp's files are for their owner alone; a result is for whoever may read its folder.
        temporary.chmod(0o666 & ~_umask())
        # Else a machine that loses its power may keep the new name and lose the content.
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        flush(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def remove_partial(folder: Path) -> None:
    """Remove what a killed process was writing below a folder."""
    for path in folder.rglob(f"{_PARTIAL}*"):
        path.unlink(missing_ok=True)


def is_unused(folder: Path) -> bool:
    """Whether a folder is not there, or holds nothing but what a killed process was writing."""
    return not folder.exists() or (folder.is_dir() and all(p.name.startswith(_PARTIAL) for p in folder.iterdir()))


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


def write_manifest(folder: Path, leave_out: tuple[str, ...] = ()) -> Path:
    """List every file below a folder with its size in bytes and sha256, but for the folders named in leave_out."""
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.relative_to(folder).parts[0] not in leave_out
        and path.relative_to(folder) != Path(MANIFEST)
    }
    return write_json(folder / MANIFEST, {"files": files})
