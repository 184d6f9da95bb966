"""The loaders on a GPU: from JPEG and from a store, and with the models that they are to keep busy.

`-k end_to_end` chooses the loaders with a model, `-k "not end_to_end"` the others. The photos are those of --data, or
generated ones; an epoch takes them as often as it must to be long enough. Where there is no GPU a tiny run on the CPU
shows that all of it works.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch

from dogs_accel.datasets.photos import find_photos
from dogs_accel.datasets.synthetic import FULL_SIZE_PX, write_synthetic
from dogs_accel.models.specs import model_spec
from dogs_accel.throughput.bottleneck import describe_bottleneck, describe_with_model, measure_with_model, training_step
from dogs_accel.throughput.candidates import Candidate, Workload, project_candidates
from dogs_accel.throughput.ceilings import DecodeOnly, WriteOnly
from dogs_accel.throughput.measure import describe_rows, measure_loaders
from dogs_accel.throughput.run import as_dicts, describe_model, describe_workload, pass_parity
from pipelines import EVAL, RESNET_TRAIN, VIT_TRAIN
from pipelines.dali import DaliLoader
from pipelines.decoding.dali import HW_DECODER_LOAD

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda:0" if ON_GPU else "cpu"
BATCH_SIZES = (32, 256)
HW_DECODER_LOADS = (0.0, 0.25, 0.5, 0.75, 1.0)
MODELS = {"resnet50": RESNET_TRAIN, "vit_b_16": VIT_TRAIN}
ROUNDS = 3
"""Epochs that count; a first one does not."""
STEPS, STEP_ROUNDS = 40, 2
"""Of a model with each loader: steps in a row, and how often."""
NUM_PHOTOS = 2048
JPEG_IMAGES = 4096
STORED_IMAGES = 32_768
"""Images an epoch, from JPEG and from a store."""
JPEG_AIM, RESIDENT_AIM = 8_000, 150_000
"""Images a second that are aimed at."""
SHARE_AIM = 0.97
"""Of the rate on tensors that are on the GPU already."""
_DECODE_ONLY = "decode only"


def dali_with(workload, hw_decoder_load):
    """Make the DALI loader with a share of the files for the decoder in the chip."""
    return DaliLoader(
        workload.paths,
        np.zeros(len(workload.paths), dtype=np.int64),
        workload.recipe,
        batch_size=workload.batch_size,
        device=torch.device(workload.device),
        seed=0,
        shuffle=True,
        num_threads=workload.num_threads,
        rank=0,
        world_size=1,
        dtype=torch.float32,
        hw_decoder_load=hw_decoder_load,
    )


@pytest.fixture(autouse=True)
def only_a_gpu_is_measured(bench):
    if bench.measure and not ON_GPU:
        pytest.skip("no CUDA device, and a CPU's figures are those of bench_loaders.py")


@pytest.fixture(scope="module")
def photos(request, bench, tmp_path_factory):
    """Paths of --data, or of generated pictures of Stanford Dogs' sizes."""
    num = NUM_PHOTOS if bench.measure else 8
    root = request.config.getoption("--data")
    if root is None:
        per_class = num // 8
        root = write_synthetic(
            tmp_path_factory.mktemp("gpu_loaders") / "set",
            num_classes=8, train_per_class=max(1, per_class - 1), test_per_class=1, size_px=FULL_SIZE_PX,
            progress=False,
        )  # fmt: skip
    return find_photos(root, num)


@pytest.fixture
def workload_of(bench, photos):
    """Make a workload of so many images, or a tiny one where nothing is measured."""

    def make(recipe, batch_size, num_images):
        if not bench.measure:
            recipe, batch_size, num_images = recipe.at(32), 2, 6
        paths = tuple(photos[i % len(photos)] for i in range(num_images))
        return Workload(paths=paths, recipe=recipe, batch_size=batch_size, device=DEVICE)

    return make


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_from_jpeg(bench, workload_of, batch_size):
    workload = workload_of(RESNET_TRAIN, batch_size, JPEG_IMAGES)
    candidates = [
        Candidate(f"dali, hw_decoder_load {load:g}", functools.partial(dali_with, hw_decoder_load=load), is_ours=True)
        for load in HW_DECODER_LOADS
    ]
    candidates.append(Candidate(_DECODE_ONLY, DecodeOnly, is_ceiling=True))
    baseline = candidates[0].name
    rows = measure_loaders(candidates, workload, baseline, ROUNDS if bench.measure else 1, cold_starts=False)
    best = max((row for row in rows if row.is_ours), key=lambda row: row.rate)
    bench.save(
        f"gpu_loaders_jpeg_{batch_size}",
        f"From JPEG, by the share that the decoder in the chip gets (default {HW_DECODER_LOAD:g}): "
        f"{describe_workload(workload)}",
        describe_rows(rows, baseline),
        headline=f"{best.rate:,.0f} img/s with {best.candidate} (aim: {JPEG_AIM:,})",
        unit="img/s",
        aim=JPEG_AIM,
        best=best.candidate,
        default=HW_DECODER_LOAD,
        batch_size=workload.batch_size,
        rows=as_dicts(rows),
    )


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
@pytest.mark.parametrize("recipe", [EVAL, RESNET_TRAIN], ids=lambda recipe: recipe.name)
def test_from_a_store_on_the_gpu(bench, workload_of, tmp_path, recipe, batch_size):
    workload = workload_of(recipe, batch_size, STORED_IMAGES)
    [cached] = project_candidates(["cached"], tmp_path)
    candidates = [cached, Candidate("write the batches to memory", WriteOnly, is_ceiling=True)]
    rows = measure_loaders(candidates, workload, cached.name, ROUNDS if bench.measure else 1, cold_starts=False)
    bench.save(
        f"gpu_loaders_cached_{recipe.name}_{batch_size}",
        f"From a store in the GPU's memory: {describe_workload(workload)}",
        describe_rows(rows, cached.name),
        headline=f"{rows[0].rate:,.0f} img/s (aim: {RESIDENT_AIM:,})",
        unit="img/s",
        aim=RESIDENT_AIM,
        batch_size=workload.batch_size,
        rows=as_dicts(rows),
    )


@pytest.mark.parametrize("name", MODELS)
def test_end_to_end(bench, workload_of, tmp_path, name):
    workload = workload_of(MODELS[name], 32, STEPS * 32)
    loaders = ["torch", "dali", "cached"] if bench.measure else ["cached"]
    candidates, parity = pass_parity(project_candidates(loaders, tmp_path), workload, tmp_path)
    spec = model_spec(name) if bench.measure else model_spec("resnet18", 32)
    own = dataclasses.replace(workload, recipe=workload.recipe.at(spec.image_size, spec.mean, spec.std))
    measured = measure_with_model(
        candidates, own, training_step(spec, DEVICE), rounds=STEP_ROUNDS if bench.measure else 1
    )
    shares = {each: found.end_to_end_rate / found.compute_rate for each, found in measured.items()}
    rates = [
        f"{each} {found.end_to_end_rate:,.0f} img/s ({100 * shares[each]:.0f} %)" for each, found in measured.items()
    ]
    words = describe_bottleneck(measured, candidates[0].name, on_gpu=workload.on_gpu)
    lines = [f"  {each}: {100 * share:.1f} % of the rate on tensors that are there" for each, share in shares.items()]
    bench.save(
        f"gpu_end_to_end_{name}",
        f"{describe_model(spec)} with each loader: {describe_workload(own)}",
        "\n".join([describe_with_model(measured), *lines, f"  {words}"]),
        headline=f"{', '.join(rates)} (aim: {100 * SHARE_AIM:.0f} % of synthetic tensors)",
        unit="img/s",
        aim=SHARE_AIM,
        model=describe_model(spec),
        verdict=words,
        with_model={
            each: dataclasses.asdict(found) | {"share_of_synthetic": shares[each]} for each, found in measured.items()
        },
        parity=[each.as_dict() for each in parity],
    )
    for each in parity:  # those that fail have no speed in the table
        each.require()
