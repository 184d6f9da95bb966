"""The feature maps of a network's stages, as squares of cells with channels, and where the cells lie in the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dogs_accel.explain.cells import Places, UnexplainableError
from dogs_accel.explain.feature_map import FeatureMap, measure_places
from dogs_accel.models.architecture.receptive_field import MOST_PREFIX_TOKENS, Field, ReceptiveField, following_fields
from dogs_accel.models.architecture.stages import ModelStages, find_stages, recording_outputs, stage_kind
from dogs_accel.models.architecture.table import field_text, last_map

MOST_STAGES = 6
_FINE_PX = 8
"""Cells that are no further apart lie where strides and padding have them, to half of that."""
_NUM_PLACING = 2
"""Images, and their mirror images, on which coarser cells are placed."""


@dataclass(frozen=True, kw_only=True)
class StageMap:
    """The feature map of a stage."""

    name: str
    """Of the stage."""
    kind: str
    """What the stage is made of."""
    number: int
    """Of the stage among all of the network."""
    module: str
    """Whose output the map is."""
    channels: int
    side: int
    """Cells down, and cells across."""
    num_prefix: int
    """Tokens before those of the cells, where the map is of tokens (N, T, C); else 0."""
    is_channels_last: bool
    """Whether the module gives (N, S, S, C)."""
    field: Field | None
    """Receptive fields of its cells, or why there are none."""
    places: Places
    """Where the cells lie in the image."""
    size_px: int
    """Side of the image."""

    @property
    def _marks_field(self) -> bool:
        return isinstance(self.field, ReceptiveField) and min(self.field.size) < self.size_px

    def squares(self, output: Tensor) -> Tensor:
        """Lay an output of the module out as (N, C, h, w)."""
        if output.ndim == 3:
            cells = output[:, self.num_prefix :].transpose(1, 2)
            return cells.reshape(len(output), -1, self.side, self.side)
        return output.permute(0, 3, 1, 2) if self.is_channels_last else output

    def box(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Give xmin, ymin, xmax, ymax of what is marked of a cell: its receptive field, as far as the image goes.

        Of a cell without one, and of one whose field is as large as the image, its own place, as a token's patch.
        """
        if self._marks_field:
            return self.seen_box(row, column)
        step = self.places.step
        top, left = (first + at * step - step / 2 for first, at in zip(self.places.first, (row, column), strict=True))
        ends = top + step, left + step
        return max(left, 0), max(top, 0), min(ends[1], self.size_px), min(ends[0], self.size_px)

    def seen_box(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Give xmin, ymin, xmax, ymax of what a cell may be computed from: its receptive field, else the image."""
        if isinstance(self.field, ReceptiveField):
            return self.field.box(row, column, self.size_px)
        return 0, 0, self.size_px, self.size_px

    @property
    def box_is(self) -> str:
        """Say what `box` gives."""
        if self._marks_field:
            return "receptive field"
        if isinstance(self.field, ReceptiveField):
            return f"place of the cell, whose receptive field of {field_text(self.field)} px is larger than the image"
        return f"place of the cell, which sees more of the image ({self.field})"


@torch.no_grad()
def find_stage_maps(model: nn.Module, images: Tensor, most: int | None = MOST_STAGES) -> list[StageMap]:
    """Find the feature maps of a model's stages, first to last, placed on some images (N, 3, S, S).

    most: how many of them, spread as `spread_stages` says; None for all. Raises UnexplainableError for a model without
    any.
    """
    model.eval()
    image = torch.zeros_like(images[:1])
    stages = find_stages(model, image)
    with recording_outputs(model, stages) as outputs, following_fields(image) as field_of:
        model(image)
    found, placed = [], dict[int, Places]()
    for number, name in enumerate(stages.names):
        if number not in outputs:
            continue
        shown = last_map(outputs[number])
        cells = _cells_of(model, shown.tensor)
        if cells is None:
            continue
        side, num_prefix, is_last = cells
        own = Places.of_field(field_of(shown.tensor))
        # What mixes the cells of a map, as attention does, leaves them where the last of that size has them.
        placed[side] = own or placed.get(side) or Places.even((side, side), image.shape[-1])
        found.append(
            StageMap(
                name=name,
                kind=stage_kind(model, stages.modules[number]),
                number=number,
                module=shown.module,
                channels=shown.tensor.shape[-1] if is_last or shown.tensor.ndim == 3 else shown.tensor.shape[1],
                side=side,
                num_prefix=num_prefix,
                is_channels_last=is_last,
                field=field_of(shown.tensor),
                places=placed[side],
                size_px=image.shape[-1],
            )
        )
    if not found:
        raise UnexplainableError(f"model: {type(model).__name__} has no stage that gives a square map")
    return [_measured(model, each, images) for each in (found if most is None else spread_stages(found, most))]


def _cells_of(model: nn.Module, output: Tensor) -> tuple[int, int, bool] | None:
    """Cells on a side, tokens before them, and whether the channels are last; None of what is no square of cells."""
    shape = output.shape
    if output.ndim == 4:
        if shape[2] == shape[3] > 1:
            return shape[2], 0, False
        return (shape[1], 0, True) if shape[1] == shape[2] > 1 else None
    if output.ndim != 3:
        return None
    known = getattr(model, "num_prefix_tokens", None)
    num_prefix = known if isinstance(known, int) else shape[1] - math.isqrt(shape[1]) ** 2
    side = math.isqrt(max(shape[1] - num_prefix, 0))
    if side < 2 or side**2 + num_prefix != shape[1] or num_prefix > MOST_PREFIX_TOKENS:
        # A stem may give its cells without the tokens that come before them.
        side = math.isqrt(shape[1])
        return (side, 0, False) if side > 1 and side**2 == shape[1] else None
    return side, num_prefix, False


def _measured(model: nn.Module, found: StageMap, images: Tensor) -> StageMap:
    """Place coarse cells by the gradients of a trained network, as Grad-CAM's are."""
    if found.num_prefix or found.places.step <= _FINE_PX or not isinstance(found.field, ReceptiveField):
        return found
    as_map = FeatureMap(found.module, found.side, found.places, found.is_channels_last)
    return replace(found, places=measure_places(model, as_map, images[:_NUM_PLACING]))


def spread_stages(found: Sequence[StageMap], most: int) -> list[StageMap]:
    """Choose at most so many stages, first to last.

    Where there are more, the last one of each size of map; where those are few, as in a ViT, others between them too,
    evenly spread; where they are too many, the last ones.
    """
    if len(found) <= most:
        return list(found)
    last = {each.side: each for each in found}
    kept = {each.number for each in list(last.values())[-most:]}
    for at in torch.linspace(0, len(found) - 1, most).round().int().tolist():
        if len(kept) < most:
            kept.add(found[at].number)
    return [each for each in found if each.number in kept]


def record_maps(model: nn.Module, stage_maps: Sequence[StageMap], stages: ModelStages, images: Tensor) -> list[Tensor]:
    """Run a model on images (N, 3, S, S); returns the map of each stage, (N, C, h, w) float32."""
    with recording_outputs(model, stages) as outputs:
        model(images)
    return [
        each.squares(next(o.tensor for o in reversed(outputs[each.number]) if o.module == each.module)).float()
        for each in stage_maps
    ]
