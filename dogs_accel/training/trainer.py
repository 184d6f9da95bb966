"""Training: phases over loaders, every epoch's history, the best weights on validation, going on after a kill."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dogs_accel.evaluation.scores import ScoreCounter, Scores
from dogs_accel.models.freezing import count_trainable_params, set_train_mode, set_trainable_stage, trained_names
from dogs_accel.models.layer_groups import layer_groups
from dogs_accel.runtime.memory import obtainable_bytes
from dogs_accel.runtime.out_of_memory import Demand, pixel_bytes, within_memory
from dogs_accel.runtime.processes import ALONE, World, share_gradients, share_statistics
from dogs_accel.training.checkpoint import (
    BEST_WEIGHTS_FILE,
    EMA,
    LAST_CHECKPOINT_FILE,
    OF_BEST,
    CheckpointError,
    load_checkpoint,
    load_resumable,
    load_weights_of,
    save_checkpoint,
)
from dogs_accel.training.ema import AveragedWeights
from dogs_accel.training.features import FeatureLoader, cache_features, head_of
from dogs_accel.training.mixing import mixer_of, refuse_mixed_features
from dogs_accel.training.optimizers import load_optimizer_state, phase_optimizer, set_rates
from dogs_accel.training.phases import MONITORED, Phase, Stage
from dogs_accel.training.step import (
    Forward,
    Loss,
    StepSettings,
    TrainingStep,
    forward_of,
    kept_bytes,
    make_scaler,
    prepare_model,
)
from dogs_accel.training.step_profile import EpochProfile, traced_steps
from pipelines.clock import StepClock
from pipelines.loader import Batch, Loader
from pipelines.progress import passing_bar

TIMING_NOTE = (
    "training_seconds is the wall clock of training and validation over all epochs, the start of the loaders' workers, "
    "compiling and caching features included; building the model, writing checkpoints, epochs that a kill cut short "
    "and the evaluation after training are left out"
)

_MOST_KEPT = 800
"""Times its own bytes that training keeps of an image for the backward, at most: known networks keep up to half."""

HistoryRow = dict[str, Any]
"""One epoch. First the published columns: index counts rows from 0, stage the phases from 1, epoch the epochs of the
phase and epoch_total those of the run from 1; lr is read after the scheduler's step, as in the published files. Then
`seconds`, training_seconds so far, and what EpochProfile measures of the first process. An epoch that mixed its images
says so under `mix`, and its training scores are those that ScoreCounter gives mixed images."""

EpochLoader = Loader | FeatureLoader


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
    """Training and validation images over training_seconds; images whose features were cached count every time."""
    sessions: list[dict[str, Any]]
    """What each process that worked on the run said of itself, with the epoch of the run that it began with."""


class DivergedError(ArithmeticError):
    """The loss of an epoch is not a finite number.

    what: what happened; remedy: what a user of the command line can do.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(f"{what}, {remedy}" if remedy else what)
        self.what = what


class Trainer:
    """Trains one model through its phases, alone or as one of the processes of a world.

    All randomness follows from (seed, epoch, rank), so that a run that goes on from a checkpoint sees what it would
    have seen. The batch of all processes together is the one that counts: `batch_size` of the loaders times the size
    of the world. Where `plain_train_loader` is given, the training images without augmentation, the head is trained on
    features of the frozen backbone that are computed once. `loss` is that of training, the cross-entropy where a phase
    smooths labels; the loss of validation is the cross-entropy whatever that is, so that runs compare. identity says
    what makes this run the run that it is; a checkpoint of another one is refused. session says where this process
    computes it, for the record. checkpoint_every_s leaves at least so many seconds between two checkpoints, where the
    epochs are short. on_epoch and on_resume get the history so far.
    """

    def __init__(
        self,
        model: nn.Module,
        train_loader: Loader,
        val_loader: Loader,
        *,
        num_classes: int,
        device: torch.device,
        folder: Path,
        seed: int = 0,
        settings: StepSettings = StepSettings(),  # noqa: B008  # frozen
        loss: Loss = nn.functional.cross_entropy,
        bn_when_frozen: str = "eval",
        plain_train_loader: Loader | None = None,
        world: World = ALONE,
        identity: Mapping[str, Any] | None = None,
        session: Mapping[str, Any] | None = None,
        label: str = "",
        trace: bool = False,
        checkpoint_every_s: float = 0.0,
        on_epoch: Callable[[list[HistoryRow]], None] | None = None,
        on_resume: Callable[[list[HistoryRow]], None] | None = None,
    ) -> None:
        self.model = prepare_model(share_statistics(model, world, device), device, settings)
        self.train_loader = train_loader
        self.val_loader = val_loader
        self.plain_train_loader = plain_train_loader
        self.num_classes = num_classes
        self.device = device
        self.folder = folder
        self.seed = seed
        self.settings = settings
        self.loss = loss
        self.bn_when_frozen = bn_when_frozen
        self.world = world
        self.identity = dict(identity or {})
        self.label = label
        self.trace = trace
        self.checkpoint_every_s = checkpoint_every_s
        self.on_epoch = on_epoch
        self.on_resume = on_resume
        self.scaler = make_scaler(device, settings)
        self.clock = StepClock(device)
        self.history: list[HistoryRow] = []
        self.sessions: list[dict[str, Any]] = [{"first_epoch": 1, **(session or {})}]
        self._best: HistoryRow | None = None
        self._unsaved_best: dict[str, torch.Tensor] | None = None
        self._saved_at = time.perf_counter()
        self._optimizer_state: dict[str, Any] | None = None
        self._averages: dict[str, torch.Tensor] | None = None
        self._chooser: Phase | None = None
        self._training_seconds = 0.0
        self._checkpoint_seconds = 0.0
        self._image_bytes = 0
        self._num_groups = len(layer_groups(self.model))
        train_loader.clock = self.clock

    def run(self, phases: Sequence[Phase], *, resume: bool = False) -> TrainResult:
        """Train through the phases; at the end the model holds the weights of its best epoch.

        That is the one of the highest validation accuracy, or of the lowest validation loss where the last phase
        monitors the loss; the first one of equals. resume goes on after the epoch that ended last in the folder, if any
        did. Raises DivergedError as soon as an epoch's loss is not finite, CheckpointError for checkpoints that are
        damaged or another run's, and BatchTooLargeError, which names a batch that fits, where the memory does not
        suffice.
        """
        if not phases:
            raise ValueError("phases: got none, expected at least one")
        if self.plain_train_loader is not None:
            refuse_mixed_features(phases)
        num_images, num_processes = self.train_loader.dataset_size, self.world.size
        if num_images < num_processes:
            raise ValueError(f"train_loader: got {num_images} images for {num_processes} processes, expected more")
        if self.loss is not nn.functional.cross_entropy and any(phase.label_smoothing for phase in phases):
            raise ValueError("label_smoothing: got it with a loss that is not the cross-entropy, expected 0")
        self._chooser = phases[-1]
        if resume:
            self._restore()
        for stage, phase in enumerate(phases, start=1):
            self._run_phase(stage, phase)
        assert self._best is not None
        self._save_best()
        best = self.world.broadcast(lambda: load_checkpoint(self.best_path, OF_BEST)["model"])
        load_weights_of(self.best_path, self.model, best, self.label or "the model")
        num_seen = len(self.history) * (self.train_loader.dataset_size + self.val_loader.dataset_size)
        return TrainResult(
            history=self.history,
            best_epoch=self._best["epoch_total"],
            best_val_accuracy=self._best["val_acc"],
            training_seconds=self._training_seconds,
            checkpoint_seconds=self._checkpoint_seconds,
            images_per_second=num_seen / self._training_seconds,
            sessions=self.sessions,
        )

    @property
    def best_path(self) -> Path:
        """Checkpoint with the weights of the best epoch so far."""
        return self.folder / BEST_WEIGHTS_FILE

    @property
    def last_path(self) -> Path:
        """Checkpoint of the epoch that ended last."""
        return self.folder / LAST_CHECKPOINT_FILE

    def _run_phase(self, stage: int, phase: Phase) -> None:
        column = MONITORED[phase.monitor]
        monitored = [row[column] for row in self.history if row["stage"] == stage]
        if len(monitored) == phase.epochs or phase.stops_after(monitored):
            return
        course = self._course(stage, phase)
        optimizer = phase_optimizer(self.model, phase, self.settings)
        if monitored:
            self._take_up(course, optimizer)
        else:  # later it was counted before the run was stopped
            self._training_seconds += course.features_seconds
        self._optimizer_state = self._averages = None
        step, trained = None, None
        while len(monitored) < phase.epochs and not phase.stops_after(monitored):
            epoch = len(monitored)
            stage_now = phase.stage_at(epoch, self._num_groups)
            if step is None or stage_now != trained:
                step, trained = self._make_step(course, optimizer, stage_now), stage_now
            row = self._run_epoch(course, epoch, step)
            monitored.append(row[column])
            self.history.append(row)
            self._save(course, optimizer)
            if self.on_epoch is not None:
                self.on_epoch(self.history)

    def _take_up(self, course: _Course, optimizer: torch.optim.Optimizer) -> None:
        """Go on with the optimiser and the average of the checkpoint, in the middle of a phase."""
        assert self._optimizer_state is not None
        load_optimizer_state(optimizer, self._optimizer_state)
        if course.average is not None:
            if self._averages is None:
                raise CheckpointError(f"checkpoint: {self.last_path} is incomplete: {EMA} is absent")
            try:
                course.average.load_state_dict(self._averages)
            except ValueError as error:
                raise CheckpointError(f"checkpoint: {self.last_path} does not fit the phase ({error})") from error

    def _course(self, stage: int, phase: Phase) -> _Course:
        """Choose what a phase runs: the whole model over images, or its head over features."""
        model = self.model
        train: EpochLoader = self.train_loader
        val: EpochLoader = self.val_loader
        features_seconds = 0.0
        if self.plain_train_loader is not None and phase.mode == "head_only":
            start = time.perf_counter()
            train = self._cache_features(self.plain_train_loader, self.train_loader)
            val = self._cache_features(self.val_loader, self.val_loader)
            model = head_of(model)
            features_seconds = time.perf_counter() - start
        forward = forward_of(model, self.device, self.settings)
        average = None
        if phase.ema_decay:
            trained = trained_names(self.model, *phase.stage_at(phase.epochs - 1, self._num_groups))
            average = AveragedWeights(self.model, trained, phase.ema_decay)
        return _Course(stage, phase, model, train, val, forward, features_seconds, average)

    def _cache_features(self, loader: Loader, like: Loader) -> FeatureLoader:
        forward = forward_of(self.model, self.device, self.settings)
        return within_memory(
            lambda: cache_features(self.model, loader, like, self.world, self.settings.amp),
            self._demand(loader, "--eval-batch-size"),
            lambda num_images: self._evaluate_dummy_batch(forward, num_images),
        )

    def _make_step(self, course: _Course, optimizer: torch.optim.Optimizer, stage: Stage) -> TrainingStep:
        set_trainable_stage(self.model, *stage)
        self._image_bytes = self._kept_image_bytes(course)
        return TrainingStep(
            share_gradients(course.model, self.world, self.device),
            optimizer,
            device=self.device,
            settings=self.settings,
            scaler=self.scaler,
            clock=self.clock,
            loss=self._loss_of(course.phase),
            clip_norm=course.phase.clip_norm,
            after_step=None if course.average is None else course.average.update,
        )

    def _kept_image_bytes(self, course: _Course) -> int:
        """Measure what training keeps of an image, on a CPU where a batch of it may not fit; 0 where it is sure to."""
        loader, room = self.train_loader, obtainable_bytes()
        most = _MOST_KEPT * pixel_bytes(loader.recipe.crop) * min(loader.batch_size, loader.num_samples)
        if self.device.type != "cpu" or isinstance(course.train, FeatureLoader) or room is None or most <= room:
            return 0
        if self.settings.compile:  # what is compiled keeps less
            return 0
        set_train_mode(self.model, self.bn_when_frozen)
        # The difference of two, without what is kept once, such as weights that autocast has rounded.
        two, four = (
            kept_bytes(course.model, self._dummy_batch(num, course.train)[0], self.settings.amp) for num in (2, 4)
        )
        return max(0, four - two) // 2

    def _loss_of(self, phase: Phase) -> Loss:
        if not phase.label_smoothing:
            return self.loss
        return functools.partial(nn.functional.cross_entropy, label_smoothing=phase.label_smoothing)

    def _run_epoch(self, course: _Course, epoch: int, step: TrainingStep) -> HistoryRow:
        phase = course.phase
        title = f"{self.label} {phase.name} {epoch + 1}/{phase.epochs}"
        profile = EpochProfile(self.clock, self.device)
        train = within_memory(
            lambda: self._train_epoch(course, epoch, step, title),
            self._demand(self.train_loader, "--batch-size", self._image_bytes),
            lambda num_images: self._train_on_dummy_batch(course, step, num_images),
        )
        profile.end_training()
        val = within_memory(
            lambda: self._validate(course, f"{title} val"),
            self._demand(self.val_loader, "--eval-batch-size"),
            lambda num_images: self._evaluate_dummy_batch(course.forward, num_images),
        )
        measured = profile.row(course.train.dataset_size)
        self._training_seconds += measured["epoch_seconds"]
        if not math.isfinite(train.loss) or not math.isfinite(val.loss):
            raise DivergedError(
                f"{self.label}: the loss of {phase.name} epoch {epoch + 1} is {train.loss} in training and {val.loss} "
                f"in validation at lr {phase.lr:g}; {self._what_is_kept()}; the same settings lead there again",
                f"so run it anew with a smaller rate, such as --set lr={min(phase.lr / 10, 1e-3):g}",
            )
        return {
            "index": len(self.history),
            "stage": course.stage,
            "epoch": epoch + 1,
            "epoch_total": len(self.history) + 1,
            **train.as_columns("train"),
            **val.as_columns("val"),
            "lr": phase.lr_after(epoch, self._num_steps(course)),
            "phase": phase.name,
            "trainable_params": count_trainable_params(self.model),
            "seconds": self._training_seconds,
            **measured,
            "features_s": course.features_seconds if epoch == 0 else 0.0,
            **({} if phase.mix == "none" else {"mix": phase.mix}),
        }

    def _what_is_kept(self) -> str:
        if not self.history:
            return "it is the first epoch of the run, so that no checkpoint was written"
        return f"the state of the epoch before is in {self.last_path}"

    def _num_steps(self, course: _Course) -> int:
        """Steps of an epoch, in which all processes take part."""
        return -(-course.train.dataset_size // (course.train.batch_size * self.world.size))

    def _train_epoch(self, course: _Course, epoch: int, step: TrainingStep, title: str) -> Scores:
        set_train_mode(self.model, self.bn_when_frozen)
        counter = ScoreCounter(self.num_classes, self.device)
        # The global epoch, so that no two phases see the same crops.
        course.train.set_epoch(len(self.history))
        torch.manual_seed(_epoch_seed(self.seed, len(self.history), self.world.rank))
        num_steps = self._num_steps(course)
        set_rates(step.optimizer, course.phase, epoch, 0, num_steps)
        mixer = mixer_of(course.phase, seed=self.seed, epoch=len(self.history))
        trace_path = self._trace_path(course, epoch)
        with self._bar(course.train, title) as bar, traced_steps(trace_path, num_steps) as step_done:
            self.clock.mark("start")
            for at, (batch, weight) in enumerate(self._weighted(course.train, num_steps)):
                self.clock.mark("data_wait")
                if course.phase.moves_within(epoch):
                    set_rates(step.optimizer, course.phase, epoch, at, num_steps)
                num_images = len(batch.labels)
                # The rest of an epoch may be one image, which BatchNorm may refuse; two of it have the same loss.
                shown = _twice(batch) if num_images == 1 < course.train.batch_size else batch
                mixed = None if mixer is None else mixer(at, shown.images, shown.labels)
                loss, logits = step(shown.images, shown.labels, weight, mixed)
                if weight:
                    counter.add(loss, logits[:num_images], batch.labels, mixed)
                    bar.update(num_images)
                step_done()
        # Where BatchNorm sees the batch of its own process only, all go on with the statistics of the first.
        self.world.broadcast_tensors(self.model.buffers())
        if course.average is not None:
            self.world.broadcast_tensors(course.average.buffers)
        return counter.scores(self.world)

    def _weighted(self, loader: EpochLoader, num_steps: int) -> Iterator[tuple[Batch, float]]:
        """Give each batch of this process the weight that makes the mean over processes the mean over their images.

        A process that has no image left of the last batch takes part with one that weighs nothing.
        """
        batches, global_size = iter(loader), loader.batch_size * self.world.size
        batch: Batch | None = None
        for at in range(num_steps):
            following = next(batches, None)
            if following is not None:
                batch = following
                num_images = min(global_size, loader.dataset_size - at * global_size)
                yield batch, len(batch.labels) * self.world.size / num_images
            else:
                assert batch is not None
                yield _twice(batch), 0.0  # since BatchNorm may refuse one

    def _trace_path(self, course: _Course, epoch: int) -> Path | None:
        wanted = self.trace and epoch == 0 and self.world.is_rank_zero
        return self.folder / f"trace_{course.stage}_{course.phase.name}.json.gz" if wanted else None

    def _validate(self, course: _Course, title: str) -> Scores:
        self.model.eval()
        counter = ScoreCounter(self.num_classes, self.device)
        with course.averaged(), torch.inference_mode(), self._bar(course.val, title) as bar:
            for images, labels, _ in course.val:
                loss, logits = course.forward(images, labels)
                counter.add(loss, logits, labels)
                bar.update(len(labels))
        return counter.scores(self.world)

    def _demand(self, loader: Loader, flag: str, image_bytes: int = 0) -> Demand:
        is_train = loader is self.train_loader
        return Demand(
            work=f"the training of {self.label}" if is_train else f"the evaluation of {self.label}",
            num_images=min(loader.batch_size, loader.num_samples) * (self.world.size if is_train else 1),
            image_size_px=loader.recipe.crop,
            device=self.device,
            flag=flag,
            num_processes=self.world.size,
            least=2 if is_train else 1,  # BatchNorm may refuse one
            image_bytes=image_bytes,
        )

    def _train_on_dummy_batch(self, course: _Course, step: TrainingStep, num_images: int) -> None:
        """Take two steps as training does, the first of which makes the optimiser's state; the weights are spoilt."""
        step.drop_graph()
        # Unscaled: a scaler may leave the optimiser's step out.
        scaler = torch.amp.GradScaler(self.device.type, enabled=False)
        again = TrainingStep(
            course.model, step.optimizer, device=self.device, settings=self.settings, scaler=scaler, loss=self.loss
        )
        set_train_mode(self.model, self.bn_when_frozen)
        for _ in range(2):
            again(*self._dummy_batch(num_images, course.train))

    @torch.inference_mode()
    def _evaluate_dummy_batch(self, forward: Forward, num_images: int) -> None:
        self.model.eval()
        forward(*self._dummy_batch(num_images, self.val_loader))

    def _dummy_batch(self, num_images: int, loader: EpochLoader) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and labels of one class, or features where the loader gives those."""
        labels = torch.zeros(num_images, dtype=torch.int64, device=self.device)
        if isinstance(loader, FeatureLoader):
            return loader.features.new_zeros(num_images, *loader.features.shape[1:]), labels
        shape = (num_images, 3, loader.recipe.crop, loader.recipe.crop)
        return torch.zeros(shape, device=self.device, dtype=torch.float32).contiguous(
            memory_format=torch.channels_last
        ), labels

    def _bar(self, loader: EpochLoader, title: str) -> Any:
        """Progress in images of this process with rate and time left, of the first one, on a terminal only."""
        return passing_bar(loader.num_samples, title, shown=self.world.is_rank_zero)

    def _save(self, course: _Course, optimizer: torch.optim.Optimizer) -> None:
        start = time.perf_counter()
        row = self.history[-1]
        assert self._chooser is not None
        is_best = self._chooser.is_better(row, self._best)
        if is_best:
            self._best = row
        if not self._is_due():
            if is_best:
                with course.averaged():
                    self._unsaved_best = {name: value.clone() for name, value in self.model.state_dict().items()}
        elif self.world.is_rank_zero:
            # In this order: where the last one says that it is the best too, the best can be made from it.
            save_checkpoint(
                self.last_path,
                {
                    "identity": self.identity,
                    "model": self.model.state_dict(),
                    "optimizer": optimizer.state_dict()["state"],
                    "scaler": self.scaler.state_dict(),
                    "history": self.history,
                    "best": self._best,
                    "training_seconds": self._training_seconds,
                    "checkpoint_seconds": self._checkpoint_seconds,
                    "sessions": self.sessions,
                    **({} if course.average is None else {EMA: course.average.state_dict()}),
                },
            )
            if is_best:
                with course.averaged():
                    save_checkpoint(self.best_path, {"model": self.model.state_dict(), "row": row})
                self._unsaved_best = None
            self._save_best()
        self._checkpoint_seconds += time.perf_counter() - start

    def _is_due(self) -> bool:
        """Whether a checkpoint is to be written after this epoch."""
        if time.perf_counter() - self._saved_at < self.checkpoint_every_s:
            return False
        self._saved_at = time.perf_counter()
        return True

    def _save_best(self) -> None:
        """Write the best weights where they are of an epoch after which no checkpoint was written."""
        if self._unsaved_best is not None and self.world.is_rank_zero:
            save_checkpoint(self.best_path, {"model": self._unsaved_best, "row": self._best})
        self._unsaved_best = None

    def _restore(self) -> None:
        """Take up the state of the last checkpoint, if there is one."""

        def load() -> dict[str, Any] | None:
            if not self.last_path.exists():
                return None
            return load_resumable(self.last_path, self.best_path, self.identity)

        state = self.world.broadcast(load)
        if state is None:
            return
        load_weights_of(self.last_path, self.model, state["model"], self.label or "the model")
        self.scaler.load_state_dict(state["scaler"])
        self.history, self._best = state["history"], state["best"]
        self._training_seconds = state["training_seconds"]
        self._checkpoint_seconds = state["checkpoint_seconds"]
        [own] = self.sessions
        self.sessions = [*state["sessions"], {**own, "first_epoch": len(self.history) + 1}]
        self._optimizer_state, self._averages = state["optimizer"], state.get(EMA)
        if self.on_resume is not None:
            self.on_resume(self.history)


@dataclass(frozen=True)
class _Course:
    """What a phase trains and validates."""

    stage: int
    phase: Phase
    model: nn.Module
    train: EpochLoader
    val: EpochLoader
    forward: Forward
    """Of validation."""
    features_seconds: float
    """What caching features took."""
    average: AveragedWeights | None
    """Of the weights, where the phase has one."""

    def averaged(self) -> AbstractContextManager[None]:
        """Let the model have the weights that are validated and kept."""
        return nullcontext() if self.average is None else self.average.in_place()


def _epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """Seed of what the model itself draws, such as dropout."""
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1, np.uint64)[0])


def _twice(batch: Batch) -> Batch:
    """Make a batch of the first image of one, twice."""
    return Batch(*(tensor[:1].expand(2, *tensor.shape[1:]) for tensor in batch))
