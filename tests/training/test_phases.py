import dataclasses

import pytest
import torch

from dogs_accel.training.phases import STRATEGIES, Phase, cosine_factor, strategy_label, strategy_phases


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
        ({"unfreeze_every": 2, "mode": "head_only"}, "unfreeze_every: got 2 with mode head_only, expected 0"),
        ({"patience": -1}, "patience: got -1, expected an integer >= 0"),
        ({"min_delta": -0.1}, "min_delta: got -0.1, expected a number >= 0"),
        ({"min_delta": float("nan")}, "min_delta: got nan, expected a number >= 0"),
    ],
)
def test_a_wrong_field_is_named_with_what_it_expects(fields, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        phase(**fields)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_published_phase_is_written_with_the_published_keys(strategy):
    for published in strategy_phases(strategy, "vit"):
        assert list(published.as_dict()) == ["name", "mode", "epochs", "lr", "weight_decay"]
        assert Phase(**published.as_dict()) == published


def test_what_differs_from_the_defaults_is_written_too():
    other = phase(
        weight_decay=0.05, warmup_epochs=2, layer_decay=0.75, unfreeze_every=1, patience=3, min_delta=1e-3,
        mix="mixup_or_cutmix", mixup_alpha=0.4, cutmix_alpha=0.5, mix_probability=0.9,
    )  # fmt: skip
    assert other.as_dict() == dataclasses.asdict(other)
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
    assert plain.lr_factor(0) == 1
    assert [lr * plain.lr_factor(epoch) for epoch in range(1, len(expected) + 1)] == expected


def test_the_cosine_falls_by_epochs_and_not_inside_them():
    plain = phase(epochs=3)
    assert [plain.lr_factor(moment) for moment in (0.0, 0.5, 0.999)] == [1, 1, 1]
    assert plain.lr_factor(1.0) == plain.lr_factor(1.999) == 0.75
    assert plain.lr_factor(3.0) == 0


def test_warmup_climbs_in_a_line_and_leaves_the_rest_to_the_cosine():
    warm = phase(epochs=5, warmup_epochs=2)
    assert [warm.lr_factor(moment) for moment in (0, 0.25, 1, 1.75, 2)] == [0, 0.125, 0.5, 0.875, 1]
    assert [warm.lr_factor(epoch) for epoch in (2, 3, 4, 5)] == [cosine_factor(epoch, 3) for epoch in range(4)]
    assert warm.lr_factor(4.5) == warm.lr_factor(4)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"mode": "head_only"}, [1] * 8),
        ({}, [6] * 8),
        ({"unfreeze_every": 1}, [1, 2, 3, 4, 5, 6, 6, 6]),
        ({"unfreeze_every": 3}, [1, 1, 1, 2, 2, 2, 3, 3]),
        ({"unfreeze_every": 9}, [1] * 8),
    ],
)
def test_groups_that_train_in_each_epoch(fields, expected):
    assert [phase(**fields).num_trainable_groups(epoch, 6) for epoch in range(8)] == expected


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


def lightning_stops_at(accuracies, patience, min_delta):
    early_stopping = pytest.importorskip("pytorch_lightning.callbacks").EarlyStopping
    judge = early_stopping("val_acc", mode="max", patience=patience, min_delta=min_delta)
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
        ends.add(end)
    assert len(ends) > 1
