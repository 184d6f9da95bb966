"""Sweeps whose trials nobody trained: a space, parameters drawn from it, and values of a made objective."""

import itertools

import numpy as np
import pandas as pd

from dogs_accel.sweep.findings.trials import SweepTrials
from dogs_accel.sweep.space import Parameter, Space
from dogs_accel.sweep.trials import COMPLETE


def choice(name, choices):
    return Parameter(name=name, kind="choice", choices=choices)


DOCUMENT = (
    choice(name="activation", choices=("relu", "gelu", "silu", "mish", "leaky_relu")),
    choice(name="organisation", choices=("same", "double", "half")),
    choice(name="base", choices=(32, 64)),
    choice(name="dense", choices=(128, 256)),
    choice(name="batch_norm", choices=(True, False)),
    choice(name="dropout", choices=(0.2, 0.3)),
    choice(name="augmentation", choices=(True, False)),
    choice(name="batch_size", choices=(32, 64)),
)
"""The space of the published sweep: 960 points."""
SMALL = (
    choice(name="activation", choices=("relu", "gelu", "mish")),
    choice(name="batch_norm", choices=(True, False)),
    Parameter(name="lr", kind="float", low=1e-4, high=1e-1, log=True),
)


def drawn(space, num, seed=0):
    """Parameters of trials, each drawn by itself."""
    random = np.random.default_rng(seed)
    columns = {}
    for parameter in space:
        if parameter.kind == "choice":
            columns[parameter.name] = [
                parameter.choices[at] for at in random.integers(len(parameter.choices), size=num)
            ]
        elif parameter.log:
            columns[parameter.name] = np.exp(random.uniform(np.log(parameter.low), np.log(parameter.high), num))
        else:
            columns[parameter.name] = random.uniform(parameter.low, parameter.high, num)
    return pd.DataFrame(columns)


def balanced(space, times=1):
    """Every point of a space of choices, so often."""
    points = list(itertools.product(*(parameter.choices for parameter in space)))
    return pd.DataFrame(points * times, columns=[parameter.name for parameter in space])


def made_trials(space, parameters, values, *, state=COMPLETE, epochs=3, num_val=2000, sampler="random"):
    """The trials of these parameters, with the values of an objective; a value that is NaN is of no trial."""
    num = len(parameters)
    own = pd.DataFrame(
        {
            "number": range(num),
            "state": state,
            "run": [f"trials/{number:04}" for number in range(num)],
            "started": [f"2026-01-01T00:{number // 60:02}:{number % 60:02}" for number in range(num)],
            "seconds": 12.0,
            "overhead_seconds": 0.5,
            "epochs": epochs,
            "value": np.clip(values, 0, 1),
            "num_val": num_val,
            "seed": range(num),
        }
    )
    # As read_trials gives them: values of Python.
    columns = {name: pd.Series(parameters[name].tolist(), dtype=object) for name in parameters}
    table = own.assign(**columns)
    return SweepTrials(space=Space(tuple(space)), table=table, sampler=sampler)
