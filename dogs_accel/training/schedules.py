"""How the learning rate, and with one_cycle the momentum, moves over a phase: torch's schedulers in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

SCHEDULES = ("cosine", "constant", "step", "one_cycle")
"""As CosineAnnealingLR to zero, none, StepLR and OneCycleLR of torch; the last one moves by steps, the others by
epochs."""

_DIV_FACTOR, _FINAL_DIV_FACTOR = 25.0, 1e4
_BASE_MOMENTUM, _MAX_MOMENTUM = 0.85, 0.95
"""Defaults of torch's OneCycleLR."""


def cosine_factor(epoch: int, num_epochs: int) -> float:
    """Share of a phase's learning rate that is left after `epoch` of `num_epochs`: a half cosine from 1 to 0.

    The closed form, whose values are those of the published histories to the last digit; torch's own scheduler
    multiplies its way there and may end one digit beside them.
    """
    return (1 + math.cos(math.pi * epoch / num_epochs)) / 2


def stepped_rate(peak: float, epoch: int, step_epochs: int, gamma: float) -> float:
    """Learning rate after `epoch` epochs, which is multiplied by gamma after every step_epochs of them.

    As torch's StepLR: one multiplication after the other, which rounds to other digits than a power would.
    """
    rate = peak
    for _ in range(epoch // step_epochs):
        rate *= gamma
    return rate


@dataclass(frozen=True)
class OneCycle:
    """The 1cycle policy (Smith and Topin, "Super-Convergence", 2017) as torch's OneCycleLR has it by default.

    The rate climbs from a 25th of its peak to the peak and falls to a 250,000th of it, both along half a cosine, while
    the momentum falls from 0.95 to 0.85 and climbs again. It is that of SGD, and beta1 of Adam and AdamW.
    """

    num_steps: int
    """Steps of the whole phase."""
    pct_start: float
    """Share of the steps in which the rate climbs."""

    def rate(self, peak: float, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        lowest = peak / _DIV_FACTOR
        climbs, share = self._place(step)
        return _annealed(lowest, peak, share) if climbs else _annealed(peak, lowest / _FINAL_DIV_FACTOR, share)

    def momentum(self, step: int) -> float:
        """Momentum of a step, counted from 0."""
        climbs, share = self._place(step)
        ends = (_MAX_MOMENTUM, _BASE_MOMENTUM) if climbs else (_BASE_MOMENTUM, _MAX_MOMENTUM)
        return _annealed(*ends, share)

    def _place(self, step: int) -> tuple[bool, float]:
        """Whether the rate climbs towards the peak in a step, and the share of that way or of the way down."""
        peak_step, last_step = self.pct_start * self.num_steps - 1, self.num_steps - 1
        if step <= peak_step:
            return True, step / peak_step if peak_step else 1.0
        return False, (step - peak_step) / (last_step - peak_step)


def _annealed(start: float, end: float, share: float) -> float:
    # In torch's order of operations, for the same digits.
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)
