"""decode_files against PIL: the same pixels, the same verdict on what is bad, nothing lost and nothing fatal."""

import io
import os
import random
import struct
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.batch import BadImageError, open_rgb
from pipelines.decode import decode_files, is_plain_jpeg


def picture(width, height, mode="RGB", seed=0):
    """Smooth colours with some noise, as photos have."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noisy = np.clip(pixels + rng.integers(-8, 9, pixels.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(noisy).convert(mode)


def encoded(image, file_format="JPEG", **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def write(folder, contents):
    paths = []
    for number, content in enumerate(contents):
        paths.append(folder / f"{number:04d}.jpg")
        paths[-1].write_bytes(content)
    return paths


def decoded(paths, **options):
    return [file for files in decode_files(paths, **options) for file in files]


def pil_pixels(path):
    """What PIL makes of a file, None where it refuses it."""
    try:
        return np.asarray(open_rgb(str(path)))
    except BadImageError:
        return None


def assert_as_pil(paths, **options):
    files = decoded(paths, **options)
    assert [file.index for file in files] == list(range(len(paths)))
    for path, file in zip(paths, files, strict=True):
        expected = pil_pixels(path)
        assert (file.problem is None) == (expected is not None), (path, file.problem)
        if expected is not None:
            assert file.image.dtype == torch.uint8
            np.testing.assert_array_equal(file.image.numpy(), expected, err_msg=str(path))
    return files


TURNED = Image.Exif()
TURNED[0x0112] = 6
KINDS = {
    "4:4:4": encoded(picture(83, 61), subsampling=0),
    "4:2:2": encoded(picture(83, 61), subsampling=1),
    "4:2:0": encoded(picture(83, 61), subsampling=2),
    "quality 1": encoded(picture(83, 61), quality=1),
    "quality 100": encoded(picture(83, 61), quality=100),
    "optimised": encoded(picture(83, 61), optimize=True),
    "progressive": encoded(picture(83, 61), progressive=True),
    "progressive grey": encoded(picture(83, 61, "L"), progressive=True),
    "grey": encoded(picture(83, 61, "L")),
    "restart markers": encoded(picture(83, 61), restart_marker_blocks=2),
    "RGB inside": encoded(picture(83, 61), keep_rgb=True),
    "turned by EXIF": encoded(picture(83, 61), exif=TURNED),
    "comment": encoded(picture(83, 61), comment=b"\xff\xd9 \xff\xda not markers"),
    "large": encoded(picture(1200, 900)),
    "one pixel": encoded(picture(1, 1)),
    "one row": encoded(picture(300, 1)),
    "one column": encoded(picture(1, 300)),
}
OTHERS = {
    "CMYK": encoded(picture(83, 61, "CMYK")),
    "PNG": encoded(picture(83, 61), "PNG"),
    "PNG with alpha": encoded(picture(83, 61, "RGBA"), "PNG"),
    "PNG with palette": encoded(picture(83, 61, "P"), "PNG"),
    "GIF": encoded(picture(83, 61, "P"), "GIF"),
    "BMP": encoded(picture(83, 61), "BMP"),
    "WebP": encoded(picture(83, 61), "WEBP"),
    "TIFF": encoded(picture(83, 61), "TIFF"),
}


@pytest.mark.parametrize("kind", [*KINDS, *OTHERS])
def test_pixels_equal_pils(tmp_path, kind):
    [path] = write(tmp_path, [(KINDS | OTHERS)[kind]])
    [file] = assert_as_pil([path])
    assert file.problem is None
    assert file.encoded == path.read_bytes()


def test_dali_takes_the_usual_kinds_and_only_those():
    assert {kind: is_plain_jpeg(content) for kind, content in KINDS.items()} == dict.fromkeys(KINDS, True)
    assert {kind: is_plain_jpeg(content) for kind, content in OTHERS.items()} == dict.fromkeys(OTHERS, False)


def test_real_photos_equal_pils(shared_data):
    paths = sorted((shared_data / "stanford-dogs-mini" / "Images").rglob("*.jpg"))[::4]
    assert len(paths) > 150
    assert all(is_plain_jpeg(path.read_bytes()) for path in paths)
    assert_as_pil(paths)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_hard_images_have_pils_verdict(shared_data):
    paths = sorted(path for path in (shared_data / "hard-images").rglob("*") if path.suffix in (".jpg", ".jpeg"))
    assert len(paths) == 141
    files = assert_as_pil(paths, batch_size=8)
    assert sum(file.problem is not None for file in files) > 60


DAMAGES = {
    "truncated": lambda data, at, rng: data[:at],
    "bits flipped": lambda data, at, rng: data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :],
    "zeros": lambda data, at, rng: data[:at] + bytes(64) + data[at + 64 :],
    "marker": lambda data, at, rng: data[:at] + bytes([0xFF, rng.randrange(256)]) + data[at + 2 :],
    "inserted": lambda data, at, rng: data[:at] + rng.randbytes(20) + data[at:],
    "no end": lambda data, at, rng: data[:-2],
    "tail": lambda data, at, rng: data + rng.randbytes(at % 50),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_have_pils_verdict(tmp_path, damage):
    rng = random.Random(damage)
    whole = [encoded(picture(160, 120, seed=seed), progressive=seed % 3 == 2) for seed in range(6)]
    contents = [DAMAGES[damage](data, rng.randrange(2, len(data) - 1), rng) for data in whole * 8]
    assert_as_pil(write(tmp_path, contents), batch_size=7)


def undefined_huffman_table(data):
    """Make the scan ask for a table that is not there: the markers are those of a whole file, decoding fails."""
    at = data.index(b"\xff\xda") + 6
    return data[:at] + b"\x33" + data[at + 1 :]


def test_a_file_at_which_dali_gives_up_costs_no_other(tmp_path, caplog):
    good = [encoded(picture(60 + seed, 40, seed=seed)) for seed in range(23)]
    bad = {3, 9, 10, 22}
    contents = [undefined_huffman_table(data) if i in bad else data for i, data in enumerate(good)]
    assert all(map(is_plain_jpeg, contents))
    files = assert_as_pil(write(tmp_path, contents), batch_size=4)
    assert {file.index for file in files if file.problem} == bad
    assert "DALI gave up" in caplog.text


@pytest.mark.parametrize("batch_size", [1, 4, 5, 100])
def test_batches_keep_the_order_where_dali_and_pil_take_turns(tmp_path, batch_size):
    contents = [encoded(picture(30 + i, 20), "PNG" if i % 7 in (1, 2, 3, 4, 5) else "JPEG") for i in range(21)]
    contents[8] = b""
    paths = write(tmp_path, contents)
    batches = list(decode_files(paths, batch_size=batch_size))
    assert [len(files) for files in batches] == [
        len(range(at, min(at + batch_size, 21))) for at in range(0, 21, batch_size)
    ]
    assert [file.index for files in batches for file in files] == list(range(21))
    assert [file.image.shape[1] if file.image is not None else None for files in batches for file in files] == [
        None if i == 8 else 30 + i for i in range(21)
    ]


def test_files_that_none_can_open(tmp_path):
    contents = [b"", b"not an image", encoded(picture(40, 30))[:500]]
    paths = [*write(tmp_path, contents), tmp_path / "absent.jpg", tmp_path]
    problems = [file.problem for file in decoded(paths)]
    assert problems[:2] == ["an empty file", "not an image"]
    assert "truncated" in problems[2].lower()
    assert problems[3:] == ["No such file or directory", "Is a directory"]
    assert all(file.image is None for file in decoded(paths))


def test_a_header_that_claims_too_much_allocates_nothing(tmp_path):
    data = bytearray(encoded(picture(40, 30)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    [file] = decoded(write(tmp_path, [bytes(data)]))
    assert "exceeds limit" in file.problem


def test_pixels_outlive_the_pass(tmp_path):
    paths = write(tmp_path, [encoded(picture(90, 70, seed=seed)) for seed in range(40)])
    held = decoded(paths, batch_size=3)
    for path, file in zip(paths, held, strict=True):
        np.testing.assert_array_equal(file.image.numpy(), pil_pixels(path))


def test_an_abandoned_pass_leaves_no_thread(tmp_path):
    paths = write(tmp_path, [encoded(picture(90, 70, seed=seed)) for seed in range(40)])
    before = threading.active_count()
    files = decode_files(paths, batch_size=3)
    next(files)
    files.close()
    assert threading.active_count() == before


def test_nothing_to_decode():
    assert list(decode_files([])) == []


@pytest.mark.parametrize("name", ["batch_size", "num_threads"])
def test_refuses_settings_below_one(name):
    with pytest.raises(ValueError, match=f"^{name}: got 0, expected an integer >= 1$"):
        decode_files([], **{name: 0})


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(tmp_path):
    [path] = write(tmp_path, [encoded(picture(40, 30))])
    path.chmod(0)
    assert decoded([path])[0].problem == "Permission denied"
