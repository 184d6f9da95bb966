import dataclasses

import pytest
import torch
import torchvision
from torchvision.models import ResNet18_Weights, ResNet50_Weights, ViT_B_16_Weights

from dogs_accel.models.specs import has_attention, model_spec, torchvision_names, torchvision_weights, with_family


def test_a_timm_model_brings_its_own_mean_std_and_size():
    spec = model_spec("timm/tf_efficientnet_lite0")
    assert (spec.mean, spec.std, spec.image_size, spec.family) == ((0.5,) * 3, (0.5,) * 3, 224, "cnn")
    assert model_spec("timm/tf_efficientnet_lite2").image_size == 260
    assert model_spec("timm/vit_tiny_patch16_224").family == "vit"
    assert model_spec("timm/vit_tiny_patch16_224", 96).image_size == 96


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet51", "did you mean 'resnet50'"),
        ("timm/resnet5o", r"timm has no 'resnet5o' \(did you mean 'timm/resnet50'"),
        ("timm/resnet18.nosuch", r"timm has no 'resnet18\.nosuch'"),
        ("xyz", r"got 'xyz', expected a classifier of torchvision, timm/<name>, cnn5, vit, resnet18_cifar$"),
        ("mixer_b16_224", r"did you mean 'timm/mixer_b16_224'\?"),
        ("cnn", r"did you mean 'cnn5'\?"),
        ("fcn_resnet50", "expected a classifier of torchvision"),  # which torchvision has for another task
    ],
)
def test_an_unknown_model_is_named_with_the_nearest(name, message):
    with pytest.raises(ValueError, match=message):
        model_spec(name)


def test_the_published_models_are_what_they_were():
    """Names of folders and in tables, sizes and weights, which records of earlier runs have."""
    known = {name: dataclasses.astuple(model_spec(name))[1:6] for name in ("resnet18", "resnet50", "vit_b_16")}
    assert known == {
        "resnet18": ("ResNet-18", "resnet18", "cnn", "cnn", 224),
        "resnet50": ("ResNet-50", "resnet50", "cnn", "cnn", 224),
        "vit_b_16": ("ViT-B/16", "vit_b16", "vit", "vit", 224),
    }
    assert torchvision_weights("resnet18") is ResNet18_Weights.IMAGENET1K_V1
    assert torchvision_weights("resnet50") is ResNet50_Weights.IMAGENET1K_V2
    assert torchvision_weights("vit_b_16") is ViT_B_16_Weights.IMAGENET1K_V1


def test_every_classifier_of_torchvision_has_its_own_size_and_normalisation():
    for name in torchvision_names():
        spec, transforms = model_spec(name), torchvision_weights(name).transforms()
        assert [spec.image_size] == transforms.crop_size
        assert (list(spec.mean), list(spec.std)) == (transforms.mean, transforms.std)
        assert spec.slug in (name, "vit_b16")
    assert len(torchvision_names()) >= 80
    sizes = {name: model_spec(name).image_size for name in ("efficientnet_b3", "inception_v3", "vit_h_14", "swin_v2_t")}
    assert sizes == {"efficientnet_b3": 300, "inception_v3": 299, "vit_h_14": 518, "swin_v2_t": 256}
    assert model_spec("efficientnet_v2_l").mean == (0.5,) * 3
    assert model_spec("efficientnet_b3", 96).image_size == 96
    assert torchvision_weights("mobilenet_v2").name == "IMAGENET1K_V2"


@pytest.mark.parametrize("name", ["vit_b_32", "swin_t", "swin_v2_t", "maxvit_t", "convnext_tiny", "mobilenet_v3_small"])
def test_the_kind_of_torchvisions_models_is_that_of_their_layers(name):
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    assert model_spec(name).kind == ("vit" if has_attention(model) else "cnn")


def test_variants_of_a_model_have_names_of_their_own():
    specs = [
        model_spec(name)
        for name in (
            "resnet50", "resnet50:head=mlp", "resnet50:head_dropout=0.2:head=1024+512", "timm/resnet50",
            "timm/resnet34:head=mlp", "cnn5:filters=32+48+64+64+96:norm=batch", "vit:patch=4",
        )
    ]  # fmt: skip
    assert [spec.slug for spec in specs] == [
        "resnet50", "resnet50_head-mlp", "resnet50_head-1024-512_head_dropout-0_2", "timm_resnet50",
        "timm_resnet34_head-mlp", "cnn5_filters-32-48-64-64-96_norm-batch", "vit_patch-4",
    ]  # fmt: skip
    assert [spec.display for spec in specs] == [
        "ResNet-50", "ResNet-50 (head=mlp)", "ResNet-50 (head=1024+512, head_dropout=0.2)", "resnet50",
        "timm/resnet34 (head=mlp)", "cnn5 (filters=32+48+64+64+96, norm=batch)", "vit (patch=4)",
    ]  # fmt: skip
    assert [spec.kind for spec in specs] == ["cnn"] * 6 + ["vit"]
    assert specs[2].name == "resnet50:head=1024+512:head_dropout=0.2"
    assert all(model_spec(spec.name) == spec for spec in specs)


def test_a_label_is_found_by_any_way_to_type_a_name():
    spec = model_spec("cnn5:norm=batch:filters=64")
    assert with_family(spec, {"cnn5:norm=batch:filters=64": "plain"}).family == "plain"
    assert with_family(spec, {"cnn5:filters=64:norm=batch:growth=same": "plain"}).family == "plain"
    assert with_family(spec, {"cnn5": "plain"}).family == "cnn"


def test_own_networks_have_a_size_and_a_normalisation():
    small = model_spec("resnet18_cifar")
    assert (small.image_size, small.mean, small.std) == (32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    assert (model_spec("cnn5").image_size, model_spec("cnn5").mean) == (224, (0.485, 0.456, 0.406))
