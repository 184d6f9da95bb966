"""Weights & Biases: one real run of the real client for each training run, offline unless told otherwise."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

PROJECT = "dogs-accel"
JOB_TYPE = "train"
WANDB_MODES = ("offline", "online", "disabled")
WANDB_FOLDER = "wandb"
"""What W&B calls its folder."""


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class TrackingError(RuntimeError):
    """W&B refused to start a run; the message says why in one line."""


@dataclass
class TrackedRun:
    """A run as W&B knows it; with mode "disabled" only the record is kept."""

    name: str
    display_name: str
    mode: str
    folder: Path
    """Where W&B makes its own folder, WANDB_FOLDER."""
    group: str
    """What it belongs to: runs that are to be compared."""
    config: dict[str, Any]
    run_id: str = field(default_factory=lambda: secrets.token_hex(4))
    created_at: str = field(default_factory=_now)
    resumes: bool = False
    """Whether it goes on with a run of the same id, whose values are logged again."""
    updated_at: str = ""
    url: str | None = None
    entity: str | None = None
    state: str = "running"
    summary: dict[str, Any] = field(default_factory=dict)
    _run: Any = None

    def __enter__(self) -> TrackedRun:
        if self.mode != "disabled":
            import wandb

            self.folder.mkdir(parents=True, exist_ok=True)
            # What an offline run that was killed has logged is a part of what this one will log.
            for cut_short in (self.folder / WANDB_FOLDER).glob(f"offline-run-*-{self.run_id}"):
                shutil.rmtree(cut_short, ignore_errors=True)  # its service may be ending just now
            try:
                self._run = self._start()
            except wandb.errors.Error as error:
                raise TrackingError(f"wandb: {error} (--wandb offline needs no account)") from error
            self.entity = self._run.entity or None
            self.url = self._run.url if self.mode == "online" else None
        return self

    def _start(self) -> Any:
        import wandb

        return wandb.init(
            id=self.run_id,
            name=self.display_name,
            project=PROJECT,
            group=self.group,
            job_type=JOB_TYPE,
            config=self.config,
            dir=self.folder,
            mode=self.mode,  # type: ignore[arg-type]  # one of WANDB_MODES
            resume="allow" if self.resumes and self.mode == "online" else None,
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Record values of one epoch."""
        self.summary.update(values)
        if self._run is not None:
            self._run.log(dict(values), step=step)

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Record final values."""
        self.summary.update(values)
        if self._run is not None:
            self._run.summary.update(dict(values))

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self.state = "finished" if kind is None else "failed"
        self.updated_at = _now()
        if self._run is not None:
            self._run.finish(exit_code=0 if kind is None else 1)

    def as_record(self) -> dict[str, Any]:
        """Return everything that is known of the run, config and summary as dicts."""
        return {
            "run_id": self.run_id,
            "run_name": self.name,
            "display_name": self.display_name,
            "url": self.url,
            "state": self.state,
            "entity": self.entity,
            "project": PROJECT,
            "group": self.group,
            "job_type": JOB_TYPE,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "config": self.config,
            "summary": self.summary,
        }
