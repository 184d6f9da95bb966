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
    ("name", "size", "refuses"), [("resnet18", 32, True), ("resnet18", 33, False), (VIT, 32, False)]
)
def test_one_image_is_too_few_where_a_batch_norm_has_one_value_a_channel(name, size, refuses):
    assert refuses_one_image(model_spec(name, size)) is refuses
