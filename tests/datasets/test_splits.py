import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dogs_accel.datasets.splits import OFFICIAL_TEST, OFFICIAL_TRAIN, split_indices, stratified_split


def test_hundred_a_class_gives_exactly_85_and_15() -> None:
    labels = np.repeat(np.arange(120), 100)
    train, val = stratified_split(labels)
    assert (len(train), len(val)) == (10_200, 1_800)
    assert np.bincount(labels[train]).tolist() == [85] * 120
    assert np.bincount(labels[val]).tolist() == [15] * 120


def test_same_seed_same_order_and_other_seed_other_images() -> None:
    labels = np.repeat(np.arange(4), 20)
    first, again, other = (stratified_split(labels, seed=seed)[0] for seed in (1, 1, 2))
    assert first.tolist() == again.tolist()
    assert sorted(first.tolist()) != sorted(other.tolist())


def test_order_is_shuffled_not_sorted() -> None:
    train, _ = stratified_split(np.repeat(np.arange(4), 20))
    assert train.tolist() != sorted(train.tolist())


def refusal(labels: np.ndarray, val_ratio: float) -> str | None:
    try:
        stratified_split(labels, ratio=val_ratio)
    except ValueError as error:
        return str(error)
    return None


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), min_size=2, max_size=6),
    val_ratio=st.sampled_from([0.1, 0.15, 0.3, 0.5, 0.8]),
    seed=st.integers(0, 5),
)
def test_every_class_is_on_both_sides_or_the_split_is_refused_with_a_ratio_that_works(
    counts: list[int], val_ratio: float, seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    message = refusal(labels, val_ratio)
    if message is not None:
        assert re.search(f"got {min(counts)} training images?, expected at least", message)
        hint = re.search(r"; val_ratio (\S+) would do$", message)
        assert (hint is not None) == (min(counts) >= 3)
        if hint is None:
            return
        val_ratio = float(hint[1])
    train, val = stratified_split(labels, ratio=val_ratio, seed=seed)
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(len(labels)))
    assert set(labels[train]) == set(labels[val]) == set(range(len(counts)))


def test_a_class_that_is_too_small_is_named_with_what_it_needs() -> None:
    labels = np.repeat([0, 1, 2], [40, 5, 40])
    with pytest.raises(ValueError, match=r"class 'toy terrier': got 5 training images, expected at least 7 .*0\.2 "):
        stratified_split(labels, class_names=["beagle", "toy terrier", "borzoi"])
    train, val = stratified_split(labels, ratio=0.2)
    assert np.bincount(labels[val]).tolist() == [8, 1, 8]
    assert len(train) == 68


def test_a_class_of_one_image_cannot_be_on_both_sides() -> None:
    with pytest.raises(ValueError, match="class 1: got 1 training image, expected at least 3 "):
        stratified_split(np.array([0, 0, 1]), ratio=0.5)


@pytest.mark.parametrize("val_ratio", [0.0, 1.0, -0.1, 15, float("nan")])
def test_bad_ratio(val_ratio: float) -> None:
    with pytest.raises(ValueError, match="val_ratio: got"):
        stratified_split(np.repeat([0, 1], 20), ratio=val_ratio)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_bad_seed(seed: int) -> None:
    with pytest.raises(ValueError, match="seed: got"):
        stratified_split(np.repeat([0, 1], 20), seed=seed)


def test_no_training_images() -> None:
    with pytest.raises(ValueError, match="got no training images"):
        stratified_split(np.array([], dtype=np.int64))


def test_indices_are_into_the_whole_dataset_and_test_keeps_its_order() -> None:
    labels = np.concatenate([np.repeat([0, 1], 10), np.repeat([1, 0], 3)])
    official = [OFFICIAL_TRAIN] * 20 + [OFFICIAL_TEST] * 6
    # The official test images are first here: an index is a place in the dataset, not in the training list.
    indices = {
        split: split_indices(labels[::-1], official[::-1], split, val_ratio=0.2) for split in ("train", "val", "test")
    }
    assert indices["test"].tolist() == [0, 1, 2, 3, 4, 5]
    assert sorted([*indices["train"].tolist(), *indices["val"].tolist()]) == list(range(6, 26))
    assert {array.dtype for array in indices.values()} == {np.dtype(np.int64)}


def test_unknown_split_lists_the_known() -> None:
    with pytest.raises(ValueError, match="split: got 'valid', expected one of train, val, test"):
        split_indices(np.array([0]), [OFFICIAL_TRAIN], "valid")


def test_one_official_split_a_label() -> None:
    with pytest.raises(ValueError, match=r"official_split: got 1 entries, expected one per label \(2\)"):
        split_indices(np.array([0, 1]), [OFFICIAL_TRAIN], "train")
