"""What the classes of a dataset are called is data: the code that opens one dataset alone knows a word of its own."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OF_ONE_DATASET = {
    "dogs_accel/datasets/layouts/caltech256.py",
    "dogs_accel/datasets/layouts/cats_and_dogs.py",
    "dogs_accel/datasets/layouts/cifar10.py",
    "dogs_accel/datasets/layouts/oxford_pets.py",
    "dogs_accel/datasets/layouts/stanford_dogs.py",
    "dogs_accel/datasets/stanford_dogs_published.py",
    "dogs_accel/datasets/synthetic/__init__.py",
    "dogs_accel/datasets/synthetic/layouts.py",
    "dogs_accel/datasets/synthetic/pictures.py",
    "dogs_accel/datasets/cartoon.py",
    "dogs_accel/datasets/download.py",
    # What files of earlier versions call their columns.
    "dogs_accel/results/older.py",
}
NAMES = re.compile(
    r"dogs[_-]accel|stanford[ _-]+dogs\w*|(is_|open_)?cats[ _-](and[ _-])?dogs|dogs-vs-cats", re.IGNORECASE
)
"""Of the project and of datasets, which may be said anywhere."""
WORDS = re.compile(r"breed|dog", re.IGNORECASE)
KINDS = ("*.py", "*.pyi", "*.j2", "*.js", "*.css", "*.cpp", "*.h", "*.cu")


def own_files():
    paths = [path for part in ("dogs_accel", "pipelines", "bench", "csrc") for path in sorted((ROOT / part).rglob("*"))]
    return [path for path in paths if any(path.match(kind) for kind in KINDS)]


FILES = [path.relative_to(ROOT).as_posix() for path in own_files()]


def without_names(text):
    return NAMES.sub("", " ".join(text.split()))


@pytest.mark.parametrize("file", [file for file in FILES if file not in OF_ONE_DATASET])
def test_nothing_is_said_of_all_data_that_is_true_of_one_dataset(file):
    assert WORDS.findall(without_names(file)) == []  # its own name
    text = without_names((ROOT / file).read_text(encoding="utf-8"))
    assert [text[max(0, found.start() - 40) : found.end() + 40] for found in WORDS.finditer(text)] == []


def test_the_files_of_one_dataset_are_where_they_are_said_to_be():
    assert set(FILES) >= OF_ONE_DATASET
