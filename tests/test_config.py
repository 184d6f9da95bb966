import argparse

import pytest

from dogs_accel.config import BenchmarkConfig, add_arguments, parse_config, parse_epochs


def parse(*arguments):
    parser = argparse.ArgumentParser(prog="benchmark")
    add_arguments(parser)
    return parse_config(parser, arguments)


def test_defaults_are_those_of_the_dataclass():
    assert parse() == BenchmarkConfig()


def test_every_flag_reaches_its_field():
    config = parse(
        "--gpu", "1", "--data", "dogs", "--preset", "demo", "--models", "resnet50,timm/x", "--strategies", "full",
        "--runs", "a,b", "--loader", "torch", "--batch-size", "8", "--image-size", "96", "--epochs", "full=2",
        "--seed", "7", "--weights", "none", "--amp", "off", "--bn-when-frozen", "train", "--num-threads", "3",
        "--seeds", "3", "--out", "o", "--wandb", "disabled", "--dry-run", "--val-ratio", "0.25",
    )  # fmt: skip
    assert config == BenchmarkConfig(
        gpu=1, data="dogs", preset="demo", models=("resnet50", "timm/x"), strategies=("full",), runs=("a", "b"),
        loader="torch", batch_size=8, image_size=96, epochs={"full": (2,)}, seed=7, weights="none", amp="off",
        bn_when_frozen="train", num_threads=3, out="o", wandb="disabled", dry_run=True, val_ratio=0.25, seeds=3,
    )  # fmt: skip


def test_presets_fill_what_is_not_said():
    paper, demo = parse("--data", "dogs").resolved(), parse().resolved()
    assert (paper.preset, paper.models, paper.weights, paper.batch_size) == (
        "paper", ("resnet50", "vit_b_16"), "imagenet", 32,
    )  # fmt: skip
    assert (demo.preset, demo.image_size, demo.weights) == ("demo", 64, "none")
    assert parse("--batch-size", "4", "--preset", "demo").resolved().batch_size == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", {"": (2,)}),
        ("1+3", {"": (1, 3)}),
        ("full=4,staged=1+3", {"full": (4,), "staged": (1, 3)}),
        ("5,head=2", {"": (5,), "head": (2,)}),
    ],
)
def test_epochs(text, expected):
    assert parse_epochs(text) == expected


def test_epochs_of_a_strategy_win_over_those_of_all():
    config = parse("--epochs", "5,head=2", "--strategies", "full,head")
    assert config.phase_epochs("head") == (2,)
    assert config.phase_epochs("full") == (5,)
    assert parse().phase_epochs("full") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "0"], "argument --batch-size: got '0', expected an integer >= 1"),
        (["--batch-size", "many"], "argument --batch-size: got 'many', expected an integer >= 1"),
        (["--seed", "-1"], "argument --seed: got '-1', expected an integer >= 0"),
        (["--seeds", "0"], "argument --seeds: got '0', expected an integer >= 1"),
        (["--epochs", "0"], "argument --epochs: got '0', expected an integer >= 1"),
        (["--epochs", "half=2"], "argument --epochs: got 'half', expected one of full, staged, head"),
        (["--epochs", ""], "argument --epochs: got '', expected numbers such as 2"),
        (["--loader", "fast"], "argument --loader: invalid choice: 'fast'"),
    ],
)
def test_a_wrong_flag_ends_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gpu": 0, "device": "cpu"}, "device: got both --gpu 0 and --device cpu"),
        ({"strategies": ("full", "half")}, "strategies: got 'half'"),
        ({"strategies": ("staged",), "epochs": {"full": (2,)}}, r"epochs: got full=\.\.\., expected one of the"),
        (
            {"models": ("resnet50", "resnet50")},
            "models: got 'resnet50,resnet50', expected one or more names, each once",
        ),
        ({"runs": ()}, "runs: got ''"),
    ],
)
def test_settings_that_contradict_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        BenchmarkConfig(**settings)
