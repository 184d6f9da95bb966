"""Known datasets from a server of the test's own, whose archives are small."""

import dataclasses
import errno
import hashlib
import io
import os
import shutil
import tarfile
import zipfile

import pytest

from dogs_accel import cli
from dogs_accel.datasets import LAYOUTS, open_dataset, sources
from dogs_accel.datasets.download import DownloadError
from dogs_accel.datasets.layouts.inaturalist import TAXA
from dogs_accel.datasets.sources import DOWNLOADS, SOURCES, download_dataset
from dogs_accel.runtime.files import FullDiskError
from tests.datasets.test_download import server  # noqa: F401  # a fixture

PETS = {
    "images": {"images/Bengal_1.jpg": b"1", "images/beagle_1.jpg": b"2"},
    "annotations": {
        "annotations/trainval.txt": b"Bengal_1 1 1 1\nbeagle_1 2 2 1\n", "annotations/test.txt": b"",
    },
}  # fmt: skip
TAXON_FILES = {f"inaturalist_12K/{part}/{name}/1.jpg": b"" for part in ("train", "val") for name in TAXA}


def tar_gz(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


PUBLISHED = dict(SOURCES)


def serve(server, monkeypatch, dataset, at, body, *, md5=True):  # noqa: F811
    """Have one archive of a dataset come from the server, alone."""
    source = PUBLISHED[dataset][at]
    digest = hashlib.md5(body).hexdigest() if md5 else source.md5
    served = dataclasses.replace(source, url=f"{server.url}{source.file_name}", md5=digest)
    monkeypatch.setitem(sources.SOURCES, dataset, (served,))
    server.body = body
    return served


def fetched(dataset, root):
    return list(download_dataset(dataset, root, progress=False))


def test_an_archive_is_fetched_verified_and_unpacked_once(tmp_path, server, monkeypatch):  # noqa: F811
    for at, part in enumerate(("images", "annotations")):
        serve(server, monkeypatch, "oxford-iiit-pet", at, tar_gz(PETS[part]))
        (said,) = fetched("oxford-iiit-pet", tmp_path)
        assert said == (
            f"{tmp_path}/{part}.tar.gz downloaded, verified and unpacked to {tmp_path}/oxford-iiit-pet/{part}"
        )
    assert fetched("oxford-iiit-pet", tmp_path) == [f"{tmp_path}/oxford-iiit-pet/annotations is there already"]
    (tmp_path / "oxford-iiit-pet" / "annotations" / "test.txt").write_text("Bengal_2 1 1 1")
    assert open_dataset(tmp_path / "oxford-iiit-pet", check_files=False).class_names == ["Bengal", "beagle"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "annotations.tar.gz", "images.tar.gz", "oxford-iiit-pet"
    ]  # fmt: skip
    assert len(server.ranges) == 2


def test_a_download_of_unknown_length_goes_on_where_it_stopped(tmp_path, server, monkeypatch):  # noqa: F811
    body = zipped(TAXON_FILES | {"noise": bytes(range(256)) * 40})
    serve(server, monkeypatch, "inaturalist-12k", 0, body, md5=False)
    server.cuts = [1_000, 0]
    with pytest.raises(DownloadError, match=r"run again to go on, or put nature_12K\.zip into"):
        fetched("inaturalist-12k", tmp_path)
    assert (tmp_path / "nature_12K.zip.part").stat().st_size == 1_000
    (said,) = fetched("inaturalist-12k", tmp_path)
    assert "not verified, since its publisher gives no checksum and unpacked to" in said
    assert server.ranges[-1] == "bytes=1000-"
    assert open_dataset(tmp_path).facts.name == "inaturalist-12k"


def test_a_part_that_is_whole_already_is_taken(tmp_path, server, monkeypatch):  # noqa: F811
    body = tar_gz(PETS["images"])
    serve(server, monkeypatch, "oxford-iiit-pet", 0, body)
    (tmp_path / "images.tar.gz.part").write_bytes(body)
    fetched("oxford-iiit-pet", tmp_path)
    assert (tmp_path / "oxford-iiit-pet" / "images" / "Bengal_1.jpg").read_bytes() == b"1"


@pytest.mark.fault(
    "Archives and checkpoints", "an archive of a known dataset that is another file", "refused by its checksum, by name"
)
def test_another_file_is_refused(tmp_path, server, monkeypatch):  # noqa: F811
    serve(server, monkeypatch, "cifar-10", 0, tar_gz({"x": b""}), md5=False)
    with pytest.raises(
        DownloadError, match=r"cifar-10-python\.tar\.gz: got md5 .{32}, expected c58f30108f718f92721af3"
    ):
        fetched("cifar-10", tmp_path)
    assert not (tmp_path / "cifar-10-batches-py").exists()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (tar_gz({"elsewhere/x": b""}), "got no folder cifar-10-batches-py in it, expected it"),
        (tar_gz({"../x": b""}), "cannot be unpacked: .*outside the destination"),
        (b"nothing", "cannot be unpacked: "),
        (tar_gz({"cifar-10-batches-py/x": bytes(9_999)})[:-20], "cannot be unpacked: "),
    ],
    # An archive has the time at which it was made, which processes that share the tests must not see in their names.
    ids=["another folder", "outside", "no archive", "cut off"],
)
def test_what_cannot_be_unpacked_is_one_line(tmp_path, server, monkeypatch, body, reason):  # noqa: F811
    serve(server, monkeypatch, "cifar-10", 0, body)
    with pytest.raises(DownloadError, match=reason) as error:
        fetched("cifar-10", tmp_path / "data")
    assert "\n" not in str(error.value)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cifar-10-python.tar.gz"]
    assert not (tmp_path / "x").exists()


def encrypted(body):
    """Say in both headers of a zip that what it has is encrypted."""
    buffer = bytearray(body)
    buffer[6] |= 1
    buffer[body.index(b"PK\1\2") + 8] |= 1
    return bytes(buffer)


@pytest.mark.fault(
    "Archives and checkpoints", "a zip that is encrypted, damaged, a bomb, or of too many members",
    "one line with the archive and why; a bomb is not unpacked",
)  # fmt: skip
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (encrypted(zipped({"inaturalist_12K/x": b"x"})), "cannot be unpacked: .* is encrypted"),
        (zipped({"inaturalist_12K/x": bytes(999)})[:-30], "cannot be unpacked: "),
        (zipped({"inaturalist_12K/x": bytes(999)}).replace(bytes(9), b"123456789"), "cannot be unpacked: .*CRC"),
        (zipped({f"inaturalist_12K/{n}": b"" for n in range(9)}), "it has more than 8 members"),
        (zipped({"inaturalist_12K/x": bytes(2_000)}), "its files have 2,000 bytes, and there is room for 1,999"),
    ],
)
def test_a_hostile_zip_is_one_line(tmp_path, server, monkeypatch, body, reason):  # noqa: F811
    monkeypatch.setattr(sources, "MOST_MEMBERS", 8)
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2_000, 1, 1_999))
    serve(server, monkeypatch, "inaturalist-12k", 0, body)
    with pytest.raises(DownloadError, match=reason) as error:
        fetched("inaturalist-12k", tmp_path)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["nature_12K.zip"]


def test_a_full_disk_is_not_the_fault_of_the_archive(tmp_path, server, monkeypatch):  # noqa: F811
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    serve(server, monkeypatch, "inaturalist-12k", 0, zipped({"inaturalist_12K/x": b"x"}))
    monkeypatch.setattr(zipfile.ZipFile, "extractall", full)
    with pytest.raises(FullDiskError, match=r"inaturalist_12K cannot be written: no space left on its disk$"):
        fetched("inaturalist-12k", tmp_path)


def test_the_help_names_what_can_be_fetched(capsys):
    with pytest.raises(SystemExit):
        cli.main(["download", "--help"])
    said = capsys.readouterr().out
    assert [name for name in DOWNLOADS if name not in said] == []


@pytest.mark.fault(
    "Archives and checkpoints", "a pipe or a folder where an archive goes, or a file where its folder goes",
    "one line with its path; nothing is waited for",
)  # fmt: skip
def test_what_is_no_file_is_no_archive(tmp_path):
    path = tmp_path / "nature_12K.zip"
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        fetched("inaturalist-12k", tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DownloadError, match=r"nature_12K\.zip: cannot be unpacked: Is a directory"):
        fetched("inaturalist-12k", tmp_path)
    (tmp_path / "inaturalist_12K").touch()
    with pytest.raises(DownloadError, match=r"inaturalist_12K: got what is no folder, expected none or the folder"):
        fetched("inaturalist-12k", tmp_path)


def test_what_needs_an_account_is_said(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["download", "--data", str(tmp_path), "--dataset", "cats-and-dogs"])
    assert stop.value.code in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert "cats-and-dogs: Kaggle gives it to who has an account: https://www.kaggle.com/" in line


def test_an_unknown_name_has_its_nearest(tmp_path):
    with pytest.raises(ValueError, match=r"^dataset: got 'cifar10', expected one of .* \(did you mean 'cifar-10'\?\)$"):
        fetched("cifar10", tmp_path)


def test_what_can_be_fetched_can_be_opened():
    assert set(DOWNLOADS) <= set(LAYOUTS)
