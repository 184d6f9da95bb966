"""Names of recipes with fields: NAME[:FIELD=VALUE]..."""

from dataclasses import replace

import pytest

from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.experiment.settings.recipe_names import RECIPE_FIELDS, parse_recipe_name
from pipelines import RECIPES


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("inaturalist-train:flip=0:rotation_deg=30", {"flip": 0.0, "rotation_deg": 30.0}),
        ("imagenet-train:random_area=0.5+1", {"random_area": (0.5, 1.0)}),
        ("imagenet-train:resize=256:random_area=none:random_crop=true",
         {"resize": 256, "random_area": None, "random_crop": True}),
        ("eval:resize=240+256:interpolation=bicubic", {"resize": (240, 256), "interpolation": "bicubic"}),
        ("resnet-train:randaugment=2+9:fill=1+2+3", {"randaugment": (2, 9), "fill": (1, 2, 3)}),
        ("eval:flip=0", {}),
    ],
)  # fmt: skip
def test_fields_are_those_of_the_recipe(text, fields):
    named = parse_recipe_name(text)
    base = RECIPES[text.partition(":")[0]]
    assert named.recipe == (replace(base, **fields, name=str(named)) if fields else base)
    assert parse_recipe_name(str(named)) == named
    assert {*dict(named.fields)} == {*fields}


def test_evaluation_is_that_of_the_name_at_the_size_that_is_set():
    assert parse_recipe_name("inaturalist-train:flip=0:rotation_deg=0").evaluation is RECIPES["inaturalist-eval"]
    own = parse_recipe_name("eval:resize=224:flip=0.5:brightness=0.1").evaluation
    assert own == replace(RECIPES["eval"], name="eval:resize=224", resize=224)
    assert not own.is_random


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inaturalist-trian", "recipes: got 'inaturalist-trian', expected some of"),
        ("inaturalist-trian", "(did you mean 'inaturalist-train'?)"),
        ("eval:flop=1", "recipes: eval has no field 'flop', expected one of resize,"),
        ("eval:flop=1", "(did you mean 'flip'?)"),
        ("eval:flip", "recipes: got 'flip' in 'eval:flip', expected FIELD=VALUE such as flip=0.5"),
        ("eval:flip=x", "recipes: flip of eval: got 'x', expected a number"),
        ("eval:flip=2", "recipes: eval: flip: got 2.0, expected a number in [0, 1]"),
        ("eval:flip=1:flip=1", "recipes: got flip twice in 'eval:flip=1:flip=1', expected each field once"),
        ("eval:crop=32", "recipes: got crop in 'eval:crop=32', which the model's input decides"),
        ("eval:fill=1+2", "recipes: fill of eval: got '1+2', expected 3 values"),
        ("imagenet-train:random_crop=true", "recipes: imagenet-train: random_crop: got True beside random_area"),
    ],
)
def test_a_wrong_name_is_refused_in_one_line(text, message):
    with pytest.raises(ValueError, match=r"^recipes: ") as caught:
        BenchmarkConfig(recipes=(text,))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_field_but_those_of_the_model_can_be_set():
    assert {*RECIPE_FIELDS} | {"name", "crop", "mean", "std"} == {*RECIPES["eval"].__dataclass_fields__}
