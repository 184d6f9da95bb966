import errno
import fcntl
import gzip
import hashlib
import http.server
import io
import re
import shutil
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dogs_accel.datasets import DatasetError
from dogs_accel.datasets.download import ARCHIVES, Archive, DownloadError, download, unpack_archive
from tests.support.fuzzing import fuzz, value_or_line


class ArchiveHandler(http.server.BaseHTTPRequestHandler):
    """Serves one body; the server's fields say how well it behaves."""

    server: "ArchiveServer"

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        body = server.body
        if server.status != 200:
            self.send_error(server.status)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.knows_ranges else 0
        if start and start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        rest = body[start:]
        self.wfile.write(rest[: server.cuts.pop(0)] if server.cuts else rest)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


class ArchiveServer(http.server.ThreadingHTTPServer):
    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), ArchiveHandler)
        self.body = body
        self.status = 200
        self.knows_ranges = True
        self.cuts: list[int] = []  # bytes after which the next answers break off
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


def tar_bytes(*members: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


BODY = tar_bytes(("Images/n1-a/n1_1.jpg", bytes(range(256)) * 400), ("Images/n1-a/n1_2.jpg", b"second"))


def table_for(body: bytes) -> dict[str, Archive]:
    digest = hashlib.sha256(body).hexdigest()
    return {"images": Archive(file_name="images.tar", size_bytes=len(body), sha256=digest, folder="Images")}


TABLE = table_for(BODY)


@pytest.fixture
def server() -> Iterator[ArchiveServer]:
    server = ArchiveServer(BODY)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(root: Path, server: ArchiveServer, *, unpack: bool = True) -> dict[str, str]:
    return download(root, ("images",), base_url=server.url, unpack=unpack, progress=False, table=TABLE)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_official_archives_are_as_published() -> None:
    assert {name: archive.size_bytes for name, archive in ARCHIVES.items()} == {
        "images": 793_579_520,
        "annotation": 21_852_160,
        "lists": 481_280,
    }
    assert all(len(archive.sha256) == 64 for archive in ARCHIVES.values())


def test_official_lists_archive_is_the_shared_one(shared_data: Path) -> None:
    body = (shared_data / "stanford-dogs-lists/lists.tar").read_bytes()
    assert (len(body), hashlib.sha256(body).hexdigest()) == (ARCHIVES["lists"].size_bytes, ARCHIVES["lists"].sha256)


def test_fetch_verify_unpack(tmp_path: Path, server: ArchiveServer) -> None:
    done = fetch(tmp_path / "new" / "data", server)
    root = tmp_path / "new" / "data"
    assert done == {"images": f"{root}/images.tar downloaded, verified and unpacked to {root}/Images"}
    assert names(root) == ["Images", "images.tar"]
    assert (root / "Images/n1-a/n1_1.jpg").read_bytes() == bytes(range(256)) * 400
    assert server.ranges == [None]


def test_what_is_there_is_not_fetched_again(tmp_path: Path, server: ArchiveServer) -> None:
    assert fetch(tmp_path, server, unpack=False) == {"images": f"{tmp_path}/images.tar downloaded, verified"}
    assert fetch(tmp_path, server) == {"images": f"{tmp_path}/images.tar verified and unpacked to {tmp_path}/Images"}
    assert fetch(tmp_path, server) == {"images": f"{tmp_path}/Images is there already"}
    assert server.ranges == [None]


def test_a_part_is_gone_on_with(tmp_path: Path, server: ArchiveServer) -> None:
    (tmp_path / "images.tar.part").write_bytes(BODY[:40_000])
    fetch(tmp_path, server)
    assert server.ranges == ["bytes=40000-"]
    assert (tmp_path / "images.tar").read_bytes() == BODY


@pytest.mark.fault("Archives and checkpoints", "a download whose connection is cut", "taken up where it stopped")
def test_cut_connections_are_taken_up_again(tmp_path: Path, server: ArchiveServer) -> None:
    server.cuts = [50_000, 20_000]
    fetch(tmp_path, server)
    assert server.ranges == [None, "bytes=50000-", "bytes=70000-"]
    assert (tmp_path / "images.tar").read_bytes() == BODY


@pytest.mark.fault(
    "Archives and checkpoints", "a server that stops sending", "an end with advice; the part that is there stays"
)
def test_a_connection_that_gives_nothing_ends_with_advice_and_keeps_the_part(
    tmp_path: Path, server: ArchiveServer
) -> None:
    server.cuts = [50_000, 0]
    with pytest.raises(DownloadError, match=r"images\.tar: .* run again to go on, or put images\.tar into"):
        fetch(tmp_path, server)
    assert (tmp_path / "images.tar.part").read_bytes() == BODY[:50_000]
    fetch(tmp_path, server)
    assert (tmp_path / "images.tar").read_bytes() == BODY


def test_a_server_without_ranges_starts_over(tmp_path: Path, server: ArchiveServer) -> None:
    server.knows_ranges = False
    (tmp_path / "images.tar.part").write_bytes(b"x" * 40_000)
    fetch(tmp_path, server)
    assert server.ranges == ["bytes=40000-"]
    assert (tmp_path / "images.tar").read_bytes() == BODY


def test_a_part_of_the_full_size_is_only_verified(tmp_path: Path, server: ArchiveServer) -> None:
    (tmp_path / "images.tar.part").write_bytes(BODY)
    fetch(tmp_path, server)
    assert server.ranges == []
    assert names(tmp_path) == ["Images", "images.tar"]


def test_a_part_that_is_too_long_starts_over(tmp_path: Path, server: ArchiveServer) -> None:
    (tmp_path / "images.tar.part").write_bytes(BODY + b"x")
    fetch(tmp_path, server)
    assert server.ranges == [None]


def test_range_not_satisfiable_starts_over_and_finds_another_file(tmp_path: Path, server: ArchiveServer) -> None:
    server.body = BODY[:1000]
    (tmp_path / "images.tar.part").write_bytes(BODY[:2000])
    with pytest.raises(DownloadError, match=f"the server offers 1000 bytes, expected {len(BODY)}"):
        fetch(tmp_path, server)
    assert server.ranges == ["bytes=2000-", None]


@pytest.mark.fault("Archives and checkpoints", "a download with another checksum", "refused; nothing is unpacked")
def test_wrong_checksum_leaves_nothing(tmp_path: Path, server: ArchiveServer) -> None:
    server.body = BODY[:-1] + b"x"
    got = hashlib.sha256(server.body).hexdigest()
    with pytest.raises(DownloadError, match=f"got sha256 {got}, expected {TABLE['images'].sha256}"):
        fetch(tmp_path, server)
    assert names(tmp_path) == []


@pytest.mark.parametrize("body", [BODY[:-1] + b"x", BODY[:100]])
def test_a_wrong_archive_on_disk_is_kept_and_reported(tmp_path: Path, server: ArchiveServer, body: bytes) -> None:
    (tmp_path / "images.tar").write_bytes(body)
    with pytest.raises(DownloadError, match=r"images\.tar: got .*, expected .*; delete it to fetch it again"):
        fetch(tmp_path, server)
    assert (tmp_path / "images.tar").read_bytes() == body
    assert server.ranges == []


@pytest.mark.parametrize("status", [403, 404, 500])
def test_http_errors(tmp_path: Path, server: ArchiveServer, status: int) -> None:
    server.status = status
    with pytest.raises(DownloadError, match=rf"images\.tar: HTTP {status} "):
        fetch(tmp_path, server)
    assert names(tmp_path) == []


def test_no_network(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(DownloadError, match="Connection refused") as caught:
            download(tmp_path, ("images",), base_url=url, progress=False, table=TABLE)
    message = str(caught.value)
    assert "\n" not in message
    assert f"{url}/images.tar" in message
    assert f"put images.tar into {tmp_path} by hand and run again" in message
    assert names(tmp_path) == []


def test_two_processes_do_not_write_one_part(tmp_path: Path, server: ArchiveServer) -> None:
    with (tmp_path / "images.tar.part").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="another process is fetching it"):
            fetch(tmp_path, server)


def test_unknown_archive_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="got 'image', expected some of images, annotation, lists; did you mean images"
    ):
        download(tmp_path, ("image",))


# --- unpacking --------------------------------------------------------------------------------------------------


def header(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def raw_header(name: str, kind: bytes, size: int) -> bytes:
    """A header whose size is what tarfile would not write."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    block[156:157] = kind
    block[124:136] = (
        b"\xff" * 4 + size.to_bytes(8, "big", signed=True) if size < 0 else b"\x80" + size.to_bytes(11, "big")
    )
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


FIRST = tar_bytes(("Images/n1_1.jpg", b"first"))[:1024]
END = bytes(1024)


def refused(root: Path, body: bytes) -> str:
    """Unpack an archive that is refused: nothing is written; gives the line without the path."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "images.tar").write_bytes(body)
    with pytest.raises(DatasetError) as caught:
        unpack_archive(root / "images.tar", root / "Images", progress=False)
    line = str(caught.value)
    assert line.startswith(f"{root / 'images.tar'}: cannot be unpacked: ")
    assert "\n" not in line
    assert names(root) == ["images.tar"]
    return line.removeprefix(f"{root / 'images.tar'}: cannot be unpacked: ")


@pytest.mark.fault(
    "Archives and checkpoints",
    "an archive with names that lead out, links, devices, pipes, or names that come twice",
    "one line with the archive and the member, before anything is unpacked",
)
@pytest.mark.parametrize(
    ("member", "problem"),
    [
        (("../outside.txt", b"x"), "leads out of the folder"),
        (("Images/../../outside.txt", b"x"), "leads out of the folder"),
        (("/tmp/outside.txt", b"x"), "leads out of the folder"),
        (header("Images/link", tarfile.SYMTYPE, linkname="../../outside"), "is a link, expected files and folders"),
        (header("Images/link", tarfile.SYMTYPE, linkname="/etc"), "is a link"),
        (header("Images/link", tarfile.SYMTYPE, linkname="n1_1.jpg"), "is a link"),
        (header("Images/hard", tarfile.LNKTYPE, linkname="Images/n1_1.jpg"), "is a hard link"),
        (header("Images/hard", tarfile.LNKTYPE, linkname="/etc/passwd"), "is a hard link"),
        (header("Images/device", tarfile.CHRTYPE), "is a device"),
        (header("Images/disk", tarfile.BLKTYPE), "is a device"),
        (header("Images/pipe", tarfile.FIFOTYPE), "is a named pipe"),
        (header("Images/other", b"Z"), "is of another kind"),
        (("Images/n1_1.jpg", b"second"), "is in it twice"),
        (("Images/./n1_1.jpg", b"second"), "is in it twice"),
        (("Images", b"a file"), "is in it twice"),
        (("Images/n1_1.jpg/more.jpg", b"x"), "lies below a file"),
        (("", b"x"), "is a file without a name"),
        ((f"Images/{'x' * 256}", b"x"), "has a name that no file can have here"),
        ((f"Images/{'d/' * 2000}x", b"x"), "has a name that no file can have here"),
        (header("Images/1", pax_headers={"path": "Images/a\0b"}), "has a name that no file can have here"),
    ],
)
def test_malicious_members_leave_nothing(
    tmp_path: Path, member: tarfile.TarInfo | tuple[str, bytes], problem: str
) -> None:
    line = refused(tmp_path / "deep" / "root", tar_bytes(("Images/n1_1.jpg", b"first"), member))
    assert re.match(rf"its member '.*'( and so on)? {problem}", line)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["images.tar"]


@pytest.mark.fault(
    "Archives and checkpoints",
    "an archive that is cut off, damaged or compressed, or has headers that say more than there is",
    "one line with the archive and why, before anything is unpacked",
)
@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "empty file"),
        (b"not an archive" * 100, "invalid header|bad checksum"),
        (BODY[:60_000], r"its member 'Images/n1-a/n1_1\.jpg' says that it has 102,400 bytes, more than there are"),
        (FIRST, "it is damaged or cut off at byte 1,024"),
        (FIRST + b"\1" + FIRST[1:] + END, "it is damaged or cut off at byte 1,024"),
        (END, "empty file|there is no file in it"),
        (tar_bytes(header("Images", tarfile.DIRTYPE)), "there is no file in it"),
        (gzip.compress(BODY), r"it is compressed \(gzip\), expected a plain tar"),
        (FIRST + raw_header("Images/2.jpg", b"0", 1 << 45) + END, r"says that it has 35,184,372,088,832 bytes, more"),
        (FIRST + raw_header("Images/2.jpg", b"0", -512) + END, "says that it has -512 bytes|invalid offset"),
        (FIRST + raw_header("Images/2.jpg", b"S", 1 << 20) + END, r"its member 'Images/2\.jpg' is of another kind"),
        (FIRST + raw_header("long", b"L", 1 << 40) + END, "it has a header of 1099511627776 bytes"),
        (FIRST + raw_header("pax", b"x", 1 << 40) + END, "it has a header of 1099511627776 bytes"),
        (tar_bytes(header("a", pax_headers={"comment": "x"}))[:1024] * 3000 + END, "recursion|missing or bad"),
    ],
    ids=["empty", "other", "in-a-file", "between-files", "header", "zeros", "no-file", "gzip", "huge", "negative",
         "sparse", "long-name", "long-header", "nested-headers"],
)  # fmt: skip
def test_broken_archives_leave_nothing(tmp_path: Path, body: bytes, problem: str) -> None:
    assert re.search(problem, refused(tmp_path, body))


@pytest.mark.fault(
    "Archives and checkpoints", "an archive of a million members", "one line with the limit, before any is unpacked"
)
def test_too_many_members_are_not_counted_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dogs_accel.datasets.download.MOST_MEMBERS", 100)
    most = tar_bytes(*((f"Images/{i}.jpg", b"") for i in range(100)))
    # The next block would be refused as damaged, had it been read.
    assert refused(tmp_path, most[: 100 * 512] + FIRST + b"damaged" * 100) == "it has more than 100 members"
    (tmp_path / "images.tar").write_bytes(most)
    unpack_archive(tmp_path / "images.tar", tmp_path / "Images", progress=False)
    assert len(names(tmp_path / "Images")) == 100


def test_times_that_no_file_can_have_are_left_out(tmp_path: Path) -> None:
    times = ("nan", "-1", "1e300", "1700000000")
    body = tar_bytes(*(header(f"Images/{i}", pax_headers={"mtime": time}) for i, time in enumerate(times)))
    (tmp_path / "images.tar").write_bytes(body)
    unpack_archive(tmp_path / "images.tar", tmp_path / "Images", progress=False)
    assert [(tmp_path / "Images" / str(i)).stat().st_mtime for i in range(4)] == [0, 0, 0, 1_700_000_000]


def test_a_disk_that_fails_names_the_member_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "a temporary name")

    monkeypatch.setattr(tarfile, "copyfileobj", fail)
    assert refused(tmp_path, BODY) == "its member 'Images/n1-a/n1_1.jpg' cannot be written: No space left on device"


# In ASCII: other names lie in blocks of their own that have no checksum.
members = st.lists(st.tuples(st.text("./ab\n", max_size=6), st.binary(max_size=700)), min_size=1, max_size=4)


@fuzz(60)
@given(drawn=members, data=st.data())
def test_a_damaged_archive_is_unpacked_whole_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("archive")
    body = bytearray(tar_bytes(*((f"Images/{name}", content) for name, content in drawn)))
    for _ in range(data.draw(st.integers(0, 2))):
        # In a header, or anywhere: most of an archive is padding.
        at = data.draw(st.integers(0, 511) | st.integers(0, len(body) - 1))
        body[at] ^= data.draw(st.integers(1, 255))
    (root / "images.tar").write_bytes(body[: data.draw(st.just(len(body)) | st.integers(0, len(body)))])
    try:
        value_or_line(lambda: unpack_archive(root / "images.tar", root / "Images", progress=False))
        assert set(names(root)) <= {"images.tar", "Images"}
        if (root / "Images").exists():
            assert len([path for path in (root / "Images").rglob("*") if path.is_file()]) == len(drawn)
    finally:
        shutil.rmtree(root)


def test_an_archive_without_a_top_folder_becomes_the_target(tmp_path: Path) -> None:
    (tmp_path / "lists.tar").write_bytes(tar_bytes(("train_list.mat", b"train"), ("test_list.mat", b"test")))
    unpack_archive(tmp_path / "lists.tar", tmp_path / "lists", progress=False)
    assert names(tmp_path / "lists") == ["test_list.mat", "train_list.mat"]
    assert names(tmp_path) == ["lists", "lists.tar"]


def test_python_without_the_data_filter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(DatasetError, match=r"expected 3\.10\.12, 3\.11\.4, 3\.12 or newer"):
        unpack_archive(tmp_path / "images.tar", tmp_path / "Images")
