"""The parts of `python -m bench.gpu_check`: what each runs, how long it may take, and what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.run_times import training_times

MACHINE, BUILD = "machine", "build"
KERNELS = "kernels"
"""The need of what `build` makes; the other needs are those of gpu_machine.find_obstacles."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One process of the check."""

    name: str
    title: str
    limit_seconds: float
    arguments: tuple[str, ...]
    """Of Python; {work} is the part's own folder, of which the JSON files in results/ become its results, and {attempt}
    counts the processes that it took."""
    needs: tuple[str, ...] = ()
    takes_data: bool = False
    """Whether it measures on the photos of --data."""
    gather: Callable[[Path], dict[str, Any]] | None = None
    """Reads further results from its folder where it failed or was cut."""

    @property
    def is_pytest(self) -> bool:
        """Whether it writes the outcomes of tests."""
        return "pytest" in self.arguments


def _pytest(*arguments: str, test_seconds: float | None = 60) -> tuple[str, ...]:
    own = ("-v", "--tb=short", "--continue-on-collection-errors", "-p", "no:cacheprovider")
    limit = () if test_seconds is None else (f"--test-seconds={test_seconds:g}",)
    files = ("--basetemp={work}/tmp{attempt}", "--outcomes={work}/outcomes.jsonl")
    return ("-m", "pytest", *own, "-p", "bench.outcomes", *limit, *files, *arguments)


def _bench(*arguments: str, test_seconds: float | None = 60) -> tuple[str, ...]:
    measures = ("--capture=no", "--benchmark", "--results={work}/results")
    return _pytest(*measures, *arguments, test_seconds=test_seconds)


def _cut_runs(work: Path) -> dict[str, Any]:
    """What was measured of the published runs when they did not come to their end; nothing is extrapolated."""
    runs = training_times(work)
    if not runs:
        return {}
    seconds = sum(run["seconds"] for run in runs.values())
    headline = f"{seconds:.0f} s of training in {sum(run['epochs'] for run in runs.values())} epochs, not all of them"
    return {"training_runs_cut": {"headline": headline, "unit": "s", "is_complete": False, "runs": runs}}


_OPERATOR_TESTS = tuple(
    f"tests/test_{name}.py"
    for name in ("ops", "class_calibration", "image_stats", "squash", "augment", "calibration", "temperature")
)
_TRAINING_TESTS = tuple(f"tests/test_{name}.py" for name in ("training_step", "step_profile", "timing", "gpu_training"))
_GPU_LOADER_BENCH = "bench/bench_gpu_loaders.py"

PARTS = (
    Part(
        name=MACHINE,
        title="hardware, driver, versions, and what is missing",
        limit_seconds=60,
        arguments=("-m", "bench.gpu_machine", "{work}/results/machine.json"),
    ),
    Part(
        name=BUILD,
        title="both libraries of the extension, for this GPU",
        limit_seconds=180,
        arguments=("-m", "bench.gpu_build", "{work}/results/build.json"),
        needs=("toolkit",),
    ),
    Part(
        name="ops",
        title="every operator's CUDA twin against its references",
        limit_seconds=150,
        arguments=_pytest("-m", "gpu", *_OPERATOR_TESTS),
        needs=("gpu", KERNELS),
    ),
    Part(
        name="ops-speed",
        title="their bandwidth against a copy on the device",
        limit_seconds=60,
        arguments=_bench("bench/bench_gpu_ops.py"),
        needs=("gpu", KERNELS),
    ),
    Part(
        name="dali",
        title="the loaders on the GPU against the reference: pixels, order, memory",
        limit_seconds=120,
        arguments=_pytest("-m", "gpu", "tests/test_loaders.py", "tests/test_gpu_loaders.py"),
        needs=("gpu", KERNELS, "dali"),
    ),
    Part(
        name="loaders-speed",
        title="the loaders' throughput from JPEG and from a store",
        limit_seconds=150,
        arguments=_bench(_GPU_LOADER_BENCH, "-k", "not end_to_end", test_seconds=90),
        needs=("gpu", KERNELS, "dali"),
        takes_data=True,
    ),
    Part(
        name="training",
        title="CUDA graphs, mixed precision, resuming, too little memory",
        limit_seconds=160,
        arguments=_pytest("-m", "gpu", *_TRAINING_TESTS),
        needs=("gpu", KERNELS),
    ),
    Part(
        name="training-speed",
        title="training on tensors that are there already: the ceiling of each loader",
        limit_seconds=240,
        arguments=_bench(
            "bench/bench_training.py", "-k", "ceiling", "--rounds=3", "--turn-seconds=0.3", test_seconds=90
        ),
        needs=("gpu", KERNELS),
    ),
    Part(
        name="end-to-end",
        title="each loader with each model, and the share of waiting",
        limit_seconds=120,
        arguments=_bench(_GPU_LOADER_BENCH, "-k", "end_to_end"),
        needs=("gpu", KERNELS, "dali"),
        takes_data=True,
    ),
    Part(
        name="runs",
        title="the four published runs on 20,580 generated pictures, in the time that is left",
        limit_seconds=600,
        arguments=_bench("bench/bench_training.py", "-k", "published_runs", "--run-images=20580", test_seconds=None),
        needs=("gpu", KERNELS, "dali"),
        gather=_cut_runs,
    ),
)
