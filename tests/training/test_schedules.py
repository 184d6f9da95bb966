"""Schedules and optimisers against torch's own, digit for digit."""

import pytest
import timm.optim
import torch
from torch import nn
from torch.optim import lr_scheduler

from dogs_accel.training.optimizers import make_optimizer, param_groups, phase_optimizer, set_rates
from dogs_accel.training.phases import Phase
from dogs_accel.training.step import StepSettings

PLAIN = StepSettings(fused_optimizer=False)


def phase(**fields):
    return Phase(**({"name": "tune", "mode": "full_finetune", "epochs": 7, "lr": 3e-3} | fields))


def small_net():
    """Without a bias before the norm, whose gradient is rounding and nothing else."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    net.fc = nn.Linear(16, 3)
    return net


def of_torch(name, own, **how):
    """An optimiser of torch with two rates, as one that a test compares with."""
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    return getattr(torch.optim, name)([{"params": [first], "lr": own}, {"params": [second]}], lr=3e-3, **how)


@pytest.mark.parametrize(
    ("fields", "make"),
    [
        ({"schedule": "constant"}, lambda optimizer: lr_scheduler.ConstantLR(optimizer, 1.0)),
        ({"schedule": "step", "step_epochs": 2}, lambda optimizer: lr_scheduler.StepLR(optimizer, 2)),
        ({"schedule": "step", "step_epochs": 3, "gamma": 0.7}, lambda own: lr_scheduler.StepLR(own, 3, 0.7)),
    ],
)  # fmt: skip
def test_rates_of_epochs_are_torchs(fields, make):
    plan, theirs = phase(**fields), of_torch("AdamW", 7e-4)
    ours = make_optimizer([{"params": group["params"], "lr": group["lr"]} for group in theirs.param_groups], 3e-3, 0.0,
                          PLAIN)  # fmt: skip
    scheduler = make(theirs)
    for epoch in range(plan.epochs):
        set_rates(ours, plan, epoch, 0, 5)
        assert [group["lr"] for group in ours.param_groups] == [group["lr"] for group in theirs.param_groups]
        theirs.step()
        scheduler.step()
        assert plan.lr_after(epoch, 5) == theirs.param_groups[1]["lr"]


@pytest.mark.parametrize(
    ("name", "how"),
    [("SGD", {"momentum": 0.9}), ("SGD", {"momentum": 0.9, "nesterov": True}), ("AdamW", {}), ("Adam", {})],
)
@pytest.mark.parametrize(
    ("num_epochs", "num_steps", "pct_start"), [(7, 5, 0.3), (2, 1, 0.3), (4, 3, 0.6), (1, 40, 0.02)]
)
def test_one_cycle_is_torchs_step_by_step(name, how, num_epochs, num_steps, pct_start):
    plan = phase(
        epochs=num_epochs, schedule="one_cycle", pct_start=pct_start, optimizer=name.lower(),
        nesterov=how.get("nesterov", False),
    )  # fmt: skip
    theirs = of_torch(name, 7e-4, **how)
    ours = of_torch(name, 7e-4, **how)
    for group in ours.param_groups:
        group["initial_lr"] = group["lr"]
    scheduler = lr_scheduler.OneCycleLR(
        theirs, [7e-4, 3e-3], epochs=num_epochs, steps_per_epoch=num_steps, pct_start=pct_start
    )
    assert plan.moves_within(num_epochs - 1)
    for at in range(num_epochs * num_steps):
        set_rates(ours, plan, *divmod(at, num_steps), num_steps)
        for one, other in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert one["lr"] == other["lr"]
            assert one.get("momentum") == other.get("momentum")
            assert one.get("betas") == other.get("betas")
        theirs.step()
        if at + 1 < num_epochs * num_steps:
            scheduler.step()
        if (at + 1) % num_steps == 0:
            assert plan.lr_after(at // num_steps, num_steps) == theirs.param_groups[1]["lr"]


def test_one_cycle_whose_first_step_is_the_peak_starts_there():
    """torch divides by zero."""
    plan = phase(epochs=1, lr=1.0, schedule="one_cycle", pct_start=0.1)
    assert plan.lr_at(0, 0, 10) == 1
    assert plan.momentum_at(0, 0, 10) == 0.85
    assert plan.lr_at(0, 9, 10) == pytest.approx(1 / 250_000)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    ("fields", "theirs"),
    [
        ({"optimizer": "sgd"}, lambda own: torch.optim.SGD(own, momentum=0.9, **HOW)),
        ({"optimizer": "sgd", "momentum": 0.0}, lambda own: torch.optim.SGD(own, **HOW)),
        (
            {"optimizer": "sgd", "momentum": 0.8, "nesterov": True},
            lambda own: torch.optim.SGD(own, momentum=0.8, nesterov=True, **HOW),
        ),
        ({"optimizer": "adam"}, lambda own: torch.optim.Adam(own, **HOW)),
        ({}, lambda own: torch.optim.AdamW(own, **HOW)),
    ],
)
def test_steps_are_those_of_torchs_optimisers(fields, theirs, fused):
    plan = phase(lr=0.1, weight_decay=0.05, **fields)
    one, other = small_net(), small_net()
    ours = phase_optimizer(one, plan, StepSettings(fused_optimizer=fused))
    theirs = theirs(other.parameters())
    for step in range(4):
        images = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(step))
        for net, optimizer in ((one, ours), (other, theirs)):
            optimizer.zero_grad()
            net(images).square().sum().backward()
            optimizer.step()
    for value, expected in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5 if fused else 0, atol=1e-5 if fused else 0)
    assert all(group["fused"] is (True if fused else None) for group in ours.param_groups)


HOW = {"lr": 0.1, "weight_decay": 0.05}


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto"])
def test_norms_and_biases_that_do_not_decay_are_timms(name):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=3)
    groups = param_groups(model, phase(weight_decay=0.05, decay_norms=False))
    ours = sorted(groups, key=lambda group: "weight_decay" in group)
    without, with_decay = timm.optim.param_groups_weight_decay(model, weight_decay=0.05)
    for group, expected in zip(ours, (with_decay, without), strict=True):
        assert group.get("weight_decay", 0.05) == expected["weight_decay"]
        assert list(map(id, group["params"])) == list(map(id, expected["params"]))
    [every] = param_groups(model, phase(weight_decay=0.05))
    assert len(every["params"]) == len(with_decay["params"]) + len(without["params"])
