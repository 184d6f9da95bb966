"""The presets: what each trains, what wins over it, and that a run with one goes on as it was."""

import dataclasses
import json

import pytest
import torch

from dogs_accel.experiment.plan import plan_runs
from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.experiment.settings.files import config_from_json
from dogs_accel.experiment.settings.layers import laid_over
from dogs_accel.experiment.settings.presets import DEMO_OF, PRESETS
from dogs_accel.models.build import build_model
from dogs_accel.models.freezing import count_total_params
from dogs_accel.models.specs import model_spec
from tests.experiment.settings.test_config import parse

HEAD_OF_PETS = "head_only(40, 0.001, weight_decay=0, patience=5, min_delta=0.001, optimizer=adam, schedule=constant)"


def planned(*arguments):
    return plan_runs(parse(*arguments).resolved())


def phases_of(preset, *arguments):
    return {run.name: " -> ".join(map(str, run.phases)) for run in planned("--preset", preset, *arguments)}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_what_nobody_else_does(name):
    defaults = {field.name: field.default for field in dataclasses.fields(BenchmarkConfig)}
    said = PRESETS[name].settings
    assert {field: defaults[field] for field in said} == dict.fromkeys(said)  # else nobody could tell who said it
    config = BenchmarkConfig(preset=name).resolved()
    assert {field: getattr(config, field) for field in said if field != "set"} == {
        field: value for field, value in said.items() if field != "set"
    }
    assert config.resolved() == config
    assert config_from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    assert name.endswith(DEMO_OF) or len(PRESETS[name].about) < 100


def test_pets_are_five_networks_with_frozen_backbones_with_and_without_augmentation():
    runs = planned("--preset", "pets")
    sizes = {"vgg16": 224, "resnet50": 224, "mobilenet_v3_large": 224, "efficientnet_b3": 300,
             "timm/legacy_xception": 299}  # fmt: skip
    assert {run.spec.name: run.spec.image_size for run in runs} == sizes
    assert [(run.train_recipe.name, run.eval_recipe.name) for run in runs] == [
        ("pets-train", "imagenet-eval"), ("imagenet-eval", "imagenet-eval"),
    ] * 5  # fmt: skip
    assert {" -> ".join(map(str, run.phases)) for run in runs} == {HEAD_OF_PETS}
    assert {(run.spec.name, run.train_recipe.mean) for run in runs if run.train_recipe.mean == (0.5, 0.5, 0.5)} == {
        ("timm/legacy_xception", (0.5, 0.5, 0.5))
    }
    assert {run.weights for run in runs} == {"imagenet"}
    assert parse("--preset", "pets").resolved().batch_size == 32
    assert {run.eval_recipe.crop for run in planned("--preset", "pets", "--image-size", "224")} == {224}


COUNTS = [
    ("caltech256", 257, {"resnet50": 24_034_625}),
    ("cifar10", 10, {"resnet18_cifar": 11_173_962, "vit:patch=4:dim=256:depth=6:heads=8": 4_771_082}),
    ("cats-dogs", 2, {"resnet50": 23_512_130, "timm/deit_small_patch16_224": 21_666_434}),
    ("inaturalist-cnn", 10, {"cnn5:activation=mish:norm=batch:dropout=0.3": 442_442}),
    ("inaturalist-finetune", 10, {"resnet50": 23_528_522}),
]


@pytest.mark.parametrize(("name", "num_classes", "expected"), COUNTS)
def test_the_networks_have_the_parameters_of_the_documents(name, num_classes, expected):
    config = BenchmarkConfig(preset=name).resolved()
    with torch.device("meta"):
        found = {
            model: count_total_params(build_model(model_spec(model, config.image_size), num_classes, "none").model)
            for model in config.models
        }
    assert found == expected


def test_caltech_is_resized_to_256_and_cropped_to_224():
    runs = planned("--preset", "caltech256")
    assert [run.name for run in runs] == ["resnet50_full", "resnet50_staged"]
    assert {(run.train_recipe.name, run.eval_recipe.resize, run.eval_recipe.crop) for run in runs} == {
        ("imagenet-train", 256, 224)
    }


def test_cifar_is_trained_as_the_guide_does_but_for_its_validation():
    runs = planned("--preset", "cifar10")
    assert {" -> ".join(map(str, run.phases)) for run in runs} == {"from_scratch(50, 0.001, weight_decay=0.05)"}
    assert [run.phases[0].optimizer for run in runs] == ["adamw"] * 2
    assert {(run.train_recipe.name, run.eval_recipe.name, run.weights, run.spec.image_size) for run in runs} == {
        ("cifar-train", "cifar-eval", "none", 32)
    }
    # Neither has published weights, so both see the pixels as the guide normalises them.
    assert {(run.train_recipe.mean, run.train_recipe.std) for run in runs} == {
        ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    }
    assert parse("--preset", "cifar10").resolved().batch_size == 128


def test_cats_and_dogs_are_told_apart_by_a_cnn_and_a_vit_pretrained_and_from_scratch():
    runs = planned("--preset", "cats-dogs")
    assert [(run.name, run.spec.family, run.weights) for run in runs] == [
        ("resnet50_full", "cnn", "imagenet"),
        ("resnet50_scratch", "cnn", "none"),
        ("deit_small_patch16_224_full", "vit", "imagenet"),
        ("deit_small_patch16_224_scratch", "vit", "none"),
    ]
    assert {run.train_recipe.name for run in runs} == {"standard-train"}
    assert {run.train_recipe.mean for run in runs} == {(0.485, 0.456, 0.406)}


def test_inaturalist_from_scratch_and_fine_tuned_see_the_same_pixels():
    assert phases_of("inaturalist-cnn") == {
        "cnn5_activation-mish_norm-batch_dropout-0_3_scratch":
            "from_scratch(10, 0.001, weight_decay=0, optimizer=adam, schedule=constant)",
    }  # fmt: skip
    assert phases_of("inaturalist-finetune") == {
        "resnet50_head": "head_only(5, 0.001, optimizer=adam, schedule=constant)",
        "resnet50_partial": "partial_finetune(5, 0.0001, num_groups=2, optimizer=adam, schedule=constant)",
        "resnet50_full": "full_finetune(5, 0.0001, optimizer=adam, schedule=constant)",
    }
    recipes = {
        (run.train_recipe, run.eval_recipe)
        for name in ("inaturalist-cnn", "inaturalist-finetune")
        for run in planned("--preset", name)
    }
    assert len(recipes) == 1
    for name in ("inaturalist-cnn", "inaturalist-finetune"):
        config = parse("--preset", name).resolved()
        assert (config.batch_size, config.val_ratio) == (64, 0.2)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--epochs", "2"], HEAD_OF_PETS.replace("40", "2")),
        (["--set", "epochs=3"], HEAD_OF_PETS.replace("40", "3")),
        (["--set", "head.head_only.epochs=3"], HEAD_OF_PETS.replace("40", "3")),
        (["--set", "head.patience=1"], HEAD_OF_PETS.replace("patience=5", "patience=1")),
        (["--set", "optimizer=adamw"], HEAD_OF_PETS.replace("optimizer=adam, ", "")),
        # What the preset says of another strategy than those that are trained is of no concern.
        (["--strategies", "full"], HEAD_OF_PETS.replace("head_only(40, 0.001", "full_finetune(12, 0.0001")),
    ],
)
def test_what_is_said_wins_over_the_preset(arguments, expected):
    assert set(phases_of("pets", *arguments).values()) == {expected}


def test_flags_win_over_a_file_and_a_file_over_the_preset(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        'preset = "pets"\nbatch_size = 8\nval_ratio = 0.3\n[set]\nhead.patience = 2\nhead.head_only.lr = 0.1\n'
    )
    config = parse("--config", str(path), "--set", "lr=0.2", "--val-ratio", "0.25").resolved()
    assert (config.preset, config.batch_size, config.val_ratio, config.recipes) == (
        "pets", 8, 0.25, ("pets-train", "imagenet-eval"),
    )  # fmt: skip
    [phase] = config.phases("head", "cnn")
    assert (phase.lr, phase.patience, phase.epochs, phase.min_delta) == (0.2, 2, 40, 0.001)
    # A run's own config.json is a file too.
    recorded = tmp_path / "config.json"
    recorded.write_text(json.dumps(dataclasses.asdict(config)))
    again = parse("--config", str(recorded), "--epochs", "7").resolved()
    assert again.phases("head", "cnn")[0].epochs == 7
    assert config.set.keys() - again.set.keys() == {"head.epochs"}


LEVELS = [
    # below, above, what both say of staged and staged-slow
    ({"staged.head_only.lr": 1.0}, {"lr": 2.0}, {"lr": 2.0}),
    ({"lr": 1.0}, {"staged.lr": 2.0}, {"lr": 1.0, "staged.lr": 2.0}),
    ({"lr": 1.0}, {"full.lr": 3.0, "staged.lr": 2.0, "partial.lr": 4.0},
     {"full.lr": 3.0, "staged.lr": 2.0, "partial.lr": 4.0}),
    ({"staged.lr": 1.0, "patience": 3}, {"staged.lr": 2.0}, {"patience": 3, "staged.lr": 2.0}),
    # One that holds for a part of its phases still is there for each of these.
    ({"staged-slow.lr": 1.0}, {"staged.head_only.lr": 2.0},
     {"staged-slow.full_finetune.lr": 1.0, "staged.head_only.lr": 2.0}),
    # Two ways to say one thing.
    ({"partial.num_groups": 3}, {"groups": ("fc",)}, {"groups": ("fc",)}),
    # Of a strategy that is not trained: kept, to be refused.
    ({"head.lr": 1.0}, {"lr": 2.0}, {"head.lr": 1.0, "lr": 2.0}),
]  # fmt: skip


@pytest.mark.parametrize(("below", "above", "expected"), LEVELS)
def test_what_is_said_last_wins_in_each_phase(below, above, expected):
    assert laid_over(below, above, ["full", "staged", "staged-slow", "partial"]) == expected


def test_epochs_that_are_said_win_over_those_that_were_set():
    strategies = ["full", "staged"]
    below = {"epochs": 9, "full.epochs": 8, "lr": 1.0}
    assert laid_over(below, {}, strategies, {"": (2,)}) == {"lr": 1.0}
    assert laid_over(below, {}, strategies, {"full": (2,)}) == {
        "staged.head_only.epochs": 9, "staged.full_finetune.epochs": 9, "lr": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("typed", [[], ["--epochs", "2", "--set", "lr=0.01"], ["--strategies", "full,head"]])
def test_a_run_with_a_preset_goes_on_as_it_was(tmp_path, typed):
    command = ["--preset", "pets", *typed, "--out", str(tmp_path)]
    config = parse(*command).resolved()
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    resumed = dataclasses.replace(config, resume=str(tmp_path))
    assert parse("--resume", str(tmp_path)).resolved() == resumed
    assert parse(*command, "--resume").resolved() == resumed
    assert parse("--resume", str(tmp_path), "--set", "patience=5").resolved() == resumed  # as it has it
    with pytest.raises(ValueError, match=r"^set: got patience=4, but the run in .* has optimizer=adam,schedule="):
        parse("--resume", str(tmp_path), "--set", "patience=4")
    with pytest.raises(ValueError, match=r"^preset: got cifar10, but the run in .* has pets$"):
        parse("--resume", str(tmp_path), "--preset", "cifar10")
