"""The settings of a benchmark: one dataclass, from which the command line is derived, and two presets."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dogs_accel.amp import AMP_CHOICES
from dogs_accel.arguments import natural, positive
from dogs_accel.phases import PUBLISHED_LR, STRATEGIES
from dogs_accel.tracking import MODES as WANDB_MODES
from pipelines import BACKENDS


def _option(default: Any, help: str, **argument: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, **argument})


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_epochs(text: str) -> dict[str, tuple[int, ...]]:
    """Read "2", "1+3" or "full=4,staged=1+3" as epochs a phase, by strategy; the key "" stands for every strategy."""
    epochs: dict[str, tuple[int, ...]] = {}
    for part in _names(text):
        strategy, _, numbers = part.rpartition("=")
        if strategy and strategy not in STRATEGIES:
            raise argparse.ArgumentTypeError(f"got {strategy!r}, expected one of {', '.join(STRATEGIES)}")
        if strategy in epochs:
            raise argparse.ArgumentTypeError(f"got {text!r}, expected each strategy once")
        epochs[strategy] = tuple(positive(number) for number in numbers.split("+"))
    if not epochs:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected numbers such as 2, 1+3 or full=4,staged=1+3")
    return epochs


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings that belong together; each can be overridden."""

    models: tuple[str, ...]
    image_size: int | None
    weights: str
    batch_size: int
    lr: Mapping[str, Mapping[str, float]]


PRESETS = {
    "paper": Preset(
        models=("resnet50", "vit_b_16"), image_size=None, weights="imagenet", batch_size=32, lr=PUBLISHED_LR
    ),
    # The same experiment for a CPU: small siblings of the two, from random weights, which want larger steps.
    "demo": Preset(
        models=("resnet18", "timm/vit_tiny_patch16_224"),
        image_size=64,
        weights="none",
        batch_size=16,
        lr={"head_only": {"cnn": 3e-3, "vit": 3e-3}, "full_finetune": {"cnn": 1e-3, "vit": 5e-4}},
    ),
}


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Everything that `python -m dogs_accel.benchmark` can be told; None leaves a setting to the preset."""

    gpu: int | None = _option(None, "run on this CUDA device; an error where there is none", type=natural, metavar="N")
    device: str | None = _option(
        None, "device by name, such as cpu or cuda:1 (default: the first CUDA device, else the CPU)"
    )
    data: str | None = _option(
        None, "root of Stanford Dogs or of a subset in its layout (default: the embedded generated pictures)",
        metavar="DIR",
    )  # fmt: skip
    preset: str | None = _option(
        None, "paper: the published experiment; demo: its small sibling for a CPU "
        "(default: paper with --data, demo without)", choices=tuple(PRESETS),
    )  # fmt: skip
    models: tuple[str, ...] | None = _option(
        None, "models by name, comma-separated: resnet50, vit_b_16, resnet18, timm/<name>", type=_names, metavar="NAMES"
    )
    strategies: tuple[str, ...] = _option(
        ("full", "staged"), f"strategies, comma-separated: {', '.join(STRATEGIES)}", type=_names, metavar="NAMES"
    )
    runs: tuple[str, ...] | None = _option(
        None, "only these of the planned runs, comma-separated, such as resnet50_staged", type=_names, metavar="NAMES"
    )
    loader: str = _option("auto", "what loads the images", choices=BACKENDS)
    store: str | None = _option(
        None, "folder of the decode-once store that --loader cached and auto read, and build where there is none "
        "(default: in the user's cache)", metavar="DIR",
    )  # fmt: skip
    batch_size: int | None = _option(None, "images a training step", type=positive, metavar="N")
    image_size: int | None = _option(None, "side of the model's input in px", type=positive, metavar="PX")
    epochs: Mapping[str, tuple[int, ...]] | None = _option(
        None, "epochs of each phase: 2 for every phase, 1+3 for two, full=4,staged=1+3 by strategy",
        type=parse_epochs, metavar="N",
    )  # fmt: skip
    val_ratio: float = _option(
        0.15, "share of the official training images that is validation; small sets need more", type=float, metavar="R"
    )
    seed: int = _option(42, "seed of the split, of new heads, of order and of augmentation", type=natural, metavar="N")
    seeds: int = _option(
        1, "train each configuration with this many seeds, from --seed on, on the same split", type=positive,
        metavar="N",
    )  # fmt: skip
    weights: str | None = _option(None, "imagenet, none, or a file with a state dict", metavar="WHICH")
    amp: str = _option("auto", "mixed precision; auto is bf16 or fp16 on a GPU and off on a CPU", choices=AMP_CHOICES)
    bn_when_frozen: str = _option(
        "eval", "BatchNorm of a frozen backbone: eval keeps its statistics, train lets them drift as the published "
        "runs did", choices=("eval", "train"),
    )  # fmt: skip
    on_bad_image: str = _option(
        "error", "files that cannot be decoded: error stops before training, skip leaves them out",
        choices=("error", "skip"),
    )  # fmt: skip
    num_threads: int | None = _option(
        None, "threads or worker processes that load images (default: one a core)", type=positive, metavar="N"
    )
    out: str | None = _option(None, "folder for the results (default: runs/<preset>-<time>)", metavar="DIR")
    wandb: str = _option("offline", "Weights & Biases", choices=WANDB_MODES)
    dry_run: bool = _option(False, "print the plan, with the time it will take, and stop")

    def __post_init__(self) -> None:
        if self.gpu is not None and self.device is not None:
            raise ValueError(f"device: got both --gpu {self.gpu} and --device {self.device}, expected one of them")
        if self.store is not None and self.loader not in ("auto", "cached"):
            raise ValueError(f"store: got {self.store!r} with --loader {self.loader}, expected --loader cached or auto")
        for strategy in self.strategies:
            if strategy not in STRATEGIES:
                raise ValueError(f"strategies: got {strategy!r}, expected some of {', '.join(STRATEGIES)}")
        for strategy in self.epochs or {}:
            if strategy and strategy not in self.strategies:
                raise ValueError(
                    f"epochs: got {strategy}=..., expected one of the strategies {','.join(self.strategies)}"
                )
        for field in ("models", "strategies", "runs"):
            names = getattr(self, field)
            if names is not None and (not names or len(set(names)) < len(names)):
                raise ValueError(f"{field}: got {','.join(names)!r}, expected one or more names, each once")

    @property
    def preset_name(self) -> str:
        """The preset in force."""
        return self.preset or ("paper" if self.data else "demo")

    def resolved(self) -> BenchmarkConfig:
        """Return the settings with those of the preset filled in."""
        preset = PRESETS[self.preset_name]
        own = {field: getattr(self, field) for field in ("models", "image_size", "weights", "batch_size")}
        filled = {field: getattr(preset, field) if value is None else value for field, value in own.items()}
        return dataclasses.replace(self, preset=self.preset_name, **filled)

    def phase_epochs(self, strategy: str) -> tuple[int, ...] | None:
        """Epochs a phase that override a strategy's own, if any."""
        epochs = self.epochs or {}
        return epochs.get(strategy, epochs.get(""))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser one flag for each field of BenchmarkConfig."""
    for field in dataclasses.fields(BenchmarkConfig):
        options = dict(field.metadata)
        if isinstance(field.default, bool):
            options["action"] = "store_true"
        elif field.default is not None:
            shown = ",".join(field.default) if isinstance(field.default, tuple) else field.default
            options["help"] += f" (default: {shown})"
        options["help"] = options["help"].replace("%", "%%")
        parser.add_argument(f"--{field.name.replace('_', '-')}", default=field.default, **options)


def parse_config(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> BenchmarkConfig:
    """Read the command line; a wrong setting ends the program with one line and exit code 2."""
    values = vars(parser.parse_args(arguments))
    return BenchmarkConfig(**values)
