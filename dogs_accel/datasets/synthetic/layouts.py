"""Where a generated set puts its pictures, and the lists beside them: as the archives of known datasets unpack."""

from __future__ import annotations

import io
import itertools
import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dogs_accel.datasets.cartoon import MAX_BREEDS, Breed, make_breeds
from dogs_accel.datasets.layouts.caltech256 import FOLDER as CATEGORIES_FOLDER
from dogs_accel.datasets.layouts.cifar10 import BATCHES_FOLDER
from dogs_accel.datasets.layouts.cifar10 import CLASS_NAMES as CIFAR_NAMES
from dogs_accel.datasets.layouts.inaturalist import TAXA
from dogs_accel.datasets.synthetic.pictures import Annotation, GeneratedPicture

_CLUTTER = "257.clutter"
_CATS_AND_DOGS = ("cat", "dog")
_BREEDS_OF_EACH = 4
"""Of the two kinds of cats and dogs."""
_NUM_BATCHES = 5
_CATS_SHARE = 1 / 3
"""Of the classes of Oxford-IIIT Pet; 12 of its 37."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What is to be written: the pictures in their order and, where they have no files, the arrays."""

    root: Path
    pictures: Sequence[GeneratedPicture]
    arrays: Sequence[np.ndarray | None]
    num_classes: int
    train_per_class: int

    def parts(self) -> tuple[list[GeneratedPicture], list[GeneratedPicture]]:
        """Pictures for training and for test."""
        train = [picture for picture in self.pictures if picture.position < self.train_per_class]
        return train, [picture for picture in self.pictures if picture.position >= self.train_per_class]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A picture before it has a file: which one of which class it is."""

    root: Path
    label: int
    num_classes: int
    breed: Breed | None
    position: int
    number: int
    """Drawn, unlike those of the others of its class."""
    is_training: bool


def one_breed_each(num_classes: int) -> list[list[Breed | None]]:
    """Give each class a breed of its own."""
    return [[breed] for breed in make_breeds(num_classes)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How the pictures of a generated set lie on disk."""

    title: str
    """What is called so."""
    classes: tuple[int, int]
    """The fewest and the most that it can have."""
    put: Callable[[Place], tuple[Path | None, Annotation | None]]
    """The file of a picture, and its annotation if it has one."""
    write_lists: Callable[[Content], None] = lambda content: None
    breeds: Callable[[int], list[list[Breed | None]]] = one_breed_each
    """Those of each class, of which its pictures take turns; None is clutter."""
    side_px: int | None = None
    """Of every picture, where it is the same."""


# --- Stanford Dogs ----------------------------------------------------------------------------------------------


def _put_stanford(place: Place) -> tuple[Path, Annotation]:
    assert place.breed is not None
    wnid = f"n{90_000_001 + place.label}"
    folder, image_id = f"{wnid}-{place.breed.name}", f"{wnid}_{place.number}"
    return place.root / "Images" / folder / f"{image_id}.jpg", Annotation(
        path=place.root / "Annotation" / folder / image_id,
        folder=wnid[1:],
        filename=image_id,
        object_name=place.breed.name,
    )


def _write_stanford_lists(content: Content) -> None:
    folder = content.root / "lists"
    folder.mkdir()
    train, test = content.parts()
    by_name = sorted(content.pictures, key=lambda picture: _folder_and_stem(picture))
    for name, listed in (("train_list", train), ("test_list", test), ("file_list", by_name)):
        (folder / f"{name}.mat").write_bytes(_list_bytes(listed))


def _folder_and_stem(picture: GeneratedPicture) -> tuple[str, str]:
    assert picture.path is not None
    return picture.path.parent.name, picture.path.stem


def _list_bytes(pictures: Sequence[GeneratedPicture]) -> bytes:
    """A .mat list as the official ones are: columns of cells file_list and annotation_list, labels 1..K as uint8."""
    # Imported here: it takes a while, and the processes that only draw don't need it.
    from scipy.io import savemat

    def cells(texts: list[str]) -> np.ndarray:
        column = np.empty((len(texts), 1), dtype=object)
        column[:, 0] = texts
        return column

    names = ["/".join(_folder_and_stem(picture)) for picture in pictures]
    labels = np.array([[picture.label + 1] for picture in pictures], dtype=np.uint8)
    buffer = io.BytesIO()
    fields = {"file_list": cells([f"{name}.jpg" for name in names]), "annotation_list": cells(names), "labels": labels}
    savemat(buffer, fields)
    # The first 116 bytes are a free text in which SciPy writes the time; without it a seed gives the same bytes.
    return b"MATLAB 5.0 MAT-file, generated, not dogs".ljust(116) + buffer.getvalue()[116:]


# --- Oxford-IIIT Pet --------------------------------------------------------------------------------------------


def _is_cat(label: int, num_classes: int) -> bool:
    return label < math.ceil(num_classes * _CATS_SHARE)


def _put_pets(place: Place) -> tuple[Path, Annotation | None]:
    assert place.breed is not None
    is_cat = _is_cat(place.label, place.num_classes)
    # Cats have a capital letter, as the publisher has it.
    name = f"{place.breed.name if is_cat else place.breed.name.lower()}_{place.position + 1}"
    file = f"{name}.jpg"
    annotation = Annotation(
        path=place.root / "annotations" / "xmls" / f"{name}.xml",
        folder="OXIIIT",
        filename=file,
        object_name=_CATS_AND_DOGS[not is_cat],
    )
    return place.root / "images" / file, annotation if place.is_training else None


def _write_pets_lists(content: Content) -> None:
    train, test = content.parts()
    header = "#Image CLASS-ID SPECIES BREED ID\n#SPECIES: 1:Cat 2:Dog\n"
    for name, listed in (("trainval", train), ("test", test), ("list", content.pictures)):
        lines = [_pets_line(picture, content.num_classes) for picture in listed]
        text = header * (name == "list") + "".join(lines)
        (content.root / "annotations" / f"{name}.txt").write_text(text)


def _pets_line(picture: GeneratedPicture, num_classes: int) -> str:
    num_cats = sum(_is_cat(label, num_classes) for label in range(num_classes))
    is_cat = picture.label < num_cats
    number = picture.label + 1 if is_cat else picture.label + 1 - num_cats
    return f"{_folder_and_stem(picture)[1]} {picture.label + 1} {1 if is_cat else 2} {number}\n"


# --- the others -------------------------------------------------------------------------------------------------


def _caltech_breeds(num_classes: int) -> list[list[Breed | None]]:
    return [*one_breed_each(num_classes - 1), [None]]


def _put_caltech(place: Place) -> tuple[Path, None]:
    name = _CLUTTER
    if place.breed is not None:
        name = f"{place.label + 1:03}.{place.breed.name.lower().replace('_', '-')}"
    return place.root / CATEGORIES_FOLDER / name / f"{name[:3]}_{place.position + 1:04}.jpg", None


def _put_cifar(place: Place) -> tuple[None, None]:
    return None, None


def _write_cifar_batches(content: Content) -> None:
    """Pickle the arrays as the publisher did: bytes as keys, rows of red, green and blue planes, mixed classes."""
    folder = content.root / BATCHES_FOLDER
    folder.mkdir(parents=True)
    order = np.random.default_rng(len(content.pictures)).permutation(len(content.pictures)).tolist()
    is_training = [picture.position < content.train_per_class for picture in content.pictures]
    train, test = ([at for at in order if is_training[at] == wanted] for wanted in (True, False))
    share = math.ceil(len(train) / _NUM_BATCHES)
    parts = [train[start : start + share] for start in range(0, len(train), share)]
    for name, own in [*((f"data_batch_{number}", part) for number, part in enumerate(parts, 1)), ("test_batch", test)]:
        rows = [np.asarray(content.arrays[at]).transpose(2, 0, 1).reshape(-1) for at in own]
        labels = [content.pictures[at].label for at in own]
        batch = {
            b"batch_label": f"generated, {name}".encode(),
            b"labels": labels,
            b"data": np.stack(rows),
            b"filenames": [
                f"{CIFAR_NAMES[label]}_s_{content.pictures[at].position + 1:06}.png".encode()
                for at, label in zip(own, labels, strict=True)
            ],
        }
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    names = {b"label_names": [name.encode() for name in CIFAR_NAMES], b"num_vis": content.arrays[0].size}  # type: ignore[union-attr]
    (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol=2))


def _breeds_of_two(num_classes: int) -> list[list[Breed | None]]:
    breeds = iter(make_breeds(num_classes * _BREEDS_OF_EACH))
    return [list(itertools.islice(breeds, _BREEDS_OF_EACH)) for _ in range(num_classes)]


def _put_cats_and_dogs(place: Place) -> tuple[Path, None]:
    return place.root / "train" / f"{_CATS_AND_DOGS[place.label]}.{place.position}.jpg", None


def _put_inaturalist(place: Place) -> tuple[Path, None]:
    part = "train" if place.is_training else "val"
    return place.root / "inaturalist_12K" / part / TAXA[place.label] / f"{place.label:02}{place.position:06}.jpg", None


LAYOUTS_OF_GENERATED: dict[str, Layout] = {
    "stanford-dogs": Layout(
        title="Stanford Dogs", classes=(2, MAX_BREEDS), put=_put_stanford, write_lists=_write_stanford_lists
    ),
    "oxford-iiit-pet": Layout(
        title="Oxford-IIIT Pet", classes=(2, MAX_BREEDS), put=_put_pets, write_lists=_write_pets_lists
    ),
    "caltech-256": Layout(title="Caltech-256", classes=(3, MAX_BREEDS), put=_put_caltech, breeds=_caltech_breeds),
    "cifar-10": Layout(
        title="CIFAR-10", classes=(len(CIFAR_NAMES),) * 2, put=_put_cifar, write_lists=_write_cifar_batches, side_px=32
    ),
    "inaturalist-12k": Layout(title="iNaturalist-12K", classes=(len(TAXA),) * 2, put=_put_inaturalist),
    "cats-and-dogs": Layout(
        title="cats and dogs", classes=(len(_CATS_AND_DOGS),) * 2, put=_put_cats_and_dogs, breeds=_breeds_of_two
    ),
}
"""By the names that `open_dataset` has for them."""
