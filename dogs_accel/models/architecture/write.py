"""The files that show a network: a table for people, the same for programs, and a picture."""

from __future__ import annotations

from pathlib import Path

from dogs_accel.models.architecture.figure import architecture_figure
from dogs_accel.models.architecture.table import Architecture, as_json, as_table
from dogs_accel.plots import save_figure
from dogs_accel.runtime.files import write_csv, write_json

ARCHITECTURE_FILE, ARCHITECTURE_TABLE_FILE, ARCHITECTURE_FIGURE = (
    "architecture.json", "architecture.csv", "architecture.png",
)  # fmt: skip


def write_architecture(folder: Path, architecture: Architecture) -> list[Path]:
    """Write architecture.json, architecture.csv with a row a stage, and architecture.png."""
    return [
        write_json(folder / ARCHITECTURE_FILE, as_json(architecture)),
        write_csv(folder / ARCHITECTURE_TABLE_FILE, as_table(architecture)),
        save_figure(architecture_figure(architecture), folder / ARCHITECTURE_FIGURE),
    ]
