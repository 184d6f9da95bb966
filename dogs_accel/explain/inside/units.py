"""Ten units of the last stage with a map: what in an image makes each of them active, and what that is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dogs_accel.explain.inside.inspection import InspectedStage
from dogs_accel.explain.inside.saliency import INTEGRATED, Saliency, SaliencyMethod, choose_saliency, units_of
from dogs_accel.explain.inside.sanity import (
    SanityCheck,
    edges,
    mean_known,
    saliency_similarity,
    shuffled_copy,
)
from dogs_accel.explain.inside.stage_maps import StageMap, record_maps
from dogs_accel.models.architecture.stages import ModelStages, find_stages

NUM_UNITS = 10


@dataclass(frozen=True, kw_only=True)
class ShownUnit:
    """A unit in an image: a channel in the cell where it is largest."""

    channel: int
    score: float
    """How active the channel is in the image."""
    row: int
    column: int
    box: tuple[float, float, float, float]
    """What `StageMap.box` marks of the cell, in px of the crop."""
    saliency: Tensor
    """(3, S, S), signed."""


@dataclass(frozen=True, kw_only=True)
class UnitPictures:
    """The units of each image, how they are shown, and what the pictures are worth."""

    method: SaliencyMethod
    stage: StageMap
    units: list[list[ShownUnit]]
    """By image, the most active first."""
    check: SanityCheck
    unaccounted: float | None
    """Of integrated gradients, which should add up to what a unit gains from their start to the image: the share of the
    gains that they miss, over all units. A network that normalises its first map, as ConvNeXt does, jumps right behind
    the start, where they cannot follow."""

    @property
    def account(self) -> str:
        """Say how far the pictures add up to what they are of; nothing of a method that does not claim it."""
        if self.unaccounted is None:
            return ""
        missed = f"{100 * min(self.unaccounted, 1):.0f} %"
        return f"they miss {missed} of what the units gain from the mean colour to the image"


def show_units(
    model: nn.Module, inspected: InspectedStage, images: Tensor, *, seed: int = 0, num: int = NUM_UNITS
) -> UnitPictures:
    """Show the units of a stage that are most active in images (N, 3, S, S), and check the pictures.

    The stage has to be inspected with as many channels as units are shown. The model's gradients stay as they are.
    """
    stage = inspected.stage
    method = choose_saliency(model, stage.size_px)
    stages = find_stages(model, images[:1])
    shuffled = shuffled_copy(model, images, seed)
    with torch.no_grad():
        [maps] = record_maps(model, [stage], stages, images)
        [shuffled_maps] = record_maps(shuffled, [stage], stages, images)
        [start] = record_maps(model, [stage], stages, torch.zeros_like(images[:1]))
    found: list[list[ShownUnit]] = [[] for _ in images]
    missed = gained = 0.0
    with_shuffled, with_edges = [], []
    edge_maps = edges(images)
    for rank in range(min(num, inspected.active.shape[1])):
        channels = inspected.active[:, rank].tolist()
        cells = [divmod(int(maps[at, channel].argmax()), stage.side) for at, channel in enumerate(channels)]
        own = _saliencies(method.compute, model, stage, stages, images, channels, cells)
        # Which channel it is says nothing where weights are shuffled, but one that is silent has nothing to show.
        loud = [
            int(own_maps[:, row, column].argsort(descending=True)[rank])
            for own_maps, (row, column) in zip(shuffled_maps, cells, strict=True)
        ]
        other = _saliencies(method.compute, shuffled, stage, stages, images, loud, cells)
        for at, (channel, (row, column)) in enumerate(zip(channels, cells, strict=True)):
            box = stage.seen_box(row, column)
            gain = float(maps[at, channel, row, column] - start[0, channel, row, column])
            missed, gained = missed + abs(float(own[at].sum()) - gain), gained + abs(gain)
            with_shuffled.append(saliency_similarity(own[at], other[at], box))
            with_edges.append(saliency_similarity(own[at], edge_maps[at], box))
            found[at].append(
                ShownUnit(
                    channel=channel,
                    score=float(inspected.scores[at, rank]),
                    row=row,
                    column=column,
                    box=stage.box(row, column),
                    saliency=own[at].cpu(),
                )
            )
    check = SanityCheck(
        method=method.name,
        with_shuffled=mean_known(with_shuffled),
        with_edges=mean_known(with_edges),
        num_units=sum(each is not None for each in with_shuffled),
    )
    return UnitPictures(
        method=method,
        stage=stage,
        units=found,
        check=check,
        unaccounted=missed / gained if method.name == INTEGRATED and gained else None,
    )


def _saliencies(
    compute: Saliency,
    model: nn.Module,
    stage: StageMap,
    stages: ModelStages,
    images: Tensor,
    channels: Sequence[int],
    cells: Sequence[tuple[int, int]],
) -> list[Tensor]:
    """Saliency of one unit of each image, image by image, so that the memory of one suffices."""
    return [
        compute(
            units_of(lambda given: record_maps(model, [stage], stages, given)[0], channel, [cell]), images[at : at + 1]
        )[0].detach()
        for at, (channel, cell) in enumerate(zip(channels, cells, strict=True))
    ]
