"""What a loader must hold to count as the same as the reference."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch

REFERENCE = "torch"
"""The backend that every other one is held to: torchvision's transforms on PIL images."""
MAX_LEVELS = 256
"""Differences from here on, and values that are no numbers, count as this."""
_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">=": operator.ge,
}
_MEASURES = {
    "mean": ("mean", " levels"),
    "p999": ("99.9th percentile", " levels"),
    "max": ("largest", " levels"),
    "share_differing": ("share of values that differ", ""),
    "top1_agreement": ("share of photos with the same top-1", ""),
}
"""For people: the name of a measure and its unit."""


@dataclass(frozen=True)
class Limit:
    """One number that a loader is held to."""

    measure: str
    relation: str
    value: float

    def holds(self, measured: float) -> bool:
        """Whether a measured value keeps to the limit; what is no number does not."""
        return _RELATIONS[self.relation](measured, self.value)

    def describe(self, measured: float) -> str:
        """Say what was measured and what was expected."""
        name, unit = _MEASURES[self.measure]
        return f"{name} is {measured:.4g}{unit}, expected {self.relation} {self.value:g}"

    def __str__(self) -> str:
        name, _ = _MEASURES[self.measure]
        return f"{name} {self.relation} {self.value:g}"


@dataclass(frozen=True)
class Gate:
    """The limits of one way in which pixels come about."""

    name: str
    limits: tuple[Limit, ...]

    def __str__(self) -> str:
        return f"{self.name}: {', '.join(map(str, self.limits))}"


EXACT = Gate("exact", (Limit("max", "<=", 1), Limit("share_differing", "<", 1e-4)))
"""The reference's 8-bit arithmetic: equal bytes, but for single levels that are rarer than 1 in 10,000."""
DECODED_BY_GPU = Gate("decoded by a GPU", (Limit("mean", "<", 1), Limit("p999", "<", 8)))
"""Another JPEG decoder, whose pixels are not PIL's to begin with."""
SAME_TOP1 = Limit("top1_agreement", ">=", 0.995)
"""What every loader is held to where a real model looks."""


def gate_for(backend: str, device: torch.device) -> Gate:
    """Pick the gate of a backend on a device: exact, but where a GPU decodes."""
    return DECODED_BY_GPU if backend == "dali" and device.type == "cuda" else EXACT
