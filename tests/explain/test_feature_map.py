import pytest
import torch
from torch import nn

from dogs_accel.explain.cells import Places
from dogs_accel.explain.explainers import find_explainer
from dogs_accel.explain.feature_map import FeatureMap, find_last_feature_map
from dogs_accel.models.build import build_pretrained
from dogs_accel.models.specs import model_spec
from pipelines import EVAL, make_loader
from tests.support.eyes import SIDE, build


@pytest.mark.parametrize(
    ("name", "size", "layer", "side", "first"),
    [
        ("resnet18", 224, "layer4", 7, 0.5),
        ("resnet18", 32, "layer3", 2, 0.5),  # layer4 has a single cell there, which is nowhere
        ("timm/resnet10t", 64, "layer4", 2, 0.5),
        ("timm/tf_efficientnet_lite0", 224, "bn2", 7, 31.5),  # TensorFlow pads at the bottom
        ("timm/convnext_atto", 96, "norm_pre", 3, 16.0),
        ("timm/densenet121", 96, "features", 3, 14.5),
        ("timm/dla46x_c", 64, "level5", 2, 0.5),  # a branch without padding runs before those with
        ("timm/mobilenetv3_small_050", 96, "blocks", 3, 0.5),
    ],
)
def test_the_last_feature_map_and_where_its_cells_are(name, size, layer, side, first):
    step = 16.0 if (name, size) == ("resnet18", 32) else 32.0
    places = Places((first, first), step, "strides and padding")
    found = find_last_feature_map(build(name, size), size)
    assert found == FeatureMap(layer, side, places, is_channels_last=False)


@pytest.mark.fault(
    "Training and models",
    "heat maps of Swin, MambaOut and Sequencer, whose maps have their channels last",
    "Grad-CAM, as for any other map",
)
@pytest.mark.parametrize(
    ("name", "size", "layer", "places"),
    [  # as small as they can be
        ("timm/swin_tiny_patch4_window7_224", 64, "norm", Places((16, 16), 32, "assumed to tile the image")),
        ("timm/mambaout_femto", 96, "stages", Places((0.5, 0.5), 32, "strides and padding")),
        ("timm/sequencer2d_s", 28, "norm", Places((7, 7), 14, "strides and padding")),
    ],
)
def test_maps_with_their_channels_last_are_found_and_drawn(name, size, layer, places):
    model = build(name, size)
    explainer = find_explainer(model, size)
    side = round(size / places.step)
    assert explainer.found == FeatureMap(layer, side, places, is_channels_last=True)
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    logits = model(image)
    maps = explainer.placed_on(image).maps(image.expand(7, -1, -1, -1), torch.arange(7))["gradcam"]
    assert maps.shape == (7, side, side)
    assert (maps >= 0).all()
    assert maps.amax() > 0
    torch.testing.assert_close(model(image), logits, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "size"), [("resnet18", 64), ("timm/convnext_atto", 224), ("timm/densenet121", 96)])
def test_cells_are_where_gradients_say(name, size):
    model = build(name, size)
    explainer = find_explainer(model, size)
    features = []
    layer = model.get_submodule(explainer.found.layer)
    with layer.register_forward_hook(lambda _, __, output: features.append(output)):
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
