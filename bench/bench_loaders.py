"""Loaders on real files: as people write them, ours, and the ceilings; alone, at other settings, and with a model."""

import dataclasses
import functools
import importlib.metadata

import numpy as np
import pytest
import torch
from rivals import PUBLISHED, rivals

from dogs_accel.bottleneck import describe_with_model, measure_with_model, training_step, verdict
from dogs_accel.candidates import Workload, project_candidates
from dogs_accel.ceilings import ceiling_candidates
from dogs_accel.plots import save_figure
from dogs_accel.throughput import describe_rows, describe_scaling, measure_loaders, measure_scaling
from dogs_accel.throughput_plots import loaders_figure
from dogs_accel.throughput_report import (
    RECIPES,
    Settings,
    choose_model,
    describe_model,
    describe_workload,
    measure_model,
    time_store,
)
from pipelines import BACKENDS, make_loader

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUNDS = 5
SCALED = (PUBLISHED, "torch", "dali", "cached")
"""Candidates whose scaling is measured and that run with a model."""


@pytest.fixture(scope="module")
def rounds(bench):
    return ROUNDS if bench.measure else 1


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """This project's loaders, which share a folder of stores."""
    return project_candidates(BACKENDS, tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def scaled(ours):
    """The candidates of SCALED that there are."""
    return [each for each in [*rivals()[0], *ours] if each.name in SCALED]


@pytest.fixture(scope="module")
def drawn():
    """What the figure shows, filled by the benchmarks that come before it."""
    return {"tables": {}}


def in_order(loader):
    """Epoch 0 of a loader as (N, 3, H, W) in the order of its files."""
    loader.set_epoch(0)
    batches = list(loader)
    return torch.cat([batch.images for batch in batches])[torch.cat([batch.index for batch in batches]).argsort()]


def parity(ours, theirs, recipe):
    """Mean and 99.9th percentile of the difference in levels of 0 to 255; a loader that fails gets no speed."""
    std = 255 * torch.tensor(recipe.std)[:, None, None]
    difference = ((in_order(ours) - in_order(theirs)) * std).abs().numpy()
    measured = {"mean": float(difference.mean()), "p999": float(np.quantile(difference, 0.999))}
    assert measured["mean"] < 1, measured
    assert measured["p999"] < 3.01, measured
    return measured


def parity_of_dali(workload):
    make = functools.partial(make_loader, workload.paths, np.zeros(len(workload.paths)), workload.recipe, device="cpu")
    with make(backend="dali") as ours, make(backend="torch") as theirs:
        return parity(ours, theirs, workload.recipe)


@pytest.mark.parametrize("name", RECIPES)
def test_loaders(bench, photos, rounds, ours, drawn, name):
    workload = Workload(paths=tuple(photos), recipe=RECIPES[name], device=DEVICE)
    agreement = parity_of_dali(workload)
    theirs, absent = rivals()
    store_seconds = time_store(ours, workload)
    candidates = [*theirs, *ours, *ceiling_candidates()]
    rows = measure_loaders(candidates, workload, PUBLISHED, rounds, cold_starts=bench.measure)
    lines = [describe_rows(rows, "published"), *(f"  left out, not installed: {each}" for each in absent)]
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
        rows=[dataclasses.asdict(row) for row in rows],
        parity_of_dali=agreement,
    )


def test_scaling(bench, photos, scaled, drawn):
    workload = Workload(paths=tuple(photos), recipe=RECIPES["resnet-train"], device=DEVICE)
    if bench.measure:
        points = measure_scaling(scaled, workload)
    else:
        points = measure_scaling(scaled, workload, 1, {"num_threads": [1], "batch_size": [4], "image_size": [112]})
    drawn["points"] = points
    title = f"Scaling: {describe_workload(workload)}, each setting changed alone"
    bench.save("loaders_scaling", title, describe_scaling(points), unit="img/s",
               points=[dataclasses.asdict(point) for point in points])  # fmt: skip


def test_with_a_model(bench, photos, scaled, drawn):
    workload = Workload(paths=tuple(photos), recipe=RECIPES["resnet-train"], device=DEVICE)
    settings = Settings(data="", device=DEVICE)
    spec = choose_model(settings, workload)
    if bench.measure:
        measured = measure_model(spec, scaled, workload)
    else:
        small = dataclasses.replace(workload, recipe=workload.recipe.at(spec.image_size), batch_size=2)
        measured = measure_with_model(scaled, small, training_step(spec, DEVICE), rounds=1)
    words = verdict(measured, PUBLISHED, on_gpu=workload.on_gpu)
    drawn |= {"with_model": measured, "model": describe_model(spec)}
    bench.save(
        "loaders_with_model",
        f"With {describe_model(spec)} in training: {describe_workload(workload)}",
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
