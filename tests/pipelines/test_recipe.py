import json
from dataclasses import asdict, fields, replace

import pytest

import pipelines
from pipelines import CIFAR_TRAIN, EVAL, IMAGENET_TRAIN, RECIPES, RESNET_TRAIN, STANDARD_TRAIN, VIT_TRAIN, Recipe


def test_published_values():
    assert (EVAL.resize, EVAL.crop, EVAL.is_random) == ((256, 256), 224, False)
    assert (RESNET_TRAIN.random_area, RESNET_TRAIN.rotation_deg, RESNET_TRAIN.erasing) == ((0.72, 1.0), 15, 0.10)
    assert {RESNET_TRAIN.brightness, RESNET_TRAIN.contrast, RESNET_TRAIN.saturation} == {0.15}
    assert (VIT_TRAIN.random_area, VIT_TRAIN.rotation_deg, VIT_TRAIN.erasing) == ((0.78, 1.0), 0, 0.08)
    assert {VIT_TRAIN.brightness, VIT_TRAIN.contrast, VIT_TRAIN.saturation} == {0.10}
    for recipe in (EVAL, RESNET_TRAIN, VIT_TRAIN):
        assert recipe.mean == (0.485, 0.456, 0.406)
        assert recipe.std == (0.229, 0.224, 0.225)
        assert recipe.random_ratio == (3 / 4, 4 / 3)
        assert (recipe.erasing_area, recipe.erasing_ratio) == ((0.02, 0.33), (0.3, 3.3))


def test_another_size_keeps_the_proportion_of_resize_to_crop():
    small = RESNET_TRAIN.at(112, mean=(0.5, 0.5, 0.5))
    assert (small.resize, small.crop, small.mean, small.std) == ((128, 128), 112, (0.5, 0.5, 0.5), RESNET_TRAIN.std)


@pytest.mark.parametrize(
    ("resize", "size", "expected"),
    [
        ((256, 300), (10, 20), (256, 300)),
        (256, (300, 401), (256, 342)),
        (256, (401, 300), (342, 256)),
        (None, (7, 9), (7, 9)),
    ],
)
def test_size_after_the_resize(resize, size, expected):
    recipe = Recipe(name="test", resize=resize, crop=5, random_area=(0.5, 1))
    assert recipe.resized(*size) == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crop", 0),
        ("flip", 1.5),
        ("erasing", -0.1),
        ("random_area", (0.9, 0.5)),
        ("interpolation", "nearest"),
        ("resize", (100, 256)),
        ("padding", -1),
        ("fill", (0, 0, 256)),
        ("hue", 0.6),
        ("grayscale", 2),
        ("randaugment", (0, 9)),
        ("randaugment", (2, 31)),
        ("randaugment", (2, 9.5)),
        ("crop", 16.5),
        ("padding", 0.5),
        ("resize", 0),
        ("resize", [256, 256]),
        ("resize", (256, 256, 256)),
        ("fill", (0.5, 0, 0)),
        ("rotation_deg", float("nan")),
        ("mean", (0.5, 0.5)),
        ("mean", (float("nan"), 0.5, 0.5)),
        ("std", (0.0, 0.2, 0.2)),
        ("erasing_ratio", (0.3, float("inf"))),
    ],
)
def test_an_impossible_value_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field}: got "):
        Recipe(**{"name": "test", field: value})


def test_two_kinds_of_random_crop_are_refused():
    with pytest.raises(ValueError, match=r"^random_crop: got True beside random_area"):
        Recipe(name="test", random_crop=True, random_area=(0.5, 1))


def test_a_crop_may_be_as_large_as_the_padded_image():
    assert Recipe(name="test", resize=(24, 24), padding=4, crop=32).padding == 4
    with pytest.raises(ValueError, match=r"^resize: got \(24, 24\), .* 33 px on each side, with a padding of 4 px$"):
        Recipe(name="test", resize=(24, 24), padding=4, crop=33)


def test_another_size_keeps_the_proportion_of_the_padding():
    assert (CIFAR_TRAIN.at(64).padding, CIFAR_TRAIN.at(64).resize, IMAGENET_TRAIN.at(64).resize) == (8, (64, 64), None)


def test_presets_are_found_by_name():
    assert {name: recipe.name for name, recipe in RECIPES.items()} == {name: name for name in RECIPES}
    named = {name for name in pipelines.__all__ if isinstance(getattr(pipelines, name), Recipe)}
    assert {getattr(pipelines, name) for name in named} == set(RECIPES.values())
    assert all(name.replace("_", "-").lower() == getattr(pipelines, name).name for name in named)


def test_what_is_recorded_of_a_recipe_is_not_changed_by_fields_that_came_later():
    recorded = RESNET_TRAIN.as_dict()
    assert list(recorded) == [
        "name", "resize", "crop", "random_area", "random_ratio", "flip", "rotation_deg", "brightness", "contrast",
        "saturation", "mean", "std", "erasing", "erasing_area", "erasing_ratio", "interpolation",
    ]  # fmt: skip
    assert recorded.items() <= asdict(RESNET_TRAIN).items()
    assert STANDARD_TRAIN.as_dict().keys() - recorded.keys() == {"hue", "rotation_after_jitter"}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_is_made_anew_from_what_is_recorded(recipe):
    assert Recipe.recorded(json.loads(json.dumps(recipe.as_dict()))) == recipe


def test_every_augmentation_makes_a_recipe_random():
    still = Recipe(name="still")
    on = {
        "random_crop": True, "random_area": (0.5, 1.0), "flip": 0.5, "randaugment": (2, 9), "rotation_deg": 1.0,
        "brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.1, "grayscale": 0.1, "erasing": 0.1,
    }  # fmt: skip
    assert not still.is_random
    assert all(replace(still, **{name: value}).is_random for name, value in on.items())
    fixed = {
        "name", "resize", "padding", "fill", "crop", "random_ratio", "rotation_after_jitter", "mean", "std",
        "erasing_area", "erasing_ratio", "interpolation", "crop_place",
    }  # fmt: skip
    assert fixed | on.keys() == {field.name for field in fields(Recipe)}


def test_a_crop_has_one_place():
    assert replace(EVAL, crop_place="top_left").as_dict() == EVAL.as_dict() | {"crop_place": "top_left"}
    with pytest.raises(ValueError, match=r"^crop_place: got 'left', expected one of centre, top_left, "):
        replace(EVAL, crop_place="left")
    for recipe in (RESNET_TRAIN, CIFAR_TRAIN):
        with pytest.raises(ValueError, match=r"^crop_place: got 'top_left' beside a random crop, expected 'centre'$"):
            replace(recipe, crop_place="top_left")


def test_sides_that_the_operators_cannot_have_are_refused():
    assert EVAL.at(14336).resize == (16384, 16384)
    with pytest.raises(ValueError, match=r"^resize: got \(16385, 16385\), crop 14337, expected at most 16384 px"):
        EVAL.at(14337)
