"""The settings of a benchmark: one dataclass, from which the command line is derived, and two presets."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dogs_accel.experiment.presets import PRESETS
from dogs_accel.models import check_family
from dogs_accel.results.layout import CONFIG_FILE, EDA_FOLDER, SUMMARY_FILE
from dogs_accel.results.record import check_kinds
from dogs_accel.runtime.arguments import AMP_CHOICES, DATA_HELP, natural, positive, share, user_path
from dogs_accel.runtime.files import read_json
from dogs_accel.runtime.terminal import escaped
from dogs_accel.training.phases import STRATEGIES
from dogs_accel.training.tracking import WANDB_FOLDER, WANDB_MODES
from pipelines import BACKENDS
from pipelines.recipe import MAX_INPUT_PX

_MAY_CHANGE = {
    "gpu", "device", "data", "weights", "loader", "store", "num_threads", "eval_batch_size", "channels_last",
    "fused_optimizer", "compile", "cuda_graphs", "profile", "out", "wandb", "resume", "dry_run",
}  # fmt: skip
"""Settings that may change when a run goes on: they say where and how it is computed, not what. Where data and weights
lie is among them; that they are the same is seen by what they hold."""
_MOST_SEEDS = 1000
"""Beyond, the plan alone takes minutes."""
_NO_FAMILY = {EDA_FOLDER, WANDB_FOLDER, Path(SUMMARY_FILE).parts[0]}
"""What lies beside the folders of the families."""


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


def parse_families(text: str) -> dict[str, str]:
    """Read "resnet50=residual,timm/mixer_b16_224=mixer" as labels by the names of models."""
    families: dict[str, str] = {}
    for part in _names(text):
        name, given, label = part.rpartition("=")
        if not (given and name):
            raise argparse.ArgumentTypeError(f"got {part!r}, expected a model and its label such as resnet50=residual")
        if name in families:
            raise argparse.ArgumentTypeError(f"got {text!r}, expected each model once")
        families[name] = label
    if not families:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected models and labels such as resnet50=residual")
    return families


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Everything that `python -m dogs_accel.benchmark` can be told; None leaves a setting to the preset."""

    gpu: int | None = _option(None, "run on this CUDA device; an error where there is none", type=natural, metavar="N")
    device: str | None = _option(
        None, "device by name, such as cpu or cuda:1 (default: the first CUDA device, else the CPU)"
    )
    data: str | None = _option(
        None, f"{DATA_HELP} (default: the embedded generated pictures)",
        type=user_path, metavar="DIR",
    )  # fmt: skip
    preset: str | None = _option(
        None, "paper: the published experiment; demo: its small sibling for a CPU "
        "(default: paper with --data, demo without)", choices=tuple(PRESETS),
    )  # fmt: skip
    models: tuple[str, ...] | None = _option(
        None, "models by name, comma-separated: resnet50, vit_b_16, resnet18, timm/<name>", type=_names, metavar="NAMES"
    )
    families: Mapping[str, str] | None = _option(
        None, "labels under which the runs of models are gathered and compared, such as "
        "resnet50=residual,timm/mixer_b16_224=mixer (default: vit where a model has attention, else cnn)",
        type=parse_families, metavar="LABELS",
    )  # fmt: skip
    strategies: tuple[str, ...] = _option(
        ("full", "staged"), f"strategies, comma-separated: {', '.join(STRATEGIES)}", type=_names, metavar="NAMES"
    )
    runs: tuple[str, ...] | None = _option(
        None, "only these of the planned runs, comma-separated, such as resnet50_staged", type=_names, metavar="NAMES"
    )
    loader: str = _option("auto", "what loads the images", choices=BACKENDS)
    store: str | None = _option(
        None, "folder of the decode-once store that --loader cached and auto read, and build where there is none "
        "(default: in the user's cache)", type=user_path, metavar="DIR",
    )  # fmt: skip
    batch_size: int | None = _option(
        None, "images a training step, of all processes together", type=positive, metavar="N"
    )
    eval_batch_size: int | None = _option(
        None, "images a step of validation and test (default: 256 on a GPU, 64 on a CPU, at least the batch size)",
        type=positive, metavar="N",
    )  # fmt: skip
    image_size: int | None = _option(None, "side of the model's input in px", type=positive, metavar="PX")
    epochs: Mapping[str, tuple[int, ...]] | None = _option(
        None, "epochs of each phase: 2 for every phase, 1+3 for two, full=4,staged=1+3 by strategy",
        type=parse_epochs, metavar="N",
    )  # fmt: skip
    val_ratio: float = _option(
        0.15, "share of the training images that is validation, where the data have no such part; small sets need more",
        type=share, metavar="R",
    )  # fmt: skip
    test_ratio: float = _option(
        0.2, "share of the training images that is test, where the data have no such part", type=share, metavar="R"
    )
    seed: int = _option(42, "seed of the split, of new heads, of order and of augmentation", type=natural, metavar="N")
    seeds: int = _option(
        1, "train each configuration with this many seeds, from --seed on, on the same split", type=positive,
        metavar="N",
    )  # fmt: skip
    weights: str | None = _option(None, "imagenet, none, or a file with a state dict", type=user_path, metavar="WHICH")
    amp: str = _option("auto", "mixed precision; auto is bf16 or fp16 on a GPU and off on a CPU", choices=AMP_CHOICES)
    tf32: bool = _option(False, "let float32 convolutions and matrix products of a GPU round to TF32")
    channels_last: bool = _option(True, "keep images and convolutions in channels-last memory")
    fused_optimizer: bool = _option(True, "the optimiser in one kernel")
    compile: bool = _option(False, "torch.compile of the training step, with static shapes")
    cuda_graphs: bool = _option(False, "replay forward and backward of whole batches as one CUDA graph")
    cache_features: bool = _option(
        False, "train a head on features of the frozen backbone that are computed once, so without augmentation; "
        "the results are labelled so",
    )  # fmt: skip
    deterministic: bool = _option(False, "on a GPU too, take only kernels that give the same bits again")
    profile: bool = _option(False, "trace a few steps of each phase for a browser (Chrome trace format)")
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
    out: str | None = _option(
        None, "folder for the results (default: runs/<preset>-<time>)", type=user_path, metavar="DIR"
    )
    wandb: str = _option("offline", "Weights & Biases", choices=WANDB_MODES)
    # argparse reads a const that is text as if it had been typed.
    resume: str | None = _option(
        None, "go on with the run in DIR where it was stopped or killed, with its settings; without DIR the one in "
        "--out, which is started if it is not there", nargs="?", const=False, type=user_path, metavar="DIR",
    )  # fmt: skip
    dry_run: bool = _option(False, "print the plan, with the time it will take, and stop")

    def __post_init__(self) -> None:
        if self.gpu is not None and self.device is not None:
            raise ValueError(f"device: got both --gpu {self.gpu} and --device {self.device}, expected one of them")
        if not 1 <= self.seeds <= _MOST_SEEDS:
            raise ValueError(f"seeds: got {self.seeds}, expected 1 to {_MOST_SEEDS:,}")
        if self.image_size is not None and self.image_size > MAX_INPUT_PX:
            raise ValueError(f"image_size: got {self.image_size}, expected at most {MAX_INPUT_PX:,} px")
        if self.store is not None and self.loader not in ("auto", "cached"):
            raise ValueError(f"store: got {self.store!r} with --loader {self.loader}, expected --loader cached or auto")
        if self.cache_features and self.bn_when_frozen == "train":
            raise ValueError(
                "cache_features: got it with --bn-when-frozen train, expected features that stay as they are"
            )
        for ratio in ("val_ratio", "test_ratio"):
            if not 0 < getattr(self, ratio) < 1:  # also where it is NaN
                raise ValueError(
                    f"{ratio}: got {getattr(self, ratio)}, expected a number between 0 and 1, both excluded"
                )
        for strategy in self.strategies:
            if strategy not in STRATEGIES:
                raise ValueError(f"strategies: got {strategy!r}, expected some of {', '.join(STRATEGIES)}")
        for strategy in self.epochs or {}:
            if strategy and strategy not in self.strategies:
                raise ValueError(
                    f"epochs: got {strategy}=..., expected one of the strategies {','.join(self.strategies)}"
                )
        for label in (self.families or {}).values():
            if check_family(label) in _NO_FAMILY:
                raise ValueError(f"families: got {label!r}, the folder of something else, expected another label")
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

    def with_folder(self) -> BenchmarkConfig:
        """Return the settings with a folder for the results: the one that was named, or one of this moment."""
        default = Path("runs") / f"{self.preset_name}-{time.strftime('%Y%m%d-%H%M%S')}"
        return self if self.out is not None else dataclasses.replace(self, out=str(default))

    def phase_epochs(self, strategy: str) -> tuple[int, ...] | None:
        """Epochs a phase that override a strategy's own, if any."""
        epochs = self.epochs or {}
        return epochs.get(strategy, epochs.get(""))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser one flag for each field of BenchmarkConfig."""
    for field in dataclasses.fields(BenchmarkConfig):
        options = dict(field.metadata)
        if isinstance(field.default, bool):
            options["action"] = argparse.BooleanOptionalAction
            options["help"] += " (default: yes)" * field.default
        elif field.default is not None:
            shown = ",".join(field.default) if isinstance(field.default, tuple) else field.default
            options["help"] += f" (default: {shown})"
        options["help"] = options["help"].replace("%", "%%")
        # What is not said stays unsaid, so that a run that goes on can tell.
        parser.add_argument(f"--{field.name.replace('_', '-')}", default=argparse.SUPPRESS, **options)


def parse_config(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> BenchmarkConfig:
    """Read the command line; a flag that is wrong by itself ends the program with one line and exit code 2.

    Raises ValueError for settings that contradict each other, or those of the run that is to go on.
    """
    given = vars(parser.parse_args(arguments))
    return BenchmarkConfig(**given) if given.get("resume") is None else _resumed_config(given)


def _resumed_config(given: dict[str, Any]) -> BenchmarkConfig:
    """Take the settings of a run that is to go on, and of those that were said now the ones that may change."""
    folder = given["resume"] or given.get("out")
    if folder is None:
        raise ValueError("resume: got no folder, expected --resume DIR, or --out DIR beside it")
    if Path(given.get("out", folder)) != Path(folder):
        raise ValueError(f"resume: got {folder} and --out {given['out']}, expected one folder")
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        if given["resume"]:
            raise ValueError(f"resume: {folder} holds no run ({CONFIG_FILE} is missing); start it with --out {folder}")
        return BenchmarkConfig(**given | {"resume": None})
    recorded = config_from_json(read_json(path))
    for name, value in given.items():
        if name not in _MAY_CHANGE and value != getattr(recorded, name):
            raise ValueError(f"{name}: got {value}, but the run in {folder} has {getattr(recorded, name)}")
    changed: dict[str, Any] = {name: value for name, value in given.items() if name in _MAY_CHANGE}
    if {"gpu", "device"} & set(given):
        changed = {"gpu": None, "device": None} | changed
    return dataclasses.replace(recorded, **changed | {"resume": folder, "out": folder})


def config_from_json(recorded: Any) -> BenchmarkConfig:
    """Read settings as config.json holds them, in which tuples have become lists.

    Raises ValueError, which names the file and the field, for anything else.
    """

    def restored(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(map(restored, value))
        return {key: restored(each) for key, each in value.items()} if isinstance(value, dict) else value

    if not isinstance(recorded, Mapping):
        raise ValueError(f"{CONFIG_FILE}: got {str(recorded)[:40]!r}, expected the settings of a run")
    known = {field.name for field in dataclasses.fields(BenchmarkConfig)}
    if unknown := sorted(recorded.keys() - known):
        raise ValueError(f"{CONFIG_FILE}: got {escaped(', '.join(unknown))}, expected settings of this version")
    try:
        _check_recorded(recorded)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise ValueError(f"{CONFIG_FILE}: {error}") from error
    return BenchmarkConfig(**{name: restored(value) for name, value in recorded.items()})


def _check_recorded(recorded: Mapping[str, Any]) -> None:
    """Raise ValueError or ArgumentTypeError for values that the command line would not take."""
    check_kinds(BenchmarkConfig, recorded)
    for field in dataclasses.fields(BenchmarkConfig):
        value, choices, kind = recorded.get(field.name), field.metadata.get("choices"), field.metadata.get("type")
        if value is None:
            continue
        if choices is not None and value not in choices:
            raise ValueError(f"{field.name}: got {str(value)[:40]!r}, expected one of {', '.join(choices)}")
        if kind in (positive, natural):
            kind(str(value))
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
        expected = list if field.name == "epochs" else str
        if not all(isinstance(each, expected) for each in inner):
            raise ValueError(f"{field.name}: got {str(value)[:40]!r}, expected other values")
    for numbers in (recorded.get("epochs") or {}).values():
        for number in numbers:
            positive(str(number))
