"""Training schedules as data: a strategy is a list of phases."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dogs_accel.models import DEFAULT_FAMILY, MODES
from dogs_accel.runtime.arguments import did_you_mean
from dogs_accel.training.schedules import SCHEDULES, OneCycle, cosine_factor, stepped_rate

MIXES = ("none", "mixup", "cutmix", "mixup_or_cutmix")
_OF_MIXES = {"mixup_alpha": (MIXES[1], MIXES[3]), "cutmix_alpha": MIXES[2:], "mix_probability": MIXES[1:]}
"""What of mixing says something beside which kinds of it."""
_PUBLISHED_KEYS = ("name", "mode", "epochs", "lr", "weight_decay")

OPTIMIZERS = ("adamw", "adam", "sgd")
MONITORED = {"accuracy": "val_acc", "loss": "val_loss"}
"""Column of the history by what a phase monitors; a higher accuracy is better, and a lower loss."""
_CHOICES = {
    "mode": MODES, "optimizer": OPTIMIZERS, "schedule": SCHEDULES, "monitor": tuple(MONITORED), "mix": MIXES
}  # fmt: skip

Stage = tuple[str, int, tuple[str, ...]]
"""Mode, num_groups and groups: what trains, as `models.freezing.set_trainable_stage` takes it."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Some epochs of training with one optimiser and one schedule, both of which each phase starts afresh.

    The defaults are those of the published strategies: AdamW, a cosine to zero, and nothing else. A field that would
    have no effect, such as nesterov without SGD, is refused.
    """

    name: str
    mode: str
    """head_only trains the classifier on a frozen backbone, full_finetune everything, partial_finetune a part: the
    last num_groups layer groups, or the parameters that groups names."""
    epochs: int
    lr: float
    """Learning rate at its highest."""
    weight_decay: float = 1e-4
    """As torch's optimisers have it: apart from the gradient in AdamW, a part of the gradient in Adam and SGD."""
    warmup_epochs: int = 0
    """Epochs in which the learning rate climbs from 0, step by step; the schedule goes over the rest."""
    layer_decay: float = 1.0
    """Each layer group learns at this share of the learning rate of the group above it, the head at lr itself."""
    unfreeze_every: int = 0
    """Epochs between two unfreezings, which start with the head alone; 0 trains everything at once."""
    patience: int = 0
    """Epochs in a row without a gain of what is monitored that end the phase; 0 never does."""
    min_delta: float = 0.0
    """A gain counts where it is larger than this: a share of 1 of accuracy, or a difference of loss."""
    num_groups: int = 0
    """Layer groups that partial_finetune trains, counted from the head, which is the first."""
    groups: tuple[str, ...] = ()
    """Beginnings of parameters' names that partial_finetune trains, such as layer4 and fc, and nothing else."""
    optimizer: str = "adamw"
    """adamw, adam or sgd: torch's, with its defaults but for the fields here."""
    momentum: float = 0.9
    """Of SGD."""
    nesterov: bool = False
    """Whether SGD looks ahead along its momentum."""
    schedule: str = "cosine"
    """cosine falls to 0, epoch by epoch; constant stays; step is multiplied by gamma every step_epochs; one_cycle goes
    up and down step by step as torch's OneCycleLR does by default, and the momentum down and up."""
    step_epochs: int = 0
    """Of step."""
    gamma: float = 0.1
    """Of step."""
    pct_start: float = 0.3
    """Share of the steps in which one_cycle climbs."""
    lrs: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Learning rates by the beginning of a parameter's name, such as {"layer4": 1e-4, "fc": 5e-4}. The longest that
    fits counts; what none fits, such as the stem, learns at lr."""
    decay_norms: bool = True
    """Whether weight decay is for norms and biases too. Without, it is for what has two dimensions or more and is no
    bias, as in timm."""
    clip_norm: float = 0.0
    """Longest gradient, over all parameters together, as torch's clip_grad_norm_ cuts it; 0 cuts none."""
    label_smoothing: float = 0.0
    """Share of the label that goes to all classes alike, as in torch's cross_entropy; in the loss of training alone."""
    monitor: str = "accuracy"
    """What of validation patience looks at, accuracy or loss. That of the last phase chooses the run's best epoch."""
    ema_decay: float = 0.0
    """Decay of an exponential moving average of the weights over the steps of the phase, which is validated, kept and
    tested in place of the weights; 0 has none. The next phase goes on with the weights themselves."""
    mix: str = "none"
    """What training images are made of: none (each is itself), mixup, cutmix, or mixup_or_cutmix, either by chance."""
    mixup_alpha: float = 0.2
    """Of Beta(alpha, alpha), from which mixup draws the share of each image's own label."""
    cutmix_alpha: float = 1.0
    """The same of CutMix."""
    mix_probability: float = 1.0
    """Share of the steps that mix."""

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if (value := getattr(self, name)) not in known:
                hint = did_you_mean(value, known) if isinstance(value, str) else ""
                raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(known)}{hint}")
        for name in ("nesterov", "decay_norms"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected true or false")
        for name in _LEAST:
            if not _is_number(getattr(self, name), int):
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected an integer")
        for name, least in _LEAST.items():
            if getattr(self, name) < least and name != "warmup_epochs":
                raise ValueError(f"{name}: got {getattr(self, name)}, expected an integer >= {least}")
        for name, (is_in_range, expected) in _RANGES.items():
            value = getattr(self, name)
            if not (_is_number(value, (int, float)) and is_in_range(value)):
                raise ValueError(f"{name}: got {value!r}, expected {expected}")
        self._check_names()
        self._check_together()

    def _check_names(self) -> None:
        """Check what names parameters, and give it the types that it has where it was not read from a file."""
        if isinstance(self.groups, str) or not all(isinstance(name, str) and name for name in self.groups):
            raise ValueError(f"groups: got {self.groups!r}, expected beginnings of parameters' names")
        if not isinstance(self.lrs, Mapping) or not all(isinstance(name, str) and name for name in self.lrs):
            raise ValueError(f"lrs: got {self.lrs!r}, expected learning rates by the beginning of a parameter's name")
        for name, rate in self.lrs.items():
            if not (_is_number(rate, (int, float)) and 0 < rate < math.inf):
                raise ValueError(f"lrs: got {rate!r} for {name}, expected a number > 0")
        object.__setattr__(self, "groups", tuple(self.groups))
        object.__setattr__(self, "lrs", dict(self.lrs))

    def _check_together(self) -> None:
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"warmup_epochs: got {self.warmup_epochs} for a phase of {self.epochs}, "
                f"expected an integer from 0 to {self.epochs - 1}"
            )
        self._require_default("unfreeze_every", "mode", "full_finetune")
        self._require_default("num_groups", "mode", "partial_finetune")
        self._require_default("groups", "mode", "partial_finetune")
        if self.mode == "partial_finetune" and bool(self.num_groups) == bool(self.groups):
            given = f"{self.num_groups} beside groups {', '.join(self.groups)}" if self.groups else "0 and no groups"
            raise ValueError(
                f"num_groups: got {given}, expected one of the two with mode partial_finetune: a number of layer "
                "groups, or names and num_groups 0"
            )
        self._require_default("nesterov", "optimizer", "sgd")
        self._require_default("momentum", "optimizer", "sgd")
        if self.nesterov and not self.momentum and self.schedule != "one_cycle":
            raise ValueError("momentum: got 0 with nesterov, expected a number > 0")
        self._require_default("gamma", "schedule", "step")
        self._require_default("step_epochs", "schedule", "step")
        self._require_default("pct_start", "schedule", "one_cycle")
        if self.schedule == "step" and not self.step_epochs:
            raise ValueError("step_epochs: got 0 with schedule step, expected an integer >= 1")
        if self.schedule == "one_cycle":
            for name, why in (("warmup_epochs", "climbs by itself"), ("momentum", "sets the momentum")):
                if (value := getattr(self, name)) != _DEFAULTS[name]:
                    expected = _DEFAULTS[name]
                    raise ValueError(f"{name}: got {value} with schedule one_cycle, which {why}, expected {expected}")
        if self.lrs and self.layer_decay != 1:
            raise ValueError(f"lrs: got it with layer_decay {self.layer_decay}, expected one of the two")
        for name, kinds in _OF_MIXES.items():
            value = getattr(self, name)
            if value != _DEFAULTS[name] and self.mix not in kinds:
                raise ValueError(f"{name}: got {value:g} with mix {self.mix}, expected mix {' or '.join(kinds)}")

    def _require_default(self, name: str, other: str, needed: str) -> None:
        """Refuse a field that says something only beside a certain value of another one."""
        value, default = getattr(self, name), _DEFAULTS[name]
        if value != default and getattr(self, other) != needed:
            expected = f"{_shown(default)}, or {other} {needed}" if default != () else f"{other} {needed}"
            raise ValueError(f"{name}: got {_shown(value)} with {other} {getattr(self, other)}, expected {expected}")

    def __str__(self) -> str:
        """Name, epochs, learning rate and what else is not as published: "head_only(3, 0.001, patience=2)"."""
        values = [f"{self.epochs}", f"{self.lr:g}"]
        values += [f"{name}={_shown(getattr(self, name))}" for name in _DEFAULTS if self._is_set(name)]
        return f"{self.name}({', '.join(values)})"

    def as_dict(self) -> dict[str, Any]:
        """The published keys, and of the other fields those that are not at their default."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name in _PUBLISHED_KEYS or self._is_set(field.name)
        }

    def _is_set(self, name: str) -> bool:
        return getattr(self, name) != _DEFAULTS[name]

    @property
    def idle_fields(self) -> dict[str, str]:
        """The fields that are set and do nothing here though they may beside other values, and why, by name."""
        end_first = "1 epoch ends first" if self.epochs == 1 else f"{self.epochs} epochs end first"
        in_one_group = self.mode == "head_only" or (self.mode == "partial_finetune" and self.num_groups == 1)
        idle = {
            "patience": (self.patience >= self.epochs - 1, end_first),
            "min_delta": (self.patience == 0, "patience is 0"),
            "layer_decay": (in_one_group, "the head alone trains"),
            "step_epochs": (self.step_epochs >= self.epochs - self.warmup_epochs, end_first),
            "gamma": (self.gamma == 1, "it is 1"),
            "decay_norms": (self.weight_decay == 0, "weight_decay is 0"),
        }  # fmt: skip
        return {name: why for name, (is_idle, why) in idle.items() if is_idle and self._is_set(name)}

    @property
    def stage(self) -> Stage:
        """What trains, in a phase that unfreezes gradually at the end of it."""
        return self.mode, self.num_groups, self.groups

    def stage_at(self, epoch: int, num_groups: int) -> Stage:
        """What trains in an epoch (counted from 0) of a model with num_groups layer groups."""
        if not self.unfreeze_every:
            return self.stage
        return "partial_finetune", min(num_groups, 1 + epoch // self.unfreeze_every), ()

    def moves_within(self, epoch: int) -> bool:
        """Whether the learning rate moves from step to step of an epoch."""
        return self.schedule == "one_cycle" or epoch < self.warmup_epochs

    def lr_at(self, epoch: int, step: int = 0, num_steps: int = 1, peak: float | None = None) -> float:
        """Learning rate of a step of an epoch of num_steps, both counted from 0.

        peak: the highest of the parameters that are meant; None is lr. A warm-up climbs in a line to the peak at its
        last step.
        """
        peak = self.lr if peak is None else peak
        if self.schedule == "one_cycle":
            return self._one_cycle(num_steps).rate(peak, epoch * num_steps + step)
        if epoch < self.warmup_epochs:
            return (epoch + (step + 1) / num_steps) / self.warmup_epochs * peak
        return self._epoch_rate(epoch, peak)

    def momentum_at(self, epoch: int, step: int, num_steps: int) -> float | None:
        """Momentum of SGD, or beta1 of the others, in a step, where the schedule sets it; None where it stays."""
        if self.schedule != "one_cycle":
            return None
        return self._one_cycle(num_steps).momentum(epoch * num_steps + step)

    def lr_after(self, epoch: int, num_steps: int = 1) -> float:
        """Learning rate as a scheduler has left it at the end of an epoch, which is what the histories hold.

        That of the next step, except that a warm-up says what it has reached, and one_cycle ends with its last step.
        """
        if self.schedule == "one_cycle":
            last = self.epochs * num_steps - 1
            return self._one_cycle(num_steps).rate(self.lr, min(last, (epoch + 1) * num_steps))
        if epoch + 1 < self.warmup_epochs:
            return self.lr_at(epoch)
        return self._epoch_rate(epoch + 1, self.lr)

    def _one_cycle(self, num_steps: int) -> OneCycle:
        return OneCycle(self.epochs * num_steps, self.pct_start)

    def _epoch_rate(self, epoch: int, peak: float) -> float:
        """Learning rate of a whole epoch, after the warm-up."""
        epoch -= self.warmup_epochs
        if self.schedule == "step":
            return stepped_rate(peak, epoch, self.step_epochs, self.gamma)
        return peak if self.schedule == "constant" else cosine_factor(epoch, self.epochs - self.warmup_epochs) * peak

    def is_better(self, row: Mapping[str, Any], best: Mapping[str, Any] | None) -> bool:
        """Whether an epoch of a history is better than the best one so far, by what this phase monitors."""
        column = MONITORED[self.monitor]
        if best is None:
            return True
        return bool(row[column] > best[column] if self.monitor == "accuracy" else row[column] < best[column])

    def stops_after(self, monitored: Sequence[float]) -> bool:
        """Whether the phase ends early, given what it monitors after each of its epochs so far.

        As in Keras and Lightning, an epoch gains when it is more than min_delta better than the epoch that gained last
        (the first always gains), so that small steps add up; the phase ends with the `patience`-th epoch in a row
        that does not. Epochs of warm-up and before an unfreezing count like any other.
        """
        best, num_without_gain = -math.inf, 0
        for value in monitored if self.monitor == "accuracy" else (-each for each in monitored):
            if value - self.min_delta > best:
                best, num_without_gain = value, 0
            else:
                num_without_gain += 1
        return 0 < self.patience <= num_without_gain


_LEAST = {
    "epochs": 1, "warmup_epochs": 0, "unfreeze_every": 0, "patience": 0, "num_groups": 0, "step_epochs": 0
}  # fmt: skip
"""The fields that count something, and the least that they may."""

_MOST_LR = 1e6
"""Beyond, the first step takes any weight to where float32 has no numbers."""

_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "lr": (lambda value: 0 < value <= _MOST_LR, f"a number > 0 and at most {_MOST_LR:g}"),
    "weight_decay": (lambda value: 0 <= value < math.inf, "a number >= 0"),
    "layer_decay": (lambda value: 0 < value <= 1, "a number > 0 and <= 1"),
    "min_delta": (lambda value: 0 <= value < math.inf, "a number >= 0"),
    "momentum": (lambda value: 0 <= value < 1, "a number >= 0 and < 1"),
    "gamma": (lambda value: 0 < value <= 1, "a number > 0 and <= 1"),
    "pct_start": (lambda value: 0 < value < 1, "a number > 0 and < 1"),
    "clip_norm": (lambda value: 0 <= value < math.inf, "a number >= 0"),
    "label_smoothing": (lambda value: 0 <= value < 1, "a number >= 0 and < 1"),
    "ema_decay": (lambda value: 0 <= value < 1, "a number >= 0 and < 1"),
    "mixup_alpha": (lambda value: 0 < value < math.inf, "a number > 0"),
    "cutmix_alpha": (lambda value: 0 < value < math.inf, "a number > 0"),
    "mix_probability": (lambda value: 0 < value <= 1, "a number > 0 and <= 1"),
}

_DEFAULTS: dict[str, Any] = {
    field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    for field in dataclasses.fields(Phase)
    if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
}


def _is_number(value: Any, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """Write the value of a field: lists joined by +, names and their numbers by a colon."""
    match value:
        case bool() | str():
            return str(value)
        case Mapping():
            return "+".join(f"{name}:{number:g}" for name, number in value.items())
        case tuple():
            return "+".join(value)
        case _:
            return f"{value:g}"


@dataclass(frozen=True, kw_only=True)
class PhasePlan:
    """A phase of a strategy, before the family of the model and its rates are known."""

    mode: str
    epochs: int
    name: str = ""
    """The mode where it has no name of its own."""
    lr_times: float = 1.0
    """The preset's learning rate, of the head alone or of fine-tuning, is taken this many times."""
    lr: Mapping[str, float] | None = None
    """Learning rates by family, in place of the preset's."""
    fields: Callable[[int, str], Mapping[str, Any]] = lambda epochs, family: {}
    """(epochs, family) -> other fields of the phase."""

    def phase(self, family: str, lr: Mapping[str, Mapping[str, float]], epochs: int) -> Phase:
        """Make the phase for a family at the rates of a preset, by mode and family."""
        rates = self.lr or lr["head_only" if self.mode == "head_only" else "full_finetune"]
        rate = rates.get(family, rates[DEFAULT_FAMILY]) * self.lr_times
        own = self.fields(epochs, family)
        return Phase(name=self.name or self.mode, mode=self.mode, epochs=epochs, lr=rate, **own)


def _last_two_groups(epochs: int, family: str) -> Mapping[str, Any]:
    return {"num_groups": 2}


def _gradually(epochs: int, family: str) -> Mapping[str, Any]:
    # As evenly as epochs allow over the groups that such models have: six of a ResNet, fourteen of a ViT-B.
    return {"unfreeze_every": max(1, epochs // (14 if family == "vit" else 6))}


def _layer_by_layer(epochs: int, family: str) -> Mapping[str, Any]:
    return {"layer_decay": 0.75 if family == "vit" else 0.5, "weight_decay": 0.01}


def _from_scratch(epochs: int, family: str) -> Mapping[str, Any]:
    return {"warmup_epochs": epochs // 10, "weight_decay": 0.05, "decay_norms": False}


_SCRATCH = "scratch"

STRATEGIES: dict[str, tuple[PhasePlan, ...]] = {
    "full": (PhasePlan(mode="full_finetune", epochs=12),),
    "staged": (PhasePlan(mode="head_only", epochs=3), PhasePlan(mode="full_finetune", epochs=8)),
    "head": (PhasePlan(mode="head_only", epochs=3),),
    "partial": (PhasePlan(mode="partial_finetune", epochs=12, fields=_last_two_groups),),
    "gradual": (PhasePlan(mode="full_finetune", epochs=12, name="gradual", fields=_gradually),),
    "layerwise": (PhasePlan(mode="full_finetune", epochs=12, name="layerwise", lr_times=5, fields=_layer_by_layer),),
    _SCRATCH: (
        PhasePlan(
            mode="full_finetune", epochs=50, name="from_scratch", lr={"cnn": 1e-3, "vit": 5e-4}, fields=_from_scratch
        ),
    ),
}
"""Phases by strategy; `full` and `staged` are the published two. `partial`, `gradual` and `layerwise` have as many
epochs as `full`, so that they differ from it in what trains and how fast alone. `layerwise` gives the head five times
the rate of fine-tuning and each group below it half of the group above, three quarters in a ViT: on a ResNet-50 5e-4
for the head and about 1.6e-5 for the stem. `scratch` starts at random, whatever weights are asked for, and warms up
over a tenth of its epochs."""

PUBLISHED_LR = {"head_only": {"cnn": 1e-3, "vit": 1e-3}, "full_finetune": {"cnn": 1e-4, "vit": 3e-5}}
"""Learning rate of each mode and family in the published runs; other families have the default one's."""


def starts_at_random(strategy: str) -> bool:
    """Whether a strategy, or a variant of one (scratch-long), starts at random, whatever weights are asked for."""
    return strategy.partition("-")[0] == _SCRATCH


def strategy_phases(
    strategy: str,
    family: str,
    lr: Mapping[str, Mapping[str, float]] = PUBLISHED_LR,
    epochs: Sequence[int] | None = None,
) -> list[Phase]:
    """Phases of a strategy for a family of models, at the learning rates of the default one where it has none.

    epochs replaces the strategy's own: one number for every phase, or one a phase. Raises ValueError.
    """
    if strategy not in STRATEGIES:
        raise ValueError(
            f"strategies: got {strategy!r}, expected one of {', '.join(STRATEGIES)}{did_you_mean(strategy, STRATEGIES)}"
        )
    plan = STRATEGIES[strategy]
    if epochs is None:
        epochs = [each.epochs for each in plan]
    elif len(epochs) == 1:
        epochs = list(epochs) * len(plan)
    if len(epochs) != len(plan):
        expected = "1" if len(plan) == 1 else f"1 or {len(plan)}, one a phase"
        raise ValueError(
            f"epochs: got {'+'.join(map(str, epochs))} for {strategy!r}, expected {expected}; "
            "one strategy alone is set by its name, as in staged=1+3"
        )
    return [each.phase(family, lr, count) for each, count in zip(plan, epochs, strict=True)]


def strategy_of(phases: Sequence[Mapping[str, Any]]) -> str | None:
    """Name the strategy that phases, as `Phase.as_dict` writes them, are of, if their fields are those of one.

    Epochs and learning rates may be any, as both are of a run.
    """
    counts: list[Any] = [phase.get("epochs") for phase in phases]
    if not all(isinstance(count, int) and count >= 1 for count in counts):
        return None
    given = [_without_rate(phase) for phase in phases]
    for strategy, plan in STRATEGIES.items():
        if len(plan) != len(phases):
            continue
        for family in PUBLISHED_LR["full_finetune"]:
            expected = strategy_phases(strategy, family, epochs=counts)
            if given == [_without_rate(phase.as_dict()) for phase in expected]:
                return strategy
    return None


def _without_rate(phase: Mapping[str, Any]) -> dict[str, Any]:
    """A phase as it is written, but for its learning rate, which has JSON's types."""
    fields = {"weight_decay": _DEFAULTS["weight_decay"]} | {key: value for key, value in phase.items() if key != "lr"}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}


def strategy_label(phases: Sequence[Phase]) -> str:
    """Name a list of phases as the published tables do, such as "Head 3 + full fine-tune 8 epochs"."""
    last = phases[-1]
    epochs = f"{last.epochs} epoch{'s' * (last.epochs != 1)}"
    match strategy_of([phase.as_dict() for phase in phases]):
        case "full":
            return f"Full fine-tuning for {epochs}"
        case "head":
            return f"Head only for {epochs}"
        case "staged":
            return f"Head {phases[0].epochs} + full fine-tune {epochs}"
        case "partial":
            return f"Last {last.num_groups} layer groups for {epochs}"
        case "gradual":
            return f"Gradual unfreezing for {epochs}"
        case "layerwise":
            return f"Layer-wise rates for {epochs}"
        case "scratch":
            return f"From scratch for {epochs}"
        case _:
            return " -> ".join(map(str, phases))
