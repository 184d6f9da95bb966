"""Heat maps lie where the evidence is, on models whose evidence is known because their weights were set by hand."""

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer as TimmTransformer
from torch import nn
from torchvision.models import VisionTransformer

from dogs_accel.explain.attention import Attention, attention_rollout, attention_weights, recorded_attention
from dogs_accel.explain.cells import Places, UnexplainableError, scale_to_unit, upsample
from dogs_accel.explain.explainers import find_explainer
from dogs_accel.explain.feature_map import find_last_feature_map
from dogs_accel.explain.gradcam import GradCam
from dogs_accel.models.build import build_model, build_pretrained
from dogs_accel.models.freezing import set_trainable_stage
from dogs_accel.models.specs import model_spec
from pipelines import EVAL, make_loader

SIDE = 64


def build(name, size):
    return build_model(model_spec(name, size), 7, "none").model.eval()


def spot(top, left, channel=0, side=16, size=SIDE):
    """A black image with a bright square of one colour."""
    image = torch.zeros(1, 3, size, size)
    image[:, channel, top : top + side, left : left + side] = 1
    return image


def centre_of(heat):
    """Row and column of the mean place of the heat above a half, in px."""
    heat = torch.where(heat > 0.5, heat, 0.0)
    at = torch.arange(heat.shape[-1]) + 0.5
    return float((heat.sum(1) * at).sum() / heat.sum()), float((heat.sum(0) * at).sum() / heat.sum())


def colour_net(num_halvings=3):
    """A CNN whose class c is the mean brightness of colour c, through padded convolutions as a ResNet has them."""
    net = nn.Sequential()
    for _ in range(num_halvings):
        conv = nn.Conv2d(3, 3, 3, stride=2, padding=1, bias=False)
        conv.weight.data = torch.eye(3)[:, :, None, None] * torch.tensor([0.25, 0.5, 0.25]).outer(
            torch.tensor([0.25, 0.5, 0.25])
        )
        net.extend([conv, nn.ReLU()])
    return net.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3, bias=False)]).requires_grad_(False)


@pytest.fixture
def eye_net():
    net = colour_net()
    net[-1].weight.data = torch.eye(3)
    return net


def drawn(explainer, images, classes, size=SIDE):
    return {
        method: scale_to_unit(upsample(each, explainer.places, size))
        for method, each in explainer.maps(images, classes).items()
    }


@pytest.mark.parametrize(("top", "left"), [(8, 8), (8, 40), (40, 8), (40, 40), (24, 24), (0, 48)])
def test_grad_cam_lies_on_the_evidence_to_two_pixels(eye_net, top, left):
    """Drawn as if cells tiled the image, it would lie half a cell (3.5 px) too far down and right."""
    explainer = find_explainer(eye_net, SIDE)
    [heat] = drawn(explainer, spot(top, left), torch.tensor([0]))["gradcam"]
    row, column = centre_of(heat)
    assert abs(row - (top + 8)) < 2
    assert abs(column - (left + 8)) < 2


def test_grad_cam_is_of_the_class_that_is_asked_for(eye_net):
    both = spot(0, 0, channel=0) + spot(40, 40, channel=1)
    explainer = find_explainer(eye_net, SIDE)
    red, green = drawn(explainer, both.expand(2, -1, -1, -1), torch.tensor([0, 1]))["gradcam"]
    assert centre_of(red)[0] < 16 < 40 < centre_of(green)[0]
    [blue] = explainer.maps(both, torch.tensor([2]))["gradcam"]
    assert (blue == 0).all()


@pytest.mark.parametrize("frozen", [False, True])
def test_grad_cam_equals_a_slow_one(frozen):
    model = build("resnet18", SIDE)
    if frozen:
        set_trainable_stage(model, "head_only")
    images, classes = torch.randn(9, 3, SIDE, SIDE), torch.arange(9) % 7
    explainer = find_explainer(model, SIDE)
    assert explainer.layer == "layer4"
    maps = explainer.maps(images, classes)["gradcam"]
    for image, wanted, own in zip(images, classes, maps, strict=True):
        held = image[None].clone().requires_grad_()
        x = model.maxpool(model.relu(model.bn1(model.conv1(held))))
        features = model.layer4(model.layer3(model.layer2(model.layer1(x))))
        logit = model.fc(model.avgpool(features).flatten(1))[0, wanted]
        [gradient] = torch.autograd.grad(logit, features)
        slow = torch.zeros(features.shape[2:])
        for channel in range(features.shape[1]):
            slow += gradient[0, channel].mean() * features[0, channel].detach()
        torch.testing.assert_close(own, slow.clamp(min=0), rtol=1e-4, atol=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "size", "layer", "grid", "first"),
    [
        ("resnet18", 224, "layer4", 7, 0.5),
        ("resnet18", 32, "layer3", 2, 0.5),  # layer4 has a single cell there, which is nowhere
        ("timm/resnet10t", 64, "layer4", 2, 0.5),
        ("timm/tf_efficientnet_lite0", 224, "bn2", 7, 31.5),  # TensorFlow pads at the bottom
        ("timm/convnext_atto", 96, "norm_pre", 3, 16.0),
        ("timm/densenet121", 96, "features", 3, 14.5),
        ("timm/mobilenetv3_small_050", 96, "blocks", 3, 0.5),
    ],
)
def test_the_last_feature_map_and_where_its_cells_are(name, size, layer, grid, first):
    step = 16.0 if (name, size) == ("resnet18", 32) else 32.0
    assert find_last_feature_map(build(name, size), size) == (
        layer, (grid, grid), Places((first, first), step, "strides and padding")
    )  # fmt: skip


@pytest.mark.parametrize(("name", "size"), [("resnet18", 64), ("timm/convnext_atto", 224), ("timm/densenet121", 96)])
def test_cells_are_where_gradients_say(name, size):
    model = build(name, size)
    explainer = find_explainer(model, size)
    features = []
    with model.get_submodule(explainer.layer).register_forward_hook(lambda _, __, output: features.append(output)):
        images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)).requires_grad_()
        model(images)
    cell = explainer.grid[0] // 2
    [gradient] = torch.autograd.grad(features[0][:, :, cell, cell].square().sum(), images)
    weight, at = gradient.abs().sum((0, 1, 3)), torch.arange(size) + 0.5
    # The image ends before the receptive field does, which moves the mean a little.
    assert abs(float((weight * at).sum() / weight.sum()) - explainer.places.first[0] - cell * 32) < 5


@pytest.mark.parametrize("shift_px", [(0, 0), (3, -2)])
def test_cells_are_measured_where_they_look(eye_net, shift_px):
    """Also where the weights, and not strides and padding, decide: here the first window looks off its centre."""
    down, across = shift_px
    eye_net[0] = nn.Conv2d(3, 3, 9, stride=2, padding=4, bias=False)
    eye_net[0].weight.data.zero_()
    eye_net[0].weight.data[range(3), range(3), 4 + down, 4 + across] = 1
    images = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    explainer = find_explainer(eye_net, SIDE)
    assert explainer.places.first == (0.5, 0.5)
    placed = explainer.placed_on(images).places
    assert placed.source == "gradients on mirrored images"
    assert placed.first == pytest.approx((0.5 + down, max(0.5 + across, 0)), abs=0.75)


def test_weights_trained_with_flips_tile_the_image(shared_data):
    """TensorFlow's padding would put the cells of this network half a cell too far down and right."""
    weights = shared_data / "weights" / "tf_efficientnet_lite0.pth"
    model = build_pretrained(model_spec("timm/tf_efficientnet_lite0"), str(weights)).model
    paths = sorted((shared_data / "stanford-dogs-mini" / "Images").glob("*/*.jpg"))[::100][:4]
    recipe = EVAL.at(224, mean=(0.5,) * 3, std=(0.5,) * 3)
    with make_loader(paths, [0] * 4, recipe, backend="torch", batch_size=4, device="cpu", num_threads=1) as loader:
        [batch] = loader
    explainer = find_explainer(model, 224)
    assert explainer.places.first == (31.5, 31.5)
    assert explainer.placed_on(batch.images).places.first == pytest.approx((16, 16), abs=6)


def test_models_that_cannot_be_explained_are_refused_by_name():
    with pytest.raises(UnexplainableError, match=r"Sequential has no module that gives a feature map"):
        find_explainer(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2)), SIDE)
    with pytest.raises(UnexplainableError, match=r"last feature map of LevitDistilled is that of 'stem'"):
        find_explainer(build("timm/levit_128s", 224), 224)
    with pytest.raises(UnexplainableError, match="SwinTransformer does not say which of its tokens are patches"):
        find_explainer(build("timm/swin_tiny_patch4_window7_224", 224), 224)


def test_a_transformer_of_another_build_gets_grad_cam_and_a_note():
    explainer = find_explainer(build("timm/pvt_v2_b0", 64), 64)
    assert isinstance(explainer, GradCam)
    assert "PyramidVisionTransformerV2 does not say" in explainer.describe()["note"]


# --- attention --------------------------------------------------------------------------------------------------


def torchvision_eye():
    """A ViT in which every token attends to red patches: keys are the redness, queries are constant."""
    model = VisionTransformer(SIDE, 8, num_layers=2, num_heads=1, hidden_dim=8, mlp_dim=8, num_classes=3)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    model.conv_proj.weight.data[0, 0] = 1
    for block in model.encoder.layers:
        attend_to_red(block.self_attention.in_proj_weight, block.self_attention.in_proj_bias)
        block.ln_1.weight.data.fill_(1)
    return model.eval()


def timm_eye(**settings):
    model = TimmTransformer(SIDE, 8, embed_dim=8, depth=2, num_heads=1, num_classes=3, **settings)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    model.patch_embed.proj.weight.data[0, 0] = 1
    for block in model.blocks:
        attend_to_red(block.attn.qkv.weight, block.attn.qkv.bias)
        block.norm1.weight.data.fill_(1)
    return model.eval()


def attend_to_red(weight, bias):
    weight.data[8, 0] = 1  # the first key reads the first channel of a normalised token: sqrt(7) where it is red
    bias.data[0] = 10


EYES = {
    "torchvision": torchvision_eye,
    "timm": timm_eye,
    "timm, no class token": lambda: timm_eye(class_token=False, global_pool="avg"),
    "timm, registers": lambda: timm_eye(reg_tokens=3),
}


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize(("top", "left"), [(8, 8), (8, 40), (40, 8), (48, 48), (0, 24)])
def test_attention_lies_on_the_evidence(eye, top, left):
    explainer = find_explainer(EYES[eye](), SIDE)
    assert isinstance(explainer, Attention)
    assert explainer.reads_class_token == (eye != "timm, no class token")
    maps = explainer.maps(spot(top, left))
    for method, heat in drawn(explainer, spot(top, left), None).items():
        inside = maps[method][0, top // 8 : top // 8 + 2, left // 8 : left // 8 + 2].sum()
        # Without a class token, half of a query stays at its own patch in each layer of the rollout.
        least = 0.7 if (eye, method) == ("timm, no class token", "attention_rollout") else 0.98
        assert inside / maps[method].sum() > least
        row, column = centre_of(heat[0])
        assert abs(row - (top + 8)) < 1
        assert abs(column - (left + 8)) < 1


def test_rollout_equals_a_slow_loop():
    layers = torch.rand(4, 2, 5, 5, generator=torch.Generator().manual_seed(0)).softmax(dim=-1)
    flow = attention_rollout(list(layers))
    for image in range(2):
        slow = np.eye(5)
        for weights in layers[:, image].double().numpy():
            mixed = np.zeros((5, 5))
            for i in range(5):
                for j in range(5):
                    mixed[i, j] = 0.5 * weights[i, j] + 0.5 * (i == j)
                mixed[i] /= mixed[i].sum()
            slow = np.array([[sum(mixed[i, k] * slow[k, j] for k in range(5)) for j in range(5)] for i in range(5)])
        np.testing.assert_allclose(flow[image].numpy(), slow, rtol=1e-12)
    np.testing.assert_allclose(flow.sum(dim=-1), 1)


@pytest.mark.parametrize("with_gradients", [False, True])
@pytest.mark.parametrize(
    ("name", "size", "tokens"),
    [("vit_b_16", 32, 5), ("timm/vit_tiny_patch16_224", 64, 17), ("timm/vit_relpos_small_patch16_224", 64, 16)],
)
def test_reading_the_attention_leaves_the_logits(name, size, tokens, with_gradients):
    model = build(name, size)
    images = torch.randn(2, 3, size, size)
    with torch.set_grad_enabled(with_gradients):
        before = model(images)
        with recorded_attention(model) as layers:
            during = model(images)
        after = model(images)
    torch.testing.assert_close(during, before, rtol=1e-5, atol=1e-5)
    assert torch.equal(after, before)
    assert [weights.shape for weights in layers] == [(2, tokens, tokens)] * 12
    for weights in layers:
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, tokens))


def test_the_recorded_weights_are_those_of_the_formula():
    model = build("timm/vit_tiny_patch16_224", 64)
    images = torch.randn(2, 3, 64, 64)
    inputs = []
    block = model.blocks[-1].attn
    with block.register_forward_pre_hook(lambda _, given: inputs.append(given[0])):
        recorded = attention_weights(model, images)[-1]
    query, key, _ = block.qkv(inputs[0]).reshape(2, 17, 3, 3, 64).unbind(2)
    slow = torch.einsum("nihd,njhd->nhij", query, key).div(8).softmax(dim=-1).mean(dim=1)
    torch.testing.assert_close(recorded, slow, rtol=1e-4, atol=1e-6)


def test_maps_that_tile_the_image_are_drawn_as_torch_does():
    maps = torch.rand(2, 7, 7)
    own = upsample(maps, Places.even((7, 7), 100), 100)
    torchs = nn.functional.interpolate(maps[:, None], size=(100, 100), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(own, torchs)


def test_each_map_is_scaled_by_itself():
    scaled = scale_to_unit(torch.stack([torch.tensor([[1.0, 3.0], [2.0, 5.0]]), torch.full((2, 2), 4.0)]))
    assert scaled.tolist() == [[[0.0, 0.5], [0.25, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]
