"""Heat maps: which parts of an image a model's answer rests on (Grad-CAM) or looked at (attention)."""

from __future__ import annotations

from torch import Tensor, nn

from dogs_accel.explain.attention import Attention, attention_layers, find_attention
from dogs_accel.explain.cells import UnexplainableError, upsample
from dogs_accel.explain.feature_map import find_last_feature_map
from dogs_accel.explain.gradcam import GradCam

Explainer = GradCam | Attention


def find_explainer(model: nn.Module, size_px: int) -> Explainer:
    """Find how a model of square inputs can be explained.

    Attention for ViTs, in which every layer attends over all patches; Grad-CAM for what ends in a feature map and a
    global pooling, such as CNNs and, noted, transformers of another build. Raises UnexplainableError where there is
    neither.
    """
    model.eval()
    note = None
    if attention_layers(model):
        try:
            return find_attention(model, size_px)
        except UnexplainableError as error:
            note = str(error)
    try:
        found = find_last_feature_map(model, size_px)
    except UnexplainableError as error:
        raise UnexplainableError(f"{error}; {note}" if note else str(error)) from error
    return GradCam(model, found, note)


def heat_maps(explainer: Explainer, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
    """Compute maps as large as the images (N, 3, S, S), of one class (N,) int64 each: by method, (N, S, S), >= 0."""
    maps = explainer.maps(images, classes)
    return {method: upsample(each, explainer.places, images.shape[-1]) for method, each in maps.items()}
