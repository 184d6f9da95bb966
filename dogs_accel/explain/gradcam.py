"""Grad-CAM at the last feature map."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dogs_accel.explain.cells import Places
from dogs_accel.explain.feature_map import measure_places

EXPLAINED_BATCH = 8
"""Images at a time: Grad-CAM keeps all of a network's activations, about 100 MB an image of a ResNet-50."""
_NUM_PLACING = 4
"""Images, and their mirror images, on which the cells of a feature map are placed."""


@dataclass(frozen=True)
class GradCam:
    """Grad-CAM at the last feature map before the global pooling: specific to a class."""

    model: nn.Module
    layer: str
    """Name of the module whose output is weighed, such as layer4."""
    grid: tuple[int, int]
    """Height and width of that output."""
    places: Places
    """Where its cells lie in the image."""
    note: str | None = None
    """Why it was taken for a model with attention; None for a CNN."""

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the maps."""
        return ("gradcam",)

    def describe(self, noun: str = "class") -> dict[str, Any]:
        """Say what the maps are, for a file; noun: what a class is called."""
        from captum import __version__

        return {
            "method": "gradcam",
            "library": f"captum {__version__}, LayerGradCam",
            "definition": "Selvaraju et al., Grad-CAM, ICCV 2017: ReLU of the channels, each weighed by the mean "
            f"gradient of the predicted {noun}'s logit",
            "class_specific": True,
            "shows": f"what the predicted {noun} rests on",
            "layer": self.layer,
            "grid": list(self.grid),
            "cells": {
                "first_centre_px": {"down": self.places.first[0], "across": self.places.first[1]},
                "step_px": self.places.step,
                "source": self.places.source,
            },
            "note": self.note,
        }

    def placed_on(self, images: Tensor) -> GradCam:
        """Return it with the cells where the model's gradients on the first of some images (N, 3, S, S) have them."""
        return replace(self, places=measure_places(self.model, self.layer, images[:_NUM_PLACING], self.places))

    def maps(self, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Compute the map of one class an image: images (N, 3, S, S), classes (N,) int64 -> (N, h, w), >= 0.

        Definition: Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2. The weights of the model, frozen or
        not, and their gradients stay as they are.
        """
        from captum.attr import LayerGradCam  # takes more than a second

        self.model.eval()
        grad_cam = LayerGradCam(self.model, self.model.get_submodule(self.layer))
        parts = []
        with torch.enable_grad():
            for some, wanted in zip(images.split(EXPLAINED_BATCH), classes.split(EXPLAINED_BATCH), strict=True):
                inputs = some.detach().clone().requires_grad_()
                parts.append(grad_cam.attribute(inputs, target=wanted, relu_attributions=True).detach()[:, 0].float())
        return {"gradcam": torch.cat(parts)}
