"""Writing files so that a reader never sees half of one, and the manifest of a run's folder."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

MANIFEST = "MANIFEST.json"
_PARTIAL = ".partial-"


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
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def remove_partial(folder: Path) -> None:
    """Remove what a killed process was writing below a folder."""
    for path in folder.rglob(f"{_PARTIAL}*"):
        path.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> Path:
    """Write JSON that people can read and diff."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
    return path


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


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
