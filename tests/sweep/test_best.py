"""best.toml is read back as the settings that it was written of."""

import dataclasses

import pytest

from dogs_accel.experiment.settings.command_line import add_arguments, parse_config
from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.runtime.arguments import Parser
from dogs_accel.sweep.findings.best import write_settings_toml


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
