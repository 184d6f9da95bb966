"""A batch that does not fit: what is said of it, that it was tried, and that nothing is held meanwhile."""

import resource
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn

from dogs_accel import ops
from dogs_accel.evaluation.predictions import predict
from dogs_accel.runtime import memory, out_of_memory
from dogs_accel.runtime.out_of_memory import (
    BatchTooLargeError,
    Demand,
    describe_out_of_memory,
    is_out_of_memory,
    within_memory,
)
from dogs_accel.training import trainer as trainer_module
from dogs_accel.training.phases import Phase
from dogs_accel.training.step import StepSettings
from dogs_accel.training.trainer import Trainer
from pipelines import EVAL, make_loader
from tests.support.limited_memory import failing

CPU = torch.device("cpu")
DEMAND = Demand(work="the training of x", num_images=100, image_size_px=224, device=CPU, flag="--batch-size")
MEMORY = r"do not fit the memory of this machine \(\d+ GiB\) in the"
FULL = [Phase(name="full_finetune", mode="full_finetune", epochs=1, lr=1e-3)]
HEAD = [Phase(name="head_only", mode="head_only", epochs=1, lr=1e-3)]


def room_for(most, tried=None):
    """Take a step of up to so many images."""

    def take_step(num_images):
        if tried is not None:
            tried.append(num_images)
        if num_images > most:
            failing()

    return take_step


@pytest.mark.parametrize(("most", "fitting", "tries"), [(60, 50, 1), (49, 25, 2), (25, 25, 2), (3, 3, 5), (1, 1, 6)])
def test_the_first_half_that_fits_is_named_and_nothing_below_it_is_tried(most, fitting, tries):
    tried = []
    with pytest.raises(
        BatchTooLargeError, match=rf"^batch_size: 100 images of 224 px {MEMORY} training of x; "
    ) as error:
        within_memory(failing, DEMAND, room_for(most, tried))
    assert str(error.value).endswith(f"; --batch-size {fitting} does")
    assert tried == [50, 25, 12, 6, 3, 1][:tries]


def test_where_none_fits_it_says_so():
    for least, words in ((1, "not even 1 does"), (2, "not even 2 do")):
        demand = Demand(work="x", num_images=64, image_size_px=32, device=CPU, flag="--eval-batch-size", least=least)
        tried = []
        with pytest.raises(BatchTooLargeError, match=f"^eval_batch_size: 64 images of 32 px .*; {words}$"):
            within_memory(failing, demand, room_for(0, tried))
        assert tried[-1] == least


def test_a_batch_that_no_flag_sets_is_named_without_one():
    demand = Demand(work="x", num_images=8, image_size_px=32, device=CPU, flag=None)
    with pytest.raises(BatchTooLargeError, match=r"^batch_size: 8 images of 32 px .*; 4 would$"):
        within_memory(failing, demand, room_for(5))


@pytest.mark.fault(
    "Machine and environment", "a batch of which the images alone are more than the memory of a CPU",
    "refused before it is tried; the process is not ended by the system",
)  # fmt: skip
def test_what_a_system_would_promise_and_not_give_is_refused(monkeypatch):
    image_bytes = 3 * 4 * 224**2
    monkeypatch.setattr(memory, "available_bytes", lambda: 400 << 20)
    monkeypatch.setattr(out_of_memory, "obtainable_bytes", lambda: 60 * image_bytes)
    before = resource.getrlimit(resource.RLIMIT_AS)
    tried = []

    def take_step(num_images):
        tried.append(num_images)
        if num_images > 30:
            torch.empty(1 << 30, dtype=torch.uint8)  # of which nothing is touched, so that nothing is taken

    with pytest.raises(BatchTooLargeError, match=r"--batch-size 25 does$"):
        within_memory(lambda: tried.append("all of it"), DEMAND, take_step)
    assert tried == [50, 25]
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    with pytest.raises(BatchTooLargeError, match=r"--batch-size 30 does$"):  # of which each takes more than its pixels
        within_memory(lambda: tried.append("all of it"), replace(DEMAND, num_images=60, image_bytes=2 * image_bytes),
                      take_step)  # fmt: skip
    fitting = replace(DEMAND, num_images=60)
    assert within_memory(lambda: 3, fitting, take_step) == 3


def test_of_several_processes_none_takes_a_step_alone():
    demand = Demand(work="x", num_images=8, image_size_px=32, device=CPU, flag="--batch-size", num_processes=2)
    tried = []
    with pytest.raises(BatchTooLargeError, match=r"8 images of 32 px in 2 processes .*; a smaller --batch-size needs"):
        within_memory(failing, demand, room_for(5, tried))
    assert tried == []


def test_what_works_is_returned_and_other_errors_pass():
    assert within_memory(lambda: 3, DEMAND, failing) == 3
    for error in (RuntimeError("shapes differ"), ValueError("lr"), KeyError("x")):
        with pytest.raises(type(error)) as raised:
            within_memory(lambda error=error: (_ for _ in ()).throw(error), DEMAND, failing)
        assert raised.value is error


def test_an_error_of_the_tried_step_that_is_no_lack_of_memory_passes():
    def broken(num_images):
        raise RuntimeError(f"shapes differ at {num_images}")

    with pytest.raises(RuntimeError, match="shapes differ at 50"):
        within_memory(failing, DEMAND, broken)


def test_what_the_failure_held_is_free_before_the_next_try():
    """Of the work, of a generator in it, of the error in whose handling it was raised, and of each try."""
    held, alive = [], []

    def hold():
        tensor = torch.zeros(10)
        held.append(weakref.ref(tensor))
        return tensor

    def batches():
        tensor = hold()
        yield tensor
        yield tensor

    def inner():
        tensor = hold()
        failing()
        return tensor

    def work():
        tensor = hold()
        for _ in batches():
            try:
                inner()
            except torch.OutOfMemoryError:
                other = hold()
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture") from None
        return tensor, other

    def take_step(num_images):
        alive.append([each() for each in held if each() is not None])
        tensor = hold()
        if num_images > 12:
            failing()
        return tensor

    with pytest.raises(BatchTooLargeError, match="--batch-size 12 does"):
        within_memory(work, DEMAND, take_step)
    assert len(held) == 4 + 3
    assert alive == [[], [], []]


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be ...",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        'torch_call_dispatcher( "aten::new_empty", "", stack.data(), TORCH_ABI_VERSION) API call failed at ops.h, 9',
        "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: can't allocate memory: you tried to allocate",
    ],
)
def test_messages_of_torch_that_have_no_class(message):
    assert is_out_of_memory(RuntimeError(message))
    assert not is_out_of_memory(ValueError(message))


def test_a_real_lack_of_memory_is_known():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_out_of_memory(error.value)
    assert describe_out_of_memory(error.value).startswith("out of memory (")
    assert "\n" not in describe_out_of_memory(error.value)
    with pytest.raises(RuntimeError) as error:  # of more than there are addresses
        ops.squash([torch.zeros(1, 1, 3, dtype=torch.uint8)] * 200_000, (16384, 16384))
    assert is_out_of_memory(error.value)
    assert describe_out_of_memory(MemoryError()) == "out of memory (MemoryError); smaller batches need less"


class TinyNet(nn.Module):
    """A model that has memory for so many images in training and in evaluation."""

    def __init__(self, in_training=99, in_evaluation=99):
        super().__init__()
        self.room = {True: in_training, False: in_evaluation}
        self.seen = []
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.fc = nn.Linear(8, 4)

    def forward(self, images):
        self.seen.append((self.training, len(images)))
        if len(images) > self.room[self.training]:
            failing()
        return self.fc(self.body(images))


@pytest.fixture
def loaders(dogs_root):
    paths = sorted(dogs_root.glob("Images/*/*.jpg"))[:24]

    def make(recipe, batch_size):
        labels = [i % 4 for i in range(len(paths))]
        return make_loader(paths, labels, recipe, backend="torch", batch_size=batch_size, device="cpu", num_threads=1)

    made = make(EVAL.at(32), 8), make(EVAL.at(32), 16), make(EVAL.at(32), 16)
    yield made
    for loader in made:
        loader.close()


def trainer(model, loaders, folder, **settings):
    train_loader, val_loader, plain_loader = loaders
    plain = plain_loader if settings.pop("cache", False) else None
    return Trainer(model, train_loader, val_loader, num_classes=4, device=CPU, folder=folder, label="tiny_full",
                   plain_train_loader=plain, **settings)  # fmt: skip


@pytest.mark.parametrize("settings", [StepSettings(), StepSettings(amp=torch.bfloat16)])
def test_training_names_the_batch_size(loaders, tmp_path, settings):
    model = TinyNet(in_training=5)
    message = rf"^batch_size: 8 images of 32 px {MEMORY} training of tiny_full; --batch-size 4 does$"
    with pytest.raises(BatchTooLargeError, match=message):
        trainer(model, loaders, tmp_path, settings=settings).run(FULL)
    # Two steps, since the first makes what the optimiser keeps.
    assert model.seen == [(True, 8), (True, 4), (True, 4)]


@pytest.mark.fault(
    "Machine and environment", "a CPU batch of which training keeps more for the backward than there is memory",
    "refused before it is tried, with a batch size that fits; the process is not ended by the system",
)  # fmt: skip
def test_what_training_keeps_is_known_before_the_batch_is_tried(loaders, tmp_path, monkeypatch):
    model = TinyNet()
    for module in (out_of_memory, trainer_module):  # room for the images of a batch, and not for what is kept of them
        monkeypatch.setattr(module, "obtainable_bytes", lambda: 8 * 12 * 32**2 + 1000)
    message = rf"^batch_size: 8 images of 32 px {MEMORY} training of tiny_full; --batch-size 4 does$"
    with pytest.raises(BatchTooLargeError, match=message):
        trainer(model, loaders, tmp_path).run(FULL)
    assert model.seen == [(True, 2), (True, 4), (True, 4), (True, 4)]
    model = TinyNet()
    for module in (out_of_memory, trainer_module):
        monkeypatch.setattr(module, "obtainable_bytes", lambda: 4 * 8 * 12 * 32**2)
    trainer(model, loaders, tmp_path).run(FULL)
    assert model.seen[:3] == [(True, 2), (True, 4), (True, 8)]
    # What is compiled keeps less than the model as it is, so that its batch is tried.
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    model = TinyNet()
    trainer(model, loaders, tmp_path, settings=StepSettings(compile=True)).run(FULL)
    assert model.seen[0] == (True, 8)


def test_training_with_room_for_nothing_stops_before_what_batch_norm_refuses(loaders, tmp_path):
    with pytest.raises(BatchTooLargeError, match=r"; not even 2 do$"):
        trainer(TinyNet(in_training=0), loaders, tmp_path).run(FULL)


def test_validation_names_the_batch_size_of_evaluation(loaders, tmp_path):
    model = TinyNet(in_evaluation=4)
    message = rf"^eval_batch_size: 16 images of 32 px {MEMORY} evaluation of tiny_full; --eval-batch-size 4 does$"
    with pytest.raises(BatchTooLargeError, match=message):
        trainer(model, loaders, tmp_path).run(FULL)
    assert model.seen[-3:] == [(False, 16), (False, 8), (False, 4)]


def test_so_does_caching_features(loaders, tmp_path):
    with pytest.raises(BatchTooLargeError, match=r"^eval_batch_size: 16 images .*; --eval-batch-size 8 does$"):
        trainer(TinyNet(in_evaluation=8), loaders, tmp_path, cache=True).run(HEAD)


def test_a_head_on_features_is_tried_on_features(loaders, tmp_path):
    model = TinyNet()
    model.fc.register_forward_pre_hook(lambda head, inputs: failing() if head.training and len(inputs[0]) > 3 else None)
    with pytest.raises(BatchTooLargeError, match=r"^batch_size: 8 images .*; --batch-size 2 does$"):
        trainer(model, loaders, tmp_path, cache=True).run(HEAD)


def test_prediction_names_what_sets_its_batch(loaders):
    for flag, words in (("--eval-batch-size", "--eval-batch-size 8 does"), (None, "8 would")):
        model = TinyNet(in_evaluation=9)
        with pytest.raises(BatchTooLargeError, match=rf"in the evaluation of tiny test; {words}$"):
            predict(model, loaders[1], ["a"] * 24, label="tiny test", flag=flag)
        assert model.seen == [(False, 16), (False, 8)]
