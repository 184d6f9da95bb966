"""How fast loaders are, against each other and against what nothing can pass, and how that scales."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from dogs_accel.runtime.timing import Clock, Timing, cpu_seconds, interleaved
from dogs_accel.throughput.candidates import AnyLoader, Candidate, Workload, load_epoch
from dogs_accel.throughput.cold_start import ColdStart, measure_cold_start
from pipelines.cores import available_cores

BATCH_SIZES = (8, 32, 128)
IMAGE_SIZES = (112, 224, 448)
AXES = {"num_threads": "threads or workers", "batch_size": "batch size", "image_size": "image size in px"}
"""What a speed may depend on, as `Workload` and as people call it."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured of one candidate; rates in images per second."""

    candidate: str
    rate: float
    """Median over the rounds, as are the ratio and the CPU time."""
    rate_low: float
    rate_high: float
    ratio: float
    """To the baseline in the same round."""
    ratio_low: float
    ratio_high: float
    cpu_seconds_per_1000: float
    """Of this process and its workers, for 1,000 images."""
    cold: ColdStart | None
    """None of a ceiling."""
    is_ceiling: bool
    is_ours: bool
    note: str
    seconds: tuple[float, ...]
    """Each round."""


def measure_loaders(
    candidates: Sequence[Candidate],
    workload: Workload,
    baseline: str,
    rounds: int = 5,
    *,
    cold_starts: bool = True,
    clock: Clock = time.perf_counter,
    cpu_clock: Clock = cpu_seconds,
) -> list[Row]:
    """Measure candidates in turns, an epoch each a round, start-up and the last batch in flight included.

    baseline is the name of one of them. A first round does not count: caches are warm and workers have started. Each
    loader that is no ceiling also runs an epoch in a fresh process, unless cold_starts is false.
    """
    with ExitStack() as stack:
        loaders = {each.name: _open(stack, each, workload) for each in candidates}
        timings = interleaved(_epochs(loaders, workload), rounds, clock=clock, cpu_clock=cpu_clock)
        notes = {name: _chosen(name, loader) for name, loader in loaders.items()}
    cold = {each.name: measure_cold_start(each, workload) for each in candidates if cold_starts and not each.is_ceiling}
    return [_row(each, timings, baseline, workload, cold.get(each.name), notes[each.name]) for each in candidates]


def _open(stack: ExitStack, candidate: Candidate, workload: Workload) -> AnyLoader:
    loader = candidate.make(workload)
    stack.callback(loader.close)
    return loader


def _epochs(loaders: Mapping[str, AnyLoader], workload: Workload) -> dict[str, functools.partial[None]]:
    return {name: functools.partial(load_epoch, loader, workload) for name, loader in loaders.items()}


def _chosen(name: str, loader: AnyLoader) -> str:
    """Say which loader `auto` is."""
    backend = getattr(loader, "backend", name)
    return f"is {backend} here" if name == "auto" and backend != name else ""


def _row(
    candidate: Candidate,
    timings: Mapping[str, Timing],
    baseline: str,
    workload: Workload,
    cold: ColdStart | None,
    note: str,
) -> Row:
    timing, num_images = timings[candidate.name], len(workload.paths)
    rate, rate_low, rate_high = timing.rate(num_images)
    ratio, ratio_low, ratio_high = timing.ratio_to(timings[baseline])
    return Row(
        candidate=candidate.name,
        rate=rate,
        rate_low=rate_low,
        rate_high=rate_high,
        ratio=ratio,
        ratio_low=ratio_low,
        ratio_high=ratio_high,
        cpu_seconds_per_1000=1000 / num_images * Timing(timing.cpu_seconds).median,
        cold=cold,
        is_ceiling=candidate.is_ceiling,
        is_ours=candidate.is_ours,
        note=note,
        seconds=timing.seconds,
    )


@dataclass(frozen=True, kw_only=True)
class ScalingPoint:
    """The speed of one candidate at one setting; rates in images per second."""

    candidate: str
    axis: str
    """One of AXES."""
    value: int
    rate: float
    rate_low: float
    rate_high: float


def thread_counts(num_cores: int) -> list[int]:
    """1, 2, 4 and so on, up to the number of cores and with it."""
    return sorted({num_cores} | {1 << power for power in range(num_cores.bit_length()) if 1 << power <= num_cores})


def workload_at(workload: Workload, axis: str, value: int) -> Workload:
    """Return a workload with another value on one of the AXES."""
    if axis == "image_size":
        return replace(workload, recipe=workload.recipe.at(value))
    return replace(workload, **{axis: value})  # type: ignore[arg-type]


def measure_scaling(
    candidates: Sequence[Candidate],
    workload: Workload,
    rounds: int = 3,
    axes: Mapping[str, Sequence[int]] | None = None,
    num_images: int = 128,
    *,
    clock: Clock = time.perf_counter,
) -> list[ScalingPoint]:
    """Measure candidates at other settings, one setting changed at a time.

    axes has the values for each of AXES; None is threads up to the cores, BATCH_SIZES and IMAGE_SIZES. At each
    setting the candidates take turns, on num_images of the workload's images, or on more where those are less than
    two batches for each thread.
    """
    if axes is None:
        axes = {
            "num_threads": thread_counts(available_cores()),
            "batch_size": BATCH_SIZES,
            "image_size": IMAGE_SIZES,
        }
    settings = {
        (axis, value): _shortened(workload_at(workload, axis, value), num_images)
        for axis in axes
        for value in axes[axis]
    }
    # The workload as it is stands on every axis and is measured once.
    timings = {
        setting: _time_candidates(candidates, setting, rounds, clock) for setting in dict.fromkeys(settings.values())
    }
    points = []
    for (axis, value), setting in settings.items():
        for name, timing in timings[setting].items():
            rate, low, high = timing.rate(len(setting.paths))
            points.append(ScalingPoint(candidate=name, axis=axis, value=value, rate=rate, rate_low=low, rate_high=high))
    return points


def _shortened(workload: Workload, num_images: int) -> Workload:
    num_images = max(num_images, 2 * workload.batch_size * workload.num_threads)
    return replace(workload, paths=workload.paths[:num_images])


def _time_candidates(
    candidates: Sequence[Candidate], workload: Workload, rounds: int, clock: Clock
) -> dict[str, Timing]:
    with ExitStack() as stack:
        loaders = {each.name: _open(stack, each, workload) for each in candidates}
        return interleaved(_epochs(loaders, workload), rounds, clock=clock)


def describe_rows(rows: Sequence[Row], baseline: str) -> str:
    """Lay out rows as a table for a terminal."""
    header = ("", "img/s (lowest to highest)", f"ratio to {baseline}", "CPU s/1,000", "first batch", "memory")
    cells = [header, *(_cells(row) for row in rows)]
    return _table(cells, [row.note for row in rows])


def _cells(row: Row) -> tuple[str, ...]:
    cold = ("", "")
    if row.cold is not None:
        memory = f"{row.cold.peak_memory_mb:,.0f} MB"
        if row.cold.peak_gpu_memory_mb is not None:
            memory += f" + {row.cold.peak_gpu_memory_mb:,.0f} MB GPU"
        cold = (f"{row.cold.first_batch_seconds:.2f} s", memory)
    return (
        f"ceiling: {row.candidate}" if row.is_ceiling else row.candidate,
        f"{row.rate:,.0f} ({row.rate_low:,.0f} to {row.rate_high:,.0f})",
        f"{row.ratio:.2f} ({row.ratio_low:.2f} to {row.ratio_high:.2f})",
        f"{row.cpu_seconds_per_1000:.2f}",
        *cold,
    )


def describe_scaling(points: Sequence[ScalingPoint]) -> str:
    """Lay out the scaling as tables for a terminal, one an axis."""
    tables = []
    for axis in dict.fromkeys(point.axis for point in points):
        on_axis = [point for point in points if point.axis == axis]
        values = list(dict.fromkeys(point.value for point in on_axis))
        rates = {(point.candidate, point.value): f"{point.rate:,.0f}" for point in on_axis}
        names = dict.fromkeys(point.candidate for point in on_axis)
        header = (f"img/s by {AXES[axis]}", *map(str, values))
        tables.append(_table([header, *((name, *(rates[name, value] for value in values)) for name in names)]))
    return "\n".join(tables)


def _table(cells: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row, note in zip(cells, ["", *notes] if notes else [""] * len(cells), strict=True):
        first = f"  {row[0]:<{widths[0]}}"
        rest = (f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([first, *rest, note]).rstrip())
    return "\n".join(lines)
