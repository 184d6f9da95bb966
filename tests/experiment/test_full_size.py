"""The dry run of each preset at the size of its published data: plan, counts and time, without an image."""

import os

import numpy as np
import pytest
import torch

from dogs_accel.datasets import Dataset, DatasetFacts
from dogs_accel.datasets.layouts.caltech256 import FOLDER, TRAIN_PER_CLASS
from dogs_accel.datasets.layouts.inaturalist import TAXA
from dogs_accel.datasets.splits import NO_OFFICIAL_PART, OFFICIAL_TEST, OFFICIAL_TRAIN
from dogs_accel.experiment import execute, plan
from dogs_accel.experiment.describe import describe_plan
from dogs_accel.experiment.estimate import Estimate
from dogs_accel.experiment.loaders import choose_loaders
from dogs_accel.experiment.plan import make_plan
from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.models.build import build_model


def linked(first, paths):
    """Let many paths lead to one file."""
    first.parent.mkdir(parents=True, exist_ok=True)
    first.write_bytes(b"a photo")
    for folder in {path.parent for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        os.link(first, path)


def pets(root):
    """37 breeds, 12 of them of cats, 3,680 images in trainval.txt and 3,669 in test.txt."""
    annotations = root / "annotations"
    annotations.mkdir(parents=True)
    names = [f"{'Cat' if breed < 12 else 'dog'}_{breed:02}" for breed in range(37)]
    images = []
    for name, total, first in (("trainval", 3_680, 0), ("test", 3_669, 1_000)):
        sizes = [total // 37 + (breed < total % 37) for breed in range(37)]
        own = [(breed, f"{names[breed]}_{first + number + 1}") for breed in range(37) for number in range(sizes[breed])]
        lines = [f"{image} {breed + 1} {1 if breed < 12 else 2} 1\n" for breed, image in own]
        (annotations / f"{name}.txt").write_text("".join(lines))
        images += [root / "images" / f"{image}.jpg" for _, image in own]
    linked(root / "photo", images)


def inaturalist(root):
    """Ten taxa of 1,000 images in train/ (one has 999) and 200 in val/."""
    sizes = {"train": [999] + [1000] * 9, "val": [200] * 10}
    linked(root / "photo", [
        root / "inaturalist_12K" / part / taxon / f"{number}.jpg"
        for part, counts in sizes.items()
        for taxon, count in zip(TAXA, counts, strict=True)
        for number in range(count)
    ])  # fmt: skip


def arrays(name, sizes):
    """Data whose files nobody opens: images of each class by their official part."""
    labels = [label for part, counts in sizes.items() for label, count in enumerate(counts) for _ in range(count)]
    official = [part for part, counts in sizes.items() for _ in range(sum(counts))]
    ids = [f"{number:06}" for number in range(len(labels))]
    names = [f"class {label}" for label in range(max(labels) + 1)]

    def open_at(root):
        return Dataset(
            facts=DatasetFacts(name=name, title=name, layout=name), root=root, image_root=root, ids=ids,
            paths=[str(root / each) for each in ids], labels=np.asarray(labels), class_names=names, folder_names=names,
            official_split=official,
        )  # fmt: skip

    return open_at


CALTECH = [119] * 256 + [30_607 - 256 * 119]
"""Images a class, of which the true numbers are from 80 to 827 and as many in all."""
OF_CALTECH = {OFFICIAL_TRAIN: [TRAIN_PER_CLASS] * 257, OFFICIAL_TEST: [num - TRAIN_PER_CLASS for num in CALTECH]}
FULL = {
    # preset: (what makes its data, classes and counts as the plan has them, runs)
    "pets": (pets, "37 breeds, 3,128 train / 552 val / 3,669 test images", 10),
    "caltech256": (arrays(FOLDER, OF_CALTECH), "257 classes, 13,107 train / 2,313 val / 15,187 test images", 2),
    "cifar10": (
        arrays("cifar", {OFFICIAL_TRAIN: [5000] * 10, OFFICIAL_TEST: [1000] * 10}),
        "10 classes, 42,500 train / 7,500 val / 10,000 test images", 2,
    ),
    "cats-dogs": (
        arrays("kaggle", {NO_OFFICIAL_PART: [12_500] * 2}),
        "2 classes, 17,000 train / 3,000 val / 5,000 test images", 4,
    ),
    "inaturalist-cnn": (inaturalist, "10 classes, 7,999 train / 2,000 val / 2,000 test images", 1),
    "inaturalist-finetune": (inaturalist, "10 classes, 7,999 train / 2,000 val / 2,000 test images", 3),
}  # fmt: skip


@pytest.mark.parametrize("name", FULL)
def test_a_dry_run_of_the_published_data_prints_plan_counts_and_time(name, tmp_path, monkeypatch, capsys):
    make, counts, num_runs = FULL[name]
    data = make(tmp_path / "data")

    def without_weights(spec, num_classes, weights):
        with torch.device("meta"):
            return build_model(spec, num_classes, "none")

    monkeypatch.setattr(plan, "build_model", without_weights)
    monkeypatch.setattr(execute, "estimate_run", lambda *_, **__: Estimate((90.0, 120.0), 1000.0, 500.0))
    config = BenchmarkConfig(
        preset=name, data=str(tmp_path / "data"), device="cpu", dry_run=True, loader="torch", out=str(tmp_path / "out")
    )
    planned = make_plan(config, data=data)
    text = describe_plan(planned)
    assert f"preset   {name}\n" in text
    assert counts in text
    assert len(planned.runs) == num_runs
    weights = {"imagenet": "ImageNet weights", "none": "random weights"}
    assert all(
        f"{run.spec.display} at {run.spec.image_size} px, {weights[run.weights]}" in text for run in planned.runs
    )
    sets = [set(index.tolist()) for index in planned.splits.values()]
    assert sum(map(len, sets)) == len(set().union(*sets))  # validation is not test
    execute.dry_run(planned, choose_loaders(planned))
    assert f"  in all: {num_runs * 90}.0 to {num_runs * 120}.0 min\n" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
