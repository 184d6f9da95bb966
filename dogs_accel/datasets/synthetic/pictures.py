"""The pictures of a generated set: what is random about them as a whole, and drawing and writing each."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import ExifTags, Image

from dogs_accel.datasets.cartoon import Breed, draw_animal, draw_scene
from dogs_accel.datasets.dataset import Box
from pipelines.cores import available_cores

MIN_SIDE_PX = 32
_GRAY_SHARE = 0.02
_IMAGES_PER_WORKER = 150


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """The box of one picture in Pascal VOC XML: where it is written, and what it names."""

    path: Path
    folder: str
    filename: str
    object_name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedPicture:
    """One image to be drawn."""

    path: Path | None
    """None is for no file of its own: it is an array of a batch."""
    label: int
    position: int
    """Among the pictures of its class, those for training first."""
    breed: Breed | None
    """None is clutter, without an animal."""
    seed: tuple[int, int, int]
    size_px: tuple[int, int]
    kind: str
    quality: int
    annotation: Annotation | None = None


def random_kinds(num_images: int, rng: np.random.Generator) -> list[str]:
    """Deal out what is unusual about some of the pictures."""
    special = ["png", "turned_left", "turned_right"] if num_images >= 24 else []
    special += ["gray"] * math.ceil(num_images * _GRAY_SHARE)
    kinds = np.full(num_images, "colour", dtype=object)
    kinds[rng.choice(num_images, len(special), replace=False)] = special
    return kinds.tolist()


def random_size(long_side_px: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """(width, height): mostly landscape, as photos of dogs are, the long side mostly at its upper end."""
    long = long_side_px[1] if rng.random() < 0.8 else int(rng.integers(long_side_px[0], long_side_px[1] + 1))
    short = max(MIN_SIDE_PX, round(long / float(np.clip(rng.normal(1.35, 0.14), 1.0, 2.0))))
    return (long, short) if rng.random() < 0.7 else (short, long)


def draw_all(pictures: Sequence[GeneratedPicture], num_workers: int | None) -> Iterator[np.ndarray | None]:
    """Draw and write every picture, in their order; gives (height, width, 3) uint8 of those without a file."""
    if num_workers is None:
        num_workers = min(available_cores(), len(pictures) // _IMAGES_PER_WORKER)
    if num_workers <= 1:
        yield from map(_draw, pictures)
        return
    # Started afresh, not forked: a fork of a process with threads, or with a GPU in use, can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
        yield from pool.map(_draw, pictures, chunksize=16)


def _draw(picture: GeneratedPicture) -> np.ndarray | None:
    rng = np.random.default_rng(picture.seed)
    if picture.path is None:
        # At twice the size, so that what is small is drawn and not left out.
        twice = (2 * picture.size_px[0], 2 * picture.size_px[1])
        image, _ = _scene(picture, twice, rng)
        return np.asarray(image.reduce(2))
    turned = picture.kind.startswith("turned")
    size_px = (picture.size_px[1], picture.size_px[0]) if turned else picture.size_px
    image, box = _scene(picture, size_px, rng)
    if picture.kind == "png":
        image.save(picture.path, format="PNG")
    elif turned:
        image, box, exif = _turn(image, box, picture.kind)
        image.save(picture.path, format="JPEG", quality=picture.quality, exif=exif)
    else:
        image = image.convert("L") if picture.kind == "gray" else image
        image.save(picture.path, format="JPEG", quality=picture.quality)
    if picture.annotation is not None:
        picture.annotation.path.write_text(_annotation_text(picture.annotation, image.size, box))
    return None


def _scene(picture: GeneratedPicture, size_px: tuple[int, int], rng: np.random.Generator) -> tuple[Image.Image, Box]:
    if picture.breed is None:
        return draw_scene(size_px, rng), (0, 0, *size_px)
    return draw_animal(picture.breed, size_px, rng)


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


def _annotation_text(annotation: Annotation, size_px: tuple[int, int], box: Box) -> str:
    """Pascal VOC XML with the fields of the official annotations."""
    corners = "".join(
        f"\t\t\t<{side}>{value}</{side}>\n" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return (
        "<annotation>\n"
        f"\t<folder>{annotation.folder}</folder>\n"
        f"\t<filename>{annotation.filename}</filename>\n"
        "\t<source>\n\t\t<database>generated, not dogs</database>\n\t</source>\n"
        f"\t<size>\n\t\t<width>{size_px[0]}</width>\n\t\t<height>{size_px[1]}</height>\n\t\t<depth>3</depth>\n\t</size>\n"
        "\t<segment>0</segment>\n"
        "\t<object>\n"
        f"\t\t<name>{escape(annotation.object_name)}</name>\n"
        "\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n\t\t<difficult>0</difficult>\n"
        f"\t\t<bndbox>\n{corners}\t\t</bndbox>\n"
        "\t</object>\n"
        "</annotation>\n"
    )
