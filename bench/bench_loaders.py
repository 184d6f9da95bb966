"""Loaders on real files: as people write them, ours, and the ceilings; alone, at other settings, and with a model."""

import dataclasses
import importlib.metadata

import pytest
import torch
from PIL import Image
from rivals import PUBLISHED, rivals

from dogs_accel.plots import save_figure
from dogs_accel.throughput.bottleneck import describe_bottleneck, describe_with_model, measure_with_model, training_step
from dogs_accel.throughput.candidates import Workload, project_candidates
from dogs_accel.throughput.ceilings import ceiling_candidates
from dogs_accel.throughput.figures import loaders_figure
from dogs_accel.throughput.measure import describe_rows, describe_scaling, measure_loaders, measure_scaling
from dogs_accel.throughput.run import (
    ThroughputSettings,
    as_dicts,
    choose_model,
    describe_model,
    describe_workload,
    measure_model,
    pass_parity,
    time_store,
)
from pipelines import (
    BACKENDS,
    CIFAR_TRAIN,
    EVAL,
    IMAGENET_EVAL,
    IMAGENET_TRAIN,
    RANDAUGMENT_TRAIN,
    RESNET_TRAIN,
    STANDARD_TRAIN,
    VIT_TRAIN,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUNDS = 5
RECIPES = {
    recipe.name: recipe
    for recipe in (
        EVAL, RESNET_TRAIN, VIT_TRAIN, IMAGENET_EVAL, IMAGENET_TRAIN, STANDARD_TRAIN,
        dataclasses.replace(RANDAUGMENT_TRAIN, name="randaugment-erasing", erasing=0.25), CIFAR_TRAIN,
    )
}  # fmt: skip
TINY = ("eval", "standard-train", "randaugment-erasing")
"""Recipes with which every candidate is seen to work where nothing is measured."""
SCALED = (PUBLISHED, "torch", "dali", "cached")
"""Candidates whose scaling is measured and that run with a model."""


@pytest.fixture(scope="module")
def rounds(bench):
    return bench.rounds_or(ROUNDS)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def ours(stores):
    """This project's loaders, which share a folder of stores."""
    return project_candidates(BACKENDS, stores)


@pytest.fixture(scope="module")
def scaled(ours, photos, stores):
    """The candidates of SCALED that there are and that pass the parity gate."""
    workload = Workload(paths=tuple(photos), recipe=RESNET_TRAIN, device=DEVICE)
    passing, _ = pass_parity([*rivals(workload.recipe)[0], *ours], workload, stores)
    return [each for each in passing if each.name in SCALED]


@pytest.fixture(scope="module")
def drawn():
    """What the figure shows, filled by the benchmarks that come before it."""
    return {"tables": {}}


@pytest.mark.parametrize("name", RECIPES)
def test_loaders(bench, photos, rounds, stores, ours, drawn, name):
    if not bench.measure and name not in TINY:
        pytest.skip("measured only")
    recipe = RECIPES[name]
    workload = Workload(paths=tuple(photos), recipe=recipe, device=DEVICE)
    if recipe is CIFAR_TRAIN:
        workload = dataclasses.replace(workload, paths=small_pictures(photos, stores), batch_size=128)
    theirs, absent = rivals(workload.recipe)
    passing, parity = pass_parity(ours, workload, stores)
    store_seconds = time_store(passing, workload, stores)
    candidates = [*theirs, *passing, *ceiling_candidates()]
    rows = measure_loaders(candidates, workload, PUBLISHED, rounds, cold_starts=bench.measure)
    lines = [describe_rows(rows, "published"), *(f"  left out, not installed: {each}" for each in absent)]
    others = [each.name for each in theirs if each.name != PUBLISHED]
    lines.append(f"  other pixels than the reference, by bench/rivals.py: {'; '.join(others)}")
    lines += dict.fromkeys(f"  {each}" for each in parity)  # `auto` is one of the others
    if store_seconds is not None:
        lines.append(f"  the store took {store_seconds:.1f} s to build, which the figures leave out")
    drawn["tables"][f"{name} recipe"] = rows
    bench.save(
        f"loaders_{name}",
        describe_workload(workload),
        "\n".join(lines),
        unit="img/s",
        baseline=PUBLISHED,
        rounds=rounds,
        opencv=None if "OpenCV" in " ".join(absent) else importlib.metadata.version("opencv-python-headless"),
        store_seconds=store_seconds,
        rows=as_dicts(rows),
        parity=[each.as_dict() for each in parity],
    )
    for each in parity:  # those that fail have no speed in the table
        each.require()


def small_pictures(photos, folder):
    """Make four pictures of 32 x 32 px of each photo, as JPEG files."""
    paths = []
    for number, path in enumerate(photos):
        with Image.open(path) as photo:
            small = photo.convert("RGB").resize((64, 64))
        for corner in range(4):
            top, left = 32 * (corner // 2), 32 * (corner % 2)
            paths.append(str(folder / f"{number}_{corner}.jpg"))
            small.crop((left, top, left + 32, top + 32)).save(paths[-1], quality=95)
    return tuple(paths)


def test_scaling(bench, photos, scaled, drawn):
    workload = Workload(paths=tuple(photos), recipe=RESNET_TRAIN, device=DEVICE)
    if bench.measure:
        points = measure_scaling(scaled, workload)
    else:
        points = measure_scaling(scaled, workload, 1, {"num_threads": [1], "batch_size": [4], "image_size": [112]})
    drawn["points"] = points
    title = f"Scaling: {describe_workload(workload)}, each setting changed alone"
    bench.save("loaders_scaling", title, describe_scaling(points), unit="img/s",
               points=as_dicts(points))  # fmt: skip


def test_with_a_model(bench, photos, scaled, drawn):
    workload = Workload(paths=tuple(photos), recipe=RESNET_TRAIN, device=DEVICE)
    settings = ThroughputSettings(data="", device=DEVICE)
    spec = choose_model(settings, workload)
    if bench.measure:
        measured = measure_model(spec, scaled, workload)
    else:
        small = dataclasses.replace(workload, recipe=workload.recipe.at(spec.image_size), batch_size=2)
        measured = measure_with_model(scaled, small, training_step(spec, DEVICE), rounds=1)
    words = describe_bottleneck(measured, PUBLISHED, on_gpu=workload.on_gpu)
    drawn |= {"with_model": measured, "model": describe_model(spec)}
    bench.save(
        "loaders_with_model",
        f"In training: {describe_workload(dataclasses.replace(workload, recipe=workload.recipe.at(spec.image_size)))}",
        f"{describe_with_model(measured)}\n  {words}",
        unit="img/s",
        model=describe_model(spec),
        verdict=words,
        with_model={name: dataclasses.asdict(each) for name, each in measured.items()},
    )


def test_figure(bench, drawn, tmp_path, results_folder):
    if not drawn["tables"]:
        pytest.skip("no benchmark of loaders ran before")
    figure = loaders_figure(baseline="published", **drawn)
    assert save_figure(figure, (results_folder if bench.measure else tmp_path) / "loaders.png").stat().st_size > 10_000
