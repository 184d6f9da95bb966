"""The bytes that the operators' bandwidth is counted in."""

import numpy as np
import torch

from bench.op_traffic import augment_bytes, num_bytes
from dogs_accel import ops
from pipelines import EVAL, RESNET_TRAIN
from pipelines.augmentation import draw_params, pack_params


def test_of_calibration_bins():
    logits, labels = torch.randn(1000, 120), torch.zeros(1000, dtype=torch.int64)
    outputs = torch.ops.dogs_accel.calibration_bins(logits, labels, 15)
    # Logits and labels; confidence and prediction; count, sum and correct of each bin; the bad row.
    assert num_bytes([logits, labels, *outputs]) == 1000 * (120 * 4 + 8) + 1000 * (4 + 8) + 15 * 24 + 8
    assert num_bytes([logits.half()]) == 1000 * 120 * 2


def test_of_operators_on_images():
    images = [torch.zeros(468, 401, 3, dtype=torch.uint8), torch.zeros(5, 7, 3, dtype=torch.uint8)]
    read = 3 * (468 * 401 + 5 * 7)
    assert num_bytes([*images, ops.image_stats(images)]) == read + 2 * 6 * 8
    assert num_bytes([*images, ops.squash(images, (256, 256))]) == read + 2 * 256 * 256 * 3


def test_of_augment_only_the_crops_are_read():
    stored, index = torch.zeros(9, 256, 256, 3, dtype=torch.uint8), torch.arange(4)
    for recipe in (EVAL, RESNET_TRAIN):
        params = draw_params(recipe, np.tile([256, 256], (4, 1)), 0, 0, index.numpy())
        packed = torch.from_numpy(pack_params(params, recipe))
        batch = ops.augment(stored, index, packed, size=224, mean=recipe.mean, std=recipe.std)
        crops = sum(height * width for _, _, height, width in params.crop.tolist())
        assert augment_bytes(index, packed, batch) == 3 * crops + 4 * 8 + packed.nbytes + 4 * 3 * 224 * 224 * 4
        assert crops == 4 * 224 * 224 if recipe is EVAL else crops < 4 * 256 * 256
