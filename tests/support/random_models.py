"""Models by name with random weights."""

from dogs_accel.models.build import build_model
from dogs_accel.models.specs import model_spec


def build(name, num_classes=10, image_size=None, weights="none"):
    return build_model(model_spec(name, image_size), num_classes, weights).model
