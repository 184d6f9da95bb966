"""best.toml is read back as the settings that it was written of."""

import dataclasses

import numpy as np
import pytest

from dogs_accel.experiment.settings.command_line import add_arguments, parse_config
from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.runtime.arguments import Parser
from dogs_accel.sweep.findings.best import write_settings_toml
from dogs_accel.sweep.findings.run import best_notes
from dogs_accel.sweep.findings.selection import selection_bias
from tests.support.made_sweeps import SMALL, drawn, made_trials


def read_back(path):
    parser = Parser(prog="benchmark")
    add_arguments(parser)
    return parse_config(parser, ["--config", str(path)])


@pytest.mark.parametrize(
    "settings",
    [
        {"preset": "demo", "models": ("cnn5:act=mish,filters=32+32+32+32+32".replace(",", ":"),), "batch_size": 64},
        {
            "preset": "demo", "models": ("resnet18",), "strategies": ("full", "staged-slow"),
            "epochs": {"full": (3,), "staged-slow": (1, 2)},
            "set": {"lr": 3e-4, "full.lrs": {"layer1": 1e-5, "fc": 0.01}, "staged-slow.head_only.schedule": "constant"},
        },
        {"preset": "demo", "epochs": {"": (2,)}, "val_ratio": 0.1, "seed": 7, "data": 'a "quoted" \\ folder\x7f ü'},
        {"preset": "demo", "model_weights": {"resnet18": "imagenet"}, "channels_last": False},
    ],
)  # fmt: skip
def test_the_file_is_read_as_the_settings_that_were_written(tmp_path, settings):
    config = BenchmarkConfig(**settings)
    trial = dataclasses.replace(config, test=False, out="trials/0003", wandb="disabled")
    path = write_settings_toml(tmp_path / "best.toml", trial, ["Trial 3.", "its accuracy is 0.5"])
    assert path.read_text(encoding="utf-8").startswith("# Trial 3.\n# its accuracy is 0.5\n")
    assert read_back(path) == dataclasses.replace(config, data=config.data)
    assert read_back(path).test


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (["complete"], ["is that of the one complete trial."]),
        (["complete"] * 2, ["is the highest of 2.", "is expected to have raised it by 0.00"]),
        (
            ["complete"] + ["pruned"] * 2,
            ["is that of the one complete trial.", "at least 0.0000, since 2 more"],
        ),
    ],
)
def test_the_file_says_how_much_of_it_is_luck(states, said):
    num = len(states)
    trials = made_trials(SMALL, drawn(SMALL, num), np.full(num, 0.5), state=states)
    notes = best_notes(trials, selection_bias(trials.values, 2000, num_pruned=trials.num_pruned))
    assert len(notes) == len(said)
    assert all(part in note for part, note in zip(said, notes, strict=True))
