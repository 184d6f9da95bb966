"""How points are drawn: Optuna's samplers, with draws that depend on the seed and the trial's number alone.

A sampler of Optuna draws from one generator for the length of a process, so that a sweep that goes on in another one
would begin its draws again. Here every trial has a generator of its own: what it gets follows from the seed, its number
and the trials before it, whoever draws it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from dogs_accel.sweep.settings import SweepConfig
from dogs_accel.sweep.space import Parameter, Point, Space, value_text

STARTUP_TRIALS = 10
"""Trials that bayes draws at random before it draws by what they have shown."""


def distribution_of(parameter: Parameter) -> BaseDistribution:
    """Say a parameter in Optuna's words."""
    if parameter.kind == "choice":
        return CategoricalDistribution(parameter.choices)
    assert parameter.low is not None
    assert parameter.high is not None
    if parameter.kind == "int":
        step = int(parameter.step or 1)
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log, step=step)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


def make_sampler(sweep: SweepConfig) -> BaseSampler:
    """Make the sampler of a sweep."""
    if sweep.sampler == "grid":
        return ShuffledGridSampler(sweep.space, sweep.seed)
    if sweep.sampler == "random":
        return SamplerByNumber(lambda seed: RandomSampler(seed=seed), sweep.seed)
    # Jointly, since activation, width and dropout of one network depend on each other.
    return SamplerByNumber(
        lambda seed: TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, constant_liar=True),
        sweep.seed,
    )


class SamplerByNumber(BaseSampler):
    """Gives each trial a sampler of its own, seeded by the seed of the sweep and the trial's number."""

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed
        self._of_number: tuple[int, BaseSampler] | None = None
        self._drawn: set[str] = set()

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if self._of_number is None or self._of_number[0] != trial.number:
            seed = int(np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0])
            self._of_number, self._drawn = (trial.number, self._make(seed)), set()
        return self._of_number[1]

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Pass on what Optuna says before a trial."""
        self._of(trial).before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Ask the trial's sampler which parameters it draws together."""
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw those."""
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw another one.

        What a process that was killed has drawn of the trial is drawn again first, so that this one is what would have
        followed there.
        """
        sampler = self._of(trial)
        for name, distribution in trial.distributions.items():
            if name not in self._drawn and not distribution.single():
                sampler.sample_independent(study, trial, name, distribution)
            self._drawn.add(name)
        self._drawn.add(param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Pass on what Optuna says after a trial."""
        self._of(trial).after_trial(study, trial, state, values)


class ShuffledGridSampler(BaseSampler):
    """Gives each trial the first point of a random order of all points that no other trial has.

    Trials are given out one at a time, however many workers there are; and what a budget leaves of a grid is a random
    part.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._order = space, np.random.default_rng(seed).permutation(space.num_points or 0)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Draw nothing together."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw nothing together."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Give the value of the trial's point; where all are taken, of that of its number."""
        point = self.free_point(study.get_trials(deepcopy=False), trial)
        if point is None:
            point = self._space.point(int(self._order[trial.number % len(self._order)]))
        return point[param_name]

    def free_point(self, trials: Sequence[FrozenTrial], trial: FrozenTrial | None = None) -> Point | None:
        """Give the first point that no trial but `trial` has, with the values that it has already; None of none."""
        taken = {self._key(each.params) for each in trials if trial is None or each.number != trial.number}
        known = self._space.snapped({} if trial is None else trial.params)
        for number in self._order:
            point = self._space.point(int(number))
            if self._key(point) not in taken and known.items() <= point.items():
                return point
        return None

    def _key(self, point: Point) -> tuple[tuple[str, str], ...]:
        return tuple((name, value_text(value)) for name, value in self._space.snapped(point).items())
