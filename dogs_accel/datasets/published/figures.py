"""What was published about a dataset: figures that a run can check, and what a reader of results on it must know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.recipe import Recipe

PhaseFields = Mapping[str, Any]
"""A phase as `training.phases.Phase.as_dict` writes it."""


@dataclass(frozen=True)
class Claim:
    """One published figure."""

    stage: str
    """Of the path from picture to answer: x, T(x), z, g(z) or output."""
    subject: str
    """What it is of: data, or the name of a published run, or of several: "resnet50_full resnet50_staged"."""
    figure: str
    """What it says, for people."""
    value: Any
    """(low, high) where a range was published; None where the publication has no figure."""
    decimals: int
    """Digits after the point as published; below 0 of a rounded count: -6 of "11M"."""
    kind: str
    """exact | interval | range | time | choice"""
    measure: tuple[Any, ...]
    """How ours is found: the name of a way and what it needs to know; empty where there is none."""
    note: str = ""
    """What must be said with every verdict on it."""
    obstacle: str = ""
    """Why nobody can judge it, whatever was run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRun:
    """A run whose figures were published. What the publication leaves open has several values."""

    family: str
    strategy: str
    """In a word, for people."""
    model: str
    """As people call it."""
    other_names: tuple[str, ...] = ()
    """What else records call the model."""
    weights: str = "imagenet"
    """At the start: imagenet or none."""
    schedules: Sequence[Sequence[PhaseFields]]
    """The phases, or each sequence of phases that they may have been; empty where nothing was said."""
    train_recipes: Sequence[Recipe]
    """At the run's input size and with its normalisation, the likeliest first."""
    eval_recipes: Sequence[Recipe]
    batch_sizes: Sequence[int]
    image_size: int
    """Side of the input in px."""
    precision: str = ""
    """float32, or that of autocast as records have it, such as float16; empty where nothing was said."""
    bn_drifted: bool = False
    """Whether it has a BatchNorm that went on changing its statistics while the backbone was frozen."""
    notes: tuple[str, ...] = ()
    """What must be said with every verdict on its results."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """All that was published about a dataset."""

    title: str
    num_classes: int
    num_images: Mapping[str, int] = field(default_factory=dict)
    """By split. Without val the publication validates on the test images. Empty where nothing was said."""
    about_images: int | None = None
    """In all, where no more than a round number is known."""
    val_share: float | None = None
    """Of the training images, where the publication carves validation out of them and gives no count."""
    image_means: tuple[float, float, float] | None = None
    """RGB: the mean of image means over all images."""
    gpu: str | None = None
    """What the published times were measured on."""
    runs: Mapping[str, PublishedRun] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    test_note: str = ""
    """What must be said with every verdict on a figure of the test images."""
    caveats: tuple[tuple[str, str], ...] = ()
    """What a reader of results with pretrained weights must know: a heading and a sentence each."""
    wandb_group: str | None = None


def phase_fields(mode: str, epochs: int, lr: float, weight_decay: float, **others: Any) -> PhaseFields:
    """Write a phase with those others in which it differs from `training.phases.Phase`'s defaults."""
    return {"name": mode, "mode": mode, "epochs": epochs, "lr": lr, "weight_decay": weight_decay, **others}


def schedule_text(phases: Sequence[PhaseFields]) -> str:
    """Say mode, epochs and learning rate of each phase: "head_only(3, 0.001) -> full_finetune(8, 0.0001)"."""
    return " -> ".join(f"{phase['mode']}({phase['epochs']}, {phase['lr']:g})" for phase in phases)
