"""Any arguments whatever: an operator gives what its slow reference gives, or refuses them and says which.

`make sanitize` runs this with many examples, on a library that reports each read and write out of place.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from torch import Tensor

from dogs_accel import ops
from tests.ops.test_class_calibration import check_against_reference as check_class_calibration_bins
from tests.ops.test_class_calibration import rows_off_the_edges
from tests.ops.test_image_stats import check_against_references as check_image_stats
from tests.ops.test_ops import check_against_reference as check_calibration_bins
from tests.support import hostile_values as hostile
from tests.support import image_reference
from tests.support.operator_cases import assert_same_bits, garbage_in_fresh_memory

# torch says of its sparse, nested and quantized tensors that they may change.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{said}") for said in ("Sparse CSR", "The PyTorch API of n", "torch.quant")
]
SANITIZED = bool(os.environ.get("DOGS_ACCEL_SANITIZE"))
EXAMPLES = int(os.environ.get("DOGS_ACCEL_FUZZ_EXAMPLES", "12"))
LAST_CASE = Path(os.environ.get("DOGS_ACCEL_LIBRARIES", ".")) / "last-case.txt"
"""What a sanitizer that ends the process had been given."""
fuzz = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # the arguments are small as they are, and shrinking takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
FINITE = [0.0, -0.0, 1.0, -1.0, 0.5, 3.25, 88.5, -104.25, 60000.0, 1e-7]


@dataclass(frozen=True)
class Operator:
    """How an operator is called well, what may be said of each argument instead, and what it must give."""

    function: Callable[..., Any]
    good: Callable[[st.DrawFn], dict[str, Any]]
    check: Callable[..., None]
    """Compares with the reference, of arguments that the operator took."""


def flat(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else [getattr(result, name) for name in result.__dataclass_fields__]


@st.composite
def tensors_of(draw: st.DrawFn, values: list[float], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    chosen = torch.tensor(values, dtype=dtype)
    seed = draw(st.integers(0, 2**31))
    index = torch.randint(len(values), shape, generator=torch.Generator().manual_seed(seed))
    return draw(hostile.any_layout(chosen[index]))


def good_bins(draw: st.DrawFn) -> dict[str, Any]:
    num_rows, num_classes = draw(st.sampled_from([0, 1, 2, 17, 40])), draw(st.sampled_from([1, 2, 3, 31, 32, 33, 70]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]))
    extremes = [torch.finfo(dtype).max, torch.finfo(dtype).min, torch.finfo(dtype).smallest_normal / 2]
    logits = draw(tensors_of(FINITE + extremes * draw(st.booleans()), (num_rows, num_classes), dtype))
    labels = draw(tensors_of(list(range(num_classes)), (num_rows,), torch.int64))
    return {
        "logits": logits,
        "labels": labels,
        "bins": draw(st.sampled_from([1, 2, 7, 15, 97, 4096 if num_classes < 4 else 300])),
    }


def for_reference(value: Any) -> Any:
    """The same value as NumPy reads it: of a tensor its numbers alone, in memory, and of bytes the text."""
    if isinstance(value, Tensor):
        value = value.detach()
        return torch.zeros(value.shape, dtype=value.dtype) if value._is_zerotensor() else value
    if isinstance(value, list):
        return [for_reference(each) for each in value]
    return value.decode() if isinstance(value, bytes) else value


def check_bins(logits: Tensor, labels: Tensor, bins: int) -> None:
    with np.errstate(over="ignore", under="ignore"):
        check_calibration_bins(logits.resolve_neg(), labels, bins)


def check_class_bins(logits: Tensor, labels: Tensor, bins: int) -> None:
    with np.errstate(over="ignore", under="ignore"):
        kept = rows_off_the_edges(logits.resolve_neg(), bins)
        check_class_calibration_bins(logits.resolve_neg()[kept], labels[kept], bins)


def images_of(draw: st.DrawFn, num_images: int) -> list[Tensor]:
    side = st.sampled_from([1, 2, 3, 15, 16, 17, 40])
    return [draw(tensors_of([0, 1, 7, 200, 255], (draw(side), draw(side), 3), torch.uint8)) for _ in range(num_images)]


def good_image_list(draw: st.DrawFn) -> dict[str, Any]:
    return {"images": images_of(draw, draw(st.integers(0, 4)))}


def each(images: Any) -> list[Tensor]:
    return [images] if isinstance(images, Tensor) and images.dim() == 3 else list(images)


def check_images(images: Any) -> None:
    for image in each(images):
        check_image_stats(image)


def good_sums(draw: st.DrawFn) -> dict[str, Any]:
    images = images_of(draw, draw(st.integers(0, 3)))
    sums = ops.image_sums(images) if images else torch.zeros(0, len(ops.IMAGE_SUMS), dtype=torch.int64)
    return {"sums": draw(hostile.any_layout(sums[0] if len(sums) == 1 else sums))}


def check_sums(sums: Tensor) -> None:
    stats = ops.stats_of_sums(sums)
    for row, got in zip(sums.reshape(-1, len(ops.IMAGE_SUMS)).tolist(), stats.reshape(-1, 6), strict=True):
        pixels, grey, grey_squared, saturation, r, g, b, *_ = row
        if pixels <= 0 or max(map(abs, row)) >= 2**50 or pixels * grey_squared < grey**2:
            continue  # no sums of pixels
        mean = [value / (255 * pixels) for value in (grey, r, g, b)]
        deviation = (pixels * grey_squared - grey**2) ** 0.5 / (255 * pixels)
        expected = [mean[0], deviation, saturation * ops.SATURATION_UNIT / pixels, *mean[1:]]
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)


def good_squash(draw: st.DrawFn) -> dict[str, Any]:
    side = st.sampled_from([1, 2, 3, 16, 17, 33])
    return {
        "images": images_of(draw, draw(st.integers(0, 3))),
        "size": (draw(side), draw(side)),
        "interpolation": draw(st.sampled_from(["bilinear", "bicubic"])),
        "num_threads": draw(st.sampled_from([0, 1, 2, 100, 10**9, 2**63 - 1])),
    }


def check_squash(images: Any, size: tuple[int, int], interpolation: str, num_threads: int) -> None:
    got = ops.squash(images, size, interpolation, num_threads)
    assert (got.shape, got.dtype) == ((len(images), *size, 3), torch.uint8)
    for row, image in zip(got, images, strict=True):
        np.testing.assert_array_equal(row.numpy(), image_reference.resize(image.numpy(), *size, interpolation))


NUMBERS_OF_STEPS = {
    "none": st.just(()),
    "affine": st.sampled_from([(1, 0, 0, 0, 1, 0), (0.5, 1, -3, -1, 0.5, 3), (0, 0, 32766, 0, 0, -32766)]),
    **dict.fromkeys(
        ("brightness", "contrast", "saturation", "sharpness"),
        st.tuples(st.sampled_from([0.0, 5e-324, 0.5, 1.0, 2.0, 1e6])),
    ),
    "hue": st.tuples(st.sampled_from([0, 1, 128, 255])),
    "grayscale": st.just(()),
    "posterize": st.tuples(st.integers(1, 8)),
    "solarize": st.tuples(st.sampled_from([0, 5e-324, 127.5, 256])),
    "autocontrast": st.just(()),
    "equalize": st.just(()),
}


def good_rows(draw: st.DrawFn, sizes: list[tuple[int, int]], size: int) -> Tensor:
    """Parameters of a sample for each image size, with up to three steps."""
    num_steps = draw(st.integers(0, 3))
    rows = np.zeros((len(sizes), len(ops.AUGMENT_PARAMS) + ops.NUM_STEP_COLUMNS * num_steps))
    for row, (height, width) in zip(rows, sizes, strict=True):
        tall, wide = draw(st.integers(1, height)), draw(st.integers(1, width))
        place = (draw(st.integers(0, height - tall)), draw(st.integers(0, width - wide)))
        if draw(st.booleans()):  # anywhere, also beyond the image
            tall, wide, place = (
                *(draw(st.integers(1, 40)) for _ in range(2)),
                draw(st.tuples(*[st.integers(-50, 50)] * 2)),
            )
        erased = [draw(st.integers(0, size)) for _ in range(2)]
        row[:9] = [
            *place,
            tall,
            wide,
            draw(st.booleans()),
            *(draw(st.integers(0, size - side)) for side in erased),
            *erased,
        ]
        for step in row[9:].reshape(-1, ops.NUM_STEP_COLUMNS):
            name = draw(st.sampled_from(ops.AUGMENT_STEPS))
            numbers = draw(NUMBERS_OF_STEPS[name])
            step[: 1 + len(numbers)] = [ops.AUGMENT_STEPS.index(name), *numbers]
    params: Tensor = draw(hostile.any_layout(torch.from_numpy(rows)))
    return params


def good_settings(draw: st.DrawFn, size: int) -> dict[str, Any]:
    return {
        "size": size,
        "mean": [0.5, 0.25, 0.0],
        "std": [0.25, 1e-3, 2.0],
        "interpolation": draw(st.sampled_from(["bilinear", "bicubic"])),
        "dtype": draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16])),
        "num_threads": draw(st.sampled_from([0, 1, 2, 100, 10**9, 2**63 - 1])),
        "fill": draw(st.sampled_from([(0, 0, 0), (255, 1, 7)])),
    }


def good_augment(draw: st.DrawFn) -> dict[str, Any]:
    height, width, size = (draw(st.sampled_from([1, 2, 16, 17, 30])) for _ in range(3))
    num_images, num_samples = draw(st.integers(1, 3)), draw(st.integers(0, 4))
    images = draw(tensors_of([0, 1, 7, 200, 255], (num_images, height, width, 3), torch.uint8))
    return {
        "images": images.contiguous(),
        "index": draw(tensors_of(list(range(num_images)), (num_samples,), torch.int64)),
        "params": good_rows(draw, [(height, width)] * num_samples, size),
        **good_settings(draw, size),
    }


def check_augment(**arguments: Any) -> None:
    images, index = (arguments[name] for name in ("images", "index"))
    check_batch(ops.augment(**arguments), [images[i] for i in index.tolist()], None, arguments)


def good_augment_ragged(draw: st.DrawFn) -> dict[str, Any]:
    size, images = draw(st.sampled_from([1, 2, 16, 17])), images_of(draw, draw(st.integers(1, 4)))
    sides = st.sampled_from([1, 2, 16, 33])
    resized = [draw(st.just(tuple(image.shape[:2])) | st.tuples(sides, sides)) for image in images]
    return {
        "images": images,
        "resized": draw(hostile.any_layout(torch.tensor(resized))),
        "params": good_rows(draw, resized, size),
        **good_settings(draw, size),
    }


def check_augment_ragged(**arguments: Any) -> None:
    check_batch(ops.augment_ragged(**arguments), arguments["images"], arguments["resized"].tolist(), arguments)


def check_batch(got: Tensor, images: Any, resized: Any, arguments: dict[str, Any]) -> None:
    size, dtype = arguments["size"], arguments["dtype"]
    assert (got.shape, got.dtype) == ((len(images), 3, size, size), dtype)
    constants = [arguments[name] for name in ("size", "mean", "std", "interpolation")]
    rows = arguments["params"].resolve_neg().numpy()
    for row, image, packed, first in zip(got, images, rows, resized or [None] * len(images), strict=True):
        with np.errstate(all="ignore"):
            expected = image_reference.augment(image.numpy(), packed, *constants, first, arguments["fill"])
        torch.testing.assert_close(row, torch.from_numpy(expected).to(dtype), rtol=0, atol=0, equal_nan=True)


OPERATORS = {
    "calibration_bins": Operator(ops.calibration_bins, good_bins, check_bins),
    "class_calibration_bins": Operator(ops.class_calibration_bins, good_bins, check_class_bins),
    "image_stats": Operator(ops.image_stats, good_image_list, check_images),
    "image_sums": Operator(ops.image_sums, good_image_list, check_images),
    "stats_of_sums": Operator(ops.stats_of_sums, good_sums, check_sums),
    "squash": Operator(ops.squash, good_squash, check_squash),
    "augment": Operator(ops.augment, good_augment, check_augment),
    "augment_ragged": Operator(ops.augment_ragged, good_augment_ragged, check_augment_ragged),
}


@st.composite
def spoilt(draw: st.DrawFn, value: Any) -> Any:
    """What nobody should say instead."""
    if isinstance(value, Tensor):
        if value.numel() and draw(st.booleans()):
            return draw(with_a_bad_element(value))
        return draw(hostile.other_tensors(value))
    if isinstance(value, str):
        return draw(st.sampled_from(hostile.STRINGS + hostile.NO_STRINGS))
    if isinstance(value, torch.dtype):
        return draw(st.sampled_from([*hostile.DTYPES, torch.quint8, None, 3, "float32"]))
    if isinstance(value, int):
        return draw(st.sampled_from(hostile.INTEGERS + hostile.NO_INTEGERS))
    if isinstance(value, tuple):
        return draw(st.tuples(*[spoilt(side) | st.just(side) for side in value]))
    if isinstance(value[0] if value else None, float):
        return draw(st.lists(st.sampled_from(hostile.FLOATS), min_size=3, max_size=3) | st.just([0.5]) | st.just("abc"))
    if draw(st.booleans()):
        return draw(
            st.sampled_from([None, 3, "x", "", [[]], torch.tensor(3), torch.zeros(2, 3), torch.zeros(0, 4, 4, 3)])
        )
    images = list(value) or [torch.zeros(2, 2, 3, dtype=torch.uint8)]
    at = draw(st.integers(0, len(images) - 1))
    return [*images[:at], draw(hostile.other_tensors(images[at])), *images[at + 1 :]]


@st.composite
def with_a_bad_element(draw: st.DrawFn, tensor: Tensor) -> Tensor:
    changed = tensor.detach().clone(memory_format=torch.contiguous_format)
    at = draw(st.integers(0, changed.numel() - 1))
    if tensor.dtype.is_floating_point:
        value = draw(st.sampled_from(hostile.FLOATS))
    else:
        value = draw(st.sampled_from([-1, 255, 2**31, 2**62, -(2**63), 2**63 - 1]))
        value = value % 256 if tensor.dtype == torch.uint8 else value
    changed.view(-1)[at] = torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None).to(
        changed.dtype
    )
    return draw(hostile.any_layout(changed))


def described(value: Any) -> str:
    if isinstance(value, Tensor):
        with_strides = value.layout == torch.strided and not (value.is_nested or value.is_quantized)
        with_strides = with_strides and not value._is_zerotensor()
        strides = (value.stride(), value.storage_offset()) if with_strides else value.layout
        values = value.tolist() if with_strides and value.device.type == "cpu" and 0 < value.numel() < 100 else "..."
        return f"{value.dtype} {value.device} {tuple(value.shape) if not value.is_nested else '?'} {strides} {values}"
    if isinstance(value, list):
        return f"[{', '.join(map(described, value))}]"
    return repr(value)


def is_told_which(operator: str, error: Exception) -> bool:
    """Whether the message says which argument it is about, in our words or in those of torch."""
    names = "|".join([*inspect.signature(OPERATORS[operator].function).parameters, "height", "width"])
    ours = rf"({names})(\[\d+\])?: (got |row \d+ )"
    of_the_schema = rf"dogs_accel::{operator}\(\) .* for argument '({names})'"
    of_the_dispatcher = rf"Could not run '(dogs_accel::{operator}|aten::\w+)' with arguments from the '\w+' backend"
    of_the_allocator = ".*can't allocate memory"  # for a view of one element that is large
    of_the_stable_abi = r".*Not yet supported ScalarType \w+, "  # of the one argument that is a dtype
    words = rf"{ours}|{of_the_schema}|{of_the_dispatcher}|{of_the_stable_abi}|{of_the_allocator}"
    return re.match(words, str(error), re.DOTALL) is not None


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)
    ops.limit_instruction_set("avx512")


def holders(arguments: dict[str, Any]) -> list[int]:
    """How many hold each tensor, in C++ too: one more after a call would be memory that is never given back."""
    values = [each for value in arguments.values() for each in (value if isinstance(value, list) else [value])]
    return [each._use_count() for each in values if isinstance(each, Tensor) and not each.requires_grad]


def first_line(error: Any) -> str:
    """Without the stack that torch's allocator puts below."""
    return str(error).partition("\n")[0]


def call_in_every_way(operator: Operator, arguments: dict[str, Any], instruction_set: str, num_threads: int) -> Any:
    """The same bits, or the same refusal, whatever computes it and whatever fresh memory holds."""
    if SANITIZED:
        said = "\n".join(f"{name}: {described(value)}" for name, value in arguments.items())
        LAST_CASE.write_text(
            f"{operator.function.__name__} {instruction_set} {num_threads}\n{said}\n", "utf-8", "replace"
        )
    before = holders(arguments)
    outcomes: list[Any] = []
    for limit, threads in (("baseline", 1), (instruction_set, num_threads)):
        ops.limit_instruction_set(limit)
        torch.set_num_threads(threads)
        try:
            with garbage_in_fresh_memory("cpu"):
                outcomes.append(operator.function(**arguments))
        except (RuntimeError, ValueError, TypeError) as error:  # NotImplementedError is one of the first
            outcomes.append(type(error)(str(error)))  # without its frames, which hold views of the arguments
    assert holders(arguments) == before
    first, second = outcomes
    if isinstance(first, Exception) or isinstance(second, Exception):
        assert (type(first), first_line(first)) == (type(second), first_line(second))
    elif flat(first)[0].device.type == "cpu":
        assert_same_bits([flat(first), flat(second)])
    return first


ways = (st.sampled_from(["baseline", "avx2", "avx512"]), st.sampled_from([1, 2, 5]))


@pytest.mark.parametrize("name", OPERATORS)
@fuzz
@given(data=st.data())
def test_good_arguments_give_what_the_reference_gives(name: str, data: st.DataObject) -> None:
    operator = OPERATORS[name]
    arguments = operator.good(data.draw)
    result = call_in_every_way(operator, arguments, *map(data.draw, ways))
    assert not isinstance(result, Exception), result
    operator.check(**{name: for_reference(value) for name, value in arguments.items()})


@pytest.mark.parametrize("name", OPERATORS)
@fuzz
@given(data=st.data())
def test_any_other_arguments_give_that_too_or_are_refused_by_name(name: str, data: st.DataObject) -> None:
    operator = OPERATORS[name]
    arguments = operator.good(data.draw)
    for changed in data.draw(st.lists(st.sampled_from(sorted(arguments)), min_size=1, max_size=2, unique=True)):
        arguments[changed] = data.draw(spoilt(arguments[changed]), label=changed)
    result = call_in_every_way(operator, arguments, *map(data.draw, ways))
    if isinstance(result, Exception):
        event("refused")
        assert is_told_which(name, result), repr(result)
    elif flat(result)[0].device.type == "cpu":
        event("taken")
        operator.check(**{name: for_reference(value) for name, value in arguments.items()})
    else:
        event("meta")


@fuzz
@given(name=st.sampled_from(hostile.STRINGS + hostile.NO_STRINGS) | st.text())
def test_any_name_of_an_instruction_set(name: Any) -> None:
    if name in ("baseline", "avx2", "avx512"):
        assert ops.limit_instruction_set(name) in ("baseline", "avx2", "avx512")
        return
    with pytest.raises((ValueError, TypeError, RuntimeError), match=r"name: got|argument 'name'"):
        ops.limit_instruction_set(name)
