"""`--set`: what is read, which setting of several wins, and what is refused."""

import argparse
import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dogs_accel.experiment.settings.command_line import add_arguments, parse_config
from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.experiment.settings.phase_settings import PHASE_FIELDS, base_strategy, parse_setting, read_value, scopes
from dogs_accel.models import MODES
from dogs_accel.runtime.arguments import Parser
from dogs_accel.training.phases import STRATEGIES, Phase
from tests.support.fuzzing import fuzz, value_or_line

PAGE = Path(__file__).parents[3] / "docs" / "training.md"


def config_of(*settings, **others):
    return BenchmarkConfig(preset="paper", set=dict(map(parse_setting, settings)), **others)


def phases_of(strategy, *settings, **others):
    return config_of(*settings, **{"strategies": (strategy,), **others}).phases(strategy, "cnn")


@pytest.mark.parametrize("name", PHASE_FIELDS)
def test_each_field_of_a_phase_can_be_set_and_is_explained(name):
    """The default is read back from what JSON makes of it, so that a field of a new type cannot be forgotten."""
    default = getattr(Phase(name="head_only", mode="head_only", epochs=2, lr=1e-3), name)
    assert read_value(PHASE_FIELDS[name], json.loads(json.dumps(default))) == default
    assert f"`{name}`" in PAGE.read_text(encoding="utf-8")


def test_no_strategy_and_no_phase_is_called_like_a_field():
    assert not set(PHASE_FIELDS) & {*STRATEGIES, *MODES}
    assert not any("-" in strategy for strategy in STRATEGIES)  # what is behind it names a variant


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (int, "3", 3),
        (int, 3, 3),
        (float, "3e-4", 3e-4),
        (float, 1, 1.0),
        (bool, "false", False),
        (bool, True, True),
        (str, "sgd", "sgd"),
        (Literal["adam", "sgd"], "sgd", "sgd"),
        (tuple[str, ...], "layer3+layer4", ("layer3", "layer4")),
        (tuple[str, ...], ["layer4"], ("layer4",)),
        (tuple[str, ...], "", ()),
        (tuple[int, ...], "1+2", (1, 2)),
        (Mapping[str, float], "layer1.0:1e-5+fc:5e-4", {"layer1.0": 1e-5, "fc": 5e-4}),
        (Mapping[str, float], {"fc": 1}, {"fc": 1.0}),
        (dict[str, int], "", {}),
        (float | None, "none", None),
        (float | None, None, None),
        (Optional[float], "2", 2.0),  # noqa: UP045  (as older code spells it)
        (int | str, "2", 2),
        (int | str, "two", "two"),
    ],
)
def test_values_are_read_by_type(kind, given, expected):
    value = read_value(kind, given)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (int, "3.5", "got '3.5', expected an integer"),
        (int, True, "got 'True', expected an integer"),
        (int, "9" * 10, "got '9999999999', expected an integer"),
        (float, "nan", "got 'nan', expected a number"),
        (float, "inf", "got 'inf', expected a number"),
        (float, [1], r"got '\[1\]', expected a number"),
        (bool, "yes", "got 'yes', expected true or false"),
        (bool, 1, "got '1', expected true or false"),
        (str, 3, "got '3', expected text"),
        (str, "a\x1b[31m", r"got .*, expected text$"),
        (Literal["adam", "sgd"], "sdg", "got 'sdg', expected one of adam, sgd"),
        (tuple[str, ...], 3, "got '3', expected a list"),
        (Mapping[str, float], "fc", "got 'fc', expected names, each once, with values such as"),
        (Mapping[str, float], "fc:1+fc:2", r"got 'fc:1\+fc:2', expected names, each once"),
        (Mapping[str, float], "fc:x", "got 'x', expected a number"),
        (Mapping[str, float], [1], r"got '\[1\]', expected values by name"),
        (float | None, "x" * 100, f"got '{'x' * 40}...', expected a number"),
    ],
)
def test_values_of_another_type_are_refused(kind, given, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        read_value(kind, given)


def test_a_type_that_no_text_is_read_as_is_an_error_of_whoever_adds_the_field():
    with pytest.raises(TypeError, match="complex"):
        read_value(complex, "1")


def test_a_setting_of_all_reaches_every_phase_of_every_strategy():
    config = config_of("weight_decay=0.01", strategies=("full", "staged"))
    decays = [phase.weight_decay for name in config.strategies for phase in config.phases(name, "vit")]
    assert decays == [0.01] * 3


@pytest.mark.parametrize("swap", [False, True])
def test_the_more_specific_setting_wins_whatever_the_order(swap):
    settings = ["lr=1", "staged.lr=2", "staged.head_only.lr=3", "staged-slow.lr=4", "staged-slow.full_finetune.lr=5"]
    config = config_of(*(reversed(settings) if swap else settings), strategies=("full", "staged", "staged-slow"))
    found = {name: [phase.lr for phase in config.phases(name, "cnn")] for name in config.strategies}
    assert found == {"full": [1], "staged": [3, 2], "staged-slow": [4, 5]}


def test_what_is_in_force_is_said_by_scope():
    assert scopes("staged-slow", "head_only") == [
        "", "staged.", "staged.head_only.", "staged-slow.", "staged-slow.head_only.",
    ]  # fmt: skip
    assert scopes("full", "full_finetune") == ["", "full.", "full.full_finetune."]


def test_what_is_not_set_stays_as_the_preset_and_the_family_have_it():
    config = config_of("staged.head_only.warmup_epochs=1", strategies=("staged",))
    for family, lr in (("cnn", 1e-4), ("vit", 3e-5)):
        assert [phase.as_dict() for phase in config.phases("staged", family)] == [
            {"name": "head_only", "mode": "head_only", "epochs": 3, "lr": 1e-3, "weight_decay": 1e-4,
             "warmup_epochs": 1},
            {"name": "full_finetune", "mode": "full_finetune", "epochs": 8, "lr": lr, "weight_decay": 1e-4},
        ]  # fmt: skip


def test_epochs_can_be_set_like_any_field():
    assert [phase.epochs for phase in phases_of("staged", "epochs=2", "staged.full_finetune.epochs=5")] == [2, 5]


def test_epochs_of_a_strategy_are_those_of_its_variants_too():
    config = config_of("head-a.lr=1", strategies=("head", "head-a", "head-b"), epochs={"head": (4,), "head-b": (5,)})
    assert [config.phases(name, "cnn")[0].epochs for name in config.strategies] == [4, 4, 5]


def test_a_phase_that_is_named_for_its_mode_is_renamed_with_it():
    [phase] = phases_of("full", "full.full_finetune.mode=head_only")
    assert (phase.name, phase.mode) == ("head_only", "head_only")


@pytest.mark.fault(
    "Command line",
    "--set of a field, a strategy or a phase that is not there, or of values that contradict each other",
    "one line that names the setting and what it could be, before anything is read",
)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "full.lr"], "argument --set: got 'full.lr', expected [STRATEGY.[PHASE.]]FIELD=VALUE"),
        (["--set", "a.b.c.lr=1"], "argument --set: got 'a.b.c.lr', expected [STRATEGY.[PHASE.]]FIELD=VALUE"),
        (["--set", ".lr=1"], "argument --set: got '.lr', expected [STRATEGY.[PHASE.]]FIELD=VALUE"),
        (["--set", "name=x"], "argument --set: got 'name', expected a field of a phase: mode, epochs, lr, "),
        (["--set", "patiense=3"], "(did you mean 'patience'?)"),
        (["--set", "full.lr=fast"], "argument --set: full.lr: got 'fast', expected a number"),
        (["--set", "lr=1", "--set", "lr=1"], "argument --set: got lr twice, expected each setting once"),
        (["--set", "head.lr=1"], "set: got head.lr, expected one of the strategies full, staged"),
        (
            ["--set", "staged.head_onyl.lr=1"],
            "got staged.head_onyl.lr, expected a phase of staged: head_only, full_finetune (did you mean 'head_only'?)",
        ),
        (
            ["--set", "full.warmup_epochs=3", "--epochs", "full=2"],
            "set: full_finetune of full: warmup_epochs: got 3 for a phase of 2, expected an integer from 0 to 1",
        ),
        (["--set", "mode=gradual"], "set: full_finetune of full: mode: got 'gradual', expected one of head_only, "),
        (["--set", "epochs=3", "--epochs", "2"], "set: got epochs beside --epochs for full, expected one of them"),
        (
            ["--set", "full.epochs=3", "--epochs", "full=2"],
            "set: got full.epochs beside --epochs for full, expected one of them",
        ),
        (
            ["--set", "lr=1", "--set", "full.lr=2", "--set", "staged.lr=2"],
            "set: lr changes no phase: each has a setting that is more specific",
        ),
        (["--set", "lr=1e300"], "set: full_finetune of full: lr: got 1e+300, expected a number > 0 and at most 1e+06"),
        (["--strategies", "full,heed"], "strategies: got 'heed', expected one of full, staged, head"),
        (["--strategies", "head-Slow"], "strategies: got 'head-Slow', expected a name such as head-slow, of up to 40 "),
        (["--strategies", "head-"], "strategies: got 'head-', expected a name such as head-slow"),
        (["--strategies", f"head-{'a' * 40}"], "expected a name such as head-slow, of up to 40"),
        (["--strategies", "head-a_b"], "strategies: got 'head-a_b', expected a name such as head-slow"),
        (
            ["--strategies", "head,head-slow", "--set", "head.lr=1"],
            "strategies: got head-slow, a variant without a setting of its own, expected --set head-slow.FIELD=VALUE",
        ),
        (["--epochs", "heed-a=2"], "argument --epochs: got 'heed-a', expected one of full, staged, head"),
    ],
)
def test_what_cannot_be_set_is_one_line(arguments, message):
    parser = Parser(prog="benchmark")
    add_arguments(parser)
    with contextlib.redirect_stderr(io.StringIO()) as error, pytest.raises((ValueError, SystemExit)) as stop:
        parse_config(parser, arguments)
    [said] = error.getvalue().splitlines() or [str(stop.value)]
    assert message in said
    assert "\n" not in said


def test_values_are_checked_that_python_gives_too():
    with pytest.raises(ValueError, match=r"^set: full\.lr: got 'fast', expected a number"):
        BenchmarkConfig(set={"full.lr": "fast"})
    assert BenchmarkConfig(set={"full.lr": 1}).phases("full", "cnn")[0].lr == 1.0


def test_a_variant_is_of_the_strategy_that_its_name_begins_with():
    assert [base_strategy(name) for name in ("head", "head-a", "staged-lr-3")] == ["head", "head", "staged"]


@fuzz(150)
@given(text=st.text(max_size=12) | st.lists(
    st.sampled_from([*PHASE_FIELDS, "full", "staged", "head_only", ".", "=", "+", ":", "-", "1", "1e-3", "none", "x"]),
    max_size=7,
).map("".join))  # fmt: skip
def test_whatever_is_set_is_read_or_refused_in_one_line(text):
    found, _ = value_or_line(lambda: parse_setting(text), argparse.ArgumentTypeError)
    if found is not None:
        name, value = found
        assert read_value(PHASE_FIELDS[name.rpartition(".")[2]], json.loads(json.dumps(value))) == value
