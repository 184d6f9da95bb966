"""Training schedules as data: a strategy is a list of phases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MODES = ("head_only", "full_finetune")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Some epochs with one learning rate; each phase starts a fresh AdamW and a cosine to zero."""

    name: str
    mode: str
    """head_only trains the classifier on a frozen backbone, full_finetune everything."""
    epochs: int
    lr: float
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode: got {self.mode!r}, expected one of {', '.join(MODES)}")
        if self.epochs < 1:
            raise ValueError(f"epochs: got {self.epochs}, expected an integer >= 1")
        if self.lr <= 0:
            raise ValueError(f"lr: got {self.lr}, expected a number > 0")

    def __str__(self) -> str:
        return f"{self.name}({self.epochs}, {self.lr:g})"


STRATEGIES: dict[str, tuple[tuple[str, int], ...]] = {
    "full": (("full_finetune", 12),),
    "staged": (("head_only", 3), ("full_finetune", 8)),
    "head": (("head_only", 3),),
}
"""(mode, epochs) of each phase; `full` and `staged` are the published two."""

PUBLISHED_LR = {"head_only": {"cnn": 1e-3, "vit": 1e-3}, "full_finetune": {"cnn": 1e-4, "vit": 3e-5}}
"""Learning rate of each mode and model family in the published runs."""


def strategy_phases(
    strategy: str,
    family: str,
    lr: Mapping[str, Mapping[str, float]] = PUBLISHED_LR,
    epochs: Sequence[int] | None = None,
) -> list[Phase]:
    """Phases of a strategy for a model family ("cnn" or "vit").

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
        Phase(name=mode, mode=mode, epochs=count, lr=lr[mode][family])
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
