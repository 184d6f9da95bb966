"""Heads on any backbone: their layers, their counts, and what trains where the backbone is frozen."""

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from dogs_accel.models.freezing import count_total_params, count_trainable_params, set_trainable_stage
from dogs_accel.models.heads import head_names
from dogs_accel.models.specs import model_spec
from tests.support.random_models import build


def on_meta(name, num_classes=10, image_size=None):
    with torch.device("meta"):
        return build(name, num_classes, image_size)


@pytest.mark.parametrize(
    ("head", "num_classes", "params"),
    [
        ("linear", 37, 75_813),
        ("mlp", 37, 1_068_069),
        ("custom", 37, 2_641_957),
        ("256:head_dropout=0.3", 10, 527_114),
        ("256:head_dropout=0.3", 120, 555_384),
        ("linear", 120, 245_880),
    ],
)
def test_the_documents_counts_on_2048_features(head, num_classes, params):
    model = on_meta(f"resnet50:head={head}", num_classes)
    set_trainable_stage(model, "head_only")
    assert count_trainable_params(model) == params
    assert count_total_params(model) == 25_557_032 - 2_049_000 + params


def test_the_layers_of_a_head():
    def layers(name):
        return [
            (type(layer).__name__, getattr(layer, "out_features", getattr(layer, "p", None)))
            for layer in on_meta(name).fc
        ]

    assert layers("resnet18:head=mlp") == [("Linear", 512), ("ReLU", None), ("Dropout", 0.5), ("Linear", 10)]
    assert layers("resnet18:head=custom") == [
        ("Linear", 1024), ("ReLU", None), ("Dropout", 0.3), ("Linear", 512), ("ReLU", None), ("Dropout", 0.3),
        ("Linear", 10),
    ]  # fmt: skip
    assert layers("resnet18:head=64")[2] == ("Dropout", 0.0)
    assert layers("resnet18:head_dropout=0.2") == [("Dropout", 0.2), ("Linear", 10)]
    assert type(on_meta("resnet18").fc) is nn.Linear


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("vgg11", ["classifier.6"]),  # its two dense layers of 4,096 stay those of the backbone
        ("mobilenet_v3_small", ["classifier.3"]),
        ("efficientnet_b0", ["classifier.1"]),
        ("densenet121", ["classifier"]),
        ("squeezenet1_1", ["classifier.1"]),  # a convolution over the map
        ("maxvit_t", ["classifier.5"]),
        ("swin_t", ["head"]),
        ("vit_b_16", ["heads.head"]),
        ("googlenet", ["fc"]),
        ("inception_v3", ["fc"]),
        ("timm/levit_128s", ["head", "head_dist"]),  # each with a norm of its own
        ("timm/deit_tiny_distilled_patch16_224", ["head", "head_dist"]),
        ("timm/resnetv2_50", ["head.fc"]),  # a convolution
        ("timm/convnext_atto", ["head.fc"]),
        ("cnn5", ["classifier.1"]),
        ("vit:patch=8:dim=32:depth=1:heads=2", ["heads.head"]),
    ],
)
def test_a_head_stands_where_the_last_layer_was(name, heads):
    """The rest of the model is what it is with a linear head, and the logits come out of the new layers."""
    linear, model = on_meta(name, 7), on_meta(f"{name}:head=16:head_dropout=0.1", 7)
    assert head_names(linear) == head_names(model) == heads
    shapes = [
        {key: value.shape for key, value in each.state_dict().items() if not key.startswith(tuple(heads))}
        for each in (linear, model)
    ]
    assert shapes[0] == shapes[1]
    set_trainable_stage(model, "head_only")
    added = [parameter.shape[0] for key, parameter in model.named_parameters() if key.startswith(tuple(heads))]
    assert added.count(16) == added.count(7) == 2 * len(heads)
    size = model_spec(name).image_size
    with torch.device("meta"):
        logits = model.train()(torch.zeros(2, 3, size, size))  # in training Inception has auxiliary logits elsewhere
    if name == "timm/deit_tiny_distilled_patch16_224":  # whose two heads are averaged in evaluation
        assert logits.shape == (2, 7)
    assert logits.shape == (2, 7)


def test_a_linear_head_has_a_bias_where_the_models_own_has_one():
    """MaxViT's has none, so that its count is torchvision's."""
    with torch.device("meta"):
        torchvisions = get_model("maxvit_t", num_classes=7)
    assert count_total_params(on_meta("maxvit_t", 7)) == count_total_params(torchvisions)
    assert on_meta("maxvit_t:head=16", 7).classifier[5][3].bias is not None


@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_what_was_trained_beside_a_deep_network_is_left_out(name):
    model = on_meta(name, 7)
    assert [key for key in model.state_dict() if key.lower().startswith("aux")] == []
    assert model.transform_input  # its ImageNet weights are for images that it normalises once more
