"""Training on a GPU: going on exactly, float16 with its scaler, CUDA graphs over epochs, memory, and too little of it.

What says the same on a CPU runs there too.
"""

import ctypes
import dataclasses
import gc
import multiprocessing
import os
import re
import signal
import warnings
from contextlib import ExitStack, contextmanager

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from dogs_accel import ops
from dogs_accel.datasets import open_dataset
from dogs_accel.evaluation.predictions import predict
from dogs_accel.models.build import build_model
from dogs_accel.models.specs import model_spec
from dogs_accel.runtime.out_of_memory import BatchTooLargeError, is_out_of_memory
from dogs_accel.runtime.precision import set_numerics
from dogs_accel.training.checkpoint import load_checkpoint
from dogs_accel.training.optimizers import make_optimizer
from dogs_accel.training.phases import Phase
from dogs_accel.training.step import StepSettings, TrainingStep
from dogs_accel.training.trainer import Trainer
from pipelines import EVAL, VIT_TRAIN, make_loader
from tests.support.operator_cases import DEVICES, needs_cuda

BATCH_SIZE = 7
"""Of 40 training images, so that the last batch is a part of one."""
NUM_CLASSES = 4
PUBLISHED_COLUMNS = 15
HEAD = Phase(name="head_only", mode="head_only", epochs=1, lr=1e-2)
FULL = Phase(name="full_finetune", mode="full_finetune", epochs=2, lr=1e-3)
MODELS = ["resnet18", "timm/vit_tiny_patch16_224"]
GROWN_BYTES = 32e6
"""What the process and the GPU may hold more of after many epochs than after three: less than what a step of the model
makes, were it kept once an epoch."""
GPU_AMPS = [None, torch.bfloat16, torch.float16]


@contextmanager
def made_loaders(root, device, batch_size=BATCH_SIZE, eval_batch_size=5):
    data = open_dataset(root)
    with ExitStack() as stack:
        made = []
        for split, recipe, size in (("train", VIT_TRAIN.at(32), batch_size), ("val", EVAL.at(32), eval_batch_size)):
            index = data.split(split)
            loader = make_loader(
                [data.paths[i] for i in index], data.labels[index], recipe, backend="torch", batch_size=size,
                device=device, seed=1, shuffle=split == "train", num_threads=1,
            )  # fmt: skip
            made.append(stack.enter_context(loader))
        yield made


def make_model(name, seed=0):
    return build_model(model_spec(name, 32), NUM_CLASSES, "none", seed).model


def make_trainer(model, loaders, device, folder, **settings):
    folder.mkdir(exist_ok=True)
    where = torch.device(device, 0 if device == "cuda" else None)
    return Trainer(model, *loaders, num_classes=NUM_CLASSES, device=where, folder=folder, seed=3, label="tiny_full",
                   **settings)  # fmt: skip


@pytest.fixture
def loaders(dogs_root, request):
    with made_loaders(dogs_root, request.getfixturevalue("device")) as made:
        yield made


@pytest.fixture
def deterministic(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        set_numerics(deterministic=True)
        yield
    set_numerics()


def stop_after(num_epochs):
    def on_epoch(history):
        if len(history) == num_epochs:
            raise KeyboardInterrupt

    return on_epoch


def published(history):
    """The columns that are no times."""
    return [dict(list(row.items())[:PUBLISHED_COLUMNS]) for row in history]


def assert_same_bits(one, two, at="state"):
    if isinstance(one, dict):
        assert one.keys() == two.keys(), at
        for key in one:
            assert_same_bits(one[key], two[key], f"{at}.{key}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two), at
    else:
        assert one == two, at


def assert_same_checkpoints(one, two):
    first, second = load_checkpoint(one / "last.pt"), load_checkpoint(two / "last.pt")
    assert published(first["history"]) == published(second["history"])
    for key in ("model", "optimizer", "scaler"):
        assert_same_bits(first[key], second[key], key)


# --- going on ---------------------------------------------------------------------------------------------------------


def run_and_resume(name, loaders, device, tmp_path, **settings):
    """Train undisturbed and, from another seed's weights, stopped after each epoch but the last."""
    whole = make_trainer(make_model(name), loaders, device, tmp_path / "whole", **settings)
    whole.run([HEAD, FULL])
    for num_epochs in (1, 2):
        model = make_model(name, seed=num_epochs - 1)
        stopped = make_trainer(model, loaders, device, tmp_path / "parts", on_epoch=stop_after(num_epochs), **settings)
        with pytest.raises(KeyboardInterrupt):
            stopped.run([HEAD, FULL], resume=True)
    last = make_trainer(make_model(name, seed=9), loaders, device, tmp_path / "parts", **settings)
    last.run([HEAD, FULL], resume=True)
    return whole, last


@pytest.mark.parametrize(
    ("device", "amp"), [("cpu", None), *(pytest.param("cuda", amp, marks=needs_cuda) for amp in GPU_AMPS)]
)
@pytest.mark.parametrize("name", MODELS)
def test_going_on_gives_the_same_bits(deterministic, device, amp, name, loaders, tmp_path):
    whole, last = run_and_resume(name, loaders, device, tmp_path, settings=StepSettings(amp=amp))
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "parts")
    assert_same_bits(whole.model.state_dict(), last.model.state_dict())


@pytest.mark.parametrize(
    ("device", "cuda_graphs"),
    [("cpu", False), *(pytest.param("cuda", graphs, marks=needs_cuda) for graphs in (False, True))],
)
def test_without_determinism_images_and_augmentations_are_the_same(device, cuda_graphs, loaders, tmp_path):
    """What each step is given; the numbers agree up to rounding."""
    set_numerics()
    settings = StepSettings(cuda_graphs=cuda_graphs)
    seen = {}
    for folder, stops in (("whole", []), ("parts", [1, 2])):
        seen[folder] = []
        for stop in [*stops, 99]:
            trainer = make_trainer(make_model("resnet18"), loaders, device, tmp_path / folder, settings=settings,
                                   on_epoch=stop_after(stop))  # fmt: skip
            take = TrainingStep.__call__

            def recorded(step, images, labels, *more, take=take, found=seen[folder]):
                found.append((images.cpu().numpy().tobytes(), labels.tolist()))
                return take(step, images, labels, *more)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(TrainingStep, "__call__", recorded)
                try:
                    trainer.run([HEAD, FULL], resume=True)
                except KeyboardInterrupt:
                    continue
    assert len(seen["whole"]) == 3 * 6
    assert seen["parts"] == seen["whole"]
    one, two = (load_checkpoint(tmp_path / folder / "last.pt")["history"] for folder in ("whole", "parts"))
    assert [row["train_loss"] for row in two] == pytest.approx([row["train_loss"] for row in one], rel=0.05)


def train_until_killed(root, device, folder):
    """The body of a process that does not live through its first epoch's end."""
    set_numerics(deterministic=True)

    def kill(history):
        os.kill(os.getpid(), signal.SIGKILL)

    with made_loaders(root, device) as loaders:
        make_trainer(make_model("resnet18"), loaders, device, folder, on_epoch=kill).run([FULL])


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), *DEVICES[1:]])
def test_a_killed_process_is_gone_on_with_in_another(deterministic, device, dogs_root, loaders, tmp_path):
    arguments = (dogs_root, device, tmp_path / "killed")
    process = multiprocessing.get_context("spawn").Process(target=train_until_killed, args=arguments)
    process.start()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL
    assert len(load_checkpoint(tmp_path / "killed" / "last.pt")["history"]) == 1
    make_trainer(make_model("resnet18", seed=5), loaders, device, tmp_path / "killed").run([FULL], resume=True)
    make_trainer(make_model("resnet18"), loaders, device, tmp_path / "whole").run([FULL])
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "killed")


# --- mixed precision --------------------------------------------------------------------------------------------------


class TinyNet(nn.Module):
    """A model whose step takes so many bytes an image."""

    def __init__(self, bytes_an_image=0):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.fc = nn.Linear(32, NUM_CLASSES)
        self.scale = nn.Parameter(torch.ones(()))
        self.num_extra = bytes_an_image // 4

    def forward(self, images):
        logits = self.fc(self.body(images).flatten(1))
        if self.num_extra:
            extra = torch.zeros(len(images), self.num_extra, device=images.device) * self.scale
            logits = logits + extra.sum(dim=1, keepdim=True)
        return logits


def tiny_net(**how):
    torch.manual_seed(0)
    return TinyNet(**how)


@needs_cuda
@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_an_overflow_skips_the_step_and_halves_the_scale(cuda_graphs):
    device, settings = torch.device("cuda", 0), StepSettings(amp=torch.float16, cuda_graphs=cuda_graphs)
    model = tiny_net().to(device, memory_format=torch.channels_last)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**40)
    step = TrainingStep(
        model, make_optimizer(model.parameters(), 1e-3, 0.0, settings), device=device, settings=settings, scaler=scaler
    )
    images, labels = torch.randn(8, 3, 32, 32, device=device), torch.arange(8, device=device) % NUM_CLASSES
    scales, moved = [scaler.get_scale()], []
    for _ in range(40):
        before = model.fc.weight.detach().clone()
        loss, _ = step(images, labels)
        assert loss.isfinite()
        scales.append(scaler.get_scale())
        moved.append(not torch.equal(model.fc.weight, before))
        assert moved[-1] == (scales[-1] == scales[-2])
        assert scales[-1] in (scales[-2], scales[-2] / 2)
    assert not moved[0]
    assert moved[-1]
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@needs_cuda
@pytest.mark.parametrize("device", ["cuda"])
def test_a_run_outlives_overflows_and_keeps_its_scale(deterministic, device, loaders, tmp_path):
    settings, scales = StepSettings(amp=torch.float16), {}
    for folder, stops in (("whole", [99]), ("parts", [1, 99])):
        for stop in stops:
            trainer = make_trainer(tiny_net(), loaders, device, tmp_path / folder, settings=settings,
                                   on_epoch=stop_after(stop))  # fmt: skip
            if stop == stops[0]:
                trainer.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**30)
            try:
                result = trainer.run([FULL], resume=True)
            except KeyboardInterrupt:
                continue
        assert all(np.isfinite([row["train_loss"], row["val_loss"]]).all() for row in result.history)
        assert [row["epoch_total"] for row in result.history] == [1, 2]
        scales[folder] = trainer.scaler.get_scale()
    assert scales["whole"] == scales["parts"] < 2.0**30
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("device", DEVICES)
def test_bf16_learns_about_as_float32_does(device, loaders, tmp_path):
    losses = []
    for amp in (None, torch.bfloat16):
        trainer = make_trainer(tiny_net(), loaders, device, tmp_path / str(amp), settings=StepSettings(amp=amp))
        assert not trainer.scaler.is_enabled()
        losses.append([row["val_loss"] for row in trainer.run([FULL]).history])
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    assert losses[1] != losses[0]


# --- CUDA graphs and memory -------------------------------------------------------------------------------------------


@needs_cuda
@pytest.mark.parametrize("device", ["cuda"])
@pytest.mark.parametrize(("amp", "tolerance"), [(None, 1e-3), (torch.bfloat16, 3e-2), (torch.float16, 1e-2)])
def test_a_graph_over_epochs_trains_as_eager_steps_do(deterministic, device, amp, tolerance, loaders, tmp_path):
    """With validation between the epochs, the last batch a part of one, and three phases, the last with an average."""
    histories = []
    averaged = dataclasses.replace(FULL, clip_norm=1.0, ema_decay=0.5)
    for cuda_graphs in (False, True):
        settings = StepSettings(amp=amp, cuda_graphs=cuda_graphs)
        trainer = make_trainer(tiny_net(), loaders, device, tmp_path / str(cuda_graphs), settings=settings)
        histories.append(trainer.run([HEAD, FULL, averaged]).history)
    for eager, graphed in zip(*histories, strict=True):
        for name in ("train_loss", "val_loss"):
            assert graphed[name] == pytest.approx(eager[name], rel=tolerance), name


def used_bytes(device):
    """What the process holds of the host, and what is held of the GPU by tensors and in all."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    resident = psutil.Process().memory_info().rss
    if device == "cpu":
        return resident, 0, 0
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    return resident, torch.cuda.memory_allocated(), total - free


@pytest.mark.parametrize(
    ("device", "settings"),
    [
        pytest.param("cpu", StepSettings(), marks=pytest.mark.slow),
        *(
            pytest.param("cuda", StepSettings(amp=amp, cuda_graphs=cuda_graphs), marks=needs_cuda)
            for amp in GPU_AMPS
            for cuda_graphs in (False, True)
        ),
    ],
)
def test_epochs_leave_memory_as_three_did(device, settings, loaders, tmp_path):
    phase, used = Phase(name="full_finetune", mode="full_finetune", epochs=10, lr=1e-3), []
    # A step of 7 images keeps some 30 MB for its backward.
    trainer = make_trainer(tiny_net(bytes_an_image=4 << 20), loaders, device, tmp_path, settings=settings,
                           on_epoch=lambda history: used.append(used_bytes(device)))  # fmt: skip
    trainer.run([phase])
    host, tensors, gpu = np.array(used).T
    assert max(tensors[3:]) - tensors[2] < 1e6, tensors
    assert max(gpu[3:]) - gpu[2] < GROWN_BYTES, gpu
    assert max(host[3:]) - host[2] < GROWN_BYTES, host


# --- too little memory ------------------------------------------------------------------------------------------------


def tensor_bytes():
    """What tensors hold of the GPU, without the workspaces of cuBLAS: one of 32 MiB a thread and stream on Hopper."""
    gc.collect()
    torch.cuda.synchronize()
    torch._C._cuda_clearCublasWorkspaces()
    return torch.cuda.memory_allocated()


@pytest.fixture
def half_a_gibibyte_left():
    """Let torch take so much more of the GPU than it has now."""
    tensor_bytes()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**29) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    gc.collect()
    torch.cuda.empty_cache()


def size_named(error, flag):
    return int(re.search(rf"; {flag} (\d+) does$", str(error.value))[1])


def device_memory():
    name, total = torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0).total_memory
    return re.escape(f"{name} ({total / 2**30:.0f} GiB)")


@needs_cuda
@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_training_names_a_batch_that_fits_a_real_gpu(half_a_gibibyte_left, dogs_root, tmp_path, cuda_graphs):
    settings = StepSettings(cuda_graphs=cuda_graphs)

    def train(batch_size):
        with made_loaders(dogs_root, "cuda", batch_size, eval_batch_size=1) as loaders:
            model = tiny_net(bytes_an_image=16 << 20)
            return make_trainer(model, loaders, "cuda", tmp_path / str(batch_size), settings=settings).run([FULL])

    held = tensor_bytes()
    message = (
        rf"^batch_size: 40 images of 32 px do not fit the memory of {device_memory()} in the training of tiny_full;"
    )
    with pytest.raises(BatchTooLargeError, match=message) as error:
        train(40)
    fitting = size_named(error, "--batch-size")
    assert fitting in (20, 10, 5, 2)
    del error
    assert tensor_bytes() - held < 32e6
    torch.cuda.empty_cache()
    assert len(train(fitting).history) == 2


@needs_cuda
def test_so_does_evaluation(half_a_gibibyte_left, dogs_root):
    def evaluate(batch_size):
        with made_loaders(dogs_root, "cuda", eval_batch_size=1) as (loader, _):
            loader.batch_size = batch_size
            return predict(model, loader, ["a"] * 40, label="tiny test")

    model = tiny_net(bytes_an_image=16 << 20).cuda()
    with pytest.raises(BatchTooLargeError, match=r"^eval_batch_size: 40 images of 32 px do not fit") as error:
        evaluate(40)
    torch.cuda.empty_cache()
    assert len(evaluate(size_named(error, "--eval-batch-size")).labels) == 40


@needs_cuda
def test_an_operator_without_memory_is_known(half_a_gibibyte_left):
    images = [torch.zeros(1, 1, 3, dtype=torch.uint8, device="cuda")] * 3
    with pytest.raises(RuntimeError) as error:
        ops.squash(images, (16384, 16384))
    assert is_out_of_memory(error.value)
    assert ops.squash(images, (2, 2)).shape == (3, 2, 2, 3)
