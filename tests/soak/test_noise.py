"""Sweeps whose accuracies are noise: how many of them are said to show something."""

from __future__ import annotations

import numpy as np
import optuna
import pandas as pd
import pytest

from dogs_accel.sweep.engine.samplers import distribution_of, make_sampler
from dogs_accel.sweep.findings.levels import HIGHER, LOWER, LevelFinding, find_levels
from dogs_accel.sweep.settings import SweepConfig
from dogs_accel.sweep.space import Space
from tests.support.made_sweeps import DOCUMENT, made_trials
from tests.support.soaking import repetitions

pytestmark = pytest.mark.soak

NUM_TRIALS = 30


def of_noise(seed: int) -> list[LevelFinding]:
    """What a sweep says of levels, none of which does anything."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sweep = SweepConfig(settings={}, space=Space(DOCUMENT), sampler="bayes", seed=seed)
    study = optuna.create_study(direction="maximize", sampler=make_sampler(sweep))
    distributions = {parameter.name: distribution_of(parameter) for parameter in DOCUMENT}
    values = np.random.default_rng(seed).normal(0.4, 0.02, NUM_TRIALS)
    for value in values:
        study.tell(study.ask(distributions), value)
    parameters = pd.DataFrame([trial.params for trial in study.trials])
    return find_levels(made_trials(DOCUMENT, parameters, values, sampler="bayes"), 1999)


def test_noise_shows_something_in_fewer_than_one_sweep_of_twenty() -> None:
    num = repetitions(300)
    found = [of_noise(seed) for seed in range(num)]
    shown = sum(any(each.verdict in (HIGHER, LOWER) for each in levels) for levels in found)
    apart = sum(any(each.difference_low > 0 or each.difference_high < 0 for each in levels) for levels in found)
    print(f"\nnoise: {shown} of {num} sweeps show something; in {apart} some level's own interval excludes 0")
    assert shown <= num / 20
    # Without the rules most would.
    assert apart > num / 3
