import torch
from torch import nn

from dogs_accel.models.freezing import set_train_mode, set_trainable_stage


def _statistics_after_a_step(bn_when_frozen, mode):
    model = nn.Sequential()
    model.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.fc = nn.Linear(4, 2)
    set_trainable_stage(model, mode)
    set_train_mode(model, bn_when_frozen)
    assert model.training
    model(torch.randn(8, 3, 6, 6) + 5)
    return model.body[1].running_mean.abs().sum().item()


def test_batchnorm_of_a_frozen_backbone_keeps_its_statistics():
    assert _statistics_after_a_step("eval", "head_only") == 0
    assert _statistics_after_a_step("train", "head_only") > 0
    assert _statistics_after_a_step("eval", "full_finetune") > 0
