"""What a model says to the pixels of a loader."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as F

from dogs_accel.models.build import build_pretrained
from dogs_accel.models.specs import model_spec
from dogs_accel.parity.answers import compare_logits, loader_logits
from dogs_accel.parity.measure import ParityError
from pipelines import EVAL, Batch, make_loader
from tests.support.altered_loaders import SMALL, Altered, Reading, made_by


def test_a_change_of_logits_is_measured():
    theirs = np.array([[3, 1, 0], [0, 2, 1], [1, 0, 5], [2, 1, 0]], dtype=np.float32)
    ours = theirs.copy()
    ours[1] = [0, 2, 3]
    found = compare_logits(ours, theirs, loader="x", model="m")
    assert found.top1_agreement == 0.75
    assert found.mean_change == pytest.approx(2 / 12)
    assert found.max_change == 2
    assert found.logit_std == pytest.approx(theirs.std())
    assert not found.passes
    with pytest.raises(ParityError, match=r"loader x, model m: share of photos .* is 0\.75, expected >= 0\.995"):
        found.require()
    assert compare_logits(theirs, theirs, loader="x").require().max_change == 0
    with pytest.raises(ValueError, match=r"logits: got shapes \(3, 3\) and \(4, 3\)"):
        compare_logits(ours[:3], theirs, loader="x")


def test_a_real_model_sees_the_loss_of_antialiasing(shared_data):
    weights = shared_data / "weights" / "tf_efficientnet_lite0.pth"
    spec = model_spec("timm/tf_efficientnet_lite0")
    built = build_pretrained(spec, str(weights))
    assert built.model.classifier.out_features == 1000
    assert "without the head" not in built.note
    photos = sorted((shared_data / "stanford-dogs-mini" / "Images").rglob("*.jpg"))[::64]
    recipe = EVAL.at(spec.image_size, spec.mean, spec.std)

    def read(path):
        image = F.pil_to_tensor(Image.open(path).convert("RGB"))
        return F.to_pil_image(F.resize(image, list(recipe.resize), antialias=False))

    ask = partial(loader_logits, built.model, photos, recipe, backend="torch", device="cpu", num_threads=2)
    theirs, again = ask(), ask(make=lambda *given, **settings: make_loader(*given, **settings | {"shuffle": True}))
    assert theirs.shape == (len(photos), 1000)
    np.testing.assert_allclose(again, theirs, atol=1e-4)
    worse = compare_logits(ask(make=made_by(Reading, read=read)), theirs, loader="reading")
    assert 10 * compare_logits(again, theirs, loader="torch").max_change < worse.mean_change
    assert worse.max_change > 0.1 * worse.logit_std


def test_a_loader_that_leaves_a_photo_out_gets_no_logits(paths):
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    alter = {"alter": lambda batch: Batch(*(part[1:] for part in batch))}
    with pytest.raises(ParityError, match="expected each of 12 images once"):
        loader_logits(model, paths, SMALL, backend="x", device="cpu", num_threads=1, make=made_by(Altered, **alter))
