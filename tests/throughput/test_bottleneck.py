import pytest
import torch

from dogs_accel.models.specs import model_spec
from dogs_accel.throughput.bottleneck import LoaderWithModel, describe_bottleneck, measure_with_model, training_step
from dogs_accel.throughput.candidates import Candidate, Workload
from pipelines import EVAL
from tests.support.standing_clock import StandingClock


def measured(end_to_end, wait, compute=1000.0, loader=2000.0):
    return LoaderWithModel(loader_rate=loader, compute_rate=compute, end_to_end_rate=end_to_end, wait_share=wait)


def test_a_gpu_that_waits_is_data_bound_and_a_loader_that_removes_it_is_named():
    found = {"torch": measured(450.0, 0.41), "dali": measured(700.0, 0.2), "cached": measured(950.0, 0.01)}
    assert describe_bottleneck(found, "torch", on_gpu=True) == (
        "data-bound: with `torch` the model waits 41 % of the step; `cached` removes it (end to end 2.1 x)"
    )


def test_a_loader_that_helps_and_does_not_suffice_leaves_a_share():
    found = {"torch": measured(300.0, 0.7), "dali": measured(600.0, 0.4)}
    assert describe_bottleneck(found, "torch", on_gpu=True) == (
        "data-bound: with `torch` the model waits 70 % of the step; `dali` leaves 40 % (end to end 2.0 x)"
    )


def test_where_no_other_loader_is_faster_it_says_so_and_what_there_is_to_gain():
    found = {"dali": measured(600.0, 0.5), "torch": measured(610.0, 0.49)}
    assert describe_bottleneck(found, "dali", on_gpu=True) == (
        "data-bound: with `dali` the model waits 50 % of the step; none of the other loaders measured changes that "
        "(no loader can gain more than 2.0 x)"
    )


def test_one_loader_alone_has_no_remedy():
    assert describe_bottleneck({"dali": measured(800.0, 0.2)}, "dali", on_gpu=True) == (
        "data-bound: with `dali` the model waits 20 % of the step; no loader can gain more than 1.2 x"
    )


def test_a_model_that_hardly_waits_is_compute_bound():
    found = {"torch": measured(960.0, 0.03), "cached": measured(1100.0, 0.0)}
    assert describe_bottleneck(found, "torch", on_gpu=True) == (
        "compute-bound: with `torch` loading takes 3 % of the step, a faster loader changes nothing"
    )


def test_on_a_cpu_the_cores_that_loading_takes_count_although_nobody_waits():
    found = {"torch": measured(600.0, 0.1), "cached": measured(980.0, 0.01)}
    assert describe_bottleneck(found, "torch", on_gpu=False) == (
        "data-bound: loading and computing share the cores of the CPU, and with `torch` loading costs 40 % of the step "
        "(10 % waiting, the rest cores that computing lacks); `cached` removes it (end to end 1.6 x)"
    )


def test_on_a_cpu_a_compute_bound_step_says_what_is_shared():
    assert describe_bottleneck({"cached": measured(970.0, 0.01)}, "cached", on_gpu=False) == (
        "compute-bound: with `cached` loading takes 3 % of the step, a faster loader changes nothing; on a CPU both "
        "share the cores, which this includes"
    )


def test_noise_that_makes_a_loader_free_is_no_negative_share():
    assert measured(1100.0, 0.0).loading_share == 0
    assert measured(750.0, 0.0).loading_share == 0.25


class SlowLoader:
    """Lets so many seconds pass on a clock for each batch."""

    def __init__(self, workload, clock, seconds):
        self.workload, self.clock, self.seconds, self.is_closed = workload, clock, seconds, False

    def __iter__(self):
        workload = self.workload
        for at in range(0, len(workload.paths), workload.batch_size):
            self.clock.wait(self.seconds)
            yield (torch.zeros(len(workload.paths[at : at + workload.batch_size]), 3, 8, 8),)

    def close(self):
        self.is_closed = True


def test_the_share_of_waiting_and_the_rates_are_those_of_the_clock():
    opened, clock = [], StandingClock()

    def slow(workload):
        opened.append(SlowLoader(workload, clock, 3.0))
        return opened[-1]

    workload = Workload(paths=("photo.jpg",) * 22, recipe=EVAL.at(8), batch_size=4, num_threads=1)
    candidates = [Candidate("slow", slow), Candidate("quick", lambda workload: SlowLoader(workload, clock, 0.5))]
    found = measure_with_model(candidates, workload, lambda images: clock.wait(1.0), rounds=2, clock=clock)
    # 22 images are 6 batches; the first two steps do not count, so the rates are of 14 images in 4 steps.
    assert found["slow"] == LoaderWithModel(
        loader_rate=pytest.approx(22 / 18), compute_rate=4.0, end_to_end_rate=14 / 16, wait_share=0.75
    )
    assert found["quick"] == LoaderWithModel(
        loader_rate=pytest.approx(22 / 3),
        compute_rate=4.0,
        end_to_end_rate=pytest.approx(14 / 6),
        wait_share=pytest.approx(1 / 3),
    )
    assert [loader.is_closed for loader in opened] == [True]


def test_an_epoch_of_two_steps_is_too_short():
    workload = Workload(paths=("photo.jpg",) * 8, recipe=EVAL.at(8), batch_size=4, num_threads=1)
    with pytest.raises(ValueError, match=r"num_images: got 8, expected more than 8, 2 batches of 4"):
        measure_with_model([], workload, lambda images: None)


def test_the_step_changes_the_weights():
    kept = []
    original = torch.optim.AdamW.step

    def step_and_look(self, *args):
        kept.append(self.param_groups[0]["params"][0].detach().clone())
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step_and_look)
        step = training_step(model_spec("resnet18", 32), "cpu")
        step(torch.randn(2, 3, 32, 32))
        step(torch.randn(2, 3, 32, 32))
    assert len(kept) == 2
    assert not torch.equal(kept[0], kept[1])
