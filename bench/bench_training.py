"""The training step on tensors that are on the device already: what each of its switches gives, and what a head costs.

Every switch is measured alone against one baseline (float32, contiguous memory, AdamW unfused, eager, no TF32), and
then all that are on by default together. At batch 32 a GPU may wait for launches, at 256 it works; on a CPU the demo's
models are measured, at its batch size.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import itertools
import multiprocessing
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pytest
import torch
from run_times import training_times
from torch import nn

from dogs_accel.datasets.synthetic import FULL_SIZE_PX, write_synthetic
from dogs_accel.experiment.plan import EVAL_BATCH_SIZE
from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.models.build import build_model
from dogs_accel.models.flops import count_flops, peak_flops
from dogs_accel.models.freezing import set_train_mode, set_trainable_stage
from dogs_accel.models.specs import ModelSpec, model_spec
from dogs_accel.runtime.memory import keep_freed_memory
from dogs_accel.runtime.precision import amp_dtype, set_numerics
from dogs_accel.runtime.timing import Timing, interleaved
from dogs_accel.training.features import head_of
from dogs_accel.training.mixing import mixer_of
from dogs_accel.training.optimizers import make_optimizer
from dogs_accel.training.phases import Phase
from dogs_accel.training.step import StepSettings, TrainingStep, forward_of, prepare_model

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda", 0) if ON_GPU else torch.device("cpu")
PRESET = BenchmarkConfig(preset="paper" if ON_GPU else "demo").resolved()
DEMO = BenchmarkConfig(preset="demo").resolved()
MODELS = dict(zip(("cnn", "vit"), PRESET.models, strict=True))
BATCH_SIZES = (32, 256) if ON_GPU else (PRESET.batch_size,)
NUM_CLASSES = 120
PLAIN = StepSettings(channels_last=False, fused_optimizer=False)
DEFAULTS = StepSettings(amp=amp_dtype("auto", DEVICE))
_PUBLISHED_IMAGES = 20_580
_PUBLISHED_TEST_IMAGES = 8_580


@dataclass(frozen=True, kw_only=True)
class Switch:
    """One way to run a step."""

    name: str
    settings: StepSettings = PLAIN
    tf32: bool = False
    cudnn_benchmark: bool = False
    deterministic: bool = False
    in_own_process: bool = False
    """cuDNN's choice of a kernel holds for a process: the baseline's would be taken, or this one's by the baseline."""

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """Set what torch keeps for the whole process, and put it back."""
        workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
        set_numerics(tf32=self.tf32, deterministic=self.deterministic)
        torch.backends.cudnn.benchmark = self.cudnn_benchmark
        try:
            with warnings.catch_warnings():
                # Deterministic algorithms warn of each operation that has none; the figure is the same.
                warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
                yield
        finally:
            set_numerics()
            if workspace is None:
                os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


BASELINE = Switch(name="float32, nothing on")
DETERMINISTIC = Switch(name="deterministic", deterministic=True)
GRAPHS = Switch(name="CUDA graph", settings=dataclasses.replace(PLAIN, cuda_graphs=True))


def switches() -> list[Switch]:
    """The baseline, each switch of this device alone, all defaults; without GRAPHS, whose memory is its own."""

    def alone(name: str, **settings: Any) -> Switch:
        return Switch(name=name, settings=dataclasses.replace(PLAIN, **settings))

    found = [BASELINE, alone("channels-last", channels_last=True), alone("fused AdamW", fused_optimizer=True)]
    found.append(alone("AMP bf16", amp=torch.bfloat16))
    if ON_GPU:
        found.append(alone("AMP fp16", amp=torch.float16))
        found.append(Switch(name="TF32", tf32=True))
        found.append(Switch(name="cuDNN benchmark", cudnn_benchmark=True, in_own_process=True))
    found.append(alone("compile", compile=True))
    return [*found, DETERMINISTIC, Switch(name="all defaults together", settings=DEFAULTS, cudnn_benchmark=True)]


@dataclass(frozen=True)
class Work:
    """What a step works on."""

    spec: ModelSpec
    batch_size: int

    def images(self, settings: StepSettings) -> torch.Tensor:
        shape = (self.batch_size, 3, self.spec.image_size, self.spec.image_size)
        return torch.randn(shape, device=DEVICE).contiguous(memory_format=settings.memory_format)

    def model(self, settings: StepSettings) -> nn.Module:
        return prepare_model(build_model(self.spec, NUM_CLASSES, "none").model, DEVICE, settings)

    def __str__(self) -> str:
        return f"{self.spec.display} at {self.spec.image_size} px, batch {self.batch_size}, {device_name()}"


def device_name() -> str:
    return torch.cuda.get_device_name(DEVICE) if ON_GPU else f"CPU, {torch.get_num_threads()} threads"


def finish() -> None:
    """Wait for the device."""
    if ON_GPU:
        torch.cuda.synchronize(DEVICE)


def labels_of(images: torch.Tensor) -> torch.Tensor:
    return torch.arange(len(images), device=DEVICE) % NUM_CLASSES


@dataclass(frozen=True)
class Ready:
    """A step that has been taken before, so that what it does once is done."""

    turn: Callable[[int], object]
    """Takes so many steps and waits for the device."""
    first_step_seconds: float
    peak_mib: float | None
    """What it needs at most, its weights included; torch does not count the memory of a CPU."""


def make_ready(work: Work, switch: Switch) -> Ready:
    """Build a model under a switch and take its first steps."""
    if ON_GPU:
        torch.cuda.reset_peak_memory_stats(DEVICE)
    before = torch.cuda.memory_allocated(DEVICE) if ON_GPU else 0
    with switch.in_force():
        model, images = work.model(switch.settings), work.images(switch.settings)
        set_train_mode(model)
        optimizer = make_optimizer(model.parameters(), 1e-4, 1e-4, switch.settings)
    step = TrainingStep(model, optimizer, device=DEVICE, settings=switch.settings)
    labels = labels_of(images)

    def turn(num_steps: int) -> None:
        with switch.in_force():
            for _ in range(num_steps):
                step(images, labels)
            finish()

    finish()
    start = time.perf_counter()
    turn(1)
    first_step_seconds = time.perf_counter() - start
    turn(2)
    peak_mib = (torch.cuda.max_memory_allocated(DEVICE) - before) / 2**20 if ON_GPU else None
    return Ready(turn, first_step_seconds, peak_mib)


@contextlib.contextmanager
def ready_in_own_process(work: Work, switch: Switch) -> Iterator[Ready]:
    """Do as make_ready in a process that lives as long as the block and takes its turns there."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        first_step_seconds, peak_mib = process.submit(_ready_here, work, switch).result()
        yield Ready(lambda num_steps: process.submit(_turn_here, num_steps).result(), first_step_seconds, peak_mib)


_HERE: list[Ready] = []
"""In the process of ready_in_own_process: the one that it holds."""


def _ready_here(work: Work, switch: Switch) -> tuple[float, float | None]:
    _HERE.append(make_ready(work, switch))
    return _HERE[0].first_step_seconds, _HERE[0].peak_mib


def _turn_here(num_steps: int) -> None:
    _HERE[0].turn(num_steps)


def measure(work: Work, candidates: Sequence[Switch], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Time switches in turns, the first being the baseline: a row each."""
    with contextlib.ExitStack() as stack:
        ready = {
            each.name: stack.enter_context(ready_in_own_process(work, each))
            if each.in_own_process
            else make_ready(work, each)
            for each in candidates
        }
        num_steps = steps_for(ready[candidates[0].name].turn, seconds)
        turns = {name: functools.partial(each.turn, num_steps) for name, each in ready.items()}
        timings = interleaved(turns, rounds)
    flops = count_flops(work.spec, NUM_CLASSES, "full_finetune").training
    rows = []
    for each in candidates:
        rate, ratio = compare(timings, each.name, candidates[0].name, num_steps * work.batch_size)
        peak = peak_flops(DEVICE, each.settings.amp, each.tf32)
        first = ready[each.name].first_step_seconds
        rows.append(
            {"candidate": each.name, "rate": rate, **ratio, "peak_mib": ready[each.name].peak_mib,
             "share_of_peak": None if peak is None else rate * flops / peak,
             "start_up_seconds": max(0.0, first - timings[each.name].median / num_steps),
             "seconds": timings[each.name].seconds, "num_steps": num_steps}
        )  # fmt: skip
    return rows


def compare(timings: dict[str, Timing], name: str, baseline: str, num: int) -> tuple[float, dict[str, float]]:
    """Rate of `num` images a round, and ratio to the baseline: median, lowest, highest."""
    ratio, low, high = timings[name].ratio_to(timings[baseline])
    return num / timings[name].median, {"ratio": ratio, "ratio_low": low, "ratio_high": high}


def steps_for(turn: Callable[[int], object], seconds: float) -> int:
    """How many steps take about so long."""
    turn(1)
    start = time.perf_counter()
    turn(2)
    return max(1, min(10_000, round(2 * seconds / (time.perf_counter() - start))))


def release_memory() -> None:
    """Give back what the candidates of a measurement held."""
    torch._dynamo.reset()
    gc.collect()
    if ON_GPU:
        torch.cuda.empty_cache()


def describe(rows: Sequence[dict[str, Any]]) -> str:
    """Lay the rows out as a table, with a verdict below."""
    width = max(len(row["candidate"]) for row in rows)
    lines = [f"  {'':<{width}}      img/s  ratio                   peak MiB  share of peak  start-up s"]
    for row in rows:
        ratio = f"{row['ratio']:.2f} x ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:,.0f}"
        share = "" if row["share_of_peak"] is None else f"{100 * row['share_of_peak']:.1f} %"
        lines.append(
            f"  {row['candidate']:<{width}}  {row['rate']:>9,.1f}  {ratio:<22}  {peak:>8}  {share:>13}"
            f"  {row['start_up_seconds']:>10.1f}"
        )
    return "\n".join([*lines, f"  {verdict(rows)}"])


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """Say which candidates are faster than the baseline, the first, in every round, and which are not.

    Determinism is none of them: it is there to be paid for.
    """

    def listed(chosen: Sequence[dict[str, Any]]) -> str:
        return ", ".join(f"{row['candidate']} ({row['ratio']:.2f} x)" for row in chosen) or "nothing"

    cost = [row for row in rows if row["candidate"] == DETERMINISTIC.name]
    switched = [row for row in rows[1:] if row not in cost]
    pays = [row for row in switched if row["ratio_low"] > 1]
    others = [row for row in switched if row["ratio_low"] <= 1]
    return f"pays by more than the noise: {listed(pays)}; does not: {listed(others)}; a cost: {listed(cost)}"


@pytest.fixture(autouse=True)
def as_a_run_does():
    """Begin with the settings of a run and end without what a measurement held."""
    set_numerics()
    if not ON_GPU:
        keep_freed_memory()
    yield
    release_memory()


@pytest.fixture(autouse=True)
def compile_from_nothing(bench, monkeypatch, tmp_path):
    """Compile into an empty cache, as a first run does; where nothing is measured, leave compiling out."""
    if bench.measure:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "compiled" / "triton"))
        yield
    else:
        with torch.compiler.set_stance("force_eager"):
            yield


@pytest.fixture
def work_of(bench):
    """Make the work of a family at a batch size, or a tiny one where nothing is measured."""

    def make(family: str, batch_size: int) -> Work:
        if bench.measure:
            return Work(model_spec(MODELS[family], PRESET.image_size), batch_size)
        return Work(model_spec(DEMO.models[list(MODELS).index(family)], 32), 2)

    return make


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
@pytest.mark.parametrize("family", MODELS)
def test_switches(bench, work_of, family, batch_size):
    work = work_of(family, batch_size)
    seconds = bench.turn_seconds if bench.measure else 0.0
    rows = measure(work, switches(), bench.rounds, seconds)
    notes = []
    if ON_GPU:
        release_memory()
        try:
            # A graph keeps the memory of its activations, so it is measured with nothing but the baseline beside it.
            rows.append(measure(work, [BASELINE, GRAPHS], bench.rounds, seconds)[1])
        except torch.OutOfMemoryError:
            notes.append(f"  left out: {GRAPHS.name}, whose memory does not fit beside the baseline's")
    bench.save(
        f"training_{work.spec.slug}_{batch_size}",
        f"Training step: {work}; each switch alone against the first row",
        "\n".join([describe(rows), *notes]),
        unit="img/s",
        baseline=BASELINE.name,
        rounds=bench.rounds,
        model=work.spec.display,
        image_size=work.spec.image_size,
        batch_size=work.batch_size,
        device=device_name(),
        verdict=verdict(rows),
        rows=rows,
    )


def as_a_run(name: str, **other: Any) -> Switch:
    """A run's own settings but for those named."""
    return Switch(name=name, settings=dataclasses.replace(DEFAULTS, **other), cudnn_benchmark=True)


AS_A_RUN = as_a_run("as a run")
CEILINGS = {
    "eager": (
        as_a_run("not channels-last", channels_last=False),
        Switch(name="float32, as published", settings=PLAIN, cudnn_benchmark=True),
    ),
    "graph": (as_a_run("CUDA graph", cuda_graphs=True),),
    "compiled": (as_a_run("compiled", compile=True),),
}
"""What a run's own step is held to: apart, since a graph keeps its memory and compiling takes long."""
if not ON_GPU:
    del CEILINGS["graph"]


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("batch_size", BATCH_SIZES)
@pytest.mark.parametrize("group", CEILINGS)
def test_ceilings(bench, work_of, family, batch_size, group):
    work = work_of(family, batch_size)
    rows = measure(work, [AS_A_RUN, *CEILINGS[group]], bench.rounds, bench.turn_seconds if bench.measure else 0.0)
    fastest = max(rows, key=lambda row: row["rate"])
    bench.save(
        f"ceiling_{group}_{work.spec.slug}_{work.batch_size}",
        f"Training on tensors that are on the device: {work}; each against the first row",
        describe(rows),
        headline=f"{work.spec.display} at {work.batch_size}: {fastest['rate']:,.0f} img/s {fastest['candidate']}",
        unit="img/s",
        baseline=AS_A_RUN.name,
        rounds=bench.rounds,
        model=work.spec.display,
        image_size=work.spec.image_size,
        batch_size=work.batch_size,
        device=device_name(),
        rows=rows,
    )


@pytest.mark.parametrize("family", MODELS)
def test_heads(bench, work_of, family):
    work = work_of(family, PRESET.batch_size)
    images = work.images(DEFAULTS)
    labels = labels_of(images)

    def step_of(mode: str) -> tuple[nn.Module, Callable[[], object]]:
        model = work.model(DEFAULTS)
        set_trainable_stage(model, mode)
        set_train_mode(model)
        return model, functools.partial(new_step(model), images, labels)

    def new_step(model: nn.Module) -> TrainingStep:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return TrainingStep(model, make_optimizer(trained, 1e-3, 1e-4, DEFAULTS), device=DEVICE, settings=DEFAULTS)

    _, full = step_of("full_finetune")
    model, head_only = step_of("head_only")
    head = head_of(model)
    features = torch.randn(len(images), head.in_features, device=DEVICE)
    cached = functools.partial(new_step(head), features, labels)
    turns = {"full step": full, "head only": head_only, "head on cached features": cached}
    seconds = bench.turn_seconds if bench.measure else 0.0
    num_steps = {name: steps_for(functools.partial(repeat, step), seconds) for name, step in turns.items()}
    measured = interleaved(
        {name: functools.partial(repeat, step, num_steps[name]) for name, step in turns.items()}, bench.rounds
    )
    timings = {name: an_image(each, num_steps[name] * len(images)) for name, each in measured.items()}
    bench.report(
        f"training_head_{work.spec.slug}",
        f"Training a head: {work}, default switches; caching the features costs an epoch's forward, once",
        timings,
        "full step",
        1,
        "img",
        cached_against_head_only=timings["head on cached features"].ratio_to(timings["head only"]),
        device=device_name(),
    )


@pytest.mark.parametrize("family", MODELS)
def test_mixing(bench, work_of, family):
    work = work_of(family, PRESET.batch_size)

    def steps(mix: str) -> Callable[[int], None]:
        model, images = work.model(DEFAULTS), work.images(DEFAULTS)
        set_train_mode(model)
        step = TrainingStep(
            model, make_optimizer(model.parameters(), 1e-4, 1e-4, DEFAULTS), device=DEVICE, settings=DEFAULTS
        )
        alpha = {"mixup_alpha": 1.0} if mix == "mixup" else {}
        phase = Phase(name=mix, mode="full_finetune", epochs=1, lr=1e-4, mix=mix, **alpha)
        mixer, labels, numbers = mixer_of(phase, seed=0, epoch=0), labels_of(images), itertools.count()

        def turn(num: int) -> None:
            for _ in range(num):
                step(images, labels, 1.0, None if mixer is None else mixer(next(numbers), images, labels))
            finish()

        return turn

    turns = {mix: steps(mix) for mix in ("none", "mixup", "cutmix")}
    num_steps = steps_for(turns["none"], bench.turn_seconds if bench.measure else 0.0)
    for turn in turns.values():
        turn(1)  # the first step chooses kernels and allocates
    bench.report(
        f"training_mixing_{work.spec.slug}",
        f"Training on mixed images: {work}, default switches",
        interleaved({mix: functools.partial(turn, num_steps) for mix, turn in turns.items()}, bench.rounds),
        "none",
        num_steps * work.batch_size,
        "img",
        device=device_name(),
    )


def an_image(timing: Timing, num_images: int) -> Timing:
    """What one of the images of a round took."""
    return Timing(*(tuple(each / num_images for each in seconds) for seconds in (timing.seconds, timing.cpu_seconds)))


def repeat(step: Callable[[], object], num: int) -> None:
    """Take a step so often and wait for the device."""
    for _ in range(num):
        step()
    finish()


@pytest.mark.parametrize("family", MODELS)
def test_evaluation(bench, work_of, family):
    small = work_of(family, PRESET.batch_size)
    large = dataclasses.replace(small, batch_size=EVAL_BATCH_SIZE[DEVICE.type] if bench.measure else 4)
    model = small.model(DEFAULTS).eval()
    num_images = 4 * large.batch_size if ON_GPU else large.batch_size

    def evaluation(work: Work, settings: StepSettings) -> Callable[[], None]:
        forward, images = forward_of(model, DEVICE, settings), work.images(settings)
        return torch.inference_mode()(
            functools.partial(repeat, functools.partial(forward, images, labels_of(images)), num_images // len(images))
        )

    turns = {
        f"batch {small.batch_size}, as in training": evaluation(small, DEFAULTS),
        f"batch {large.batch_size}, the default": evaluation(large, DEFAULTS),
        f"batch {large.batch_size}, compiled": evaluation(large, dataclasses.replace(DEFAULTS, compile=True)),
    }
    bench.report(
        f"evaluation_{small.spec.slug}",
        f"Forward of evaluation: {small.spec.display} at {small.spec.image_size} px, {device_name()}, default switches",
        interleaved(turns, bench.rounds),
        next(iter(turns)),
        num_images,
        "img",
        device=device_name(),
    )


@pytest.mark.skipif(not ON_GPU, reason="the published models need a GPU")
def test_the_published_runs(bench, request, tmp_path):
    if not bench.measure:
        pytest.skip("the four runs take minutes: only with --benchmark")
    per_class = max(10, round(request.config.getoption("--run-images") / NUM_CLASSES))
    test_per_class = round(per_class * _PUBLISHED_TEST_IMAGES / _PUBLISHED_IMAGES)
    train_per_class = per_class - test_per_class
    data = write_synthetic(
        tmp_path / "set",
        num_classes=NUM_CLASSES,
        train_per_class=train_per_class,
        test_per_class=test_per_class,
        size_px=FULL_SIZE_PX,
        progress=False,
    )
    command = [sys.executable, "-m", "dogs_accel.benchmark", "--preset", "paper", "--weights", "none", "--gpu", "0"]
    command += ["--data", str(data), "--out", str(tmp_path / "runs"), "--wandb", "disabled"]
    start = time.perf_counter()
    done = subprocess.run(command, check=False)  # its output is pytest's to keep or to show
    seconds = time.perf_counter() - start
    assert done.returncode == 0, "the command failed; its output says why"
    table = pd.read_csv(tmp_path / "runs" / "model_comparison.csv")
    times = {f"{row['Model']}, {row['Training strategy']}": row["Train time (s)"] for _, row in table.iterrows()}
    total = sum(times.values())
    runs = training_times(tmp_path / "runs")
    lines = [f"  {name}: {each:.1f} s" for name, each in times.items()]
    # Test images are no part of training.
    scale = (_PUBLISHED_IMAGES - _PUBLISHED_TEST_IMAGES) / (train_per_class * NUM_CLASSES)
    lines.append(f"  in all {total:.1f} s of training, {seconds:.1f} s with everything")
    lines.append(f"  in proportion {scale * total:.0f} s for the published images (published: 2,131 s on an A100)")
    bench.save(
        "training_runs",
        f"The four published runs on {per_class * NUM_CLASSES:,} generated pictures, random weights, {device_name()}",
        "\n".join(lines),
        headline=f"{scale * total:.0f} s of training in proportion for the published images (published: 2,131 s)",
        unit="s",
        is_complete=True,
        num_images=per_class * NUM_CLASSES,
        training_seconds=times,
        runs=runs,
        command_seconds=seconds,
        published_size_seconds=scale * total,
        device=device_name(),
    )
