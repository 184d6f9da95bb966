"""Commands again and again in one process, as a notebook or a service has them, and a long training."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dogs_accel import benchmark, cli
from dogs_accel.training.trainer import Trainer
from tests.support.soaking import Watch, repetitions, soak

pytestmark = pytest.mark.soak


@pytest.fixture
def silent() -> Callable[[list[str]], None]:
    """Run a command of `dogs-accel` without its words."""

    def run(arguments: list[str]) -> None:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            assert cli.main(arguments) == 0

    return run


def test_metadata(dogs_root: Path, tmp_path: Path, silent: Callable[[list[str]], None]) -> None:
    """With a store that is filled in the first pass and complete in the others."""
    arguments = ["metadata", "--data", str(dogs_root), "--out", str(tmp_path / "out"), "--num-threads", "2"]
    arguments += ["--store", str(tmp_path / "store"), "--image-size", "32"]
    soak("metadata", repetitions(50), lambda _: silent(arguments), bytes_each=50_000)


def test_eda(tiny_results: Path, tmp_path: Path, silent: Callable[[list[str]], None]) -> None:
    arguments = ["eda", "--metadata", str(tiny_results), "--out", str(tmp_path / "eda")]
    soak("eda", repetitions(50), lambda _: silent(arguments), bytes_each=100_000)


def test_predict(dogs_root: Path, tiny_results: Path, tmp_path: Path, silent: Callable[[list[str]], None]) -> None:
    photos = sorted(str(path) for path in dogs_root.rglob("*.jpg"))[:3]
    arguments = ["predict", *photos, "--run", str(tiny_results), "--device", "cpu", "--heatmap", str(tmp_path / "maps")]
    soak("predict", repetitions(50), lambda _: silent(arguments), bytes_each=50_000)


def test_training(dogs_root: Path, tmp_path: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held at the end of each epoch, so that what a run holds on to until it ends counts too."""
    epochs = repetitions(200)
    watch = Watch("training, epochs", epochs)
    run_epoch = Trainer._run_epoch

    def watched(self: Trainer, *arguments: Any) -> Any:
        row = run_epoch(self, *arguments)
        watch.after_one()
        return row

    monkeypatch.setattr(Trainer, "_run_epoch", watched)
    status = benchmark.main([
        "--data", str(dogs_root), "--preset", "demo", "--models", "resnet18", "--strategies", "full", "--epochs",
        str(epochs), "--image-size", "32", "--device", "cpu", "--wandb", "disabled", "--out", str(tmp_path / "run"),
    ])  # fmt: skip
    assert not status
    watch.check(bytes_each=20_000)
