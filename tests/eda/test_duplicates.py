"""Perceptual hashes that survive what copies go through, and groups against a slow pairwise search."""

import io
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy.fft import dctn

from dogs_accel.eda.duplicates import NEAR_DISTANCE, find_duplicates, hash_distance, perceptual_hash


def as_tensor(image):
    return torch.from_numpy(np.array(image.convert("RGB")))


def picture(seed, size=(300, 220)):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def as_jpeg(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


COPIES = {
    "recompressed": lambda image: as_jpeg(image, 30),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "twice the size": lambda image: image.resize((image.width * 2, image.height * 2)),
    "squashed": lambda image: image.resize((224, 224)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "grey": lambda image: image.convert("L"),
}


@pytest.mark.parametrize("change", COPIES)
def test_copies_are_near_and_other_pictures_are_not(change):
    originals = [picture(seed) for seed in range(20)]
    ours = perceptual_hash([as_tensor(image) for image in originals])
    copies = perceptual_hash([as_tensor(COPIES[change](image)) for image in originals])
    distance = hash_distance(ours, copies)
    assert distance.diagonal().max() <= NEAR_DISTANCE
    assert distance[~np.eye(20, dtype=bool)].min() > NEAR_DISTANCE


def test_hash_is_its_definition():
    """32 x 32 grey, two-dimensional cosine transform, 8 x 8 lowest, above the median."""
    image = picture(3)
    small = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float64)
    low = dctn(small @ [0.299, 0.587, 0.114])[:8, :8].ravel()
    expected = np.packbits(low > np.median(low)).view(np.uint64)
    # PIL's scaling and torch's may differ by one level, which may turn a bit that is next to the median.
    assert hash_distance(perceptual_hash([as_tensor(image)]), expected).item() <= 1


def test_hash_of_tiny_flat_and_no_images():
    flat = torch.full((1, 1, 3), 77, dtype=torch.uint8)
    hashes = perceptual_hash([flat, torch.full((50, 2, 3), 77, dtype=torch.uint8)])
    assert hashes.shape == (2,)
    assert hashes.dtype == np.uint64
    assert perceptual_hash([]).shape == (0,)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_distance_counts_bits(values):
    hashes = np.array(values, dtype=np.uint64)
    expected = [[bin(a ^ b).count("1") for b in values] for a in values]
    assert hash_distance(hashes, hashes).tolist() == expected


YES = np.ones(40_000, dtype=bool)


def slow_groups(digests, hashes, has_contrast, near_distance):
    """Follow pairs from file to file."""
    left, groups = set(range(len(digests))), []
    for start in range(len(digests)):
        if start not in left:
            continue
        group, frontier = set(), {start}
        while frontier:
            group |= frontier
            frontier = {
                other
                for other in left - group
                for member in frontier
                if digests[member] == digests[other]
                or (
                    (has_contrast[member] and has_contrast[other])
                    and bin(int(hashes[member]) ^ int(hashes[other])).count("1") <= near_distance
                )
            }
        left -= group
        if len(group) > 1:
            groups.append(sorted(group))
    return groups


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.sampled_from([0, 1, 3, 15, 255, 2**63, 2**64 - 1]), st.booleans()),
        max_size=25,
    ),
    st.sampled_from([0, 1, 2, 6, 64]),
)
def test_groups_match_a_slow_search(files, near_distance):
    digests, values, has_contrast = map(list, zip(*files, strict=True)) if files else ([], [], [])
    hashes = np.array(values, dtype=np.uint64)
    groups = find_duplicates(digests, hashes, np.array(has_contrast, dtype=bool), near_distance)
    assert [group.members for group in groups] == slow_groups(digests, hashes, has_contrast, near_distance)
    for group in groups:
        first = int(hashes[group.members[0]])
        assert group.distance == [bin(first ^ int(hashes[member])).count("1") for member in group.members]
        assert group.is_exact == [digests.count(digests[member]) > 1 for member in group.members]


def test_groups_over_more_than_one_block():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 5000, dtype=np.uint64)
    hashes[[4999, 2500]] = hashes[7] ^ np.array([0b111, 0b111000], dtype=np.uint64)
    digests = [str(i) for i in range(5000)]
    digests[4321] = digests[12]
    assert [group.members for group in find_duplicates(digests, hashes, YES[:5000])] == [[7, 2500, 4999], [12, 4321]]


def test_many_copies_of_one_picture_are_one_group():
    digests, hashes = ["same"] * 30_000 + ["other"], np.zeros(30_001, dtype=np.uint64)
    [group] = find_duplicates(digests, hashes, YES[:30_001])
    assert len(group.members) == 30_001
    assert group.is_exact == [True] * 30_000 + [False]


def test_many_pictures_that_are_all_near_are_one_group():
    """72 million pairs, of which none needs to be kept."""
    hashes = np.unique(np.random.default_rng(0).integers(0, 2**16, 40_000, dtype=np.uint64))[:12_000]
    tracemalloc.start()
    [group] = find_duplicates([str(value) for value in hashes], hashes, YES[:12_000], near_distance=16)
    assert len(group.members) == 12_000
    assert tracemalloc.get_traced_memory()[1] < 400e6
    tracemalloc.stop()


def test_real_copies_are_found(shared_data):
    """A real photo that Stanford Dogs has twice, under two breeds."""
    folder = shared_data / "stanford-dogs-crops" / "Images"
    names = ("n02085782_313", "n02086646_280", "n02085782_2459", "n02097474_1962", "n02085782_1039")
    paths = [next(folder.rglob(f"{name}.jpg"), None) for name in names]
    if None in paths:
        pytest.skip("the crops differ")
    hashes = perceptual_hash([as_tensor(Image.open(path)) for path in paths])
    assert [group.members for group in find_duplicates(list(names), hashes, YES[:5])] == [[0, 1], [2, 3]]


@pytest.mark.parametrize("near_distance", [-1, 65])
def test_refuses_a_distance_that_cannot_be(near_distance):
    with pytest.raises(ValueError, match=f"^near_distance: got {near_distance}, expected 0 <= near_distance <= 64$"):
        find_duplicates(["a"], np.zeros(1, dtype=np.uint64), YES[:1], near_distance)
