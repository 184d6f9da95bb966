"""The settings of a sweep: what its runs share, what varies, how points are drawn, and how much it may cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.experiment.settings.files import read_toml, settings_of
from dogs_accel.runtime.arguments import as_typed, did_you_mean
from dogs_accel.runtime.files import read_json, write_json
from dogs_accel.sweep.space import Point, Space, check_point, read_space

SWEEP_FILE = "sweep.json"
"""Of a sweep's folder: its settings."""
SAMPLERS = ("bayes", "random", "grid")
PRUNINGS = ("halving", "none")
DEFAULT_TRIALS = 30
BUDGETS = ("trials", "total_epochs", "hours")
_TABLES = ("settings", "space", "sweep")
_WHERE = {"gpu", "device", "num_threads", "store", "loader", "wandb", "eval_batch_size"}
"""Settings of a run that say where and how it is computed, not what, and so may differ between workers."""
_MOST_POINTS = 1_000_000
_SHOWN = 40


def _option(default: Any, help: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A sweep before it has begun. Raises ValueError, which names the field, for what cannot be."""

    settings: Mapping[str, Any]
    """What all runs share, as `BenchmarkConfig` takes it."""
    space: Space
    name: str = _option("sweep", "what it is called, also as the group of its runs in W&B")
    sampler: str = _option(
        "bayes", "how points are drawn: bayes (TPE), random, or grid, which takes each point once, in random order"
    )
    seed: int = _option(42, "seed of what is drawn; every trial trains with the seed of the settings")
    pruning: str = _option(
        "halving",
        "halving gives up a trial whose validation accuracy is not among the best of its epoch; none does not",
    )
    halving_factor: int = _option(3, "of the trials that come so far one in so many goes on")
    halving_epochs: int = _option(
        1, "epochs after which it is asked first, then after that times the factor, and so on"
    )
    trials: int | None = _option(
        None, f"trials in all (default: all points of a grid, else {DEFAULT_TRIALS} where there is no other budget)"
    )
    total_epochs: int | None = _option(None, "epochs of all trials together; a trial that has begun goes on to its end")
    hours: float | None = _option(None, "hours after which this command begins no other trial")

    def __post_init__(self) -> None:
        for field, choices in (("sampler", SAMPLERS), ("pruning", PRUNINGS)):
            value = getattr(self, field)
            if value not in choices:
                near = did_you_mean(str(value), choices)
                raise ValueError(f"{field}: got {str(value)[:_SHOWN]!r}, expected one of {', '.join(choices)}{near}")
        least = {"seed": 0, "halving_factor": 2, "halving_epochs": 1, "trials": 1, "total_epochs": 1}
        for field, low in least.items():
            value = getattr(self, field)
            is_open = value is None and field in BUDGETS
            if not is_open and (not isinstance(value, int) or isinstance(value, bool) or not low <= value < 2**31):
                raise ValueError(f"{field}: got {str(value)[:_SHOWN]!r}, expected an integer >= {low}")
        if self.hours is not None:
            is_number = isinstance(self.hours, (int, float)) and not isinstance(self.hours, bool)
            if not is_number or not 0 < self.hours < math.inf:
                raise ValueError(f"hours: got {str(self.hours)[:_SHOWN]!r}, expected a number above 0")
        if not isinstance(self.name, str) or not self.name.isprintable() or not 1 <= len(self.name) <= _SHOWN * 2:
            raise ValueError(f"name: got {str(self.name)[:_SHOWN]!r}, expected up to {_SHOWN * 2} letters")
        if self.sampler == "grid":
            num = self.space.num_points
            if num is None:
                next(self.space.points())  # which says what has no end
            elif num > _MOST_POINTS:
                raise ValueError(f"sampler: got grid for {num:,} points, expected at most {_MOST_POINTS:,}")

    @property
    def most_trials(self) -> int | None:
        """How many trials there may be; None where another budget ends it."""
        num = self.space.num_points if self.sampler == "grid" else None
        if self.trials is None and num is None:
            return None if self.total_epochs or self.hours else DEFAULT_TRIALS
        return min(each for each in (self.trials, num) if each is not None)

    def config(self, point: Point, **where: Any) -> BenchmarkConfig:
        """Make the settings of the run at a point, without its test part; where: what is of this run alone."""
        return dataclasses.replace(check_point(self.settings, point), test=False, **where)

    def as_json(self) -> dict[str, Any]:
        """Lay out the file."""
        own = {name: getattr(self, name) for name in OWN_FIELDS}
        return {**own, "settings": dict(self.settings), "space": self.space.as_json()}

    def differs_from(self, other: SweepConfig) -> str | None:
        """Name the first thing that makes this another sweep than the other one, beside its budget; None if none."""
        for name in OWN_FIELDS:
            if name not in BUDGETS and getattr(self, name) != getattr(other, name):
                return f"{name}: got {getattr(self, name)}, which has {getattr(other, name)}"
        for name in dict.fromkeys([*self.settings, *other.settings]):
            one, there = self.settings.get(name), other.settings.get(name)
            if name not in _WHERE and one != there:
                return f"{name}: got {as_typed(one)}, which has {as_typed(there)}"
        if self.space != other.space:
            wrong = [str(each) for each in self.space.parameters if each not in other.space.parameters]
            return f"space: got {(wrong or ['another order'])[0]}, which has {', '.join(map(str, other.space.names))}"
        return None


OWN_FIELDS = tuple(field.name for field in dataclasses.fields(SweepConfig) if field.name not in ("settings", "space"))
"""Fields of a sweep beside its settings and its space: those of the table [sweep]."""


def read_sweep_file(path: Path, changes: Mapping[str, Any], settings: Mapping[str, Any]) -> SweepConfig:
    """Read SWEEP.toml: the tables settings, space and, if any, sweep; changes and settings win over it.

    Raises ValueError, which names the file and the field, OSError where the file is not there.
    """
    try:
        return sweep_of(read_toml(path), changes, settings)
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error


def sweep_of(content: Any, changes: Mapping[str, Any], settings: Mapping[str, Any]) -> SweepConfig:
    """Make a sweep of the three tables, as a file has them. Raises ValueError, which names the field."""
    if not isinstance(content, Mapping) or "space" not in content:
        raise ValueError("got no table [space], expected [settings], [space] and perhaps [sweep]")
    if unknown := sorted(content.keys() - set(_TABLES)):
        near = did_you_mean(unknown[0], _TABLES)
        raise ValueError(f"got {unknown[0][:_SHOWN]!r}, expected the tables {', '.join(_TABLES)}{near}")
    fixed = settings_of(content.get("settings", {}), "settings")
    fixed = {name: value for name, value in fixed.items() if value is not None} | dict(settings)
    if "data" in fixed:  # so that a trial's own settings hold in any folder
        fixed["data"] = str(Path(fixed["data"]).absolute())
    for name in ("out", "resume", "dry_run", "test", "seeds", "runs", "tta"):
        if name in fixed:
            raise ValueError(f"settings: got {name}, which a sweep decides for each trial")
    own = content.get("sweep", {})
    if not isinstance(own, Mapping):
        raise ValueError(f"sweep: got {str(own)[:_SHOWN]!r}, expected values by name")
    if unknown := sorted(own.keys() - set(OWN_FIELDS)):
        near = did_you_mean(unknown[0], OWN_FIELDS)
        raise ValueError(f"sweep: got {unknown[0][:_SHOWN]!r}, expected {', '.join(OWN_FIELDS)}{near}")
    return SweepConfig(settings=fixed, space=read_space(content["space"], fixed), **{**own, **changes})


def read_sweep(folder: Path) -> SweepConfig:
    """Read the settings of the sweep in a folder. Raises ValueError, which names the file, where there is none."""
    path = folder / SWEEP_FILE
    if not path.is_file():
        raise ValueError(f"{folder} holds no sweep ({SWEEP_FILE} is missing)")
    content = read_json(path)
    try:
        if not isinstance(content, Mapping) or not {"settings", "space"} <= content.keys():
            raise ValueError(f"got {str(content)[:_SHOWN]!r}, expected the settings of a sweep")
        own = {name: content[name] for name in OWN_FIELDS if name in content}
        space = Space.from_json(content["space"])
        return SweepConfig(settings=settings_of(content["settings"], "settings"), space=space, **own)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_sweep(folder: Path, sweep: SweepConfig) -> Path:
    """Write the settings of a sweep into its folder."""
    return write_json(folder / SWEEP_FILE, sweep.as_json())
