import pytest
import torch

from dogs_accel.models.input_size import describe_input_size, refuses_one_image
from dogs_accel.models.specs import model_spec
from tests.support.random_models import build

VIT, MIXER = "timm/vit_tiny_patch16_224", "timm/mixer_s32_224"


@pytest.mark.parametrize(
    ("name", "size", "unseen", "step"),
    [(VIT, 100, 4, 16), (MIXER, 70, 6, 32), (VIT, 96, 0, 16), ("resnet18", 33, 0, 2)],
)
def test_pixels_that_no_patch_covers_are_said_and_change_no_answer(name, size, unseen, step):
    notice = describe_input_size(model_spec(name, size))
    if unseen:
        whole = size - unseen
        assert f"at {size} px does not see the last {unseen} px of rows and columns" in notice
        assert notice.endswith(f"in steps of {step} px; {whole} and {whole + step} px are seen whole")
    else:
        assert notice is None
    model = build(name, 3, size).eval()
    for module in model.modules():  # heads and last norms that start at zero would hide everything
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(0))
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    images[1] = images[0]
    images[1, :, size - unseen :, :] = 0
    images[1, :, :, size - unseen :] = 0
    edge = images.clone()
    edge[1, :, size - unseen - 1 :, :] = 0
    with torch.inference_mode():
        torch.testing.assert_close(*model(images))
        assert not torch.allclose(*model(edge), rtol=1e-4, atol=1e-4)


@pytest.mark.fault(
    "Training and models",
    "an image size that a model cannot have",
    "one line with sizes that work, before the data are read",
)
@pytest.mark.parametrize("name", ["vit_b_16", "timm/levit_128s"])
def test_a_size_that_a_model_cannot_have_is_refused_with_some_that_it_can(name):
    with pytest.raises(
        ValueError,
        match=r"^models: cannot (build|run) .* at 100 px \(.*\); 96, 112 px work, its own size is 224 px$",
    ):
        describe_input_size(model_spec(name, 100))


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("cnn5", 16, "build cnn5 at 16 px (five poolings leave nothing of it, expected 32 px or more); 32, 42 px work, "
         "its own size is 224 px"),
        ("cnn5:norm=batch:head=mlp", 31, "; 32, 42 px work, its own size is 224 px"),
        ("vit:patch=4:dim=32:depth=1:heads=2", 30, "(patches of 4 px do not divide it); 28, 32 px work, its own size "
         "is 224 px"),
        ("vit:patch=15:dim=32:depth=1:heads=2", 224, "(patches of 15 px do not divide it); 210, 225 px work"),
        ("vgg16", 16, "run vgg16 at 16 px (Given input size: (512x1x1). Calculated output size: (512x0x0). Output size "
         "is too small); 32, 42 px work, its own size is 224 px"),
        ("inception_v3", 64, "; 80, 84 px work, its own size is 299 px"),
        ("maxvit_t", 100, "; its own size is 224 px"),
    ],
)  # fmt: skip
def test_small_and_uneven_sizes_are_refused_too(name, size, words):
    with pytest.raises(ValueError, match=rf"^models: cannot (build|run) {name} at {size} px \(") as refused:
        describe_input_size(model_spec(name, size))
    assert str(refused.value).endswith(words)


def test_swin_takes_any_size():
    assert describe_input_size(model_spec("swin_t", 20)) is None


@pytest.mark.parametrize(
    ("name", "size", "refuses"),
    [
        ("resnet18", 32, True),
        ("resnet18", 33, False),
        (VIT, 32, False),
        ("cnn5:norm=batch", 32, False),  # its last BatchNorm stands before the last pooling
        ("resnet18:head=mlp", 33, False),
        ("vgg16", 32, False),
        ("inception_v3", 75, True),
        ("regnet_x_400mf", 32, True),  # which cannot be built on the meta device
    ],
)
def test_one_image_is_too_few_where_a_batch_norm_has_one_value_a_channel(name, size, refuses):
    assert refuses_one_image(model_spec(name, size)) is refuses
