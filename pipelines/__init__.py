"""From image files to batches: recipes, and loaders that realise them on a GPU or a CPU.

from pipelines import make_loader, EVAL
for images, labels, index in make_loader(paths, labels, EVAL): ...
"""

from pipelines.batch import BadImageError, Batch, Loader
from pipelines.loader import BACKENDS, make_loader
from pipelines.recipe import EVAL, RESNET_TRAIN, VIT_TRAIN, Recipe

__all__ = [
    "BACKENDS",
    "EVAL",
    "RESNET_TRAIN",
    "VIT_TRAIN",
    "BadImageError",
    "Batch",
    "Loader",
    "Recipe",
    "make_loader",
]
