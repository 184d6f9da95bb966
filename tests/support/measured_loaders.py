"""Rows of a table of loaders that nobody measured."""

from dogs_accel.throughput.cold_start import ColdStart
from dogs_accel.throughput.measure import (
    Row,
)


def row(name, ratio, is_ceiling=False, is_ours=False, cold=None, note=""):
    return Row(
        candidate=name, rate=100 * ratio, rate_low=90 * ratio, rate_high=110 * ratio, ratio=ratio,
        ratio_low=0.9 * ratio, ratio_high=1.2 * ratio, cpu_seconds_per_1000=12.345, cold=cold, is_ceiling=is_ceiling,
        is_ours=is_ours, note=note, seconds=(1.0,),
    )  # fmt: skip


ROWS = [
    row("published", 1.0, cold=ColdStart(0.5, 400.4, None)),
    row("auto", 12.5, is_ours=True, cold=ColdStart(0.25, 1234.0, 2000.0), note="is cached here"),
    row("read only", 80.0, is_ceiling=True),
]
