"""The networks of this project: closed forms, the documents' counts, and the model that is built."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import VisionTransformer, resnet18

from dogs_accel.models.build import build_model
from dogs_accel.models.freezing import count_total_params
from dogs_accel.models.names import Cnn5Options, VitOptions
from dogs_accel.models.networks.cnn5 import Cnn5, cnn5_flops, cnn5_params
from dogs_accel.models.networks.vit import vit_params
from dogs_accel.models.specs import model_spec


def on_meta(name, num_classes=10, image_size=None):
    with torch.device("meta"):
        return build_model(model_spec(name, image_size), num_classes, "none").model


def counted_flops(model, size):
    """Operations of one image by torch's own counter."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, size, size, device="meta"))
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("growth", "filters", "dense", "params", "flops"),
    [
        ("same", 32, 128, 240_010, 394_185_216),
        ("same", 32, 256, 442_122, 394_589_184),
        ("double", 32, 128, 4_781_258, 1_942_817_280),
        ("double", 32, 256, 7_993_930, 1_949_242_368),
        ("half", 32, 128, 21_008, 210_042_432),
        ("half", 32, 256, 34_960, 210_070_080),
        ("same", 64, 256, 955_146, 1_403_327_488),
        ("double", 64, 256, 19_118_474, 7_597_855_744),
        ("half", 64, 256, 79_334, 666_756_352),
    ],
)
def test_the_documents_table_of_cnn5(growth, filters, dense, params, flops):
    options = Cnn5Options(filters=(filters,), growth=growth, dense=dense)
    assert (cnn5_params(options, 10, 224), cnn5_flops(options, 10, 224)) == (params, flops)
    model = on_meta(f"cnn5:filters={filters}:growth={growth}:dense={dense}")
    assert (count_total_params(model), counted_flops(model, 224)) == (params, flops)


def test_batch_norm_adds_two_numbers_a_filter():
    assert cnn5_params(Cnn5Options(norm="batch"), 10, 224) == 442_442
    assert count_total_params(on_meta("cnn5:norm=batch")) == 442_442


@pytest.mark.parametrize("size", [32, 100, 223])
@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("filters=3+5+7+9+11:kernel=7+5+3+1+3:norm=batch", Cnn5Options(filters=(3, 5, 7, 9, 11), kernel=(7, 5, 3, 1, 3),
                                                                       norm="batch")),
        ("kernel=5:dense=7:dense_activation=gelu:dropout=0.2", Cnn5Options(kernel=(5,), dense=7, dropout=0.2)),
    ],
)  # fmt: skip
def test_the_closed_forms_are_those_of_the_built_model_at_any_size(text, options, size):
    model = on_meta(f"cnn5:{text}", 7, size)
    assert count_total_params(model) == cnn5_params(options, 7, size)
    assert counted_flops(model, size) == cnn5_flops(options, 7, size)


def test_a_block_is_convolution_norm_activation_pooling():
    model = Cnn5(Cnn5Options(norm="batch", activation="mish", dropout=0.3), 10, 64)
    kinds = [type(layer) for layer in model.blocks[2]]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.Mish, nn.MaxPool2d]
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model.eval()
    x = images
    for block in model.blocks:
        x = nn.functional.max_pool2d(nn.functional.mish(block[1](block[0](x))), 2)
    torch.testing.assert_close(model(images), model.classifier(model.dense(x.flatten(1))))
    assert model.classifier[0].p == 0.3
    model.train()
    model.dense.register_forward_hook(lambda *_: torch.ones(2, 256))  # behind it nothing but dropout changes anything
    given = []
    model.classifier[1].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    model(images)
    assert {round(value, 4) for value in given[0].unique().tolist()} == {0.0, round(1 / 0.7, 4)}


@pytest.mark.parametrize("name", ["relu", "gelu", "silu", "mish", "leaky_relu"])
def test_each_activation_is_torchs_own(name):
    function = getattr(nn.functional, name)
    model = Cnn5(Cnn5Options(activation=name, dense_activation=name), 3, 32)
    values = torch.linspace(-3, 3, 50)
    torch.testing.assert_close(model.blocks[0][2](values), function(values))
    torch.testing.assert_close(model.dense_activation(values), function(values))


CIFAR = "vit:patch=4:dim=256:depth=6:heads=8"


@pytest.mark.parametrize(
    ("name", "options", "num_classes", "size", "params"),
    [
        ("vit", VitOptions(), 10, 224, 85_806_346),
        (CIFAR, VitOptions(patch=4, dim=256, depth=6, heads=8), 10, 32, 4_771_082),
        ("vit:dim=192:heads=3", VitOptions(dim=192, heads=3), 1000, 224, 5_717_416),
        ("vit:dim=384:heads=6", VitOptions(dim=384, heads=6), 1000, 224, 22_050_664),
        ("vit", VitOptions(), 1000, 224, 86_567_656),
        ("vit:dim=1024:depth=24:heads=16", VitOptions(dim=1024, depth=24, heads=16), 1000, 224, 304_326_632),
        ("vit:mlp=2:patch=8:dim=64:heads=4:depth=2", VitOptions(mlp=2, patch=8, dim=64, heads=4, depth=2), 5, 40,
         vit_params(VitOptions(mlp=2, patch=8, dim=64, heads=4, depth=2), 5, 40)),
    ],
)  # fmt: skip
def test_the_sizes_of_vit(name, options, num_classes, size, params):
    assert vit_params(options, num_classes, size) == params
    assert count_total_params(on_meta(name, num_classes, size)) == params


def test_a_vit_normalises_first_and_starts_its_tokens_small():
    model = build_model(model_spec(f"{CIFAR}:dropout=0.2", 32), 10, "none").model
    assert isinstance(model, VisionTransformer)
    for tokens in (model.class_token, model.encoder.pos_embedding):
        assert 0.015 < tokens.std().item() < 0.025
    layer = model.encoder.layers[0]
    assert (layer.dropout.p, layer.self_attention.dropout, model.encoder.dropout.p) == (0.2, 0.2, 0.2)
    assert model.heads.head.weight.std() > 0  # torchvision starts it at zero
    x = torch.randn(2, 65, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        layer.eval()
        normed = layer.ln_1(x)
        y = x + layer.self_attention(normed, normed, normed)[0]
        torch.testing.assert_close(layer(x), y + layer.mlp(layer.ln_2(y)))


def test_resnet18_for_small_images():
    assert count_total_params(on_meta("resnet18_cifar")) == 11_173_962
    model = build_model(model_spec("resnet18_cifar"), 10, "none").model.eval()
    sides = []
    model.layer1.register_forward_hook(lambda *_: sides.append(_[-1].shape[-1]))
    with torch.inference_mode():
        assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert sides == [32]
    # What a convolution of torchvision's ResNets starts with.
    assert model.conv1.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)
    state = {key: value for key, value in resnet18(num_classes=10).state_dict().items() if key != "conv1.weight"}
    assert model.load_state_dict(state, strict=False).missing_keys == ["conv1.weight"]


def test_resnet50_at_the_documents_classes():
    assert [count_total_params(on_meta("resnet50", num_classes)) for num_classes in (257, 10)] == [
        24_034_625, 23_528_522
    ]  # fmt: skip
