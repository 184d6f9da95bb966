"""What a run of the benchmark imports, also late: for processes that are forked from one that has it all."""

import scipy.io  # noqa: F401
import sklearn.metrics
import sklearn.model_selection  # noqa: F401
import timm  # noqa: F401
import wandb  # noqa: F401

import pipelines.cached
import pipelines.dali  # noqa: F401
