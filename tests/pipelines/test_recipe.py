import pytest

from pipelines import EVAL, RESNET_TRAIN, VIT_TRAIN, Recipe


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
    ],
)
def test_an_impossible_value_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field}: got "):
        Recipe(**{"name": "test", field: value})


def test_sides_that_the_operators_cannot_have_are_refused():
    assert EVAL.at(14336).resize == (16384, 16384)
    with pytest.raises(ValueError, match=r"^resize: got \(16385, 16385\), crop 14337, expected at most 16384 px"):
        EVAL.at(14337)
