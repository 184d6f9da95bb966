"""Fetching archives, resumed where a connection breaks, and those of Stanford Dogs verified and unpacked safely."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tqdm import tqdm

from dogs_accel.datasets.dataset import DatasetError
from dogs_accel.runtime.arguments import nearest
from dogs_accel.runtime.files import UnwritableError, replacing_folder, sha256, writing_to
from pipelines.decoding.contents import require_regular
from pipelines.progress import progress_bar
from pipelines.store.disk import lock

BASE_URL = "http://vision.stanford.edu/aditya86/ImageNetDogs/"
TIMEOUT_S = 30.0
MOST_MEMBERS = 1 << 18
"""Of an archive, about ten times as many as the published ones have."""
_CHUNK_BYTES = 1 << 20
_BLOCK_BYTES = 512
_MOST_PARTS, _MOST_SHOWN = 16, 100
"""Of the name of a member: folders in it, and letters that an error shows."""


class DownloadError(OSError):
    """An archive could not be fetched; the message is one line that says what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """An archive as published, and the folder that it unpacks to."""

    file_name: str
    size_bytes: int
    sha256: str
    folder: str


ARCHIVES: dict[str, Archive] = {
    "images": Archive(
        file_name="images.tar",
        size_bytes=793_579_520,
        sha256="a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
        folder="Images",
    ),
    "annotation": Archive(
        file_name="annotation.tar",
        size_bytes=21_852_160,
        sha256="662ed36f707be6b195c2fda392d8e153e83af28cedc8e2134a649f198def30fd",
        folder="Annotation",
    ),
    "lists": Archive(
        file_name="lists.tar",
        size_bytes=481_280,
        sha256="34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c",
        folder="lists",
    ),
}


def download(
    root: str | os.PathLike[str],
    archives: Sequence[str] = ("images", "annotation", "lists"),
    *,
    base_url: str = BASE_URL,
    unpack: bool = True,
    progress: bool = True,
    table: Mapping[str, Archive] = ARCHIVES,
) -> dict[str, str]:
    """Fetch archives into `root`, verify them and unpack them; give what was done for each, in words.

    What is unpacked already is left alone; an archive that is there is verified, not fetched again; a broken
    download goes on where it stopped, from its .part file. Fetched archives are kept. Raises DownloadError where an
    archive cannot be had or is not the published one, DatasetError where it holds what must not be unpacked, and
    ValueError for an unknown name.
    """
    unknown = [name for name in archives if name not in table]
    if unknown:
        near = nearest(unknown[0], table)
        hint = f"; did you mean {near}?" if near else ""
        raise ValueError(f"archives: got {unknown[0]!r}, expected some of {', '.join(table)}{hint}")
    folder = Path(root).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return {name: _provide(table[name], folder, base_url, unpack, progress) for name in archives}


def _provide(archive: Archive, root: Path, base_url: str, unpack: bool, progress: bool) -> str:
    path, target = root / archive.file_name, root / archive.folder
    if unpack and target.exists():
        return f"{target} is there already"
    done = "verified"
    if path.exists():
        _check_archive_on_disk(path, archive, progress)
    else:
        _fetch(base_url.rstrip("/") + "/" + archive.file_name, path, archive, progress)
        done = "downloaded, verified"
    if not unpack:
        return f"{path} {done}"
    unpack_archive(path, target, progress=progress)
    return f"{path} {done} and unpacked to {target}"


def _check_archive_on_disk(path: Path, archive: Archive, progress: bool) -> None:
    size = path.stat().st_size
    if size != archive.size_bytes:
        problem = f"{size} bytes, expected {archive.size_bytes}"
    elif (digest := sha256_of(path, progress=progress)) != archive.sha256:
        problem = f"sha256 {digest}, expected {archive.sha256}"
    else:
        return
    raise DownloadError(
        f"{path}: got {problem}; delete it to fetch it again, or open_dataset(root, unpack=True) if it is your own"
    )


def sha256_of(path: Path, *, progress: bool = True) -> str:
    """Give the SHA-256 of a file, in hexadecimal."""
    with _byte_bar(f"verify {path.name}", path.stat().st_size, progress) as bar:
        return sha256(path, bar.update)


def _byte_bar(title: str, total: int, progress: bool) -> tqdm:
    return progress_bar(total, title, unit="B", shown=progress, unit_scale=True, unit_divisor=1024)


# --- fetching ---------------------------------------------------------------------------------------------------


def _fetch(url: str, path: Path, archive: Archive, progress: bool) -> None:
    part = path.with_name(path.name + ".part")
    fetch(url, part, size_bytes=archive.size_bytes, called=archive.file_name, progress=progress)
    digest = sha256_of(part, progress=progress)
    if digest != archive.sha256:
        part.unlink()
        raise DownloadError(f"{url}: got sha256 {digest}, expected {archive.sha256}; what was fetched is deleted")
    part.replace(path)


def fetch(url: str, part: Path, *, size_bytes: int | None, called: str, progress: bool = True) -> None:
    """Fetch a file into `part`, going on with what is there of it.

    size_bytes None is as many as the server says; one that says no number is taken at the end of its answer. called is
    the file's name for people. Raises DownloadError where it cannot be had or the server's is of another size.
    """
    with _locked(part) as file, _byte_bar(called, size_bytes or 0, progress) as bar:
        _fill(file, url, size_bytes, called, bar)


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[IO[bytes]]:
    """Open a .part file for going on with it, and keep other processes from doing so at the same time."""
    # Without a buffer, which would fail once more when it is closed.
    with part.open("ab", buffering=0) as file:
        try:
            lock(file, wait=False)
        except BlockingIOError as error:
            raise DownloadError(f"{part}: another process is fetching it; wait for that one") from error
        try:
            yield file
        except BaseException:
            with contextlib.suppress(OSError):
                if file.seek(0, os.SEEK_END) == 0:  # nothing came, so that there is nothing to go on with
                    part.unlink(missing_ok=True)
            raise


def _fill(file: IO[bytes], url: str, size: int | None, called: str, bar: tqdm) -> None:
    """Append to `file` until it is complete; a broken connection is taken up again as long as bytes still come."""
    have = file.seek(0, os.SEEK_END)
    if size is not None and have > size:
        have = file.truncate(0)
    while size is None or have < size:
        before, problem = have, "the connection was closed"
        try:
            have, size = _append(file, url, have, size, bar)
        except urllib.error.HTTPError as error:
            raise DownloadError(_advice(url, f"HTTP {error.code} {error.reason}", file.name, size, called)) from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, DownloadError | UnwritableError):
                raise
            problem = str(getattr(error, "reason", error)) or type(error).__name__
            have = file.seek(0, os.SEEK_END)
        if have <= before and have != size:
            raise DownloadError(_advice(url, problem, file.name, size, called))


def _advice(url: str, problem: str, part_name: str, size: int | None, called: str) -> str:
    asked = "" if size is None else f" (asked for {size} bytes)"
    return (
        f"{url}: {problem}{asked}; run again to go on, or put {called} into {Path(part_name).parent} by hand and run "
        "again"
    )


def _append(file: IO[bytes], url: str, have: int, size: int | None, bar: tqdm) -> tuple[int, int]:
    """Ask for what is missing and append what comes; give the bytes that are there afterwards, and those of all."""
    headers = {"User-Agent": "dogs-accel", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        offered = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if size is None and offered is not None and int(offered[1]) == have:
            return have, have
        # The server's file ends before our part does: nothing of the part can be trusted.
        return _append(file, url, _restart(file), size, bar)
    with response:
        start, total = _offered_range(response)
        if None not in (size, total) and total != size:
            raise DownloadError(f"{url}: the server offers {total} bytes, expected {size}; it is another file")
        if start != have:
            if start != 0:
                raise DownloadError(f"{url}: the server sends from byte {start}, asked for {have}")
            have = _restart(file)
        size = total if size is None else size
        bar.total, bar.n = size, have
        bar.refresh()
        while (size is None or have < size) and (chunk := response.read(_most(have, size))):
            left = memoryview(chunk)
            while left:
                with writing_to(Path(file.name)):
                    left = left[file.write(left) :]
            have += len(chunk)
            bar.update(len(chunk))
    return have, have if size is None else size


def _most(have: int, size: int | None) -> int:
    return _CHUNK_BYTES if size is None else min(_CHUNK_BYTES, size - have)


def _restart(file: IO[bytes]) -> int:
    return file.truncate(0)


def _offered_range(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Where the body starts in the whole file, and how long that is where the server says so."""
    if response.status == http.client.PARTIAL_CONTENT:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match is None:
            raise DownloadError(f"{response.url}: partial answer without a usable Content-Range")
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


# --- unpacking --------------------------------------------------------------------------------------------------


def unpack_archive(path: Path, target: Path, *, progress: bool = True) -> None:
    """Unpack a tar archive so that `target` appears at once and complete.

    An archive with a top folder of the target's name gives that folder (images.tar has Images/), any other gives the
    target its members (lists.tar has only files). All members are looked at before the first is written. Raises
    DatasetError, which names the member, for names that lead out, links and devices, names that come twice and more
    than MOST_MEMBERS of them, as well as for an archive that is broken, cut off, compressed or empty, or for which the
    disk is too small.
    """
    if not hasattr(tarfile, "data_filter"):
        raise DatasetError("Python is too old to unpack archives safely: expected 3.10.12, 3.11.4, 3.12 or newer")
    try:
        require_regular(path)
        with path.open("rb") as file:
            _check_members(file)
            # Where another process was first, both unpacked the same archive, and either result will do.
            with replacing_folder(target) as content:
                content.mkdir()
                _extract(file, content, f"unpack {path.name}", progress)
                inner = content / target.name
                if inner.is_dir():
                    content = content.rename(content.with_name(f"{target.name}-"))
                    (content / target.name).rename(content.with_name(target.name))
    except UnwritableError:
        raise
    except _MemberError as error:
        raise DatasetError(f"{path}: cannot be unpacked: {error}") from error
    except (tarfile.TarError, OSError, ValueError, RecursionError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error).partition("\n")[0]
        raise DatasetError(f"{path}: cannot be unpacked: {reason}") from error


class _MemberError(ValueError):
    """A member of an archive that no dataset has."""

    def __init__(self, name: str, problem: str) -> None:
        shown = f"{name[:_MOST_SHOWN]!r}{' and so on' if len(name) > _MOST_SHOWN else ''}"
        super().__init__(f"its member {shown} {problem}")


class _SmallReads:
    """A file of which only so much is read at once: headers may say that they are gigabytes long."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _CHUNK_BYTES:
            raise tarfile.ReadError(f"it has a header of {size} bytes")
        return self._file.read(size)


def _members(file: IO[bytes]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Walk through an archive, of whose members none is kept."""
    file.seek(0)
    # Not its compressed forms, whose content is larger than they are, nobody knows by how much.
    with tarfile.open(fileobj=_SmallReads(file), mode="r:") as tar:  # type: ignore[call-overload]
        while (member := tar.next()) is not None:
            yield tar, member
            tar.members.clear()


def _check_members(file: IO[bytes]) -> None:
    """Raise ValueError or TarError for an archive that is not whole, or has members that no dataset has."""
    start = file.read(_BLOCK_BYTES)
    for kind, first in {"gzip": b"\x1f\x8b", "bzip2": b"BZh", "xz": b"\xfd7zXZ", "zip": b"PK\x03\x04"}.items():
        if start.startswith(first):
            raise ValueError(f"it is compressed ({kind}), expected a plain tar; put that there")
    size = file.seek(0, os.SEEK_END)
    files: set[str] = set()
    folders: set[str] = set()
    end = 0
    for num, (_, member) in enumerate(_members(file)):
        if num == MOST_MEMBERS:
            raise ValueError(f"it has more than {MOST_MEMBERS:,} members")
        end = member.offset_data + (-(-member.size // _BLOCK_BYTES) * _BLOCK_BYTES if member.isreg() else 0)
        if not 0 <= member.size <= size - member.offset_data and member.isreg():
            raise _MemberError(member.name, f"says that it has {member.size:,} bytes, more than there are")
        parts = _parts(member)
        name = "/".join(parts)
        around = {"/".join(parts[:depth]) for depth in range(len(parts))}
        if member.isreg():
            if name in files or name in folders:
                raise _MemberError(member.name, "is in it twice")
            files.add(name)
        else:
            around.add(name)
        if not files.isdisjoint(around):
            raise _MemberError(member.name, "lies below a file")
        folders |= around
    # Python takes whatever it cannot read for the end; a whole archive ends with blocks of zeros.
    file.seek(end)
    if file.read(_BLOCK_BYTES) != bytes(_BLOCK_BYTES):
        raise ValueError(f"it is damaged or cut off at byte {end:,}")
    if not files:
        raise ValueError("there is no file in it")


def _parts(member: tarfile.TarInfo) -> list[str]:
    """Give the parts of a member's name. Raises _MemberError where a dataset has no such thing."""
    # Stricter than the data filter, which keeps links that stay inside and strips a leading slash: a dataset has
    # neither, and a name that was changed would not be the one that the lists have.
    if not (member.isreg() or member.isdir()) or member.issparse():
        kinds = {tarfile.SYMTYPE: "a link", tarfile.LNKTYPE: "a hard link", tarfile.FIFOTYPE: "a named pipe",
                 tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device"}  # fmt: skip
        raise _MemberError(member.name, f"is {kinds.get(member.type, 'of another kind')}, expected files and folders")
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if member.name.startswith("/") or ".." in parts:
        raise _MemberError(member.name, "leads out of the folder")
    if "\0" in member.name or len(parts) > _MOST_PARTS or any(len(os.fsencode(part)) > 255 for part in parts):
        raise _MemberError(member.name, "has a name that no file can have here")
    if not parts and member.isreg():
        raise _MemberError(member.name, "is a file without a name")
    return parts


def _extract(file: IO[bytes], destination: Path, title: str, progress: bool) -> None:
    size, done = file.seek(0, os.SEEK_END), 0
    with _byte_bar(title, size, progress) as bar:
        for tar, member in _members(file):
            try:
                tar.extract(member, destination, filter=_as_data)
            except OSError as error:
                raise _MemberError(member.name, f"cannot be written: {error.strerror or error}") from error
            bar.update(member.size)
            done += member.size
        # Headers and padding, so that the bar ends full.
        bar.update(max(0, size - done))


def _as_data(member: tarfile.TarInfo, destination: str) -> tarfile.TarInfo:
    # Times that the system cannot have would raise; NaN is among them.
    known = member if 0 <= member.mtime < 1 << 33 else member.replace(mtime=0, deep=False)
    return tarfile.data_filter(known, destination)
