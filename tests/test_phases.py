import pytest

from dogs_accel.phases import Phase, cosine_factor, strategy_label, strategy_phases


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
    with pytest.raises(ValueError, match="lr: got 0"):
        Phase(name="x", mode="head_only", epochs=1, lr=0)
