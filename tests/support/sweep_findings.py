"""What a report of a sweep says of made trials, without a folder."""

import numpy as np

from dogs_accel.sweep.findings.importance import Importance, find_correlations
from dogs_accel.sweep.findings.levels import find_levels
from dogs_accel.sweep.findings.page import SweepFindings
from dogs_accel.sweep.findings.selection import selection_bias
from dogs_accel.sweep.findings.sentences import write_sentences
from dogs_accel.sweep.space import Parameter
from dogs_accel.sweep.trials import COMPLETE, FAILED, PRUNED
from tests.support.made_sweeps import choice, drawn, made_trials

SPACE = (
    choice("activation", ("relu", "gelu", "<script>document.title='broken'</script>")),
    choice("batch_norm", (True, False)),
    Parameter(name="lr", kind="float", low=1e-4, high=1e-1, log=True),
)


def made_findings(num=30, **others):
    parameters = drawn(SPACE, num)
    states = np.array([COMPLETE] * (num - 6) + [PRUNED] * 5 + [FAILED])
    values = np.random.default_rng(0).normal(0.4, 0.01, num) + 0.04 * parameters["batch_norm"]
    values[states == FAILED] = np.nan
    trials = made_trials(SPACE, parameters, values, state=states, sampler="bayes")
    levels = find_levels(trials, 499)
    # A forest takes a second, which the layout does not need.
    importance = [
        Importance(parameter=name, share=share, low=share - 0.1, high=share + 0.05, of_noise=0.3)
        for name, share in (("batch_norm", 0.7), ("lr", 0.2), ("activation", 0.1))
    ]
    bias = selection_bias(trials.values, 2000, num_pruned=trials.num_pruned)
    return SweepFindings(
        trials=trials,
        levels=levels,
        importance=importance,
        correlations=find_correlations(trials, 200),
        bias=bias,
        sentences=write_sentences(trials, levels, importance, bias),
        title="A sweep of cnn5 on <flowers>",
        **others,
    )
