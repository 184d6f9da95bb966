"""The parts of `python -m bench.gpu_check`: what each runs, how long it may take, and what it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

BUILD, RUNS = "build", "runs"
_TEST_SECONDS = 60
"""The stack of a test that takes longer is printed; its part's limit ends it."""


@dataclass(frozen=True)
class Part:
    """One process of the check."""

    name: str
    title: str
    limit_seconds: float
    arguments: tuple[str, ...]
    """Of Python; {work} is the part's own folder, of which the JSON files in results/ become its results."""
    needs: tuple[str, ...] = ("gpu",)
    """Of what bench.gpu_machine may miss."""

    @property
    def group(self) -> str:
        """What its name has before a slash."""
        return self.name.partition("/")[0]


def run_pytest(*arguments: str, test_seconds: float = _TEST_SECONDS) -> tuple[str, ...]:
    """Return the arguments of a pytest that reports to its part."""
    own = ("-v", "--tb=short", "-p", "no:cacheprovider", "-o", f"faulthandler_timeout={test_seconds:g}")
    return ("-m", "pytest", *own, "--basetemp={work}/tmp", "--junitxml={work}/junit.xml", *arguments)


def _tests(group: str, title: str, limit_seconds: float, *files: str, needs: tuple[str, ...] = ("gpu",)) -> list[Part]:
    """Return a part for each file, so that one that crashes or loses its CUDA context costs the others nothing."""
    names = [f"{group}/{Path(file).stem.removeprefix('test_')}" for file in files]
    return [
        Part(name, title, limit_seconds, run_pytest("-m", "gpu", file), needs)
        for name, file in zip(names, files, strict=True)
    ]


def _speed(*arguments: str, test_seconds: float = _TEST_SECONDS) -> tuple[str, ...]:
    measures = ("--capture=no", "--benchmark", "--results={work}/results")
    return run_pytest(*measures, *arguments, test_seconds=test_seconds)


_DALI = ("gpu", "dali")
_LOADERS, _TRAINING = "bench/bench_gpu_loaders.py", "bench/bench_training.py"

PARTS = (
    Part(BUILD, "both libraries of the extension, for this GPU", 180,
         ("-m", "bench.gpu_machine", "{work}/results/machine.json", "--build")),
    *_tests("ops", "operators' CUDA kernels against their references", 120,
            "tests/ops/test_ops.py", "tests/ops/test_class_calibration.py", "tests/ops/test_image_stats.py",
            "tests/ops/test_squash.py", "tests/ops/test_augment.py", "tests/ops/test_augment_steps.py",
            "tests/ops/test_augment_ragged.py", "tests/ops/test_calibration.py", "tests/ops/test_temperature.py"),
    Part("ops-speed", "their bandwidth against a copy on the device", 60, _speed("bench/bench_gpu_ops.py")),
    *_tests("dali", "loaders on the GPU against the reference", 120,
            "tests/pipelines/test_loaders.py", "tests/pipelines/test_gpu_loaders.py", needs=_DALI),
    Part("loaders-speed", "the loaders' throughput from JPEG and from a store", 150,
         _speed(_LOADERS, "-k", "not end_to_end", test_seconds=90), _DALI),
    *_tests("training", "CUDA graphs, precision, resuming, little memory", 160,
            "tests/training/test_step.py", "tests/training/test_step_profile.py", "tests/runtime/test_timing.py",
            "tests/training/test_mixing.py", "tests/cost/test_measure.py", "tests/training/test_gpu_training.py"),
    Part("training-speed", "training on tensors that are there already: the ceiling of each loader", 240,
         _speed(_TRAINING, "-k", "ceiling", "--rounds=3", "--turn-seconds=0.3", test_seconds=90)),
    Part("end-to-end", "each loader with each model, and the share of waiting", 120,
         _speed(_LOADERS, "-k", "end_to_end"), _DALI),
    Part(RUNS, "the four published runs on 20,580 generated pictures, in the time that is left", 600,
         _speed(_TRAINING, "-k", "published_runs", "--run-images=20580", test_seconds=0), _DALI),
)  # fmt: skip
