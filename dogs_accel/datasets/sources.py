"""Where known datasets are published, and fetching them: resumed, verified, unpacked."""

from __future__ import annotations

import lzma
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dogs_accel.datasets.download import MOST_MEMBERS, DownloadError, download, fetch
from dogs_accel.runtime.arguments import did_you_mean
from dogs_accel.runtime.files import UnwritableError, is_disk_full, md5, replacing_folder
from pipelines.decoding.contents import require_regular


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """An archive of a dataset: where it is, and the folder that it unpacks to."""

    url: str
    md5: str | None
    """As the publisher or torchvision has it; None where nobody does."""
    inside: str
    """The folder in the archive that is the dataset's."""
    folder: str
    """Where it goes, below the folder that the user names."""

    @property
    def file_name(self) -> str:
        """What the archive is called."""
        return self.url.rpartition("/")[2]


_PETS = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/"
SOURCES: dict[str, tuple[Source, ...]] = {
    "oxford-iiit-pet": (
        Source(
            url=f"{_PETS}images.tar.gz", md5="5c4f3ee8e5d25df40f4fd59a7f44e54c", inside="images",
            folder="oxford-iiit-pet/images",
        ),
        Source(
            url=f"{_PETS}annotations.tar.gz", md5="95a8c909bbe2e81eed6a22bccdf3f68f", inside="annotations",
            folder="oxford-iiit-pet/annotations",
        ),
    ),
    "caltech-256": (
        Source(
            url="https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar",
            md5="67b4f42ca05d46448c6bb8ecd2220f6d", inside="256_ObjectCategories",
            folder="caltech256/256_ObjectCategories",
        ),
    ),
    "cifar-10": (
        Source(
            url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", md5="c58f30108f718f92721af3b95e74349a",
            inside="cifar-10-batches-py", folder="cifar-10-batches-py",
        ),
    ),
    "inaturalist-12k": (
        Source(
            url="https://storage.googleapis.com/wandb_datasets/nature_12K.zip", md5=None, inside="inaturalist_12K",
            folder="inaturalist_12K",
        ),
    ),
}  # fmt: skip
"""The archives of each dataset but Stanford Dogs; checksums are those that torchvision has."""
_UNREADABLE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError, RuntimeError,
)  # fmt: skip
"""What the readers of archives raise for one that is damaged, encrypted or of another kind, beside errors of files."""
_BY_HAND = {
    "cats-and-dogs": (
        "Kaggle gives it to who has an account: https://www.kaggle.com/competitions/dogs-vs-cats/data; "
        "unpack its train.zip in the folder, so that it has train/cat.0.jpg"
    ),
}
DOWNLOADS = ("stanford-dogs", *SOURCES, *_BY_HAND)
"""Names that `download_dataset` knows."""


def download_dataset(name: str, root: str | os.PathLike[str], *, progress: bool = True) -> Iterator[str]:
    """Fetch a dataset into a folder, verify and unpack it; gives what was done for each archive, in words.

    What is unpacked already is left alone, an archive that is there is verified and not fetched again, and a broken
    download goes on from its .part file. Raises ValueError for an unknown name, and DownloadError where an archive
    cannot be had, is not the published one, or cannot be unpacked.
    """
    if name in _BY_HAND:
        raise DownloadError(f"{name}: {_BY_HAND[name]}")
    if name not in DOWNLOADS:
        raise ValueError(
            f"dataset: got {name!r}, expected one of {', '.join(DOWNLOADS)}{did_you_mean(name, DOWNLOADS)}"
        )
    if name not in SOURCES:
        yield from download(root, progress=progress).values()
        return
    folder = Path(root).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for source in SOURCES[name]:
        yield _provide(source, folder, progress)


def _provide(source: Source, root: Path, progress: bool) -> str:
    target, path = root / source.folder, root / source.file_name
    if target.is_dir():
        return f"{target} is there already"
    if target.exists() or target.is_symlink():
        raise DownloadError(f"{target}: got what is no folder, expected none or the folder of the dataset; remove it")
    done = "verified"
    if path.exists():
        require_regular(path)
    else:
        part = path.with_name(path.name + ".part")
        fetch(source.url, part, size_bytes=None, called=source.file_name, progress=progress)
        part.replace(path)
        done = "downloaded, verified"
    if source.md5 is None:
        done = done.replace("verified", "not verified, since its publisher gives no checksum")
    elif (digest := md5(path)) != source.md5:
        raise DownloadError(f"{path}: got md5 {digest}, expected {source.md5}; delete it to fetch it again")
    _unpack(path, source.inside, target)
    return f"{path} {done} and unpacked to {target}"


def _unpack(path: Path, inside: str, target: Path) -> None:
    """Unpack an archive so that `target`, a folder in it, appears at once and complete."""
    if not hasattr(tarfile, "data_filter"):
        raise DownloadError("Python is too old to unpack archives safely: expected 3.10.12, 3.11.4, 3.12 or newer")
    try:
        with replacing_folder(target) as content:
            unpacked = content.with_name(f"{content.name}-unpacked")
            unpacked.mkdir()
            if path.suffix == ".zip":
                with zipfile.ZipFile(path) as archive:
                    _check_members(archive, shutil.disk_usage(unpacked).free)
                    archive.extractall(unpacked)  # which leaves out what leads out of the folder
            else:
                shutil.unpack_archive(path, unpacked, filter="data")
            if not (unpacked / inside).is_dir():
                raise DownloadError(f"{path}: got no folder {inside} in it, expected it")
            (unpacked / inside).rename(content)
    except (UnwritableError, DownloadError):
        raise
    except (*_UNREADABLE, OSError) as error:
        if is_disk_full(error):
            raise
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error).partition("\n")[0]
        raise DownloadError(f"{path}: cannot be unpacked: {reason}; delete it to fetch it again") from error


def _check_members(archive: zipfile.ZipFile, free_bytes: int) -> None:
    """Raise ValueError for an archive that a disk has no room for: none of its files gets larger than it says."""
    members = archive.infolist()
    if len(members) > MOST_MEMBERS:
        raise ValueError(f"it has more than {MOST_MEMBERS:,} members")
    if (size := sum(member.file_size for member in members)) > free_bytes:
        raise ValueError(f"its files have {size:,} bytes, and there is room for {free_bytes:,}")
