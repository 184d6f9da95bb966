"""The feature maps of some images, chosen channel by channel, as the files feature_maps.json and feature_maps.npz.

feature_maps.json has

- image_size, and images: a list with the id, true_class, pred_class and confidence of each image;
- classes: the pair that channels tell apart; sample: num_images, seed and num_of_class of the pair; both null where
  there was no sample, which the images then stand for;
- measures: what the scores of active and of separating channels are, in words;
- stages: a list, first to last, each with name, kind, channels, cells [rows, columns], stored_cells (the same or fewer,
  by the mean over the part of the map that one stands for), cells_px (first_centre [down, across], step and source:
  where the cells lie in the fed crop), field (what `box` marks, in words) and
  - active: for each image a list of {"channel", "score"}, the most active first, and
  - separating: a list of {"channel", "d", "d_held_out"}, the best first; empty with too few images of a class.

feature_maps.npz has

- crops (N, S, S, 3) uint8: what the model was fed of each image, as pixels;
- active_<i> (N, K, h, w) uint8: the maps of stage i's active channels, of each image its own, in the order of the JSON;
- separating_<i> (N, K, h, w) uint8: those of the separating channels, the same for every image.

0 is the channel's mean over the cells of the sample, or less; 255 is the largest value that it has in the sample, or
more: LEVELS. So maps of one channel compare across images. A map is laid over the crop cell by cell, each cell centred
where cells_px puts it; stored cells are cells_px.step * cells / stored_cells apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dogs_accel.explain.cells import Places
from dogs_accel.explain.inside.channels import (
    ACTIVE,
    ACTIVE_ALONE,
    SEPARATES,
    ChannelSample,
    Separation,
    activity,
    activity_alone,
    sample_channels,
    separating_channels,
)
from dogs_accel.explain.inside.stage_maps import MOST_STAGES, StageMap, find_stage_maps, record_maps
from dogs_accel.models.architecture.stages import find_stages
from dogs_accel.runtime.files import replacing, write_json
from pipelines.loader import Batch

FEATURE_MAPS_FILE, FEATURE_MAP_ARRAYS_FILE = "feature_maps.json", "feature_maps.npz"
NUM_CHANNELS = 6
LEVELS = (
    "Dark is the mean of a channel over a sample of test images, or less; yellow is its largest value there, or more."
)
MOST_STORED = 56
"""Cells on a side of a stored map: of finer ones several become one."""


@dataclass(frozen=True, kw_only=True)
class ShownImages:
    """Images to look at, as the model is fed them."""

    images: Tensor
    """(N, 3, S, S)"""
    pixels: NDArray[np.uint8]
    """(N, S, S, 3)"""
    ids: list[str]
    true_class: list[str]
    """Empty words where it is not known."""
    pred_class: list[str]
    confidence: list[float]


@dataclass(frozen=True, kw_only=True)
class SampleFacts:
    """Which images a sample has."""

    labels: NDArray[np.int64]
    """(N,) in the order of their index."""
    pair: tuple[int, int]
    """Classes that channels are to tell apart."""
    class_names: Sequence[str]
    seed: int

    @property
    def pair_names(self) -> tuple[str, str]:
        """Names of the pair."""
        return self.class_names[self.pair[0]], self.class_names[self.pair[1]]


@dataclass(frozen=True, kw_only=True)
class InspectedStage:
    """The chosen channels of a stage, and their maps of the images."""

    stage: StageMap
    sample: ChannelSample
    active: NDArray[np.int64]
    """(N, K) channels of each image, the most active first."""
    scores: NDArray[np.float64]
    """(N, K) their scores."""
    active_maps: NDArray[np.float32]
    """(N, K, h, w)"""
    separating: list[Separation]
    separating_maps: NDArray[np.float32]
    """(N, K, h, w)"""

    def scaled(self, maps: NDArray[np.float32], channels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scale maps (..., K, h, w) of channels (..., K) to [0, 1]: see the module's first lines."""
        low, high = (
            values[channels][..., None, None]
            for values in (self.sample.means.mean(axis=0), self.sample.maxima.max(axis=0))
        )
        span = np.where(high > low, high - low, 1.0)
        return np.clip((maps - low) / span, 0, 1).astype(np.float32)

    @property
    def separating_index(self) -> NDArray[np.int64]:
        """(K,) channels that tell the pair apart."""
        return np.array([each.channel for each in self.separating], dtype=np.int64)


@torch.no_grad()
def inspect_stages(
    model: nn.Module,
    shown: ShownImages,
    batches: Iterable[Batch] | None,
    facts: SampleFacts | None,
    *,
    num_channels: int = NUM_CHANNELS,
    most: int | None = MOST_STAGES,
) -> list[InspectedStage]:
    """Look at the maps of some images, and run the model once over the batches of a sample to choose channels.

    Without batches and facts there is no sample: the active channels are those of ACTIVE_ALONE, none is separating,
    and maps are scaled by what the channel has in the images. Raises UnexplainableError for a model without maps.
    """
    stage_maps = find_stage_maps(model, shown.images, most)
    samples = None if batches is None else sample_channels(model, stage_maps, batches)
    stages = find_stages(model, shown.images[:1])
    parts = [record_maps(model, stage_maps, stages, image[None]) for image in shown.images]
    inspected = []
    for number, stage in enumerate(stage_maps):
        maps = torch.cat([each[number] for each in parts]).cpu().numpy()
        means = maps.mean(axis=(2, 3), dtype=np.float64)
        if samples is None or facts is None:
            flat = maps.reshape(*maps.shape[:2], -1)
            sample = ChannelSample(means=means, maxima=flat.max(axis=2).astype(np.float64), places=flat.argmax(axis=2))
            scores, separating = activity_alone(means), []
        else:
            sample = samples[number]
            scores = activity(means, sample)
            separating = separating_channels(sample.means, facts.labels, facts.pair, num_channels)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :num_channels]
        inspected.append(
            InspectedStage(
                stage=stage,
                sample=sample,
                active=order,
                scores=np.take_along_axis(scores, order, axis=1),
                active_maps=np.take_along_axis(maps, order[..., None, None], axis=1),
                separating=separating,
                separating_maps=maps[:, [each.channel for each in separating]],
            )
        )
    return inspected


def write_feature_maps(
    folder: Path, shown: ShownImages, inspected: Sequence[InspectedStage], facts: SampleFacts | None
) -> list[Path]:
    """Write feature_maps.json and feature_maps.npz, as this module's first lines describe them."""
    arrays: dict[str, NDArray[Any]] = {"crops": shown.pixels}
    for number, each in enumerate(inspected):
        arrays[f"active_{number}"] = _stored(each.scaled(each.active_maps, each.active))
        arrays[f"separating_{number}"] = _stored(each.scaled(each.separating_maps, each.separating_index))
    with replacing(folder / FEATURE_MAP_ARRAYS_FILE) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]  # a name is none of its settings
    content = {
        "image_size": shown.images.shape[-1],
        "images": [
            {"id": name, "true_class": true, "pred_class": pred, "confidence": confidence}
            for name, true, pred, confidence in zip(
                shown.ids, shown.true_class, shown.pred_class, shown.confidence, strict=True
            )
        ],
        "classes": None if facts is None else list(facts.pair_names),
        "sample": None if facts is None else _sample_as_json(facts),
        "measures": {"active": ACTIVE_ALONE if facts is None else ACTIVE, "separating": SEPARATES},
        "stages": [_stage_as_json(each) for each in inspected],
    }
    return [write_json(folder / FEATURE_MAPS_FILE, content), folder / FEATURE_MAP_ARRAYS_FILE]


def _sample_as_json(facts: SampleFacts) -> dict[str, Any]:
    return {
        "num_images": len(facts.labels),
        "seed": facts.seed,
        "num_of_class": [int((facts.labels == label).sum()) for label in facts.pair],
    }


def _stored(maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Turn maps (..., h, w) in [0, 1] into levels, of at most MOST_STORED cells on a side."""
    side = maps.shape[-1]
    if side > MOST_STORED:
        shares = _shares(side, MOST_STORED)
        maps = shares @ maps @ shares.T
    return np.rint(255 * maps).astype(np.uint8)


def _shares(side: int, fewer: int) -> NDArray[np.float64]:
    """How much of each of fewer cells each of the cells on a side makes up, (fewer, side), rows that sum to 1."""
    per, at = side / fewer, np.arange(side)
    start = per * np.arange(fewer)[:, None]
    return np.clip(np.minimum(start + per, at + 1) - np.maximum(start, at), 0, None) / per


def _stage_as_json(each: InspectedStage) -> dict[str, Any]:
    stage, stored = each.stage, min(each.stage.side, MOST_STORED)
    return {
        "name": stage.name,
        "kind": stage.kind,
        "channels": stage.channels,
        "cells": [stage.side, stage.side],
        "stored_cells": [stored, stored],
        "cells_px": _places_as_json(stage.places),
        "field": stage.box_is,
        "active": [
            [{"channel": int(c), "score": float(s)} for c, s in zip(channels, scores, strict=True)]
            for channels, scores in zip(each.active, each.scores, strict=True)
        ],
        "separating": [{"channel": one.channel, "d": one.d, "d_held_out": one.d_held_out} for one in each.separating],
    }


def _places_as_json(places: Places) -> dict[str, Any]:
    return {"first_centre": list(places.first), "step": places.step, "source": places.source}
