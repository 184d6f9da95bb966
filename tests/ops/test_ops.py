"""dogs_accel.ops against float64 numpy, on every dtype, stride and size that it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dogs_accel import ops
from tests.support.operator_cases import (
    BACKENDS,
    DEVICES,
    DTYPES,
    GARBAGE,
    LOGIT_LAYOUTS,
    LOGIT_SHAPES,
    assert_compiles,
    assert_cuda_graph_replays,
    assert_keeps_the_order_of_its_stream,
    assert_runs_on_a_device_that_is_not_current,
    assert_runs_on_the_current_stream_without_synchronising,
    assert_threads_change_no_bit,
    assert_writes_every_element,
    garbage_in_fresh_memory,
    make_labels,
    make_logits,
    needs_cuda,
    needs_two_gpus,
)

RAW = torch.ops.dogs_accel.calibration_bins


def reference_top(logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and prediction from the definition, in float64."""
    x = logits.double().cpu().numpy()
    exp = np.exp(x - x.max(axis=1, keepdims=True)) if x.size else x
    softmax = exp / exp.sum(axis=1, keepdims=True)
    return softmax.max(axis=1), x.argmax(axis=1)


def reference_bins(confidence: np.ndarray, correct: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, sums of confidence and right predictions of (lower, upper] bins, of given confidences."""
    bin_of = np.clip(np.searchsorted(np.linspace(0, 1, bins + 1), confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    confidence_sum = np.bincount(bin_of, weights=confidence, minlength=bins)
    return count, confidence_sum, np.bincount(bin_of, weights=correct, minlength=bins).astype(np.int64)


def check_against_reference(logits: Tensor, labels: Tensor, bins: int) -> ops.CalibrationBins:
    result = ops.calibration_bins(logits, labels, bins)
    confidence, prediction = reference_top(logits)
    assert result.confidence.dtype == (torch.float64 if logits.dtype == torch.float64 else torch.float32)
    rtol = 1e-14 if logits.dtype == torch.float64 else 1e-6
    np.testing.assert_allclose(result.confidence.cpu().numpy(), confidence, rtol=rtol, atol=0)
    np.testing.assert_array_equal(result.prediction.cpu().numpy(), prediction)
    # Bins are checked on the confidences returned: one rounding of a confidence may move it over an edge.
    count, confidence_sum, correct = reference_bins(
        result.confidence.double().cpu().numpy(), prediction == labels.cpu().numpy(), bins
    )
    np.testing.assert_array_equal(result.count.cpu().numpy(), count)
    np.testing.assert_array_equal(result.correct.cpu().numpy(), correct)
    atol = 2**-33 * max(1, len(labels))  # half a unit of the fixed-point sum for each row
    np.testing.assert_allclose(result.confidence_sum.cpu().numpy(), confidence_sum, rtol=1e-14, atol=atol)
    return result


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", LOGIT_SHAPES)
@pytest.mark.parametrize("layout", LOGIT_LAYOUTS)
def test_matches_numpy(device: str, dtype: torch.dtype, shape: tuple[int, int], layout: str) -> None:
    logits = LOGIT_LAYOUTS[layout](make_logits(*shape, dtype).to(device))
    labels = make_labels(*shape).to(device)
    assert logits.shape == shape
    check_against_reference(logits, labels, bins=15)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bins", [1, 2, 10, 98, 1000, 3073, 4096])
def test_matches_numpy_for_any_number_of_bins(device: str, bins: int) -> None:
    check_against_reference(make_logits(501, 7, torch.float32).to(device), make_labels(501, 7).to(device), bins)


@pytest.mark.parametrize("device", DEVICES)
def test_expanded_rows_and_labels(device: str) -> None:
    logits = make_logits(1, 120, torch.float32).to(device).expand(50, 120)
    labels = make_labels(1, 120).to(device).expand(50)
    result = check_against_reference(logits, labels, bins=10)
    assert result.count.max().item() == 50
    check_against_reference(make_logits(50, 1, torch.float16).to(device).expand(50, 40), labels % 40, bins=10)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_logits(device: str, dtype: torch.dtype) -> None:
    big = torch.finfo(dtype).max
    logits = torch.tensor(
        [[big, -big, 0.0], [-big, -big, -big], [big, big, 0.0], [0.0, -0.0, 0.0], [-80.0, -90.0, -800.0]], dtype=dtype
    ).to(device)
    check_against_reference(logits, torch.zeros(5, dtype=torch.int64, device=device), bins=15)


def test_exponential_is_accurate_to_the_last_places() -> None:
    gap = torch.linspace(-100, 0, 200_001, dtype=torch.float32)
    logits = torch.stack([gap, torch.zeros_like(gap)], dim=1)
    confidence = ops.calibration_bins(logits, torch.zeros(len(gap), dtype=torch.int64)).confidence.double()
    exact = 1 / (1 + gap.double().exp())
    assert ((confidence - exact).abs() / exact).max().item() < 2 * torch.finfo(torch.float32).eps
    confidence = ops.calibration_bins(logits.double(), torch.zeros(len(gap), dtype=torch.int64)).confidence
    assert ((confidence - exact).abs() / exact).max().item() < 2 * torch.finfo(torch.float64).eps


@pytest.mark.parametrize("device", DEVICES)
def test_confidence_of_exactly_one_is_in_the_last_bin(device: str) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], device=device)
    result = ops.calibration_bins(logits, torch.tensor([0, 0], device=device), 10)
    assert result.confidence.tolist() == [1.0, 1.0]
    assert result.count.tolist() == [0] * 9 + [2]
    assert result.confidence_sum[-1].item() == 2.0
    assert result.correct.tolist() == [0] * 9 + [1]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_classes", [1, 2, 4, 8, 64, 256])
@pytest.mark.parametrize("bins", [2, 4, 8, 10, 16, 98, 256])
def test_confidence_on_an_edge_is_in_the_lower_bin(device: str, num_classes: int, bins: int) -> None:
    logits = torch.zeros(3, num_classes, device=device)
    result = ops.calibration_bins(logits, torch.zeros(3, dtype=torch.int64, device=device), bins)
    assert result.confidence.tolist() == [1 / num_classes] * 3
    edges = np.linspace(0, 1, bins + 1)
    holding = [b for b in range(bins) if edges[b] < 1 / num_classes <= edges[b + 1]]
    assert result.count.nonzero().flatten().tolist() == holding
    if bins == 10 and num_classes == 2:
        assert holding == [4]  # 0.5 belongs to (0.4, 0.5]


def test_every_confidence_next_to_an_edge_matches_numpy() -> None:
    """Logits (log(c / (1 - c)), 0) give confidences around c; none may land in a neighbouring bin."""
    for bins in (10, 15, 97):
        edges = torch.linspace(0.5, 1, 2 * bins + 1, dtype=torch.float64)[1:-1]
        nearby = (edges[:, None] + torch.linspace(-3e-7, 3e-7, 61, dtype=torch.float64)).flatten()
        logits = torch.stack([torch.log(nearby / (1 - nearby)), torch.zeros_like(nearby)], dim=1)
        labels = torch.zeros(len(nearby), dtype=torch.int64)
        check_against_reference(logits.float(), labels, bins)
        check_against_reference(logits, labels, bins)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("first", [0, 3, 31, 32, 90, 118])
def test_of_equal_logits_the_first_class_wins(device: str, first: int) -> None:
    logits = torch.zeros(1, 120, device=device)
    logits[0, [first, 119]] = 2.0
    result = ops.calibration_bins(logits, torch.tensor([first], device=device))
    assert result.prediction.tolist() == [first]
    assert result.correct.sum().item() == 1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), -float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("column", [0, 5, 31, 64, 69])
def test_row_with_a_nan_or_infinity_is_named(device: str, dtype: torch.dtype, value: float, column: int) -> None:
    logits = make_logits(100, 70, dtype).to(device)
    labels = make_labels(100, 70).to(device)
    good = RAW(
        torch.cat([logits[:41], logits[42:77], logits[78:]]), torch.cat([labels[:41], labels[42:77], labels[78:]]), 15
    )
    logits[41, column] = value
    logits[77, column] = value
    with pytest.raises(ValueError, match=r"^logits: row 41 holds a NaN or infinity$"):
        ops.calibration_bins(logits, labels)
    confidence, prediction, count, confidence_sum, correct, bad_row = RAW(logits, labels, 15)
    assert bad_row.tolist() == [41]
    assert confidence.isnan().nonzero().flatten().tolist() == [41, 77]
    assert (prediction == -1).nonzero().flatten().tolist() == [41, 77]
    for got, expected in zip((count, confidence_sum, correct), good[2:5], strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("label", [-1, 120, 2**40, -(2**63)])
def test_label_out_of_range_is_named(device: str, label: int) -> None:
    logits = make_logits(9, 120, torch.float32).to(device)
    labels = make_labels(9, 120).to(device)
    labels[7] = label
    with pytest.raises(ValueError, match=rf"^labels: row 7 is {label}, expected 0 <= label < 120$"):
        ops.calibration_bins(logits, labels)
    assert RAW(logits, labels, 15)[2].sum().item() == 8


LABELS = torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("logits", "labels", "bins", "message"),
    [
        (torch.zeros(3), LABELS, 15, r"logits: got shape \(3,\), expected \(N, C\)"),
        (torch.zeros(4, 2, 2), LABELS, 15, r"logits: got shape \(4, 2, 2\), expected \(N, C\)"),
        (torch.zeros(4, 0), LABELS, 15, r"logits: got shape \(4, 0\), expected \(N, C\) with C >= 1"),
        (torch.zeros(4, 2, dtype=torch.int32), LABELS, 15, r"logits: got dtype Int, expected float32, float16"),
        (torch.zeros(4, 2), LABELS[:, None], 15, r"labels: got shape \(4, 1\), expected \(4,\)"),
        (torch.zeros(5, 2), LABELS, 15, r"labels: got shape \(4,\), expected \(5,\)"),
        (torch.zeros(4, 2), LABELS.int(), 15, r"labels: got dtype Int, expected int64"),
        (torch.zeros(4, 2), LABELS, 0, r"bins: got 0, expected 1 <= bins <= 4096"),
        (torch.zeros(4, 2), LABELS, 4097, r"bins: got 4097, expected 1 <= bins <= 4096"),
        (torch.zeros(1, 2).expand(2**31, 2), LABELS, 15, r"logits: got 2147483648 rows, expected fewer than"),
        (torch.zeros(4, 1).expand(4, 2**31), LABELS, 15, r"logits: got 2147483648 classes, expected fewer than"),
    ],
)
def test_refuses_arguments(logits: Tensor, labels: Tensor, bins: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        ops.calibration_bins(logits, labels, bins)


@needs_cuda
def test_refuses_labels_on_another_device() -> None:
    with pytest.raises(ValueError, match=r"^labels: got device cpu, expected cuda:0"):
        ops.calibration_bins(torch.zeros(4, 2, device="cuda"), LABELS)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_shards_add_up_exactly(device: str, dtype: torch.dtype) -> None:
    logits = make_logits(5000, 120, dtype).to(device)
    labels = make_labels(5000, 120).to(device)
    whole = ops.calibration_bins(logits, labels)
    shuffled = torch.randperm(5000, generator=torch.Generator().manual_seed(2)).to(device)
    for num_shards in (2, 7, 64):
        shards = [ops.calibration_bins(logits[i], labels[i]) for i in shuffled.tensor_split(num_shards)]
        for field in ("count", "confidence_sum", "correct"):
            assert torch.equal(torch.stack([getattr(shard, field) for shard in shards]).sum(0), getattr(whole, field))


@pytest.mark.parametrize("dtype", DTYPES)
def test_number_of_threads_changes_no_bit(dtype: torch.dtype) -> None:
    logits = make_logits(20_000, 37, dtype)
    labels = make_labels(20_000, 37)
    logits[15_000, 3] = float("nan")
    labels[9_000] = 99
    assert_threads_change_no_bit(lambda: RAW(logits, labels, 15))
    assert RAW(logits, labels, 15)[-1].item() == 9_000


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_classes", [1, 2, 31, 32, 33, 63, 64, 65, 120])
@pytest.mark.parametrize("operator", ["calibration_bins", "class_calibration_bins"])
def test_instruction_set_changes_no_bit(
    operator: str, num_classes: int, dtype: torch.dtype, instruction_set: str
) -> None:
    raw = getattr(torch.ops.dogs_accel, operator)
    labels = make_labels(100, num_classes)
    logits = make_logits(100, num_classes, dtype)
    for case in (logits, logits.round(), LOGIT_LAYOUTS["transposed"](logits)):  # rounded logits have ties
        for bins in (15, 1000):
            ops.limit_instruction_set(instruction_set)
            own = raw(case, labels, bins)
            ops.limit_instruction_set("baseline")
            for one, two in zip(own, raw(case, labels, bins), strict=True):
                assert torch.equal(one, two)


@pytest.mark.parametrize("layout", LOGIT_LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layout_changes_no_bit(layout: str, dtype: torch.dtype) -> None:
    logits, labels = make_logits(500, 77, dtype), make_labels(500, 77)
    for one, two in zip(RAW(logits, labels, 15), RAW(LOGIT_LAYOUTS[layout](logits), labels, 15), strict=True):
        assert torch.equal(one, two)


@needs_cuda
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_classes", [1, 2, 31, 120, 1000])
def test_the_cpu_and_the_cuda_kernel_agree_bit_for_bit(dtype: torch.dtype, num_classes: int) -> None:
    logits, labels = make_logits(3000, num_classes, dtype), make_labels(3000, num_classes)
    for cpu, cuda in zip(RAW(logits, labels, 15), RAW(logits.cuda(), labels.cuda(), 15), strict=True):
        assert torch.equal(cpu, cuda.cpu())


@needs_cuda
def test_cuda_runs_on_the_current_stream_without_synchronising() -> None:
    logits, labels = make_logits(3000, 120, torch.float32).cuda(), make_labels(3000, 120).cuda()
    assert_runs_on_the_current_stream_without_synchronising(lambda: RAW(logits, labels, 15))
    assert_keeps_the_order_of_its_stream(lambda: RAW(logits, labels, 15), logits.neg_)


@needs_cuda
@pytest.mark.parametrize("bins", [15, 4096])
def test_cuda_graph_replays_it(bins: int) -> None:
    logits, labels = make_logits(3000, 120, torch.float32).cuda(), make_labels(3000, 120).cuda()
    assert_cuda_graph_replays(lambda: RAW(logits, labels, bins), logits.neg_)


@needs_cuda
@needs_two_gpus
def test_runs_on_a_device_that_is_not_current() -> None:
    logits, labels = make_logits(3000, 120, torch.float32), make_labels(3000, 120)
    assert_runs_on_a_device_that_is_not_current(lambda device: RAW(logits.to(device), labels.to(device), 15))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_bytes", [1, 512, 1033, 5000, 3 << 20, 100 << 20])
def test_fresh_memory_can_hold_garbage(device: str, num_bytes: int) -> None:
    """What the tests of outputs rest on."""
    is_small = device == "cpu" and num_bytes < 1033
    torch.empty(num_bytes, dtype=torch.uint8, device=device).fill_(1)
    with garbage_in_fresh_memory(device):
        fresh = [torch.empty(num_bytes, dtype=torch.uint8, device=device) for _ in range(64 if is_small else 1)]
    num_filled = sum(bool((each == GARBAGE[device]).all()) for each in fresh)
    # glibc's cache keeps few blocks of each small size, and what they held.
    assert num_filled >= len(fresh) - 8 if is_small else num_filled == 1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0, 5), (333, 120), (20, 5003)])
@pytest.mark.parametrize("bins", [15, 4096])
def test_writes_every_element(device: str, dtype: torch.dtype, shape: tuple[int, int], bins: int) -> None:
    logits, labels = make_logits(*shape, dtype), make_labels(*shape)
    logits[5:6, 3] = float("nan")
    labels[7:8] = -1
    logits, labels = logits.to(device), labels.to(device)
    assert_writes_every_element(lambda: RAW(logits, labels, bins), device)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_shape_stride_and_value(device: str, data: st.DataObject) -> None:
    num_rows = data.draw(st.integers(0, 40), label="rows")
    num_classes = data.draw(st.integers(1, 100), label="classes")
    row_step = data.draw(st.integers(1, 3), label="row step")
    class_step = data.draw(st.integers(1, 3), label="class step")
    transposed = data.draw(st.booleans(), label="transposed")
    dtype = data.draw(st.sampled_from(DTYPES), label="dtype")
    scale = data.draw(st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e4]), label="scale")
    bins = data.draw(st.integers(1, 40), label="bins")
    seed = data.draw(st.integers(0, 2**31), label="seed")
    logits = make_logits(num_rows * row_step, num_classes * class_step, dtype, scale, seed).to(device)
    logits = (logits.t().contiguous().t() if transposed else logits)[::row_step, ::class_step]
    check_against_reference(logits, make_labels(num_rows, num_classes, seed).to(device), bins)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0, 5), (17, 120)])
def test_opcheck(device: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    torch.library.opcheck(RAW, (make_logits(*shape, dtype).to(device), make_labels(*shape).to(device), 15))


def raw_bins(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    confidence, _, count, confidence_sum, _, _ = torch.ops.dogs_accel.calibration_bins(logits * 2, labels, 15)
    return confidence + 1, count * 2, confidence_sum


@pytest.mark.parametrize("backend", BACKENDS)
def test_torch_compile(backend: str) -> None:
    calls = [(make_logits(num_rows, 120, torch.float32), make_labels(num_rows, 120)) for num_rows in (50, 81)]
    assert_compiles(backend, raw_bins, calls)


def test_python_function_under_torch_compile_still_raises() -> None:
    torch.compiler.reset()
    compiled = torch.compile(ops.calibration_bins, backend="eager")
    logits, labels = make_logits(30, 12, torch.float32), make_labels(30, 12)
    assert torch.equal(compiled(logits, labels).count, ops.calibration_bins(logits, labels).count)
    labels[4] = 12
    with pytest.raises(ValueError, match=r"^labels: row 4 is 12"):
        compiled(logits, labels)


def test_torchscript(tmp_path: Path) -> None:
    @torch.jit.script
    def scripted(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        outputs = torch.ops.dogs_accel.calibration_bins(logits, labels, 10)
        return outputs[2], outputs[3]

    scripted.save(str(tmp_path / "bins.pt"))
    loaded = torch.jit.load(str(tmp_path / "bins.pt"))
    logits, labels = make_logits(30, 12, torch.float32), make_labels(30, 12)
    expected = ops.calibration_bins(logits, labels, 10)
    for function in (scripted, loaded):
        count, confidence_sum = function(logits, labels)
        assert torch.equal(count, expected.count)
        assert torch.equal(confidence_sum, expected.confidence_sum)


def test_meta_labels_of_real_logits_are_refused() -> None:
    for operator in (RAW, torch.ops.dogs_accel.class_calibration_bins):
        with pytest.raises(RuntimeError, match="labels: got device meta, expected cpu as logits have"):
            operator(torch.zeros(4, 3), LABELS.to("meta"), 5)


def test_meta_tensors_get_the_right_shapes() -> None:
    outputs = RAW(torch.empty(6, 4, device="meta", dtype=torch.bfloat16), torch.empty(6, device="meta").long(), 9)
    real = RAW(torch.zeros(6, 4, dtype=torch.bfloat16), torch.zeros(6, dtype=torch.int64), 9)
    assert [(x.shape, x.dtype) for x in outputs] == [(x.shape, x.dtype) for x in real]


def test_import_error_says_how_to_build(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match=r"pip install -e \.") as error:
        ops._load_cpu_library(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "python setup.py build_ext --inplace" in str(error.value)


def test_cuda_status_is_one_line_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ops.cuda_status().startswith("CUDA kernels ")
    assert "\n" not in ops.cuda_status()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert ops._load_cuda_library(tmp_path) == "the CUDA library was not built"
    monkeypatch.setattr(torch.version, "cuda", None)
    assert ops._load_cuda_library(tmp_path) == "this torch is a CPU-only build"


def test_a_broken_cuda_library_stops_only_where_there_is_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_C_cuda.abi3.so").write_bytes(b"not a library")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    reason = ops._load_cuda_library(tmp_path)
    assert reason is not None
    assert reason.startswith("the CUDA library cannot be loaded: ")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ImportError, match="build it again"):
        ops._load_cuda_library(tmp_path)


def test_package_itself_does_not_import_torch() -> None:
    code = "import sys, dogs_accel; assert dogs_accel.__version__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
