"""The report of a sweep: one page that opens without a network, in the look of the benchmark's report."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dogs_accel.plots import shortened
from dogs_accel.report.charts import nice_ticks
from dogs_accel.report.formats import ABSENT
from dogs_accel.report.rendering import SCRIPTS, STYLES, assets, page_environment
from dogs_accel.runtime.files import replacing
from dogs_accel.runtime.terminal import count_text
from dogs_accel.sweep.findings.best import BEST_SETTINGS_FILE
from dogs_accel.sweep.findings.importance import Correlation, Importance
from dogs_accel.sweep.findings.levels import HIGHER, LOWER, LevelFinding
from dogs_accel.sweep.findings.selection import SelectionBias
from dogs_accel.sweep.findings.sentences import CAUTION, SHOWN, Sentence, expected_text
from dogs_accel.sweep.findings.trials import SweepTrials, level_text
from dogs_accel.sweep.findings.views import coordinates_of, minutes_since_start, value_range
from dogs_accel.sweep.space import Parameter
from dogs_accel.sweep.trials import COMPLETE, FAILED, PRUNED, RUNNING

SWEEP_REPORT_FILE = "sweep_report.html"
_PACKAGE = "dogs_accel.sweep.findings"
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 280, 52, 14, 12, 44
_AXIS_PX, _PARALLEL_PX, _LONGEST_NAME = 104, 330, 15


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepFindings:
    """Everything that a report of a sweep says."""

    trials: SweepTrials
    levels: Sequence[LevelFinding]
    importance: Sequence[Importance]
    correlations: Sequence[Correlation]
    bias: SelectionBias | None
    """None where no trial is complete."""
    sentences: Sequence[Sentence]
    title: str
    meta: Sequence[str] = ()
    """Facts beside the title: the data, the sampler, the device."""
    notice: str = ""
    """What the data say of themselves, such as that they were generated."""
    settings: str = ""
    """The space and the fixed settings, as text."""
    confirmation: Mapping[str, Any] | None = None
    """What `confirmation_view` lays out; None where nothing was confirmed."""


def write_sweep_report(folder: Path, findings: SweepFindings) -> Path:
    """Write sweep_report.html into the folder of a sweep."""
    path = folder / SWEEP_REPORT_FILE
    with replacing(path) as temporary:
        temporary.write_text(render_sweep_report(findings), encoding="utf-8")
    return path


def render_sweep_report(findings: SweepFindings) -> str:
    """Lay out the page."""
    environment = page_environment(_PACKAGE)
    trials = findings.trials
    names = [parameter.name for parameter in trials.space.parameters]
    rows = _trial_rows(trials)
    counted = [row for row, is_counted in zip(rows, trials.is_counted, strict=True) if is_counted]
    return environment.get_template("sweep.html.j2").render(
        css=assets(environment, *STYLES, "sweep.css"),
        js=assets(environment, *SCRIPTS),
        own_js=assets(environment, "sweep.js"),
        title=findings.title,
        notice=findings.notice,
        meta=findings.meta,
        counts=_counts(trials),
        best=_best(trials),
        best_file=BEST_SETTINGS_FILE,
        bias=findings.bias,
        luck=None if findings.bias is None else expected_text(findings.bias),
        findings=sorted(
            (each for each in findings.sentences if each.kind != CAUTION), key=lambda each: each.kind != SHOWN
        ),
        cautions=[each for each in findings.sentences if each.kind == CAUTION],
        confirmation=findings.confirmation,
        time=_time(trials),
        parallel=_parallel(trials),
        importance=findings.importance,
        correlations=[_correlation_row(each) for each in findings.correlations],
        levels=[_level_row(each) for each in findings.levels],
        names=names,
        trials=rows,
        settings=findings.settings,
        data={"names": names, "trials": counted},
    )


def _known(value: float) -> float | None:
    """Give a number as JSON and tables have it, where what is not a number is not there."""
    return float(value) if math.isfinite(value) else None


def _counts(trials: SweepTrials) -> dict[str, int]:
    counts: dict[str, int] = {state: int((trials.states == state).sum()) for state in (PRUNED, FAILED, RUNNING)}
    return counts | {COMPLETE: len(trials.values)}


def _shown(parameter: Parameter, value: Any) -> str:
    is_absent = value is None or (isinstance(value, float) and math.isnan(value))
    return ABSENT if is_absent else level_text(value, is_choice=parameter.kind == "choice")


def _best(trials: SweepTrials) -> dict[str, Any] | None:
    if not len(trials.values):
        return None
    best = trials.best
    point = [(parameter.name, _shown(parameter, best[parameter.name])) for parameter in trials.space.parameters]
    return {"number": int(best["number"]), "value": float(best["value"]), "point": point}


def _trial_rows(trials: SweepTrials) -> list[dict[str, Any]]:
    levels = (
        np.stack([each.index for each in trials.levels], axis=1) if trials.levels else np.zeros((len(trials.table), 0))
    )
    return [
        {
            "number": int(row["number"]),
            "state": row["state"],
            "value": _known(row["value"]),
            "epochs": int(row["epochs"]),
            "seconds": _known(row["seconds"]),
            "shown": [_shown(parameter, row[parameter.name]) for parameter in trials.space.parameters],
            "reason": _text(row.get("reason")),
            "levels": [int(level) for level in own],
        }
        for row, own in zip(trials.table.to_dict("records"), levels, strict=True)
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _level_row(found: LevelFinding) -> dict[str, Any]:
    row = dataclasses.asdict(found)
    row |= {key: _known(value) for key, value in row.items() if isinstance(value, float)}
    others = [(found.num_pruned, "pruned"), (found.num_failed, "failed")]
    return row | {
        "name": found.name,
        "is_shown": found.verdict in (HIGHER, LOWER),
        "is_confounded": bool(found.confounded) and found.reason == found.confounded,
        "not_counted": ", ".join(f"{num} {word}" for num, word in others if num),
    }


def _correlation_row(found: Correlation) -> dict[str, Any]:
    def percent(value: float) -> float:
        return round(50 + 50 * value, 2)

    has_range = math.isfinite(found.low)
    return dataclasses.asdict(found) | {
        "low": _known(found.low),
        "high": _known(found.high),
        "left": percent(min(found.value, 0)),
        "width": round(50 * abs(found.value), 2),
        "range_left": percent(found.low) if has_range else None,
        "range_width": round(50 * (found.high - found.low), 2) if has_range else None,
    }


def _time(trials: SweepTrials) -> dict[str, Any] | None:
    """Place the trials in a chart of accuracy over time; None where none has a value."""
    values = trials.table["value"].to_numpy(dtype=np.float64)
    if not np.isfinite(values).any():
        return None
    minutes = minutes_since_start(trials)
    low, high = value_range(values[np.isfinite(values)])
    end = max(float(minutes.max()), 1e-9)

    def x(minute: float) -> float:
        return round(_LEFT + 6 + minute / end * (_WIDTH - _LEFT - _RIGHT - 12), 1)

    def y(value: float) -> float:
        return round(_HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM), 1)

    marks = []
    for row, minute, value in zip(trials.table.to_dict("records"), minutes, values, strict=True):
        if row["state"] == FAILED or math.isfinite(value):
            is_failed = row["state"] == FAILED
            text = "failed" if is_failed else f"{value:.4f} after {count_text(row['epochs'], 'epoch')}, {row['state']}"
            title = f"trial {row['number']}: {text}"
            marks.append(
                {"x": x(minute), "y": y(low) if is_failed else y(value), "state": row["state"], "title": title}
            )
    order = np.flatnonzero(trials.is_counted)[np.argsort(minutes[trials.is_counted], kind="stable")]
    best = np.maximum.accumulate(values[order])
    steps = [f"H{x(minutes[at])}V{y(top)}" for at, top in zip(order[1:], best[1:], strict=True)]
    path = f"M{x(minutes[order[0]])} {y(best[0])}" + "".join(steps) + f"H{x(end)}" if len(order) else ""
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "left": _LEFT,
        "right": _WIDTH - _RIGHT,
        "y_ticks": [(y(tick), f"{tick:g}") for tick in nice_ticks(low, high)],
        "x_ticks": [(x(tick), f"{tick:g}") for tick in nice_ticks(0, end, 6)],
        "trials": marks,
        "best": path,
    }


def _parallel(trials: SweepTrials) -> dict[str, Any] | None:
    """Place the complete trials as lines over axes; None where there is none."""
    if not len(trials.values):
        return None
    shown = coordinates_of(trials)
    width, top, bottom = _AXIS_PX * len(shown.axes), 30, _PARALLEL_PX - 14
    xs = [_AXIS_PX / 2 - 8 + _AXIS_PX * at for at in range(len(shown.axes))]
    low, high = float(trials.values.min()), float(trials.values.max())

    def y(place: float) -> float:
        return round(bottom - place * (bottom - top), 1)

    axes = [
        {
            "x": x,
            "name": axis.name,
            "short": shortened(axis.name, _LONGEST_NAME),
            "name_y": 16,
            "ticks": [(y(place), shortened(label, _LONGEST_NAME)) for place, label in axis.ticks],
        }
        for x, axis in zip(xs, shown.axes, strict=True)
    ]
    lines = []
    for at in np.argsort(trials.values, kind="stable"):
        kept = [(x, y(place)) for x, place in zip(xs, shown.places[at], strict=True) if math.isfinite(place)]
        lines.append(
            {
                "number": int(trials.counted.iloc[at]["number"]),
                "percent": round(100 * (trials.values[at] - low) / (high - low)) if high > low else 100,
                "d": "M" + "L".join(f"{px:g} {py:g}" for px, py in kept),
            }
        )
    return {
        "width": width,
        "height": _PARALLEL_PX,
        "min_width": round(0.78 * width),
        "top": top,
        "bottom": bottom,
        "axes": axes,
        "lines": lines,
        "low": f"{low:.3f}",
        "high": f"{high:.3f}",
        "least": low,
        "most": high,
        "picks": [{"name": each.name, "labels": each.labels} for each in trials.levels if len(each.labels) > 1],
    }
