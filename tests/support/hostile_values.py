"""Arguments that nobody should give an operator: strategies of hypothesis, and tensors that describe themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.uint8, torch.int8, torch.int16, torch.int32,
    torch.int64, torch.uint16, torch.uint32, torch.uint64, torch.bool, torch.complex64, torch.complex128,
    torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip
FLOATS = [
    0.0, -0.0, 0.5, 1.0, -1.0, 2.0, 5e-324, 1e-45, 1e-38, 88.8, -104.0, 32766.9, 32767.0, 1e6, 1000001.0, 2.0**31,
    -(2.0**31), 2.0**53, 2.0**63, 1e300, -1e300, math.inf, -math.inf, math.nan,
]  # fmt: skip
INTEGERS = [
    -(2**63), -(2**32), -(2**31), -1, 0, 1, 2, 3, 16385, 10**9, 2**31 - 1, 2**31, 2**32, 2**53, 2**62,
    2**63 - 1,
]  # fmt: skip
"""None that makes an operator write more than some MB, or take long."""
NO_INTEGERS = [None, 2.5, math.nan, "3", 2**63, -(2**70), [1], 1j, torch.zeros(2)]
STRINGS = ["", "bilinear", "bicubic", "Bilinear", "bilinear ", "bilinear\0", "avx512", "\ud800", "n" * 10_000, "{}%s%n"]
NO_STRINGS = [None, 3, b"bilinear", ["bilinear"]]
HUGE = [2**41, 2**47]
"""Sides that only a view of one element can have, and that no operator takes."""


def _in_memory(tensor: Tensor, layout: str) -> Tensor:
    """The same values in another place and with other strides."""
    if layout == "reversed":
        order = list(range(tensor.dim()))[::-1]
        return tensor.permute(order).contiguous().permute(order)
    if layout == "spread":
        wide = tensor
        for dim in range(tensor.dim()):
            wide = wide.repeat_interleave(2, dim=dim)
        return wide[tuple(slice(None, None, 2) for _ in range(tensor.dim()))]
    if layout == "offset":
        return torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape)
    if layout == "requires_grad" and tensor.dtype.is_floating_point:
        return tensor.clone().requires_grad_()
    if layout == "negated" and tensor.dtype.is_floating_point:
        return torch._neg_view(-tensor)
    return tensor


LAYOUTS = ("contiguous", "reversed", "spread", "offset", "requires_grad", "negated")
layouts = st.sampled_from(LAYOUTS)


def any_layout(tensor: Tensor) -> st.SearchStrategy[Tensor]:
    """The tensor with other strides, at another offset, as a leaf of autograd, or as a lazy negative."""
    return layouts.map(lambda layout: _in_memory(tensor, layout))


def _of_shape(dtype: torch.dtype, shape: Sequence[int], how: str) -> Tensor:
    if how == "expanded" or math.prod(shape) > 10_000:
        return torch.zeros([1] * len(shape), dtype=dtype).expand(tuple(shape))
    if how == "overlapping" and shape and sum(shape) < 10_000:
        return torch.zeros(sum(shape) + 1, dtype=dtype).as_strided(list(shape), [1] * len(shape))
    return torch.zeros(list(shape), dtype=dtype)


KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "sparse": lambda x: x.to_sparse(),
    "csr": lambda x: x.reshape(len(x) if x.dim() else 1, -1).to_sparse_csr(),
    "meta": lambda x: x.to("meta"),
    "quantized": lambda x: torch.quantize_per_tensor(x.float(), 1.0, 0, torch.quint8),
    "mkldnn": lambda x: x.float().to_mkldnn(),
    "zero tensor": lambda x: torch._efficientzerotensor(x.shape, dtype=x.dtype),
    "nested": lambda x: torch.nested.nested_tensor([x.float(), x.float()]),
    "conjugate": lambda x: torch.complex(x.float(), x.float()).conj(),
    "imaginary part of a conjugate": lambda x: torch.complex(x.float(), x.float()).conj().imag,
}


@st.composite
def other_tensors(draw: st.DrawFn, good: Tensor) -> Any:
    """Anything but the good one: of another dtype, shape, kind or device, or no tensor at all."""
    what = draw(st.sampled_from(["dtype", "shape", "huge", "kind", "none"]))
    if what == "dtype":
        return good.detach().to(draw(st.sampled_from(DTYPES)))
    if what == "none":
        return draw(st.sampled_from([None, 3, 2.5, "x", [], [[1.0]], good.detach().double().resolve_neg().numpy()]))
    if what == "kind":
        kind = draw(st.sampled_from(sorted(KINDS)))
        try:
            return KINDS[kind](good.detach().clone())
        except (RuntimeError, NotImplementedError):  # torch has no such tensor of this shape
            return good.to("meta")
    sides = st.sampled_from([0, 1, 2, 3, 4, 21])
    shape = draw(st.lists(sides, max_size=5))
    if what == "huge":
        shape = list(good.shape) or [1]
        shape[draw(st.integers(0, len(shape) - 1))] = draw(st.sampled_from(HUGE))
    return _of_shape(good.dtype, shape, draw(st.sampled_from(["plain", "expanded", "overlapping"])))
