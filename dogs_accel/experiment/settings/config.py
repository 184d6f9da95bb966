"""The settings of a benchmark: one dataclass, from which the command line and files are derived."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dogs_accel.evaluation.tta import NO_TTA, check_tta
from dogs_accel.experiment.settings.layers import laid_over, reaching
from dogs_accel.experiment.settings.phase_settings import (
    PHASE_FIELDS,
    base_strategy,
    check_settings,
    names_in_force,
    parse_setting,
    read_settings,
    set_epochs,
    set_phases,
)
from dogs_accel.experiment.settings.presets import PRESETS, UNLESS_SAID, usual_preset
from dogs_accel.experiment.settings.recipe_names import parse_recipe_name
from dogs_accel.models import DEFAULT_FAMILY, check_family
from dogs_accel.results.layout import EDA_FOLDER, SUMMARY_FILE
from dogs_accel.runtime.arguments import AMP_CHOICES, DATA_HELP, natural, positive, share, user_path
from dogs_accel.training.phases import STRATEGIES, Phase, strategy_phases
from dogs_accel.training.tracking import WANDB_FOLDER, WANDB_MODES
from pipelines import BACKENDS
from pipelines.recipe import MAX_INPUT_PX

_MOST_SEEDS = 1000
"""Beyond, the plan alone takes minutes."""
_NO_FAMILY = {EDA_FOLDER, WANDB_FOLDER, Path(SUMMARY_FILE).parts[0]}
"""What lies beside the folders of the families."""


def _option(default: Any, help: str, **argument: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, **argument})


def parse_names(text: str) -> tuple[str, ...]:
    """Read "a,b" as names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


class _EachOnce(argparse.Action):
    """Gathers the names and values of a flag that may be repeated."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        name, value = values
        given = getattr(namespace, self.dest, {})
        if name in given:
            raise argparse.ArgumentError(self, f"got {name} twice, expected each setting once")
        setattr(namespace, self.dest, {**given, name: value})


def parse_epochs(text: str) -> dict[str, tuple[int, ...]]:
    """Read "2", "1+3" or "full=4,staged=1+3" as epochs a phase, by strategy; the key "" stands for every strategy."""
    epochs: dict[str, tuple[int, ...]] = {}
    for part in parse_names(text):
        strategy, _, numbers = part.rpartition("=")
        if strategy:
            try:
                base_strategy(strategy)
            except ValueError as error:
                raise argparse.ArgumentTypeError(str(error)) from error
        if strategy in epochs:
            raise argparse.ArgumentTypeError(f"got {text!r}, expected each strategy once")
        epochs[strategy] = tuple(positive(number) for number in numbers.split("+"))
    if not epochs:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected numbers such as 2, 1+3 or full=4,staged=1+3")
    return epochs


def parse_families(text: str) -> dict[str, str]:
    """Read "resnet50=residual,timm/mixer_b16_224=mixer" as labels by the names of models."""
    return _by_model(text, "a model and its label such as resnet50=residual")


def parse_model_weights(text: str) -> dict[str, str]:
    """Read "resnet50=a.pth,vgg16=imagenet" as weights by the names of models."""
    example = "a model and its weights such as resnet50=FILE"
    return {name: user_path(which) for name, which in _by_model(text, example).items()}


def _by_model(text: str, example: str) -> dict[str, str]:
    """Read values by the names of models, whose own fields may have "=" too: the last one of a part counts."""
    values: dict[str, str] = {}
    for part in parse_names(text):
        name, given, value = part.rpartition("=")
        if not (given and name):
            raise argparse.ArgumentTypeError(f"got {part!r}, expected {example}")
        if name in values:
            raise argparse.ArgumentTypeError(f"got {text!r}, expected each model once")
        values[name] = value
    if not values:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {example}")
    return values


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
        None, "settings that belong together, by one of the names listed below; flags and --config win over them "
        "(default: paper with --data, demo without)", choices=tuple(PRESETS), metavar="NAME",
    )  # fmt: skip
    models: tuple[str, ...] | None = _option(
        None, "models by name, comma-separated: any classifier of torchvision, timm/<name>, cnn5, vit, resnet18_cifar, "
        "each with fields if it has any, such as resnet50:head=mlp (docs/models.md)", type=parse_names, metavar="NAMES",
    )  # fmt: skip
    families: Mapping[str, str] | None = _option(
        None, "labels under which the runs of models are gathered and compared, such as "
        "resnet50=residual,timm/mixer_b16_224=mixer (default: vit where a model has attention, else cnn)",
        type=parse_families, metavar="LABELS",
    )  # fmt: skip
    strategies: tuple[str, ...] | None = _option(
        None, f"strategies, comma-separated: {', '.join(STRATEGIES)}; head-slow is a variant of head, "
        "with settings of its own", type=parse_names, metavar="NAMES",
    )  # fmt: skip
    recipes: tuple[str, ...] | None = _option(
        None, "training recipes, comma-separated, each with its own evaluation (docs/loaders.md); those of evaluation "
        "train without augmentation; NAME:FIELD=VALUE sets a field, as in inaturalist-train:rotation_deg=30",
        type=parse_names, metavar="NAMES",
    )  # fmt: skip
    runs: tuple[str, ...] | None = _option(
        None,
        "only these of the planned runs, comma-separated, such as resnet50_staged",
        type=parse_names,
        metavar="NAMES",
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
    set: Mapping[str, Any] | None = _option(
        None, "[STRATEGY.[PHASE.]]FIELD=VALUE sets a field of phases, as in weight_decay=0.01 or "
        f"staged.head_only.lr=3e-4; repeatable, the more specific one wins; fields: {', '.join(PHASE_FIELDS)} "
        "(docs/training.md says what each does)", type=parse_setting, action=_EachOnce, metavar="SETTING",
    )  # fmt: skip
    val_ratio: float | None = _option(
        None, "share of the training images that is validation, where the data have no such part; small sets need more",
        type=share, metavar="R",
    )  # fmt: skip
    test_ratio: float | None = _option(
        None, "share of the training images that is test, where the data have no such part", type=share, metavar="R"
    )
    seed: int = _option(42, "seed of the split, of new heads, of order and of augmentation", type=natural, metavar="N")
    seeds: int = _option(
        1, "train each configuration with this many seeds, from --seed on, on the same split", type=positive,
        metavar="N",
    )  # fmt: skip
    weights: str | None = _option(None, "imagenet, none, or a file with a state dict", type=user_path, metavar="WHICH")
    model_weights: Mapping[str, str] | None = _option(
        None, "weights of single models in place of --weights, such as resnet50=FILE,vgg16=imagenet",
        type=parse_model_weights, metavar="WEIGHTS",
    )  # fmt: skip
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
    test: bool = _option(
        True, "read the test split, once and last; --no-test leaves its files closed, as each trial of a sweep does"
    )
    tta: str = _option(
        NO_TTA, "score the mean over views of each image too: none, flip, five-crop, or N, the image and N - 1 draws "
        "of the training recipe", metavar="VIEWS",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.gpu is not None and self.device is not None:
            raise ValueError(f"device: got both --gpu {self.gpu} and --device {self.device}, expected one of them")
        check_tta(self.tta)
        if not self.test and self.tta != NO_TTA:
            raise ValueError(f"tta: got {self.tta} with --no-test, expected none: it averages what is said of test")
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
            value = getattr(self, ratio)
            if value is not None and not 0 < value < 1:  # also where it is NaN
                raise ValueError(f"{ratio}: got {value}, expected a number between 0 and 1, both excluded")
        strategies = self.strategies_in_force
        for strategy in strategies:
            try:
                base_strategy(strategy)
            except ValueError as error:
                raise ValueError(f"strategies: {error}") from error
        for strategy in self.epochs or {}:
            if strategy and strategy not in {*strategies, *map(base_strategy, strategies)}:
                raise ValueError(f"epochs: got {strategy}=..., expected one of the strategies {','.join(strategies)}")
        for label in (self.families or {}).values():
            if check_family(label) in _NO_FAMILY:
                raise ValueError(f"families: got {label!r}, the folder of something else, expected another label")
        for recipe in self.recipes or ():
            parse_recipe_name(recipe)
        for field in ("models", "strategies", "recipes", "runs"):
            names = getattr(self, field)
            if names is not None and (not names or len(set(names)) < len(names)):
                raise ValueError(f"{field}: got {','.join(names)!r}, expected one or more names, each once")
        self._check_phases()

    def _check_phases(self) -> None:
        """Raise ValueError for settings of phases that contradict each other, or variants that have none."""
        try:
            read_settings(self.set or {})
        except ValueError as error:
            raise ValueError(f"set: {error}") from error
        own = {strategy: self._own_phases(strategy, DEFAULT_FAMILY) for strategy in self.strategies_in_force}
        check_settings(self.set or {}, own)
        settings = self.settings_in_force
        for strategy, phases in own.items():
            names = {*(self.epochs or {}), *(name.partition(".")[0] for name in settings)}
            if strategy not in STRATEGIES and strategy not in names:
                raise ValueError(
                    f"strategies: got {strategy}, a variant without a setting of its own, expected --set "
                    f"{strategy}.FIELD=VALUE"
                )
            for phase in phases:
                name = names_in_force(strategy, phase.name, settings).get("epochs")
                if name is not None and self.phase_epochs(strategy) is not None:
                    raise ValueError(f"set: got {name} beside --epochs for {strategy}, expected one of them")
            self.phases(strategy, DEFAULT_FAMILY)

    @property
    def preset_name(self) -> str:
        """The preset in force."""
        return self.preset or usual_preset(self.data)

    @property
    def strategies_in_force(self) -> tuple[str, ...]:
        """Those that are said, or the preset's."""
        found: tuple[str, ...] = self._in_force("strategies")
        return found

    @property
    def settings_in_force(self) -> dict[str, Any]:
        """The settings of phases that are said, laid over those of the preset that reach a phase."""
        strategies = self.strategies_in_force
        of_preset = reaching(PRESETS[self.preset_name].settings.get("set", {}), strategies)
        return laid_over(of_preset, self.set or {}, strategies, self.epochs)

    @property
    def split_settings(self) -> dict[str, Any]:
        """How the parts are carved that the data do not have, as `Dataset.split` takes it."""
        return {"seed": self.seed, **{ratio: self._in_force(ratio) for ratio in ("val_ratio", "test_ratio")}}

    def _in_force(self, field: str) -> Any:
        """Give what is said of a field, or what the preset says of it, or what holds unless somebody does."""
        said = getattr(self, field)
        return said if said is not None else PRESETS[self.preset_name].settings.get(field, UNLESS_SAID.get(field))

    def resolved(self) -> BenchmarkConfig:
        """Return the settings with those of the preset filled in; doing so twice changes nothing more."""
        fields = {*UNLESS_SAID, *PRESETS[self.preset_name].settings} - {"set"}
        filled = {field: self._in_force(field) for field in fields}
        settings = self.settings_in_force or self.set
        return dataclasses.replace(self, preset=self.preset_name, **filled, set=settings)

    def with_folder(self) -> BenchmarkConfig:
        """Return the settings with a folder for the results: the one that was named, or one of this moment."""
        default = Path("runs") / f"{self.preset_name}-{time.strftime('%Y%m%d-%H%M%S')}"
        return self if self.out is not None else dataclasses.replace(self, out=str(default))

    def phase_epochs(self, strategy: str) -> tuple[int, ...] | None:
        """Epochs a phase that override a strategy's own, if any."""
        epochs = self.epochs or {}
        return next((epochs[name] for name in (strategy, base_strategy(strategy), "") if name in epochs), None)

    def phases(self, strategy: str, family: str) -> list[Phase]:
        """Phases of a strategy for a family of models, with what is set of them."""
        return set_phases(self._own_phases(strategy, family), strategy, self.settings_in_force)

    def changes_phases(self, strategy: str, family: str) -> bool:
        """Whether what is set makes the phases of a strategy other ones than the preset's, beside their epochs."""
        return self._own_phases(strategy, family) != self.phases(strategy, family)

    def _own_phases(self, strategy: str, family: str) -> list[Phase]:
        """Phases as the strategy and the preset have them, with the epochs that are said."""
        base, lr = base_strategy(strategy), PRESETS[self.preset_name].lr
        phases = strategy_phases(base, family, lr, self.phase_epochs(strategy))
        epochs = set_epochs(phases, strategy, self.settings_in_force)
        return phases if epochs is None else strategy_phases(base, family, lr, epochs)
