"""The space of a sweep: what it takes, what it refuses, and the settings at a point."""

import math

import pandas as pd
import pytest

from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.experiment.settings.files import settings_of
from dogs_accel.sweep.space import Parameter, Space, check_point, read_space, settings_at, value_text
from dogs_accel.sweep.trials import REASON_COLUMN, TRIAL_COLUMNS, TrialRow, read_trials, write_trials

SETTINGS = settings_of({"models": ["cnn5"], "strategies": ["scratch"], "recipes": ["inaturalist-train"]})
EVERY_KIND = {
    "batch_size": [32, 64],
    "set.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "set": {"scratch": {"weight_decay": [0, 0.1]}},
    "recipe": {"flip": {"low": 0, "high": 1, "step": 0.25}, "rotation_deg": [0, 15]},
    "model.filters": {"low": 16, "high": 64, "step": 16},
    "model.activation": ["relu", "mish"],
    "cache_features": [False],
    "set.epochs": [1, 2],
}


def test_names_kinds_and_values():
    space = read_space(EVERY_KIND, SETTINGS)
    assert [(parameter.name, parameter.kind, parameter.values) for parameter in space.parameters] == [
        ("batch_size", "choice", (32, 64)),
        ("set.lr", "float", None),
        ("set.scratch.weight_decay", "choice", (0.0, 0.1)),
        ("recipe.flip", "float", (0.0, 0.25, 0.5, 0.75, 1.0)),
        ("recipe.rotation_deg", "choice", (0.0, 15.0)),
        ("model.filters", "int", (16, 32, 48, 64)),
        ("model.activation", "choice", ("relu", "mish")),
        ("cache_features", "choice", (False,)),
        ("set.epochs", "choice", (1, 2)),
    ]
    assert space.num_points is None
    assert Space.from_json(space.as_json()) == space


def test_settings_at_a_point_are_those_that_the_command_line_would_give():
    point = {
        "batch_size": 32, "set.lr": 0.003, "set.scratch.weight_decay": 0.1, "recipe.flip": 0.25,
        "recipe.rotation_deg": 0.0, "model.filters": 48, "model.activation": "mish", "set.epochs": 2,
    }  # fmt: skip
    config = check_point({**SETTINGS, "set": {"lr": 0.5, "clip_norm": 1.0}}, point)
    assert config == BenchmarkConfig(
        models=("cnn5:filters=48:activation=mish",),
        strategies=("scratch",),
        recipes=("inaturalist-train:flip=0.25:rotation_deg=0.0",),
        batch_size=32,
        set={"lr": 0.003, "clip_norm": 1.0, "scratch.weight_decay": 0.1, "epochs": 2},
    )


def test_a_point_replaces_fields_that_the_settings_set_and_names():
    settings = settings_of({"models": ["cnn5:dense=64:filters=8"], "recipes": ["eval:flip=0.5"]})
    at = settings_at(settings, {"model.dense": 128, "recipe.name": "inaturalist-train", "model.head_dropout": 0.1})
    assert at["models"] == ("cnn5:filters=8:dense=128:head_dropout=0.1",)
    assert at["recipes"] == ("inaturalist-train",)
    assert settings_at(settings, {"models": "resnet18", "recipe.flip": 1.0})["models"] == ("resnet18",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "space: got '{}', expected one or more parameters"),
        ({"batchsize": [1]}, "did you mean 'batch_size'"),
        ({"set.rl": [1.0]}, "space: got 'set.rl', expected set. with one of"),
        ({"set.label_smooting": [0.1]}, "did you mean 'label_smoothing'"),
        ({"recipe.flop": [1.0]}, "did you mean 'flip'"),
        ({"model.activaton": ["relu"]}, "did you mean 'activation'"),
        ({"model.activation": ["relu", "reluu"]}, "space: model.activation = reluu: models: activation of cnn5: got"),
        ({"recipe.flip": [0.5, 2]}, "space: recipe.flip = 2.0: recipes: inaturalist-train: flip: got 2.0, expected"),
        ({"batch_size": [0]}, "space: batch_size = 0: "),
        ({"batch_size": [32.5]}, "space: batch_size = 32.5: batch_size: got '32.5', expected an integer"),
        ({"batch_size": []}, "space: batch_size: got 0 choices, expected 1 to 1,000"),
        ({"batch_size": [32, 32]}, "space: batch_size: got 32 twice, expected each choice once"),
        ({"recipe.flip": [0, 0.0]}, "space: recipe.flip: got 0.0 twice, expected each choice once"),
        ({"batch_size": 32}, "space: batch_size: got '32', expected a list of choices or {low, high, log, step}"),
        ({"batch_size": [[32]]}, "space: batch_size: got '[32]', expected numbers, true or false, or text"),
        ({"set.lr": {"low": 1, "high": 1}}, "space: set.lr: got low 1.0 and high 1.0, expected low < high"),
        ({"set.lr": {"low": 1}}, "space: set.lr.high is absent, expected a number"),
        ({"batch_size": {"low": 16}}, "space: batch_size.high is absent, expected an integer"),
        ({"set.lr": ["1e-3", 0.001]}, "space: set.lr: got 0.001 twice, expected each choice once"),
        ({"set.lr": {"low": 0, "high": 1, "step": 1e-12}}, "space: set.lr.step: got 1e-12, expected at most 1,000,000"),
        ({"set.lr": {"low": 0, "high": 1, "log": True}}, "got log beside low 0.0, expected low > 0 and no step"),
        ({"set.lr": {"low": 1, "high": 2, "log": True, "step": 1}}, "got log beside step 1.0"),
        ({"set.lr": {"low": 1, "high": 2, "hihg": 3}}, "did you mean 'high'"),
        ({"set.lr": {"low": 1, "high": 2, "step": 5}}, "space: set.lr.step: got 5.0, expected more than 0 and at most"),
        ({"batch_size": {"low": 1.5, "high": 2}}, "space: batch_size.low: got '1.5', expected an integer"),
        ({"model.activation": {"low": 1, "high": 2}}, "space: model.activation: got a range, expected a list of choic"),
        ({"data": ["a", "b"]}, "space: data cannot vary: trials are compared on the same images"),
        ({"epochs": [1, 2]}, "space: epochs cannot vary: set.epochs does"),
        ({"test": [True]}, "space: test cannot vary: no trial reads the test split"),
        ({"set.staged.lr": [1.0]}, "space: set.staged.lr = 1.0: set: got staged.lr, expected one of the strategies"),
        ({"set": {"lr": [1e-3]}, "set.lr": [1e-3]}, "space: got set.lr twice, expected each parameter once"),
        ({"model.name": ["cnn5:dense=4:dense=8"], "model.filters": [8]}, "models: got dense twice in 'cnn5:dense=4"),
    ],
)
def test_a_space_that_cannot_be_is_refused_by_name(content, message):
    with pytest.raises(ValueError, match=r"^space: ") as caught:
        read_space(content, SETTINGS)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_field_of_no_single_recipe_is_refused():
    with pytest.raises(ValueError, match=r"recipes: got none, expected one in the settings, of which recipe.FIELD is"):
        read_space({"recipe.flip": [0.0]}, settings_of({"models": ["cnn5"]}))
    with pytest.raises(ValueError, match="models: got cnn5, resnet18, expected one in the settings"):
        read_space({"model.dense": [8]}, settings_of({"models": ["cnn5", "resnet18"]}))


def test_points_are_numbered_in_the_order_of_a_product():
    space = read_space({"batch_size": [32, 64], "model.filters": {"low": 16, "high": 18}}, SETTINGS)
    points = list(space.points())
    assert space.num_points == len(points) == 6
    assert points[:2] == [{"batch_size": 32, "model.filters": 16}, {"batch_size": 32, "model.filters": 17}]
    assert [space.point(number) for number in range(6)] == points
    with pytest.raises(ValueError, match=r"space: set\.lr has no end of values for the sampler grid"):
        next(read_space({"set.lr": {"low": 1e-4, "high": 1e-2}}, SETTINGS).points())


@pytest.mark.parametrize(
    ("text", "value"), [("32", 32), ("32.0", 32), ("33", None), ("", None), ("nan", None), ("true", None)]
)
def test_a_choice_is_read_from_text(text, value):
    parameter = Parameter(name="batch_size", kind="choice", choices=(32, 64))
    if value is not None:
        assert parameter.read(text) == value
        return
    with pytest.raises(ValueError, match=r"batch_size: got .*, expected one of 32, 64"):
        parameter.read(text)


def test_trials_are_read_as_they_were_written(tmp_path):
    space = read_space(EVERY_KIND, SETTINGS)
    point = {
        "batch_size": 32, "set.lr": 1 / 3000, "set.scratch.weight_decay": 0.0, "recipe.flip": 0.25,
        "recipe.rotation_deg": 15.0, "model.filters": 48, "model.activation": "mish", "cache_features": False,
        "set.epochs": 2,
    }  # fmt: skip
    rows = [
        TrialRow(
            number=0, state="complete", run="trials/0000", started="2026-01-02T03:04:05+00:00", seconds=1.5,
            overhead_seconds=0.25, epochs=2, value=1 / 3, num_val=60, seed=42, point=point,
        ),
        TrialRow(
            number=1, state="running", run="trials/0001", started="2026-01-02T03:04:07+00:00",
            reason="the loss, which is nan",
        ),
    ]  # fmt: skip
    table = read_trials(write_trials(tmp_path / "trials.csv", rows, space), space)
    assert list(table.columns) == [*TRIAL_COLUMNS, *space.names, REASON_COLUMN]
    assert table["num_val"].tolist() == [60, 0]
    assert table["reason"].tolist() == ["", "the loss, which is nan"]
    # Of an earlier version, which kept no reason.
    written = pd.read_csv(tmp_path / "trials.csv", dtype=str, keep_default_na=False).drop(columns="reason")
    written.to_csv(tmp_path / "earlier.csv", index=False)
    assert read_trials(tmp_path / "earlier.csv", space).equals(table.assign(reason=""))
    first, second = table.to_dict("records")
    assert {name: first[name] for name in space.names} == point
    assert {name: type(first[name]) for name in space.names} == {name: type(value) for name, value in point.items()}
    assert (first["value"], first["seconds"], first["state"]) == (1 / 3, 1.5, "complete")
    assert second["batch_size"] is None
    assert math.isnan(second["value"])
    assert table["number"].tolist() == [0, 1]
    other = Parameter(name="batch_size", kind="choice", choices=(8,))
    with pytest.raises(ValueError, match=r"trials\.csv: batch_size: got '32', expected one of 8"):
        read_trials(tmp_path / "trials.csv", Space((other,)))
    with pytest.raises(ValueError, match=r"model\.dense is absent"):
        read_trials(tmp_path / "trials.csv", Space((Parameter(name="model.dense", kind="int", low=1, high=2),)))


def test_the_values_of_a_stepped_range_are_those_that_are_typed_and_none_is_beyond_its_end(tmp_path):
    space = read_space({"set.label_smoothing": {"low": 0.0, "high": 0.3, "step": 0.1}}, SETTINGS)
    [parameter] = space.parameters
    assert parameter.values == (0.0, 0.1, 0.2, 0.3)
    assert Parameter(name="x", kind="float", low=-0.3, high=0.3, step=0.1).values == (
        -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3,
    )  # fmt: skip
    assert Parameter(name="x", kind="float", low=1e-13, high=3e-13, step=1e-13).values == (1e-13, 2e-13, 3e-13)
    # As earlier tables have it, and as samplers add steps.
    assert parameter.read("0.30000000000000004") == 0.3
    assert Parameter(name="x", kind="float", low=0.1, high=0.5, step=0.1).snapped(0.1 + 0.2) == 0.3
    assert parameter.snapped(0.15) == 0.15
    with pytest.raises(ValueError, match=r"got '0\.3001', expected a number from 0\.0 to 0\.3"):
        parameter.read("0.3001")
    rows = [
        TrialRow(number=i, state="complete", run=f"trials/000{i}", started="", point=space.point(i)) for i in range(4)
    ]
    table = read_trials(write_trials(tmp_path / "trials.csv", rows, space), space)
    assert table["set.label_smoothing"].tolist() == [0.0, 0.1, 0.2, 0.3]


def test_a_large_range_is_counted_without_laying_it_out():
    space = Space((Parameter(name="x", kind="int", low=1, high=10**12),))
    assert space.num_points == 10**12
    assert space.point(10**12 - 1) == {"x": 10**12}


def test_a_value_is_written_in_full():
    assert value_text(0.1 + 0.2) == "0.30000000000000004"
