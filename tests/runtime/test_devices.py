import pytest
import torch

from dogs_accel.runtime.devices import choose_device
from dogs_accel.runtime.processes import World


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    two = World(rank=1, size=2, local_rank=1, local_size=2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device(world=two) == torch.device("cuda:1")
    assert choose_device(device="cpu", world=two) == torch.device("cpu")
    with pytest.raises(ValueError, match=r"^--device cuda:1: got it with 2 processes, expected --device cuda or"):
        choose_device(device="cuda:1", world=two)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=r"^device: got 2 processes on a machine where torch sees 1 CUDA devices"):
        choose_device(world=two)
