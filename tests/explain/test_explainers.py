import pytest
from torch import nn

from dogs_accel.explain.cells import UnexplainableError
from dogs_accel.explain.explainers import find_explainer
from dogs_accel.explain.gradcam import GradCam
from tests.support.eyes import SIDE, build


@pytest.mark.fault(
    "Training and models",
    "a token mixer, of which no heat map can be made",
    "the reason: no global pooling follows its last feature map",
)
def test_models_that_cannot_be_explained_are_refused_by_name():
    with pytest.raises(UnexplainableError, match=r"Sequential has no module that gives a feature map"):
        find_explainer(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2)), SIDE)
    with pytest.raises(UnexplainableError, match=r"last feature map of LevitDistilled is that of 'stem'"):
        find_explainer(build("timm/levit_128s", 224), 224)
    with pytest.raises(UnexplainableError, match=r"last feature map of MlpMixer is that of 'stem.*no global pooling"):
        find_explainer(build("timm/mixer_s32_224", 224), 224)


def test_a_transformer_of_another_build_gets_grad_cam_and_a_note():
    explainer = find_explainer(build("timm/pvt_v2_b0", 64), 64)
    assert isinstance(explainer, GradCam)
    assert "PyramidVisionTransformerV2 does not say" in explainer.describe()["note"]
