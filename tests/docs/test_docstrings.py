"""The promised names: each says its arguments, results and errors, and has an example that runs.

An example knows what a reader has at hand: `root`, a folder of 3 class folders with 20 pictures each; `dataset`, what
open_dataset makes of it; its `paths` and `labels`; and `logits` of a model on them.
"""

import doctest
import inspect

import pytest
import torch

import pipelines
from dogs_accel import calibration, ops
from dogs_accel.datasets import Dataset, open_dataset
from pipelines import Batch, Loader, Recipe, make_loader

OPERATORS = [
    function for name, function in vars(ops).items()
    if inspect.isfunction(function) and function.__module__ == ops.__name__ and not name.startswith("_")
]  # fmt: skip
PROMISED = [
    open_dataset, Dataset.split, make_loader, Recipe, Recipe.at, Batch, Loader.set_epoch, Loader.close, *OPERATORS,
    calibration.calibration_bins, calibration.expected_calibration_error, calibration.fit_temperature,
]  # fmt: skip
NO_EXAMPLE = {Recipe.at}  # its class has it


def names_of(things):
    return [thing.__qualname__ for thing in things]


@pytest.mark.parametrize("promised", PROMISED, ids=names_of(PROMISED))
def test_says_what_it_takes_gives_and_raises(promised):
    said = inspect.getdoc(promised)
    if inspect.isfunction(promised):
        signature = inspect.signature(promised)
        parameters = [name for name in signature.parameters if name != "self"]
        arguments = said.partition("Args:\n")[2]
        assert [name for name in parameters if f"\n    {name}: " not in f"\n{arguments}"] == []
        assert ("Returns:\n" in said) == (signature.return_annotation not in ("None", "Recipe"))
    assert "Example:\n" in said or promised in NO_EXAMPLE


@pytest.fixture(scope="module")
def at_hand(flowers):
    dataset = open_dataset(flowers)
    labels = torch.from_numpy(dataset.labels)
    logits = 2 * torch.nn.functional.one_hot(labels).float()
    logits += torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    return {"root": flowers, "dataset": dataset, "paths": dataset.paths, "labels": labels, "logits": logits}


EXAMPLES = [thing for thing in dict.fromkeys(PROMISED) if thing not in NO_EXAMPLE]


@pytest.mark.parametrize("promised", EXAMPLES, ids=names_of(EXAMPLES))
def test_its_example_runs(promised, at_hand):
    example = doctest.DocTestParser().get_doctest(
        inspect.getdoc(promised), dict(at_hand), promised.__qualname__, None, None
    )
    assert example.examples
    said = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert "".join(said) == ""


def test_the_package_gives_what_it_lists():
    assert all(hasattr(pipelines, name) for name in pipelines.__all__)
