"""The filters of the first layer: each by its own range, and components against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from dogs_accel.explain.cells import UnexplainableError
from dogs_accel.explain.inside.filters import first_layer
from tests.support.eyes import build


def test_kernels_are_scaled_by_their_own_largest_weight_around_grey():
    model = build("resnet18", 32)
    model.conv1.weight.data[3] *= 1e-4
    layer = first_layer(model, 32)
    assert (layer.layer, layer.num_all, layer.explained) == ("conv1", 64, None)
    pixels = layer.pixels().astype(int)
    assert pixels.shape == (64, 7, 7, 3)
    for number in (0, 3):
        kernel = model.conv1.weight[number].detach().permute(1, 2, 0).numpy()
        np.testing.assert_allclose(pixels[number], 128 + 127 * kernel / np.abs(kernel).max(), atol=0.5)
    model.conv1.weight.data[5] = 0
    assert set(first_layer(model, 32).pixels()[5].ravel().tolist()) == {128}


@pytest.mark.parametrize(
    ("name", "size"), [("vit:dim=48:depth=1:heads=3:patch=8", 32), ("timm/vit_tiny_patch16_224", 32)]
)
def test_a_patch_embedding_is_shown_by_its_principal_components(name, size):
    model = build(name, size)
    layer = first_layer(model, size)
    weight = dict(model.named_modules())[layer.layer].weight.detach()
    rows = weight.permute(0, 2, 3, 1).flatten(1).double().numpy()
    expected = PCA(len(layer.filters), svd_solver="full").fit(rows)
    total = rows.var(axis=0, ddof=1).sum()
    np.testing.assert_allclose(layer.explained, expected.explained_variance_ / total)
    components = layer.filters.reshape(len(layer.filters), -1)
    np.testing.assert_allclose(np.abs((components * expected.components_).sum(axis=1)), 1, rtol=1e-5)
    assert (components.max(axis=1) >= np.abs(components).max(axis=1)).all()  # of two signs the one, always


def test_kernels_of_a_small_patch_are_shown_as_they_are():
    layer = first_layer(build("timm/convnext_atto", 32), 32)
    assert (layer.layer, layer.filters.shape, layer.explained) == ("stem.0", (40, 4, 4, 3), None)


def test_a_model_that_begins_otherwise_says_so():
    with pytest.raises(UnexplainableError, match="is Linear, no convolution of three colours"):
        first_layer(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)), 32)
    assert torch.is_grad_enabled()
