import pytest

from dogs_accel.models.specs import model_spec


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
        ("vgg", "expected one of resnet18, resnet50, vit_b_16, or timm/<name>"),
    ],
)
def test_an_unknown_model_is_named_with_the_nearest(name, message):
    with pytest.raises(ValueError, match=message):
        model_spec(name)
