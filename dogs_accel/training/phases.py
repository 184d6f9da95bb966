"""Training schedules as data: a strategy is a list of phases."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dogs_accel.models import DEFAULT_FAMILY, MODES
from dogs_accel.runtime.arguments import did_you_mean

MIXES = ("none", "mixup", "cutmix", "mixup_or_cutmix")
_OF_MIXES = {"mixup_alpha": (MIXES[1], MIXES[3]), "cutmix_alpha": MIXES[2:], "mix_probability": MIXES[1:]}
"""What of mixing says something beside which kinds of it."""
_PUBLISHED_KEYS = ("name", "mode", "epochs", "lr", "weight_decay")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Some epochs with one learning rate; each phase starts a fresh AdamW and a cosine to zero.

    Everything from warmup_epochs on is off in the published strategies.
    """

    name: str
    mode: str
    """head_only trains the classifier on a frozen backbone, full_finetune everything."""
    epochs: int
    lr: float
    weight_decay: float = 1e-4
    warmup_epochs: int = 0
    """Epochs in which the learning rate climbs from 0; the cosine goes over the rest."""
    layer_decay: float = 1.0
    """Each layer group learns at this share of the learning rate of the group above it, the head at lr itself."""
    unfreeze_every: int = 0
    """Epochs between two unfreezings, which start with the head alone; 0 trains everything at once."""
    patience: int = 0
    """Epochs in a row without a gain of validation accuracy that end the phase; 0 never does."""
    min_delta: float = 0.0
    """A gain of validation accuracy, a share of 1, counts where it is larger than this."""
    mix: str = "none"
    """What training images are made of: none (each is itself), mixup, cutmix, or mixup_or_cutmix, either by chance."""
    mixup_alpha: float = 0.2
    """Of Beta(alpha, alpha), from which mixup draws the share of each image's own label."""
    cutmix_alpha: float = 1.0
    """The same of CutMix."""
    mix_probability: float = 1.0
    """Share of the steps that mix."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode: got {self.mode!r}, expected one of {', '.join(MODES)}")
        for name in ("epochs", "warmup_epochs", "unfreeze_every", "patience"):
            if not isinstance(getattr(self, name), int):
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected an integer")
        if self.epochs < 1:
            raise ValueError(f"epochs: got {self.epochs}, expected an integer >= 1")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr: got {self.lr}, expected a number > 0")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay: got {self.weight_decay}, expected a number >= 0")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"warmup_epochs: got {self.warmup_epochs} for a phase of {self.epochs}, "
                f"expected an integer from 0 to {self.epochs - 1}"
            )
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay: got {self.layer_decay}, expected a number > 0 and <= 1")
        if self.unfreeze_every < 0:
            raise ValueError(f"unfreeze_every: got {self.unfreeze_every}, expected an integer >= 0")
        if self.unfreeze_every and self.mode != "full_finetune":
            raise ValueError(f"unfreeze_every: got {self.unfreeze_every} with mode {self.mode}, expected 0")
        if self.patience < 0:
            raise ValueError(f"patience: got {self.patience}, expected an integer >= 0")
        if not self.min_delta >= 0:
            raise ValueError(f"min_delta: got {self.min_delta}, expected a number >= 0")
        if self.mix not in MIXES:
            near = did_you_mean(str(self.mix), MIXES)
            raise ValueError(f"mix: got {self.mix!r}, expected one of {', '.join(MIXES)}{near}")
        for name in ("mixup_alpha", "cutmix_alpha"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected a number > 0")
        if not 0 < self.mix_probability <= 1:
            raise ValueError(f"mix_probability: got {self.mix_probability}, expected a number > 0 and <= 1")
        for name, kinds in _OF_MIXES.items():
            value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
            if value != default and self.mix not in kinds:
                raise ValueError(f"{name}: got {value:g} with mix {self.mix}, expected mix {' or '.join(kinds)}")

    def __str__(self) -> str:
        """Name, epochs, learning rate and what else is not as published: "head_only(3, 0.001, patience=2)"."""
        values = [f"{self.epochs}", f"{self.lr:g}"]
        values += [
            f"{field.name}={_shown(getattr(self, field.name))}"
            for field in dataclasses.fields(self)
            if field.default is not dataclasses.MISSING and self._is_set(field)
        ]
        return f"{self.name}({', '.join(values)})"

    def as_dict(self) -> dict[str, Any]:
        """The published keys, and of the other fields those that are not at their default."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name in _PUBLISHED_KEYS or self._is_set(field)
        }

    def _is_set(self, field: dataclasses.Field[Any]) -> bool:
        return getattr(self, field.name) != field.default

    def lr_factor(self, epochs_done: float) -> float:
        """Share of lr at a moment of the phase, in epochs since its start, from 0 to `epochs`.

        It climbs in a line, step by step, to 1 at warmup_epochs, and then falls epoch by epoch as cosine_factor does
        over the epochs that are left.
        """
        if epochs_done < self.warmup_epochs:
            return epochs_done / self.warmup_epochs
        return cosine_factor(math.floor(epochs_done) - self.warmup_epochs, self.epochs - self.warmup_epochs)

    def num_trainable_groups(self, epoch: int, num_groups: int) -> int:
        """How many of a model's layer groups, counted from the head, train in an epoch (counted from 0)."""
        if self.mode == "head_only":
            return 1
        if not self.unfreeze_every:
            return num_groups
        return min(num_groups, 1 + epoch // self.unfreeze_every)

    def stops_after(self, val_accuracies: Sequence[float]) -> bool:
        """Whether the phase ends early, given the validation accuracy of each of its epochs so far.

        As in Keras and Lightning, an epoch gains when it is more than min_delta above the epoch that gained last
        (the first always gains), so that small steps add up; the phase ends with the `patience`-th epoch in a row
        that does not. Epochs of warm-up and before an unfreezing count like any other.
        """
        best, num_without_gain = -math.inf, 0
        for accuracy in val_accuracies:
            if accuracy - self.min_delta > best:
                best, num_without_gain = accuracy, 0
            else:
                num_without_gain += 1
        return 0 < self.patience <= num_without_gain


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"


STRATEGIES: dict[str, tuple[tuple[str, int], ...]] = {
    "full": (("full_finetune", 12),),
    "staged": (("head_only", 3), ("full_finetune", 8)),
    "head": (("head_only", 3),),
}
"""(mode, epochs) of each phase; `full` and `staged` are the published two."""

PUBLISHED_LR = {"head_only": {"cnn": 1e-3, "vit": 1e-3}, "full_finetune": {"cnn": 1e-4, "vit": 3e-5}}
"""Learning rate of each mode and family in the published runs; other families have the default one's."""


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
        raise ValueError(f"strategies: got {strategy!r}, expected one of {', '.join(STRATEGIES)}")
    plan = STRATEGIES[strategy]
    if epochs is None:
        epochs = [published for _, published in plan]
    elif len(epochs) == 1:
        epochs = list(epochs) * len(plan)
    if len(epochs) != len(plan):
        expected = "1" if len(plan) == 1 else f"1 or {len(plan)}, one a phase"
        raise ValueError(
            f"epochs: got {'+'.join(map(str, epochs))} for {strategy!r}, expected {expected}; "
            "one strategy alone is set by its name, as in staged=1+3"
        )
    return [
        Phase(name=mode, mode=mode, epochs=count, lr=lr[mode].get(family, lr[mode][DEFAULT_FAMILY]))
        for (mode, _), count in zip(plan, epochs, strict=True)
    ]


def cosine_factor(epoch: int, num_epochs: int) -> float:
    """Share of a phase's learning rate that is left after `epoch` of `num_epochs`: a half cosine from 1 to 0.

    The closed form, whose values are those of the published histories to the last digit; torch's own scheduler
    multiplies its way there and may end one digit beside them.
    """
    return (1 + math.cos(math.pi * epoch / num_epochs)) / 2


def strategy_label(phases: Sequence[Phase]) -> str:
    """Name a list of phases as the published tables do, such as "Head 3 + full fine-tune 8 epochs"."""
    if any(phase.as_dict().keys() - set(_PUBLISHED_KEYS) for phase in phases):
        return " -> ".join(map(str, phases))
    last = phases[-1].epochs
    epochs = f"{last} epoch{'s' * (last != 1)}"
    match [phase.mode for phase in phases]:
        case ["full_finetune"]:
            return f"Full fine-tuning for {epochs}"
        case ["head_only"]:
            return f"Head only for {epochs}"
        case ["head_only", "full_finetune"]:
            return f"Head {phases[0].epochs} + full fine-tune {epochs}"
        case _:
            return " -> ".join(map(str, phases))
