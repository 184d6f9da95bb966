"""trials.csv: a row a trial of a sweep, with the value of each parameter."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from dogs_accel.runtime.files import write_csv
from dogs_accel.sweep.space import Parameter, Space, Value, value_text

TRIALS_FILE = "trials.csv"
TRIALS_FOLDER = "trials"
"""Below it lies the folder of each trial, by its number."""
State = Literal["complete", "pruned", "failed", "running"]
STATES: tuple[State, ...] = ("complete", "pruned", "failed", "running")
COMPLETE, PRUNED, FAILED, RUNNING = STATES
_COUNTS = ("number", "epochs", "num_val", "seed")
_TIMES = ("seconds", "overhead_seconds", "value")


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """What is known of one trial."""

    number: int
    """From 0, in the order in which trials were begun."""
    state: State
    run: str
    """Its folder, an ordinary folder of results, relative to the sweep's."""
    started: str
    """ISO 8601, UTC."""
    seconds: float = math.nan
    """From its first step to its last one, over all sessions that worked on it; NaN before the first has ended."""
    overhead_seconds: float = math.nan
    """Between the end of the trial before it, of the same worker, and its first training step; of the first trial of a
    worker that which a later one needs too."""
    epochs: int = 0
    """That it has trained."""
    value: float = math.nan
    """Its best validation accuracy so far; NaN before the first epoch has ended."""
    num_val: int = 0
    """Images of validation; 0 before the first epoch has ended, when nobody has counted them."""
    seed: int = 0
    """Of the weights, of order and of augmentation."""
    point: Mapping[str, Value] = field(default_factory=dict)
    """The value of each parameter, by its name."""
    reason: str = ""
    """Why it failed, in a line; empty of any other."""


REASON_COLUMN = "reason"
"""The last one, which tables of earlier versions do not have."""
TRIAL_COLUMNS = tuple(each.name for each in dataclasses.fields(TrialRow) if each.name not in ("point", REASON_COLUMN))
"""Of every sweep; those of its parameters follow, in the order of the space, and then REASON_COLUMN."""


def trial_folder(number: int) -> str:
    """Name the folder of a trial below the sweep's."""
    return f"{TRIALS_FOLDER}/{number:04}"


def write_trials(path: Path, rows: Sequence[TrialRow], space: Space) -> Path:
    """Write the table, in which what is not known is empty."""
    columns = {name: [getattr(row, name) for row in rows] for name in (*TRIAL_COLUMNS, REASON_COLUMN)}
    columns["num_val"] = [str(num) if num else "" for num in columns["num_val"]]
    points = {name: [value_text(row.point[name]) if name in row.point else "" for row in rows] for name in space.names}
    return write_csv(path, pd.DataFrame(columns | points, columns=[*TRIAL_COLUMNS, *space.names, REASON_COLUMN]))


def read_trials(path: Path, space: Space) -> pd.DataFrame:
    """Read the table of a sweep.

    Returns a row a trial, in their order: TRIAL_COLUMNS, of which counts are int64, 0 for a num_val that is not known,
    times and `value` float64 with NaN for what is not known, and the rest text; then a column of each parameter, with
    values as the space has them, and None where a trial was killed before it had one; then REASON_COLUMN, text. Raises
    ValueError, which names the file and the column, for another table, OSError where it is not there.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{path} cannot be read as a table ({error})") from error
    if missing := [name for name in (*TRIAL_COLUMNS, *space.names) if name not in table.columns]:
        raise ValueError(f"{path}: {', '.join(missing)} is absent, expected the trials of a sweep")
    try:
        for name in _COUNTS:
            table[name] = [0 if name == "num_val" and not text else int(text) for text in table[name]]
        for name in _TIMES:
            table[name] = [float(text) if text else math.nan for text in table[name]]
        if wrong := set(table["state"]) - set(STATES):
            raise ValueError(f"state: got {sorted(wrong)[0]!r}, expected one of {', '.join(STATES)}")
        for parameter in space.parameters:
            table[parameter.name] = _values(parameter, table[parameter.name])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if REASON_COLUMN not in table.columns:
        table[REASON_COLUMN] = ""
    return table[[*TRIAL_COLUMNS, *space.names, REASON_COLUMN]]


def _values(parameter: Parameter, texts: pd.Series) -> pd.Series:
    values = [parameter.read(text) if text else None for text in texts]
    return pd.Series(values, index=texts.index, dtype=object)
