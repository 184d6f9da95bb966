"""`dogs-accel throughput`: every loader on somebody's files, alone and with a model, and which one to take."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dogs_accel.datasets.photos import find_photos
from dogs_accel.models.input_size import describe_input_size, refuses_one_image
from dogs_accel.models.specs import ModelSpec, model_spec
from dogs_accel.parity.gates import REFERENCE
from dogs_accel.parity.measure import Parity, check_parity
from dogs_accel.plots import save_figure
from dogs_accel.runtime.arguments import did_you_mean
from dogs_accel.runtime.devices import choose_device
from dogs_accel.runtime.environment import cpu_name, describe_environment
from dogs_accel.runtime.files import temporary_folder, write_json
from dogs_accel.throughput.bottleneck import (
    WARM_UP_STEPS,
    LoaderWithModel,
    ModelStep,
    describe_bottleneck,
    describe_with_model,
    measure_with_model,
    training_step,
)
from dogs_accel.throughput.candidates import STORE_BACKENDS, Candidate, Workload, project_candidates, store_folder
from dogs_accel.throughput.ceilings import ceiling_candidates
from dogs_accel.throughput.figures import loaders_figure
from dogs_accel.throughput.measure import (
    Row,
    ScalingPoint,
    describe_rows,
    describe_scaling,
    measure_loaders,
    measure_scaling,
)
from pipelines import BACKENDS, RECIPES, make_loader
from pipelines.cores import available_cores
from pipelines.make import has_dali
from pipelines.store.build import plan_store

CPU_MODEL, CPU_IMAGE_SIZE, GPU_MODEL = "resnet18", 64, "resnet50"
"""What stands for the model where none is named."""
MIN_IMAGES, BATCHES_A_THREAD = 512, 8
"""How many images are loaded where nobody says: so many, or so many batches for each thread."""
_PARITY_IMAGES = 64
_MODEL_SECONDS = 30.0
_MAX_STEPS = 64
_MODEL_ROUNDS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThroughputSettings:
    """What the command is asked to measure; None is the default that the machine suggests."""

    data: str
    loader: str = "all"
    recipe: str = "resnet-train"
    model: str | None = None
    batch_size: int = 32
    image_size: int | None = None
    num_threads: int | None = None
    device: str | None = None
    num_images: int | None = None
    rounds: int = 5
    store: str | None = None

    def __post_init__(self) -> None:
        for name in self.backends:
            _check_known("loader", name, BACKENDS)
        _check_known("recipe", self.recipe, list(RECIPES))

    @property
    def backends(self) -> list[str]:
        """Names of the loaders to measure, in the order given."""
        if self.loader == "all":
            return list(BACKENDS)
        return list(dict.fromkeys(name.strip() for name in self.loader.split(",")))

    @property
    def baseline(self) -> str:
        """The loader that the others are compared with: the reference where it takes part, else the first."""
        return "torch" if "torch" in self.backends else self.backends[0]


def _check_known(field: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ValueError(f"{field}: got {name!r}, expected one of {', '.join(known)}{did_you_mean(name, known)}")


def make_workload(settings: ThroughputSettings) -> Workload:
    """Find the files and the device that the settings speak of; raises ValueError."""
    recipe = RECIPES[settings.recipe]
    num_threads = settings.num_threads or available_cores()
    num_images = settings.num_images or enough_images(settings.batch_size, num_threads)
    return Workload(
        paths=tuple(find_photos(settings.data, num_images)),
        recipe=recipe if settings.image_size is None else recipe.at(settings.image_size),
        batch_size=settings.batch_size,
        num_threads=num_threads,
        device=str(choose_device(settings.device)),
    )


def enough_images(batch_size: int, num_threads: int) -> int:
    """Images after which an epoch's start and end no longer matter."""
    return max(MIN_IMAGES, BATCHES_A_THREAD * batch_size * num_threads)


def choose_model(settings: ThroughputSettings, workload: Workload) -> ModelSpec | None:
    """Look up the model of the settings, None for "none"; raises ValueError for an unknown name."""
    if settings.model == "none":
        return None
    if settings.model is not None:
        return model_spec(settings.model, settings.image_size)
    if workload.on_gpu:
        return model_spec(GPU_MODEL, settings.image_size)
    return model_spec(CPU_MODEL, settings.image_size or CPU_IMAGE_SIZE)


def _check_last_batch(spec: ModelSpec, workload: Workload) -> None:
    """Raise ValueError where a model would have to train on a last batch of one image, and cannot."""
    num_last = len(workload.paths) % workload.batch_size or workload.batch_size
    if num_last == 1 and refuses_one_image(spec):
        raise ValueError(
            f"batch_size: got {workload.batch_size}, which leaves one of {len(workload.paths)} images to the last "
            f"batch, expected two or more: {spec.display} at {spec.image_size} px has a BatchNorm that needs two"
        )


@contextmanager
def stores_folder(folder: str | None) -> Iterator[str]:
    """Give the folder of the stores, or a temporary one that is deleted in the end."""
    if folder is not None:
        yield folder
        return
    with temporary_folder("dogs-accel-store-", "--store DIR or TMPDIR=DIR puts the stores elsewhere") as temporary:
        yield str(temporary)


def pass_parity(
    candidates: Sequence[Candidate], workload: Workload, stores: str | Path
) -> tuple[list[Candidate], list[Parity]]:
    """Hold this project's loaders to the parity gate on some of the images: (those that pass, what was measured).

    A loader that shows other pixels than the reference gets no speed. The reference is its own measure, and other
    people's loaders are not held to it.
    """
    few = dataclasses.replace(workload, paths=workload.paths[:_PARITY_IMAGES])
    measured = {}
    for name in (each.name for each in candidates if each.is_ours and each.name != REFERENCE):
        store_dir = store_folder(few, stores) if name in STORE_BACKENDS else None
        measured[name] = check_parity(
            few.paths,
            few.recipe,
            backend=name,
            device=few.device,
            batch_size=few.batch_size,
            num_threads=few.num_threads,
            num_worst=0,
            make=functools.partial(make_loader, store_dir=store_dir),
        )
    passing = [each for each in candidates if each.name not in measured or measured[each.name].passes]
    return passing, list(measured.values())


def describe_workload(workload: Workload) -> str:
    """Say in one line what is loaded, with what."""
    kilobytes = sum(Path(path).stat().st_size for path in workload.paths) / len(workload.paths) / 1e3
    where = torch.cuda.get_device_name(workload.device) if workload.on_gpu else cpu_name()
    return (
        f"{workload.recipe.name} recipe at {workload.recipe.crop} px, {len(workload.paths)} images of "
        f"{kilobytes:.0f} kB each, batch {workload.batch_size}, {workload.num_threads} threads or workers, {where}"
    )


def measure_all(settings: ThroughputSettings, out: Path) -> Generator[str, None, list[Path]]:
    """Measure what the settings say; yields text for a terminal as it comes, and returns the files written.

    Raises ValueError for a setting that cannot be, and where the baseline shows other pixels than the reference.
    """
    workload = make_workload(settings)
    spec = choose_model(settings, workload)
    title, baseline = describe_workload(workload), settings.baseline
    if spec is not None:
        _check_last_batch(spec, workload)
    if spec is not None and (notice := describe_input_size(spec)):
        yield f"notice: {notice}"
    with stores_folder(settings.store) as stores:
        yield title
        loaders, parity = pass_parity(project_candidates(settings.backends, stores), workload, stores)
        for each in parity:
            if not each.passes:
                yield f"  no speed without parity: {each.complaint}"
        if baseline not in [each.name for each in loaders]:
            raise ValueError(f"loader: {baseline} has no parity, expected one to compare the others with; add torch")
        store_seconds = time_store(loaders, workload, stores)
        if store_seconds is not None:
            yield f"  the store of these images took {store_seconds:.1f} s to build, which the figures leave out"
        rows = measure_loaders([*loaders, *ceiling_candidates(has_dali())], workload, baseline, settings.rounds)
        yield describe_rows(rows, baseline)
        # What `auto` picks is measured under its own name.
        concrete = [each for each in loaders if each.name != "auto" or baseline == "auto"]
        points = measure_scaling(concrete, workload)
        yield describe_scaling(points)
        with_model, words = None, None
        if spec is not None:
            with_model = measure_model(spec, concrete, workload)
            words = describe_bottleneck(with_model, baseline, on_gpu=workload.on_gpu)
            yield f"img/s with {describe_model(spec)}:\n{describe_with_model(with_model)}\n{words}"
    content = {
        "title": title,
        "unit": "img/s",
        "baseline": baseline,
        "date": time.strftime("%Y-%m-%d"),
        "environment": describe_environment(),
        "parity": [each.as_dict() for each in parity],
        "store_seconds": store_seconds,
        "rows": as_dicts(rows),
        "scaling": as_dicts(points),
        "model": None if spec is None else describe_model(spec),
        "with_model": {name: dataclasses.asdict(each) for name, each in (with_model or {}).items()},
        "verdict": words,
    }
    model = "" if spec is None else describe_model(spec)
    figure = loaders_figure({f"{workload.recipe.name} recipe": rows}, baseline, points, with_model, model)
    return [write_json(out / "throughput.json", content), save_figure(figure, out / "throughput.png")]


def as_dicts(measured: Sequence[Row] | Sequence[ScalingPoint]) -> list[dict[str, Any]]:
    """Lay out measurements for JSON."""
    return [dataclasses.asdict(each) for each in measured]


def time_store(loaders: Sequence[Candidate], workload: Workload, stores: str | Path) -> float | None:
    """Build the workload's store in the folder of the stores: seconds, None where no loader needs it or it is there."""
    needing = [each for each in loaders if each.name == "cached"]
    if not needing or plan_store(workload.paths, workload.recipe, store_folder(workload, stores)).is_complete:
        return None
    start = time.perf_counter()
    needing[0].make(workload).close()
    return time.perf_counter() - start


def describe_model(spec: ModelSpec) -> str:
    """Name the model and its input size."""
    return f"{spec.display} at {spec.image_size} px"


def measure_model(
    spec: ModelSpec, loaders: Sequence[Candidate], workload: Workload, rounds: int = _MODEL_ROUNDS
) -> dict[str, LoaderWithModel]:
    """Measure loaders with the training step of a model, on as many images as some half a minute allows."""
    own = dataclasses.replace(workload, recipe=workload.recipe.at(spec.image_size, spec.mean, spec.std))
    step = training_step(spec, workload.device)
    num_steps = _affordable_steps(step, own, len(loaders), rounds)
    few = dataclasses.replace(own, paths=own.paths[: num_steps * own.batch_size])
    return measure_with_model(loaders, few, step, rounds)


def _affordable_steps(step: ModelStep, workload: Workload, num_loaders: int, rounds: int) -> int:
    images = torch.zeros(
        workload.batch_size, 3, workload.recipe.crop, workload.recipe.crop, device=workload.device, dtype=torch.float32
    )
    step(images)
    workload.finish()
    start = time.perf_counter()
    step(images)
    workload.finish()
    # In a round the step is taken alone and with each loader, and each loader runs alone, for about as long.
    steps = _MODEL_SECONDS / (time.perf_counter() - start) / ((1 + 2 * num_loaders) * (rounds + 1))
    return max(3 * WARM_UP_STEPS, min(round(steps), _MAX_STEPS))
