"""Weights of another input size: tables of positions are resampled as timm does, and the run says so."""

import sys

import pytest
import timm
import torch
import torchvision
from timm.layers.pos_embed import resample_abs_pos_embed

from dogs_accel.models import build as building
from dogs_accel.models.build import build_model, create_vit_b16
from dogs_accel.models.positions import fit_positions
from dogs_accel.models.specs import model_spec
from dogs_accel.models.weights import load_weights

SMALL = {"depth": 1, "embed_dim": 16, "num_heads": 2}
SWIN = {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 3, 6)}
WINDOWS = ", ".join(
    f"relative positions resampled from windows of 7 x 7 to {side} x {side}{layers}"
    for side, layers in ((6, ""), (3, ""))
)


def random_state(model):
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }


@pytest.mark.parametrize(
    ("name", "settings", "sizes", "said"),
    [
        ("vit_tiny_patch16_224", SMALL, (224, 96), "positions resampled from 14 x 14 to 6 x 6 patches"),
        ("vit_tiny_patch16_224", SMALL, (64, 96), "positions resampled from 4 x 4 to 6 x 6 patches"),
        ("deit_tiny_distilled_patch16_224", SMALL, (64, 96), "positions resampled from 4 x 4 to 6 x 6 patches"),
        ("deit3_small_patch16_224", SMALL, (64, 96), "positions resampled from 4 x 4 to 6 x 6 patches"),  # no prefix
        ("beit_base_patch16_224", SMALL, (64, 96), "relative positions resampled from windows of 4 x 4 to 6 x 6"),
        ("swin_tiny_patch4_window7_224", SWIN, (224, 96), WINDOWS),
        ("vit_tiny_patch16_224", SMALL, (64, 64), ""),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence", "ignore:torch.searchsorted")  # of timm itself
def test_tables_are_those_that_timm_makes(name, settings, sizes, said):
    donor, model = (timm.create_model(name, num_classes=3, img_size=size, **settings) for size in sizes)
    state = random_state(donor)
    fitted, words = fit_positions(model, state)
    assert words == said
    filtered = sys.modules[type(model).__module__].checkpoint_filter_fn(dict(state), model)
    assert fitted.keys() == filtered.keys()
    for key, value in fitted.items():
        torch.testing.assert_close(value, filtered[key], rtol=0, atol=0)
    model.load_state_dict(fitted)


def test_old_files_hold_tables_that_a_model_computes():
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=3, img_size=96, **SWIN)
    state = random_state(model)
    index = {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49)}
    assert fit_positions(model, state | index)[0].keys() == state.keys()
    with torch.device("meta"):
        swin = torchvision.models.swin_t()  # which keeps them in its state
    own = swin.state_dict()
    without = {key: value for key, value in own.items() if not key.endswith("relative_position_index")}
    assert fit_positions(swin, without)[0].keys() == own.keys()


NAME = "vit:patch=8:dim=16:depth=1:heads=2"


def test_torchvisions_vit_at_another_size(tmp_path):
    state = build_model(model_spec(NAME, 64), 5, "none").model.state_dict()
    torch.save(state, tmp_path / "w.pth")
    built = build_model(model_spec(NAME, 32), 5, str(tmp_path / "w.pth"))
    assert built.note.endswith("w.pth, positions resampled from 8 x 8 to 4 x 4 patches")
    key = "encoder.pos_embedding"
    expected = resample_abs_pos_embed(state[key], [4, 4], num_prefix_tokens=1)
    own = built.model.state_dict()
    assert torch.equal(own[key], expected)
    assert all(torch.equal(own[each], state[each]) for each in own if each != key)


def test_published_weights_of_vit_b_16_are_resampled_too(monkeypatch):
    """Without a download: a network of one small layer in its place."""
    spec = model_spec(NAME, 64)
    donor = build_model(spec, 1000, "none").model

    class Entry:
        def get_state_dict(self, **settings):
            return donor.state_dict()

    def small(base, image_size, **settings):
        assert base == "vit_b_16"
        return build_model(model_spec(NAME, image_size), 1000, "none", seed=5).model

    monkeypatch.setattr(building.torchvision.models, "get_model", small)
    key = "encoder.pos_embedding"
    same, other = (create_vit_b16(1000, Entry(), size).state_dict() for size in (64, 32))
    assert torch.equal(same[key], donor.state_dict()[key])
    assert torch.equal(other[key], resample_abs_pos_embed(donor.state_dict()[key], [4, 4], num_prefix_tokens=1))
    monkeypatch.setattr(building, "torchvision_weights", lambda base: Entry())
    note = build_model(model_spec("vit_b_16", 32), 7, "imagenet").note
    assert note == ("ViT-B/16: ImageNet weights, new head for 7 classes, table of positions resampled from 224 px")
    assert build_model(model_spec("vit_b_16"), 7, "imagenet").note.endswith("new head for 7 classes")


@pytest.mark.fault(
    "Archives and checkpoints",
    "weights of another input size",
    "tables of positions are resampled, and the run says so; where they cannot be, one line has both sizes",
)
@pytest.mark.parametrize("num_tokens", [1 + 15, 1])
def test_positions_of_no_grid_are_refused_with_both_sizes(tmp_path, num_tokens):
    model = build_model(model_spec(NAME, 32), 5, "none").model
    torch.save(model.state_dict() | {"encoder.pos_embedding": torch.zeros(1, num_tokens, 16)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"does not fit the model: 1 of another shape \(first: encoder") as refused:
        load_weights(model, tmp_path / "w.pth")
    assert str(refused.value).endswith(
        f"(first: encoder.pos_embedding, (1, {num_tokens}, 16) in the file and (1, 17, 16) here)"
    )
