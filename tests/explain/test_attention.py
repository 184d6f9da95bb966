import numpy as np
import pytest
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer as TimmTransformer
from torch import nn
from torchvision.models import VisionTransformer

from dogs_accel.explain.attention import Attention, attention_rollout, attention_weights, recorded_attention
from dogs_accel.explain.explainers import find_explainer
from tests.support.eyes import SIDE, build, centre_of, drawn, spot


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
    assert explainer.tokens.num_read == (eye != "timm, no class token")
    maps = explainer.maps(spot(top, left))
    for method, heat in drawn(explainer, spot(top, left), None).items():
        inside = maps[method][0, top // 8 : top // 8 + 2, left // 8 : left // 8 + 2].sum()
        # Without a class token, half of a query stays at its own patch in each layer of the rollout.
        least = 0.7 if (eye, method) == ("timm, no class token", "attention_rollout") else 0.98
        assert inside / maps[method].sum() > least
        row, column = centre_of(heat[0])
        assert abs(row - (top + 8)) < 1
        assert abs(column - (left + 8)) < 1


def test_patches_are_where_they_are_cut_also_where_the_last_pixels_are_not_seen():
    model = TimmTransformer(40, 16, embed_dim=8, depth=1, num_heads=1, num_classes=3)
    explainer = find_explainer(model, 40)
    assert explainer.grid == (2, 2)
    assert (explainer.places.first, explainer.places.step) == ((8, 8), 16)


@pytest.mark.parametrize(
    ("settings", "queries"),
    [
        ({}, "the class token"),
        ({"class_token": False, "global_pool": "avg"}, "mean over the patches, as the head pools them"),
        (
            {"class_token": False, "global_pool": "map"},
            "mean over the patches; the head pools them otherwise (map), which the maps leave out",
        ),
    ],
)
def test_whose_attention_is_shown_is_said(settings, queries):
    model = TimmTransformer(32, 16, embed_dim=8, depth=1, num_heads=1, num_classes=3, **settings)
    assert find_explainer(model, 32).describe()["queries"] == queries


def test_both_tokens_of_a_distilled_model_are_read():
    model = VisionTransformerDistilled(img_size=32, patch_size=16, embed_dim=8, depth=2, num_heads=2, num_classes=3)
    explainer, images = find_explainer(model, 32), torch.randn(1, 3, 32, 32)
    assert explainer.describe()["queries"] == "mean over the 2 tokens of the heads"
    of_both = attention_weights(model, images)[-1][0, :2, 2:].mean(dim=0)
    torch.testing.assert_close(explainer.maps(images)["attention_last"].flatten(), of_both)


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
