"""`pytest bench/ --benchmark` measures; without the flag each benchmark runs once, tiny, to see that it works."""

from __future__ import annotations

from dogs_accel.runtime.threads import bound_spinning

bound_spinning()  # before the first import of torch

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from dogs_accel.datasets.photos import find_photos
from dogs_accel.datasets.synthetic import FULL_SIZE_PX, write_synthetic
from dogs_accel.runtime.arguments import positive
from dogs_accel.runtime.environment import describe_environment
from dogs_accel.runtime.files import write_json
from dogs_accel.runtime.timing import Timing

NUM_PHOTOS = 512
ROUNDS = 7
TURN_SECONDS = 0.5
RESULTS = Path(__file__).parent / "results"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("dogs_accel benchmarks")
    group.addoption("--benchmark", action="store_true", help="measure at full size and write bench/results/*.json")
    group.addoption(
        "--run-images", type=int, default=2_400, metavar="N",
        help="generated pictures on which the published runs are timed, on a GPU (default: 2400)",
    )  # fmt: skip
    group.addoption("--rounds", type=positive, metavar="N", help="rounds of each measurement, fewer for less time")
    group.addoption(
        "--turn-seconds", type=float, default=TURN_SECONDS, metavar="S",
        help=f"about how long a turn of the training step takes (default: {TURN_SECONDS:g})",
    )  # fmt: skip
    group.addoption(
        "--results", type=Path, metavar="DIR", default=RESULTS / "gpu" if torch.cuda.is_available() else RESULTS,
        help="where the files go (default: bench/results, on a machine with a GPU bench/results/gpu)",
    )  # fmt: skip
    group.addoption("--data", metavar="DIR", help="measure loading on the images below DIR (default: generated ones)")


@dataclass
class Bench:
    """What a benchmark may ask and where it leaves its tables."""

    measure: bool
    num_rounds: int | None = None
    """Of each measurement where that was said."""
    turn_seconds: float = TURN_SECONDS
    results: Path = RESULTS
    tables: list[str] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        """Rounds of a measurement."""
        return self.rounds_or(ROUNDS)

    def rounds_or(self, default: int) -> int:
        """Rounds of a measurement that has a default of its own."""
        return (self.num_rounds or default) if self.measure else 1

    def report(
        self, name: str, title: str, timings: dict[str, Timing], baseline: str, num: int, unit: str, **more: Any
    ) -> None:
        """Add a table of `num` units a round, each candidate against the baseline; save it when measuring.

        `more` is saved with it.
        """
        rows: list[dict[str, Any]] = []
        for candidate, timing in timings.items():
            ratio, low, high = timing.ratio_to(timings[baseline])
            rate = num / timing.median
            rows.append(
                {"candidate": candidate, "rate": rate, "ratio": ratio, "ratio_low": low, "ratio_high": high,
                 "cpu_seconds": timing.cpu_seconds, "seconds": timing.seconds}
            )  # fmt: skip
        width = max(len(row["candidate"]) for row in rows)
        table = "\n".join(
            f"  {row['candidate']:<{width}}  {row['rate']:>14,.0f} {unit}/s  {row['ratio']:6.2f} x "
            f"({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
            for row in rows
        )
        self.save(name, title, table, unit=f"{unit}/s", baseline=baseline, rounds=self.rounds, rows=rows, **more)

    def save(self, name: str, title: str, text: str, **content: Any) -> None:
        """Add a text below its title to what is printed in the end; when measuring, save `content` too."""
        self.tables.append(f"{title}\n{text}")
        if self.measure:
            environment = {key: value for key, value in describe_environment().items() if key != "command"}
            about = {"title": title, "date": time.strftime("%Y-%m-%d"), "environment": environment}
            write_json(self.results / f"{name}.json", about | content)


_BENCH = pytest.StashKey[Bench]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_BENCH] = Bench(
        measure=config.getoption("--benchmark"),
        num_rounds=config.getoption("--rounds"),
        turn_seconds=config.getoption("--turn-seconds"),
        results=config.getoption("--results"),
    )


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest) -> Bench:
    """The session's benchmark settings and tables."""
    return request.config.stash[_BENCH]


@pytest.fixture(scope="session")
def results_folder(bench):
    """Where results are kept."""
    return bench.results


@pytest.fixture(scope="session")
def photos(request, bench, tmp_path_factory):
    """Paths of --data, or of generated pictures of Stanford Dogs' sizes."""
    root = request.config.getoption("--data")
    if root is None:
        sizes = {"num_classes": 8, "train_per_class": 60, "test_per_class": 4} if bench.measure else {
            "num_classes": 2, "train_per_class": 8, "test_per_class": 2}  # fmt: skip
        root = write_synthetic(tmp_path_factory.mktemp("bench") / "set", size_px=FULL_SIZE_PX, **sizes)
    return find_photos(root, NUM_PHOTOS if bench.measure else 8)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for table in config.stash[_BENCH].tables:
        terminalreporter.write_line(f"\n{table}")
