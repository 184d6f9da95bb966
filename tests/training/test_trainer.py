"""The engine against a plain float32 loop, and what it promises about phases, best weights and checkpoints."""

import copy
import dataclasses
import gzip
import json
import shutil
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dogs_accel.datasets import open_dataset
from dogs_accel.models.freezing import set_train_mode, set_trainable_stage
from dogs_accel.runtime.precision import amp_dtype
from dogs_accel.runtime.processes import World
from dogs_accel.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from dogs_accel.training.features import dropped_before_head, head_of
from dogs_accel.training.mixing import draw_mix
from dogs_accel.training.phases import Phase
from dogs_accel.training.step import StepSettings, TrainingStep
from dogs_accel.training.step_profile import PARTS
from dogs_accel.training.trainer import DivergedError, Trainer
from pipelines import EVAL, VIT_TRAIN, make_loader
from tests.support.random_models import build

CPU = torch.device("cpu")


class TinyNet(nn.Module):
    def __init__(self, num_classes=4):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.fc = nn.Linear(32, num_classes)

    def forward(self, images):
        return self.fc(self.body(images))


def tiny_net():
    torch.manual_seed(0)
    return TinyNet()


@contextmanager
def made_loaders(dogs_root, recipe=VIT_TRAIN.at(32), shuffle=True, batch_size=8):  # noqa: B008  # frozen
    data = open_dataset(dogs_root)
    with ExitStack() as stack:
        made = {}
        for split, each in (("train", recipe), ("val", EVAL.at(32))):
            index = data.split(split)
            made[split] = make_loader(
                [data.paths[i] for i in index],
                data.labels[index],
                each,
                backend="dali",
                batch_size=batch_size,
                device="cpu",
                seed=1,
                shuffle=shuffle and split == "train",
            )
            stack.callback(made[split].close)
        yield made


@pytest.fixture
def loaders(dogs_root):
    with made_loaders(dogs_root) as made:
        yield made


def train(loaders, folder, phases, model=None, resume=False, **settings):
    folder.mkdir(exist_ok=True)
    trainer = Trainer(
        model or tiny_net(), loaders["train"], loaders["val"], num_classes=4, device=CPU, folder=folder, **settings
    )
    return trainer, trainer.run(phases, resume=resume)


HEAD = Phase(name="head_only", mode="head_only", epochs=2, lr=1e-2)
FULL = Phase(name="full_finetune", mode="full_finetune", epochs=3, lr=5e-3)
RICH = Phase(
    name="rich", mode="full_finetune", epochs=9, lr=0.05, optimizer="sgd", nesterov=True, schedule="one_cycle",
    unfreeze_every=1, patience=2, min_delta=10, monitor="loss", decay_norms=False, clip_norm=0.5, label_smoothing=0.1,
    ema_decay=0.5, mix="mixup_or_cutmix", mixup_alpha=1.0, mix_probability=0.8,
)  # fmt: skip
"""What has a state of its own, or changes from step to step; it ends after three epochs."""
MIXED = dataclasses.replace(FULL, mix="mixup_or_cutmix", mixup_alpha=1.0, mix_probability=0.8)


def plain_loss(model, images, labels, phase, epoch, step):
    """The loss of a step; images that are mixed are made one by one."""
    if phase.mix == "none" or len(labels) == 1:
        return nn.functional.cross_entropy(model(images), labels)
    draw = draw_mix(phase, seed=0, epoch=epoch, step=step, num_images=len(labels), height=32, width=32)
    mixed = []
    for image, other in zip(images, images[draw.permutation], strict=True):
        mixed.append(image * draw.lam + other * (1 - draw.lam))
        if draw.box is not None:
            left, top, right, bottom = draw.box
            mixed[-1] = image.clone()
            mixed[-1][:, top:bottom, left:right] = other[:, top:bottom, left:right]
    logits, others = model(torch.stack(mixed)), labels[draw.permutation]
    own = nn.functional.cross_entropy(logits, labels)
    return draw.lam * own + (1 - draw.lam) * nn.functional.cross_entropy(logits, others)


def plain_training(loaders, phases):
    """The same experiment, as short as it can be written."""
    model, losses, accuracies, epoch_total = tiny_net(), [], [], 0
    for phase in phases:
        set_trainable_stage(model, phase.mode)
        optimizer = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad], lr=phase.lr, weight_decay=1e-4
        )
        for epoch in range(phase.epochs):
            for group in optimizer.param_groups:
                group["lr"] = phase.lr * (1 + np.cos(np.pi * epoch / phase.epochs)) / 2
            set_train_mode(model)
            loaders["train"].set_epoch(epoch_total)
            for step, (images, labels, _) in enumerate(loaders["train"]):
                optimizer.zero_grad()
                plain_loss(model, images, labels, phase, epoch_total, step).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                batches = [(model(images), labels) for images, labels, _ in loaders["val"]]
            logits, labels = (torch.cat(part) for part in zip(*batches, strict=True))
            losses.append(nn.functional.cross_entropy(logits, labels).item())
            accuracies.append((logits.argmax(1) == labels).double().mean().item())
            epoch_total += 1
    return losses, accuracies


@pytest.mark.parametrize(
    ("fields", "make_optimizer"),
    [
        (
            {"optimizer": "sgd", "nesterov": True, "schedule": "one_cycle"},
            lambda groups: torch.optim.SGD(groups, lr=0.02, momentum=0.9, nesterov=True),
        ),
        (
            {"optimizer": "adam", "schedule": "step", "step_epochs": 1},
            lambda groups: torch.optim.Adam(groups, lr=0.02),
        ),
    ],
    ids=["sgd", "adam"],
)
def test_settings_of_a_phase_are_those_of_a_plain_loop(loaders, tmp_path, fields, make_optimizer):
    """Rates by name, decay without norms and biases, a cut gradient, smoothed labels and an average, all by torch."""
    phase = Phase(
        name="rich", mode="full_finetune", epochs=3, lr=0.02, weight_decay=0.05, lrs={"fc": 0.05}, decay_norms=False,
        clip_norm=0.5, label_smoothing=0.1, ema_decay=0.7, **fields,
    )  # fmt: skip
    trainer, result = train(loaders, tmp_path, [phase], settings=StepSettings(fused_optimizer=False))
    model = tiny_net()
    groups = [{"params": [model.body[0].weight], "weight_decay": 0.05, "lr": 0.02}]
    groups += [{"params": [model.body[0].bias, *model.body[1].parameters()], "weight_decay": 0.0, "lr": 0.02}]
    groups += [{"params": [model.fc.weight], "weight_decay": 0.05, "lr": 0.05}]
    groups += [{"params": [model.fc.bias], "weight_decay": 0.0, "lr": 0.05}]
    optimizer = make_optimizer(groups)
    num_steps = len(loaders["train"])
    if fields["schedule"] == "one_cycle":
        peaks = [group["lr"] for group in groups]
        scheduler = lr_scheduler.OneCycleLR(optimizer, peaks, epochs=3, steps_per_epoch=num_steps)
    else:
        scheduler = lr_scheduler.StepLR(optimizer, num_steps)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.7), use_buffers=True)
    for epoch, row in enumerate(result.history):
        losses, lengths = [], []
        loaders["train"].set_epoch(epoch)
        model.train()
        for images, labels, _ in loaders["train"]:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels, label_smoothing=0.1)
            losses += [loss.item()] * len(labels)
            loss.backward()
            lengths.append(nn.utils.clip_grad_norm_(model.parameters(), 0.5).item())
            optimizer.step()
            scheduler.step()
            averaged.update_parameters(model)
        averaged.eval()
        with torch.no_grad():
            batches = [(averaged(images), labels) for images, labels, _ in loaders["val"]]
        logits, labels = (torch.cat(part) for part in zip(*batches, strict=True))
        assert max(lengths) > 0.5
        assert row["train_loss"] == pytest.approx(np.mean(losses), rel=1e-3)
        assert row["val_loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-3)
        assert row["val_acc"] == pytest.approx((logits.argmax(1) == labels).double().mean().item())
        if row["epoch_total"] == result.best_epoch:
            best = copy.deepcopy(averaged.module.state_dict())
    for name, value in trainer.model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, best[name], rtol=1e-3, atol=1e-4)


def test_history_is_that_of_a_plain_loop(loaders, tmp_path):
    _, result = train(loaders, tmp_path, [HEAD, FULL])
    losses, accuracies = plain_training(loaders, [HEAD, FULL])
    assert [row["val_loss"] for row in result.history] == pytest.approx(losses, rel=1e-3)
    assert [row["val_acc"] for row in result.history] == pytest.approx(accuracies)


def test_images_are_mixed_in_training_and_never_in_validation(dogs_root, tmp_path):
    with made_loaders(dogs_root, batch_size=13) as loaders:  # the last batch is one image
        _, result = train(loaders, tmp_path, [HEAD, MIXED])
        losses, accuracies = plain_training(loaders, [HEAD, MIXED])
    assert [row["val_loss"] for row in result.history] == pytest.approx(losses, rel=1e-3)
    assert [row["val_acc"] for row in result.history] == pytest.approx(accuracies)
    assert [row.get("mix") for row in result.history] == [None] * 2 + ["mixup_or_cutmix"] * 3
    shares = [40 * row["train_acc"] for row in result.history]
    assert [share == pytest.approx(round(share)) for share in shares] == [True] * 2 + [False] * 3


def test_features_that_are_cached_are_not_mixed(loaders, tmp_path):
    mixed = dataclasses.replace(HEAD, mix="mixup")
    with pytest.raises(ValueError, match=r"^mix: got mixup in head_only with cached features, expected none"):
        train(loaders, tmp_path, [FULL, mixed], plain_train_loader=loaders["train"])
    assert not list(tmp_path.iterdir())


class OneValueNet(nn.Module):
    """Its BatchNorm has a value a channel and image."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3))
        self.fc = nn.Linear(3, 4)

    def forward(self, images):
        return self.fc(self.body(images))


@pytest.mark.fault(
    "Training and models", "a last batch of one image, of a model whose BatchNorm needs two", "a step like any other"
)
def test_a_last_batch_of_one_image_is_a_step_like_others(dogs_root, tmp_path):
    with made_loaders(dogs_root, batch_size=13) as loaders:
        assert len(loaders["train"].labels) % 13 == 1
        _, result = train(loaders, tmp_path / "plain", [HEAD, FULL])
        losses, accuracies = plain_training(loaders, [HEAD, FULL])
        assert [row["val_loss"] for row in result.history] == pytest.approx(losses, rel=1e-3)
        assert [row["val_acc"] for row in result.history] == pytest.approx(accuracies)
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            OneValueNet().train()(torch.zeros(1, 3, 32, 32))
        _, result = train(loaders, tmp_path / "one", [HEAD, FULL], OneValueNet())
        shares = [40 * row["train_acc"] for row in result.history]
        assert shares == pytest.approx([round(share) for share in shares])
        assert all(row["train_loss"] < 3 for row in result.history)


def test_the_loss_of_training_is_the_one_that_is_given_and_that_of_validation_the_cross_entropy(loaders, tmp_path):
    _, result = train(loaders, tmp_path, [HEAD], loss=lambda logits, _: 0 * logits.sum() + 0.25)
    assert [row["train_loss"] for row in result.history] == [0.25, 0.25]
    assert min(row["val_loss"] for row in result.history) > 1  # of 4 classes, from which nothing was learnt


def test_history_rows_have_the_published_columns(loaders, tmp_path):
    rows = []
    _, result = train(loaders, tmp_path, [HEAD, FULL], on_epoch=lambda history: rows.append(history[-1]))
    assert rows == result.history
    assert ",".join(rows[0]).startswith(
        "index,stage,epoch,epoch_total,train_loss,train_acc,train_macro_f1,train_weighted_f1,"
        "val_loss,val_acc,val_macro_f1,val_weighted_f1,lr,phase,trainable_params,seconds,"
    )
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["stage"] for row in rows] == [1, 1, 2, 2, 2]
    assert [row["epoch"] for row in rows] == [1, 2, 1, 2, 3]
    assert [row["epoch_total"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["phase"] for row in rows] == ["head_only"] * 2 + ["full_finetune"] * 3
    assert [row["lr"] for row in rows] == pytest.approx([5e-3, 0, 3.75e-3, 1.25e-3, 0])
    assert rows[0]["trainable_params"] == 32 * 4 + 4
    assert rows[-1]["trainable_params"] == sum(p.numel() for p in tiny_net().parameters())


def test_a_head_phase_leaves_the_backbone_alone(loaders, tmp_path):
    model = tiny_net()
    before = copy.deepcopy(model.state_dict())
    train(loaders, tmp_path, [HEAD], model=model)
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before if key.startswith("body"))
    assert not torch.equal(before["fc.weight"], after["fc.weight"])
    drifting = tiny_net()
    train(loaders, tmp_path, [HEAD], model=drifting, bn_when_frozen="train")
    assert not torch.equal(before["body.1.running_mean"], drifting.state_dict()["body.1.running_mean"])


def test_the_model_ends_with_the_weights_of_its_best_epoch(loaders, tmp_path):
    # A phase whose rate destroys what the first one learnt.
    ruin = Phase(name="full_finetune", mode="full_finetune", epochs=1, lr=50.0)
    trainer, result = train(loaders, tmp_path, [FULL, ruin])
    best = max(result.history, key=lambda row: row["val_acc"])
    assert result.best_epoch == best["epoch_total"] <= 3
    assert result.best_val_accuracy == best["val_acc"]
    model = trainer.model.eval()
    with torch.inference_mode():
        batches = [(model(images), labels) for images, labels, _ in loaders["val"]]
    logits, labels = (torch.cat(part) for part in zip(*batches, strict=True))
    assert (logits.argmax(1) == labels).double().mean() == best["val_acc"]
    assert nn.functional.cross_entropy(logits, labels).item() == pytest.approx(best["val_loss"], rel=1e-5)


def test_the_best_epoch_is_that_of_the_lowest_loss_where_the_last_phase_monitors_it(loaders, tmp_path):
    by_loss = dataclasses.replace(FULL, epochs=4, monitor="loss")
    trainer, result = train(loaders, tmp_path, [FULL, by_loss])
    losses, accuracies = ([row[f"val_{each}"] for row in result.history] for each in ("loss", "acc"))
    assert result.best_epoch == 1 + int(np.argmin(losses))
    assert result.best_epoch != 1 + int(np.argmax(accuracies))
    assert result.best_val_accuracy == accuracies[result.best_epoch - 1]
    assert load_checkpoint(trainer.last_path)["best"]["val_loss"] == min(losses)


def test_all_processes_go_on_with_the_statistics_and_the_averages_of_the_first(loaders, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(World, "broadcast_tensors", lambda _, tensors: given.append([each.shape for each in tensors]))
    train(loaders, tmp_path, [dataclasses.replace(HEAD, epochs=1, ema_decay=0.5)])
    assert given == [[(8,), (8,), ()], [(8,), (8,)]]


def test_labels_are_not_smoothed_in_a_loss_of_ones_own(loaders, tmp_path):
    smoothed = dataclasses.replace(HEAD, label_smoothing=0.1)
    with pytest.raises(ValueError, match="label_smoothing: got it with a loss that is not the cross-entropy"):
        train(loaders, tmp_path, [smoothed], loss=lambda logits, labels: logits.sum())


def test_every_epoch_leaves_a_checkpoint_that_holds_the_whole_state(loaders, tmp_path):
    trainer, result = train(loaders, tmp_path, [HEAD, FULL])
    last = load_checkpoint(trainer.last_path)
    assert last["history"] == result.history
    assert last["best"] == result.history[result.best_epoch - 1]
    assert set(last["model"]) == set(trainer.model.state_dict())
    assert len(last["optimizer"]) == len(list(trainer.model.parameters()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt"]


def test_a_foreign_checkpoint_is_refused(tmp_path):
    torch.save({"model": {}}, tmp_path / "old.pt")
    with pytest.raises(ValueError, match=r"old\.pt is not of format 3"):
        load_checkpoint(tmp_path / "old.pt")
    save_checkpoint(tmp_path / "new.pt", {"a": [1, {"b": torch.ones(2)}]})
    assert torch.equal(load_checkpoint(tmp_path / "new.pt")["a"][1]["b"], torch.ones(2))


def test_bf16_learns_about_as_well(loaders, tmp_path):
    _, full = train(loaders, tmp_path, [FULL])
    _, mixed = train(loaders, tmp_path, [FULL], settings=StepSettings(amp=torch.bfloat16))
    assert mixed.history[-1]["train_loss"] == pytest.approx(full.history[-1]["train_loss"], rel=0.1)
    assert mixed.history[-1]["train_loss"] != full.history[-1]["train_loss"]


def test_no_phases_are_refused(loaders, tmp_path):
    with pytest.raises(ValueError, match="phases: got none"):
        train(loaders, tmp_path, [])


def test_amp_choices():
    assert amp_dtype("auto", CPU) is None
    assert amp_dtype("off", CPU) is None
    assert amp_dtype("bf16", CPU) == torch.bfloat16
    assert amp_dtype("fp16", torch.device("cuda")) == torch.float16
    with pytest.raises(ValueError, match="amp: fp16 needs a CUDA device"):
        amp_dtype("fp16", CPU)
    with pytest.raises(ValueError, match="amp: got 'half'"):
        amp_dtype("half", CPU)


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)])
def test_amp_auto_takes_bf16_only_where_the_chip_has_it(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert amp_dtype("auto", torch.device("cuda", 1)) == expected


@pytest.mark.fault(
    "Training and models", "a loss that becomes NaN", "the run stops, with the epoch and the last good checkpoint"
)
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_epoch(loaders, tmp_path):
    blow_up = Phase(name="full_finetune", mode="full_finetune", epochs=2, optimizer="sgd", lr=1e6)
    with pytest.raises(DivergedError, match=r"net: the loss of full_finetune epoch [12] is .* at lr 1e\+06"):
        train(loaders, tmp_path, [HEAD, blow_up], label="net")
    assert len(load_checkpoint(tmp_path / "last.pt")["history"]) >= 2


@pytest.mark.fault("Training and models", "a NaN in the first epoch", "said to be the first, with no checkpoint named")
def test_a_first_epoch_that_is_lost_names_no_checkpoint(loaders, tmp_path):
    model = TinyNet()
    next(model.parameters()).data.fill_(float("nan"))
    words = (
        r"training and .* in validation at lr .*; it is the first epoch of the run, so that no checkpoint was written; "
        r"the same settings lead there again, so run it anew with a smaller rate, such as --set lr=0.0005$"
    )
    with pytest.raises(DivergedError, match=words):
        train(loaders, tmp_path, [FULL], model=model)
    assert not list(tmp_path.iterdir())


class StopError(Exception):
    """What ends a training run in the middle."""


def stopped_after(num_epochs):
    def on_epoch(history):
        if len(history) == num_epochs:
            raise StopError

    return on_epoch


@pytest.fixture(scope="module")
def whole(dogs_root, tmp_path_factory):
    """An undisturbed run of two phases, with dropout and mixed images: (folder, result, final weights)."""
    folder = tmp_path_factory.mktemp("whole")
    with made_loaders(dogs_root) as loaders:
        trainer, result = train(loaders, folder, [HEAD, RICH], model=DropoutNet(), seed=3)
    assert [row["trainable_params"] for row in result.history[2:]] == [132, 372, 372]
    return folder, result, trainer.model.state_dict()


class DropoutNet(TinyNet):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__()
        self.body.append(nn.Dropout(0.3))


def published(history):
    return [dict(list(row.items())[:15]) for row in history]


@pytest.mark.parametrize("num_epochs", [1, 2, 3, 4, 5])
def test_a_run_that_goes_on_ends_in_the_same_bits(dogs_root, whole, tmp_path, num_epochs):
    _, expected, weights = whole
    with made_loaders(dogs_root) as loaders, pytest.raises(StopError):
        train(loaders, tmp_path, [HEAD, RICH], model=DropoutNet(), seed=3, on_epoch=stopped_after(num_epochs))
    seen = []
    with made_loaders(dogs_root) as loaders:
        trainer, result = train(
            loaders, tmp_path, [HEAD, RICH], model=DropoutNet(), seed=3, resume=True,
            on_resume=lambda history: seen.append(len(history)),
        )  # fmt: skip
    assert seen == [num_epochs]
    assert [session["first_epoch"] for session in result.sessions] == [1, num_epochs + 1]
    assert published(result.history) == published(expected.history)
    assert (result.best_epoch, result.best_val_accuracy) == (expected.best_epoch, expected.best_val_accuracy)
    assert all(torch.equal(value, trainer.model.state_dict()[key]) for key, value in weights.items())


@pytest.mark.parametrize("first_layout", [True, False])
def test_a_run_may_go_on_in_another_memory_layout(dogs_root, tmp_path, first_layout):
    """Fused AdamW reads weights and moments as they lie in memory, so both must lie alike."""
    with made_loaders(dogs_root) as loaders:
        _, expected = train(loaders, tmp_path / "whole", [FULL])
    settings = [StepSettings(channels_last=layout) for layout in (first_layout, not first_layout)]
    with made_loaders(dogs_root) as loaders, pytest.raises(StopError):
        train(loaders, tmp_path / "cut", [FULL], settings=settings[0], on_epoch=stopped_after(1))
    with made_loaders(dogs_root) as loaders:
        _, result = train(loaders, tmp_path / "cut", [FULL], settings=settings[1], resume=True)
    losses = [[row["train_loss"] for row in each.history] for each in (expected, result)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_the_best_checkpoint_is_made_again_where_a_kill_came_before_it(dogs_root, whole, tmp_path):
    folder, _, _ = whole
    last = load_checkpoint(folder / "last.pt")
    # As if the last epoch had been the best and the process had died between the two files.
    best = last["history"][-1]
    save_checkpoint(tmp_path / "last.pt", {**last, "best": best})
    shutil.copy(folder / "best.pt", tmp_path / "best.pt")
    with made_loaders(dogs_root) as loaders:
        trainer, result = train(loaders, tmp_path, [HEAD, RICH], model=DropoutNet(), seed=3, resume=True)
    assert result.best_epoch == 5
    expected = last["model"] | last["ema"]
    assert all(torch.equal(value, trainer.model.state_dict()[key]) for key, value in expected.items())
    assert not torch.equal(last["model"]["fc.weight"], last["ema"]["fc.weight"])


@pytest.mark.fault(
    "Archives and checkpoints",
    "--resume with a checkpoint that is damaged, of another run, of another kind, or lacks something",
    "one line with the file and what is wrong",
)
def test_checkpoints_that_do_not_fit_are_refused_by_name(dogs_root, whole, tmp_path):
    folder, _, _ = whole

    def refused(message, **settings):
        with made_loaders(dogs_root) as loaders, pytest.raises(CheckpointError, match=message):
            train(loaders, tmp_path, [HEAD, RICH], model=DropoutNet(), resume=True, **settings)

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    content = (folder / "last.pt").read_bytes()
    for cut in (0, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "last.pt").write_bytes(content[:cut])
        refused(r"checkpoint: .*last\.pt cannot be read")
    last = load_checkpoint(folder / "last.pt")
    damaged = bytearray(content)
    damaged[content.index(last["model"]["fc.weight"].numpy().tobytes())] ^= 0xFF
    (tmp_path / "last.pt").write_bytes(damaged)
    refused(r"checkpoint: .*last\.pt cannot be read \(a checksum is wrong\)")
    save_checkpoint(tmp_path / "last.pt", {**last, "best": last["history"][1]})
    save_checkpoint(tmp_path / "best.pt", {"model": last["model"], "row": last["history"][0]})
    refused(r"best\.pt does not belong to .*last\.pt")
    (tmp_path / "best.pt").unlink()
    refused(r"checkpoint: .*best\.pt cannot be read \(.*No such file")
    torch.save({"a": torch.ones(2)}, tmp_path / "last.pt")
    refused(r"checkpoint: .*last\.pt is not of format 3$")
    for name in ("history", "model", "best"):
        save_checkpoint(tmp_path / "last.pt", {**last, name: 3})
        refused(rf"checkpoint: .*last\.pt is incomplete: {name} is absent or of another kind$")
    cut = {**last, "history": last["history"][:4], "best": last["history"][3]}
    save_checkpoint(tmp_path / "last.pt", {key: value for key, value in cut.items() if key != "ema"})
    refused(r"checkpoint: .*last\.pt is incomplete: ema is absent$")
    save_checkpoint(tmp_path / "last.pt", {**cut, "ema": {"fc.weight": last["ema"]["fc.weight"]}})
    refused(r"checkpoint: .*last\.pt does not fit the phase \(the averages are of other weights\)$")
    first = next(iter(last["model"]))
    for value in (torch.ones(7, 7), "text"):
        best = {**last["best"], "epoch_total": len(last["history"])}
        save_checkpoint(tmp_path / "last.pt", {**last, "best": best, "model": {**last["model"], first: value}})
        refused(r"checkpoint: .*last\.pt does not fit the model \(")


def test_what_makes_a_run_is_in_its_checkpoint(loaders, tmp_path):
    identity = {"phases": [{"epochs": 2}, {"epochs": 3}], "seed": 1, "images": {"train": "a"}, "amp": None}
    train(loaders, tmp_path, [HEAD], identity=identity)
    changed = {"phases": [{"epochs": 2}, {"epochs": 4}], "seed": 1, "images": {"train": "b"}, "amp": "bf16"}
    differing = r"phases\[1\]\.epochs 3 there, 4 here; images\.train 'a' there, 'b' here; amp None there, 'bf16' here$"
    with pytest.raises(CheckpointError, match=rf"last\.pt is of another run: {differing}"):
        train(loaders, tmp_path, [HEAD], identity=changed, resume=True)
    # What an older version did not record is not known to differ.
    train(loaders, tmp_path, [HEAD], identity={**identity, "contents": {"train": "c"}}, resume=True)


def test_a_phase_warms_up_step_by_step(loaders, tmp_path, monkeypatch):
    rates = []
    call = TrainingStep.__call__

    def recorded(self, *arguments):
        rates.append(self.optimizer.param_groups[0]["lr"])
        return call(self, *arguments)

    monkeypatch.setattr(TrainingStep, "__call__", recorded)
    phase = Phase(name="tune", mode="full_finetune", epochs=3, lr=1.0, warmup_epochs=1)
    _, result = train(loaders, tmp_path, [phase])
    num_steps = len(loaders["train"])
    assert rates == pytest.approx(
        [(step + 1) / num_steps for step in range(num_steps)] + [1] * num_steps + [0.5] * num_steps
    )
    assert [row["lr"] for row in result.history] == pytest.approx([1, 0.5, 0])


def test_layer_groups_learn_at_their_own_rate(loaders, tmp_path):
    phase = Phase(name="tune", mode="full_finetune", epochs=1, lr=1e-2, layer_decay=1e-6)
    model = tiny_net()
    before = copy.deepcopy(model.state_dict())
    train(loaders, tmp_path, [phase], model=model)
    moved = {key: (value - before[key]).abs().max().item() for key, value in model.state_dict().items()}
    assert moved["fc.weight"] > 1e-3
    assert 0 < moved["body.0.weight"] < 1e-5


def test_a_model_thaws_from_the_head_down(dogs_root, tmp_path):
    phase = Phase(name="thaw", mode="full_finetune", epochs=3, lr=1e-2, unfreeze_every=1)
    with made_loaders(dogs_root) as loaders:
        _, result = train(loaders, tmp_path / "whole", [phase])
    head, everything = 32 * 4 + 4, sum(p.numel() for p in tiny_net().parameters())
    assert [row["trainable_params"] for row in result.history] == [head, everything, everything]
    for num_epochs in (1, 2):
        folder = tmp_path / str(num_epochs)
        with made_loaders(dogs_root) as loaders, pytest.raises(StopError):
            train(loaders, folder, [phase], on_epoch=stopped_after(num_epochs))
        with made_loaders(dogs_root) as loaders:
            _, again = train(loaders, folder, [phase], resume=True)
        assert published(again.history) == published(result.history)


def test_a_phase_without_gain_ends_early(dogs_root, tmp_path):
    stuck = Phase(name="stuck", mode="full_finetune", epochs=9, lr=1e-12, patience=2, min_delta=0.01)
    with made_loaders(dogs_root) as loaders:
        _, result = train(loaders, tmp_path, [stuck, HEAD])
    assert [row["phase"] for row in result.history] == ["stuck"] * 3 + ["head_only"] * 2
    with made_loaders(dogs_root) as loaders:
        _, again = train(loaders, tmp_path, [stuck, HEAD], resume=True)
    assert again.history == result.history


def test_every_epoch_says_where_its_time_went(loaders, tmp_path):
    _, result = train(loaders, tmp_path, [HEAD, FULL])
    so_far = 0.0
    for row in result.history:
        assert row["features_s"] == 0
        parts = sum(row[f"{part}_s"] for part in (*PARTS, "other", "validation"))
        assert parts == pytest.approx(row["epoch_seconds"], rel=0.02)
        assert row["train_images_per_second"] == pytest.approx(40 / (row["epoch_seconds"] - row["validation_s"]))
        assert 0 < row["median_step_ms"] <= row["p95_step_ms"]
        assert row["transfer_s"] == row["graph_s"] == 0
        assert row["peak_memory_mib"] > 100
        so_far += row["epoch_seconds"]
        assert row["seconds"] == pytest.approx(so_far, rel=0.05)
    assert result.training_seconds == result.history[-1]["seconds"]


def test_a_trace_has_the_steps_and_their_parts(loaders, tmp_path):
    # 5 batches: 1 warms the profiler up, 4 are traced.
    train(loaders, tmp_path, [HEAD, FULL], trace=True)
    for stage, phase in enumerate(("head_only", "full_finetune"), start=1):
        with gzip.open(tmp_path / f"trace_{stage}_{phase}.json.gz") as file:
            names = [event.get("name") for event in json.load(file)["traceEvents"]]
        assert min(names.count(part) for part in ("forward", "backward", "optimizer")) == 4
        assert "aten::convolution" in names


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"optimizer": "adam", "schedule": "constant"},
        {"optimizer": "sgd", "schedule": "one_cycle", "clip_norm": 0.1, "label_smoothing": 0.1, "ema_decay": 0.5},
    ],
    ids=["adamw", "adam", "sgd"],
)
def test_a_head_on_cached_features_learns_what_it_learns_on_the_frozen_backbone(dogs_root, tmp_path, fields):
    """The slow way: images without augmentation in the same order, through the backbone every time."""
    head = Phase(name="head_only", mode="head_only", epochs=2, lr=1e-2, **fields)
    with made_loaders(dogs_root, EVAL.at(32)) as loaders:
        _, slow = train(loaders, tmp_path / "slow", [head])
    with made_loaders(dogs_root) as loaders, made_loaders(dogs_root, EVAL.at(32), shuffle=False) as plain:
        trainer, fast = train(loaders, tmp_path / "fast", [head, FULL], plain_train_loader=plain["train"])
    for one, other in zip(slow.history, fast.history, strict=False):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-4)
    assert len(fast.history) == 5
    assert [row["features_s"] > 0 for row in fast.history] == [True, False, False, False, False]
    rows = fast.history
    assert rows[0]["seconds"] == pytest.approx(rows[0]["features_s"] + rows[0]["epoch_seconds"])
    assert set(load_checkpoint(trainer.best_path)["model"]) == set(tiny_net().state_dict())


def test_features_are_those_of_evaluation_and_the_heads_dropout_stays(dogs_root, tmp_path):
    """A dropout below the head is off, so that the features are those of the net without it."""
    assert dropped_before_head(DropoutNet()) == ["body.5"]
    with made_loaders(dogs_root, EVAL.at(32), shuffle=False) as plain:
        settings = {"plain_train_loader": plain["train"]}
        _, plain_net = train(plain, tmp_path / "plain", [HEAD], model=tiny_net(), **settings)
        _, dropping = train(plain, tmp_path / "below", [HEAD], model=DropoutNet(), **settings)
        at_head = tiny_net()
        at_head.fc = nn.Sequential(nn.Dropout(0.5), at_head.fc)
        assert dropped_before_head(at_head) == []
        _, in_head = train(plain, tmp_path / "in_head", [HEAD], model=at_head, **settings)
    losses = [[row["train_loss"] for row in result.history] for result in (plain_net, dropping, in_head)]
    assert losses[0] == losses[1]
    assert abs(losses[0][0] - losses[2][0]) > 1e-3


@pytest.mark.parametrize(
    ("name", "head", "dropped"),
    [
        ("efficientnet_b0", ["Dropout", "Linear"], ["StochasticDepth"]),
        ("vgg11", ["Dropout", "Linear"], ["Dropout"]),  # between its two pretrained layers
        ("mobilenet_v3_small", ["Dropout", "Linear"], []),
        ("resnet18", ["Linear"], []),
        ("resnet18:head=mlp", ["Head"], []),
        ("vgg11:head=256:head_dropout=0.3", ["Dropout", "Head"], ["Dropout"]),
        ("cnn5:dropout=0.3", ["Dropout", "Linear"], []),
        ("timm/tf_efficientnet_lite0", ["Linear"], []),
    ],
)
def test_a_dropout_right_before_the_head_is_of_the_head(name, head, dropped):
    with torch.device("meta"):
        model = build(name, image_size=64)
        layers = head_of(model)
        layers = layers if type(layers) is nn.Sequential else [layers]
        assert [type(layer).__name__ for layer in layers] == head
        assert sorted({type(model.get_submodule(each)).__name__ for each in dropped_before_head(model)}) == dropped


def test_features_need_one_head_whose_output_are_the_logits(dogs_root, tmp_path):
    with made_loaders(dogs_root, EVAL.at(32), shuffle=False) as plain:
        settings = {"plain_train_loader": plain["train"]}
        two = tiny_net()
        two.get_classifier = lambda: (two.fc, two.body[0])
        with pytest.raises(ValueError, match=r"cache_features: the model has 2 heads \(body\.0, fc\), expected one"):
            train(plain, tmp_path, [HEAD], model=two, **settings)
        net = tiny_net()
        net.register_forward_hook(lambda module, inputs, logits: logits * 2)
        with pytest.raises(ValueError, match="cache_features: the model's logits are not the output of its head"):
            train(plain, tmp_path, [HEAD], model=net, **settings)
