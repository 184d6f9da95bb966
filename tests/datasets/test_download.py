import fcntl
import hashlib
import http.server
import io
import re
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dogs_accel.datasets import DatasetError
from dogs_accel.datasets.download import ARCHIVES, Archive, DownloadError, download, unpack_archive


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


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def device(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.CHRTYPE
    return info


@pytest.mark.fault(
    "Archives and checkpoints",
    "an archive with .., absolute paths, links that lead out, or devices",
    "refused; nothing of it is left",
)
@pytest.mark.parametrize(
    "member",
    [
        ("../outside.txt", b"x"),
        ("Images/../../outside.txt", b"x"),
        ("/tmp/outside.txt", b"x"),
        link("Images/link", "../../outside"),
        link("Images/link", "/etc"),
        link("Images/link", "n1_1.jpg"),
        link("Images/hard", "Images/n1_1.jpg", tarfile.LNKTYPE),
        device("Images/device"),
    ],
    ids=["parent", "inner-parent", "absolute", "link-out", "link-absolute", "link-inside", "hard-link", "device"],
)
def test_malicious_members_leave_nothing(tmp_path: Path, member: tarfile.TarInfo | tuple[str, bytes]) -> None:
    root = tmp_path / "deep" / "root"
    root.mkdir(parents=True)
    (root / "images.tar").write_bytes(tar_bytes(("Images/n1_1.jpg", b"first"), member))
    with pytest.raises(DatasetError, match=r"images\.tar: cannot be unpacked"):
        unpack_archive(root / "images.tar", root / "Images", progress=False)
    assert names(root) == ["images.tar"]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["images.tar"]


@pytest.mark.fault(
    "Archives and checkpoints", "an archive that is damaged or cut off", "one line; nothing of it is left"
)
@pytest.mark.parametrize("body", [b"", b"not an archive" * 100, BODY[:60_000]], ids=["empty", "other", "truncated"])
def test_broken_archives_leave_nothing(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "images.tar").write_bytes(body)
    with pytest.raises(DatasetError, match=r"images\.tar: cannot be unpacked"):
        unpack_archive(tmp_path / "images.tar", tmp_path / "Images", progress=False)
    assert names(tmp_path) == ["images.tar"]


def test_an_archive_without_a_top_folder_becomes_the_target(tmp_path: Path) -> None:
    (tmp_path / "lists.tar").write_bytes(tar_bytes(("train_list.mat", b"train"), ("test_list.mat", b"test")))
    unpack_archive(tmp_path / "lists.tar", tmp_path / "lists", progress=False)
    assert names(tmp_path / "lists") == ["test_list.mat", "train_list.mat"]
    assert names(tmp_path) == ["lists", "lists.tar"]


def test_python_without_the_data_filter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(DatasetError, match=r"expected 3\.10\.12, 3\.11\.4, 3\.12 or newer"):
        unpack_archive(tmp_path / "images.tar", tmp_path / "Images")
