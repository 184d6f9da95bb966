"""Generated datasets in the layouts of known ones, for when there is none at hand: real files, invented animals."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import PIL

from dogs_accel.datasets.cartoon import MAX_SIDE_PX
from dogs_accel.datasets.dataset import DatasetError
from dogs_accel.datasets.facts import DatasetFacts
from dogs_accel.datasets.synthetic.layouts import LAYOUTS_OF_GENERATED, Content, Layout, Place
from dogs_accel.datasets.synthetic.pictures import MIN_SIDE_PX, GeneratedPicture, draw_all, random_kinds, random_size
from dogs_accel.runtime.arguments import did_you_mean
from dogs_accel.runtime.files import replacing_folder
from pipelines.progress import progress_bar

SYNTHETIC_NOTICE = (
    "These are generated pictures of invented animals, not dogs: no result on them says anything about real photos."
)
MARKER = "synthetic.json"
FULL_SIZE_PX = (160, 500)
"""Long sides that give about the sizes of the real photos: 442 x 386 px on average, most of them 500 px long."""
VERSION = 1
_FIRST_LAYOUT = "stanford-dogs"
"""Which sets had before there were others; their markers do not name it."""
_DEEPEST = 2
"""Folders of a generated set below its own that may be opened by themselves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parameters:
    """All that the content of a set depends on."""

    num_classes: int
    train_per_class: int
    test_per_class: int
    seed: int
    size_px: tuple[int, int]
    layout: str

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS_OF_GENERATED:
            near = did_you_mean(self.layout, LAYOUTS_OF_GENERATED)
            raise ValueError(f"layout: got {self.layout!r}, expected one of {', '.join(LAYOUTS_OF_GENERATED)}{near}")
        _check_range("num_classes", self.num_classes, *self.on_disk.classes)
        _check_range("train_per_class", self.train_per_class, 1, 4000)
        _check_range("test_per_class", self.test_per_class, 1, 4000)
        _check_range("seed", self.seed, 0, 2**32 - 1)
        if len(self.size_px) != 2 or not MIN_SIDE_PX <= self.size_px[0] <= self.size_px[1] <= MAX_SIDE_PX:
            raise ValueError(
                f"size_px: got {self.size_px}, expected (min, max) with {MIN_SIDE_PX} <= min <= max <= {MAX_SIDE_PX}"
            )
        side_px = self.on_disk.side_px
        if side_px is not None and self.size_px != (side_px, side_px):
            raise ValueError(f"size_px: got {self.size_px}, expected {(side_px, side_px)} of {self.on_disk.title}")

    @property
    def on_disk(self) -> Layout:
        return LAYOUTS_OF_GENERATED[self.layout]

    @property
    def notice(self) -> str:
        return SYNTHETIC_NOTICE if self.layout == _FIRST_LAYOUT else _notice(self.on_disk.title)

    def as_marker(self) -> dict[str, object]:
        marker = {**asdict(self), "size_px": list(self.size_px)}
        if self.layout == _FIRST_LAYOUT:
            del marker["layout"]
        return marker


def write_synthetic(
    root: str | os.PathLike[str],
    *,
    num_classes: int = 12,
    train_per_class: int = 40,
    test_per_class: int = 20,
    seed: int = 0,
    size_px: tuple[int, int] = (160, 320),
    layout: str = _FIRST_LAYOUT,
    num_workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write a dataset of invented breeds that `open_dataset` reads like a known one, and give its folder.

    layout: stanford-dogs, oxford-iiit-pet, caltech-256 (the last class is clutter), cifar-10 (pickled batches, of 32
    px), inaturalist-12k or cats-and-dogs. Files, boxes and lists lie as the official archives unpack. Where the
    publisher has no test part, each class has the images of both. `size_px` is the range of the long side, most images
    having its upper end. About 2 % of the images are grayscale; where there are enough, one is a PNG called .jpg (the
    real set has one too) and two are stored on their side with an EXIF orientation. The same parameters give the
    same bytes, however many processes draw (with one version of Pillow and NumPy).

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
        layout=layout,
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


def is_part_of_synthetic(root: str | os.PathLike[str]) -> bool:
    """Say whether a folder was made by `write_synthetic`, or is one of the folders in such a one."""
    folder = Path(root).expanduser().resolve()
    return any(is_synthetic(each) for each in (folder, *folder.parents[:_DEEPEST]))


def generated_facts(facts: DatasetFacts, layout: str) -> DatasetFacts:
    """Return what is said of a dataset whose pictures were generated: what it is like, and that it is not it."""
    known = LAYOUTS_OF_GENERATED.get(layout)
    title = facts.title if known is None else known.title
    return replace(
        facts,
        name=f"synthetic-{facts.name if known is None else layout}",
        title=f"generated pictures in place of {title}",
        layout=f"generated pictures: {facts.layout}",
        notice=_notice(title),
        notice_title="Generated pictures",
        published=None,
    )


def _notice(title: str) -> str:
    return (
        f"These are generated pictures of invented animals, not those of {title}: no result on them says anything "
        "about real photos."
    )


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
    files = [picture.path for picture in pictures]
    files += [None if picture.annotation is None else picture.annotation.path for picture in pictures]
    for folder in dict.fromkeys(file.parent for file in files if file is not None):
        folder.mkdir(parents=True)
    arrays = []
    with progress_bar(len(pictures), "drawing", shown=progress) as bar:
        for array in draw_all(pictures, num_workers):
            arrays.append(array)
            bar.update()
    parameters.on_disk.write_lists(
        Content(
            root=root, pictures=pictures, arrays=arrays, num_classes=parameters.num_classes,
            train_per_class=parameters.train_per_class,
        )
    )  # fmt: skip
    (root / "README.txt").write_text(_readme(parameters))
    marker = {
        "notice": parameters.notice,
        "version": VERSION,
        "parameters": parameters.as_marker(),
        "pillow": PIL.__version__,
        "numpy": np.__version__,
    }
    (root / MARKER).write_text(json.dumps(marker, indent=2) + "\n")


def _readme(parameters: _Parameters) -> str:
    return (
        f"{parameters.notice}\n\n"
        f"The folder has the layout of {parameters.on_disk.title}, so that everything that reads that dataset reads "
        "this one.\n"
        f"Every file follows from these parameters: {json.dumps(parameters.as_marker())}\n"
    )


def _plan(root: Path, parameters: _Parameters) -> list[GeneratedPicture]:
    """Everything that is random about the set as a whole; what is in a picture follows from the picture's seed."""
    rng = np.random.default_rng(parameters.seed)
    per_class = parameters.train_per_class + parameters.test_per_class
    kinds = iter(random_kinds(parameters.num_classes * per_class, rng))
    pictures = []
    for label, breeds in enumerate(parameters.on_disk.breeds(parameters.num_classes)):
        numbers = rng.choice(np.arange(1, 2 * per_class + 1), per_class, replace=False)
        for position, number in enumerate(numbers.tolist()):
            breed = breeds[position % len(breeds)]
            place = Place(
                root=root,
                label=label,
                num_classes=parameters.num_classes,
                breed=breed,
                position=position,
                number=number,
                is_training=position < parameters.train_per_class,
            )
            path, annotation = parameters.on_disk.put(place)
            pictures.append(
                GeneratedPicture(
                    path=path,
                    label=label,
                    position=position,
                    breed=breed,
                    seed=(parameters.seed, label, position),
                    size_px=_size_px(parameters, rng),
                    kind=next(kinds),
                    quality=int(rng.integers(75, 96)),
                    annotation=annotation,
                )
            )
    return pictures


def _size_px(parameters: _Parameters, rng: np.random.Generator) -> tuple[int, int]:
    side_px = parameters.on_disk.side_px
    return random_size(parameters.size_px, rng) if side_px is None else (side_px, side_px)
