"""How torch's threads wait for each other on a CPU: a training step alone, and beside another process that is busy.

libgomp reads its settings when torch is imported, so each candidate trains in a process of its own. They take turns,
and those that wait for theirs are idle.
"""

import contextlib
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import torch

from dogs_accel.models.build import build_model
from dogs_accel.models.specs import model_spec
from dogs_accel.runtime.threads import SPIN_COUNT
from dogs_accel.runtime.timing import Timing, in_turns
from dogs_accel.training.optimizers import make_optimizer
from dogs_accel.training.step import StepSettings, TrainingStep, prepare_model

DEFAULT = "libgomp's default"
CANDIDATES = {
    DEFAULT: {},
    f"GOMP_SPINCOUNT={SPIN_COUNT}": {"GOMP_SPINCOUNT": str(SPIN_COUNT)},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
}
MODEL, NUM_CLASSES = "resnet18", 120
FULL, TINY = (64, 16, 8), (32, 2, 1)
"""Side of the images in px, images a step, steps a turn."""
PLACES = ("alone", "beside a busy process")
_STEP = []
"""In the process of a candidate: what it trains with."""


@contextlib.contextmanager
def environment(settings):
    """Give the processes that are started in the block these settings of OpenMP, and no others."""
    kept = dict(os.environ)
    try:
        for name in [name for name in os.environ if name.startswith(("OMP_", "GOMP_"))]:
            del os.environ[name]
        os.environ.update(settings)
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


@contextlib.contextmanager
def trainer(settings, sizes):
    """Start a process with these settings that trains when it is told to; sizes: as of FULL."""
    with environment(settings):
        process = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        process.submit(_train, *sizes).result()
    with process:
        yield lambda: process.submit(_train, *sizes).result()


def _train(image_size, batch_size, num_steps):
    """Take steps, in the process of a candidate, and return their seconds."""
    if not _STEP:
        settings = StepSettings()
        cpu = torch.device("cpu")
        model = build_model(model_spec(MODEL, image_size), NUM_CLASSES, "none").model.train()
        model = prepare_model(model, cpu, settings)
        optimizer = make_optimizer(model.parameters(), 1e-4, 1e-4, settings)
        images = torch.randn(batch_size, 3, image_size, image_size).contiguous(memory_format=settings.memory_format)
        step = TrainingStep(model, optimizer, device=cpu, settings=settings)
        _STEP.append(lambda: step(images, torch.arange(batch_size)))
    start = time.perf_counter()
    for _ in range(num_steps):
        _STEP[0]()
    return time.perf_counter() - start


@contextlib.contextmanager
def busy_process():
    """Keep one core busy for the length of the block."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            time.sleep(0.2)  # until it is
            yield
        finally:
            process.kill()


def test_spinning(bench):
    sizes = image_size, batch_size, num_steps = FULL if bench.measure else TINY
    # A process each; threads that spin would wait long for the cores of a machine that is busy with other tests.
    candidates = {name: CANDIDATES[name] for name in CANDIDATES if bench.measure or name != DEFAULT}
    baseline, *_ = candidates

    def turn(train, place):
        with busy_process() if place == PLACES[1] else contextlib.nullcontext():
            return train()

    with contextlib.ExitStack() as stack:
        trainers = {name: stack.enter_context(trainer(settings, sizes)) for name, settings in candidates.items()}
        turns = {
            (place, name): lambda train=train, place=place: turn(train, place)
            for place in PLACES
            for name, train in trainers.items()
        }
        seconds = in_turns(turns, bench.rounds)
    load = os.getloadavg()[0]
    for place in PLACES:
        timings = {name: Timing(tuple(seconds[place, name])) for name in candidates}
        title = f"Training {place}: {MODEL} at {image_size} px, batch {batch_size}, {torch.get_num_threads()} threads"
        bench.report(
            f"spinning_{place.replace(' ', '_')}", title, timings, baseline, num_steps * batch_size, "img", load=load
        )
