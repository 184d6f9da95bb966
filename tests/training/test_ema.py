"""The average of the weights against torch's own."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dogs_accel.training.ema import AveragedWeights


def moved(model, step):
    """Change everything that a step of training changes."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for value in (*model.parameters(), model[1].running_mean, model[1].running_var):
            value.add_(torch.rand(value.shape, generator=generator))
        model[1].num_batches_tracked += 1


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


@pytest.mark.parametrize("decay", [0.9, 0.3])
def test_the_average_is_torchs(decay):
    model = net()
    average = AveragedWeights(model, [name for name, _ in model.named_parameters()], decay)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    for step in range(5):
        moved(model, step)
        average.update()
        theirs.update_parameters(model)
        own = copy.deepcopy(model.state_dict())
        with average.in_place():
            for name, value in theirs.module.state_dict().items():
                if value.is_floating_point():
                    assert torch.equal(model.state_dict()[name], value), name
            assert model[1].num_batches_tracked == step + 1
        assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    assert not torch.equal(average.state_dict()["0.weight"], model[0].weight)
    of_buffers = [average.state_dict()[name] for name in ("1.running_mean", "1.running_var")]
    assert list(map(id, average.buffers)) == list(map(id, of_buffers))


def test_what_does_not_train_is_not_averaged_and_the_model_gets_its_weights_back_after_a_failure():
    model = net()
    average = AveragedWeights(model, ["3.weight", "3.bias"], 0.5)
    assert sorted(average.state_dict()) == ["1.running_mean", "1.running_var", "3.bias", "3.weight"]
    for step in range(2):
        moved(model, step)
        average.update()
    before = copy.deepcopy(model.state_dict())

    def fail():
        with average.in_place():
            assert torch.equal(model[0].weight, before["0.weight"])
            assert not torch.equal(model[3].weight, before["3.weight"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_average_that_goes_on_ends_in_the_same_bits_and_another_ones_is_refused():
    model = net()
    names = [name for name, _ in model.named_parameters()]
    whole = AveragedWeights(model, names, 0.9)
    for step in range(2):
        moved(model, step)
        whole.update()
    again = AveragedWeights(model, names, 0.9)
    again.load_state_dict(copy.deepcopy(whole.state_dict()))
    moved(model, 2)
    whole.update()
    again.update()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())
    with pytest.raises(ValueError, match="the averages are of other weights"):
        again.load_state_dict({name: value for name, value in whole.state_dict().items() if name != "3.bias"})


def test_a_weight_of_two_names_is_averaged_once_under_both():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    average = AveragedWeights(model, [name for name, _ in model.named_parameters()], 0.5)
    for value in (1.0, 3.0):
        with torch.no_grad():
            model[0].weight.fill_(value)
        average.update()
    assert sorted(average.state_dict()) == sorted(model.state_dict())
    with average.in_place():
        assert (model[1].weight == 2).all()
