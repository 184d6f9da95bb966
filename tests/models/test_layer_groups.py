import pytest
import timm
import torch
import torchvision
from torch import nn

from dogs_accel.models import layer_groups as module
from dogs_accel.models.freezing import set_trainable_stage, trained_names
from dogs_accel.models.layer_groups import layer_groups
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


def test_any_other_model_is_its_head_and_its_children():
    assert layer_groups(SmallNet()) == [["fc.weight", "fc.bias"], ["body.weight"], ["stem.weight", "stem.bias"]]
    only_head = nn.Module()
    only_head.fc = nn.Linear(2, 2)
    assert layer_groups(only_head) == [["fc.weight", "fc.bias"]]


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        (
            "vgg16", "classifier.6",
            ["features.28 classifier.0 classifier.3"]
            + [f"features.{i}" for i in (26, 24, 21, 19, 17, 14, 12, 10, 7, 5, 2, 0)],
        ),
        ("vgg11_bn", "classifier.6", [
            "features.25 features.26 classifier.0 classifier.3", "features.22 features.23", "features.18 features.19",
            "features.15 features.16", "features.11 features.12", "features.8 features.9", "features.4 features.5",
            "features.0 features.1",
        ]),
        ("mobilenet_v2", "classifier.1", [f"features.{i}" for i in range(18, -1, -1)]),
        (
            "mobilenet_v3_small", "classifier.3",
            ["features.12 classifier.0"] + [f"features.{i}" for i in range(11, -1, -1)],
        ),
        ("efficientnet_b0", "classifier.1", [f"features.{i}" for i in range(8, -1, -1)]),
        ("convnext_tiny", "classifier.2", ["features.7 classifier.0"] + [f"features.{i}" for i in range(6, -1, -1)]),
        ("swin_t", "head", ["features.7 norm"] + [f"features.{i}" for i in range(6, -1, -1)]),
        ("densenet121", "classifier", [
            "features.denseblock4 features.norm5", "features.transition3", "features.denseblock3",
            "features.transition2", "features.denseblock2", "features.transition1", "features.denseblock1",
            "features.conv0 features.norm0",
        ]),
        ("shufflenet_v2_x0_5", "fc", ["conv5", "stage4", "stage3", "stage2", "conv1"]),
        ("squeezenet1_1", "classifier.1", [f"features.{i}" for i in (12, 11, 10, 9, 7, 6, 4, 3, 0)]),
    ],
)  # fmt: skip
def test_groups_of_torchvisions_models_are_the_layers_of_their_bodies(monkeypatch, name, head, expected):
    monkeypatch.setattr(module, "head_names", lambda model: [head])
    model = build(name)
    groups = layer_groups(model)
    assert [top_modules(group, expected) for group in groups] == [[head], *(each.split() for each in expected)]
    assert sorted(name for group in groups for name in group) == sorted(name for name, _ in model.named_parameters())


def top_modules(group, expected):
    """The modules of a group's parameters, as deep as those that are expected."""
    known = " ".join(expected).split()
    return list(dict.fromkeys(
        next((each for each in known if name.startswith(f"{each}.")), name.rpartition(".")[0]) for name in group
    ))  # fmt: skip


class ChainNet(nn.Module):
    """Blocks in a list or a chain, a hidden layer, and a token of its own."""

    def __init__(self, chain):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 2))
        self.stem = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        self.blocks = chain(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.ReLU()) for _ in range(3))
        self.dense = nn.Linear(2, 2)
        self.fc = nn.Linear(2, 2)


class WrappedNet(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.features = body
        self.fc = nn.Linear(2, 2)


@pytest.mark.parametrize("chain", [nn.ModuleList, lambda blocks: nn.Sequential(*blocks)])
def test_the_links_of_a_chain_are_layers(chain):
    net = ChainNet(chain)
    assert [tops(group, 2) for group in layer_groups(net)] == [
        ["fc.weight", "fc.bias"], ["dense.weight", "dense.bias"], ["blocks.2"], ["blocks.1"], ["blocks.0"],
        ["token", "stem.0", "stem.1"],
    ]  # fmt: skip
    assert [tops(group, 3)[0] for group in layer_groups(WrappedNet(net.blocks))] == [
        "fc.weight", "backbone.features.2", "backbone.features.1", "backbone.features.0"
    ]  # fmt: skip


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
        ("timm/pit_ti_224", 5),  # timm has no groups for it
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
        set_trainable_stage(model, "partial_finetune", num_groups)
        assert set(trainable(model)) == {name for group in groups[:num_groups] for name in group}
    with pytest.raises(ValueError, match=rf"^num_groups: got 0, expected an integer from 1 to {len(groups)}$"):
        set_trainable_stage(model, "partial_finetune")
    with pytest.raises(ValueError, match=rf"^num_groups: got {len(groups) + 1}, expected an integer"):
        set_trainable_stage(model, "partial_finetune", len(groups) + 1)


def test_named_parts_train_and_nothing_else():
    model = build("resnet18")
    assert tops(trained_names(model, "partial_finetune", groups=("fc", "layer4"))) == ["layer4", "fc"]
    assert trained_names(model, "partial_finetune", groups=["layer1.0.conv1", "bn1.weight"]) == [
        "bn1.weight", "layer1.0.conv1.weight"
    ]  # fmt: skip
    with pytest.raises(
        ValueError,
        match=r"^groups: got 'layer5', expected beginnings of the names of parameters that train, in conv1, bn1, "
        r"layer1, layer2, layer3, layer4, fc \(did you mean 'layer4'\?\)$",
    ):
        trained_names(model, "partial_finetune", groups=["fc", "layer5"])
    with pytest.raises(ValueError, match=r"^groups: got 'layer', expected"):  # no module of that name
        set_trainable_stage(model, "partial_finetune", groups=["layer"])
    with pytest.raises(ValueError, match=r"^mode: got 'half', expected one of head_only, full_finetune, partial"):
        set_trainable_stage(model, "half")


def test_rates_by_name_are_those_of_the_longest_and_the_stem_learns_at_lr():
    model = build("resnet18")
    lrs = {"layer1": 1e-5, "layer2": 2e-5, "layer3": 5e-5, "layer4": 1e-4, "layer4.1": 3e-4, "fc": 5e-4}
    groups = param_groups(model, phase(lr=1e-6, lrs=lrs))
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {name_of[id(each)]: group["lr"] for group in groups for each in group["params"]}
    assert len(found) == len(name_of)
    assert len(groups) == 7
    for name, rate in {"conv1": 1e-6, "bn1": 1e-6, "layer4.0": 1e-4, **lrs}.items():
        if name != "layer4":
            assert {value for key, value in found.items() if key.startswith(f"{name}.")} == {rate}
    # The order of the groups, by which an optimiser's state is found again, is not that of the mapping.
    again = param_groups(model, phase(lr=1e-6, lrs=dict(reversed(lrs.items()))))
    assert [group["lr"] for group in again] == [group["lr"] for group in groups]
    with pytest.raises(ValueError, match=r"^lrs: got 'layer1', expected beginnings of .* that train, in layer4, fc"):
        param_groups(model, phase(lrs=lrs, mode="partial_finetune", num_groups=2))


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
    set_trainable_stage(model, *short.stage_at(short.epochs - 1, 6))
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
    for epoch, moved in enumerate(([False, False, True], [False, True, True])):
        before = [layer.weight.detach().clone() for layer in (model.stem, model.body, model.fc)]
        set_trainable_stage(model, *gradual.stage_at(epoch, len(layer_groups(model))))
        optimizer.zero_grad()
        model(images).square().sum().backward()
        optimizer.step()
        after = [layer.weight for layer in (model.stem, model.body, model.fc)]
        assert [not torch.equal(old, new) for old, new in zip(before, after, strict=True)] == moved
    # The first step of Adam is as long as the rate, whatever the gradient.
    step = (model.body.weight - before[1]).abs().max().item()
    assert step == pytest.approx(1e-3 * layer_decay, rel=0.05)
