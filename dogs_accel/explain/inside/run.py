"""The feature maps of a few test images of a run, made after its training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from dogs_accel.datasets import Dataset
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.explain.cells import UnexplainableError
from dogs_accel.explain.drawings import crop_pixels
from dogs_accel.explain.inside.channels import OneClassError, choose_sample, confused_pair
from dogs_accel.explain.inside.inspection import (
    FEATURE_MAPS_FILE,
    SampleFacts,
    ShownImages,
    inspect_stages,
    write_feature_maps,
)
from dogs_accel.explain.run import LoadImages, find_images, load_images
from dogs_accel.runtime.files import write_json
from pipelines import Recipe

_NUM_SHOWN = 8
_SAMPLE_SIZE = 64


def write_run_maps(
    folder: Path,
    model: nn.Module,
    load: LoadImages,
    predictions: Predictions,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int = 0,
    sample_size: int = _SAMPLE_SIZE,
) -> list[Path]:
    """Write the feature maps of 8 test images, in float32; returns the files, which lie in folder.

    The images are drawn by the seed from the test split, so that runs of one seed and split show the same ones. The
    pair of classes are those that the model takes for each other most. The files are those of `inspection`; of a model
    without maps, and of images of one class, feature_maps.json alone, which says why.
    """
    index = find_images(data, predictions.ids.tolist())
    shown = np.random.default_rng(seed).permutation(len(index))[:_NUM_SHOWN]
    try:
        pair = confused_pair(predictions.labels, predictions.predicted)
        sample = choose_sample(predictions.labels, pair, sample_size, seed)
        facts = SampleFacts(labels=predictions.labels[sample], pair=pair, class_names=data.class_names, seed=seed)
        images = _shown_images(load_images(load, index[shown], recipe), predictions, data, recipe, shown)
        with load(index[sample]) as loader:
            inspected = inspect_stages(model, images, loader, facts)
    except (UnexplainableError, OneClassError) as error:
        return [write_json(folder / FEATURE_MAPS_FILE, {"stages": [], "reason": str(error)})]
    return write_feature_maps(folder, images, inspected, facts)


def _shown_images(
    images: Tensor, predictions: Predictions, data: Dataset, recipe: Recipe, positions: NDArray[np.int64]
) -> ShownImages:
    names = np.asarray(data.class_names)
    return ShownImages(
        images=images,
        pixels=crop_pixels(images, recipe),
        ids=predictions.ids[positions].tolist(),
        true_class=names[predictions.labels[positions]].tolist(),
        pred_class=names[predictions.predicted[positions]].tolist(),
        confidence=predictions.confidence[positions].tolist(),
    )
