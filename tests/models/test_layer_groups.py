import pytest
import timm
import torch
import torchvision
from torch import nn

from dogs_accel.models.freezing import set_trainable_stage
from dogs_accel.models.layer_groups import layer_groups, set_trainable_groups
from dogs_accel.training.optimizers import param_groups
from dogs_accel.training.phases import Phase


def build(name, num_classes=10):
    with torch.device("meta"):
        if name.startswith("timm/"):
            return timm.create_model(name.removeprefix("timm/"), num_classes=num_classes)
        return torchvision.models.get_model(name, num_classes=num_classes)


class SmallNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 3)
        self.body = nn.Linear(3, 3, bias=False)
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(torch.relu(self.body(torch.relu(self.stem(x)))))


def phase(**fields):
    return Phase(**({"name": "tune", "mode": "full_finetune", "epochs": 3, "lr": 1e-3} | fields))


def tops(group, depth=1):
    """Modules of a group's parameters, in order, to a depth of dots."""
    return list(dict.fromkeys(".".join(name.split(".")[:depth]) for name in group))


def trainable(model):
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize("name", ["resnet18", "timm/resnet18"])
def test_groups_of_a_resnet_are_its_stages(name):
    groups = layer_groups(build(name))
    assert [tops(group) for group in groups] == [
        ["fc"], ["layer4"], ["layer3"], ["layer2"], ["layer1"], ["conv1", "bn1"],
    ]  # fmt: skip
    assert groups[0] == ["fc.weight", "fc.bias"]
    assert groups[-1] == ["conv1.weight", "bn1.weight", "bn1.bias"]


def test_groups_of_torchvisions_vit_are_its_blocks():
    groups = layer_groups(build("vit_b_16"))
    assert len(groups) == 14
    assert groups[0] == ["heads.head.weight", "heads.head.bias"]
    assert tops(groups[1], 3) == ["encoder.layers.encoder_layer_11", "encoder.ln.weight", "encoder.ln.bias"]
    assert [tops(group, 3) for group in groups[2:13]] == [
        [f"encoder.layers.encoder_layer_{i}"] for i in range(10, -1, -1)
    ]
    assert groups[13] == ["class_token", "conv_proj.weight", "conv_proj.bias", "encoder.pos_embedding"]


def test_groups_of_timms_vit_are_those_of_torchvisions():
    groups = layer_groups(build("timm/vit_tiny_patch16_224"))
    assert groups[0] == ["head.weight", "head.bias"]
    assert tops(groups[1], 2) == ["blocks.11", "norm.weight", "norm.bias"]
    assert [tops(group, 2) for group in groups[2:13]] == [[f"blocks.{i}"] for i in range(10, -1, -1)]
    assert groups[13] == ["cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"]


def test_a_distilled_models_two_heads_are_one_group():
    groups = layer_groups(build("timm/deit_tiny_distilled_patch16_224"))
    assert groups[0] == ["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"]
    assert len(groups) == 14
    assert tops(groups[13]) == ["cls_token", "pos_embed", "dist_token", "patch_embed"]


def test_groups_of_an_efficientnet_are_timms_stages():
    groups = layer_groups(build("timm/tf_efficientnet_lite0"))
    assert [tops(group, 2) for group in groups] == [
        ["classifier.weight", "classifier.bias"],
        ["blocks.6", "conv_head.weight", "bn2.weight", "bn2.bias"],
        *[[f"blocks.{i}"] for i in range(5, -1, -1)],
        ["conv_stem.weight", "bn1.weight", "bn1.bias"],
    ]


def test_a_norm_before_the_head_belongs_to_the_last_stage():
    groups = layer_groups(build("timm/convnext_atto"))
    assert groups[0] == ["head.fc.weight", "head.fc.bias"]
    assert tops(groups[1], 2) == ["stages.3", "head.norm"]
    assert [tops(group, 2) for group in groups[2:-1]] == [["stages.2"], ["stages.1"], ["stages.0"]]
    assert tops(groups[-1]) == ["stem"]


def test_any_other_model_is_its_head_and_the_rest():
    assert layer_groups(SmallNet()) == [["fc.weight", "fc.bias"], ["stem.weight", "stem.bias", "body.weight"]]
    only_head = nn.Module()
    only_head.fc = nn.Linear(2, 2)
    assert layer_groups(only_head) == [["fc.weight", "fc.bias"]]


@pytest.mark.parametrize(
    ("name", "num_groups"),
    [
        ("resnet18", 6),
        ("resnet50", 6),
        ("vit_b_16", 14),
        ("timm/vit_tiny_patch16_224", 14),
        ("timm/tf_efficientnet_lite0", 9),
        ("timm/deit_tiny_distilled_patch16_224", 14),
        ("timm/levit_128s", 5),  # heads with norms of their own
        ("timm/resnetv2_50", 6),  # a convolution as its head
        ("timm/vgg11", 9),  # most of its weights lie between the stages and the head
        ("timm/pit_ti_224", 2),  # timm has no groups for it
        ("timm/rdnet_tiny", 9),  # timm has no coarse groups for it
    ],
)
def test_each_parameter_is_in_one_group_and_the_head_in_the_first(name, num_groups):
    model = build(name)
    groups = layer_groups(model)
    assert len(groups) == num_groups
    assert all(groups)
    names = [name for name, _ in model.named_parameters()]
    assert sorted(name for group in groups for name in group) == sorted(names)
    for group in groups:
        assert group == [name for name in names if name in group]
    set_trainable_stage(model, "head_only")
    assert trainable(model) == groups[0]


@pytest.mark.parametrize("name", ["resnet18", "timm/deit_tiny_distilled_patch16_224"])
def test_as_many_groups_train_as_asked(name):
    model = build(name)
    groups = layer_groups(model)
    for num_groups in (len(groups), 1, 3):  # down and up again
        set_trainable_groups(model, num_groups)
        assert set(trainable(model)) == {name for group in groups[:num_groups] for name in group}
    with pytest.raises(ValueError, match=rf"^num_groups: got 0, expected an integer from 1 to {len(groups)}$"):
        set_trainable_groups(model, 0)
    with pytest.raises(ValueError, match=rf"^num_groups: got {len(groups) + 1}, expected an integer"):
        set_trainable_groups(model, len(groups) + 1)


@pytest.mark.parametrize("mode", ["head_only", "full_finetune"])
@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "timm/deit_tiny_distilled_patch16_224"])
def test_a_published_phase_has_one_group_in_the_models_order(name, mode):
    model = build(name)
    [group] = param_groups(model, phase(mode=mode))
    assert group["lr"] == 1e-3
    set_trainable_stage(model, mode)
    expected = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(group["params"]) == len(expected)
    assert all(one is other for one, other in zip(group["params"], expected, strict=True))


def test_layer_decay_gives_each_group_its_rate():
    model = build("resnet18")
    groups = param_groups(model, phase(layer_decay=0.5))
    assert [group["lr"] for group in groups] == [1e-3, 5e-4, 2.5e-4, 1.25e-4, 6.25e-5, 3.125e-5]
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    assert [[by_id[id(parameter)] for parameter in group["params"]] for group in groups] == layer_groups(model)
    [head] = param_groups(model, phase(layer_decay=0.5, mode="head_only"))
    assert (len(head["params"]), head["lr"]) == (2, 1e-3)


def test_a_phase_too_short_to_unfreeze_all_optimises_what_it_reaches():
    model = build("resnet18")
    short = phase(unfreeze_every=1)
    [group] = param_groups(model, short)
    set_trainable_groups(model, short.num_trainable_groups(short.epochs - 1, 6))
    assert tops(trainable(model)) == ["layer3", "layer4", "fc"]
    assert sum(parameter.numel() for parameter in group["params"]) == sum(
        parameter.numel() for parameter in model.parameters() if parameter.requires_grad
    )
    assert [group["lr"] for group in param_groups(model, phase(unfreeze_every=2, layer_decay=0.5))] == [1e-3, 5e-4]


@pytest.mark.parametrize("layer_decay", [1.0, 0.1])
def test_adamw_leaves_a_group_alone_until_it_is_unfrozen(layer_decay):
    torch.manual_seed(0)
    model, images = SmallNet(), torch.randn(8, 4)
    gradual = phase(epochs=2, unfreeze_every=1, layer_decay=layer_decay)
    optimizer = torch.optim.AdamW(param_groups(model, gradual), weight_decay=0.1, fused=True)
    for epoch, moved in enumerate(([False, False, True], [True, True, True])):
        before = [layer.weight.detach().clone() for layer in (model.stem, model.body, model.fc)]
        set_trainable_groups(model, gradual.num_trainable_groups(epoch, len(layer_groups(model))))
        optimizer.zero_grad()
        model(images).square().sum().backward()
        optimizer.step()
        after = [layer.weight for layer in (model.stem, model.body, model.fc)]
        assert [not torch.equal(old, new) for old, new in zip(before, after, strict=True)] == moved
    # The first step of Adam is as long as the rate, whatever the gradient.
    step = (model.body.weight - before[1]).abs().max().item()
    assert step == pytest.approx(1e-3 * layer_decay, rel=0.05)
