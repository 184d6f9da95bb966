"""What the tests of the operators share: inputs, and checks that every operator must pass."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

BACKENDS = ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
LOGIT_SHAPES = [
    (0, 5),
    (1, 1),
    (1, 120),
    (7, 1),
    (5, 2),
    (33, 31),
    (33, 32),
    (33, 33),
    (257, 120),
    (19, 1000),
    (3, 5003),
]

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]

LOGIT_LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x.contiguous(),
    "transposed": lambda x: x.t().contiguous().t(),
    "every other row": lambda x: x.repeat_interleave(2, dim=0)[::2],
    "every other class": lambda x: x.repeat_interleave(2, dim=1)[:, ::2],
    "inner columns": lambda x: torch.nn.functional.pad(x, (3, 2), value=float("nan"))[:, 3:-2],
}

IMAGE_LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x.contiguous(),
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "cropped": lambda x: torch.nn.functional.pad(x, (0, 0, 2, 3, 1, 2), value=77)[1:-2, 2:-3],
    "every other row": lambda x: x.repeat_interleave(2, dim=0)[::2],
    "every other column": lambda x: x.repeat_interleave(2, dim=1)[:, ::2],
    "planar": lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
    "three of four channels": lambda x: torch.nn.functional.pad(x, (0, 1), value=99)[..., :3],
    "one byte further": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
}


def make_image(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)


def make_logits(num_rows: int, num_classes: int, dtype: torch.dtype, scale: float = 3.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(num_rows, num_classes, generator=generator, dtype=torch.float64) * scale).to(dtype)


def make_labels(num_rows: int, num_classes: int, seed: int = 1) -> Tensor:
    return torch.randint(0, num_classes, (num_rows,), generator=torch.Generator().manual_seed(seed))


def assert_same_bits(results: Sequence[Sequence[Tensor]]) -> None:
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert torch.equal(one.nan_to_num(), two.nan_to_num())


def assert_threads_change_no_bit(run: Callable[[], Sequence[Tensor]]) -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for num_threads in (1, 2, 5):
            torch.set_num_threads(num_threads)
            results.append(run())
    finally:
        torch.set_num_threads(before)
    assert_same_bits(results)


def assert_runs_on_the_current_stream_without_synchronising(run: Callable[[], Sequence[Tensor]]) -> None:
    expected = run()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.cuda.stream(stream):
            got = run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    stream.synchronize()
    assert_same_bits([expected, got])


def assert_compiles(backend: str, function: Callable[..., Any], calls: Sequence[Sequence[Tensor]]) -> None:
    """Compile for any size, without falling back to Python."""
    if backend == "inductor" and not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        pytest.skip("inductor compiles against Python.h, which is not installed")
    torch.compiler.reset()
    compiled = torch.compile(function, backend=backend, fullgraph=True, dynamic=True)
    for arguments in calls:
        assert_same_bits([compiled(*arguments), function(*arguments)])
