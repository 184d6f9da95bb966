"""Which part of an image a cell of a map is computed from, exactly, through every branch of a network.

A map's cells lie on a grid. The field of the cell in row 0 and column 0, and how far the next cell's is from it, follow
from the windows of convolutions and poolings: Araujo et al., "Computing Receptive Fields of Convolutional Neural
Networks", Distill 2019. Here they are followed from operator to operator, so that additions and concatenations of
branches give the union of their fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

MOST_PREFIX_TOKENS = 16
"""Tokens before those of the cells, such as a class token and registers."""

DownAndAcross = tuple[float, float]
"""Of an image, in px or cells."""


@dataclass(frozen=True, kw_only=True)
class ReceptiveField:
    """The fields of the cells of a map, in px of the image, down and across."""

    low: DownAndAcross
    """Where that of the first cell begins; below 0 in what pads the image."""
    high: DownAndAcross
    """Where it ends."""
    step: DownAndAcross
    """From one cell's field to the next's."""
    cells: tuple[int, int]
    """Rows and columns of the map."""
    is_gated: bool = False
    """Whether every value is also scaled by something that is computed from the whole image, such as squeeze and
    excitation or the statistics of a GroupNorm."""

    @property
    def size(self) -> DownAndAcross:
        """Height and width of a cell's field, what lies beyond the image included."""
        return self.high[0] - self.low[0], self.high[1] - self.low[1]

    def box(self, row: int, column: int, size_px: int) -> tuple[float, float, float, float]:
        """Give xmin, ymin, xmax, ymax of a cell's field, as far as it lies in a square image."""
        (top, bottom), (left, right) = (
            (
                min(max(self.low[axis] + at * self.step[axis], 0), size_px),
                min(max(self.high[axis] + at * self.step[axis], 0), size_px),
            )
            for axis, at in enumerate((row, column))
        )
        return left, top, right, bottom


Field = ReceptiveField | str
"""The fields of a map, or why it has none."""


@contextmanager
def following_fields(images: Tensor) -> Iterator[Callable[[Tensor], Field | None]]:
    """Give a function that says the field of a tensor which the block has computed of images (1, 3, H, W).

    None of a tensor that does not depend on the images. The tensors may be on the meta device.
    """
    mode = _Following(images)
    with mode:
        yield mode.field_of


class _Following(TorchDispatchMode):
    """Notes the field of what each operator returns."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        height, width = images.shape[2:]
        start = ReceptiveField(low=(0, 0), high=(1, 1), step=(1, 1), cells=(height, width))
        # The tensors are kept, so that no other one gets the identity of one that is gone.
        self._fields: dict[int, tuple[Tensor, Field]] = {id(images): (images, start)}

    def field_of(self, tensor: Tensor) -> Field | None:
        known = self._fields.get(id(tensor))
        return None if known is None else known[1]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [(each, field) for each in _tensors(args) if (field := self.field_of(each)) is not None]
        if given:
            for output in _tensors(result if isinstance(result, (tuple, list)) else (result,)):
                self._fields[id(output)] = output, _field_after(func, args, given, output)
        return result


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found += [each for each in value if isinstance(each, Tensor)]
    return found


def _field_after(func: Any, args: tuple[Any, ...], given: Sequence[tuple[Tensor, Field]], output: Tensor) -> Field:
    """Say the field of an output of an operator, by those of its inputs that depend on the images."""
    name = func.overloadpacket.__name__
    without = next((field for _, field in given if isinstance(field, str)), None)
    known = [(each, field) for each, field in given if isinstance(field, ReceptiveField)]
    if len(given) > 1:
        gated = _gated(known, given, name)
        if gated is not None:
            return gated
    if name == "_softmax" or name.startswith("_scaled_dot_product") or (len(known) > 1 and name in ("bmm", "baddbmm")):
        return "attention"
    if without is not None:
        return without
    if len(known) > 1:
        return _union([field for _, field in known])
    [(tensor, field)] = known
    rule = _RULES.get(name)
    found = field if rule is None else rule(field, args, tensor, output)
    return found if isinstance(found, str) or name not in _RESHAPING else _on_cells_of(found, tensor, output)


def _gated(known: Sequence[tuple[Tensor, ReceptiveField]], given: Sequence[Any], name: str) -> ReceptiveField | None:
    """Say the field of a map that is scaled by one number a channel, which comes from the whole image."""
    if name not in ("mul", "mul_") or len(known) != 1 or len(given) != 2:
        return None
    other = next(each for each, field in given if isinstance(field, str))
    num_cells = known[0][1].cells[0] * known[0][1].cells[1]
    is_one_a_channel = num_cells > 1 and other.numel() * num_cells <= known[0][0].numel()
    return replace(known[0][1], is_gated=True) if is_one_a_channel else None


def _union(fields: Sequence[ReceptiveField]) -> Field:
    first = fields[0]
    if any(field.step != first.step for field in fields):
        return "branches of different strides"
    (low_down, low_across), (high_down, high_across) = (
        (choose(getattr(f, side)[0] for f in fields), choose(getattr(f, side)[1] for f in fields))
        for choose, side in ((min, "low"), (max, "high"))
    )
    return replace(
        first, low=(low_down, low_across), high=(high_down, high_across), is_gated=any(f.is_gated for f in fields)
    )


def _on_cells_of(field: ReceptiveField, tensor: Tensor, output: Tensor) -> Field:
    """Check that a map of another shape still has the cells that it had."""
    is_map = output.ndim == 4 and tensor.ndim >= 4
    if is_map and field.cells not in (tuple(output.shape[2:]), tuple(output.shape[1:3])):
        return "its cells are regrouped"
    return field


def _window(
    field: ReceptiveField, kernel: Any, stride: Any, padding: Any, dilation: Any, output: Tensor
) -> ReceptiveField:
    """Slide a window over a map: its field is the union of those of the cells that the window covers."""
    low, high, step = [], [], []
    for axis in (0, 1):
        before, extent = field.step[axis], (_at(kernel, axis) - 1) * _at(dilation, axis)
        low.append(field.low[axis] - _at(padding, axis) * before)
        high.append(field.high[axis] + (extent - _at(padding, axis)) * before)
        step.append(before * _at(stride, axis))
    return replace(
        field,
        low=(low[0], low[1]),
        high=(high[0], high[1]),
        step=(step[0], step[1]),
        cells=(output.shape[2], output.shape[3]),
    )


def _at(value: Any, axis: int) -> int:
    """One number of a pair, or of what stands for both."""
    values = value if isinstance(value, (tuple, list)) else [value]
    return int(values[axis] if len(values) > 1 else values[0])


def _argument(args: tuple[Any, ...], at: int, default: Any) -> Any:
    return args[at] if len(args) > at and args[at] not in ([], ()) else default


def _convolution(field: ReceptiveField, args: tuple[Any, ...], _: Tensor, output: Tensor) -> Field:
    _, weight, _, stride, padding, dilation, transposed = args[:7]
    if transposed:
        return "a transposed convolution"
    if output.ndim != 4:
        return "a convolution that is not over the image"
    return _window(field, list(weight.shape[2:]), stride, padding, dilation, output)


def _pooling(field: ReceptiveField, args: tuple[Any, ...], _: Tensor, output: Tensor) -> Field:
    kernel = args[1]
    # The arguments of average pooling are the same as far as they count here, but that it has no dilation.
    return _window(field, kernel, _argument(args, 2, kernel), _argument(args, 3, 0), 1, output)


def _max_pooling(field: ReceptiveField, args: tuple[Any, ...], _: Tensor, output: Tensor) -> Field:
    kernel = args[1]
    return _window(field, kernel, _argument(args, 2, kernel), _argument(args, 3, 0), _argument(args, 4, 1), output)


def _adaptive(field: ReceptiveField, _: tuple[Any, ...], tensor: Tensor, output: Tensor) -> Field:
    if output.shape[2:] == tensor.shape[2:]:
        return field
    if all(old % new == 0 for old, new in zip(tensor.shape[2:], output.shape[2:], strict=True)):
        if tuple(output.shape[2:]) == (1, 1):
            return "a global pooling"
        kernel = [old // new for old, new in zip(tensor.shape[2:], output.shape[2:], strict=True)]
        return _window(field, kernel, kernel, 0, 1, output)
    return "an adaptive pooling with windows of different sizes"


def _reduction(field: ReceptiveField, args: tuple[Any, ...], tensor: Tensor, _: Tensor) -> Field:
    given = _argument(args, 1, list(range(tensor.ndim)))
    dims = {dim % tensor.ndim for dim in (given if isinstance(given, (tuple, list)) else [given])}
    is_over_cells = len(dims) > 1 if tensor.ndim == 4 else tensor.ndim == 3 and 1 in dims
    return "a global pooling" if is_over_cells and field.cells != (1, 1) else field


def _product(field: ReceptiveField, _: tuple[Any, ...], tensor: Tensor, __: Tensor) -> Field:
    """Check that a matrix product has a row a cell; where it has not, it mixes cells."""
    rows, num_cells = tensor.shape[:-1].numel(), field.cells[0] * field.cells[1]
    if rows % num_cells == 0 or 0 <= rows - num_cells <= MOST_PREFIX_TOKENS:
        return field
    return "a dense layer over the cells"


def _layer_norm(field: ReceptiveField, args: tuple[Any, ...], _: Tensor, __: Tensor) -> Field:
    return replace(field, is_gated=True) if len(args[1]) > 1 else field


def _group_norm(field: ReceptiveField, *_: Any) -> Field:
    return replace(field, is_gated=True)


def _padding(field: ReceptiveField, args: tuple[Any, ...], tensor: Tensor, output: Tensor) -> Field:
    """Shift the fields by what is put before a map; after it nothing changes for the first cell."""
    left, _, top, _ = [*args[1], 0, 0, 0, 0][:4]
    if tuple(tensor.shape[2:]) != field.cells:  # tokens, or channels last
        return "its cells are regrouped" if any(args[1][2::2]) else field
    low = field.low[0] - top * field.step[0], field.low[1] - left * field.step[1]
    high = field.high[0] - top * field.step[0], field.high[1] - left * field.step[1]
    return replace(field, low=low, high=high, cells=(output.shape[2], output.shape[3]))


def _slice(field: ReceptiveField, args: tuple[Any, ...], tensor: Tensor, output: Tensor) -> Field:
    dim, start, stride = _argument(args, 1, 0), _argument(args, 2, 0) or 0, _argument(args, 4, 1)
    dim, axis = dim % tensor.ndim, dim % tensor.ndim - 2
    if tensor.shape == output.shape:
        return field
    if tensor.ndim != 4 or tuple(tensor.shape[2:]) != field.cells:
        return field if stride == 1 else "its cells are regrouped"
    if axis < 0:
        return field  # of its channels
    start += tensor.shape[dim] * (start < 0)
    shift = [0.0, 0.0]
    shift[axis] = start * field.step[axis]
    step = [float(each) for each in field.step]
    step[axis] *= stride
    return replace(
        field,
        low=(field.low[0] + shift[0], field.low[1] + shift[1]),
        high=(field.high[0] + shift[0], field.high[1] + shift[1]),
        step=(step[0], step[1]),
        cells=(output.shape[2], output.shape[3]),
    )


def _reason(text: str) -> Callable[..., Field]:
    return lambda *_: text


_RULES: dict[str, Callable[[ReceptiveField, tuple[Any, ...], Tensor, Tensor], Field]] = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _max_pooling,
    "avg_pool2d": _pooling,
    **dict.fromkeys(("_adaptive_avg_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool2d"), _adaptive),
    **dict.fromkeys(("mean", "sum", "amax", "max", "var_mean", "std", "var"), _reduction),
    **dict.fromkeys(("mm", "addmm", "bmm"), _product),
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    **dict.fromkeys(("constant_pad_nd", "reflection_pad2d", "replication_pad2d"), _padding),
    "slice": _slice,
    **dict.fromkeys(("upsample_bilinear2d", "upsample_nearest2d", "upsample_bicubic2d"), _reason("an upsampling")),
    **dict.fromkeys(("_fft_r2c", "_fft_c2c", "_fft_c2r"), _reason("a Fourier transform over the cells")),
}
"""What an operator does to fields, by its name in torch's aten; every other one leaves them as they are."""
_RESHAPING = ("view", "_unsafe_view", "reshape", "pixel_unshuffle")
