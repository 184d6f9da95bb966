"""The engine against a plain float32 loop, and what it promises about phases, best weights and checkpoints."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from dogs_accel.amp import amp_dtype
from dogs_accel.checkpoint import load_checkpoint, save_checkpoint
from dogs_accel.datasets import open_dataset
from dogs_accel.models import set_train_mode, set_trainable_stage
from dogs_accel.phases import Phase
from dogs_accel.train import DivergedError, Trainer
from dogs_accel.training_step import StepSettings
from pipelines import EVAL, VIT_TRAIN, make_loader

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


@pytest.fixture
def loaders(dogs_root):
    data = open_dataset(dogs_root)
    made = {}
    for split, recipe in (("train", VIT_TRAIN.at(32)), ("val", EVAL.at(32))):
        index = data.split(split)
        made[split] = make_loader(
            [data.paths[i] for i in index],
            data.labels[index],
            recipe,
            backend="dali",
            batch_size=8,
            device="cpu",
            seed=1,
            shuffle=split == "train",
        )
    yield made
    for loader in made.values():
        loader.close()


def train(loaders, folder, phases, model=None, **settings):
    trainer = Trainer(
        model or tiny_net(), loaders["train"], loaders["val"], num_classes=4, device=CPU, folder=folder, **settings
    )
    return trainer, trainer.run(phases)


HEAD = Phase(name="head_only", mode="head_only", epochs=2, lr=1e-2)
FULL = Phase(name="full_finetune", mode="full_finetune", epochs=3, lr=5e-3)


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
            for images, labels, _ in loaders["train"]:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images), labels).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                batches = [(model(images), labels) for images, labels, _ in loaders["val"]]
            logits, labels = (torch.cat(part) for part in zip(*batches, strict=True))
            losses.append(nn.functional.cross_entropy(logits, labels).item())
            accuracies.append((logits.argmax(1) == labels).double().mean().item())
            epoch_total += 1
    return losses, accuracies


def test_history_is_that_of_a_plain_loop(loaders, tmp_path):
    _, result = train(loaders, tmp_path, [HEAD, FULL])
    losses, accuracies = plain_training(loaders, [HEAD, FULL])
    assert [row["val_loss"] for row in result.history] == pytest.approx(losses, rel=1e-3)
    assert [row["val_acc"] for row in result.history] == pytest.approx(accuracies)


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
    with pytest.raises(ValueError, match=r"old\.pt is not of format 2"):
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


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_epoch(loaders, tmp_path):
    blow_up = Phase(name="full_finetune", mode="full_finetune", epochs=2, lr=1e38)
    with pytest.raises(DivergedError, match=r"net: the loss of full_finetune epoch [12] is .* at lr 1e\+38"):
        train(loaders, tmp_path, [HEAD, blow_up], label="net")
    assert len(load_checkpoint(tmp_path / "last.pt")["history"]) >= 2
