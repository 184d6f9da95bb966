from urllib.error import URLError

import pytest
import torch
import torchvision

from dogs_accel.models.build import build_model, build_pretrained
from dogs_accel.models.freezing import count_total_params, count_trainable_params, set_trainable_stage
from dogs_accel.models.heads import head_names
from dogs_accel.models.specs import model_spec
from tests.support.random_models import build


@pytest.mark.parametrize(
    ("name", "total", "head"), [("resnet50", 23_753_912, 245_880), ("vit_b_16", 85_890_936, 92_280)]
)
def test_published_parameter_counts(name, total, head):
    with torch.device("meta"):
        model = build(name, 120)
    assert count_total_params(model) == total
    set_trainable_stage(model, "head_only")
    assert count_trainable_params(model) == head
    set_trainable_stage(model, "full_finetune")
    assert count_trainable_params(model) == total


def test_imagenet_sized_heads_give_the_sizes_of_the_published_weights():
    with torch.device("meta"):
        assert count_total_params(build("resnet50", 1000)) == 25_557_032
        assert count_total_params(build("vit_b_16", 1000)) == 86_567_656


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 64), ("vit_b_16", 64), ("timm/vit_tiny_patch16_224", 64), ("timm/resnet10t", 64)]
)
def test_output_has_one_logit_a_class(name, size):
    model = build(name, 7, size).eval()
    with torch.inference_mode():
        assert model(torch.randn(2, 3, size, size)).shape == (2, 7)


@pytest.mark.parametrize("name", ["timm/resnet10t", "timm/tf_efficientnet_lite0", "timm/vit_tiny_patch16_224"])
def test_every_fresh_head_starts_alike(name):
    model = build(name, 30)
    head = model.get_submodule(*head_names(model))
    bound = head.in_features**-0.5
    assert 0.9 * bound < head.weight.abs().max().item() <= bound


@pytest.mark.parametrize(
    ("name", "family", "num_heads"),
    [
        ("timm/edgenext_xx_small", "vit", 1),  # takes no img_size
        ("timm/levit_128s", "vit", 2),  # a head with its own norm, and a second one for distillation
        ("timm/deit_tiny_distilled_patch16_224", "vit", 2),
        ("timm/resnetv2_50", "cnn", 1),  # a 1 x 1 convolution as its head
        ("timm/pvt_v2_b0", "vit", 1),  # separate projections of queries and keys
        ("timm/seresnet18", "cnn", 1),  # attention over channels only
    ],
)
def test_unusual_timm_models(name, family, num_heads):
    spec = model_spec(name)
    assert spec.family == family
    model = build(name, 7)
    set_trainable_stage(model, "head_only")
    assert len(head_names(model)) == num_heads
    assert 0 < count_trainable_params(model) < count_total_params(model) / 2
    with torch.inference_mode():
        assert model.eval()(torch.randn(1, 3, spec.image_size, spec.image_size)).shape == (1, 7)


def test_a_timm_model_is_not_taken_for_torchvisions_of_the_same_name():
    assert model_spec("timm/resnet18").slug == "timm_resnet18"
    assert model_spec("resnet18").slug == "resnet18"


def test_a_size_that_the_model_cannot_have_is_named():
    with pytest.raises(ValueError, match="models: cannot build vit_b_16 at 50 px"):
        build("vit_b_16", 5, 50)


def test_the_seed_alone_decides_random_weights():
    torch.manual_seed(1)
    one = build_model(model_spec("resnet18"), 5, "none", seed=3).model.state_dict()
    torch.manual_seed(2)
    two = build_model(model_spec("resnet18"), 5, "none", seed=3).model.state_dict()
    other = build_model(model_spec("resnet18"), 5, "none", seed=4).model.state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["fc.weight"], other["fc.weight"])


def test_real_weights_recognise_real_dogs(shared_data):
    """A wrong normalisation or a head that was not replaced shows here: linear features separate breeds."""
    spec = model_spec("timm/tf_efficientnet_lite0")
    built = build_model(spec, 30, str(shared_data / "weights" / "tf_efficientnet_lite0.pth"))
    assert "without the head (file: 1000 classes, here: 30)" in built.note
    assert head_names(built.model) == ["classifier"]


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", None), ("vit:dim=32:depth=1:heads=2", 32), ("timm/resnet10t", None)]
)
def test_a_pretrained_model_keeps_the_head_of_its_file(tmp_path, name, size):
    donor = build(name, 7, size)
    torch.save(donor.state_dict(), tmp_path / "w.pth")
    built = build_pretrained(model_spec(name, size), str(tmp_path / "w.pth"))
    own = built.model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in donor.state_dict().items())
    assert "without the head" not in built.note


def test_a_pretrained_model_needs_weights_and_their_head(tmp_path):
    with pytest.raises(ValueError, match="weights: got none, expected imagenet or a file"):
        build_pretrained(model_spec("resnet18"), "none")
    state = {key: value for key, value in build("resnet18", 5).state_dict().items() if not key.startswith("fc.")}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="holds no head 'fc' of resnet18"):
        build_pretrained(model_spec("resnet18"), str(tmp_path / "w.pth"))


@pytest.mark.fault(
    "Machine and environment", "weights that cannot be downloaded", "one line that names the flags that need no network"
)
def test_a_pretrained_model_that_cannot_be_downloaded_says_so(monkeypatch):
    def refuse(*arguments, **settings):
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models, "get_model", refuse)
    with pytest.raises(OSError, match=r"cannot download the ImageNet weights of resnet18 \(.*no network"):
        build_pretrained(model_spec("resnet18"))
