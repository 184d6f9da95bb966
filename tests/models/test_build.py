from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from dogs_accel.models.build import build_model, build_pretrained
from dogs_accel.models.freezing import count_total_params, count_trainable_params, set_train_mode, set_trainable_stage
from dogs_accel.models.heads import head_names
from dogs_accel.models.specs import model_spec
from dogs_accel.models.weights import load_weights


def build(name, num_classes=10, image_size=None, weights="none"):
    return build_model(model_spec(name, image_size), num_classes, weights).model


@pytest.mark.parametrize(
    ("name", "total", "head"), [("resnet50", 23_753_912, 245_880), ("vit_b_16", 85_890_936, 92_280)]
)
def test_published_parameter_counts(name, total, head):
    model = build(name, 120)
    assert count_total_params(model) == total
    set_trainable_stage(model, "head_only")
    assert count_trainable_params(model) == head
    set_trainable_stage(model, "full_finetune")
    assert count_trainable_params(model) == total


def test_imagenet_sized_heads_give_the_sizes_of_the_published_weights():
    assert count_total_params(build("resnet50", 1000)) == 25_557_032
    assert count_total_params(build("vit_b_16", 1000)) == 86_567_656


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 64), ("vit_b_16", 64), ("timm/vit_tiny_patch16_224", 64), ("timm/resnet10t", 64)]
)
def test_output_has_one_logit_a_class(name, size):
    model = build(name, 7, size).eval()
    with torch.inference_mode():
        assert model(torch.randn(2, 3, size, size)).shape == (2, 7)


def test_a_timm_model_brings_its_own_mean_std_and_size():
    spec = model_spec("timm/tf_efficientnet_lite0")
    assert (spec.mean, spec.std, spec.image_size, spec.family) == ((0.5,) * 3, (0.5,) * 3, 224, "cnn")
    assert model_spec("timm/tf_efficientnet_lite2").image_size == 260
    assert model_spec("timm/vit_tiny_patch16_224").family == "vit"
    assert model_spec("timm/vit_tiny_patch16_224", 96).image_size == 96


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


def test_the_seed_alone_decides_random_weights():
    torch.manual_seed(1)
    one = build_model(model_spec("resnet18"), 5, "none", seed=3).model.state_dict()
    torch.manual_seed(2)
    two = build_model(model_spec("resnet18"), 5, "none", seed=3).model.state_dict()
    other = build_model(model_spec("resnet18"), 5, "none", seed=4).model.state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["fc.weight"], other["fc.weight"])


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}])
def test_weights_from_a_file(tmp_path, wrap):
    donor = build("resnet18", 10)
    torch.save(wrap(donor.state_dict()), tmp_path / "w.pth")
    built = build_model(model_spec("resnet18"), 10, str(tmp_path / "w.pth"), seed=9)
    assert all(
        torch.equal(a, b) for a, b in zip(donor.state_dict().values(), built.model.state_dict().values(), strict=True)
    )


def test_weights_of_another_head_load_all_but_the_head_and_say_so(tmp_path):
    donor = build("vit_b_16", 10, 32)
    save_file(donor.state_dict(), tmp_path / "w.safetensors")
    built = build_model(model_spec("vit_b_16", 32), 7, str(tmp_path / "w.safetensors"), seed=9)
    assert built.note.endswith("without the head (file: 10 classes, here: 7)")
    own, given = built.model.state_dict(), donor.state_dict()
    assert own["heads.head.weight"].shape == (7, 768)
    assert all(torch.equal(own[key], given[key]) for key in own if not key.startswith("heads.head."))


def test_data_parallel_prefixes_and_missing_counters_are_no_obstacle(tmp_path):
    state = build("resnet18", 5).state_dict()
    state = {f"module.{key}": value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "w.pth")
    model = build("resnet18", 5)
    load_weights(model, tmp_path / "w.pth")
    assert torch.equal(model.conv1.weight, state["module.conv1.weight"])


def test_weights_that_do_not_fit_are_refused_with_the_first_name(tmp_path):
    state = build("resnet18", 5).state_dict()
    del state["conv1.weight"]
    state["surplus"] = torch.zeros(1)
    state["bn1.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(
        ValueError, match=r"1 missing \(first: conv1\.weight\), 1 left over \(first: surplus\), 1 of anoth"
    ):
        load_weights(build("resnet18", 5), tmp_path / "w.pth")


class _Surprise:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_file_that_is_no_state_dict_is_refused_and_not_run(tmp_path, capsys):
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"x": _Surprise()}, tmp_path / "code.pth")
    torch.save({"x": 3}, tmp_path / "number.pth")
    for name in ("text", "code", "number"):
        with pytest.raises(ValueError, match=rf"{name}\.pth"):
            load_weights(build("resnet18", 5), tmp_path / f"{name}.pth")
    assert "code ran" not in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match=r"weights: no file 'none\.pth'"):
        load_weights(build("resnet18", 5), "none.pth")


def test_real_weights_recognise_real_dogs(shared_data):
    """A wrong normalisation or a head that was not replaced shows here: linear features separate breeds."""
    spec = model_spec("timm/tf_efficientnet_lite0")
    built = build_model(spec, 30, str(shared_data / "weights" / "tf_efficientnet_lite0.pth"))
    assert "without the head (file: 1000 classes, here: 30)" in built.note
    assert head_names(built.model) == ["classifier"]


@pytest.mark.parametrize(("name", "size"), [("resnet18", None), ("vit_b_16", 32), ("timm/resnet10t", None)])
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


def test_a_pretrained_model_that_cannot_be_downloaded_says_so(monkeypatch):
    def refuse(*arguments, **settings):
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models, "get_model", refuse)
    with pytest.raises(OSError, match=r"cannot download the ImageNet weights of resnet18 \(.*no network"):
        build_pretrained(model_spec("resnet18"))


def _statistics_after_a_step(bn_when_frozen, mode):
    model = nn.Sequential()
    model.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.fc = nn.Linear(4, 2)
    set_trainable_stage(model, mode)
    set_train_mode(model, bn_when_frozen)
    assert model.training
    model(torch.randn(8, 3, 6, 6) + 5)
    return model.body[1].running_mean.abs().sum().item()


def test_batchnorm_of_a_frozen_backbone_keeps_its_statistics():
    assert _statistics_after_a_step("eval", "head_only") == 0
    assert _statistics_after_a_step("train", "head_only") > 0
    assert _statistics_after_a_step("eval", "full_finetune") > 0
