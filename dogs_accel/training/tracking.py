"""Weights & Biases: one real run of the real client for each training run, offline unless told otherwise."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dogs_accel.runtime.files import has_no_room

PROJECT = "dogs-accel"
JOB_TYPE = "train"
WANDB_MODES = ("offline", "online", "disabled")
WANDB_FOLDER = "wandb"
"""What W&B calls its folder."""
_OF_ONE_RUN = ("WANDB_MODE", "WANDB_NAME", "WANDB_RESUME", "WANDB_RUN_GROUP", "WANDB_RUN_ID", "WANDB_SWEEP_ID")
"""Variables of W&B that would give all runs of a command one id, or another mode than the one that was asked for."""
_REPORTS_ERRORS = "WANDB_ERROR_REPORTING"
"""Whether W&B's client tells its makers of its own errors, which it does offline too unless it is told not to."""
_ANSWERS_WITHIN_S, _STARTS_WITHIN_S = 5.0, 30.0
_log = logging.getLogger(__name__)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class PrunedError(Exception):
    """A run is given up, since others do better, which is no failure of it."""


class TrackingError(ValueError):
    """W&B could not start a run; the message says why in one line."""


def check_tracking(mode: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raise TrackingError where W&B is to be online and nobody is logged in or its server does not answer soon."""
    if mode != "online":
        return
    import wandb

    server = urlsplit(environment.get("WANDB_BASE_URL") or wandb.setup().settings.base_url)
    port = server.port or (80 if server.scheme == "http" else 443)
    # Behind a proxy the server itself need not be in reach.
    if not any(environment.get(name) for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")):
        try:
            socket.create_connection((server.hostname or "", port), timeout=_ANSWERS_WITHIN_S).close()
        except OSError as error:
            raise TrackingError(
                f"wandb: {server.hostname} does not answer ({error}) (--wandb offline needs no network)"
            ) from error
    try:
        is_logged_in, reason = wandb.login(), "nobody is logged in"
    except wandb.errors.Error as error:
        is_logged_in, reason = False, _one_line(error)
    if not is_logged_in:
        raise TrackingError(f"wandb: {reason} (--wandb offline needs no account)")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


@contextmanager
def _without(names: tuple[str, ...], environment: MutableMapping[str, str] = os.environ) -> Iterator[None]:
    kept = {name: environment.pop(name) for name in names if name in environment}
    try:
        yield
    finally:
        environment.update(kept)


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
    is_of_agent: bool = False
    """Whether W&B's agent started this process for the run, whose id and sweep are then in its variables."""
    lists_packages: bool = True
    """Whether W&B lists the packages of this environment, for which it reads each one's files again."""
    _run: Any = None

    def __enter__(self) -> TrackedRun:
        if self.mode != "disabled":
            self.folder.mkdir(parents=True, exist_ok=True)
            # What an offline run that was killed has logged is a part of what this one will log.
            for cut_short in self._own_folders():
                shutil.rmtree(cut_short, ignore_errors=True)  # its service may be ending just now
            self._tell(self._begin)
        return self

    def _begin(self) -> None:
        with _without(() if self.is_of_agent else _OF_ONE_RUN):
            self._run = self._start()
        self.run_id = self._run.id
        self.entity = self._run.entity or None
        self.url = self._run.url if self.mode == "online" else None

    def _tell(self, say: Callable[[], object]) -> None:
        """Do something with W&B; where that fails the run goes on without it, and says so."""
        try:
            say()
        except Exception as error:  # W&B raises what it pleases, and training is worth more than its diary
            self._run = None
            _log.warning("wandb: %s is not tracked from here on (%s)", self.display_name, _one_line(error))

    def _start(self) -> Any:
        if self.mode != "online":
            os.environ.setdefault(_REPORTS_ERRORS, "false")
        import wandb

        return wandb.init(
            id=None if self.is_of_agent else self.run_id,
            name=self.display_name,
            project=PROJECT,
            group=self.group,
            job_type=JOB_TYPE,
            config=self.config,
            dir=self.folder,
            mode=self.mode,  # type: ignore[arg-type]  # one of WANDB_MODES
            resume="allow" if self.resumes and self.mode == "online" else None,
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=_STARTS_WITHIN_S,
                x_save_requirements=self.lists_packages,
            ),
        )

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Record values of one epoch."""
        self.summary.update(values)
        if self._run is not None:
            run = self._run
            self._tell(lambda: run.log(dict(values), step=step))

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Record final values."""
        self.summary.update(values)
        if self._run is not None:
            run = self._run
            self._tell(lambda: run.summary.update(dict(values)))

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        is_pruned = kind is not None and issubclass(kind, PrunedError)
        self.state = "pruned" if is_pruned else "finished" if kind is None else "failed"
        self.updated_at = _now()
        if self._run is not None:
            run = self._run
            self._tell(lambda: run.finish(exit_code=0 if kind is None or is_pruned else 1))
            # Its service notices nothing where its folder was removed meanwhile.
            if self.mode == "offline" and self._run is not None and not self._own_folders():
                _log.warning("wandb: the folder of %s is gone, and what was logged with it", self.display_name)
            elif has_no_room(self.folder):
                _log.warning("wandb: the disk is full, so what was logged of %s may lack its end", self.display_name)

    def _own_folders(self) -> list[Path]:
        return list((self.folder / WANDB_FOLDER).glob(f"offline-run-*-{self.run_id}"))

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
