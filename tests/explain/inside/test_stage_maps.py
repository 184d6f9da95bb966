"""The maps of stages of every kind of network, and where their cells lie."""

import pytest
import torch
from torch import nn

from dogs_accel.explain.cells import UnexplainableError
from dogs_accel.explain.inside.stage_maps import find_stage_maps, record_maps, spread_stages
from dogs_accel.models.architecture.stages import find_stages
from tests.support.eyes import build, colour_net, spot


@pytest.mark.parametrize(
    ("name", "size", "sides"),
    [
        ("resnet18", 64, [16, 16, 8, 4, 2]),
        ("cnn5", 64, [32, 16, 8, 4, 2]),
        ("swin_t", 64, [16, 16, 8, 4, 4, 2]),
        ("timm/convnext_atto", 64, [16, 16, 8, 4, 2]),
        ("vit:dim=48:depth=8:heads=3:patch=8", 32, [4] * 6),
        ("timm/mobilenetv3_small_050", 64, [32, 16, 8, 4, 2, 2]),
    ],
)
def test_the_maps_of_each_kind_of_network(name, size, sides):
    model, images = build(name, size), torch.randn(2, 3, size, size)
    found = find_stage_maps(model, images)
    assert [each.side for each in found] == sides
    with torch.no_grad():
        maps = record_maps(model, found, find_stages(model, images[:1]), images)
    assert [tuple(each.shape) for each in maps] == [(2, each.channels, each.side, each.side) for each in found]


def test_the_tokens_of_a_vit_are_laid_out_as_its_patches():
    model, images = build("vit:dim=48:depth=1:heads=3:patch=8", 32), torch.randn(1, 3, 32, 32)
    stem = find_stage_maps(model, images)[0]
    with torch.no_grad():
        [found] = record_maps(model, [stem], find_stages(model, images), images)
        expected = model.conv_proj(images) + model.encoder.pos_embedding[0, 1:].T.view(1, 48, 4, 4)
    torch.testing.assert_close(found, expected)


def test_a_token_stands_for_its_patch_also_where_the_last_pixels_are_not_seen():
    found = find_stage_maps(build("timm/vit_tiny_patch16_224", 40), torch.randn(1, 3, 40, 40), most=None)
    assert {each.box(1, 0) for each in found} == {(0, 16, 16, 32)}


@pytest.mark.parametrize("at", [(8, 40), (40, 8), (24, 24)])
def test_the_maximum_of_a_map_lies_in_a_bright_square(at):
    model, image = colour_net(2), spot(*at)
    for each in find_stage_maps(model, image):
        with torch.no_grad():
            [found] = record_maps(model, [each], find_stages(model, image), image)
        row, column = divmod(int(found[0, 0].argmax()), each.side)
        for axis, cell in enumerate((row, column)):
            assert at[axis] <= each.places.first[axis] + cell * each.places.step <= at[axis] + 16
        left, top, right, bottom = each.box(row, column)
        # The field reaches the square, and is of this size: 3 px, then 3 + 2 * 2.
        assert max(left, at[1]) < min(right, at[1] + 16)
        assert max(top, at[0]) < min(bottom, at[0] + 16)
        assert right - left == {32: 3, 16: 7}[each.side]


def test_stages_are_spread_over_the_network():
    found = find_stage_maps(build("timm/mobilenetv3_small_050", 64), torch.zeros(1, 3, 64, 64), most=None)
    assert len(spread_stages(found, 3)) == 3
    assert spread_stages(found, 99) == found
    blocks = find_stage_maps(build("vit:dim=24:depth=9:heads=3:patch=8", 32), torch.zeros(1, 3, 32, 32), most=4)
    assert [each.number for each in blocks] == [0, 3, 6, 9]


def test_a_model_without_maps_says_so():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(UnexplainableError, match="no stage that gives a square map"):
        find_stage_maps(model, torch.zeros(1, 3, 4, 4))
