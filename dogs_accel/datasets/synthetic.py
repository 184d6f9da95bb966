"""A generated dataset in the Stanford Dogs layout, for when there is none at hand: real files, invented animals."""

from __future__ import annotations

import io
import itertools
import json
import math
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import PIL
from PIL import ExifTags, Image

from dogs_accel.datasets.cartoon import MAX_BREEDS, MAX_SIDE_PX, Breed, draw_animal, make_breeds
from dogs_accel.datasets.dataset import Box, DatasetError
from dogs_accel.runtime.files import replacing_folder
from pipelines.cores import available_cores
from pipelines.progress import progress_bar

SYNTHETIC_NOTICE = (
    "These are generated pictures of invented animals, not dogs: no result on them says anything about real photos."
)
MARKER = "synthetic.json"
FULL_SIZE_PX = (160, 500)
"""Long sides that give about the sizes of the real photos: 442 x 386 px on average, most of them 500 px long."""
VERSION = 1
_GRAY_SHARE = 0.02
_MIN_SIDE_PX = 32
_IMAGES_PER_WORKER = 150


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parameters:
    """All that the content of a set depends on."""

    num_classes: int
    train_per_class: int
    test_per_class: int
    seed: int
    size_px: tuple[int, int]

    def __post_init__(self) -> None:
        _check_range("num_classes", self.num_classes, 2, MAX_BREEDS)
        _check_range("train_per_class", self.train_per_class, 1, 4000)
        _check_range("test_per_class", self.test_per_class, 1, 4000)
        _check_range("seed", self.seed, 0, 2**32 - 1)
        if len(self.size_px) != 2 or not _MIN_SIDE_PX <= self.size_px[0] <= self.size_px[1] <= MAX_SIDE_PX:
            raise ValueError(
                f"size_px: got {self.size_px}, expected (min, max) with {_MIN_SIDE_PX} <= min <= max <= {MAX_SIDE_PX}"
            )

    def as_marker(self) -> dict[str, object]:
        return {**asdict(self), "size_px": list(self.size_px)}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Picture:
    """One image to be written: the file is Images/folder/image_id.jpg in `root`."""

    root: Path
    breed: Breed
    folder: str
    image_id: str
    seed: tuple[int, int, int]
    size_px: tuple[int, int]
    kind: str
    quality: int


def write_synthetic(
    root: str | os.PathLike[str],
    *,
    num_classes: int = 12,
    train_per_class: int = 40,
    test_per_class: int = 20,
    seed: int = 0,
    size_px: tuple[int, int] = (160, 320),
    num_workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write a dataset of invented breeds that `open_dataset` reads like Stanford Dogs, and give its folder.

    Images, Annotation (one box each) and lists as the official archives unpack; `size_px` is the range of the long
    side, most images having its upper end. About 2 % of the images are grayscale; where there are enough, one is a
    PNG called .jpg (the real set has one too) and two are stored on their side with an EXIF orientation. The same
    parameters give the same bytes, however many processes draw (with one version of Pillow and NumPy).

    A set that is there with the same parameters is left as it is. The folder appears when it is complete.
    `num_workers` None takes a process for each CPU core, fewer for small sets. Raises ValueError for a parameter out
    of range and DatasetError where `root` holds anything else, which is never overwritten.
    """
    parameters = _Parameters(
        num_classes=num_classes,
        train_per_class=train_per_class,
        test_per_class=test_per_class,
        seed=seed,
        size_px=(int(size_px[0]), int(size_px[1])) if len(size_px) == 2 else size_px,
    )
    folder = Path(root).expanduser().absolute()
    if _is_there(folder, parameters):
        return folder
    with replacing_folder(folder) as content:
        _write_content(content, parameters, num_workers, progress)
    # Another process may have written there meanwhile (one process per GPU, say): the same set will do.
    _is_there(folder, parameters)
    return folder


def is_synthetic(root: str | os.PathLike[str]) -> bool:
    """Say whether a dataset's folder was made by `write_synthetic`."""
    return (Path(root) / MARKER).is_file()


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name}: got {value}, expected an integer in {low}..{high}")


def _is_there(root: Path, parameters: _Parameters) -> bool:
    """Whether the same set is there; raises where something else is."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        marker = json.loads((root / MARKER).read_text())
    except (OSError, ValueError):
        raise DatasetError(f"{root}: holds something else, expected an empty or a new folder") from None
    expected = {"version": VERSION, "parameters": parameters.as_marker()}
    got = {key: marker.get(key) for key in expected} if isinstance(marker, dict) else marker
    if got != expected:
        raise DatasetError(
            f"{root}: holds another synthetic set ({got}), expected {expected}; delete it or choose another folder"
        )
    return True


def _write_content(root: Path, parameters: _Parameters, num_workers: int | None, progress: bool) -> None:
    pictures = _plan(root, parameters)
    for folder in dict.fromkeys(picture.folder for picture in pictures):
        (root / "Images" / folder).mkdir(parents=True)
        (root / "Annotation" / folder).mkdir(parents=True)
    with progress_bar(len(pictures), "drawing", shown=progress) as bar:
        for _ in _draw_all(pictures, num_workers):
            bar.update()
    _write_lists(root / "lists", pictures, parameters)
    (root / "README.txt").write_text(_readme(parameters))
    marker = {
        "notice": SYNTHETIC_NOTICE,
        "version": VERSION,
        "parameters": parameters.as_marker(),
        "pillow": PIL.__version__,
        "numpy": np.__version__,
    }
    (root / MARKER).write_text(json.dumps(marker, indent=2) + "\n")


def _readme(parameters: _Parameters) -> str:
    return (
        f"{SYNTHETIC_NOTICE}\n\n"
        "The folder has the layout of Stanford Dogs, so that everything that reads that dataset reads this one.\n"
        f"Every file follows from these parameters: {json.dumps(parameters.as_marker())}\n"
    )


# --- what is drawn ----------------------------------------------------------------------------------------------


def _plan(root: Path, parameters: _Parameters) -> list[_Picture]:
    """Everything that is random about the set as a whole; what is in a picture follows from the picture's seed."""
    rng = np.random.default_rng(parameters.seed)
    per_class = parameters.train_per_class + parameters.test_per_class
    kinds = iter(_kinds(parameters.num_classes * per_class, rng))
    pictures = []
    for label, breed in enumerate(make_breeds(parameters.num_classes)):
        wnid = f"n{90_000_001 + label}"
        numbers = rng.choice(np.arange(1, 2 * per_class + 1), per_class, replace=False)
        for position, number in enumerate(numbers.tolist()):
            pictures.append(
                _Picture(
                    root=root,
                    breed=breed,
                    folder=f"{wnid}-{breed.name}",
                    image_id=f"{wnid}_{number}",
                    seed=(parameters.seed, label, position),
                    size_px=_random_size(parameters.size_px, rng),
                    kind=next(kinds),
                    quality=int(rng.integers(75, 96)),
                )
            )
    return pictures


def _kinds(num_images: int, rng: np.random.Generator) -> list[str]:
    special = ["png", "turned_left", "turned_right"] if num_images >= 24 else []
    special += ["gray"] * math.ceil(num_images * _GRAY_SHARE)
    kinds = np.full(num_images, "colour", dtype=object)
    kinds[rng.choice(num_images, len(special), replace=False)] = special
    return kinds.tolist()


def _random_size(long_side_px: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """(width, height): mostly landscape, as photos of dogs are, the long side mostly at its upper end."""
    long = long_side_px[1] if rng.random() < 0.8 else int(rng.integers(long_side_px[0], long_side_px[1] + 1))
    short = max(_MIN_SIDE_PX, round(long / float(np.clip(rng.normal(1.35, 0.14), 1.0, 2.0))))
    return (long, short) if rng.random() < 0.7 else (short, long)


# --- files ------------------------------------------------------------------------------------------------------


def _draw_all(pictures: list[_Picture], num_workers: int | None) -> Iterator[None]:
    if num_workers is None:
        num_workers = min(available_cores(), len(pictures) // _IMAGES_PER_WORKER)
    if num_workers <= 1:
        yield from map(_write_picture, pictures)
        return
    # Started afresh, not forked: a fork of a process with threads, or with a GPU in use, can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
        yield from pool.map(_write_picture, pictures, chunksize=16)


def _write_picture(picture: _Picture) -> None:
    rng = np.random.default_rng(picture.seed)
    turned = picture.kind.startswith("turned")
    size_px = (picture.size_px[1], picture.size_px[0]) if turned else picture.size_px
    image, box = draw_animal(picture.breed, size_px, rng)
    path = picture.root / "Images" / picture.folder / f"{picture.image_id}.jpg"
    if picture.kind == "png":
        image.save(path, format="PNG")
    elif turned:
        image, box, exif = _turn(image, box, picture.kind)
        image.save(path, format="JPEG", quality=picture.quality, exif=exif)
    else:
        image = image.convert("L") if picture.kind == "gray" else image
        image.save(path, format="JPEG", quality=picture.quality)
    annotation = _annotation(picture, image.size, box)
    (picture.root / "Annotation" / picture.folder / picture.image_id).write_text(annotation)


def _turn(image: Image.Image, box: Box, kind: str) -> tuple[Image.Image, Box, Image.Exif]:
    """Lay a picture and its box on the side, with the EXIF orientation that puts it upright again."""
    xmin, ymin, xmax, ymax = box
    exif = Image.Exif()
    if kind == "turned_left":
        exif[ExifTags.Base.Orientation] = 6
        turned = (ymin, image.width - xmax, ymax, image.width - xmin)
        return image.transpose(Image.Transpose.ROTATE_90), turned, exif
    exif[ExifTags.Base.Orientation] = 8
    turned = (image.height - ymax, xmin, image.height - ymin, xmax)
    return image.transpose(Image.Transpose.ROTATE_270), turned, exif


def _annotation(picture: _Picture, size_px: tuple[int, int], box: Box) -> str:
    """Pascal VOC XML with the fields of the official annotations."""
    corners = "".join(
        f"\t\t\t<{side}>{value}</{side}>\n" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return (
        "<annotation>\n"
        f"\t<folder>{picture.folder[1:].split('-')[0]}</folder>\n"
        f"\t<filename>{picture.image_id}</filename>\n"
        "\t<source>\n\t\t<database>generated, not dogs</database>\n\t</source>\n"
        f"\t<size>\n\t\t<width>{size_px[0]}</width>\n\t\t<height>{size_px[1]}</height>\n\t\t<depth>3</depth>\n\t</size>\n"
        "\t<segment>0</segment>\n"
        "\t<object>\n"
        f"\t\t<name>{escape(picture.breed.name)}</name>\n"
        "\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n\t\t<difficult>0</difficult>\n"
        f"\t\t<bndbox>\n{corners}\t\t</bndbox>\n"
        "\t</object>\n"
        "</annotation>\n"
    )


def _write_lists(folder: Path, pictures: list[_Picture], parameters: _Parameters) -> None:
    folder.mkdir()
    train, test = [], []
    for _, of_class in itertools.groupby(pictures, key=lambda picture: picture.folder):
        ordered = list(of_class)
        train += ordered[: parameters.train_per_class]
        test += ordered[parameters.train_per_class :]
    by_name = sorted(pictures, key=lambda picture: (picture.folder, picture.image_id))
    for name, listed in (("train_list", train), ("test_list", test), ("file_list", by_name)):
        (folder / f"{name}.mat").write_bytes(_list_bytes(listed))


def _list_bytes(pictures: list[_Picture]) -> bytes:
    """A .mat list as the official ones are: columns of cells file_list and annotation_list, labels 1..K as uint8."""
    # Imported here: it takes a while, and the processes that only draw don't need it.
    from scipy.io import savemat

    def cells(texts: list[str]) -> np.ndarray:
        column = np.empty((len(texts), 1), dtype=object)
        column[:, 0] = texts
        return column

    names = [f"{picture.folder}/{picture.image_id}" for picture in pictures]
    labels = np.array([[picture.seed[1] + 1] for picture in pictures], dtype=np.uint8)
    buffer = io.BytesIO()
    fields = {"file_list": cells([f"{name}.jpg" for name in names]), "annotation_list": cells(names), "labels": labels}
    savemat(buffer, fields)
    # The first 116 bytes are a free text in which SciPy writes the time; without it a seed gives the same bytes.
    return b"MATLAB 5.0 MAT-file, generated, not dogs".ljust(116) + buffer.getvalue()[116:]
