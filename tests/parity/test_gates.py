import pytest
import torch

from dogs_accel.parity.gates import DECODED_BY_GPU, EXACT, gate_for
from dogs_accel.parity.measure import Parity
from tests.support.altered_loaders import RESAMPLED


def test_each_way_of_making_pixels_has_its_gate():
    for device in ("cpu", "cuda:0"):
        assert gate_for("cached", torch.device(device)) == EXACT
    assert gate_for("dali", torch.device("cpu")) == EXACT
    assert gate_for("dali", torch.device("cuda:0")) == DECODED_BY_GPU


@pytest.mark.parametrize(
    ("gate", "numbers", "passes"),
    [
        (EXACT, {"max": 1, "share_differing": 0.00009}, True),
        (EXACT, {"max": 1, "share_differing": 0.0001}, False),
        (EXACT, {"max": 2, "share_differing": 0.00001}, False),
        (RESAMPLED, {"p999": 3, "max": 250, "share_differing": 0.3}, True),
        (RESAMPLED, {"p999": 3.015625}, False),
        (DECODED_BY_GPU, {"mean": 0.99, "p999": 7}, True),
        (DECODED_BY_GPU, {"mean": 1, "p999": 7}, False),
        (DECODED_BY_GPU, {"mean": 0.5, "p999": 8}, False),
        (DECODED_BY_GPU, {"mean": float("nan"), "p999": 1}, False),
    ],
)
def test_the_limits_of_the_gates(gate, numbers, passes):
    assert measured(gate=gate, **numbers).passes is passes


def measured(**numbers):
    numbers = {"mean": 0, "p999": 0, "max": 0, "share_differing": 0, "worst": (), "gate": EXACT} | numbers
    return Parity(loader="x", recipe="eval", device="cpu", seed=0, epoch=0, num_images=1, **numbers)
