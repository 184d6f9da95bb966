"""Perceptual hashes that survive what copies go through, and groups against a slow pairwise search."""

import io
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance
from scipy.fft import dctn

from dogs_accel.eda.duplicates import (
    NEAR_DISTANCE,
    find_duplicates,
    hash_distance,
    near_levels,
    perceptual_hash,
    small_pictures,
    thumbnails,
)


def as_tensor(image):
    return torch.from_numpy(np.array(image.convert("RGB")))


def hashes_of(images):
    return perceptual_hash(small_pictures([as_tensor(image) for image in images]))


def groups_of(images):
    """Members of the groups of different files of these looks."""
    small = small_pictures([as_tensor(image) for image in images])
    names = [str(number) for number in range(len(images))]
    found = find_duplicates(names, perceptual_hash(small), thumbnails(small), YES[: len(images)])
    return [group.members for group in found]


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
RECOLOURED = {"grey"}
"""Of other thumbnails, and so not found."""


@pytest.mark.parametrize("change", COPIES)
def test_copies_are_near_and_other_pictures_are_not(change):
    originals = [picture(seed) for seed in range(20)]
    ours = hashes_of(originals)
    copies = hashes_of([COPIES[change](image) for image in originals])
    distance = hash_distance(ours, copies)
    assert distance.diagonal().max() <= NEAR_DISTANCE
    assert distance[~np.eye(20, dtype=bool)].min() > NEAR_DISTANCE
    if change not in RECOLOURED:
        both = [*originals, *(COPIES[change](image) for image in originals)]
        assert groups_of(both) == [[at, at + 20] for at in range(20)]


def test_hash_is_its_definition():
    """32 x 32 grey, two-dimensional cosine transform, 8 x 8 lowest, above the median."""
    image = picture(3)
    small = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float64)
    low = dctn(small @ [0.299, 0.587, 0.114])[:8, :8].ravel()
    expected = np.packbits(low > np.median(low)).view(np.uint64)
    # PIL's scaling and torch's may differ by one level, which may turn a bit that is next to the median.
    assert hash_distance(hashes_of([image]), expected).item() <= 1


def test_hash_of_tiny_flat_and_no_images():
    flat = torch.full((1, 1, 3), 77, dtype=torch.uint8)
    small = small_pictures([flat, torch.full((50, 2, 3), 77, dtype=torch.uint8)])
    hashes = perceptual_hash(small)
    assert hashes.shape == (2,)
    assert hashes.dtype == np.uint64
    assert (thumbnails(small) == 77).all()
    assert perceptual_hash(small_pictures([])).shape == (0,)
    assert thumbnails(small_pictures([])).shape == (0, 16, 16, 3)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_distance_counts_bits(values):
    hashes = np.array(values, dtype=np.uint64)
    expected = [[bin(a ^ b).count("1") for b in values] for a in values]
    assert hash_distance(hashes, hashes).tolist() == expected


YES = np.ones(40_000, dtype=bool)


def flat_thumbnails(levels):
    """Thumbnails that differ from each other by as much as their levels do."""
    return np.repeat(np.array(levels, dtype=np.uint8), 16 * 16 * 3).reshape(-1, 16, 16, 3)


def slow_groups(contents, near_distance):
    """Follow the rule from file to file; contents: (name, hash, level, has_contrast) of each file."""
    telling = [content[2] for content in dict.fromkeys(contents) if content[3]]
    limit = near_levels(flat_thumbnails(telling))

    def near(one, other, share=1.0):
        bits = bin(one[1] ^ other[1]).count("1")
        return bits <= share * near_distance and abs(one[2] - other[2]) <= share * limit

    left, groups = list(dict.fromkeys(contents)), []
    while left:
        leader, *left = left
        close = [other for other in left if leader[3] and other[3] and near(leader, other, 0.5)]
        group = [leader, *close]
        for other in left:
            if other not in close and other[3] and leader[3] and all(near(other, member) for member in group):
                group.append(other)
        left = [other for other in left if other not in group]
        groups.append([at for at, content in enumerate(contents) if content in group])
    return sorted(group for group in groups if len(group) > 1)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.sampled_from([0, 1, 2, 6, 64]))
def test_groups_match_a_slow_search(data, near_distance):
    values, levels = st.sampled_from([0, 1, 3, 15, 255, 2**63, 2**64 - 1]), st.sampled_from([0, 6, 7, 12, 13, 18, 90])
    looks = data.draw(st.lists(st.tuples(values, levels, st.booleans()), min_size=1, max_size=9))
    content = [(str(number), *look) for number, look in enumerate(looks)]
    files = data.draw(st.lists(st.sampled_from(content), max_size=25))
    digests, hashes, level, has_contrast = (list(column) for column in zip(*files, strict=True)) if files else [[]] * 4
    hashes = np.array(hashes, dtype=np.uint64)
    arrays = hashes, flat_thumbnails(level), np.array(has_contrast, dtype=bool)
    groups = find_duplicates(digests, *arrays, near_distance)
    assert [group.members for group in groups] == slow_groups(files, near_distance)
    for group in groups:
        first = int(hashes[group.members[0]])
        assert group.distance == [bin(first ^ int(hashes[member])).count("1") for member in group.members]
        assert group.is_exact == [digests.count(digests[member]) > 1 for member in group.members]


def test_groups_over_more_than_one_block():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 5000, dtype=np.uint64)
    hashes[[4999, 2500]] = hashes[7] ^ np.array([0b111, 0b11000], dtype=np.uint64)
    digests = [str(i) for i in range(5000)]
    digests[4321], hashes[4321] = digests[12], hashes[12]
    found = find_duplicates(digests, hashes, flat_thumbnails([0] * 5000), YES[:5000])
    assert [group.members for group in found] == [[7, 2500, 4999], [12, 4321]]


def test_many_copies_of_one_picture_are_one_group():
    digests, hashes = ["same"] * 30_000 + ["other"], np.zeros(30_001, dtype=np.uint64)
    [group] = find_duplicates(digests, hashes, flat_thumbnails([0] * 30_001), YES[:30_001])
    assert len(group.members) == 30_001
    assert group.is_exact == [True] * 30_000 + [False]


def test_many_pictures_that_are_all_near_are_one_group():
    """12 million pairs, of which none needs to be kept."""
    hashes = np.unique(np.random.default_rng(0).integers(0, 2**16, 40_000, dtype=np.uint64))[:5000]
    digests, same = [str(value) for value in hashes], flat_thumbnails([0] * 5000)
    tracemalloc.start()
    [group] = find_duplicates(digests, hashes, same, YES[:5000], near_distance=16)
    assert len(group.members) == 5000
    assert tracemalloc.get_traced_memory()[1] < 150e6
    tracemalloc.stop()


@pytest.mark.fault(
    "Photos",
    "pictures that are each alike to the next, but not to the last",
    "one group only where every two are alike",
)
def test_a_chain_of_near_pairs_is_not_one_group():
    """Each of seven differs from the next by 4 bits, and the first from the last by 24."""
    hashes = np.array([sum(1 << bit for bit in range(4 * number)) for number in range(7)], dtype=np.uint64)
    found = find_duplicates([*"abcdefg"], hashes, flat_thumbnails([0] * 7), YES[:7])
    assert [group.members for group in found] == [[0, 1], [2, 3], [4, 5]]


def page(number):
    """A page of one layout: a bar, a field of its own colour and lines of its own lengths."""
    random = np.random.default_rng(number)
    picture = Image.new("RGB", (200, 200), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, 200, 60), fill=(20, 60, 140))
    draw.rectangle((15, 75, 100, 180), fill=tuple(random.integers(0, 200, 3).tolist()))
    for y in range(80, 180, 14):
        draw.rectangle((120, y, 120 + int(random.integers(5, 70)), y + 5), fill=(70, 70, 70))
    return picture


@pytest.mark.fault(
    "Photos",
    "different pictures of one layout (products, scans)",
    "not called alike: thumbnails are compared as well as hashes",
)
def test_different_pictures_of_one_layout_are_not_one_picture():
    pages = [page(number) for number in range(40, 70)]
    hashes = hashes_of(pages)
    num_near = (hash_distance(hashes, hashes) <= NEAR_DISTANCE).sum(axis=1)
    assert (num_near > 1).sum() > 20  # so that the hash alone would call most of them the same as another
    assert groups_of([*pages, as_jpeg(pages[3], 60)]) == [[3, 30]]


def test_real_copies_are_found(shared_data):
    """Real photos that Stanford Dogs has twice, some under two breeds: the eight pairs that differ most, and others."""
    folder = shared_data / "stanford-dogs-crops" / "Images"
    names = (
        "n02085782_313", "n02086646_280", "n02085782_2459", "n02097474_1962", "n02102480_4322", "n02102480_6593",
        "n02102480_5734", "n02102480_6020", "n02105056_3499", "n02105056_961", "n02111500_2863", "n02111500_3548",
        "n02101556_4965", "n02101556_4994", "n02088094_3620", "n02088094_8682", "n02105505_3933", "n02105505_4325",
        "n02102480_6283", "n02102480_7850", "n02085782_1039",
    )  # fmt: skip
    paths = [next(folder.rglob(f"{name}.jpg"), None) for name in names]
    if None in paths:
        pytest.skip("the crops differ")
    assert groups_of([Image.open(path) for path in paths]) == [[at, at + 1] for at in range(0, 20, 2)]


@pytest.mark.parametrize("near_distance", [-1, 65])
def test_refuses_a_distance_that_cannot_be(near_distance):
    with pytest.raises(ValueError, match=f"^near_distance: got {near_distance}, expected 0 <= near_distance <= 64$"):
        find_duplicates(["a"], np.zeros(1, dtype=np.uint64), flat_thumbnails([0]), YES[:1], near_distance)
