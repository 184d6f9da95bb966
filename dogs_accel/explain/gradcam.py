"""Grad-CAM at the last feature map."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dogs_accel.explain.cells import Places
from dogs_accel.explain.feature_map import FeatureMap, measure_places

EXPLAINED_BATCH = 8
"""Images at a time: Grad-CAM keeps all of a network's activations, about 100 MB an image of a ResNet-50."""
_NUM_PLACING = 4
"""Images, and their mirror images, on which the cells of a feature map are placed."""


@dataclass(frozen=True)
class GradCam:
    """Grad-CAM at the last feature map before the global pooling: specific to a class."""

    model: nn.Module
    found: FeatureMap
    """The map that is weighed."""
    note: str | None = None
    """Why it was taken for a model with attention; None for a CNN."""

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the map."""
        return self.found.side, self.found.side

    @property
    def places(self) -> Places:
        """Where its cells lie in the image."""
        return self.found.places

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the maps."""
        return ("gradcam",)

    def describe(self, noun: str = "class") -> dict[str, Any]:
        """Say what the maps are, for a file; noun: what a class is called."""
        return {
            "method": "gradcam",
            "library": "own: gradients at the last feature map",
            "definition": "Selvaraju et al., Grad-CAM, ICCV 2017: ReLU of the channels, each weighed by the mean "
            f"gradient of the predicted {noun}'s logit",
            "class_specific": True,
            "shows": f"what the predicted {noun} rests on",
            "layer": self.found.layer,
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
        places = measure_places(self.model, self.found, images[:_NUM_PLACING])
        return replace(self, found=replace(self.found, places=places))

    def maps(self, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Compute the map of one class an image: images (N, 3, S, S), classes (N,) int64 -> (N, h, w), >= 0.

        Definition: Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2. The weights of the model, frozen or
        not, and their gradients stay as they are.
        """
        self.model.eval()
        parts = []
        for some, wanted in zip(images.split(EXPLAINED_BATCH), classes.split(EXPLAINED_BATCH), strict=True):
            with torch.enable_grad(), self.found.recorded(self.model) as maps:
                logits = self.model(some.detach().clone().requires_grad_())
                [gradient] = torch.autograd.grad(logits.gather(1, wanted[:, None]).sum(), maps)
            weighed = gradient.mean(dim=(2, 3), keepdim=True) * maps[0].detach()
            parts.append(weighed.sum(dim=1).relu().float())
        return {"gradcam": torch.cat(parts)}
