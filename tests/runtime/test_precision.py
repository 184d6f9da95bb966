import os

import pytest
import torch

from dogs_accel.runtime.precision import describe_numerics, set_numerics


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


def fused_attention():
    cuda = torch.backends.cuda
    return [cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled()]


def test_determinism_on_a_gpu_leaves_attention_to_matrix_products(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    set_numerics(deterministic=True)
    assert fused_attention() == [False] * 3
    assert torch.backends.cuda.math_sdp_enabled()
    set_numerics()
    assert fused_attention() == [True] * 3
