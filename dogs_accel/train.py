"""Training: phases over loaders, the history of every epoch, and the best weights on validation."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from dogs_accel.amp import autocast
from dogs_accel.checkpoint import load_checkpoint, save_checkpoint
from dogs_accel.models import count_trainable_params, set_train_mode, set_trainable_stage
from dogs_accel.phases import Phase, cosine_factor
from dogs_accel.scores import ScoreCounter, Scores
from pipelines.batch import Loader

TIMING_NOTE = (
    "training_seconds is the wall clock of training and validation over all epochs, the start of the loaders' workers "
    "included; building the model, writing checkpoints and the evaluation after training are left out"
)

HistoryRow = dict[str, Any]
"""One epoch, with the published columns: index counts rows from 0, stage the phases from 1, epoch the epochs of the
phase and epoch_total those of the run from 1; lr is read after the scheduler's step, as in the published files."""


@dataclass(frozen=True)
class TrainResult:
    """What a training run leaves behind, beside the model, which holds its best weights."""

    history: list[HistoryRow]
    best_epoch: int
    """Counted over the run, from 1."""
    best_val_accuracy: float
    training_seconds: float
    checkpoint_seconds: float
    images_per_second: float
    """Training and validation images over training_seconds."""


class DivergedError(ArithmeticError):
    """The loss of an epoch is not a finite number."""


class Trainer:
    """Trains one model through its phases."""

    def __init__(
        self,
        model: nn.Module,
        train_loader: Loader,
        val_loader: Loader,
        *,
        num_classes: int,
        device: torch.device,
        folder: Path,
        amp: torch.dtype | None = None,
        bn_when_frozen: str = "eval",
        label: str = "",
        on_epoch: Callable[[HistoryRow], None] | None = None,
    ) -> None:
        self.model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.train_loader = train_loader
        self.val_loader = val_loader
        self.num_classes = num_classes
        self.device = device
        self.folder = folder
        self.amp = amp
        self.bn_when_frozen = bn_when_frozen
        self.label = label
        self.on_epoch = on_epoch
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == torch.float16)
        self.history: list[HistoryRow] = []
        self._best: HistoryRow | None = None
        self._training_seconds = 0.0
        self._checkpoint_seconds = 0.0

    def run(self, phases: Sequence[Phase]) -> TrainResult:
        """Train through the phases; at the end the model holds the weights of its best validation accuracy.

        Raises DivergedError as soon as an epoch's loss is not finite.
        """
        for stage, phase in enumerate(phases, start=1):
            self._run_phase(stage, phase)
        if self._best is None:
            raise ValueError("phases: got none, expected at least one")
        self.model.load_state_dict(load_checkpoint(self.best_path)["model"])
        num_images = len(self.history) * (self.train_loader.num_samples + self.val_loader.num_samples)
        return TrainResult(
            history=self.history,
            best_epoch=self._best["epoch_total"],
            best_val_accuracy=self._best["val_acc"],
            training_seconds=self._training_seconds,
            checkpoint_seconds=self._checkpoint_seconds,
            images_per_second=num_images / self._training_seconds,
        )

    @property
    def best_path(self) -> Path:
        """Checkpoint with the weights of the best validation accuracy so far."""
        return self.folder / "best.pt"

    @property
    def last_path(self) -> Path:
        """Checkpoint of the epoch that ended last."""
        return self.folder / "last.pt"

    def _run_phase(self, stage: int, phase: Phase) -> None:
        set_trainable_stage(self.model, phase.mode)
        optimizer = torch.optim.AdamW(
            [parameter for parameter in self.model.parameters() if parameter.requires_grad],
            lr=phase.lr,
            weight_decay=phase.weight_decay,
            fused=True,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, functools.partial(cosine_factor, num_epochs=phase.epochs)
        )
        for epoch in range(1, phase.epochs + 1):
            start = time.perf_counter()
            train = self._train_epoch(optimizer, f"{phase.name} {epoch}/{phase.epochs}")
            val = self._validate(f"{phase.name} {epoch}/{phase.epochs} val")
            scheduler.step()
            self._training_seconds += time.perf_counter() - start
            row = self._history_row(stage, phase, epoch, train, val, float(scheduler.get_last_lr()[0]))
            if not math.isfinite(train.loss) or not math.isfinite(val.loss):
                raise DivergedError(
                    f"{self.label}: the loss of {phase.name} epoch {epoch} is {train.loss} in training and {val.loss} "
                    f"in validation at lr {phase.lr:g}; the state of the epoch before is in {self.last_path}"
                )
            self.history.append(row)
            self._save(optimizer, scheduler)
            if self.on_epoch is not None:
                self.on_epoch(row)

    def _train_epoch(self, optimizer: torch.optim.Optimizer, step: str) -> Scores:
        set_train_mode(self.model, self.bn_when_frozen)
        counter = ScoreCounter(self.num_classes, self.device)
        # The global epoch, so that no two phases see the same crops.
        self.train_loader.set_epoch(len(self.history))
        with self._bar(self.train_loader, step) as bar:
            for images, labels, _ in self.train_loader:
                optimizer.zero_grad(set_to_none=True)
                with autocast(self.device, self.amp):
                    logits = self.model(images)
                    loss = nn.functional.cross_entropy(logits, labels)
                self.scaler.scale(loss).backward()
                self.scaler.step(optimizer)
                self.scaler.update()
                counter.add(loss, logits, labels)
                bar.update(len(labels))
        return counter.scores()

    @torch.inference_mode()
    def _validate(self, step: str) -> Scores:
        self.model.eval()
        counter = ScoreCounter(self.num_classes, self.device)
        with self._bar(self.val_loader, step) as bar:
            for images, labels, _ in self.val_loader:
                with autocast(self.device, self.amp):
                    logits = self.model(images)
                    loss = nn.functional.cross_entropy(logits, labels)
                counter.add(loss, logits, labels)
                bar.update(len(labels))
        return counter.scores()

    def _bar(self, loader: Loader, step: str) -> Any:
        """Progress in images with rate and time left, on a terminal only."""
        return tqdm(
            total=loader.num_samples, desc=f"{self.label} {step}", unit=" img", leave=False, disable=None, delay=0.5
        )

    def _history_row(self, stage: int, phase: Phase, epoch: int, train: Scores, val: Scores, lr: float) -> HistoryRow:
        return {
            "index": len(self.history),
            "stage": stage,
            "epoch": epoch,
            "epoch_total": len(self.history) + 1,
            "train_loss": train.loss,
            "train_acc": train.accuracy,
            "train_macro_f1": train.macro_f1,
            "train_weighted_f1": train.weighted_f1,
            "val_loss": val.loss,
            "val_acc": val.accuracy,
            "val_macro_f1": val.macro_f1,
            "val_weighted_f1": val.weighted_f1,
            "lr": lr,
            "phase": phase.name,
            "trainable_params": count_trainable_params(self.model),
        }

    def _save(self, optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler) -> None:
        start = time.perf_counter()
        row = self.history[-1]
        if self._best is None or row["val_acc"] > self._best["val_acc"]:
            self._best = row
            save_checkpoint(self.best_path, {"model": self.model.state_dict(), "row": row})
        save_checkpoint(
            self.last_path,
            {
                "model": self.model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "scaler": self.scaler.state_dict(),
                "history": self.history,
                "best": self._best,
                "training_seconds": self._training_seconds,
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            },
        )
        self._checkpoint_seconds += time.perf_counter() - start
