"""`--config`: settings of a file, in JSON and TOML, alone and beside flags."""

import argparse
import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dogs_accel.experiment.settings.command_line import add_arguments, parse_config
from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.experiment.settings.files import read_settings_file
from dogs_accel.results.layout import CONFIG_FILE
from tests.support.fuzzing import fuzz, value_or_line

PAGE = Path(__file__).parents[3] / "docs" / "benchmark.md"
OF_A_START = ("out", "resume", "dry_run")


def parse(*arguments):
    parser = argparse.ArgumentParser(prog="benchmark")
    add_arguments(parser)
    return parse_config(parser, list(map(str, arguments)))


def written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def toml_of(content):
    """TOML of a mapping, in the one form that needs no tables: quoted keys and inline values."""
    return "".join(f"{quoted(key)} = {toml_value(value)}\n" for key, value in content.items())


def quoted(text):
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_value(value):
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{quoted(key)} = {toml_value(each)}' for key, each in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml_value, value))}]"
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def nested(settings):
    """Settings of phases as tables."""
    found = {}
    for name, value in settings.items():
        *scope, field = name.split(".")
        table = found
        for key in scope:
            table = table.setdefault(key, {})
        table[field] = value
    return found


shares = st.floats(0.01, 0.99)
counts = st.integers(1, 2**31 - 1)
STRATEGIES = ("full", "head", "staged", "staged-a", "staged-b-2")
phase_values = st.fixed_dictionaries({}, optional={
    "lr": st.floats(1e-9, 10), "weight_decay": st.floats(0, 1), "patience": st.integers(0, 9),
    "min_delta": st.floats(0, 1), "layer_decay": st.floats(0.1, 1),
})  # fmt: skip
scopes = st.sampled_from(["", "full.", "staged.head_only.", "staged-b-2.full_finetune."])
settings_of_phases = st.dictionaries(scopes, phase_values).map(
    lambda found: {f"{scope}{name}": value for scope, values in found.items() for name, value in values.items()}
)


@st.composite
def configs(draw):
    names = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=3, unique=True).map(tuple)
    models = draw(st.none() | names)
    optional = {
        "device": st.sampled_from(["cpu", "cuda:1"]), "data": st.sampled_from(["photos", "/a b/ä", "C:\\x\x7f"]),
        "runs": names, "batch_size": counts, "eval_batch_size": counts, "image_size": st.integers(1, 512),
        "num_threads": counts, "val_ratio": shares, "test_ratio": shares, "seed": counts, "seeds": st.integers(1, 9),
        "amp": st.sampled_from(["off", "bf16"]), "tf32": st.booleans(), "profile": st.booleans(),
        "epochs": st.sampled_from([{"": (2,)}, {"full": (3,), "staged": (1, 4)}]),
    }  # fmt: skip
    given = draw(st.fixed_dictionaries({}, optional=optional))
    # Of each variant something must be set.
    own = {"staged-a.lr": 0.1, "staged-b-2.lr": 0.2}
    return BenchmarkConfig(
        **given, models=models, families=None if models is None else {models[0]: "mine"}, strategies=STRATEGIES,
        set=draw(settings_of_phases) | own, out="somewhere", dry_run=True,
    )  # fmt: skip


@fuzz(25)
@given(config=configs())
def test_settings_are_the_same_when_a_file_of_either_kind_is_read(config, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    recorded = dataclasses.asdict(config)
    said = {name: value for name, value in recorded.items() if value is not None and name not in OF_A_START}
    expected = dataclasses.replace(config, out=None, dry_run=False)
    for path in (
        written(folder / "config.json", recorded),
        written(folder / "config.toml", toml_of(said)),
        written(folder / "tables.toml", toml_of(said | {"set": nested(said["set"])})),
    ):
        assert BenchmarkConfig(**read_settings_file(path)) == expected
        assert parse("--config", path, "--out", "there") == dataclasses.replace(expected, out="there")


def test_a_file_in_toml_may_say_what_the_flags_say(tmp_path):
    path = written(tmp_path / "own.toml", """
        models = "resnet18, timm/x"
        families = "resnet18=small"
        epochs = "full=4,head-a=2"
        strategies = ["full", "head-a"]
        data = "~/photos"
        out = "runs/own"
        tf32 = true
        [set]
        weight_decay = 0.01
        full.lr = 1
        "head-a.head_only.patience" = "2"
        [set.head-a]
        lr = 3e-3
    """)  # fmt: skip
    assert parse("--config", path) == BenchmarkConfig(
        models=("resnet18", "timm/x"), families={"resnet18": "small"}, epochs={"full": (4,), "head-a": (2,)},
        strategies=("full", "head-a"), data=str(Path("~/photos").expanduser()), out="runs/own", tf32=True,
        set={"weight_decay": 0.01, "full.lr": 1.0, "head-a.head_only.patience": 2, "head-a.lr": 3e-3},
    )  # fmt: skip


def test_the_file_on_the_page_is_one(tmp_path):
    [text] = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    config = parse("--config", written(tmp_path / "page.toml", text))
    assert config.set == {"weight_decay": 0.01, "staged.head_only.lr": 3e-3, "head-slow.lr": 1e-4}
    assert [[phase.epochs for phase in config.phases(name, "cnn")] for name in config.strategies] == [[1, 3], [3], [3]]


def test_a_flag_wins_over_the_file(tmp_path):
    path = written(tmp_path / "own.toml", 'seed = 7\ndevice = "cpu"\nset = {lr = 1.0, full.lr = 2.0}\nepochs = "3"')
    config = parse("--config", path, "--seed", 8, "--gpu", 1, "--set", "full.lr=3", "--set", "patience=1")
    assert config == BenchmarkConfig(
        seed=8, gpu=1, set={"lr": 1.0, "full.lr": 3.0, "patience": 1}, epochs={"": (3,)}
    )  # fmt: skip
    assert parse("--config", path, "--epochs", "full=1").epochs == {"full": (1,)}


def test_a_run_goes_on_with_its_file_and_with_no_other(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    path = written(tmp_path / "own.toml", 'strategies = ["head"]\nseed = 7\n[set]\nhead.lr = 0.1\n')
    config = parse("--config", path, "--out", out).resolved()
    written(out / CONFIG_FILE, dataclasses.asdict(config))
    resumed = dataclasses.replace(config, resume=str(out))
    assert parse("--config", path, "--out", out, "--resume") == resumed
    assert parse("--config", out / CONFIG_FILE, "--resume", out, "--set", "head.lr=0.1") == resumed
    with pytest.raises(ValueError, match=r"^set: got head\.lr=0\.2, but .* has head\.lr=0\.1$"):
        parse("--resume", out, "--set", "head.lr=0.2")
    written(path, 'strategies = ["head"]\nseed = 8\n[set]\nhead.lr = 0.1\n')
    with pytest.raises(ValueError, match=r"^seed: got 8, but the run in .* has 7$"):
        parse("--config", path, "--resume", out)


def test_settings_of_an_earlier_version_have_none_of_phases(tmp_path):
    recorded = dataclasses.asdict(BenchmarkConfig(preset="demo").resolved())
    del recorded["set"]
    written(tmp_path / CONFIG_FILE, recorded)
    assert parse("--resume", tmp_path).set is None
    with pytest.raises(ValueError, match=r"^set: got lr=1, but the run in .* has none$"):
        parse("--resume", tmp_path, "--set", "lr=1")


@pytest.mark.fault(
    "Command line",
    "--config of a file with a wrong name or value, or that cannot be read",
    "one line with the file, the field and what it got, before anything else is read",
)
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", "seed = ", r"a\.toml cannot be read as TOML \(Invalid value"),
        ("a.json", "seed = 1", r"a\.json cannot be read as JSON \("),
        ("a.txt", "seed = 1", r"a\.txt cannot be read as JSON \("),
        ("a.json", "[1]", r"a\.json: got '\[1\]', expected the settings of a run"),
        ("a.toml", "sed = 1", r"a\.toml: got sed, expected settings of this version \(did you mean 'seed'\?\)"),
        ("a.toml", "seed = 1979-05-27", r"a\.toml: seed: got '1979-05-27', expected an integer"),
        ("a.toml", "epochs = 2", r"a\.toml: epochs: got '2', expected values by name"),
        ("a.toml", 'epochs = "0"', r"a\.toml: epochs: got '0', expected an integer >= 1"),
        ("a.toml", 'loader = "fast"', r"a\.toml: loader: got 'fast', expected one of auto, "),
        ("a.toml", "set = 3", r"a\.toml: set: got '3', expected values by name"),
        ("a.toml", "set = {lrr = 3}", r"a\.toml: set: got 'lrr', expected a field of a phase: mode, "),
        ("a.toml", 'set.full.lr = "x"', r"a\.toml: set: full\.lr: got 'x', expected a number"),
        ("a.toml", "set.full.lr = [1]", r"a\.toml: set: full\.lr: got '\[1\]', expected a number"),
        ("a.toml", 'set = {full.lr = 1, "full.lr" = 2}', r"a\.toml: set: got full\.lr twice"),
        ("a.json", {"set": {"a": {"b": {"c": {"lr": 1}}}}}, r"a\.json: set: got 'c', expected a field of a phase"),
        ("a.json", {"set": {"a\nb": {"lr": 1}}}, r"a\.json: set: got 'a\\nb\.lr', expected \[STRATEGY"),
        ("a.toml", "set.head.lr = 1", r"a\.toml: set: got head\.lr, expected one of the strategies full, staged"),
        ("a.toml", "set.full.epochs = 0", r"a\.toml: set: full\.epochs: got 0, expected an integer >= 1"),
        ("a.toml", 'resume = "runs/a"', r"a\.toml: got resume, which is said on the command line alone"),
        ("a.json", {"dry_run": True}, r"a\.json: got dry_run, which is said on the command line alone"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_in_one_line(tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    written(Path(name), content)
    with pytest.raises(ValueError, match=f"^{message}") as stop:
        parse("--config", name)
    assert "\n" not in str(stop.value)


def test_what_flags_alone_make_wrong_is_not_said_of_the_file(tmp_path):
    path = written(tmp_path / "own.toml", "set.full.lr = 1")
    with pytest.raises(ValueError, match=r"^set: got full\.lr, expected one of the strategies head$"):
        parse("--config", path, "--strategies", "head")
    with pytest.raises(FileNotFoundError, match=r"absent\.toml"):
        parse("--config", tmp_path / "absent.toml")


TOML = st.sampled_from(["set", "seed", "full", "lr", ".", "=", "[", "]", "{", "}", '"', "1", "\n", "x", ",", "-"])


@fuzz(60)
@given(text=st.lists(TOML, max_size=12).map("".join) | st.text(max_size=6))
def test_whatever_a_file_holds_is_read_or_refused_in_one_line(text, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    config, line = value_or_line(lambda: parse("--config", path))
    assert config is not None or line.startswith(str(path))
