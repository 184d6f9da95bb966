import os

import pytest
import torch

from dogs_accel.numerics import describe_numerics, set_numerics


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is as before afterwards
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    yield
    set_numerics()


def test_settings_are_explicit_and_can_be_read():
    set_numerics()
    usual = {"tf32_matmul": False, "tf32_convolution": False, "cudnn_benchmark": True, "deterministic": False}
    assert describe_numerics() == usual | {"cpu_threads": torch.get_num_threads()}
    set_numerics(tf32=True, deterministic=True)
    assert describe_numerics() == {
        "tf32_matmul": True, "tf32_convolution": True, "cudnn_benchmark": False, "deterministic": True,
        "cpu_threads": torch.get_num_threads(),
    }  # fmt: skip
    assert torch.backends.cudnn.deterministic
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    set_numerics()
    assert describe_numerics()["deterministic"] is False
