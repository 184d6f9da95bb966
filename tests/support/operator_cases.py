"""What the tests of the operators share: inputs, and checks that every operator must pass."""

from __future__ import annotations

import ctypes
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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

needs_cuda = pytest.mark.gpu
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


needs_two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")

GARBAGE = {"cpu": 0xFE, "cuda": 0xFF}
"""The byte that fresh memory holds in `garbage_in_fresh_memory`; of 0xFF floats are NaN and integers -1."""
_M_PERTURB = -6  # of glibc's malloc.h
_SMALL_BYTES = 1 << 20  # what torch's CUDA allocator takes from blocks for small tensors, at most
_FRESH_BYTES = 256 << 20


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
            torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)


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


@contextmanager
def garbage_in_fresh_memory(device: str) -> Iterator[None]:
    """Let tensors that are made in the block hold GARBAGE until they are written to.

    On a CPU those of more than 1,032 bytes: smaller blocks may come from glibc's cache, which leaves in them what they
    held, such as its own pointers.
    """
    if device == "cuda":
        _fill_free_cuda_memory(GARBAGE[device])
        yield
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_PERTURB, GARBAGE[device] ^ 0xFF)  # glibc fills with the complement
    try:
        yield
    finally:
        mallopt(_M_PERTURB, 0)


def _fill_free_cuda_memory(byte: int) -> None:
    """Fill what torch's allocator has free in the current stream, having made sure that there is enough of it."""
    torch.cuda.synchronize()
    enough = [torch.empty(size, dtype=torch.uint8, device="cuda") for size in [_FRESH_BYTES] + [_SMALL_BYTES] * 32]
    del enough
    stream, device = torch.cuda.current_stream().cuda_stream, torch.cuda.current_device()
    sizes = []
    for segment in torch.cuda.memory_snapshot():
        if (segment["device"], segment["stream"], segment["segment_pool_id"]) != (device, stream, (0, 0)):
            continue  # the rest belongs to other streams and to captured graphs
        largest = _SMALL_BYTES if segment["segment_type"] == "small" else segment["total_size"]
        for block in segment["blocks"]:
            if block["state"] == "inactive":
                whole, rest = divmod(block["size"], largest)
                sizes += [largest] * whole + [rest] * bool(rest)
    # The largest first, each of which takes the smallest block that it fits into.
    held = [torch.empty(size, dtype=torch.uint8, device="cuda").fill_(byte) for size in sorted(sizes, reverse=True)]
    torch.cuda.synchronize()
    del held


def assert_writes_every_element(run: Callable[[], Sequence[Tensor]], device: str) -> None:
    """Whatever was in the memory of its outputs, and in that of its intermediate results."""
    expected = [tensor.clone() for tensor in run()]
    for tensor in run():  # the memory of batches is kept on a CPU, and used again
        tensor.fill_(77)
    del tensor
    with garbage_in_fresh_memory(device):
        got = run()
    assert_same_bits([expected, got])


def assert_differ(one: Sequence[Tensor], two: Sequence[Tensor]) -> None:
    assert any(not torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(one, two, strict=True))


def assert_keeps_the_order_of_its_stream(run: Callable[[], Sequence[Tensor]], change: Callable[[], object]) -> None:
    """It sees what `change` writes to its inputs before it in the same stream, long after the call."""
    before = run()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        change()
        got = run()
    stream.synchronize()
    assert_differ(before, got)
    assert_same_bits([run(), got])


def assert_cuda_graph_replays(run: Callable[[], Sequence[Tensor]], change: Callable[[], object]) -> None:
    """Twice from the same inputs, and from those that `change` writes in their place."""
    before = run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    for _ in range(2):
        graph.replay()
        assert_same_bits([before, captured])
    change()
    graph.replay()
    assert_differ(before, captured)
    assert_same_bits([run(), captured])


def assert_runs_on_a_device_that_is_not_current(run: Callable[[torch.device], Sequence[Tensor]]) -> None:
    other = torch.device("cuda", 1)
    with torch.cuda.device(0):
        got = run(other)
        assert torch.cuda.current_device() == 0
    assert all(tensor.device == other for tensor in got)
    assert_same_bits([run(torch.device("cpu")), [tensor.cpu() for tensor in got]])


def assert_compiles(backend: str, function: Callable[..., Any], calls: Sequence[Sequence[Tensor]]) -> None:
    """Compile for any size, without falling back to Python."""
    if backend == "inductor" and not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        pytest.skip("inductor compiles against Python.h, which is not installed")
    torch.compiler.reset()
    compiled = torch.compile(function, backend=backend, fullgraph=True, dynamic=True)
    for arguments in calls:
        assert_same_bits([compiled(*arguments), function(*arguments)])
