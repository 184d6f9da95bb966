import argparse
import contextlib
import dataclasses
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dogs_accel.experiment.settings.command_line import add_arguments, parse_config
from dogs_accel.experiment.settings.config import BenchmarkConfig, parse_epochs, parse_families
from dogs_accel.experiment.settings.files import config_from_json
from dogs_accel.runtime.arguments import natural, positive
from dogs_accel.runtime.files import write_json
from tests.support.fuzzing import fuzz, value_or_line


def parse(*arguments):
    parser = argparse.ArgumentParser(prog="benchmark")
    add_arguments(parser)
    return parse_config(parser, arguments)


def test_defaults_are_those_of_the_dataclass():
    assert parse() == BenchmarkConfig()


SAID = {
    "gpu": ("1", 1),
    "device": ("cpu", "cpu"),
    "data": ("dogs", "dogs"),
    "preset": ("paper", "paper"),
    "models": ("resnet50, timm/x", ("resnet50", "timm/x")),
    "families": ("resnet50=residual", {"resnet50": "residual"}),
    "model_weights": ("resnet50:head=mlp=w.pth,vgg16=none", {"resnet50:head=mlp": "w.pth", "vgg16": "none"}),
    "strategies": ("full", ("full",)),
    "recipes": ("cifar-train,cifar-eval", ("cifar-train", "cifar-eval")),
    "runs": ("a,b", ("a", "b")),
    "loader": ("cached", "cached"),
    "store": ("pixels", "pixels"),
    "batch_size": ("8", 8),
    "eval_batch_size": ("16", 16),
    "image_size": ("96", 96),
    "epochs": ("full=2,staged=1+3", {"full": (2,), "staged": (1, 3)}),
    "set": ("full.lr=3e-4", {"full.lr": 3e-4}),
    "val_ratio": ("0.25", 0.25),
    "test_ratio": ("0.3", 0.3),
    "seed": ("7", 7),
    "seeds": ("3", 3),
    "weights": ("none", "none"),
    "amp": ("off", "off"),
    "bn_when_frozen": ("train", "train"),
    "on_bad_image": ("skip", "skip"),
    "num_threads": ("3", 3),
    "out": ("results", "results"),
    "wandb": ("disabled", "disabled"),
    "resume": ("results", "results"),
    "tta": ("flip", "flip"),
}
"""What is said behind each flag that takes a value, and the setting that it means; none is the default."""
MAY_CHANGE = {
    "gpu", "device", "data", "weights", "model_weights", "loader", "store", "num_threads", "eval_batch_size",
    "channels_last", "fused_optimizer", "compile", "cuda_graphs", "profile", "wandb", "dry_run",
}  # fmt: skip
"""What a run may go on with otherwise; --out and --resume name its folder."""
FIELDS = [pytest.param(field, id=field.name) for field in dataclasses.fields(BenchmarkConfig)]


def flag(field):
    return f"--{field.name.replace('_', '-')}"


def said(field):
    """A flag with another value than its default, as (what is typed, what it means)."""
    if isinstance(field.default, bool):
        return [flag(field).replace("--", "--no-" if field.default else "--", 1)], not field.default
    text, value = SAID[field.name]
    return [flag(field), text], value


@pytest.mark.parametrize("field", FIELDS)
def test_a_flag_reaches_its_field_and_no_other(field):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    typed, value = said(field)
    assert vars(parser.parse_args(typed)) == {field.name: value}
    assert vars(parser.parse_args([])) == {}
    assert value != field.default


@pytest.mark.parametrize("field", FIELDS)
def test_help_says_what_a_flag_is_for_and_what_it_is_unless_said(field):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    [action] = [action for action in parser._actions if action.dest == field.name]
    words = action.help.replace("%%", "%")
    assert words.startswith(field.metadata["help"])
    assert len(field.metadata["help"].split()) > 1
    if isinstance(field.default, bool):
        assert ("(default: yes)" in words) == field.default
    elif field.default is not None:
        shown = ",".join(field.default) if isinstance(field.default, tuple) else str(field.default)
        assert words.endswith(f"(default: {shown})")
    else:
        assert "None" not in words


@pytest.mark.parametrize("field", FIELDS)
def test_help_calls_a_value_by_one_word_or_by_its_choices(field):
    parser = argparse.ArgumentParser(formatter_class=lambda prog: argparse.HelpFormatter(prog, width=1000))
    add_arguments(parser)
    lines = parser.format_help().splitlines()
    [line] = [line for line in lines if line.replace(",", " ").split()[:1] == [flag(field)]]
    usage = line.strip().split("  ")[0]
    if isinstance(field.default, bool):
        assert usage == f"{flag(field)}, {flag(field).replace('--', '--no-', 1)}"
    else:
        assert re.fullmatch(rf"{flag(field)} ([A-Z]+|\[[A-Z]+\]|\{{[a-z0-9,]+\}})", usage)


@pytest.mark.parametrize("field", FIELDS)
def test_a_setting_is_the_same_when_it_is_read_again(field):
    config = BenchmarkConfig(**{field.name: said(field)[1]})
    assert config_from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config


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


def test_labels_are_read_by_the_names_of_models():
    text = "resnet50=residual,timm/mixer_b16_224=mixer"
    labels = {"resnet50": "residual", "timm/mixer_b16_224": "mixer"}
    assert parse_families(text) == parse("--families", text).families == labels
    restored = config_from_json(json.loads(json.dumps(dataclasses.asdict(parse("--families", text)))))
    assert restored.families == labels


@pytest.mark.parametrize("text", ["resnet50", "=a", "", "resnet50=a,resnet50=b"])
def test_labels_that_cannot_be_read_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected"):
        parse_families(text)


def test_epochs_of_a_strategy_win_over_those_of_all():
    config = parse("--epochs", "5,head=2", "--strategies", "full,head")
    assert config.phase_epochs("head") == (2,)
    assert config.phase_epochs("full") == (5,)
    assert parse().phase_epochs("full") is None


@pytest.mark.fault(
    "Command line", "a wrong flag or value", "one line with the field, what it got and what it expects; exit code 2"
)
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
        ({"tta": "flop"}, "^tta: got 'flop', expected none, flip, five-crop or the number of views, 2 to 1,000$"),
        ({"cache_features": True, "bn_when_frozen": "train"}, "cache_features: got it with --bn-when-frozen train"),
    ],
)
def test_settings_that_contradict_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        BenchmarkConfig(**settings)


RUN = (
    "--data",
    "dogs",
    "--models",
    "resnet18,resnet50",
    "--epochs",
    "full=4,staged=1+3",
    "--seed",
    "7",
    "--device",
    "cpu",
)


@pytest.fixture
def recorded(tmp_path):
    """A folder of results with the settings of RUN."""
    config = parse(*RUN, "--out", str(tmp_path)).resolved()
    write_json(tmp_path / "config.json", dataclasses.asdict(config))
    return tmp_path, config


@pytest.mark.parametrize("how", ["folder", "out", "the whole command"])
def test_a_run_goes_on_with_its_own_settings(recorded, how):
    folder, config = recorded
    typed = {
        "folder": ["--resume", str(folder)],
        "out": ["--resume", "--out", str(folder)],
        "the whole command": [*RUN, "--out", str(folder), "--resume"],
    }[how]
    assert parse(*typed) == dataclasses.replace(config, resume=str(folder))


def test_a_run_may_go_on_elsewhere_and_faster(recorded):
    folder, config = recorded
    typed = ["--gpu", "1", "--num-threads", "2", "--compile", "--no-profile", "--wandb", "disabled", "--data", "moved"]
    assert parse("--resume", str(folder), *typed) == dataclasses.replace(
        config, resume=str(folder), gpu=1, device=None, num_threads=2, compile=True, wandb="disabled", data="moved"
    )


@pytest.mark.parametrize("field", [field for field in FIELDS if field.id not in ("out", "resume")])
def test_a_run_goes_on_otherwise_only_in_how_it_is_computed(tmp_path, field):
    write_json(tmp_path / "config.json", dataclasses.asdict(BenchmarkConfig()))
    typed, value = said(field)
    if field.name in MAY_CHANGE:
        config = parse("--resume", str(tmp_path), *typed)
        assert config == BenchmarkConfig(resume=str(tmp_path), out=str(tmp_path), **{field.name: value})
    else:
        with pytest.raises(ValueError, match=f"^{field.name}: got .*, but the run in .* has "):
            parse("--resume", str(tmp_path), *typed)


@pytest.mark.fault("Command line", "--resume with settings that would make it another run", "refused by name")
@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--seed", "8"], "seed: got 8, but the run in .* has 7$"),
        (
            ["--epochs", "2"],
            r"epochs: got 2, but the run in .* has full=4,staged=1\+3$",
        ),
        (["--models", "resnet18"], "models: got resnet18, but the run in .* has resnet18,resnet50$"),
        (["--out", "/elsewhere"], "resume: got .* and --out /elsewhere, expected one folder"),
    ],
)
def test_a_run_does_not_go_on_as_another(recorded, typed, message):
    folder, _ = recorded
    with pytest.raises(ValueError, match=message):
        parse("--resume", str(folder), *typed)


def test_settings_of_another_version_are_refused(tmp_path):
    write_json(tmp_path / "config.json", {"seed": 1, "speed": 9})
    with pytest.raises(ValueError, match=r"config\.json: got speed, expected settings of this version"):
        parse("--resume", str(tmp_path))
    (tmp_path / "config.json").write_text('{"seed": 1')
    with pytest.raises(ValueError, match=r"config\.json cannot be read as JSON"):
        parse("--resume", str(tmp_path))


def test_what_is_not_there_is_started_or_refused(tmp_path):
    out = str(tmp_path / "new")
    assert parse(*RUN, "--out", out, "--resume") == parse(*RUN, "--out", out)
    with pytest.raises(ValueError, match=r"resume: .* holds no run \(config.json is missing\); start it with --out"):
        parse(*RUN, "--resume", out)
    with pytest.raises(ValueError, match="resume: got no folder, expected --resume DIR, or --out DIR beside it"):
        parse(*RUN, "--resume")


# --- made up values ---------------------------------------------------------------------------------------------

FLAGS = [
    "--families", "--epochs", "--models", "--strategies", "--runs", "--seeds", "--seed", "--batch-size", "--gpu",
    "--image-size", "--val-ratio", "--num-threads", "--set",
]  # fmt: skip
words = st.sampled_from(
    ["resnet50", "full", "staged", "full-a", "lr", "timm/x", "cnn", "vit", "1", "03", "+2", "-1", "1e9", "²", "9" * 30]
)
texts = st.lists(words | st.sampled_from([",", "=", "+", ".", " ", "\n", "\x1b", "$", "../", "%s"]), max_size=7).map(
    "".join
)


@fuzz(80)
@given(said=st.lists(st.tuples(st.sampled_from(FLAGS), texts | st.text(max_size=4)), min_size=1, max_size=3))
def test_whatever_is_said_is_a_setting_or_one_line(said):
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        config, line = value_or_line(lambda: refused_or_read([f"{flag}={text}" for flag, text in said]))
    if config is None:
        assert line.startswith(("argument --", *(f"{flag[2:].replace('-', '_')}: " for flag in FLAGS)))
    elif config != "refused":
        assert all(epochs >= 1 for epochs in config.epochs.get("", ())) if config.epochs else True
        assert config_from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    assert error.getvalue().count("error:") == (config == "refused")


def refused_or_read(arguments):
    try:
        return parse(*arguments)
    except SystemExit as stop:
        return "refused" if stop.code == 2 else None


values = st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.text(max_size=3)
anything = st.recursive(
    values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
recorded_settings = st.dictionaries(
    st.sampled_from([field.name for field in dataclasses.fields(BenchmarkConfig)]) | st.text(max_size=3),
    anything,
    max_size=4,
)


@pytest.mark.fault(
    "Command line",
    "--resume of a folder whose config.json was edited",
    "one line with the file, the setting and what it got, before anything else is read",
)
@fuzz(60)
@given(content=anything | recorded_settings)
def test_whatever_a_file_of_settings_holds_is_read_or_refused_in_one_line(content):
    config, _ = value_or_line(lambda: config_from_json(json.loads(json.dumps(content))))
    if config is None:
        return
    assert config_from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    make_parser_takes(config)


def make_parser_takes(config):
    """What is read could have been said on the command line: integers in range, choices among those that there are."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is not None and "choices" in field.metadata:
            assert value in field.metadata["choices"]
        if value is not None and field.metadata.get("type") in (positive, natural):
            assert value >= (field.metadata["type"] is positive)
    config.resolved()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([3], r"config\.json: got '\[3\]', expected the settings of a run"),
        ({"seed": "x"}, r"config\.json: seed: got 'x', expected an integer"),
        ({"batch_size": -3}, r"config\.json: got '-3', expected an integer >= 1"),
        ({"preset": "x"}, r"config\.json: preset: got 'x', expected one of"),
        ({"models": [3]}, r"config\.json: models: got '\[3\]', expected other values"),
        ({"epochs": {"": ["x"]}}, r"config\.json: got 'x', expected an integer >= 1"),
    ],
)
def test_settings_that_were_edited_are_named(content, message):
    with pytest.raises(ValueError, match=message):
        config_from_json(content)


@pytest.mark.parametrize("text", ["0", "-1", "²", "1_0", "", "1" * 5000, "2147483648"])
def test_integers_that_no_library_takes_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"expected an integer (>= 1|up to 2,147,483,647)$"):
        positive(text)
    assert (positive(" +7 "), natural("0"), positive("2147483647")) == (7, 0, 2147483647)
