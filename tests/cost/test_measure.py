"""Latencies by a clock that stands still, and memory by hand."""

import pytest
import torch
from torch import nn

from dogs_accel.cost import measure
from dogs_accel.cost.measure import MeasuredModel, measure_costs
from dogs_accel.cost.model_cost import Latency
from dogs_accel.models.specs import model_spec
from tests.support.standing_clock import StandingClock

CPU = torch.device("cpu")
SPEC = model_spec("resnet18", 8)


class Slow(nn.Module):
    """Takes so long for each image, and a second at its first two calls of a batch size."""

    def __init__(self, clock, seconds, order):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)
        self.clock, self.seconds, self.order, self.calls = clock, iter(seconds), order, {}

    def forward(self, images):
        calls = self.calls[len(images)] = self.calls.get(len(images), 0) + 1
        self.order.append((self, len(images)))
        assert torch.is_inference_mode_enabled()
        self.clock.wait(1.0 if calls < 3 else len(images) * next(self.seconds))
        return self.layer(images)


@pytest.fixture
def slow(monkeypatch):
    """Two models to be measured, their clock, and the order of their calls."""
    monkeypatch.setattr(measure, "count_macs", lambda spec, num_classes: 7)
    clock, order = StandingClock(), []
    seconds = {"a": (0.5, 0.3, 0.1, 0.9, 0.7, 0.2, 0.4), "b": (0.25,) * 7}
    made = [Slow(clock, (*values, *values, 0.0), order) for values in seconds.values()]
    return [MeasuredModel(spec=SPEC, model=model.eval(), num_classes=9) for model in made], clock, order


def test_latencies_are_medians_after_a_warm_up_of_models_in_turns(slow):
    models, clock, order = slow
    costs = measure_costs(models, device=CPU, batch_size=4, rounds=7, clock=clock)
    # Of seven the lowest and the highest are the 95 % interval.
    assert [cost.one_image_ms for cost in costs] == [
        Latency(median=pytest.approx(400), low=pytest.approx(100), high=pytest.approx(900), rounds=7),
        Latency(median=pytest.approx(250), low=pytest.approx(250), high=pytest.approx(250), rounds=7),
    ]
    assert [cost.batch_ms.median for cost in costs] == pytest.approx([1600, 1000])
    assert [cost.images_per_second for cost in costs] == pytest.approx([2.5, 4.0])
    # One image: two rounds that do not count and seven; the same with a batch, and once more for the memory.
    a, b = (measured.model for measured in models)
    assert order == [(a, 1), (b, 1)] * 9 + [(a, 4), (b, 4)] * 9 + [(a, 4), (b, 4)]


def test_rounds_fit_into_the_time_within_bounds(slow):
    models, clock, _ = slow
    [cost] = measure_costs(models[:1], device=CPU, batch_size=4, seconds=0.5, clock=clock)
    assert cost.one_image_ms.rounds == cost.batch_ms.rounds == 7  # of which one takes a second
    assert [measure._num_rounds(0.1, seconds) for seconds in (0.0, 0.5, 2.05, 1e9)] == [7, 7, 20, 100]
    assert measure._num_rounds(0.0, 2.0) == 100


def test_the_setting_says_what_was_measured_and_where(slow):
    models, clock, _ = slow
    [cost] = measure_costs(models[:1], device=CPU, batch_size=4, rounds=7, clock=clock, amp=torch.bfloat16)
    setting = cost.setting
    assert (setting.model, setting.image_size, setting.num_classes, setting.batch_size) == ("resnet18", 8, 9, 4)
    assert (setting.device, setting.precision) == ("cpu", "bfloat16 autocast")
    assert (setting.num_threads, setting.torch) == (torch.get_num_threads(), torch.__version__)
    assert (cost.parameters, cost.buffer_bytes, cost.macs) == (16, 0, 7)


def test_peak_memory_by_hand(monkeypatch):
    """What is alive at once: weights, the batch, and the two largest activations, one made of the other."""
    monkeypatch.setattr(measure, "count_macs", lambda spec, num_classes: 0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3000), nn.ReLU(), nn.Linear(3000, 100), nn.BatchNorm1d(100))
    measured = MeasuredModel(spec=SPEC, model=model.eval(), num_classes=100)
    [cost] = measure_costs([measured], device=CPU, batch_size=5, rounds=1)
    weights = 192 * 3000 + 3000 + 3000 * 100 + 100 + 4 * 100
    # BatchNorm counts its batches in an int64.
    assert cost.peak_memory_bytes == 4 * (weights + 5 * 192 + 2 * 5 * 3000) + 8
    assert cost.buffer_bytes == 4 * 200 + 8


def test_the_state_of_the_generators_stays(slow):
    models, clock, _ = slow
    before = torch.get_rng_state()
    measure_costs(models, device=CPU, batch_size=4, rounds=7, clock=clock)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
def test_peak_memory_of_a_gpu_is_what_it_allocates_and_nothing_of_others(monkeypatch):
    monkeypatch.setattr(measure, "count_macs", lambda spec, num_classes: 0)
    device = torch.device("cuda", 0)
    others = torch.zeros(10_000_000, device=device)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3000), nn.ReLU(), nn.Linear(3000, 100)).to(device).eval()
    measured = MeasuredModel(spec=SPEC, model=model, num_classes=100)
    [cost] = measure_costs([measured], device=device, batch_size=512, rounds=7)
    activations = 4 * 512 * (192 + 192 + 2 * 3000)
    weights = 4 * (192 * 3000 + 3000 + 3000 * 100 + 100)
    assert weights + activations <= cost.peak_memory_bytes < weights + activations + 2_000_000
    assert others.nbytes == 40_000_000
    assert 0 < cost.one_image_ms.low <= cost.one_image_ms.median < cost.batch_ms.high < 1000
