"""From image files to batches: recipes, and loaders that realise them on a GPU or a CPU.

from pipelines import make_loader, EVAL
for images, labels, index in make_loader(paths, labels, EVAL): ...

A name is imported when it is first asked for, so that importing the package, and reading its recipes, is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.decoding.pil import BadImageError
    from pipelines.loader import Batch, Loader
    from pipelines.make import make_loader
    from pipelines.recipe import (
        CIFAR_EVAL,
        CIFAR_TRAIN,
        EVAL,
        IMAGENET_EVAL,
        IMAGENET_TRAIN,
        INATURALIST_EVAL,
        INATURALIST_TRAIN,
        PETS_MILD_TRAIN,
        PETS_TRAIN,
        RANDAUGMENT_TRAIN,
        RECIPES,
        RESNET_TRAIN,
        STANDARD_TRAIN,
        VIT_TRAIN,
        Recipe,
    )

__all__ = [
    "BACKENDS",
    "CIFAR_EVAL",
    "CIFAR_TRAIN",
    "EVAL",
    "IMAGENET_EVAL",
    "IMAGENET_TRAIN",
    "INATURALIST_EVAL",
    "INATURALIST_TRAIN",
    "PETS_MILD_TRAIN",
    "PETS_TRAIN",
    "RANDAUGMENT_TRAIN",
    "RECIPES",
    "RESNET_TRAIN",
    "STANDARD_TRAIN",
    "VIT_TRAIN",
    "BadImageError",
    "Batch",
    "Loader",
    "Recipe",
    "make_loader",
]

BACKENDS = ("auto", "torch", "dali", "cached")
"""Names of the loaders that `make_loader` makes; "auto" chooses among the others."""

_MODULES = {
    "pipelines.decoding.pil": ["BadImageError"],
    "pipelines.loader": ["Batch", "Loader"],
    "pipelines.make": ["make_loader"],
    "pipelines.recipe": [
        "CIFAR_EVAL", "CIFAR_TRAIN", "EVAL", "IMAGENET_EVAL", "IMAGENET_TRAIN", "INATURALIST_EVAL",
        "INATURALIST_TRAIN", "PETS_MILD_TRAIN", "PETS_TRAIN", "RANDAUGMENT_TRAIN", "RECIPES", "RESNET_TRAIN",
        "STANDARD_TRAIN", "VIT_TRAIN", "Recipe",
    ],
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(globals().keys() | _MODULE_OF.keys())
