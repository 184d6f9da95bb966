"""decode_files against PIL: the same pixels, the same verdict on what is bad, nothing lost and nothing fatal."""

import errno
import gc
import multiprocessing
import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.decoding.files import Decoder, _File, decode_files
from pipelines.decoding.jpeg import is_whole_jpeg
from pipelines.decoding.pil import BadImageError, open_rgb
from tests.support.picture_files import KINDS, OTHERS, encoded, picture, write


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


@pytest.mark.parametrize("kind", [*KINDS, *OTHERS])
def test_pixels_equal_pils(tmp_path, kind):
    [path] = write(tmp_path, [(KINDS | OTHERS)[kind]])
    [file] = assert_as_pil([path])
    assert file.problem is None
    assert file.encoded == path.read_bytes()


def segment(marker, payload):
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def before_scan(data, inserted):
    at = data.index(b"\xff\xda")
    return data[:at] + inserted + data[at:]


def with_frame(data, marker):
    return data.replace(b"\xff\xc0", bytes([0xFF, marker]), 1)


GREY, COLOUR, PROGRESSIVE = KINDS["grey"], KINDS["4:2:0"], KINDS["progressive"]
SCAN_OF_GREY = GREY[GREY.index(b"\xff\xda") : -2]
FRAME_OF_GREY = GREY[(at := GREY.index(b"\xff\xc0")) : at + 13]
WHOLE = {
    **KINDS,
    "CMYK": OTHERS["CMYK"],
    "something after the end": COLOUR + b"\xff\xd8 and more",
    "a comment": before_scan(COLOUR, segment(0xFE, b"\xff\xd9\xff\xda")),
}
NOT_WHOLE = {
    "nothing": b"",
    "a start": b"\xff\xd8",
    "no scan": COLOUR[: COLOUR.index(b"\xff\xda")] + b"\xff\xd9",
    "no frame": GREY.replace(FRAME_OF_GREY, b""),
    "no end": COLOUR[:-2],
    "half an end": COLOUR[:-1],
    "cut in the scan": COLOUR[:-40],
    "cut in a segment": COLOUR[:30],
    "junk between segments": before_scan(COLOUR, b"junk"),
    "a marker in the scan": COLOUR[:-30] + b"\xff\xc4" + COLOUR[-28:],
    "two frames": before_scan(GREY, FRAME_OF_GREY),
    "a component in two scans": GREY[:-2] + SCAN_OF_GREY + b"\xff\xd9",
    "lossless": with_frame(COLOUR, 0xC3),
    "arithmetic": with_frame(COLOUR, 0xC9),
    "a frame without components": before_scan(GREY.replace(FRAME_OF_GREY, b""), segment(0xC0, b"\x08\0\1")),
    **{kind: content for kind, content in OTHERS.items() if kind != "CMYK"},
}


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_files_are_told(kind):
    assert is_whole_jpeg(WHOLE[kind])


@pytest.mark.parametrize("kind", NOT_WHOLE)
def test_files_that_are_not_whole_are_told(tmp_path, kind):
    assert not is_whole_jpeg(NOT_WHOLE[kind])
    assert_as_pil(write(tmp_path, [NOT_WHOLE[kind]]))


def test_dali_takes_the_usual_kinds_and_only_those(tmp_path):
    paths = write(tmp_path, (KINDS | OTHERS).values())
    takes = [_File(index=0, path=path).read().is_for_dali for path in paths]
    assert takes == [True] * len(KINDS) + [False] * len(OTHERS)


def test_a_header_that_pil_refuses_is_bad_though_dali_would_decode_it(tmp_path):
    """DALI does not read the application segments, PIL does."""
    jfif = COLOUR.index(b"\xff\xe0")
    short = COLOUR[:jfif] + segment(0xE0, b"JFIF\0") + COLOUR[jfif + 18 :]
    adobe = before_scan(COLOUR, segment(0xEE, b"Adobe\0d"))
    for content in (short, adobe):
        assert is_whole_jpeg(content)
    assert_as_pil(write(tmp_path, [short, adobe, COLOUR]))


def test_real_photos_equal_pils(shared_data):
    paths = sorted((shared_data / "stanford-dogs-mini" / "Images").rglob("*.jpg"))[::4]
    assert len(paths) > 150
    assert all(_File(index=0, path=path).read().is_for_dali for path in paths)
    assert_as_pil(paths)


@pytest.mark.filterwarnings("error")
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


@pytest.mark.fault("Photos", "a file at which DALI gives up", "PIL has the last word on it, and no other file is lost")
def test_a_file_at_which_dali_gives_up_costs_no_other(tmp_path, caplog):
    good = [encoded(picture(60 + seed, 40, seed=seed)) for seed in range(23)]
    bad = {3, 9, 10, 22}
    contents = [undefined_huffman_table(data) if i in bad else data for i, data in enumerate(good)]
    assert all(map(is_whole_jpeg, contents))
    files = assert_as_pil(write(tmp_path, contents), batch_size=4)
    assert {file.index for file in files if file.problem} == bad
    assert "DALI stopped (" in caplog.text


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


@pytest.mark.fault("Photos", "a header that claims more pixels than memory holds", "refused by the header alone")
def test_a_header_that_claims_too_much_is_refused(tmp_path):
    data = bytearray(encoded(picture(40, 30)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    [file] = decoded(write(tmp_path, [bytes(data)]))
    assert file.problem.startswith("more than 178,956,970 px, the limit, ")


def test_pixels_outlive_the_pass(tmp_path):
    paths = write(tmp_path, [encoded(picture(90, 70, seed=seed)) for seed in range(40)])
    held = decoded(paths, batch_size=3)
    for path, file in zip(paths, held, strict=True):
        np.testing.assert_array_equal(file.image.numpy(), pil_pixels(path))


def test_an_abandoned_pass_leaves_no_thread(tmp_path):
    def num_threads():
        gc.collect()
        return len(list(Path("/proc/self/task").iterdir()))

    paths = write(tmp_path, [encoded(picture(90, 70, seed=seed)) for seed in range(40)])
    decoded(paths)  # starts what stays: PyTorch's own threads
    before = num_threads()
    for _ in range(3):
        files = decode_files(paths, batch_size=3)
        next(files)
        assert num_threads() > before
        files.close()
        del files
    assert num_threads() <= before


def test_large_images_come_in_smaller_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.decoding.files._MAX_BATCH_PX", 100 * 100)
    sides = [50, 50, 50, 50, 50, 200, 10, 10, 10, 10, 99, 99]
    contents = [encoded(picture(side, side), "PNG" if i % 3 == 2 else "JPEG") for i, side in enumerate(sides)]
    paths = write(tmp_path, contents)
    batches = list(decode_files(paths, batch_size=3))
    found = [[file.image.shape[0] for file in files] for files in batches]
    assert found == [[50, 50, 50], [50, 50], [200], [10, 10, 10], [10, 99], [99]]
    assert_as_pil(paths, batch_size=3)


@pytest.mark.parametrize(
    "error", [RuntimeError("can't start new thread"), MemoryError(), OSError(24, "Too many open files")]
)
def test_what_says_nothing_of_a_file_ends_the_pass(tmp_path, monkeypatch, error):
    """A file that was not read is not bad, and none may go missing without a word."""
    paths = write(tmp_path, [encoded(picture(30, 20))] * 40)
    read = _File.read

    def failing(self, **options):
        if self.index == 17:
            raise error
        return read(self, **options)

    monkeypatch.setattr(_File, "read", failing)
    with pytest.raises(type(error)):
        decoded(paths, batch_size=4)


@pytest.mark.fault(
    "Machine and environment",
    "no memory or descriptors left while files are decoded",
    "the pass ends with that reason; no file is called bad for it",
)
def test_an_exhausted_system_is_not_a_bad_file(tmp_path, monkeypatch):
    [path] = write(tmp_path, [encoded(picture(30, 20))])

    def exhausted(path):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("pipelines.decoding.files.read_file", exhausted)
    with pytest.raises(OSError, match="Too many open files"):
        decoded([path])


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


def test_a_gpu_that_fails_again_and_again_is_not_the_files_fault(tmp_path, monkeypatch, caplog):
    path = tmp_path / "good.jpg"
    Image.new("RGB", (8, 8)).save(path)
    decoder = Decoder(batch_size=1, num_threads=1, device=torch.device("cuda:0"))

    def fail():
        decoder._next_encoded()
        raise RuntimeError("CUDA out of memory\nand a trace")

    monkeypatch.setattr(decoder, "_run", fail)
    monkeypatch.setattr(decoder, "_finish", lambda files: [file.finished() for file in files])
    with pytest.raises(RuntimeError, match="out of memory"):
        list(decoder.decode([path] * 5))
    assert "DALI stopped (CUDA out of memory and a trace); PIL decodes" in caplog.text


@pytest.mark.parametrize("is_closed", [True, False])
def test_nothing_of_dali_is_left_for_a_forked_process_to_end(tmp_path, is_closed):
    """It would wait there for threads that the fork has not taken along, and crash."""
    path = tmp_path / "good.jpg"
    Image.new("RGB", (8, 8)).save(path)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            decoder = Decoder(batch_size=1, num_threads=1)
            next(decoder.decode([path] * 5))
            if is_closed:
                decoder.close()
            del decoder
        forked = multiprocessing.get_context("fork").Process(target=gc.collect)
        forked.start()
        forked.join(60)
    finally:
        gc.enable()
    assert forked.exitcode == 0


def quarters(positions, sizes):
    """A box of about a quarter of each image, another one for each position."""
    random = np.random.default_rng(len(positions))
    shape = np.maximum(1, sizes * random.uniform(0.2, 0.8, sizes.shape)).astype(np.int64)
    return np.concatenate([random.integers(0, sizes - shape + 1), shape], axis=1)


@pytest.mark.parametrize("kinds", [KINDS, OTHERS], ids=["jpeg", "others"])
def test_a_part_has_the_pixels_of_the_whole(tmp_path, kinds):
    paths, asked = write(tmp_path, kinds.values()), {}

    def parts(positions, sizes):
        boxes = quarters(positions, sizes)
        asked.update(zip(positions.tolist(), boxes.tolist(), strict=True))
        return boxes

    with Decoder(batch_size=4, num_threads=2, in_parts=True) as decoder:
        for _ in range(3):
            files = [file for files in decoder.decode(paths, parts) for file in files]
            for path, file in zip(paths, files, strict=True):
                top, left, height, width = asked[file.index]
                expected = pil_pixels(path)[top : top + height, left : left + width]
                np.testing.assert_array_equal(file.image.numpy(), expected, err_msg=str(path))


def test_parts_of_real_photos_and_of_hard_ones(shared_data):
    """Wherever a part lies: its edges fall between the blocks of a JPEG, whose chroma is interpolated across."""
    paths = sorted((shared_data / "stanford-dogs-mini" / "Images").rglob("*.jpg"))[::16]
    paths += sorted(path for path in (shared_data / "hard-images").rglob("*.jpg"))
    whole, asked = decoded(paths), {}

    def parts(positions, sizes):
        boxes = quarters(positions, sizes)
        asked.update(zip(positions.tolist(), boxes.tolist(), strict=True))
        return boxes

    with Decoder(batch_size=8, num_threads=2, in_parts=True) as decoder:
        found = [file for files in decoder.decode(paths, parts) for file in files]
    assert sum(file.image is not None for file in found) > 60
    for one, other in zip(whole, found, strict=True):
        assert (one.problem, one.index) == (other.problem, other.index)
        if one.image is not None:
            top, left, height, width = asked[one.index]
            assert torch.equal(other.image, one.image[top : top + height, left : left + width]), one.path
