"""class_calibration_bins against float64 numpy, on every dtype, stride and size that it promises."""

from __future__ import annotations

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
    LOGIT_LAYOUTS,
    LOGIT_SHAPES,
    assert_compiles,
    assert_cuda_graph_replays,
    assert_keeps_the_order_of_its_stream,
    assert_runs_on_a_device_that_is_not_current,
    assert_runs_on_the_current_stream_without_synchronising,
    assert_threads_change_no_bit,
    assert_writes_every_element,
    make_labels,
    make_logits,
    needs_cuda,
    needs_two_gpus,
)

RAW = torch.ops.dogs_accel.class_calibration_bins
FIELDS = ("count", "probability_sum", "positives", "squared_error")


def reference_softmax(logits: Tensor) -> np.ndarray:
    x = logits.double().cpu().numpy()
    exp = np.exp(x - x.max(axis=1, keepdims=True)) if x.size else x
    return exp / exp.sum(axis=1, keepdims=True)


def reference_bins(softmax: np.ndarray, labels: np.ndarray, bins: int) -> tuple[np.ndarray, ...]:
    """Counts, sums and positives of (lower, upper] bins of each class, and its squared error, from the definition."""
    num_rows, num_classes = softmax.shape
    bin_of = np.clip(np.searchsorted(np.linspace(0, 1, bins + 1), softmax, side="left") - 1, 0, bins - 1)
    cell = (np.arange(num_classes) * bins + bin_of).ravel()
    one_hot = np.zeros((num_rows, num_classes))
    one_hot[np.arange(num_rows), labels] = 1
    count, probability_sum, positives = (
        np.bincount(cell, weights=weights.ravel(), minlength=num_classes * bins).reshape(num_classes, bins)
        for weights in (np.ones_like(softmax), softmax, one_hot)
    )
    return count, probability_sum, positives, ((softmax - one_hot) ** 2).sum(axis=0)


def rows_off_the_edges(logits: Tensor, bins: int) -> Tensor:
    """Rows none of whose probabilities is so near an inner edge that a rounding may move it over."""
    softmax = reference_softmax(logits)
    nearest = np.clip(np.round(softmax * bins), 1, max(1, bins - 1)) / bins
    margin = 1e-13 if logits.dtype == torch.float64 else 1e-6
    near = (np.abs(softmax - nearest) < margin).any(axis=1) if bins > 1 else np.zeros(len(softmax), dtype=bool)
    return torch.from_numpy(~near).to(logits.device)


def check_against_reference(logits: Tensor, labels: Tensor, bins: int) -> ops.ClassCalibrationBins:
    result = ops.class_calibration_bins(logits, labels, bins)
    count, probability_sum, positives, squared_error = reference_bins(
        reference_softmax(logits), labels.cpu().numpy(), bins
    )
    np.testing.assert_array_equal(result.count.cpu().numpy(), count)
    np.testing.assert_array_equal(result.positives.cpu().numpy(), positives)
    # Of a row the rounding of the probability, and half a unit of the fixed-point sum.
    atol = (1e-14 if logits.dtype == torch.float64 else 1e-6) + 2**-32
    np.testing.assert_allclose(result.probability_sum.cpu().numpy(), probability_sum, rtol=0, atol=atol * len(labels))
    np.testing.assert_allclose(result.squared_error.cpu().numpy(), squared_error, rtol=0, atol=atol * len(labels))
    return result


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", LOGIT_SHAPES)
@pytest.mark.parametrize("layout", LOGIT_LAYOUTS)
def test_matches_numpy(device: str, dtype: torch.dtype, shape: tuple[int, int], layout: str) -> None:
    logits, labels = make_logits(*shape, dtype), make_labels(*shape)
    kept = rows_off_the_edges(logits, 15)
    logits, labels = LOGIT_LAYOUTS[layout](logits[kept].to(device)), labels[kept].to(device)
    check_against_reference(logits, labels, bins=15)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bins", [1, 2, 10, 95, 96, 1000, 4096])
@pytest.mark.parametrize("num_classes", [1, 7, 40])
def test_matches_numpy_for_any_number_of_bins(device: str, bins: int, num_classes: int) -> None:
    logits, labels = make_logits(501, num_classes, torch.float32), make_labels(501, num_classes)
    kept = rows_off_the_edges(logits, bins)
    check_against_reference(logits[kept].to(device), labels[kept].to(device), bins)


@pytest.mark.parametrize("device", DEVICES)
def test_histograms_too_large_for_each_thread(device: str) -> None:
    logits, labels = make_logits(600, 3000, torch.float32), make_labels(600, 3000)
    kept = rows_off_the_edges(logits, 40)
    result = check_against_reference(logits[kept].to(device), labels[kept].to(device), 40)
    assert result.count.numel() > 2**16


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_probabilities_are_in_one_bin_of_every_class(device: str, dtype: torch.dtype) -> None:
    """1 / C in float32 may be above the edge of which it is the rounding, and then is in the bin above."""
    labels = torch.zeros(3, dtype=torch.int64, device=device)
    for num_classes in range(1, 401):
        logits = torch.zeros(3, num_classes, dtype=dtype, device=device)
        count = ops.class_calibration_bins(logits, labels, num_classes).count
        assert torch.equal(count, ops.calibration_bins(logits, labels, num_classes).count.expand_as(count))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_label_s_bin_is_that_of_its_confidence(device: str, dtype: torch.dtype) -> None:
    """Exactly, on the edges too: the probability of the predicted class has the bits of calibration_bins."""
    logits = make_logits(20_000, 9, dtype).to(device)
    labels = logits.argmax(dim=1)
    for bins in (15, 97, 1000):
        classes, rows = ops.class_calibration_bins(logits, labels, bins), ops.calibration_bins(logits, labels, bins)
        assert torch.equal(classes.positives.sum(dim=0), rows.count)


@pytest.mark.parametrize("device", DEVICES)
def test_expanded_rows_and_labels(device: str) -> None:
    logits = make_logits(1, 120, torch.float32).to(device).expand(50, 120)
    labels = make_labels(1, 120).to(device).expand(50)
    assert check_against_reference(logits, labels, bins=10).positives.max().item() == 50
    check_against_reference(make_logits(50, 1, torch.float16).to(device).expand(50, 40), labels % 40, bins=9)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_logits(device: str, dtype: torch.dtype) -> None:
    big = torch.finfo(dtype).max
    logits = torch.tensor(
        [[big, -big, 0.0], [-big, -big, -big], [big, big, 0.0], [0.0, -0.0, 0.0], [-80.0, -90.0, -800.0]], dtype=dtype
    ).to(device)
    check_against_reference(logits, torch.tensor([0, 1, 2, 0, 1], device=device), bins=13)  # 1/3 is no edge


@pytest.mark.parametrize("device", DEVICES)
def test_of_a_sure_classifier_nothing_is_lost_to_rounding(device: str) -> None:
    """The Brier score of a right row with probability 1 - 1e-5 is 1e-10 and not the rounding of a sum near 1."""
    logits = torch.tensor([[11.5129, 0.0]], device=device).expand(1000, 2)
    labels = torch.zeros(1000, dtype=torch.int64, device=device)
    result = ops.class_calibration_bins(logits, labels)
    error = 1 / (1 + np.exp(np.float64(np.float32(11.5129)))) ** 2
    np.testing.assert_allclose(result.squared_error.cpu().numpy() / 1000, [error, error], rtol=0, atol=1.2e-10)
    right = ops.class_calibration_bins(logits * 20, labels)
    assert right.squared_error.tolist() == [0.0, 0.0]
    assert right.probability_sum[:, -1].tolist() == [1000.0, 0.0]
    assert right.count[:, [0, -1]].tolist() == [[0, 1000], [1000, 0]]
    assert ops.class_calibration_bins(logits * 20, labels + 1).squared_error.tolist() == [1000.0, 1000.0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_classes", [1, 2, 4, 8, 64, 256])
@pytest.mark.parametrize("bins", [1, 2, 4, 8, 10, 16, 98, 256])
def test_probability_on_an_edge_is_in_the_lower_bin(device: str, num_classes: int, bins: int) -> None:
    logits = torch.zeros(3, num_classes, device=device)
    result = ops.class_calibration_bins(logits, torch.zeros(3, dtype=torch.int64, device=device), bins)
    edges = np.linspace(0, 1, bins + 1)
    [holding] = [b for b in range(bins) if edges[b] < 1 / num_classes <= edges[b + 1]]
    expected = torch.zeros(num_classes, bins, dtype=torch.int64)
    expected[:, holding] = 3
    assert torch.equal(result.count.cpu(), expected)
    assert torch.equal(result.probability_sum.cpu(), expected / num_classes)
    assert result.positives[0, holding].item() == result.positives.sum().item() == 3


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("column", [0, 31, 69])
def test_row_with_a_nan_or_infinity_is_named_and_counted_nowhere(
    device: str, dtype: torch.dtype, value: float, column: int
) -> None:
    logits, labels = make_logits(100, 70, dtype).to(device), make_labels(100, 70).to(device)
    kept = torch.tensor([row not in (41, 77) for row in range(100)], device=device)
    good = RAW(logits[kept], labels[kept], 15)
    logits[41, column] = value
    logits[77, column] = value
    with pytest.raises(ValueError, match=r"^logits: row 41 holds a NaN or infinity$"):
        ops.class_calibration_bins(logits, labels)
    result = RAW(logits, labels, 15)
    assert result[-1].tolist() == [41]
    for got, expected in zip(result[:-1], good[:-1], strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("label", [-1, 120, 2**40, -(2**63)])
def test_label_out_of_range_is_named(device: str, label: int) -> None:
    logits, labels = make_logits(9, 120, torch.float32).to(device), make_labels(9, 120).to(device)
    labels[7] = label
    with pytest.raises(ValueError, match=rf"^labels: row 7 is {label}, expected 0 <= label < 120$"):
        ops.class_calibration_bins(logits, labels)
    assert RAW(logits, labels, 15)[0].sum(dim=1).tolist() == [8] * 120


LABELS = torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("logits", "labels", "bins", "message"),
    [
        (torch.zeros(4, 0), LABELS, 15, r"logits: got shape \(4, 0\), expected \(N, C\) with C >= 1"),
        (torch.zeros(4, 2, dtype=torch.int32), LABELS, 15, r"logits: got dtype Int, expected float32, float16"),
        (torch.zeros(5, 2), LABELS, 15, r"labels: got shape \(4,\), expected \(5,\)"),
        (torch.zeros(4, 2), LABELS, 4097, r"bins: got 4097, expected 1 <= bins <= 4096"),
        (
            torch.zeros(4, 1).expand(4, 2**20),
            LABELS,
            2048,
            r"bins: got 2048 of 1048576 classes, expected fewer than 2\^31 bins in all",
        ),
    ],
)
def test_refuses_arguments(logits: Tensor, labels: Tensor, bins: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        ops.class_calibration_bins(logits, labels, bins)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_shards_add_up_exactly(device: str, dtype: torch.dtype) -> None:
    logits, labels = make_logits(5000, 120, dtype).to(device), make_labels(5000, 120).to(device)
    whole = ops.class_calibration_bins(logits, labels)
    shuffled = torch.randperm(5000, generator=torch.Generator().manual_seed(2)).to(device)
    for num_shards in (2, 7, 64):
        shards = [ops.class_calibration_bins(logits[i], labels[i]) for i in shuffled.tensor_split(num_shards)]
        for field in FIELDS:
            assert torch.equal(torch.stack([getattr(shard, field) for shard in shards]).sum(0), getattr(whole, field))


def all_reduce_bins(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    logits, labels = make_logits(999, 37, torch.float32), make_labels(999, 37)
    rows, classes = (f(logits[rank::2], labels[rank::2]) for f in (ops.calibration_bins, ops.class_calibration_bins))
    sums = [rows.count, rows.confidence_sum, rows.correct, *(getattr(classes, field) for field in FIELDS)]
    for tensor in sums:
        torch.distributed.all_reduce(tensor)
    torch.save(sums, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_all_reduce_of_two_processes_is_the_whole(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(all_reduce_bins, (str(tmp_path),), nprocs=2)
    logits, labels = make_logits(999, 37, torch.float32), make_labels(999, 37)
    rows, classes = ops.calibration_bins(logits, labels), ops.class_calibration_bins(logits, labels)
    whole = [rows.count, rows.confidence_sum, rows.correct, *(getattr(classes, field) for field in FIELDS)]
    for rank in (0, 1):
        for got, expected in zip(torch.load(tmp_path / f"{rank}.pt"), whole, strict=True):
            assert torch.equal(got, expected)


@pytest.mark.parametrize("bins", [15, 4096])
@pytest.mark.parametrize("dtype", DTYPES)
def test_number_of_threads_changes_no_bit(dtype: torch.dtype, bins: int) -> None:
    logits, labels = make_logits(20_000, 37, dtype), make_labels(20_000, 37)
    logits[15_000, 3] = float("nan")
    labels[9_000] = 99
    assert_threads_change_no_bit(lambda: RAW(logits, labels, bins))
    assert RAW(logits, labels, bins)[-1].item() == 9_000


@pytest.mark.parametrize("layout", LOGIT_LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layout_changes_no_bit(layout: str, dtype: torch.dtype) -> None:
    logits, labels = make_logits(500, 77, dtype), make_labels(500, 77)
    for one, two in zip(RAW(logits, labels, 15), RAW(LOGIT_LAYOUTS[layout](logits), labels, 15), strict=True):
        assert torch.equal(one, two)


@needs_cuda
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_classes", [1, 2, 31, 32, 33, 120, 1000])
@pytest.mark.parametrize("bins", [1, 15, 95, 96, 4096])
def test_the_cpu_and_the_cuda_kernel_agree_bit_for_bit(dtype: torch.dtype, num_classes: int, bins: int) -> None:
    logits, labels = make_logits(3000, num_classes, dtype), make_labels(3000, num_classes)
    logits[17, 0] = float("nan")
    labels[5] = -1
    for cpu, cuda in zip(RAW(logits, labels, bins), RAW(logits.cuda(), labels.cuda(), bins), strict=True):
        assert torch.equal(cpu, cuda.cpu())


@needs_cuda
def test_cuda_runs_on_the_current_stream_without_synchronising() -> None:
    logits, labels = make_logits(3000, 120, torch.float32).cuda(), make_labels(3000, 120).cuda()
    for bins in (15, 4096):
        assert_runs_on_the_current_stream_without_synchronising(lambda bins=bins: RAW(logits, labels, bins))
        assert_keeps_the_order_of_its_stream(lambda bins=bins: RAW(logits, labels, bins), logits.neg_)


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
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0, 5), (333, 120), (20, 1003)])
@pytest.mark.parametrize("bins", [15, 1000])
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
    scale = data.draw(st.sampled_from([1e-3, 1.0, 30.0, 1e4]), label="scale")
    bins = data.draw(st.integers(1, 40), label="bins")
    seed = data.draw(st.integers(0, 2**31), label="seed")
    logits = make_logits(num_rows * row_step, num_classes * class_step, dtype, scale, seed)
    kept = rows_off_the_edges(logits[::row_step, ::class_step], bins).repeat_interleave(row_step)
    logits = logits[kept].to(device)
    logits = (logits.t().contiguous().t() if transposed else logits)[::row_step, ::class_step]
    check_against_reference(logits, make_labels(len(logits), num_classes, seed).to(device), bins)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0, 5), (17, 120)])
def test_opcheck(device: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    torch.library.opcheck(RAW, (make_logits(*shape, dtype).to(device), make_labels(*shape).to(device), 15))


def raw_bins(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    outputs = torch.ops.dogs_accel.class_calibration_bins(logits * 2, labels, 15)
    return outputs[0] * 2, outputs[3] + 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_torch_compile(backend: str) -> None:
    calls = [(make_logits(num_rows, 120, torch.float32), make_labels(num_rows, 120)) for num_rows in (50, 81)]
    assert_compiles(backend, raw_bins, calls)


def test_torchscript(tmp_path: Path) -> None:
    @torch.jit.script
    def scripted(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        outputs = torch.ops.dogs_accel.class_calibration_bins(logits, labels, 10)
        return outputs[0], outputs[3]

    scripted.save(str(tmp_path / "bins.pt"))
    logits, labels = make_logits(30, 12, torch.float32), make_labels(30, 12)
    expected = ops.class_calibration_bins(logits, labels, 10)
    for function in (scripted, torch.jit.load(str(tmp_path / "bins.pt"))):
        count, squared_error = function(logits, labels)
        assert torch.equal(count, expected.count)
        assert torch.equal(squared_error, expected.squared_error)


def test_meta_tensors_get_the_right_shapes() -> None:
    outputs = RAW(torch.empty(6, 4, device="meta", dtype=torch.bfloat16), torch.empty(6, device="meta").long(), 9)
    real = RAW(torch.zeros(6, 4, dtype=torch.bfloat16), torch.zeros(6, dtype=torch.int64), 9)
    assert [(x.shape, x.dtype) for x in outputs] == [(x.shape, x.dtype) for x in real]
