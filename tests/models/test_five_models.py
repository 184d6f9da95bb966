"""The five networks of a comparison on 37 classes: their counts, and what each must be able to do."""

import pytest
import torch

from dogs_accel.explain.explainers import find_explainer
from dogs_accel.explain.gradcam import GradCam
from dogs_accel.inference import export
from dogs_accel.inference.export import check_same
from dogs_accel.models.build import build_model
from dogs_accel.models.freezing import count_total_params, count_trainable_params, set_trainable_stage
from dogs_accel.models.specs import model_spec
from dogs_accel.runtime.processes import ALONE
from dogs_accel.training.features import cache_features, head_of
from pipelines.loader import Batch

XCEPTION = "timm/legacy_xception"
FIVE = {
    # name: (parameters at 37 classes, those of the head, its own input size)
    "vgg16": (134_412_133, 151_589, 224),
    "resnet50": (23_583_845, 75_813, 224),
    "mobilenet_v3_large": (4_249_429, 47_397, 224),
    "efficientnet_b3": (10_753_101, 56_869, 300),
    XCEPTION: (20_882_765, 75_813, 299),
}
CHEAP = (XCEPTION,)
"""Which torch.export goes through soon; the others are exported by `make soak`."""
DROPS = ("vgg16", "efficientnet_b3", "mobilenet_v3_large")
"""Which have a dropout right before their head."""
SIZE = 64


class ListLoader:
    """Two images as one batch."""

    device, dataset_size, batch_size, seed, shuffle, rank, world_size = torch.device("cpu"), 2, 2, 0, False, 0, 1

    def __init__(self, images, labels):
        self.batch = Batch(images, labels, torch.arange(2))

    def __iter__(self):
        yield self.batch


@pytest.mark.parametrize("name", FIVE)
def test_the_documents_counts(name):
    spec = model_spec(name)
    with torch.device("meta"):
        model = build_model(spec, 37, "none").model
    set_trainable_stage(model, "head_only")
    assert (count_total_params(model), count_trainable_params(model), spec.image_size) == FIVE[name]


@pytest.fixture
def images():
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def built(name):
    return build_model(model_spec(name, SIZE), 37, "none").model


@pytest.mark.slow  # the networks are as large as they are
@pytest.mark.parametrize("name", FIVE)
def test_each_is_trained_cached_and_explained(name, images):
    model, labels = built(name), torch.tensor([3, 30])
    first, *_, last = model.parameters()
    before = first.detach().clone(), last.detach().clone()
    torch.nn.functional.cross_entropy(model.train()(images), labels).backward()
    torch.optim.SGD(model.parameters(), lr=0.01, foreach=False).step()
    model.zero_grad(set_to_none=True)
    assert not torch.equal(first, before[0])
    assert not torch.equal(last, before[1])

    explainer = find_explainer(model, SIZE)
    assert isinstance(explainer, GradCam)
    [maps] = explainer.maps(images, labels).values()
    assert maps.shape == (2, *explainer.grid)
    assert maps.isfinite().all()
    assert min(explainer.grid) > 1

    loader = ListLoader(images, labels)
    features = cache_features(model, loader, loader, ALONE).features
    assert features.shape == (2, head_of(model).get_submodule("1" if name in DROPS else "").in_features)
    with torch.inference_mode():
        torch.testing.assert_close(head_of(model).eval()(features), model(images))


@pytest.mark.slow  # torch.export takes seconds of each
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in CHEAP else [pytest.mark.soak]) for name in FIVE]
)
def test_each_is_exported(name, images):
    model = built(name).eval()
    program = export._exported_program(model, SIZE, None)
    check = check_same("model.pt2", "torch.export", model, program.module(), images, SIZE)
    assert check.largest_difference < 1e-5
