"""A finished run's model, ready to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from dogs_accel.evaluation.predictions import Predictions, predict
from dogs_accel.evaluation.tta import View, tta_views
from dogs_accel.models.build import build_model
from dogs_accel.models.specs import model_spec
from dogs_accel.results.run import Run
from dogs_accel.runtime.out_of_memory import Demand, within_memory
from dogs_accel.runtime.precision import autocast
from dogs_accel.training.checkpoint import BEST_WEIGHTS_FILE, OF_BEST, load_checkpoint, load_weights_of
from dogs_accel.training.step import StepSettings, prepare_model
from pipelines import Loader, Recipe, make_loader
from pipelines.torchloader import augment_images


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """The model of a finished run, and what its answers need."""

    run: Run
    model: nn.Module
    """On its device, in evaluation mode."""
    recipe: Recipe
    class_names: list[str]
    temperature: float | None
    """What the logits are divided by before the softmax; None where they are not, which `Run.why_no_temperature`
    explains."""
    device: torch.device
    amp: torch.dtype | None
    batch_size: int
    """Images that the model gets at once, at most."""

    def logits(self, paths: Sequence[str | Path]) -> Predictions:
        """Run the model over image files as the run's evaluation did; labels are all 0, ids are the paths.

        The pixels are the reference loader's, which reads whatever PIL opens. Raises BadImageError for a file that
        cannot be decoded, and BatchTooLargeError where the memory does not suffice.
        """
        with self.loader(paths) as loader:
            ids = [str(path) for path in paths]
            return predict(self.model, loader, ids, amp=self.amp, label=self.run.name, flag="--batch-size")

    def batch(self, resized: Sequence[Image.Image], view: View | None = None) -> torch.Tensor:
        """Make of resized photos what the model is fed, (B, 3, H, W) on its device: the reference loader's pixels.

        view: another way to show them than the evaluation's. What a random one draws is the same for every photo, so
        that none depends on which others are asked with it.
        """
        view = View(self.recipe) if view is None else view
        same = np.zeros(len(resized), dtype=np.int64)
        images = augment_images(resized, view.recipe, seed=self.run.seed, epoch=view.epoch, index=same)
        return images.to(self.device)

    def views(self, tta: str) -> list[View]:
        """List the views of a photo that `evaluation.tta` names so; the first is the evaluation's own.

        Raises ValueError for draws of a training recipe that an older version did not record.
        """
        if tta.isdecimal() and not self.run.record.train_recipe:
            raise ValueError(
                f"tta: got {tta}, but {self.run.name} recorded no training recipe; expected flip or five-crop"
            )
        training = Recipe.recorded(self.run.record.train_recipe) if tta.isdecimal() else self.recipe
        return tta_views(tta, self.recipe, training)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the softmax of logits (B, C) / temperature, of the logits themselves without one: (B, C) float64."""
        return (logits.double() / (1.0 if self.temperature is None else self.temperature)).softmax(dim=1)

    def answer(self, images: torch.Tensor) -> torch.Tensor:
        """Give the logits (B, C) float32, on the CPU, of a batch (B, 3, H, W) as `logits` does of files."""

        def ask(some: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode(), autocast(self.device, self.amp):
                return self.model(some).float().cpu()

        demand = Demand(
            work=f"the evaluation of {self.run.name}",
            num_images=len(images),
            image_size_px=self.recipe.crop,
            device=self.device,
            flag="--batch-size",
        )
        return within_memory(lambda: ask(images), demand, lambda num_images: ask(images[:num_images]))

    def loader(self, paths: Sequence[str | Path]) -> Loader:
        """Make a loader of image files as the model is fed them."""
        return make_loader(
            paths,
            np.zeros(len(paths), dtype=np.int64),
            self.recipe,
            backend="torch",
            batch_size=self.batch_size,
            device=self.device,
            num_threads=1,
        )


def load_trained(run: Run, device: torch.device, batch_size: int | None = None) -> TrainedModel:
    """Load the model of a run onto a device.

    It computes in the number type of the run where the device is of the run's kind, else in float32. batch_size None
    is that of the run's evaluation. Raises what `load_model` raises.
    """
    record = run.record
    same_kind = device.type == torch.device(record.device).type
    return TrainedModel(
        run=run,
        model=prepare_model(load_model(run), device, StepSettings(channels_last=record.step["channels_last"])),
        recipe=eval_recipe(run),
        class_names=run.class_names,
        temperature=run.temperature,
        device=device,
        amp=getattr(torch, record.amp) if record.amp is not None and same_kind else None,
        batch_size=record.eval_batch_size if batch_size is None else batch_size,
    )


def load_model(run: Run) -> nn.Module:
    """Build the model of a run with the weights that were tested, on the CPU in evaluation mode.

    Raises CheckpointError where they cannot be read or are not the model's.
    """
    path, identity = run.folder / BEST_WEIGHTS_FILE, run.record.identity
    state = load_checkpoint(path, OF_BEST)["model"]
    spec = model_spec(identity["model"], identity["image_size"])
    model = build_model(spec, run.record.config.num_classes, "none").model
    load_weights_of(path, model, state, run.title)
    return model.eval()


def eval_recipe(run: Run) -> Recipe:
    """Return the recipe that validation and test were loaded with."""
    return Recipe.recorded(run.record.eval_recipe)


def describe_trained(trained: TrainedModel) -> str:
    """Say in one line whose answers follow, and at which temperature, or why at none."""
    run = trained.run
    text = f"{run.name}: {run.title}, validation accuracy {run.val_accuracy:.4f}; "
    if trained.temperature is None:
        return text + f"probabilities not calibrated: {run.why_no_temperature}"
    return text + f"temperature {trained.temperature:.4g}"
