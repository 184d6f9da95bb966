"""Heat maps drawn on what the model was fed, one image or a gallery of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from dogs_accel.plots import BLUE, RED, letters_in, own_look, shortened, title_figure
from dogs_accel.runtime.files import replacing
from pipelines import Recipe

Pixels = NDArray[np.uint8]
CropBox = tuple[float, float, float, float]
"""xmin, ymin, xmax, ymax in px of the crop."""
METHOD_NAMES = {
    "gradcam": "Grad-CAM",
    "attention_last": "last layer's attention",
    "attention_rollout": "attention rollout",
}
GROUP_NAMES = {
    "confident_right": "most confident,\nright",
    "confident_wrong": "most confident,\nwrong",
    "random": "at random",
}
_DRAWN_PX = 224
"""Side of a drawn crop, at least."""
_COLOURS = "inferno"
_STRONGEST = 0.75
"""Opacity of the hottest pixel."""
_PER_ROW = 4
_CAPTION_PT = 8
_GAP_PX = 4


def crop_pixels(images: torch.Tensor, recipe: Recipe) -> Pixels:
    """Turn a loader's batch (N, 3, S, S) back into the 8-bit pixels that it was made of, (N, S, S, 3)."""
    std, mean = (images.new_tensor(each).view(1, 3, 1, 1) for each in (recipe.std, recipe.mean))
    levels = ((images.float() * std + mean) * 255).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def blend(pixels: Pixels, heat: NDArray[np.float32]) -> Pixels:
    """Lay heat (S, S) in [0, 1] over pixels (S, S, 3): the hotter the less of the picture shows; 0 leaves it as is."""
    opacity = _STRONGEST * heat[..., None]
    colours = matplotlib.colormaps[_COLOURS](heat)[..., :3] * 255
    return np.rint(pixels * (1 - opacity) + colours * opacity).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One explained image: what the model was fed, its maps, and what it said."""

    group: str
    pixels: Pixels
    """(S, S, 3)"""
    heat: dict[str, NDArray[np.float32]]
    """By method, (S, S) in [0, 1]."""
    boxes: Sequence[CropBox]
    """Annotated."""
    true_class: str
    pred_class: str
    confidence: float

    def strip(self) -> Pixels:
        """Lay the crop and its maps side by side, boxes outlined."""
        return side_by_side(self.pixels, self.heat, self.boxes)


def side_by_side(pixels: Pixels, heat: Mapping[str, NDArray[np.float32]], boxes: Sequence[CropBox] = ()) -> Pixels:
    """Lay a crop (S, S, 3) and each of its maps over it side by side; small crops are enlarged pixel by pixel."""
    scale = max(1, -(-_DRAWN_PX // len(pixels)))
    panels = [pixels, *(blend(pixels, each) for each in heat.values())]
    large = [_outlined(panel.repeat(scale, axis=0).repeat(scale, axis=1), boxes, scale) for panel in panels]
    gap = np.full((len(large[0]), _GAP_PX, 3), 255, dtype=np.uint8)
    return np.concatenate([part for panel in large for part in (gap, panel)][1:], axis=1)


def _outlined(panel: Pixels, boxes: Sequence[CropBox], scale: int) -> Pixels:
    image = Image.fromarray(panel)
    for box in boxes:
        xmin, ymin, xmax, ymax = (round(scale * side) for side in box)
        if xmin < xmax and ymin < ymax:
            ImageDraw.Draw(image).rectangle((xmin, ymin, xmax - 1, ymax - 1), outline="white")
    return np.asarray(image)


def save_picture(pixels: Pixels, path: Path, texts: Mapping[str, str] | None = None) -> Path:
    """Save pixels (H, W, 3) as PNG, with texts that are in the file and not in the picture."""
    inside = PngInfo()
    for key, value in (texts or {}).items():
        inside.add_text(key, value)
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, pnginfo=inside)
    return path


@own_look()
def explanation_figure(drawings: Sequence[Drawing], title: str) -> Figure:
    """Draw the explained images by group, four a row, each with what it is, what the model said and how surely."""
    rows: list[list[Drawing]] = []
    for group in GROUP_NAMES:
        own = [drawing for drawing in drawings if drawing.group == group]
        rows += [own[at : at + _PER_ROW] for at in range(0, len(own), _PER_ROW)]
    num_panels = 1 + len(drawings[0].heat)
    width = 1.5 * num_panels
    figure = Figure(figsize=(_PER_ROW * (width + 0.15) + 1.1, len(rows) * 2.05 + 0.9))
    grid = figure.subplots(len(rows), _PER_ROW, squeeze=False)
    figure.subplots_adjust(
        left=1.1 / figure.get_figwidth(), right=0.998, bottom=0.01, top=1 - 0.95 / figure.get_figheight(),
        wspace=0.04, hspace=0.3,
    )  # fmt: skip
    for line, row in zip(grid, rows, strict=True):
        for axes in line:
            axes.set_axis_off()
        for axes, drawing in zip(line, row, strict=False):
            axes.imshow(drawing.strip(), interpolation="antialiased")
            colour = BLUE if _is_right(drawing) else RED
            axes.set_title(_caption(drawing, width), fontsize=_CAPTION_PT, color=colour, parse_math=False)
    for line, row, above in zip(grid, rows, [None, *rows], strict=False):
        if above is None or above[0].group != row[0].group:
            name = GROUP_NAMES[row[0].group]
            line[0].text(-0.04, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
    panels = ", ".join(["the model's input", *(METHOD_NAMES[method] for method in drawings[0].heat)])
    boxed = "; white: annotated box" if any(drawing.boxes for drawing in drawings) else ""
    head = f"{title}\nside by side: {panels} (dark to yellow: hotter){boxed}"
    title_figure(figure, head, 11, y=1 - 0.4 / figure.get_figheight(), va="bottom")
    return figure


def _is_right(drawing: Drawing) -> bool:
    return drawing.true_class == drawing.pred_class


def _caption(drawing: Drawing, width_inch: float) -> str:
    most = letters_in(width_inch, _CAPTION_PT) - len("predicted: , 0.00")
    true, pred = (shortened(name, most) for name in (drawing.true_class, drawing.pred_class))
    return f"true: {true}\npredicted: {pred}, {drawing.confidence:.2f}"
