import dataclasses
import json

import pytest
import torch

from dogs_accel.models.freezing import trained_names
from dogs_accel.training.phases import STRATEGIES, Phase, starts_at_random, strategy_label, strategy_of, strategy_phases
from dogs_accel.training.schedules import cosine_factor


def test_a_family_without_rates_of_its_own_has_the_default_ones():
    assert strategy_phases("staged", "mixer") == strategy_phases("staged", "cnn")


def test_published_plans():
    assert [str(p) for p in strategy_phases("full", "cnn")] == ["full_finetune(12, 0.0001)"]
    assert [str(p) for p in strategy_phases("full", "vit")] == ["full_finetune(12, 3e-05)"]
    assert [str(p) for p in strategy_phases("staged", "cnn")] == ["head_only(3, 0.001)", "full_finetune(8, 0.0001)"]
    assert [str(p) for p in strategy_phases("staged", "vit")] == ["head_only(3, 0.001)", "full_finetune(8, 3e-05)"]
    assert all(phase.weight_decay == 1e-4 for phase in strategy_phases("staged", "vit"))


def test_published_labels():
    assert strategy_label(strategy_phases("full", "cnn")) == "Full fine-tuning for 12 epochs"
    assert strategy_label(strategy_phases("staged", "vit")) == "Head 3 + full fine-tune 8 epochs"
    assert strategy_label(strategy_phases("head", "cnn", epochs=[1])) == "Head only for 1 epoch"
    warm = Phase(name="full_finetune", mode="full_finetune", epochs=12, lr=1e-4, warmup_epochs=1)
    assert strategy_label([warm]) == "full_finetune(12, 0.0001, warmup_epochs=1)"


# The learning rates that the published histories hold, read after the scheduler's step.
PUBLISHED_LR = {
    (3, 1e-3): [0.00075, 0.0002500000000000001, 0.0],
    (8, 1e-4): [9.619397662556435e-05, 8.535533905932738e-05, 6.91341716182545e-05, 5e-05],
    (12, 1e-4): [9.829629131445342e-05, 9.330127018922194e-05],
}


@pytest.mark.parametrize(("schedule", "expected"), PUBLISHED_LR.items())
def test_cosine_gives_the_published_digits(schedule, expected):
    epochs, lr = schedule
    assert [lr * cosine_factor(epoch, epochs) for epoch in range(1, len(expected) + 1)] == expected


@pytest.mark.parametrize(
    ("strategy", "epochs", "expected"),
    [("full", [5], [5]), ("staged", [2], [2, 2]), ("staged", [1, 4], [1, 4])],
)
def test_epochs_can_be_replaced(strategy, epochs, expected):
    assert [phase.epochs for phase in strategy_phases(strategy, "cnn", epochs=epochs)] == expected


def test_wrong_values_are_named():
    with pytest.raises(ValueError, match=r"epochs: got 1\+2 for 'full', expected 1;"):
        strategy_phases("full", "cnn", epochs=[1, 2])
    with pytest.raises(ValueError, match="strategies: got 'half'"):
        strategy_phases("half", "cnn")
    with pytest.raises(ValueError, match="mode: got 'all'"):
        Phase(name="x", mode="all", epochs=1, lr=1)
    with pytest.raises(ValueError, match="epochs: got 0"):
        Phase(name="x", mode="head_only", epochs=0, lr=1)
    with pytest.raises(ValueError, match=r"warmup_epochs: got 0\.5, expected an integer"):
        Phase(name="x", mode="head_only", epochs=2, lr=1, warmup_epochs=0.5)
    with pytest.raises(ValueError, match="lr: got nan"):
        Phase(name="x", mode="head_only", epochs=1, lr=float("nan"))
    with pytest.raises(ValueError, match="weight_decay: got -3"):
        Phase(name="x", mode="head_only", epochs=1, lr=1, weight_decay=-3)
    with pytest.raises(ValueError, match="lr: got 0"):
        Phase(name="x", mode="head_only", epochs=1, lr=0)


def phase(**fields):
    return Phase(**({"name": "tune", "mode": "full_finetune", "epochs": 8, "lr": 1e-3} | fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"warmup_epochs": 8}, "warmup_epochs: got 8 for a phase of 8, expected an integer from 0 to 7"),
        ({"warmup_epochs": -1}, "warmup_epochs: got -1 for a phase of 8, expected an integer from 0 to 7"),
        ({"layer_decay": 0.0}, "layer_decay: got 0.0, expected a number > 0 and <= 1"),
        ({"layer_decay": 1.5}, "layer_decay: got 1.5, expected a number > 0 and <= 1"),
        ({"layer_decay": float("nan")}, "layer_decay: got nan, expected a number > 0 and <= 1"),
        ({"unfreeze_every": -1}, "unfreeze_every: got -1, expected an integer >= 0"),
        (
            {"unfreeze_every": 2, "mode": "head_only"},
            "unfreeze_every: got 2 with mode head_only, expected 0, or mode full_finetune",
        ),
        ({"mode": "partial_finetun"}, "mode: got 'partial_finetun', .* .did you mean 'partial_finetune'.*"),
        ({"mode": "partial_finetune"}, "num_groups: got 0 and no groups, expected one of the two with mode .*"),
        (
            {"mode": "partial_finetune", "num_groups": 2, "groups": ("fc",)},
            "num_groups: got 2 beside groups fc, expected one of the two with mode .*",
        ),
        ({"num_groups": 2}, "num_groups: got 2 with mode full_finetune, expected 0, or mode partial_finetune"),
        ({"groups": ["a", "b"]}, r"groups: got a\+b with mode full_finetune, expected mode partial_finetune"),
        ({"groups": "layer4"}, "groups: got 'layer4', expected beginnings of parameters' names"),
        ({"optimizer": "rmsprop"}, "optimizer: got 'rmsprop', expected one of adamw, adam, sgd"),
        ({"momentum": 0.5}, "momentum: got 0.5 with optimizer adamw, expected 0.9, or optimizer sgd"),
        ({"nesterov": True}, "nesterov: got True with optimizer adamw, expected False, or optimizer sgd"),
        ({"nesterov": 1}, "nesterov: got 1, expected true or false"),
        ({"optimizer": "sgd", "nesterov": True, "momentum": 0}, "momentum: got 0 with nesterov, expected a number > 0"),
        ({"optimizer": "sgd", "momentum": 1}, "momentum: got 1, expected a number >= 0 and < 1"),
        ({"schedule": "step"}, "step_epochs: got 0 with schedule step, expected an integer >= 1"),
        ({"gamma": 0.5}, "gamma: got 0.5 with schedule cosine, expected 0.1, or schedule step"),
        ({"schedule": "step", "step_epochs": 1, "gamma": 0}, "gamma: got 0, expected a number > 0 and <= 1"),
        ({"pct_start": 0.1}, "pct_start: got 0.1 with schedule cosine, expected 0.3, or schedule one_cycle"),
        (
            {"schedule": "one_cycle", "warmup_epochs": 1},
            "warmup_epochs: got 1 with schedule one_cycle, which climbs by itself, expected 0",
        ),
        (
            {"schedule": "one_cycle", "optimizer": "sgd", "momentum": 0.8},
            "momentum: got 0.8 with schedule one_cycle, which sets the momentum, expected 0.9",
        ),
        ({"lrs": {"fc": 1}, "layer_decay": 0.5}, "lrs: got it with layer_decay 0.5, expected one of the two"),
        ({"lrs": {"fc": 0}}, "lrs: got 0 for fc, expected a number > 0"),
        ({"lrs": [1]}, r"lrs: got \[1\], expected learning rates by the beginning of a parameter's name"),
        ({"clip_norm": -1}, "clip_norm: got -1, expected a number >= 0"),
        ({"label_smoothing": 1}, "label_smoothing: got 1, expected a number >= 0 and < 1"),
        ({"ema_decay": 1}, "ema_decay: got 1, expected a number >= 0 and < 1"),
        ({"monitor": "f1"}, "monitor: got 'f1', expected one of accuracy, loss"),
        ({"lr": "fast"}, "lr: got 'fast', expected a number > 0 and at most 1e\\+06"),
        ({"patience": -1}, "patience: got -1, expected an integer >= 0"),
        ({"min_delta": -0.1}, "min_delta: got -0.1, expected a number >= 0"),
        ({"min_delta": float("nan")}, "min_delta: got nan, expected a number >= 0"),
        ({"min_delta": float("inf")}, "min_delta: got inf, expected a number >= 0"),
    ],
)
def test_a_wrong_field_is_named_with_what_it_expects(fields, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        phase(**fields)


@pytest.mark.parametrize("strategy", ["full", "staged", "head"])
def test_a_published_phase_is_written_with_the_published_keys(strategy):
    for published in strategy_phases(strategy, "vit"):
        assert list(published.as_dict()) == ["name", "mode", "epochs", "lr", "weight_decay"]
        assert Phase(**published.as_dict()) == published


def test_what_differs_from_the_defaults_is_written_too():
    other = phase(
        weight_decay=0.05, warmup_epochs=2, layer_decay=0.75, unfreeze_every=1, patience=3, min_delta=1e-3,
        mix="mixup_or_cutmix", mixup_alpha=0.4, cutmix_alpha=0.5, mix_probability=0.9,
    )  # fmt: skip
    published = ("name", "mode", "epochs", "lr", "weight_decay")
    assert list(other.as_dict()) == [
        *published, "warmup_epochs", "layer_decay", "unfreeze_every", "patience", "min_delta",
        "mix", "mixup_alpha", "cutmix_alpha", "mix_probability",
    ]  # fmt: skip
    assert other.as_dict() == {key: dataclasses.asdict(other)[key] for key in other.as_dict()}
    expected = "weight_decay=0.05, warmup_epochs=2, layer_decay=0.75, unfreeze_every=1, patience=3, min_delta=0.001"
    expected += ", mix=mixup_or_cutmix, mixup_alpha=0.4, cutmix_alpha=0.5, mix_probability=0.9"
    assert str(other) == f"tune(8, 0.001, {expected})"
    assert str(phase(patience=2)) == "tune(8, 0.001, patience=2)"
    assert phase(patience=2).as_dict() == {
        "name": "tune", "mode": "full_finetune", "epochs": 8, "lr": 1e-3, "weight_decay": 1e-4, "patience": 2
    }  # fmt: skip


@pytest.mark.parametrize(("schedule", "expected"), PUBLISHED_LR.items())
def test_without_warmup_the_rate_has_the_published_digits(schedule, expected):
    epochs, lr = schedule
    plain = phase(epochs=epochs, lr=lr)
    assert plain.lr_at(0) == lr
    assert [plain.lr_after(epoch) for epoch in range(len(expected))] == expected
    assert [plain.lr_at(epoch) for epoch in range(1, len(expected) + 1)] == expected


def test_the_cosine_falls_by_epochs_and_not_inside_them():
    plain = phase(epochs=3, lr=1)
    assert not plain.moves_within(0)
    assert [plain.lr_at(0, step, 9) for step in (0, 5, 8)] == [1, 1, 1]
    assert plain.lr_at(1, 0, 9) == plain.lr_at(1, 8, 9) == plain.lr_after(0, 9) == 0.75
    assert plain.lr_after(2) == 0
    assert plain.momentum_at(0, 0, 9) is None


@pytest.mark.parametrize("schedule", [{}, {"schedule": "constant"}, {"schedule": "step", "step_epochs": 2}])
def test_warmup_climbs_in_a_line_and_leaves_the_rest_to_the_schedule(schedule):
    warm, rest = phase(epochs=5, lr=1, warmup_epochs=2, **schedule), phase(epochs=3, lr=1, **schedule)
    assert [warm.moves_within(epoch) for epoch in range(5)] == [True, True, False, False, False]
    assert [warm.lr_at(epoch, step, 4) for epoch in (0, 1) for step in range(4)] == [share / 8 for share in range(1, 9)]
    assert [warm.lr_at(epoch, 3, 4) for epoch in (2, 3, 4)] == [rest.lr_at(epoch) for epoch in range(3)]
    assert [warm.lr_after(epoch, 4) for epoch in range(5)] == [0.5, 1, *(rest.lr_after(epoch) for epoch in range(3))]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"mode": "head_only"}, [1] * 8),
        ({"mode": "partial_finetune", "num_groups": 3}, [3] * 8),
        ({"mode": "partial_finetune", "groups": ["stem", "one"]}, [2] * 8),
        ({}, [6] * 8),
        ({"unfreeze_every": 1}, [1, 2, 3, 4, 5, 6, 6, 6]),
        ({"unfreeze_every": 3}, [1, 1, 1, 2, 2, 2, 3, 3]),
        ({"unfreeze_every": 9}, [1] * 8),
    ],
)
def test_groups_that_train_in_each_epoch(fields, expected):
    model = Net()
    found = [trained_names(model, *phase(**fields).stage_at(epoch, 6)) for epoch in range(8)]
    assert [len({name.split(".")[0] for name in names}) for names in found] == expected


class Net(torch.nn.Module):
    """Six layer groups."""

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two, self.three, self.four, self.fc = (torch.nn.Linear(2, 2) for _ in range(6))


def stops_at(accuracies, **fields):
    """Epochs until the phase ends early, None where it runs through."""
    plan = phase(**fields)
    return next((count for count in range(len(accuracies) + 1) if plan.stops_after(accuracies[:count])), None)


@pytest.mark.parametrize(
    ("accuracies", "fields", "expected"),
    [
        ([0.5, 0.4, 0.3, 0.2], {}, None),  # off
        ([0.5, 0.6, 0.7, 0.8], {"patience": 1}, None),
        ([0.0, 0.0], {"patience": 1}, 2),  # the first epoch gains, whatever it reaches
        ([0.5, 0.5, 0.5], {"patience": 2}, 3),  # as good is no gain
        ([0.5, 0.4, 0.45, 0.48], {"patience": 3}, 4),  # better than the epoch before, not than the best
        ([0.5, 0.4, 0.6, 0.5, 0.7, 0.6], {"patience": 2}, None),  # never two in a row
        ([0.5, 0.4, 0.6, 0.5, 0.55], {"patience": 2}, 5),
        ([0.5, 0.75, 1.0], {"patience": 1, "min_delta": 0.25}, 2),  # a gain of exactly min_delta is none
        ([0.5, 0.625, 0.8125, 0.875], {"patience": 2, "min_delta": 0.25}, None),  # small steps add up
        ([0.5, 0.625, 0.75, 0.875], {"patience": 2, "min_delta": 0.25}, 3),
    ],
)
def test_early_stopping(accuracies, fields, expected):
    assert stops_at(accuracies, **fields) == expected


def lightning_stops_at(accuracies, patience, min_delta, mode="max"):
    early_stopping = pytest.importorskip("pytorch_lightning.callbacks").EarlyStopping
    judge = early_stopping("val_acc", mode=mode, patience=patience, min_delta=min_delta)
    return next((count for count, acc in enumerate(accuracies, 1) if judge._evaluate_stopping_criteria(acc)[0]), None)


@pytest.mark.parametrize("patience", [1, 2, 4])
@pytest.mark.parametrize("min_delta", [0.0, 0.02])
def test_early_stopping_is_that_of_lightning(patience, min_delta):
    ends = set()
    for seed in range(20):
        accuracies = torch.rand(12, generator=torch.Generator().manual_seed(seed)).cumsum(0).sqrt() / 4
        accuracies += torch.rand(12, generator=torch.Generator().manual_seed(100 + seed)) / 5
        end = stops_at(accuracies.tolist(), patience=patience, min_delta=min_delta)
        assert end == lightning_stops_at(accuracies.double(), patience, min_delta)
        losses = 1.5 - accuracies.double()
        on_loss = stops_at(losses.tolist(), patience=patience, min_delta=min_delta, monitor="loss")
        assert on_loss == lightning_stops_at(losses, patience, min_delta, "min")
        ends.add(end)
    assert len(ends) > 1


def test_what_is_monitored_says_which_epoch_is_better():
    rows = [{"val_acc": 0.5, "val_loss": 1.0}, {"val_acc": 0.6, "val_loss": 1.2}]
    assert phase().is_better(rows[1], rows[0])
    assert not phase().is_better(rows[0], rows[0])  # the first one of equals
    assert not phase(monitor="loss").is_better(rows[1], rows[0])
    assert phase(monitor="loss").is_better(rows[0], rows[1])
    assert phase(monitor="loss").is_better(rows[1], None)


FIELDS = {
    "name": "x", "mode": "partial_finetune", "epochs": 6, "lr": 0.1, "weight_decay": 0.0, "patience": 2,
    "groups": ["layer4", "fc"], "optimizer": "sgd", "momentum": 0.8, "nesterov": True, "schedule": "step",
    "step_epochs": 2, "gamma": 0.5, "lrs": {"layer4": 0.01}, "decay_norms": False, "clip_norm": 1.0,
    "label_smoothing": 0.1, "monitor": "loss", "ema_decay": 0.9,
}  # fmt: skip


def test_a_phase_is_the_same_when_it_was_written_to_json_and_read_again():
    other = Phase(**FIELDS)
    again = Phase(**json.loads(json.dumps(other.as_dict())))
    assert again == other
    assert again.groups == ("layer4", "fc")
    assert str(other) == (
        "x(6, 0.1, weight_decay=0, patience=2, groups=layer4+fc, optimizer=sgd, momentum=0.8, nesterov=True, "
        "schedule=step, step_epochs=2, gamma=0.5, lrs=layer4:0.01, decay_norms=False, clip_norm=1, "
        "label_smoothing=0.1, monitor=loss, ema_decay=0.9)"
    )


@pytest.mark.parametrize(
    ("strategy", "family", "expected", "label"),
    [
        (
            "partial", "cnn", "partial_finetune(12, 0.0001, num_groups=2)", "Last 2 layer groups for 12 epochs"
        ),
        ("gradual", "cnn", "gradual(12, 0.0001, unfreeze_every=2)", "Gradual unfreezing for 12 epochs"),
        ("gradual", "vit", "gradual(12, 3e-05, unfreeze_every=1)", "Gradual unfreezing for 12 epochs"),
        (
            "layerwise", "cnn", "layerwise(12, 0.0005, weight_decay=0.01, layer_decay=0.5)",
            "Layer-wise rates for 12 epochs",
        ),
        (
            "layerwise", "vit", "layerwise(12, 0.00015, weight_decay=0.01, layer_decay=0.75)",
            "Layer-wise rates for 12 epochs",
        ),
        (
            "scratch", "cnn", "from_scratch(50, 0.001, weight_decay=0.05, warmup_epochs=5, decay_norms=False)",
            "From scratch for 50 epochs",
        ),
        (
            "scratch", "vit", "from_scratch(50, 0.0005, weight_decay=0.05, warmup_epochs=5, decay_norms=False)",
            "From scratch for 50 epochs",
        ),
    ],
)  # fmt: skip
def test_other_strategies_and_their_names(strategy, family, expected, label):
    [planned] = strategy_phases(strategy, family)
    assert str(planned) == expected
    assert strategy_label([planned]) == label
    assert strategy_label([dataclasses.replace(planned, label_smoothing=0.1)]).startswith(planned.name)


def test_scratch_alone_starts_at_random():
    assert [each for each in (*STRATEGIES, "scratch-long", "full-scratch") if starts_at_random(each)] == [
        "scratch", "scratch-long"
    ]  # fmt: skip


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("family", ["cnn", "vit", "mixer"])
def test_a_strategy_is_known_by_its_phases_whatever_their_epochs_and_rates(strategy, family):
    for epochs in (None, [1], [7]):
        lr = {"head_only": {"cnn": 0.5}, "full_finetune": {"cnn": 0.25}}
        phases = [phase.as_dict() for phase in strategy_phases(strategy, family, lr, epochs)]
        assert strategy_of(json.loads(json.dumps(phases))) == strategy
        assert strategy_of([phase | {"patience": 3} for phase in phases]) is None
    assert strategy_of([{"mode": "full_finetune", "name": "full_finetune"}]) is None


@pytest.mark.parametrize(
    ("given", "idle"),
    [
        ({}, {}),
        ({"patience": 9}, {"patience": "10 epochs end first"}),
        ({"patience": 8}, {}),  # which may end it an epoch early
        ({"epochs": 1, "patience": 1}, {"patience": "1 epoch ends first"}),
        ({"min_delta": 0.1}, {"min_delta": "patience is 0"}),
        ({"layer_decay": 0.5}, {}),
        ({"layer_decay": 0.5, "mode": "head_only"}, {"layer_decay": "the head alone trains"}),
        ({"schedule": "step", "step_epochs": 9}, {}),
        ({"schedule": "step", "step_epochs": 10}, {"step_epochs": "10 epochs end first"}),
        ({"schedule": "step", "step_epochs": 9, "warmup_epochs": 1}, {"step_epochs": "10 epochs end first"}),
        ({"decay_norms": False, "weight_decay": 0.0}, {"decay_norms": "weight_decay is 0"}),
    ],
)
def test_what_a_phase_is_told_to_no_effect_is_known(given, idle):
    phase = Phase(**{"name": "x", "mode": "full_finetune", "epochs": 10, "lr": 1.0} | given)
    assert phase.idle_fields == idle


def test_patience_that_is_no_effect_ends_no_phase_early_and_less_does():
    """The first epoch always gains, and none after it: the worst course that there can be."""
    worst = [0.9] + [0.1] * 9
    for patience, ends_early in ((9, False), (8, True)):
        phase = Phase(name="x", mode="full_finetune", epochs=10, lr=1.0, patience=patience)
        assert any(phase.stops_after(worst[:num]) for num in range(1, 10)) == ends_early
        assert ("patience" in phase.idle_fields) == (not ends_early)
