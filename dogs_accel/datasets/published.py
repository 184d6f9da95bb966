"""What was published about a dataset: figures that a run can check, and what a reader of results on it must know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.recipe import Recipe


@dataclass(frozen=True)
class Claim:
    """One published figure."""

    stage: str
    """Of the published page: x, T(x), z, g(z) or output."""
    subject: str
    """What it is of: data, or the name of a published run, or of two: "resnet50_full resnet50_staged"."""
    figure: str
    """What it says, for people."""
    value: Any
    decimals: int
    """Digits after the point as published."""
    kind: str
    """exact | interval | time | choice"""
    measure: tuple[Any, ...]
    """How ours is found: the name of a way and what it needs to know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRun:
    """A run whose figures were published."""

    family: str
    strategy: str
    model: str
    """As people call it."""
    train_recipe: Recipe
    bn_drifted: bool
    """Whether it has a BatchNorm that went on changing its statistics while the backbone was frozen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """All that was published about a dataset."""

    title: str
    num_classes: int
    num_images: Mapping[str, int]
    """By split."""
    image_means: tuple[float, float, float]
    """RGB: the mean of image means over all images."""
    gpu: str
    batch_size: int
    image_size: int
    runs: Mapping[str, PublishedRun]
    claims: tuple[Claim, ...]
    caveats: tuple[tuple[str, str], ...]
    """What a reader of results with pretrained weights must know: a heading and a sentence each."""
    wandb_group: str
